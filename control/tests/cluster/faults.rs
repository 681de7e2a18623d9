//! Every process of a cluster dies or hangs at every stage of a move. Once it is back, the cluster
//! becomes whole by itself, no call has hung, and only keys that a dead process alone held are gone:
//! servers keep keys in memory.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cordis_engine::resp::value::Value;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

use super::harness::{Client, Cluster, Daemon};
use super::history::{Ends, Worker, load, missing, seed};

/// What something happens to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Source,
    Target,
    Proxy,
    Control,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// `kill -9`, and started again.
    Kill,
    /// Stopped where it stands, and let go on.
    Freeze,
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// Before the move is ordered.
    Before,
    /// As soon as it is ordered.
    Begun,
    /// When half of the slots have arrived.
    Middle,
    /// When nearly all have.
    End,
}

/// How long a process hangs.
const HANG: Duration = Duration::from_secs(1);
/// Bytes per second that a move sends: it takes about half a second.
const RATE: u64 = 1_200_000;
/// Keys that are loaded, about half of which move.
const KEYS: usize = 6_000;

/// One process and one fault, at every moment of a move.
fn row(victim: Victim, fault: Fault) {
    let seed = seed();
    let mut cluster = Cluster::start();
    cluster.set("migration-parallel-slots", 4);
    let keys: Vec<String> = (0..KEYS).map(|number| format!("load:{number}")).collect();
    for moment in [Moment::Before, Moment::Begun, Moment::Middle, Moment::End] {
        cluster.set("migration-rate-bytes", 0);
        cluster.gather();
        load(&mut cluster.proxies[0].client(), &keys);
        cluster.set("migration-rate-bytes", RATE);
        let name = format!("{victim:?}{fault:?}{moment:?}");
        let begun = Instant::now();
        cell(&mut cluster, (victim, fault, moment), &name, (&keys, seed));
        let _ = writeln!(std::io::stderr(), "{name}: whole after {:?}", begun.elapsed());
    }
}

/// One fault at one moment, with clients at work.
fn cell(
    cluster: &mut Cluster,
    (victim, fault, moment): (Victim, Fault, Moment),
    name: &str,
    (keys, seed): (&[String], u64),
) {
    let loses_keys = fault == Fault::Kill && matches!(victim, Victim::Source | Victim::Target);
    let loses_links = fault == Fault::Kill && victim == Victim::Proxy;
    let ports = [cluster.proxies[0].port, cluster.proxies[1].port];
    // Clients of a proxy that is killed lose their connections; what a dead server held is gone.
    let mut exact: Vec<(u16, Worker)> = (0..2)
        .filter(|index| !(loses_keys || loses_links && *index == 0))
        .map(|index| (ports[index], Worker::new(&format!("{name}{index}"), seed)))
        .collect();
    let until = AtomicBool::new(false);
    let safe = std::thread::scope(|scope| {
        for (port, worker) in &mut exact {
            let until = &until;
            scope.spawn(move || worker.run(*port, &[], until));
        }
        for port in ports {
            let until = &until;
            scope.spawn(move || run_lenient(port, &format!("{name}{port}"), until));
        }
        let _ends = Ends(&until);
        let safe = strike(cluster, (victim, fault, moment));
        cluster.whole();
        cluster.all_arrived_whole();
        safe
    });
    for (_, worker) in &mut exact {
        ports.iter().for_each(|port| worker.check_all(*port));
    }
    for proxy in &cluster.proxies {
        let gone = missing(&mut proxy.client(), keys);
        let wrong = gone.iter().find(|key| safe[slot_of(key.as_bytes()).index()]);
        assert_eq!(wrong, None, "{name}: a key is lost that a living server held");
    }
}

fn daemon(cluster: &mut Cluster, victim: Victim) -> &mut Daemon {
    match victim {
        Victim::Source => &mut cluster.servers[0],
        Victim::Target => &mut cluster.servers[1],
        Victim::Proxy => &mut cluster.proxies[0],
        Victim::Control => &mut cluster.control,
    }
}

/// Orders the move and makes the fault happen; the process is back afterwards. Returns the slots
/// that must keep their keys.
fn strike(cluster: &mut Cluster, (victim, fault, moment): (Victim, Fault, Moment)) -> Vec<bool> {
    let part = |done_of: fn(i64) -> i64, cluster: &Cluster| {
        let id = cluster.begin_move("0-511", 2);
        cluster.until(id, "it gets that far", |s| s.is_over() || s.done >= done_of(s.total));
    };
    match moment {
        Moment::Before => {}
        Moment::Begun => drop(cluster.begin_move("0-511", 2)),
        Moment::Middle => part(|total| total / 2, cluster),
        Moment::End => part(|total| total - 8, cluster),
    }
    let daemon = daemon(cluster, victim);
    match fault {
        Fault::Kill => daemon.kill(),
        Fault::Freeze => daemon.freeze(),
    }
    let safe = safe_slots(cluster, victim, fault);
    // Control cannot be told anything while it is away; others can be moved from and to, or the
    // order is refused.
    let is_ordered_now = moment == Moment::Before && victim != Victim::Control;
    if is_ordered_now {
        let reply = cluster.admin().call("SLOTS MOVE 0-511 TO 2");
        assert!(matches!(reply, Value::Map(_) | Value::Error(_)), "{reply:?}");
    }
    let daemon = self::daemon(cluster, victim);
    match fault {
        Fault::Kill => daemon.restart(),
        Fault::Freeze => {
            // Not to wait for something: this is the fault.
            let end = Instant::now() + HANG;
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            daemon.thaw();
        }
    }
    if moment == Moment::Before && !is_ordered_now {
        cluster.begin_move("0-511", 2);
    }
    safe
}

/// Slots whose keys a server holds that was not killed.
fn safe_slots(cluster: &Cluster, victim: Victim, fault: Fault) -> Vec<bool> {
    let living = match (victim, fault) {
        (Victim::Source, Fault::Kill) => 1,
        (Victim::Target, Fault::Kill) => 0,
        _ => return vec![true; SLOT_COUNT],
    };
    let is_held = |state: &String| matches!(state.as_str(), "owned" | "leaving" | "frozen");
    cluster.states(living).iter().map(is_held).collect()
}

/// A client that accepts errors and lost connections, but no hanging call and no wrong value.
fn run_lenient(port: u16, name: &str, until: &AtomicBool) {
    let mut number = 0_u64;
    while !until.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::connect(port) else {
            std::thread::park_timeout(Duration::from_millis(2));
            continue;
        };
        while !until.load(Ordering::SeqCst) {
            number += 1;
            let key = format!("{name}:{}", number % 200);
            let set = client.try_call(&["SET", &key, &number.to_string()]);
            let get = client.try_call(&["GET", &key]);
            match (set, get) {
                (Ok(_), Ok(Value::Null | Value::Error(_))) => {}
                (Ok(_), Ok(value)) => {
                    let kept = value.as_text().and_then(|text| text.parse::<u64>().ok());
                    let is_ours = kept.is_some_and(|n| n <= number && n % 200 == number % 200);
                    assert!(is_ours, "{key}: {value:?} after {number}");
                }
                (Err(error), _) | (_, Err(error)) => {
                    let is_late = matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                    assert!(!is_late, "{key}: a call hangs");
                    break;
                }
            }
        }
    }
}

#[test]
fn source_killed_in_a_move_comes_back() {
    row(Victim::Source, Fault::Kill);
}

#[test]
fn source_frozen_in_a_move_loses_nothing() {
    row(Victim::Source, Fault::Freeze);
}

#[test]
fn target_killed_in_a_move_comes_back() {
    row(Victim::Target, Fault::Kill);
}

#[test]
fn target_frozen_in_a_move_loses_nothing() {
    row(Victim::Target, Fault::Freeze);
}

#[test]
fn proxy_killed_in_a_move_comes_back() {
    row(Victim::Proxy, Fault::Kill);
}

#[test]
fn proxy_frozen_in_a_move_loses_nothing() {
    row(Victim::Proxy, Fault::Freeze);
}

#[test]
fn control_killed_in_a_move_goes_on() {
    row(Victim::Control, Fault::Kill);
}

#[test]
fn control_frozen_in_a_move_goes_on() {
    row(Victim::Control, Fault::Freeze);
}
