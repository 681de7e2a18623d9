//! The connection family on a bare server.

use crate::commands::bare::Bare;
use crate::net::client::{ClientState, ReplyMode};
use crate::node::Pause;
use crate::units::{DbIndex, Ms};

/// Runs one call written as a line.
fn run(bare: &mut Bare, client: &mut ClientState, call: &str) -> String {
    let words: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
    String::from_utf8_lossy(&bare.call(client, &words)).into_owned()
}

fn with_password(bare: &mut Bare, password: &str) {
    let set = run(bare, &mut bare.client(), &format!("CONFIG SET requirepass {password}"));
    assert_eq!(set, "+OK\r\n");
}

const OK: &str = "+OK\r\n";
const WRONG_PASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

#[test]
fn select_out_of_range_keeps_the_database() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, "SELECT 15"), OK);
    let errors = [
        ("16", "-ERR DB index is out of range\r\n"),
        ("-1", "-ERR DB index is out of range\r\n"),
        ("256", "-ERR DB index is out of range\r\n"),
        ("x", "-ERR value is not an integer or out of range\r\n"),
        (
            "4294967296",
            "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
        ),
    ];
    for (index, error) in errors {
        assert_eq!(run(&mut bare, client, &format!("SELECT {index}")), error);
    }
    assert_eq!(client.db, DbIndex(15));
}

#[test]
fn auth_without_a_password_set_tells_so() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let reply = run(&mut bare, client, "AUTH x");
    assert!(reply.starts_with("-ERR AUTH <password> called without any password"), "{reply}");
    assert_eq!(run(&mut bare, client, "AUTH default x"), OK);
    assert_eq!(run(&mut bare, client, "AUTH joe x"), WRONG_PASS);
    assert_eq!(run(&mut bare, client, "AUTH a b c"), "-ERR syntax error\r\n");
}

#[test]
fn auth_with_the_password_lets_in() {
    let mut bare = Bare::new(1, 1);
    with_password(&mut bare, "secret");
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, "PING"), "-NOAUTH Authentication required.\r\n");
    let exec = run(&mut bare, client, "EXEC");
    let want = "-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n";
    assert_eq!(exec, want);
    for wrong in ["x", "secre", "secrets", "default secret2", "default sec", "joe secret"] {
        assert_eq!(run(&mut bare, client, &format!("AUTH {wrong}")), WRONG_PASS, "{wrong}");
    }
    assert_eq!(run(&mut bare, client, "AUTH secret"), OK);
    assert_eq!(run(&mut bare, client, "PING"), "+PONG\r\n");
    assert_eq!(run(&mut bare, client, "AUTH wrong"), WRONG_PASS);
    assert_eq!(run(&mut bare, client, "PING"), "+PONG\r\n");
    assert_eq!(run(&mut bare, client, "RESET"), "+RESET\r\n");
    assert_eq!(run(&mut bare, client, "PING"), "-NOAUTH Authentication required.\r\n");
}

#[test]
fn login_is_not_needed_any_more_once_the_password_is_gone() {
    let mut bare = Bare::new(1, 1);
    let other = &mut bare.client();
    with_password(&mut bare, "secret");
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, "PING"), "-NOAUTH Authentication required.\r\n");
    let set = bare.call(other, &[b"CONFIG", b"SET", b"requirepass", b""]);
    assert_eq!(set, b"+OK\r\n");
    assert_eq!(run(&mut bare, client, "PING"), "+PONG\r\n");
}

#[test]
fn hello_describes_in_the_protocol_it_sets() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let id = client.id;
    let map = |proto: u8| {
        format!(
            "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n\
             :{proto}\r\n$2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n\
             $6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        )
    };
    assert_eq!(run(&mut bare, client, "HELLO"), format!("*14\r\n{}", map(2)));
    assert_eq!(run(&mut bare, client, "HELLO 3 SETNAME joe"), format!("%7\r\n{}", map(3)));
    assert_eq!(run(&mut bare, client, "CLIENT GETNAME"), "$3\r\njoe\r\n");
    assert_eq!(run(&mut bare, client, "HELLO"), format!("%7\r\n{}", map(3)));
    assert_eq!(run(&mut bare, client, "GET none"), "_\r\n");
}

#[test]
fn hello_with_bad_words_is_an_error() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let errors = [
        ("1", "-NOPROTO unsupported protocol version\r\n"),
        ("4", "-NOPROTO unsupported protocol version\r\n"),
        ("x", "-ERR Protocol version is not an integer or out of range\r\n"),
        ("3 foo", "-ERR Syntax error in HELLO option 'foo'\r\n"),
        ("3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
        ("3 auth default", "-ERR Syntax error in HELLO option 'auth'\r\n"),
        ("3 auth joe x", WRONG_PASS),
        (
            "3 SETNAME a\tb",
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        ),
    ];
    for (words, error) in errors {
        assert_eq!(run(&mut bare, client, &format!("HELLO {words}")), error);
    }
    assert_eq!(run(&mut bare, client, "GET none"), "$-1\r\n");
}

#[test]
fn hello_before_login_is_refused_unless_it_logs_in() {
    let mut bare = Bare::new(1, 1);
    with_password(&mut bare, "secret");
    let client = &mut bare.client();
    assert!(run(&mut bare, client, "HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(run(&mut bare, client, "HELLO 3 AUTH default secret").starts_with("%7\r\n"));
}

#[test]
fn reset_brings_back_the_state_of_a_new_connection() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    for call in ["HELLO 3 SETNAME joe", "SELECT 2", "WATCH k", "MULTI", "SET k 1"] {
        run(&mut bare, client, call);
    }
    assert_eq!(run(&mut bare, client, "RESET"), "+RESET\r\n");
    assert!(client.multi.is_none() && client.watching.is_none() && client.authenticated);
    assert_eq!(run(&mut bare, client, "CLIENT GETNAME"), "$-1\r\n");
    assert_eq!(client.db, DbIndex(0));
    assert_eq!(run(&mut bare, client, "EXEC"), "-ERR EXEC without MULTI\r\n");
}

#[test]
fn info_shows_the_fields_of_redis_in_order() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    (client.addr, client.laddr) = ("1.2.3.4:5".into(), "6.7.8.9:10".into());
    run(&mut bare, client, "CLIENT SETNAME joe");
    bare.now = Ms(bare.now.0 + 61_000);
    let line = run(&mut bare, client, "CLIENT INFO");
    let names: Vec<&str> = line
        .split_whitespace()
        .filter_map(|field| field.split_once('=').map(|(name, _)| name))
        .collect();
    let want = "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem \
                multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp";
    assert_eq!(names.join(" "), want);
    let begin = format!(
        "id={} addr=1.2.3.4:5 laddr=6.7.8.9:10 fd=8 name=joe age=61 idle=0 flags=N db=0 ",
        client.id
    );
    assert!(line.contains(&begin), "{line}");
    assert!(line.contains(" multi=-1 ") && line.ends_with("resp=2\n\r\n"), "{line}");
    assert!(line.contains(" events=r cmd=client|info user=default redir=-1 "), "{line}");
}

#[test]
fn info_within_multi_shows_what_is_queued() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    run(&mut bare, client, "CLIENT NO-EVICT on");
    run(&mut bare, client, "MULTI");
    run(&mut bare, client, "PING");
    run(&mut bare, client, "PING");
    let line = super::client_line(client, bare.now);
    assert!(line.contains(" flags=xe ") && line.contains(" multi=2 "), "{line}");
}

#[test]
fn list_with_bad_words_is_an_error() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let errors = [
        ("foo", "-ERR syntax error\r\n"),
        ("TYPE", "-ERR syntax error\r\n"),
        ("ID", "-ERR syntax error\r\n"),
        ("TYPE normal ID 1", "-ERR syntax error\r\n"),
        ("TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
        ("ID 1 x", "-ERR Invalid client ID\r\n"),
    ];
    for (words, error) in errors {
        assert_eq!(run(&mut bare, client, &format!("CLIENT LIST {words}")), error, "{words}");
    }
    assert_eq!(run(&mut bare, client, "CLIENT LIST TYPE master"), "$0\r\n\r\n");
    assert_eq!(run(&mut bare, client, "CLIENT LIST ID 0 -1"), "$0\r\n\r\n");
}

#[test]
fn kill_with_bad_words_is_an_error() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let not_positive = "-ERR client-id should be greater than 0\r\n";
    let errors = [
        ("foo", "-ERR No such client\r\n"),
        ("ID x", not_positive),
        ("ID 0", not_positive),
        ("ID -1", not_positive),
        ("TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
        ("USER joe", "-ERR No such user 'joe'\r\n"),
        ("SKIPME foo", "-ERR syntax error\r\n"),
        ("foo bar", "-ERR syntax error\r\n"),
        ("ID 1 ADDR", "-ERR syntax error\r\n"),
    ];
    for (words, error) in errors {
        assert_eq!(run(&mut bare, client, &format!("CLIENT KILL {words}")), error, "{words}");
    }
    assert_eq!(run(&mut bare, client, "CLIENT KILL TYPE normal"), ":0\r\n");
    assert!(!client.close_after_reply);
    assert_eq!(run(&mut bare, client, "CLIENT KILL TYPE normal SKIPME no"), ":1\r\n");
    assert!(client.close_after_reply);
}

#[test]
fn pause_that_is_on_gets_neither_weaker_nor_shorter() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let until = |ms: i64| Ms(1_700_000_000_000 + ms);
    for (words, mode, ms) in
        [("100 WRITE", Pause::Write, 100), ("50", Pause::All, 100), ("200 WRITE", Pause::All, 200)]
    {
        assert_eq!(run(&mut bare, client, &format!("CLIENT PAUSE {words}")), OK);
        assert_eq!(bare.node.pause(bare.now), (mode, until(ms)), "{words}");
    }
    assert_eq!(run(&mut bare, client, "CLIENT UNPAUSE"), OK);
    assert_eq!(bare.node.pause(bare.now).0, Pause::Off);
    assert_eq!(run(&mut bare, client, "CLIENT PAUSE 9223372036854775807"), OK);
    assert_eq!(bare.node.pause(bare.now).0, Pause::Off);
}

#[test]
fn pause_and_unblock_with_bad_words_are_errors() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    let syntax = |sub: &str| {
        format!(
            "-ERR unknown subcommand or wrong number of arguments for '{sub}'. Try CLIENT HELP.\r\n"
        )
    };
    let errors = [
        ("PAUSE x", "-ERR timeout is not an integer or out of range\r\n".to_owned()),
        ("PAUSE -1", "-ERR timeout is negative\r\n".to_owned()),
        ("PAUSE x foo", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n".to_owned()),
        ("pause 1 write x", syntax("pause")),
        ("UNBLOCK x", "-ERR value is not an integer or out of range\r\n".to_owned()),
        ("UNBLOCK x foo", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n".to_owned()),
        ("unblock 1 error x", syntax("unblock")),
        ("UNBLOCK -1", ":0\r\n".to_owned()),
    ];
    for (words, error) in errors {
        assert_eq!(run(&mut bare, client, &format!("CLIENT {words}")), error, "{words}");
    }
}

#[test]
fn reply_modes_silence_the_right_calls() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, "CLIENT REPLY SKIP"), "");
    assert_eq!(run(&mut bare, client, "PING"), "");
    assert_eq!(run(&mut bare, client, "PING"), "+PONG\r\n");
    assert_eq!(run(&mut bare, client, "CLIENT REPLY OFF"), "");
    assert_eq!(run(&mut bare, client, "CLIENT REPLY SKIP"), "");
    assert_eq!(run(&mut bare, client, "NOSUCH"), "");
    assert_eq!(client.reply_mode, ReplyMode::Off);
    assert_eq!(run(&mut bare, client, "CLIENT REPLY ON"), OK);
    assert_eq!(run(&mut bare, client, "CLIENT REPLY foo"), "-ERR syntax error\r\n");
}

#[test]
fn tracking_is_reported_as_off() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    assert_eq!(run(&mut bare, client, "CLIENT GETREDIR"), ":-1\r\n");
    let fields =
        "$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n";
    assert_eq!(run(&mut bare, client, "CLIENT TRACKINGINFO"), format!("*6\r\n{fields}"));
    run(&mut bare, client, "HELLO 3");
    let fields = fields.replace("*1", "~1");
    assert_eq!(run(&mut bare, client, "CLIENT TRACKINGINFO"), format!("%3\r\n{fields}"));
    assert!(run(&mut bare, client, "CLIENT CACHING yes").starts_with("-ERR CLIENT CACHING can"));
}

#[test]
fn refused_calls_are_counted() {
    let mut bare = Bare::new(1, 1);
    let client = &mut bare.client();
    run(&mut bare, client, "GET");
    run(&mut bare, client, "CLIENT ID x");
    let table = crate::commands::table::table();
    let rejected = |id: u16| bare.node.cores[0].commands[usize::from(id)].rejected.get();
    assert_eq!(rejected(table.get(b"get").expect("it exists").id), 1);
    let container = table.get(b"client").expect("it exists");
    assert_eq!(rejected(container.subcommand(b"id").expect("it exists").id), 1);
}
