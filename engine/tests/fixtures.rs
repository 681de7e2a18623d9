//! Runs the fixture files `tests/commands/*.txt` against commands without sockets. Their expected
//! replies are recorded from Redis by `server/tests/fixtures.rs`.
//!
//! `FIXTURE=part-of-name` runs only the files whose path contains it.

mod common;

use std::collections::HashMap;

use common::fixture::{Target, check};
use cordis_engine::commands::bare::Bare;
use cordis_engine::net::client::ClientState;

/// A bare server with the connections that a fixture has opened.
struct BareTarget {
    shard_count: usize,
    bare: Bare,
    clients: HashMap<String, ClientState>,
}

impl BareTarget {
    fn new(shard_count: usize) -> Self {
        Self { shard_count, bare: Bare::new(shard_count, 7), clients: HashMap::new() }
    }
}

impl Target for BareTarget {
    fn is_redis(&self) -> bool {
        false
    }

    fn is_server(&self) -> bool {
        false
    }

    fn reset(&mut self) {
        *self = Self::new(self.shard_count);
    }

    fn call(&mut self, client: &str, words: &[Vec<u8>]) -> Vec<u8> {
        if !self.clients.contains_key(client) {
            self.clients.insert(client.to_owned(), self.bare.client());
        }
        let state = self.clients.get_mut(client).expect("it has just been inserted");
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.bare.call(state, &words)
    }

    fn send(&mut self, client: &str, words: &[Vec<u8>]) {
        // Whether a reply is suppressed is the session's business, which has the socket.
        self.call(client, words);
    }
}

#[test]
fn fixtures_on_one_shard_answer_as_redis() {
    check(&mut BareTarget::new(1));
}

#[test]
fn fixtures_on_three_shards_answer_as_redis() {
    check(&mut BareTarget::new(3));
}
