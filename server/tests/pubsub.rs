//! Publish and subscribe over cores, keyspace notifications and MONITOR, between real connections.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::client::Client;
use common::process::Process;
use common::shared::words::{encoded, escaped};
use common::{eventually, within};

/// Cores of the servers here.
const CORE_COUNT: usize = 2;

/// Connections enough to be dealt to every core.
const SUBSCRIBER_COUNT: usize = 8;

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// A message as RESP2 shows it.
fn message(channel: &str, text: &str) -> String {
    format!("*3\r\n{}{}{}", bulk("message"), bulk(channel), bulk(text))
}

/// The next thing that a connection receives, as text.
fn received(client: &mut Client) -> String {
    let reply = client.read_reply().expect("something is received");
    String::from_utf8_lossy(&reply).into_owned()
}

/// Connections that are subscribed by this line, spread over all cores.
fn subscribers(process: &Process, line: &str) -> Vec<Client> {
    let clients = (0..SUBSCRIBER_COUNT).map(|_| {
        let mut client = process.client();
        let confirmed = client.text(line);
        assert!(confirmed.contains("subscribe"), "{line}: {confirmed}");
        client
    });
    clients.collect()
}

/// Asks until `line` is answered by `want`.
fn eventually_answers(client: &mut Client, line: &str, want: &str) {
    let limit = Duration::from_secs(10);
    let mut got = String::new();
    let is_so = within(limit, || {
        got = client.text(line);
        got == want
    });
    assert!(is_so, "{line}: {got:?}; wanted {want:?}");
}

#[test]
fn messages_reach_subscribers_on_all_cores_in_order() {
    const MESSAGE_COUNT: usize = 2000;
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut subscribers = subscribers(&ours, "SUBSCRIBE news");
    let mut publisher = ours.client();
    let calls: Vec<u8> = (0..MESSAGE_COUNT)
        .flat_map(|i| encoded(&["PUBLISH".to_owned(), "news".to_owned(), i.to_string()]))
        .collect();
    publisher.send(&calls).expect("the server reads");
    for _ in 0..MESSAGE_COUNT {
        assert_eq!(received(&mut publisher), format!(":{SUBSCRIBER_COUNT}\r\n"));
    }
    for subscriber in &mut subscribers {
        for i in 0..MESSAGE_COUNT {
            assert_eq!(received(subscriber), message("news", &i.to_string()));
        }
    }
}

#[test]
fn counts_are_exact_and_shrink_with_unsubscribing_and_leaving() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut subscribers = subscribers(&ours, "SUBSCRIBE a");
    for (i, client) in subscribers.iter_mut().enumerate() {
        client.call(&format!("PSUBSCRIBE only{i}*"));
        client.call("SSUBSCRIBE shard");
    }
    let mut client = ours.client();
    assert_eq!(client.text("PUBSUB NUMSUB a"), format!("*2\r\n{}:8\r\n", bulk("a")));
    assert_eq!(client.text("PUBSUB SHARDNUMSUB shard"), format!("*2\r\n{}:8\r\n", bulk("shard")));
    assert_eq!(client.text("PUBSUB NUMPAT"), ":8\r\n");
    assert_eq!(client.text("PUBLISH a m"), ":8\r\n");
    assert_eq!(client.text("PUBLISH only3 m"), ":1\r\n");
    assert_eq!(client.text("SPUBLISH shard m"), ":8\r\n");
    assert_eq!(client.text("SPUBLISH a m"), ":0\r\n");
    let stats = client.text("INFO stats");
    for field in ["pubsub_channels:1\r", "pubsub_patterns:8\r", "pubsubshard_channels:1\r"] {
        assert!(stats.contains(field), "{field} in {stats}");
    }
    let list = client.text("CLIENT LIST TYPE pubsub");
    assert_eq!(list.matches(" flags=P db=0 sub=1 psub=1 ssub=1 ").count(), 8, "{list}");
    subscribers[0].send_call(&["UNSUBSCRIBE", "a"]).expect("the server reads");
    eventually_answers(&mut client, "PUBSUB NUMSUB a", &format!("*2\r\n{}:7\r\n", bulk("a")));
    subscribers.truncate(3);
    eventually_answers(&mut client, "PUBSUB NUMSUB a", &format!("*2\r\n{}:2\r\n", bulk("a")));
    eventually_answers(&mut client, "PUBSUB NUMPAT", ":3\r\n");
    drop(subscribers);
    eventually_answers(&mut client, "PUBSUB NUMPAT", ":0\r\n");
    eventually_answers(&mut client, "PUBSUB CHANNELS", "*0\r\n");
    eventually_answers(&mut client, "PUBSUB SHARDCHANNELS", "*0\r\n");
    assert_eq!(client.text("PUBLISH a m"), ":0\r\n");
    assert_eq!(client.text("CLIENT LIST TYPE pubsub"), "$0\r\n\r\n");
}

#[test]
fn session_with_many_subscriptions_is_forgotten_whole() {
    const NAME_COUNT: usize = 5_000;
    let ours = Process::cordis(CORE_COUNT, &[]);
    let (mut many, mut client) = (ours.client(), ours.client());
    for word in ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"] {
        let names = (0..NAME_COUNT).map(|i| format!("name{i}"));
        let call: Vec<String> = [word.to_owned()].into_iter().chain(names).collect();
        many.send_call(&call).expect("the server reads");
        for _ in 0..NAME_COUNT {
            received(&mut many);
        }
    }
    assert_eq!(client.text("PUBSUB NUMPAT"), format!(":{NAME_COUNT}\r\n"));
    assert_eq!(client.text("PUBLISH name7 m"), ":2\r\n");
    drop(many);
    eventually_answers(&mut client, "PUBSUB NUMPAT", ":0\r\n");
    eventually_answers(&mut client, "PUBSUB CHANNELS", "*0\r\n");
    eventually_answers(&mut client, "PUBSUB SHARDCHANNELS", "*0\r\n");
    assert_eq!(client.text("PUBLISH name7 m"), ":0\r\n");
}

#[test]
fn patterns_and_shard_channels_get_messages_of_their_own_form() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut by_pattern = subscribers(&ours, "PSUBSCRIBE n[ae]ws*");
    let mut by_shard = subscribers(&ours, "SSUBSCRIBE news");
    let mut publisher = ours.client();
    assert_eq!(publisher.text("PUBLISH news1 m"), ":8\r\n");
    assert_eq!(publisher.text("SPUBLISH news m"), ":8\r\n");
    for client in &mut by_pattern {
        let parts = ["pmessage", "n[ae]ws*", "news1", "m"].map(bulk).concat();
        assert_eq!(received(client), format!("*4\r\n{parts}"));
    }
    for client in &mut by_shard {
        let parts = ["smessage", "news", "m"].map(bulk).concat();
        assert_eq!(received(client), format!("*3\r\n{parts}"));
    }
}

#[test]
fn pushes_come_between_replies_and_tear_none() {
    const CALL_COUNT: usize = 3000;
    let ours = Process::cordis(CORE_COUNT, &[]);
    let (mut listener, mut publisher) = (ours.client(), ours.client());
    listener.call("HELLO 3");
    listener.call("SUBSCRIBE ch");
    for i in 0..64 {
        publisher.call(&format!("SET key{i} value{i}"));
    }
    let gets: Vec<u8> = (0..CALL_COUNT)
        .flat_map(|i| encoded(&["GET".to_owned(), format!("key{}", i % 64)]))
        .collect();
    let publishes: Vec<u8> = (0..CALL_COUNT)
        .flat_map(|i| encoded(&["PUBLISH".to_owned(), "ch".to_owned(), i.to_string()]))
        .collect();
    publisher.send(&publishes).expect("the server reads");
    listener.send(&gets).expect("the server reads");
    let (mut replies, mut pushes) = (0, 0);
    while replies < CALL_COUNT || pushes < CALL_COUNT {
        let got = received(&mut listener);
        if let Some(push) = got.strip_prefix('>') {
            let want = message("ch", &pushes.to_string());
            assert_eq!(push, &want[1..]);
            pushes += 1;
        } else {
            assert_eq!(got, bulk(&format!("value{}", replies % 64)));
            replies += 1;
        }
    }
}

#[test]
fn message_comes_after_what_its_publisher_wrote_before() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let (mut listener, mut reader) = (ours.client(), ours.client());
    listener.call("SUBSCRIBE written");
    let mut writer = ours.client();
    for i in 0..300 {
        // Keys of many slots, so of both cores.
        let (key, value) = (format!("key{i}"), i.to_string());
        let mut calls = encoded(&["SET", &key, &value]);
        calls.extend(encoded(&["PUBLISH", "written", &key]));
        writer.send(&calls).expect("the server reads");
        assert_eq!(received(&mut listener), message("written", &key));
        assert_eq!(reader.text(&format!("GET {key}")), bulk(&value));
    }
}

#[test]
fn slow_subscriber_is_closed_and_its_publisher_goes_on() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut publisher = ours.client();
    let set = publisher.text("CONFIG SET client-output-buffer-limit 'pubsub 4mb 0 0'");
    assert_eq!(set, "+OK\r\n");
    // On either core, one that reads and one that does not.
    let mut slow = subscribers(&ours, "SUBSCRIBE big");
    let mut fast = ours.client();
    fast.call("SUBSCRIBE big");
    let payload = "x".repeat(64 * 1024);
    let mut count = 0;
    eventually(Duration::from_secs(30), "the slow ones are closed", || {
        let reply = publisher.try_call(&["PUBLISH", "big", &payload]).expect("it is answered");
        count += 1;
        assert_eq!(received(&mut fast), message("big", &payload));
        (reply == b":1\r\n").then_some(())
    });
    assert!(count > 64, "they were closed after {count} messages, before the limit");
    let line = "output is over client-output-buffer-limit";
    assert_eq!(ours.output().matches(line).count(), SUBSCRIBER_COUNT, "{}", ours.output());
    for client in &mut slow {
        client.read_to_end().expect("the server has closed");
    }
}

#[test]
fn subscriber_over_the_soft_limit_is_closed_in_time() {
    let ours = Process::cordis(1, &[]);
    let mut publisher = ours.client();
    publisher.call("CONFIG SET client-output-buffer-limit 'pubsub 0 1mb 1'");
    let mut slow = ours.client();
    slow.call("SUBSCRIBE big");
    let payload = "x".repeat(256 * 1024);
    for _ in 0..64 {
        publisher.try_call(&["PUBLISH", "big", &payload]).expect("it is answered");
    }
    assert_eq!(publisher.text("PUBSUB NUMSUB big"), format!("*2\r\n{}:1\r\n", bulk("big")));
    eventually_answers(
        &mut publisher,
        "PUBSUB NUMSUB big",
        &format!("*2\r\n{}:0\r\n", bulk("big")),
    );
}

#[test]
fn subscribing_and_publishing_in_a_race_loses_and_doubles_nothing() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut publisher = ours.client();
    let mut listeners: Vec<Client> = (0..4).map(|_| ours.client()).collect();
    for i in 0..200 {
        let text = i.to_string();
        for client in &mut listeners {
            client.send_call(&["SUBSCRIBE", "ch"]).expect("the server reads");
        }
        let count = publisher.try_call(&["PUBLISH", "ch", &text]).expect("it is answered");
        let mut heard = 0;
        for client in &mut listeners {
            client.send_call(&["UNSUBSCRIBE", "ch"]).expect("the server reads");
            assert!(received(client).contains("subscribe"));
            let next = received(client);
            if next == message("ch", &text) {
                heard += 1;
                assert!(received(client).contains("unsubscribe"));
            } else {
                assert!(next.contains("unsubscribe"), "{next}");
            }
        }
        // Who unsubscribes before the message has come was counted all the same; nobody else hears.
        let count = String::from_utf8_lossy(&count[1..count.len() - 2]).parse::<usize>();
        assert!(heard <= count.expect("a number"), "{heard} heard of message {i}");
    }
}

/// What happens to keys of both servers: calls, and pauses in milliseconds.
const EVENT_SCRIPT: &str = "\
SET k v|SET k 5 EX 100|SET k v KEEPTTL|SET n v NX|SET n v XX GET|SET none v XX|\
SET p v PXAT 1000|GET p|SETEX k 100 v|PSETEX k 100000 v|SETNX k v|SETNX k9 v|GETSET k w|\
GETSET fresh w|GETDEL fresh|GETDEL fresh|GETEX k EX 100|GETEX k PERSIST|GETEX k|GETEX k PXAT 1|\
APPEND ap x|APPEND ap ''|SETRANGE sr 3 abc|SETRANGE sr 0 ''|INCR c|INCRBY c 5|DECR c|DECRBY c 2|\
INCRBYFLOAT c 1.5|MSET a 1 b 2 a 3|MSETNX a 1 z 2|MSETNX y 1 z 2|MGET a b nope|GET nope|\
STRLEN nope|EXISTS nope a|TYPE nope|TTL nope|OBJECT ENCODING nope|RENAME nope x|RENAMENX a b|\
RENAME a a2|RENAMENX a2 a3|RENAME a3 b|COPY b c2|COPY b c2|COPY b c2 REPLACE|COPY b c2 DB 1|\
MOVE b 2|MOVE nope 2|EXPIRE c2 100|EXPIRE c2 100 NX|PERSIST c2|PERSIST c2|EXPIREAT c2 1|\
SET e2 v PX 30|@200|GET e2|SET e2 v|DEL e2 nokey c|UNLINK y z|SETBIT bit 7 1|\
BITFIELD bf SET u8 0 255|BITFIELD bf GET u8 0|BITOP AND dest bit bf|BITOP AND dest nope nope2|\
MULTI|SET s 1|INCR s|DEL s|EXEC|SET x v PX 20|@60|SET x w|SWAPDB 0 1|FLUSHDB|FLUSHALL|SET k v|\
SELECT 3|SET k v|DEL k|SELECT 0";

/// The same with collections.
const COLLECTION_SCRIPT: &str = "\
RPUSH l a b c|LPUSH l x|LPUSHX nol x|RPUSHX l y|LPOP l|RPOP l 2|LPOP nol|LLEN nol|\
LRANGE nol 0 -1|LINDEX nol 0|LPOS nol a|LINSERT l BEFORE b z|LINSERT l BEFORE nope z|LSET l 0 q|\
LREM l 0 q|LREM l 0 nope|LTRIM l 0 0|LMOVE l l2 LEFT RIGHT|RPUSH l a b c|RPOPLPUSH l l2|\
LMPOP 1 l LEFT COUNT 2|BLPOP l2 1|RPUSH l3 1|BLMOVE l3 l4 LEFT LEFT 1|LTRIM l4 5 9|\
RPUSH s 3 1 2|SORT s STORE d|SORT nokey STORE d|HSET h f v g w|HSETNX h f v|HSETNX h n v|\
HMSET h a b|HINCRBY h i 5|HINCRBYFLOAT h i 1.5|HDEL h f g|HDEL h nope|HGET nope f|HGETALL nope|\
HLEN nope|HRANDFIELD nope|HSCAN nope 0|HDEL h n a i|SADD st a b c 1|SADD st a|SREM st a|\
SREM st nope|SMOVE st st2 b|SMOVE st st2 nope|SPOP st|SPOP st2 10|SADD x 1 2 3|SADD y 2 3 4|\
SINTERSTORE z x y|SUNIONSTORE z x y|SDIFFSTORE z x x|SINTERSTORE nz nope x|SINTER nope x|\
SMEMBERS nope|SREM x 1 2 3|ZADD zs 1 a 2 b 3 c|ZADD zs 1 a|ZADD zs 5 a|ZADD zs INCR 1 a|\
ZINCRBY zs 1 b|ZREM zs a|ZREM zs nope|ZPOPMIN zs|ZPOPMAX zs|ZADD zs 1 a 2 b 3 c 4 d|\
ZREMRANGEBYSCORE zs 1 1|ZREMRANGEBYRANK zs 0 0|ZREMRANGEBYLEX zs - +|ZADD zs 1 a 2 b|\
ZRANGESTORE zd zs 0 -1|ZRANGESTORE zd zs 5 9|ZUNIONSTORE zu 1 zs|ZINTERSTORE zu 2 zs nope|\
ZDIFFSTORE zu 1 zs|ZMPOP 1 zs MIN COUNT 5|ZSCORE nope a|ZRANGE nope 0 -1|BZPOPMIN zu 1|\
PFADD p a b|PFADD p a|PFADD p|PFADD pe|PFMERGE pm p|PFCOUNT p nope|GETRANGE p 0 -1|\
OBJECT ENCODING st|RPUSH ll a|DUMP ll|COPY ll ll2|RENAME ll ll3|MOVE ll3 4|EXPIRE ll2 1000|\
DEL ll2";

/// The events of a script, by key (or event) in order, and when they came relative to each other.
fn events(process: &Process, script: &str) -> BTreeMap<String, Vec<String>> {
    let mut client = process.client();
    client.call("CONFIG SET notify-keyspace-events KEAmn");
    let mut listener = process.client();
    listener.call("PSUBSCRIBE __key*");
    for line in script.split('|') {
        match line.strip_prefix('@') {
            Some(ms) => {
                let ms = ms.parse().expect("a number of milliseconds");
                std::thread::park_timeout(Duration::from_millis(ms));
            }
            None => drop(client.call(line)),
        }
    }
    process.client().call("PUBLISH __keyend x");
    let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let got = received(&mut listener);
        let words: Vec<&str> = got.split("\r\n").collect();
        // `*4`, and four bulk strings: pmessage, the pattern, the channel, the message.
        let (channel, message) = (words[6], words[8]);
        if channel == "__keyend" {
            return streams;
        }
        let key = match channel.strip_prefix("__keyspace@") {
            Some(key) => key.to_owned(),
            // The other kind, by database and key as well.
            None => format!("event {}:{message}", &channel[11..channel.len().min(16)]),
        };
        let event = if channel.starts_with("__keyspace") { message } else { channel };
        streams.entry(key).or_default().push(event.to_owned());
    }
}

#[test]
fn keyspace_events_of_each_key_are_those_of_redis() {
    for script in [EVENT_SCRIPT, COLLECTION_SCRIPT] {
        let want = events(&Process::redis(&[]), script);
        for core_count in [1, CORE_COUNT] {
            let got = events(&Process::cordis(core_count, &[]), script);
            let keys = want.keys().chain(got.keys());
            for key in keys {
                assert_eq!(got.get(key), want.get(key), "{key} on {core_count} cores");
            }
        }
    }
}

#[test]
fn evicted_keys_are_told_of() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut listener = ours.client();
    let mut client = ours.client();
    client.call("CONFIG SET notify-keyspace-events Ee");
    listener.call("SUBSCRIBE __keyevent@0__:evicted");
    client.call("CONFIG SET maxmemory-policy allkeys-random");
    let value = "x".repeat(10_000);
    for i in 0..100 {
        client.try_call(&["SET", &format!("key{i}"), &value]).expect("it is answered");
    }
    client.call("CONFIG SET maxmemory 1mb");
    client.call("SET one more");
    let got = received(&mut listener);
    assert!(got.contains("__keyevent@0__:evicted") && got.contains("key"), "{got}");
}

/// The words of a line of MONITOR.
fn shown(line: &str) -> &str {
    line.split_once("] ").map_or(line, |(_, words)| words.trim_end())
}

#[test]
fn monitor_shows_the_calls_of_all_cores() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut monitors: Vec<Client> = (0..4).map(|_| ours.client()).collect();
    for monitor in &mut monitors {
        assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    }
    let mut callers: Vec<Client> = (0..4).map(|_| ours.client()).collect();
    for (i, caller) in callers.iter_mut().enumerate() {
        for j in 0..50 {
            caller.call(&format!("SET key{j} 'from {i}'"));
        }
    }
    let lines = 200;
    for monitor in &mut monitors {
        let mut next = [0; 4];
        for _ in 0..lines {
            let line = received(monitor);
            let from = line.split("from ").nth(1).and_then(|rest| rest[..1].parse().ok());
            let from: usize = from.unwrap_or_else(|| panic!("{line}"));
            assert_eq!(shown(&line), format!("\"SET\" \"key{}\" \"from {from}\"", next[from]));
            next[from] += 1;
        }
    }
    let list = callers[0].text("CLIENT LIST");
    assert_eq!(list.matches(" flags=O ").count(), 4, "{list}");
    for monitor in &mut monitors {
        monitor.send_call(&["RESET"]).expect("the server reads");
        // What others did meanwhile is shown as well.
        while received(monitor) != "+RESET\r\n" {}
        assert_eq!(monitor.text("GET key1"), bulk("from 3"));
    }
}

#[test]
fn monitor_shows_what_redis_shows() {
    let script = [
        "SET k 'a\"\\\\ b'",
        "GET",
        "nosuch",
        "AUTH secret",
        "HELLO 2 AUTH u p",
        "MULTI",
        "INCR n",
        "SELECT 2",
        "PUBLISH a b",
        "EXEC",
        "CONFIG GET port",
        "SELECT 99",
        "DEL a b",
        "KEYS *",
        "WATCH k",
        "UNWATCH",
        "SUBSCRIBE a",
        "RESET",
    ];
    let lines = |process: &Process| {
        let mut monitor = process.client();
        monitor.call("MONITOR");
        let mut client = process.client();
        for line in script {
            client.call(line);
        }
        client.call("ECHO end");
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains("\"end\"")) {
            let line = received(&mut monitor);
            let (_, rest) = line.split_once(" [").expect("a line has a client");
            let db = rest.split(' ').next().expect("a client has a database");
            lines.push(format!("{db} {}", shown(&line)));
        }
        lines
    };
    let want = lines(&Process::redis(&[]));
    assert_eq!(lines(&Process::cordis(CORE_COUNT, &[])), want);
}

#[test]
fn idle_timeout_spares_listeners() {
    let ours = Process::cordis(1, &["--timeout", "1"]);
    let (mut idle, mut listener) = (ours.client(), ours.client());
    assert_eq!(idle.call("PING"), b"+PONG\r\n");
    listener.call("SUBSCRIBE ch");
    let end = idle.read_to_end().expect("an idle client is closed");
    assert!(end.is_empty(), "{}", escaped(&end));
    assert_eq!(ours.client().text("PUBLISH ch still"), ":1\r\n");
    assert_eq!(received(&mut listener), message("ch", "still"));
}

#[test]
fn calls_of_a_transaction_are_shown_with_microseconds() {
    let ours = Process::cordis(1, &[]);
    let (mut monitor, mut client) = (ours.client(), ours.client());
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    client.call("MULTI");
    for _ in 0..5 {
        client.call("PING");
    }
    client.call("EXEC");
    let is_whole = |line: &str| {
        let stamp = line.split(' ').next().and_then(|stamp| stamp.split('.').nth(1));
        stamp.expect("a line begins with the time").ends_with("000")
    };
    // Shown when they are queued is MULTI, then what EXEC runs, then EXEC.
    let lines: Vec<String> = (0..7).map(|_| received(&mut monitor)).collect();
    assert_eq!(lines.iter().filter(|line| line.contains("PING")).count(), 5);
    assert!(lines.iter().any(|line| line.contains("PING") && !is_whole(line)), "{lines:?}");
}

/// The longest turn since the counters were reset.
fn longest_turn(admin: &mut Client) -> Duration {
    let info = admin.text("INFO all");
    let values = info.split("turn_usec_max=").skip(1).map(|rest| {
        let end = rest.find([',', '\r']).unwrap_or(rest.len());
        rest[..end].parse::<f64>().expect("INFO prints numbers")
    });
    Duration::from_secs_f64(values.fold(0.0, f64::max) / 1e6)
}

#[test]
fn calls_over_many_names_work_in_steps_and_leave_out_nothing() {
    const NAME_COUNT: usize = 50_000;
    /// Parsing so many words is one step; a name takes about a microsecond, or several in a debug
    /// build.
    const TURN_MAX: Duration = Duration::from_millis(25);
    let ours = Process::cordis(CORE_COUNT, &[]);
    let (mut admin, mut client) = (ours.client(), ours.client());
    let names: Vec<String> = (0..NAME_COUNT).map(|i| format!("name:{i}")).collect();
    let words = |verb: &str| [&[verb.to_owned()], &names[..]].concat();
    let confirm = |verb: &str, name: &str, count: usize| {
        format!("*3\r\n{}{}:{count}\r\n", bulk(verb), bulk(name))
    };
    common::best_of(3, || {
        admin.call("CONFIG RESETSTAT");
        let waited = ours.waited();
        for (verb, confirmed) in [("SUBSCRIBE", "subscribe"), ("PSUBSCRIBE", "psubscribe")] {
            client.send_call(&words(verb)).expect("the server reads");
            // What comes behind it waits for it.
            client.send(b"PING\r\n").expect("the server reads");
            let before = if verb == "SUBSCRIBE" { 0 } else { NAME_COUNT };
            for (name, count) in names.iter().zip(before + 1..) {
                assert_eq!(received(&mut client), confirm(confirmed, name, count));
            }
            assert_eq!(received(&mut client), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        }
        let listed = admin.text("PUBSUB CHANNELS");
        assert!(listed.starts_with(&format!("*{NAME_COUNT}\r\n")));
        assert_eq!(listed.matches("name:").count(), NAME_COUNT);
        assert_eq!(admin.text("PUBSUB CHANNELS name:4999?").matches("name:").count(), 10);
        assert_eq!(admin.text("PUBLISH name:7 m"), ":2\r\n");
        assert_eq!(received(&mut client), message("name:7", "m"));
        let by_pattern = received(&mut client);
        assert!(by_pattern.starts_with("*4\r\n$8\r\npmessage\r\n"), "{by_pattern}");
        // All of one kind, in whatever order, then the others by name.
        client.send(b"UNSUBSCRIBE\r\n").expect("the server reads");
        for left in (NAME_COUNT..2 * NAME_COUNT).rev() {
            let confirmed = received(&mut client);
            assert!(confirmed.ends_with(&format!(":{left}\r\n")), "{left}: {confirmed}");
        }
        client.send_call(&words("PUNSUBSCRIBE")).expect("the server reads");
        for (name, left) in names.iter().zip((0..NAME_COUNT).rev()) {
            assert_eq!(received(&mut client), confirm("punsubscribe", name, left));
        }
        assert_eq!(admin.text("PUBSUB CHANNELS"), "*0\r\n");
        assert_eq!(client.text("PING"), "+PONG\r\n");
        let waited = ours.waited().saturating_sub(waited);
        let longest = longest_turn(&mut admin).saturating_sub(waited);
        if longest <= TURN_MAX { Ok(()) } else { Err(format!("a turn of {longest:?}")) }
    });
}
