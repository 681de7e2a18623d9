//! A cluster of real processes on free ports and in temporary folders: a control process, two
//! servers, two proxies. They can be killed, stopped and started again; all of them are gone when
//! the value is dropped, also in a panic.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cordis_engine::resp::value::{Value, ValueDecoder, encode_call};
use cordis_engine::units::SLOT_COUNT;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take: builds may share the machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Asks `done` until it gives something; panics with `what` when that takes too long.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A connection of a client.
pub(crate) struct Client {
    stream: TcpStream,
    decoder: ValueDecoder,
}

impl Client {
    /// Connects to a port of this machine.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let addr = (Ipv4Addr::LOCALHOST, port).into();
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, decoder: ValueDecoder::default() })
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply.
    pub(crate) fn read(&mut self) -> io::Result<Value> {
        let mut piece = [0; 16 * 1024];
        loop {
            let value = self.decoder.next_value().map_err(io::Error::other)?;
            if let Some(value) = value {
                return Ok(value);
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.decoder.extend(&piece[..count]),
            }
        }
    }

    /// One call and its reply.
    pub(crate) fn try_call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Value> {
        let mut bytes = Vec::new();
        encode_call(words, &mut bytes);
        self.send(&bytes)?;
        self.read()
    }

    /// One call, its words parted by blanks, and its reply.
    pub(crate) fn call(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        self.try_call(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// A call that must be answered with OK.
    pub(crate) fn ok(&mut self, line: &str) {
        assert_eq!(self.call(line), Value::simple("OK"), "{line}");
    }

    /// Many calls at once, in batches; their replies.
    pub(crate) fn pipeline(&mut self, calls: &[Vec<String>]) -> io::Result<Vec<Value>> {
        let mut replies = Vec::with_capacity(calls.len());
        for batch in calls.chunks(256) {
            let mut bytes = Vec::new();
            batch.iter().for_each(|call| encode_call(call, &mut bytes));
            self.send(&bytes)?;
            for _ in batch {
                replies.push(self.read()?);
            }
        }
        Ok(replies)
    }
}

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many ports in a row that nobody listens on just now, none of which another test
/// here is given. They lie below those that the kernel deals out by itself.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const RANGE: u32 = 12_000;
    let base = std::process::id().wrapping_mul(211);
    for _ in 0..RANGE {
        // Ordering: only that numbers differ.
        let at = NEXT.fetch_add(u32::from(count), Ordering::Relaxed);
        let first = (FIRST + base.wrapping_add(at) % (RANGE - u32::from(count))) as u16;
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no port is free");
}

/// A new folder below the build's.
pub(crate) fn own_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Ordering: only that numbers differ.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("cluster-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// The program of this name: built beside this test, or built now.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    // A panic in another test's build is that test's.
    let _one = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_BIN_EXE_cordis-control")).parent();
    let folder = folder.expect("a program is in a folder");
    let path = folder.join(name);
    if !path.exists() {
        let target = folder.parent().expect("the profile's folder is in the target's");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", name, "--bins", "--target-dir"])
            .arg(target)
            .args(if folder.ends_with("release") { &["--release"][..] } else { &[] })
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "{name} cannot be built");
    }
    path
}

/// Sends a signal to a process that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has a number");
    kill_process(pid, signal).expect("a child that was not waited for takes signals");
}

/// One process of the cluster.
pub(crate) struct Daemon {
    name: &'static str,
    args: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
    /// Where it serves; for a proxy, where clients connect.
    pub(crate) port: u16,
    /// Where it answers PING once it runs.
    pub(crate) admin_port: u16,
}

impl Daemon {
    fn start(name: &'static str, (port, admin_port): (u16, u16), args: Vec<String>) -> Self {
        let folder = own_folder();
        let mut daemon = Self { name, args, folder, child: None, port, admin_port };
        daemon.restart();
        daemon
    }

    fn control() -> Self {
        let port = free_port();
        let addr = format!("127.0.0.1:{port}");
        let args = ["--admin-addr", &addr, "--product-name", "test", "--store", "file:store"];
        Self::start("cordis-control", (port, port), args.map(str::to_owned).into())
    }

    fn server(cores: &str) -> Self {
        let port = free_port();
        let number = port.to_string();
        let args = ["--port", &number, "--bind", "127.0.0.1", "--cores", cores, "--save", ""];
        Self::start("cordis-server", (port, port), args.map(str::to_owned).into())
    }

    fn proxy(cores: &str) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let (addr, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin_port}"));
        let args = ["--proxy-addr", &addr, "--admin-addr", &admin, "--cores", cores];
        let args = args.iter().chain(&["--product-name", "test"]);
        let args = args.map(|word| (*word).to_owned()).collect();
        Self::start("cordis-proxy", (port, admin_port), args)
    }

    /// A server that hosts a proxy, and that proxy, which nobody has to start or end.
    fn fused(cores: &str) -> (Self, Self) {
        let (port, proxy_port, admin_port) = (free_port(), free_port(), free_port());
        let number = port.to_string();
        let addr = |port: u16| format!("127.0.0.1:{port}");
        let (proxy, admin) = (addr(proxy_port), addr(admin_port));
        let mut args = vec!["--port", &number, "--cores", cores, "--proxy-addr", &proxy];
        args.extend(["--proxy-admin-addr", &admin, "--proxy-product-name", "test"]);
        let args = args.into_iter().map(str::to_owned).collect();
        let server = Self::start("cordis-server", (port, admin_port), args);
        let (args, folder) = (Vec::new(), own_folder());
        let name = "proxy within";
        (server, Self { name, args, folder, child: None, port: proxy_port, admin_port })
    }

    /// Starts it, in the folder and on the ports that it had before, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let mut child = self.spawn();
        let what = format!("{} starts", self.name);
        eventually(&what, || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("{} ends ({status}):\n{}", self.name, self.log());
            }
            let mut client = Client::connect(self.admin_port).ok()?;
            client.try_call(&["PING"]).ok()
        });
        self.child = Some(child);
    }

    fn spawn(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let log = log.expect("its folder is ours");
        let errors = log.try_clone().expect("an open file has a second handle");
        let mut command = Command::new(program(self.name));
        command
            .args(&self.args)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        if self.name != "cordis-control" {
            command.arg("--dir").arg(&self.folder);
        }
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        // Works for a stopped process too.
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Stops it where it stands, as a machine that hangs.
    pub(crate) fn freeze(&self) {
        signal(self.child.as_ref().expect("it runs"), Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal(self.child.as_ref().expect("it runs"), Signal::CONT);
    }

    /// A connection to where it serves.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.port).unwrap_or_else(|error| {
            panic!("{} on port {}: {error}\n{}", self.name, self.port, self.log())
        })
    }

    /// The end of what it printed.
    pub(crate) fn log(&self) -> String {
        let text = self.whole_log();
        String::from_utf8_lossy(&text.as_bytes()[text.len().saturating_sub(3000)..]).into_owned()
    }

    fn whole_log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.folder.join("log")) {
            // What can be read is shown.
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            // A test that fails shows what the processes have said.
            let _ = writeln!(io::stderr(), "--- {} {}\n{}", self.name, self.port, self.log());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The cluster. Group 1 begins with slots 0-511, group 2 with the others.
pub(crate) struct Cluster {
    /// The proxies.
    pub(crate) proxies: [Daemon; 2],
    /// The servers of groups 1 and 2.
    pub(crate) servers: [Daemon; 2],
    /// The control process.
    pub(crate) control: Daemon,
}

impl Cluster {
    /// Starts the processes and introduces them to each other.
    pub(crate) fn start() -> Self {
        let many = std::thread::available_parallelism().map_or(1, usize::from) > 1;
        let (both, last) = if many { ("0,1", "1") } else { ("0", "0") };
        Self::introduce(
            [Daemon::proxy("0"), Daemon::proxy(last)],
            [Daemon::server(both), Daemon::server(last)],
        )
    }

    /// The same with the server of group 1 and the first proxy as one process.
    pub(crate) fn start_fused() -> Self {
        let (server, proxy) = Daemon::fused("0");
        Self::introduce([proxy, Daemon::proxy("0")], [server, Daemon::server("0")])
    }

    fn introduce(proxies: [Daemon; 2], servers: [Daemon; 2]) -> Self {
        let cluster = Self { proxies, servers, control: Daemon::control() };
        let mut admin = cluster.admin();
        for (index, server) in cluster.servers.iter().enumerate() {
            let group = index + 1;
            admin.ok(&format!("GROUP ADD {group}"));
            admin.ok(&format!("SERVER ADD {group} 127.0.0.1:{}", server.port));
            admin.ok(&format!("SLOTS ASSIGN {}-{} TO {group}", index * 512, index * 512 + 511));
        }
        for proxy in &cluster.proxies {
            let added = admin.call(&format!("PROXY ADD 127.0.0.1:{}", proxy.admin_port));
            assert!(added.field("id").is_some(), "{added:?}");
        }
        cluster.whole();
        cluster
    }

    /// A connection to the control process.
    pub(crate) fn admin(&self) -> Client {
        let mut admin = self.control.client();
        let hello = admin.call("HELLO 3");
        assert!(matches!(hello, Value::Map(_)), "{hello:?}");
        admin
    }

    /// The group of each slot and whether something happens with it, as control sees it.
    fn slots(&self) -> Vec<(i64, bool)> {
        let mut slots = vec![(0, true); SLOT_COUNT];
        let table = self.admin().call("SLOTS LIST");
        for row in table.as_array().expect("a table") {
            let is_moving = !row.field("state").and_then(Value::as_text).unwrap_or("").is_empty();
            let (from, to) = (int(row, "from") as usize, int(row, "to") as usize);
            slots[from..=to].fill((int(row, "group"), is_moving));
        }
        slots
    }

    /// Waits until each slot is served by exactly one group, on which control and both servers
    /// agree, nothing is under way, and every slot can be written and read through both proxies.
    pub(crate) fn whole(&self) {
        let mut last = String::new();
        let end = Instant::now() + DEADLINE;
        loop {
            match self.agreement().and_then(|()| self.reach_all()) {
                Ok(()) => return,
                Err(why) => last.clone_from(&why),
            }
            if Instant::now() > end {
                let moves = self.admin().call("MOVE STATUS");
                let moves = moves.as_array().map(<[Value]>::last).unwrap_or_default();
                let servers = self.admin().call("SERVER LIST");
                panic!("the cluster does not become whole: {last}\n{moves:?}\n{servers:?}");
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// No comparison of a slot has failed so far: it would be sent again, so clients notice nothing, but
    /// something was lost or doubled on the way.
    pub(crate) fn all_arrived_whole(&self) {
        let mut lines = Vec::new();
        for server in &self.servers {
            let log = server.whole_log();
            let found = log.lines().filter(|line| line.contains("did not arrive whole"));
            lines.extend(found.map(|line| format!("{}: {line}", server.name)));
        }
        assert!(lines.is_empty(), "{lines:#?}");
    }

    fn agreement(&self) -> Result<(), String> {
        let slots = self.slots();
        let states = [self.states(0), self.states(1)];
        for (slot, (group, is_moving)) in slots.iter().enumerate() {
            let seen = (states[0][slot].as_str(), states[1][slot].as_str());
            let agreed = match seen {
                ("owned", "away") => *group == 1,
                ("away", "owned") => *group == 2,
                _ => false,
            };
            if *is_moving || !agreed {
                return Err(format!(
                    "slot {slot}: group {group} for control, moving: {is_moving}, servers {seen:?}"
                ));
            }
        }
        Ok(())
    }

    fn reach_all(&self) -> Result<(), String> {
        for proxy in &self.proxies {
            let mut client = Client::connect(proxy.port).map_err(|error| error.to_string())?;
            // A database of its own: tests count their keys.
            client.ok("SELECT 15");
            let words = |name: &str, slot: usize| {
                vec![name.to_owned(), KEYS.with(|keys| keys[slot].clone()), slot.to_string()]
            };
            let mut calls = Vec::new();
            for slot in 0..SLOT_COUNT {
                calls.push(words("SET", slot));
                calls.push(words("GET", slot)[..2].to_vec());
            }
            let replies = client.pipeline(&calls).map_err(|error| error.to_string())?;
            for (slot, pair) in replies.chunks(2).enumerate() {
                let expected = [Value::simple("OK"), Value::text(slot.to_string())];
                if pair != expected {
                    return Err(format!("slot {slot} through port {}: {pair:?}", proxy.port));
                }
            }
        }
        Ok(())
    }

    /// What a server is to each slot, in its own words.
    pub(crate) fn states(&self, server: usize) -> Vec<String> {
        let reply = self.servers[server].client().call("CORDIS SLOTS");
        let mut states = vec![String::new(); SLOT_COUNT];
        for run in reply.as_array().expect("an array") {
            let run = run.as_array().expect("an array of arrays");
            let at = |index: usize| run[index].as_int().expect("a number") as usize;
            states[at(0)..=at(1)].fill(run[2].as_text().expect("a name").to_owned());
        }
        states
    }

    /// Begins to move slots; the number of the operation.
    pub(crate) fn begin_move(&self, slots: &str, group: usize) -> i64 {
        let reply = self.admin().call(&format!("SLOTS MOVE {slots} TO {group}"));
        assert!(reply.field("id").is_some(), "SLOTS MOVE {slots} TO {group}: {reply:?}");
        int(&reply, "id")
    }

    /// Waits until an operation looks as it should; its fields.
    pub(crate) fn until(&self, id: i64, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut admin = self.admin();
        let mut last = String::new();
        let end = Instant::now() + DEADLINE;
        loop {
            let reply = admin.call(&format!("MOVE STATUS {id}"));
            let row = &reply.as_array().unwrap_or_else(|| panic!("{reply:?}"))[0];
            let status = Status::of(row);
            if is_so(&status) {
                return status;
            }
            last.clone_from(&format!("{:?}", status));
            assert!(Instant::now() < end, "operation {id}: not in time: {what}; {last}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Moves slots, all of which must arrive.
    pub(crate) fn move_all(&self, slots: &str, group: usize) -> Status {
        let id = self.begin_move(slots, group);
        let status = self.until(id, "it ends", Status::is_over);
        assert_eq!(status.state, "finished", "{status:?}");
        status
    }

    /// Brings slots 0-511 to group 1, wherever they are.
    pub(crate) fn gather(&self) {
        let slots = self.slots();
        let away: Vec<String> =
            (0..512).filter(|slot| slots[*slot].0 != 1).map(|slot| slot.to_string()).collect();
        if !away.is_empty() {
            self.move_all(&away.join(","), 1);
        }
    }

    /// Sets what control can be told.
    pub(crate) fn set(&self, name: &str, value: u64) {
        self.admin().ok(&format!("CONFIG SET {name} {value}"));
    }
}

/// What MOVE STATUS says of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// `pending` to `finished`, `failed` or `cancelled`.
    pub(crate) state: String,
    /// Slots of the operation.
    pub(crate) total: i64,
    /// Slots that have arrived.
    pub(crate) done: i64,
    /// What went wrong.
    pub(crate) error: String,
}

impl Status {
    fn of(row: &Value) -> Self {
        let text = |name: &str| {
            let text = row.field(name).and_then(Value::as_text);
            text.unwrap_or_else(|| panic!("no {name}: {row:?}")).to_owned()
        };
        Self {
            state: text("state"),
            total: int(row, "total_slots"),
            done: int(row, "done_slots"),
            error: text("error"),
        }
    }

    /// Whether nothing more happens.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "finished" | "failed" | "cancelled")
    }
}

fn int(row: &Value, name: &str) -> i64 {
    row.field(name).and_then(Value::as_int).unwrap_or_else(|| panic!("no {name}: {row:?}"))
}

thread_local! {
    /// One key of each slot.
    static KEYS: Vec<String> = key_of_each_slot("probe");
}

/// One key of each slot, by slot.
pub(crate) fn key_of_each_slot(prefix: &str) -> Vec<String> {
    let mut found = BTreeMap::new();
    for number in 0_u64.. {
        if found.len() == SLOT_COUNT {
            break;
        }
        let key = format!("{prefix}:{number}");
        found.entry(cordis_engine::slots::hash::slot_of(key.as_bytes()).index()).or_insert(key);
    }
    found.into_values().collect()
}
