//! Transactions on a bare server of several shards.

use crate::commands::bare::Bare;
use crate::journal::Record;
use crate::net::client::ClientState;
use crate::units::{DbIndex, Ms};

/// Runs calls written as one line each and returns their replies, joined.
fn run(bare: &mut Bare, client: &mut ClientState, calls: &[&str]) -> String {
    let mut replies = String::new();
    for call in calls {
        let words: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
        replies.push_str(&String::from_utf8_lossy(&bare.call(client, &words)));
    }
    replies
}

fn records(bare: &mut Bare) -> Vec<Record> {
    let shards = bare.held.iter_mut().flatten();
    let mut records: Vec<Record> = shards.flat_map(|shard| shard.journal.take()).collect();
    records.sort_by_key(|record| record.clock);
    records
}

const QUEUED: &str = "+QUEUED\r\n";

#[test]
fn exec_over_several_shards_replies_in_order() {
    let mut bare = Bare::new(4, 1);
    let client = &mut bare.client();
    let calls = ["MULTI", "SET a 1", "SET b 2", "SET c 3", "GET a", "INCR b", "APPEND c x"];
    let want = format!("+OK\r\n{}", QUEUED.repeat(6));
    assert_eq!(run(&mut bare, client, &calls), want);
    let want = "*6\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\n1\r\n:3\r\n:2\r\n";
    assert_eq!(run(&mut bare, client, &["EXEC"]), want);
    assert_eq!(run(&mut bare, client, &["GET c"]), "$2\r\n3x\r\n");
}

#[test]
fn exec_of_nothing_is_an_empty_array() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, &["MULTI", "EXEC"]), "+OK\r\n*0\r\n");
}

#[test]
fn exec_and_discard_without_multi_are_errors() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, &["EXEC"]), "-ERR EXEC without MULTI\r\n");
    assert_eq!(run(&mut bare, client, &["DISCARD"]), "-ERR DISCARD without MULTI\r\n");
}

#[test]
fn multi_and_watch_within_multi_are_errors_that_do_not_abort() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let want = "+OK\r\n-ERR MULTI calls can not be nested\r\n\
                -ERR WATCH inside MULTI is not allowed\r\n*0\r\n";
    assert_eq!(run(&mut bare, client, &["MULTI", "MULTI", "WATCH x", "EXEC"]), want);
}

#[test]
fn refused_call_aborts_the_transaction() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    for refused in ["SET a", "NOSUCH", "SHUTDOWN", "CLIENT NOSUCH", "CLIENT ID x"] {
        run(&mut bare, client, &["MULTI", "SET a 1", refused]);
        assert_eq!(run(&mut bare, client, &["EXEC"]), aborted, "{refused}");
        assert_eq!(run(&mut bare, client, &["GET a"]), "$-1\r\n", "{refused}");
    }
    let refused = run(&mut bare, client, &["MULTI", "SHUTDOWN"]);
    assert_eq!(refused, "+OK\r\n-ERR Command not allowed inside a transaction\r\n");
}

#[test]
fn exec_that_is_refused_itself_ends_the_transaction() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let want = "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' \
                command\r\n";
    assert_eq!(run(&mut bare, client, &["EXEC x"]), want);
    run(&mut bare, client, &["WATCH k", "MULTI", "SET k 1"]);
    assert_eq!(run(&mut bare, client, &["EXEC x"]), want);
    assert_eq!(run(&mut bare, client, &["EXEC"]), "-ERR EXEC without MULTI\r\n");
    assert!(client.watching.is_none());
}

#[test]
fn error_of_one_call_leaves_the_others_alone() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    run(&mut bare, client, &["SET s text", "MULTI", "SET a 1", "INCR s", "SET b 2"]);
    let want = "*3\r\n+OK\r\n-ERR value is not an integer or out of range\r\n+OK\r\n";
    assert_eq!(run(&mut bare, client, &["EXEC"]), want);
    assert_eq!(run(&mut bare, client, &["GET b"]), "$1\r\n2\r\n");
}

#[test]
fn select_and_hello_within_a_transaction_hold_from_then_on() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    run(&mut bare, client, &["MULTI", "SELECT 3", "SET k v", "HELLO 3", "GET none"]);
    let reply = run(&mut bare, client, &["EXEC"]);
    assert!(reply.starts_with("*4\r\n+OK\r\n+OK\r\n%7\r\n"), "{reply}");
    assert!(reply.ends_with("$7\r\nmodules\r\n*0\r\n_\r\n"), "{reply}");
    assert_eq!((client.db, bare.len(DbIndex(3)), bare.len(DbIndex(0))), (DbIndex(3), 1, 0));
}

#[test]
fn watched_key_that_changes_makes_exec_null() {
    let mut bare = Bare::new(4, 1);
    let (one, other) = (&mut bare.client(), &mut bare.client());
    for change in ["SET k 2", "DEL k", "INCR k", "EXPIRE k 100", "FLUSHALL"] {
        run(&mut bare, one, &["SET k 1", "WATCH j k", "MULTI", "SET a 1"]);
        run(&mut bare, other, &[change]);
        assert_eq!(run(&mut bare, one, &["EXEC"]), "*-1\r\n", "{change}");
        assert!(one.watching.is_none() && one.multi.is_none());
    }
    run(&mut bare, one, &["HELLO 3", "WATCH k"]);
    run(&mut bare, other, &["SET k 2"]);
    assert_eq!(run(&mut bare, one, &["MULTI", "EXEC"]), "+OK\r\n_\r\n");
}

#[test]
fn watched_key_that_others_read_does_not_matter() {
    let mut bare = Bare::new(2, 1);
    let (one, other) = (&mut bare.client(), &mut bare.client());
    run(&mut bare, one, &["SET k 1", "WATCH k", "MULTI", "SET k 2"]);
    run(&mut bare, other, &["GET k", "SELECT 1", "SET k 9", "SELECT 0", "SET z 1"]);
    assert_eq!(run(&mut bare, one, &["EXEC"]), "*1\r\n+OK\r\n");
}

#[test]
fn watch_ends_with_exec_discard_unwatch_and_reset() {
    let mut bare = Bare::new(2, 1);
    let (one, other) = (&mut bare.client(), &mut bare.client());
    for end in [&["MULTI", "EXEC"][..], &["MULTI", "DISCARD"], &["UNWATCH"], &["RESET"]] {
        run(&mut bare, one, &["WATCH k"]);
        run(&mut bare, one, end);
        run(&mut bare, other, &["SET k 2"]);
        assert_eq!(
            run(&mut bare, one, &["MULTI", "PING", "EXEC"]),
            "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"
        );
    }
}

#[test]
fn watch_of_the_same_key_again_takes_no_more_room() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    run(&mut bare, client, &["WATCH a b a", "WATCH a", "SELECT 1", "WATCH a"]);
    assert_eq!(client.watching.as_ref().map(|w| w.keys.len()), Some(3));
}

#[test]
fn aborted_transaction_with_a_lost_watch_says_aborted() {
    let mut bare = Bare::new(2, 1);
    let (one, other) = (&mut bare.client(), &mut bare.client());
    run(&mut bare, one, &["WATCH k", "MULTI", "NOSUCH"]);
    run(&mut bare, other, &["SET k 1"]);
    assert!(run(&mut bare, one, &["EXEC"]).starts_with("-EXECABORT"));
}

#[test]
fn watched_key_that_expires_makes_exec_null() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    for sweep in [false, true] {
        run(&mut bare, client, &["SET k 1 PX 10", "WATCH k", "MULTI", "PING"]);
        bare.now = Ms(bare.now.0 + 20);
        if sweep {
            bare.expire_all();
        }
        assert_eq!(run(&mut bare, client, &["EXEC"]), "*-1\r\n", "{sweep}");
    }
}

#[test]
fn key_that_had_expired_when_watched_does_not_matter() {
    let mut bare = Bare::new(2, 1);
    let (one, other) = (&mut bare.client(), &mut bare.client());
    for step in ["PING", "GET k", "DEL k", "FLUSHALL"] {
        run(&mut bare, one, &["SET k 1 PX 10"]);
        bare.now = Ms(bare.now.0 + 20);
        run(&mut bare, one, &["WATCH k", "MULTI", "PING"]);
        run(&mut bare, other, &[step]);
        bare.expire_all();
        assert_eq!(run(&mut bare, one, &["EXEC"]), "*1\r\n+PONG\r\n", "{step}");
    }
    run(&mut bare, one, &["SET k 1 PX 10"]);
    bare.now = Ms(bare.now.0 + 20);
    run(&mut bare, one, &["WATCH k", "MULTI", "PING"]);
    run(&mut bare, other, &["SET k 2"]);
    assert_eq!(run(&mut bare, one, &["EXEC"]), "*-1\r\n");
}

#[test]
fn transaction_is_one_journal_unit() {
    let mut bare = Bare::new(4, 1);
    let client = &mut bare.client();
    bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
    run(&mut bare, client, &["MULTI", "SET a 1", "MSET b 1 c 2", "GET a", "EXPIRE a 10", "EXEC"]);
    run(&mut bare, client, &["SET d 1"]);
    let records = records(&mut bare);
    let units: Vec<u64> = records.iter().map(|record| record.unit).collect();
    assert_eq!(records.len(), 5);
    assert!(units[..4].iter().all(|&unit| unit == units[0]) && units[4] != units[0], "{units:?}");
}

#[test]
fn oom_at_queue_time_aborts_where_nothing_can_be_evicted() {
    let mut bare = Bare::new(1, 1);
    let (client, other) = (&mut bare.client(), &mut bare.client());
    run(&mut bare, client, &["SET a 1", "MULTI", "SET a 2"]);
    bare.node.note_memory(10 << 20, 10 << 20);
    run(&mut bare, other, &["CONFIG SET maxmemory 1mb"]);
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(run(&mut bare, client, &["PING"]), oom);
    let why = "-EXECABORT Transaction discarded because of: OOM command not allowed when used \
               memory > 'maxmemory'.\r\n";
    assert_eq!(run(&mut bare, client, &["EXEC"]), why);
    run(&mut bare, other, &["CONFIG SET maxmemory 0"]);
    assert_eq!(
        run(&mut bare, client, &["MULTI", "GET a", "EXEC"]),
        "+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"
    );
}

#[test]
fn calls_within_a_transaction_are_counted() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    run(&mut bare, client, &["MULTI", "SET a 1", "GET a", "GET a", "CLIENT ID", "EXEC"]);
    let calls = |name: &[u8]| {
        let command = crate::commands::table::table().get(name).expect("it exists");
        bare.node.cores[0].commands[usize::from(command.id)].calls.get()
    };
    assert_eq!((calls(b"set"), calls(b"get")), (1, 2));
}

#[test]
fn client_commands_within_a_transaction_know_the_own_connection_only() {
    let mut bare = Bare::new(2, 1);
    let client = &mut bare.client();
    let id = client.id;
    let own = format!("CLIENT LIST ID {id}");
    run(&mut bare, client, &["MULTI", &own, "CLIENT LIST", "CLIENT UNBLOCK 999", "CLIENT INFO"]);
    let reply = run(&mut bare, client, &["EXEC"]);
    assert_eq!(reply.matches(&format!("id={id} ")).count(), 2, "{reply}");
    assert_eq!(reply.matches("-ERR other clients").count(), 2, "{reply}");
    let kill = format!("CLIENT KILL ID {id} SKIPME no");
    assert_eq!(run(&mut bare, client, &["MULTI", &kill, "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    assert!(client.close_after_reply);
}

#[test]
fn reply_off_within_a_transaction_silences_what_follows() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    run(&mut bare, client, &["MULTI", "PING", "CLIENT REPLY OFF", "SET a 1"]);
    assert_eq!(run(&mut bare, client, &["EXEC", "PING"]), "");
    assert_eq!(run(&mut bare, client, &["CLIENT REPLY ON", "GET a"]), "+OK\r\n$1\r\n1\r\n");
}

#[test]
fn sliced_commands_run_whole_within_a_transaction() {
    let mut bare = Bare::new(3, 1);
    let client = &mut bare.client();
    for i in 0..50 {
        run(&mut bare, client, &[&format!("SET key{i} {i}")]);
    }
    run(&mut bare, client, &["MULTI", "KEYS key*", "DBSIZE", "FLUSHALL", "DBSIZE"]);
    let reply = run(&mut bare, client, &["EXEC"]);
    assert!(reply.starts_with("*4\r\n*50\r\n"), "{reply}");
    assert!(reply.ends_with(":50\r\n+OK\r\n:0\r\n"), "{reply}");
}
