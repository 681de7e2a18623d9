//! LOLWUT: a picture, and the version. The picture is a heart, for the name of the program; no two
//! are alike.

use crate::commands::args::{Args, is_token};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route,
};
use crate::node::REDIS_VERSION;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;

/// The command of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "lolwut",
    family: Family::Server,
    since: "5.0.0",
    summary: "Draws a picture and names the version",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: Flags::READONLY.union(Flags::FAST),
    args: &[Arg::new("version", ArgKind::Integer).with_token("VERSION").optional()],
    route: Route::Session,
    handler: Handler::Session(lolwut),
    ..CommandSpec::EMPTY
}];

/// Columns and rows if nobody says how many, and the most that are drawn.
const SIZE: (usize, usize) = (40, 17);
const SIZE_MAX: (usize, usize) = (200, 100);
/// Shades of the picture, light to dark.
const SHADES: &[u8] = b"..:+oO@#";

/// LOLWUT [VERSION version [columns [rows]]]
fn lolwut(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (columns, rows) = size(args)?;
    let seed = ctx.now.0 as u64 ^ ctx.client.id << 40;
    let mut text = heart(columns, rows, seed);
    text.push_str("\nCordis, cor, cordis: heart. Redis ver. ");
    text.push_str(REDIS_VERSION);
    text.push('\n');
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn size(args: &Args<'_>) -> Result<(usize, usize), CommandError> {
    if args.len() < 3 || !is_token(args.at(1), "version") {
        return Ok(SIZE);
    }
    let version = args.int(2)?;
    if !(5..=6).contains(&version) {
        return Ok(SIZE);
    }
    let sizes: Option<Vec<i64>> = args.iter_from(3).map(parse_i64).collect();
    let sizes = sizes.ok_or(CommandError::NOT_INTEGER)?;
    let clamp = |i: usize, default: usize, max: usize| {
        sizes.get(i).map_or(default, |&n| n.clamp(1, max as i64) as usize)
    };
    Ok((clamp(0, SIZE.0, SIZE_MAX.0), clamp(1, SIZE.1, SIZE_MAX.1)))
}

/// A heart, dark in the middle, with grain.
fn heart(columns: usize, rows: usize, seed: u64) -> String {
    let mut random = seed | 1;
    let mut text = String::with_capacity((columns + 1) * rows);
    for row in 0..rows {
        for column in 0..columns {
            // xorshift64, Marsaglia 2003: plenty for grain.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let x = (column as f64 + 0.5) / columns as f64 * 2.6 - 1.3;
            let y = 1.3 - (row as f64 + 0.5) / rows as f64 * 2.5;
            // The curve (x^2 + y^2 - 1)^3 = x^2 y^3; inside of it the difference is negative.
            let depth = -((x * x + y * y - 1.0).powi(3) - x * x * y.powi(3));
            let grain = (random % 100) as f64 / 100.0;
            let shade = (depth.max(0.0).cbrt() * SHADES.len() as f64 + grain) as usize;
            let mark = SHADES[shade.min(SHADES.len() - 1)];
            text.push(if depth < 0.0 { ' ' } else { char::from(mark) });
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn picture_ends_with_the_version() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let calls: [&[&[u8]]; 4] = [
            &[b"LOLWUT"],
            &[b"LOLWUT", b"VERSION"],
            &[b"LOLWUT", b"version", b"5", b"10", b"10", b"10"],
            &[b"LOLWUT", b"version", b"-1", b"x"],
        ];
        for call in calls {
            let reply = bare.call(&mut client, call);
            assert!(reply.ends_with(b"Redis ver. 7.0.15\n\r\n"), "{call:?}");
        }
        let reply = bare.call(&mut client, &[b"lolwut", b"version", b"abc"]);
        assert_eq!(reply, b"-ERR value is not an integer or out of range\r\n");
        let reply = bare.call(&mut client, &[b"lolwut", b"version", b"6", b"x"]);
        assert_eq!(reply, b"-ERR value is not an integer or out of range\r\n");
    }

    #[test]
    fn heart_of_any_size_has_its_rows() {
        for (columns, rows) in [(1, 1), (40, 17), SIZE_MAX] {
            assert_eq!(heart(columns, rows, 7).lines().count(), rows);
        }
    }
}
