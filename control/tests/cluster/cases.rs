//! What an operator meets: a move that is cancelled, a target that is dead or full, and `cordis up`
//! from the greeting to the second start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;

use cordis_engine::resp::value::Value;
use cordis_engine::slots::hash::slot_of;
use rustix::process::{Pid, Signal, kill_process};

use super::harness::{
    Client, Cluster, Status, eventually, free_ports, key_of_each_slot, own_folder, program, signal,
};
use super::history::{Ends, Worker, load, missing, seed};

/// A rate at which a move of the loaded keys takes ten seconds: none is over before it is disturbed.
const SLOW: u64 = 50_000;

/// A cluster with keys in all slots.
fn loaded(count: usize) -> (Cluster, Vec<String>) {
    let cluster = Cluster::start();
    let keys: Vec<String> = (0..count).map(|number| format!("load:{number}")).collect();
    load(&mut cluster.proxies[0].client(), &keys);
    (cluster, keys)
}

/// Keys of the slots of group 1.
fn of_group_1(keys: &[String]) -> Vec<String> {
    let is_there = |key: &&String| slot_of(key.as_bytes()).index() < 512;
    keys.iter().filter(is_there).cloned().collect()
}

#[test]
fn move_cancelled_half_way_leaves_each_slot_with_one_owner() {
    let (cluster, keys) = loaded(8_000);
    cluster.set("migration-rate-bytes", SLOW);
    let ports = [cluster.proxies[0].port, cluster.proxies[1].port];
    let mut workers = [Worker::new("c0", seed()), Worker::new("c1", seed())];
    let until = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        for (worker, port) in workers.iter_mut().zip(ports) {
            let until = &until;
            scope.spawn(move || worker.run(port, &[], until));
        }
        let _ends = Ends(&until);
        let id = cluster.begin_move("0-511", 2);
        cluster.until(id, "some slots arrive", |status| status.done >= 40);
        cluster.admin().ok(&format!("SLOTS CANCEL {id}"));
        let status = cluster.until(id, "it ends", Status::is_over);
        cluster.whole();
        status
    });
    assert_eq!(status.state, "cancelled", "{status:?}");
    let left = cluster.states(0).iter().filter(|state| *state == "owned").count();
    assert!((1..=512 - 40).contains(&left), "{left} slots are left: {status:?}");
    for (worker, port) in workers.iter_mut().zip(ports) {
        worker.check_all(port);
        assert_eq!(missing(&mut Client::connect(port).expect("it runs"), &keys), [""; 0]);
    }
}

#[test]
fn target_that_is_dead_leaves_everything_at_the_source() {
    let (mut cluster, keys) = loaded(2_000);
    cluster.set("peer-timeout-ms", 500);
    cluster.set("migration-stall-ms", 1_000);
    cluster.servers[1].kill();
    let kept = of_group_1(&keys);
    let order = cluster.admin().call("SLOTS MOVE 0-511 TO 2");
    match order.field("id").and_then(Value::as_int) {
        // Refused at once.
        None => assert!(matches!(order, Value::Error(_)), "{order:?}"),
        Some(id) => {
            let status = cluster.until(id, "it is given up", Status::is_over);
            assert_eq!((status.state.as_str(), status.done), ("failed", 0), "{status:?}");
            assert!(!status.error.is_empty(), "{status:?}");
        }
    }
    let states = cluster.states(0);
    assert!(states[..512].iter().all(|state| state == "owned"), "{states:?}");
    for proxy in &cluster.proxies {
        assert_eq!(missing(&mut proxy.client(), &kept), [""; 0]);
    }
    cluster.servers[1].restart();
    cluster.whole();
    cluster.move_all("0-511", 2);
    cluster.whole();
    assert_eq!(missing(&mut cluster.proxies[0].client(), &kept), [""; 0]);
}

#[test]
fn target_that_dies_in_a_move_rolls_back() {
    let (mut cluster, keys) = loaded(8_000);
    cluster.set("peer-timeout-ms", 500);
    cluster.set("migration-stall-ms", 1_000);
    cluster.set("migration-rate-bytes", SLOW);
    let id = cluster.begin_move("0-511", 2);
    cluster.until(id, "some slots arrive", |status| status.done >= 20);
    cluster.servers[1].kill();
    let status = cluster.until(id, "it is given up", Status::is_over);
    assert_eq!(status.state, "failed", "{status:?}");
    assert!(!status.error.is_empty(), "{status:?}");
    // What had not been handed over is served where it was.
    let states = cluster.states(0);
    let is_served = |key: &String| states[slot_of(key.as_bytes()).index()] == "owned";
    let kept: Vec<String> = keys.iter().filter(|key| is_served(key)).cloned().collect();
    assert!(kept.len() > 100, "{} keys are left", kept.len());
    for proxy in &cluster.proxies {
        assert_eq!(missing(&mut proxy.client(), &kept), [""; 0]);
    }
    cluster.servers[1].restart();
    cluster.whole();
    assert_eq!(missing(&mut cluster.proxies[1].client(), &kept), [""; 0]);
}

#[test]
fn target_that_is_full_refuses_and_the_source_stays_intact() {
    let (cluster, keys) = loaded(8_000);
    let mut target = cluster.servers[1].client();
    target.ok("CONFIG SET maxmemory 1");
    let id = cluster.begin_move("0-511", 2);
    let status = cluster.until(id, "it is given up", Status::is_over);
    assert_eq!(status.state, "failed", "{status:?}");
    assert!(status.error.contains("OOM") || status.error.contains("memory"), "{status:?}");
    for proxy in &cluster.proxies {
        assert_eq!(missing(&mut proxy.client(), &keys), [""; 0]);
    }
    target.ok("CONFIG SET maxmemory 0");
    cluster.whole();
    let id = cluster.begin_move("0-511", 2);
    let status = cluster.until(id, "it ends", Status::is_over);
    assert_eq!(status.state, "finished", "{status:?}");
    cluster.whole();
    assert_eq!(missing(&mut cluster.proxies[0].client(), &keys), [""; 0]);
}

#[test]
fn process_that_is_server_and_proxy_is_both_to_control() {
    let mut cluster = Cluster::start_fused();
    let keys: Vec<String> = (0..2_000).map(|number| format!("load:{number}")).collect();
    load(&mut cluster.proxies[0].client(), &keys);
    let ports = [cluster.proxies[0].port, cluster.proxies[1].port];
    let mut workers = [Worker::new("c0", seed()), Worker::new("c1", seed())];
    let until = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (worker, port) in workers.iter_mut().zip(ports) {
            let until = &until;
            scope.spawn(move || worker.run(port, &[], until));
        }
        let _ends = Ends(&until);
        cluster.move_all("0-511", 2);
        cluster.move_all("0-1023", 1);
        // It goes on with what it knows.
        cluster.control.kill();
        let mut client = cluster.proxies[0].client();
        assert_eq!(client.call("SET while-control-is-down 1"), Value::simple("OK"));
        cluster.control.restart();
        cluster.whole();
        cluster.move_all("512-1023", 2);
        cluster.whole();
    });
    for (worker, port) in workers.iter_mut().zip(ports) {
        worker.check_all(port);
        assert_eq!(missing(&mut Client::connect(port).expect("it runs"), &keys), [""; 0]);
    }
}

/// A running `cordis up`.
struct Up {
    child: Child,
    output: PathBuf,
}

impl Up {
    fn start(dir: &Path, arguments: &[String]) -> Self {
        // It looks for these beside itself.
        let _ = ["cordis-server", "cordis-proxy"].map(program);
        let output = own_folder().join("output");
        let file = File::create(&output).expect("its folder is ours");
        let child = Command::new(env!("CARGO_BIN_EXE_cordis"))
            .args(["up", "--dir"])
            .arg(dir)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("an open file has a second handle"))
            .stdout(file)
            .spawn()
            .expect("cordis can be started");
        let mut up = Self { child, output };
        eventually("cordis up greets", || {
            let ended = up.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "cordis up ends ({ended:?}):\n{}", up.said());
            up.said().contains("Stop   Ctrl-C").then_some(())
        });
        up
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Ctrl-C.
    fn stop(&mut self) -> ExitStatus {
        signal(&self.child, Signal::INT);
        eventually("cordis up stops", || self.child.try_wait().expect("a child can be asked"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Killed, it would leave its processes behind.
        if let Ok(None) = self.child.try_wait() {
            self.stop();
        }
        if std::thread::panicking() {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.said().as_bytes());
        } else if let Some(folder) = self.output.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Runs a line of the greeting; what it prints.
fn run(line: &str, more: &[&str]) -> String {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a line is not empty");
    let name = if name == "cordis" { env!("CARGO_BIN_EXE_cordis") } else { name };
    let output = Command::new(name).args(words).args(more).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{line}: {error}; the greeting shows redis-cli and redis-benchmark: install them")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}\n{text}{errors}", output.status);
    text
}

/// Waits until all slots can be written and read at a port.
fn serves_all(port: u16) {
    let keys = key_of_each_slot("up");
    let sets: Vec<_> =
        keys.iter().map(|key| vec!["SET".to_owned(), key.clone(), key.clone()]).collect();
    eventually("every slot is served", || {
        let replies = Client::connect(port).ok()?.pipeline(&sets).ok()?;
        replies.iter().all(|reply| *reply == Value::simple("OK")).then_some(())
    });
}

#[test]
fn up_greets_heals_stops_and_finds_everything_again() {
    let dir = own_folder();
    let port = free_ports(5);
    let (control, server) = (port + 2, port + 3);
    let flags = [("--port", port), ("--admin-port", control), ("--server-port", server)];
    let flags: Vec<String> =
        flags.iter().flat_map(|(name, port)| [(*name).to_owned(), port.to_string()]).collect();
    let mut up = Up::start(&dir, &flags);
    let said = up.said();
    let line = |begin: &str| {
        let lines = said.lines().map(|line| line.trim_start_matches("Try").trim_start());
        let mut fitting = lines.filter(|line| line.starts_with(begin));
        fitting.next().unwrap_or_else(|| panic!("no {begin} in:\n{said}"))
    };
    assert_eq!(run(line("redis-cli "), &[]).trim(), "OK");
    assert!(run(line("redis-benchmark "), &["-n", "2000"]).contains("requests per second"));
    run(line("cordis "), &[]);
    let slots = |port: u16| Client::connect(port).expect("control runs").call("SLOTS LIST");
    let before = slots(control);
    let mut client = Client::connect(port).expect("the proxy runs");
    assert_eq!(client.call("GET hello"), Value::text("world"));

    // What dies is started again.
    for name in [format!("server-{server}"), "proxy".to_owned(), "control".to_owned()] {
        let path = dir.join(&name).join("pid");
        let pid = fs::read_to_string(&path).expect("its number is kept");
        let number = pid.trim().parse().ok().and_then(Pid::from_raw).expect("it is a number");
        kill_process(number, Signal::KILL).expect("it runs");
        eventually("it is started again", || {
            let new = fs::read_to_string(&path).ok()?;
            (!new.is_empty() && new != pid).then_some(())
        });
        serves_all(port);
        assert!(up.said().contains(&format!("{name} ended")), "{}", up.said());
    }
    eventually("control answers", || Client::connect(control).ok());
    assert_eq!(slots(control), before);

    assert!(up.stop().success(), "{}", up.said());
    for port in port..port + 5 {
        assert!(Client::connect(port).is_err(), "somebody still listens on port {port}");
    }
    let mut up = Up::start(&dir, &[]);
    assert_eq!(slots(control), before);
    serves_all(port);
    assert!(up.stop().success(), "{}", up.said());
    drop(up);
    // Kept when the test fails: its logs may be wanted.
    fs::remove_dir_all(dir).expect("it is ours");
}
