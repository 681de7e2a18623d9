//! `cordis-bench migrate` as a user runs it, without a cluster: what it refuses, and what it says
//! when a program does not do its part.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

fn migrate(options: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cordis-bench"));
    // The test of programs that are there must not depend on what was built.
    command.args(["migrate", "--server", "/bin/true"]).args(options.split_whitespace());
    command.output().unwrap()
}

fn refusal(options: &str) -> String {
    let output = migrate(options);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{options}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn migrate_wrong_options_are_refused_in_one_line() {
    for (options, part) in [
        ("--parts nothing", "invalid value 'nothing'"),
        ("--parts hop --proxy /nowhere/cordis-proxy", "--proxy: there is no program"),
        ("--parts move --cordis /nowhere/cordis", "--cordis: there is no program"),
        ("--repeats 0", "0 is not in"),
        ("--keys 0", "0 is not in"),
        ("--rate 0", "above 0"),
    ] {
        let text = refusal(options);
        assert!(text.contains(part), "{options}: {text}");
    }
}

#[test]
fn migrate_part_that_cannot_be_measured_is_named_and_fails_the_run() {
    let output = migrate("--parts idle --cordis /bin/false --no-save --json");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let failure = report["failures"][0].as_str().unwrap();
    assert!(failure.starts_with("cordis up: '/bin/false up --dir"), "{failure}");
    assert_eq!(report["idle"].as_array().unwrap().len(), 0);
}
