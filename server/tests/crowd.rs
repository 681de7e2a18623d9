//! Thousands of clients that are blocked at once: what each costs while it waits, and that what
//! happens to all of them at the same moment makes no turn long.
//!
//! Turns are measured by the server in wall time, which a busy machine spoils: each measurement is
//! tried a few times.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::time::{Duration, Instant};

use common::client::Client;
use common::process::Process;
use common::{alone, best_of, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clients, if the limit of open files allows; a tenth of it is left for others.
const CROWD_MAX: u64 = 12_000;
/// How long a crowd may take for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// No turn may be longer, whatever the crowd does. The release build stays below half a millisecond;
/// this is for others, on machines that are busy.
const TURN_MAX: Duration = Duration::from_millis(6);

struct Crowd {
    server: Process,
    admin: Client,
    clients: Vec<Client>,
}

impl Crowd {
    fn gather(core_count: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20);
        let raised = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(Resource::Nofile, raised).expect("a soft limit may be raised to the hard one");
        let count = CROWD_MAX.min(limit * 9 / 10);
        assert!(count >= 900, "the hard limit of open files, {limit}, is too low for a crowd");
        let server = Process::cordis(core_count, &["--maxclients", &(count + 100).to_string()]);
        let admin = server.client();
        let mut crowd = Self { server, admin, clients: Vec::new() };
        for _ in 0..count {
            crowd.clients.push(crowd.server.client());
        }
        for client in &mut crowd.clients {
            assert_eq!(client.call("PING"), b"+PONG\r\n");
        }
        crowd
    }

    /// Lets all of them send a call; returns when they are blocked.
    fn block(&mut self, call: impl Fn(usize) -> String) {
        for (i, client) in self.clients.iter_mut().enumerate() {
            let line = call(i) + "\r\n";
            client.send(line.as_bytes()).expect("the server reads");
        }
        let count = self.clients.len();
        self.wait_blocked(count);
    }

    fn wait_blocked(&mut self, count: usize) {
        eventually(LIMIT, &format!("{count} clients are blocked"), || {
            (number(&self.admin.text("INFO clients"), "blocked_clients:") == count).then_some(())
        });
    }

    /// Every client gets this.
    fn expect(&mut self, reply: impl Fn(usize) -> String) {
        for (i, client) in self.clients.iter_mut().enumerate() {
            let got = client.read_reply().expect("its wait has ended");
            assert_eq!(String::from_utf8_lossy(&got), reply(i));
        }
    }

    fn longest_turn(&mut self) -> Duration {
        let info = self.admin.text("INFO all");
        let values = info.split("turn_usec_max=").skip(1).map(|rest| {
            let end = rest.find([',', '\r']).unwrap_or(rest.len());
            rest[..end].parse::<f64>().expect("INFO prints numbers")
        });
        Duration::from_secs_f64(values.fold(0.0, f64::max) / 1e6)
    }

    /// What happens in `event` makes no turn long; `prepare` is not measured.
    fn turns_stay_short(
        &mut self,
        what: &str,
        mut prepare: impl FnMut(&mut Self),
        mut event: impl FnMut(&mut Self),
    ) {
        best_of(5, || {
            prepare(self);
            self.admin.call("CONFIG RESETSTAT");
            let waited = self.server.waited();
            event(self);
            let waited = self.server.waited().saturating_sub(waited);
            let longest = self.longest_turn().saturating_sub(waited);
            if longest <= TURN_MAX { Ok(()) } else { Err(format!("{what}: a turn of {longest:?}")) }
        });
    }
}

fn number(info: &str, name: &str) -> usize {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|count| count.trim().parse().ok()).expect("INFO tells")
}

#[test]
fn blocked_crowd_is_cheap_and_ends_in_short_turns() {
    let _alone = alone();
    let mut crowd = Crowd::gather(1);
    let count = crowd.clients.len();
    let before = crowd.server.resident_bytes();
    crowd.block(|i| format!("BLPOP key:{i} other:{i} 1000"));
    let each = crowd.server.resident_bytes().saturating_sub(before) / count as u64;
    assert!(each <= 2048, "a blocked client takes {each} bytes");
    best_of(3, || {
        let (before, began) = (crowd.server.cpu_time(), Instant::now());
        std::thread::park_timeout(Duration::from_secs(2));
        let share =
            (crowd.server.cpu_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        if share < 0.005 { Ok(()) } else { Err(format!("it uses {:.2} %", share * 100.0)) }
    });

    // Every waited key is looked at; none is there.
    crowd.turns_stay_short(
        "SWAPDB",
        |_| {},
        |crowd| {
            assert_eq!(crowd.admin.call("SWAPDB 0 1"), b"+OK\r\n");
            crowd.admin.call("PING");
            std::thread::park_timeout(Duration::from_millis(100));
        },
    );

    // All are listed, as they connected.
    crowd.turns_stay_short(
        "CLIENT LIST",
        |_| {},
        |crowd| {
            let list = crowd.admin.text("CLIENT LIST");
            let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
            let ids: Vec<u64> = ids.map(|id| id.parse().expect("an id is a number")).collect();
            assert!(ids.len() == count + 1 && ids.is_sorted(), "{} lines", ids.len());
        },
    );

    // A producer serves one after another, each by a key of its own.
    for i in 0..count {
        let call = format!("RPUSH other:{i} v\r\n");
        crowd.admin.send(call.as_bytes()).expect("the server reads");
    }
    crowd.expect(|i| {
        let key = format!("other:{i}");
        format!("*2\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len())
    });
    for _ in 0..count {
        assert_eq!(crowd.admin.read_reply().expect("it pushed"), b":1\r\n");
    }
    crowd.wait_blocked(0);

    // All time out in the same millisecond.
    crowd.turns_stay_short(
        "timeouts",
        |crowd| {
            let end = Instant::now() + Duration::from_secs(3);
            crowd.block(|i| {
                let left = end.saturating_duration_since(Instant::now());
                format!("BLPOP key:{i} {:.3}", left.as_secs_f64())
            });
        },
        |crowd| crowd.expect(|_| "*-1\r\n".to_owned()),
    );
}

#[test]
fn one_push_serves_a_crowd() {
    let _alone = alone();
    let mut crowd = Crowd::gather(2);
    crowd.block(|_| "BLPOP key 0".to_owned());
    let count = crowd.clients.len();
    let values: String = (0..count).map(|i| format!(" {i:06}")).collect();
    assert_eq!(crowd.admin.text(&format!("RPUSH key{values}")), format!(":{count}\r\n"));
    // In the order in which they were blocked, which is not known: each gets one.
    let replies = crowd.clients.iter_mut().map(|client| client.read_reply().expect("it is served"));
    let mut got: Vec<String> =
        replies.map(|reply| String::from_utf8_lossy(&reply).into()).collect();
    got.sort();
    let want: Vec<_> = (0..count).map(|i| format!("*2\r\n$3\r\nkey\r\n$6\r\n{i:06}\r\n")).collect();
    assert!(got == want, "not each has got an element of its own");
    crowd.wait_blocked(0);
    assert_eq!(crowd.admin.call("EXISTS key"), b":0\r\n");
    // All are told to go in one call.
    let killed = crowd.admin.text("CLIENT KILL TYPE normal");
    assert_eq!(killed, format!(":{count}\r\n"));
    for client in &mut crowd.clients {
        assert!(client.read_reply().is_err(), "it has been closed");
    }
}

#[test]
fn client_unblock_takes_no_longer_in_a_crowd() {
    let _alone = alone();
    const CALL_COUNT: usize = 500;
    let mut crowd = Crowd::gather(2);
    crowd.block(|i| format!("BLPOP one key:{i} 0"));
    let list = crowd.admin.text("CLIENT LIST");
    let blocked = list.lines().filter(|line| line.contains("flags=b"));
    let mut ids =
        blocked.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).map(str::to_owned);
    best_of(3, || {
        let before = crowd.server.cpu_time();
        for id in ids.by_ref().take(CALL_COUNT) {
            assert_eq!(crowd.admin.text(&format!("CLIENT UNBLOCK {id} ERROR")), ":1\r\n");
        }
        let each = (crowd.server.cpu_time() - before) / CALL_COUNT as u32;
        // A look at each client would take some hundred microseconds.
        let ok = each < Duration::from_micros(150);
        if ok { Ok(()) } else { Err(format!("{each:?} of processor time per call")) }
    });
    // The others of the crowd leave all at once; nothing is left of anybody.
    crowd.clients.clear();
    crowd.wait_blocked(0);
    assert_eq!(crowd.admin.call("RPUSH one v"), b":1\r\n");
    assert_eq!(crowd.admin.call("LLEN one"), b":1\r\n");
}

#[test]
fn swapdb_serves_a_crowd_on_both_cores() {
    let _alone = alone();
    let mut crowd = Crowd::gather(2);
    crowd.clients.truncate(5_000);
    crowd.block(|i| format!("BLPOP key:{i} 0"));
    crowd.admin.call("SELECT 1");
    for i in 0..crowd.clients.len() {
        assert_eq!(crowd.admin.call(&format!("RPUSH key:{i} v")), b":1\r\n");
    }
    assert_eq!(crowd.admin.call("SWAPDB 1 0"), b"+OK\r\n");
    crowd.expect(|i| {
        let key = format!("key:{i}");
        format!("*2\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len())
    });
    crowd.wait_blocked(0);
}
