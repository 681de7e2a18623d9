//! What goes on: moves until they are over, `top`, events as they come.

use std::io::{IsTerminal, Write};
use std::thread::sleep;
use std::time::Duration;

use cordis_engine::resp::value::Value;

use super::link::{Link, Trouble};
use super::render;

/// How often moves are looked at.
const MOVES_EVERY: Duration = Duration::from_millis(200);
/// How often `top` and `events --follow` look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Width of a progress bar.
const BAR_WIDTH: usize = 30;

/// Follows the moves that an answer names until they are over.
pub(crate) fn moves(link: &mut Link, json: bool, answer: &Value) -> Result<(), Trouble> {
    let ids = move_ids(answer);
    if ids.is_empty() {
        render::print(answer, json);
        return Ok(());
    }
    let live = std::io::stderr().is_terminal() && !json;
    loop {
        let all = link.call(&["MOVE", "STATUS"])?;
        let rows: Vec<&Value> = all.as_array().unwrap_or_default().iter().collect();
        let ours: Vec<&Value> =
            rows.into_iter().filter(|row| ids.contains(&int(row, "id"))).collect();
        if live {
            show_bar(&ours);
        }
        let is_over = ours.iter().all(|row| is_over(row));
        if is_over {
            if live {
                eprint_line("");
            }
            let summary = Value::Array(ours.iter().map(|row| (*row).clone()).collect());
            render::print(&summary, json);
            return match ours.iter().find(|row| text(row, "state") != "finished") {
                None => Ok(()),
                Some(row) => Err(Trouble::Refused(format!(
                    "move {} is {}: {}",
                    int(row, "id"),
                    text(row, "state"),
                    text(row, "error")
                ))),
            };
        }
        sleep(MOVES_EVERY);
    }
}

/// The numbers of the moves in an answer: one map with `id`, or a list of them.
fn move_ids(answer: &Value) -> Vec<i64> {
    let one = |value: &Value| value.field("id").and_then(Value::as_int);
    match answer {
        Value::Array(items) => items.iter().filter_map(one).collect(),
        value => match value.field("moves") {
            Some(moves) => move_ids(moves),
            None => one(value).into_iter().collect(),
        },
    }
}

fn is_over(row: &Value) -> bool {
    matches!(text(row, "state"), "finished" | "cancelled" | "failed")
}

fn int(row: &Value, name: &str) -> i64 {
    row.field(name).and_then(Value::as_int).unwrap_or(0)
}

fn text<'v>(row: &'v Value, name: &str) -> &'v str {
    row.field(name).and_then(Value::as_text).unwrap_or_default()
}

fn show_bar(rows: &[&Value]) {
    let sum = |name: &str| rows.iter().map(|row| int(row, name)).sum::<i64>();
    let (done, total) = (sum("done_slots"), sum("total_slots"));
    let eta = rows.iter().map(|row| int(row, "eta_seconds")).max().unwrap_or(0);
    eprint_part(&bar_line(done, total, sum("keys"), sum("rate_keys_per_second"), eta));
}

fn bar_line(done: i64, total: i64, keys: i64, rate: i64, eta: i64) -> String {
    let filled = (done * BAR_WIDTH as i64 / total.max(1)).clamp(0, BAR_WIDTH as i64) as usize;
    format!(
        "[{}{}] {done}/{total} slots, {keys} keys, {rate} keys/s, {eta} s left",
        "#".repeat(filled),
        "-".repeat(BAR_WIDTH - filled)
    )
}

fn eprint_part(line: &str) {
    let mut err = std::io::stderr();
    let _ = write!(err, "\r\x1b[K{line}");
    let _ = err.flush();
}

fn eprint_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Shows samples until the terminal is closed.
pub(crate) fn top(link: &mut Link, json: bool, once: bool) -> Result<(), Trouble> {
    let live = std::io::stdout().is_terminal() && !json && !once;
    loop {
        let sample = link.call(&["TOP"])?;
        if live {
            let _ = write!(std::io::stdout(), "\x1b[H\x1b[2J");
        }
        render::print(&sample, json);
        if once {
            return Ok(());
        }
        sleep(LOOK_EVERY);
    }
}

/// Shows the last events, and those that come if asked to.
pub(crate) fn events(link: &mut Link, json: bool, count: u32, follow: bool) -> Result<(), Trouble> {
    let mut answer = link.call(&["EVENTS", "COUNT", &count.to_string()])?;
    if !follow {
        render::print(&answer, json);
        return Ok(());
    }
    let mut seen = 0;
    loop {
        for event in answer.as_array().unwrap_or_default() {
            seen = seen.max(int(event, "id"));
            if json {
                render::print(event, true);
            } else {
                let line = format!("{} {}", text(event, "kind"), text(event, "text"));
                render::print(&Value::text(line), false);
            }
        }
        sleep(LOOK_EVERY);
        answer = link.call(&["EVENTS", "SINCE", &seen.to_string()])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_found_in_every_form_of_answer() {
        let one = Value::Map(vec![(Value::text("id"), Value::Int(7))]);
        assert_eq!(move_ids(&one), [7]);
        assert_eq!(move_ids(&Value::Array(vec![one.clone(), one.clone()])), [7, 7]);
        let plan = Value::Map(vec![(Value::text("moves"), Value::Array(vec![one]))]);
        assert_eq!(move_ids(&plan), [7]);
        assert_eq!(move_ids(&Value::simple("OK")), [0; 0]);
    }

    #[test]
    fn bar_fills_up() {
        assert!(bar_line(0, 512, 0, 0, 0).starts_with("[------------------------------] 0/512"));
        assert!(bar_line(512, 512, 1, 1, 0).starts_with("[##############################] 512"));
        assert!(bar_line(0, 0, 0, 0, 0).contains("0/0 slots"));
    }
}
