//! Runs the fixture files `engine/tests/commands/*.txt` against running servers: ours, and Redis,
//! which the expected replies come from.
//!
//! `UPDATE_EXPECT=1 cargo test -p cordis-server --test fixtures on_redis` writes what Redis answers into
//! the files; `FIXTURE=part-of-name` runs only the files whose path contains it.

mod common;

use std::collections::HashMap;

use common::client::Client;
use common::process::Process;
use common::shared::fixture::{self, Kind, Target, check};
use common::shared::words::line_of;

/// A server and the connections that a fixture has opened.
struct ServerTarget {
    process: Process,
    clients: HashMap<String, Client>,
}

impl ServerTarget {
    fn new(process: Process) -> Self {
        Self { process, clients: HashMap::new() }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        if !self.clients.contains_key(name) {
            self.clients.insert(name.to_owned(), self.process.client());
        }
        self.clients.get_mut(name).expect("it has just been inserted")
    }
}

impl Target for ServerTarget {
    fn is_redis(&self) -> bool {
        self.process.is_redis
    }

    fn is_server(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        self.clients.clear();
        assert_eq!(self.process.client().call("FLUSHALL"), b"+OK\r\n");
    }

    fn call(&mut self, client: &str, words: &[Vec<u8>]) -> Vec<u8> {
        let client = self.client(client);
        // A push comes beside replies; only these commands are answered by nothing else.
        let is_answered_by_push = words[0].to_ascii_lowercase().ends_with(b"subscribe");
        let mut all = Vec::new();
        let result = client.send_call(words).and_then(|()| {
            loop {
                let reply = client.read_reply()?;
                let is_push = reply.starts_with(b">") && !is_answered_by_push;
                all.extend(reply);
                if !is_push {
                    return Ok(());
                }
            }
        });
        match result {
            Ok(()) => all,
            Err(error) => panic!("{}: {error}\n{}", line_of(words), self.process.output()),
        }
    }

    fn send(&mut self, client: &str, words: &[Vec<u8>]) {
        let sent = self.client(client).send_call(words);
        sent.unwrap_or_else(|error| panic!("{}: {error}", line_of(words)));
    }
}

/// Writes what `target` answers into the files.
fn record(target: &mut ServerTarget) {
    for file in fixture::all() {
        let mut replies = Vec::new();
        fixture::run(&file, target, &mut |line, call, reply| {
            if matches!(call.kind, Kind::Compared | Kind::ServerOnly) {
                replies.push((line, reply.to_vec()));
            }
        });
        file.rewrite(&replies);
    }
}

#[test]
fn fixtures_on_redis_answer_as_recorded() {
    let mut target = ServerTarget::new(Process::redis(&[]));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        record(&mut target);
    } else {
        check(&mut target);
    }
}

#[test]
fn fixtures_on_one_core_answer_as_redis() {
    check(&mut ServerTarget::new(Process::cordis(1, &[])));
}

#[test]
fn fixtures_on_two_cores_answer_as_redis() {
    check(&mut ServerTarget::new(Process::cordis(2, &[])));
}

#[test]
fn fixtures_whose_calls_work_in_steps_answer_as_redis() {
    let process = Process::cordis(2, &[]);
    assert_eq!(process.client().call("DEBUG LONG-CALL-WORDS 0"), b"+OK\r\n");
    check(&mut ServerTarget::new(process));
}
