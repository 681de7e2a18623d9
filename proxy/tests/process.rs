//! The process: its command line, its folder, its end, and its admin port.

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use common::cluster::{Cluster, Proxy, free_port, map_of, own_folder};
use common::eventually;
use common::fake::Fake;
use rustix::process::{Pid, Signal, kill_process};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cordis-proxy"));
    command.args(arguments).output().expect("the program is there")
}

#[test]
fn wrong_settings_are_one_line_and_exit_2() {
    let folder = own_folder();
    let file = folder.join("proxy.toml");
    std::fs::write(&file, "proxy_max_clients = \"many\"\n").expect("the folder is new");
    let file = file.to_string_lossy().into_owned();
    for (arguments, part) in [
        (vec!["--nonsense"], "--nonsense"),
        (vec!["--backend-ping-period", "5x"], "backend-ping-period"),
        (vec![file.as_str()], "proxy_max_clients"),
        (vec!["/nosuch.toml"], "/nosuch.toml"),
        (vec!["--jodis-addr", "127.0.0.1:2181"], "not built in yet"),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("cordis-proxy: ") && text.contains(part), "{text}");
    }
    std::fs::remove_dir_all(folder).expect("it is there");
}

#[test]
fn what_cannot_be_used_is_one_line_and_exit_1() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let taken = listener.local_addr().expect("it is bound").to_string();
    let folder = own_folder();
    let dir = folder.to_string_lossy().into_owned();
    let free = "127.0.0.1:0";
    for (arguments, part) in [
        (["--proxy-addr", &taken, "--admin-addr", free, "--dir", &dir], "is in use"),
        (["--proxy-addr", free, "--admin-addr", free, "--dir", "/nosuch"], "mkdir -p"),
        (["--proxy-addr", free, "--admin-addr", free, "--cores", "4095"], "choose --cores"),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn map_survives_the_process() {
    let server = common::cluster::Server::start(&[]);
    let folder = own_folder();
    let dir = folder.to_string_lossy().into_owned();
    let map = map_of(&[server.addr()], 7, |_| 1);
    // The folder's own flag comes last: it counts.
    let start = || Proxy::start_in(&folder, &[]);
    let mut proxy = start();
    proxy.set_map(&map);
    assert_eq!(proxy.client().text("SET a 1"), "+OK\r\n");
    proxy.process.kill();
    let proxy = start();
    assert_eq!(proxy.client().text("GET a"), "$1\r\n1\r\n", "it serves without control");
    let older = map_of(&[server.addr()], 6, |_| 1).to_json();
    let reply = proxy.admin().try_call(&["MAP", "SET", &older]).expect("it answers");
    assert_eq!(reply, b"-STALE map epoch is 7\r\n");
    // Two processes would write the same file.
    let output =
        run(&["--dir", &dir, "--proxy-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("another cordis-proxy"), "{text}");
    let output = run(&["--dir", &dir, "--product-name", "other"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn signal_and_shutdown_end_it_with_answers_out() {
    let cluster = Cluster::start(&[]);
    let mut proxy = cluster.proxy;
    let mut client = proxy.client();
    assert_eq!(client.text("PING"), "+PONG\r\n");
    assert_eq!(proxy.admin().text("SHUTDOWN"), "+OK\r\n");
    assert!(proxy.process.wait().success(), "{}", proxy.process.output());
    assert!(client.read_reply().is_err());
    let mut proxy = Proxy::start(&[]);
    let pid = Pid::from_raw(proxy.process.pid() as i32).expect("it runs");
    kill_process(pid, Signal::TERM).expect("it runs");
    assert!(proxy.process.wait().success());
    assert!(proxy.process.output().contains("stopped"));
}

#[test]
fn admin_port_describes_the_proxy() {
    let cluster = Cluster::start(&["--admin-auth", "s3cret", "--slowlog-log-slower-than", "0"]);
    let mut client = cluster.proxy.client();
    for _ in 0..10 {
        client.text("SET a 1");
        client.text("GET e");
    }
    let mut admin = cluster.proxy.admin();
    assert_eq!(admin.text("STATS"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(admin.text("AUTH s3cret"), "+OK\r\n");
    let stats = admin.text("STATS");
    for part in ["$3\r\nset\r\n", "$3\r\nget\r\n", "slots_served\r\n:1024", "p99_us"] {
        assert!(stats.contains(part), "{part} in {stats}");
    }
    assert!(cluster.servers.iter().all(|server| stats.contains(&server.addr())));
    assert!(admin.text("INFO").contains("# Proxy\r\nproduct_name:codis-demo"));
    assert!(admin.text("MODEL").contains(&format!("127.0.0.1:{}", cluster.proxy.port)));
    assert!(admin.text("HELP").contains("MAP SET json -- "));
    let slow = admin.text("SLOWLOG GET 100");
    assert!(slow.contains("SET a 1") && slow.contains("GET e"), "{slow}");
    assert!(client.text("SLOWLOG GET 1").starts_with("*1\r\n*6\r\n"));
    assert_eq!(client.text("SLOWLOG RESET"), "+OK\r\n");
    // The next call that a backend answers is the only one.
    assert_eq!(client.text("SET a 2"), "+OK\r\n");
    assert_eq!(client.text("SLOWLOG LEN"), ":1\r\n");
    assert_eq!(admin.text("LOGLEVEL debug"), "+OK\r\n");
    assert_eq!(admin.text("STATS RESET"), "+OK\r\n");
    eventually(Duration::from_secs(20), "the counters are zero", || {
        (!admin.text("STATS").contains("$3\r\nset\r\n")).then_some(())
    });
}

#[test]
fn proxy_announces_itself_until_control_answers() {
    let (asked, heard) = std::sync::mpsc::channel();
    let tries = std::sync::atomic::AtomicU32::new(0);
    let control = Fake::start(move |words| {
        let first = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let _ = asked.send(words.join(" "));
        common::fake::Act::text(if first { "-ERR not yet\r\n" } else { "+OK\r\n" })
    });
    let nobody = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(&["--control", &format!("{nobody},{}", control.addr())]);
    for _ in 0..2 {
        let words = heard.recv_timeout(Duration::from_secs(30)).expect("it asks, twice");
        assert_eq!(words, format!("PROXY ADD 127.0.0.1:{}", proxy.admin_port));
    }
    eventually(Duration::from_secs(20), "it says so", || {
        proxy.process.output().contains("control knows this proxy").then_some(())
    });
}
