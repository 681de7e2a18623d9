//! SLOTSRESTORE: keys that a synchronous move brings. All payloads are looked at before any is
//! stored, and a key that is there is replaced, so that a move can be tried again.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event, Expiry};
use crate::commands::generic::restore::{Built, Payload, build_value, journal, store};
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Propagate, Purpose,
};
use crate::rdb::{Reader, footer};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::units::Ms;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "slotsrestore",
    family: Family::Slots,
    since: "codis 3.2",
    summary: "Stores keys that another server moves here, all or none",
    complexity: "O(N) with N elements in all values, O(N*log(N)) for sorted sets",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM),
    acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
    keys: &[KeySpec::range(Access::Overwrite, Purpose::Update, 1, -1, 3)],
    args: &[Arg::block(
        "value",
        &[
            Arg::key("key", 0),
            Arg::new("ttl", ArgKind::Integer),
            Arg::new("serialized-value", ArgKind::String),
        ],
    )
    .multiple()],
    is_internal: true,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(slotsrestore),
    ..CommandSpec::EMPTY
}];

fn slotsrestore(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !(args.len() - 1).is_multiple_of(3) {
        return Err(CommandError::wrong_arity(ctx.spec.name));
    }
    let values: Vec<(usize, i64, Built)> = (1..args.len())
        .step_by(3)
        .map(|at| Ok((at, parse_ttl(args, at + 1)?, build(ctx, args.at(at + 2))?)))
        .collect::<Result<_, CommandError>>()?;
    for (at, ttl_ms, built) in values {
        let key = ctx.key(args.at(at));
        // A moment, not a span: a replay must not start the clock again.
        let deadline = (ttl_ms > 0).then(|| Ms(ctx.now.0.saturating_add(ttl_ms)));
        store(ctx, key, built, deadline.map_or(Expiry::Clear, Expiry::At));
        ctx.modified(key, Event::Generic("restore"));
        journal(ctx, key, deadline, Payload::Word(args.at(at + 2)));
    }
    reply.ok();
    Ok(())
}

fn parse_ttl(args: &Args<'_>, index: usize) -> Result<i64, CommandError> {
    let ttl_ms = args.int(index)?;
    if ttl_ms < 0 { Err(CommandError::RESTORE_TTL) } else { Ok(ttl_ms) }
}

fn build(ctx: &Ctx<'_>, payload: &[u8]) -> Result<Built, CommandError> {
    let (body, _) = footer::open(payload).map_err(|_| CommandError::RESTORE_FOOTER)?;
    let built = Reader::new(body).and_then(|reader| build_value(reader, &ctx.limits()));
    built.map_err(|_| CommandError::RESTORE_FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::rdb::{Format, Limits, dump_payload};

    fn payload(text: &[u8]) -> Vec<u8> {
        dump_payload(Format::V7, Limits::PACKED, |writer| writer.string(text))
    }

    #[test]
    fn slotsrestore_replaces_keys_and_their_deadlines() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"RPUSH", b"a", b"old"]);
        bare.call(&mut client, &[b"SET", b"b", b"old", b"PX", b"50"]);
        let recorded = b"\x00\xc0\x02\x07\x00\x70\x90\x65\x4f\xf0\x1e\xab\xd1";
        let call: [&[u8]; 7] =
            [b"SLOTSRESTORE", b"a", b"5000", recorded, b"b", b"0", &payload(b"new")];
        assert_eq!(bare.call(&mut client, &call), b"+OK\r\n");
        assert_eq!(bare.call(&mut client, &[b"GET", b"a"]), b"$1\r\n2\r\n");
        assert_eq!(bare.call(&mut client, &[b"PTTL", b"a"]), b":5000\r\n");
        assert_eq!(bare.call(&mut client, &[b"GET", b"b"]), b"$3\r\nnew\r\n");
        assert_eq!(bare.call(&mut client, &[b"PTTL", b"b"]), b":-1\r\n");
    }

    #[test]
    fn slotsrestore_of_which_one_value_is_bad_stores_none() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        let good = payload(b"v");
        let mut flipped = good.clone();
        flipped[1] ^= 1;
        let mut not_whole = vec![0, 9];
        footer::seal(&mut not_whole, 7);
        let cases: [(&[u8], &[u8], &str); 5] = [
            (b"x", &good, "ERR value is not an integer or out of range"),
            (b"-1", &good, "ERR invalid ttl value, must be >= 0"),
            (b"0", &flipped, "ERR dump payload version or checksum are wrong"),
            (b"0", b"", "ERR dump payload version or checksum are wrong"),
            (b"0", &not_whole, "ERR bad data format"),
        ];
        for (ttl, value, error) in cases {
            let call: [&[u8]; 7] = [b"SLOTSRESTORE", b"a", b"0", &good, b"b", ttl, value];
            assert_eq!(bare.call(&mut client, &call), format!("-{error}\r\n").as_bytes());
            assert_eq!(bare.call(&mut client, &[b"EXISTS", b"a", b"b"]), b":0\r\n");
        }
        let call: [&[u8]; 5] = [b"SLOTSRESTORE", b"a", b"0", &good, b"b"];
        let error = b"-ERR wrong number of arguments for 'slotsrestore' command\r\n";
        assert_eq!(bare.call(&mut client, &call), error);
    }

    #[test]
    fn slotsrestore_is_journalled_by_moments() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        bare.held[0].as_mut().expect("it is held").journal.attach();
        bare.call(&mut client, &[b"SLOTSRESTORE", b"a", b"5000", &payload(b"v")]);
        let records = bare.held[0].as_mut().expect("it is held").journal.take();
        let call = records[0].call.args();
        assert_eq!(call.at(0), b"RESTORE");
        assert_eq!(call.at(2), (bare.now.0 + 5000).to_string().as_bytes());
        assert_eq!((call.at(4), call.at(5)), (&b"REPLACE"[..], &b"ABSTTL"[..]));
    }
}
