//! The control process: one thread that owns the machine, carries out what it wants, and tells it
//! what came of it. Persists first, then sends, then answers. Decides nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use cordis_engine::resp::value::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::admin::show::{Process, outcome, show};
use crate::admin::table::Asked;
use crate::admin::{listen, serve};
use crate::clock::Clock;
use crate::machine::{Action, CommandId, Event, Machine, Outcome};
use crate::model::Model;
use crate::peers::{Answered, Peers, Secrets};
use crate::store::Store;
use crate::store::file::FileStore;

/// When the machine is told that time has passed, if nothing else has happened to it: while something
/// is under way, and while nothing is.
const TICK_BUSY: Duration = Duration::from_millis(20);
const TICK_IDLE: Duration = Duration::from_millis(500);
/// Questions of sessions that wait for the machine.
const ASKING_MAX: usize = 256;

/// What a control process is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it takes commands: `ip:port`; port 0: any.
    pub admin_addr: String,
    /// Where things are kept: `file:PATH`.
    pub store: String,
    /// The product that it controls.
    pub product_name: String,
    /// What servers want to hear: `AUTH`.
    pub product_auth: String,
    /// What servers want to hear before commands of the cluster: `CORDIS AUTH`.
    pub cluster_secret: String,
    /// What the admin ports of proxies want to hear.
    pub proxy_secret: String,
    /// What this process' own admin port wants to hear; empty: nothing, and only on loopback.
    pub admin_secret: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admin_addr: "127.0.0.1:18080".into(),
            store: "file:control".into(),
            product_name: "cordis-demo".into(),
            product_auth: String::new(),
            cluster_secret: String::new(),
            proxy_secret: String::new(),
            admin_secret: String::new(),
        }
    }
}

/// Runs a control process until SIGTERM, SIGINT or SHUTDOWN.
///
/// # Errors
/// One line that says why it could not start, or had to stop.
pub fn run(options: Options) -> Result<(), String> {
    run_until(options, |_| {})
}

/// Like [`run`], and says where it listens once it does.
///
/// # Errors
/// As [`run`].
pub fn run_until(options: Options, is_up: impl FnOnce(std::net::SocketAddr)) -> Result<(), String> {
    let path = store_path(&options.store)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| format!("cannot start: {why}"))?;
    let store = FileStore::open(path).map_err(|why| why.to_string())?;
    if store.cut_bytes() > 0 {
        tracing::warn!(bytes = store.cut_bytes(), "a torn end of the store was cut");
    }
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = listen(&options.admin_addr, &options.admin_secret).await?;
        let addr = listener.local_addr().map_err(|why| why.to_string())?;
        let (asking, questions) = mpsc::channel(ASKING_MAX);
        let mut control = Control::new(&options, addr.to_string(), Box::new(store))?;
        tokio::task::spawn_local(serve(listener, options.admin_secret.clone(), asking));
        tracing::info!(%addr, product = options.product_name, "control is up");
        is_up(addr);
        control.run(questions).await
    })
}

fn store_path(store: &str) -> Result<PathBuf, String> {
    match store.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(format!("store '{store}' must be file:PATH")),
    }
}

/// The machine with everything that it needs.
struct Control {
    product: String,
    clock: Clock,
    store: Box<dyn Store>,
    machine: Machine,
    peers: Peers,
    answers: mpsc::UnboundedReceiver<Answered>,
    process: Process,
    waiting: HashMap<CommandId, oneshot::Sender<Value>>,
    command_id: CommandId,
    /// When the machine last made a step.
    stepped: Instant,
}

impl Control {
    fn new(options: &Options, admin_addr: String, store: Box<dyn Store>) -> Result<Self, String> {
        let clock = Clock::new();
        let (sender, answers) = mpsc::unbounded_channel();
        let secrets = Secrets {
            product_auth: options.product_auth.clone(),
            cluster_secret: options.cluster_secret.clone(),
            proxy_auth: options.proxy_secret.clone(),
        };
        Ok(Self {
            product: options.product_name.clone(),
            machine: Machine::new(load(&options.product_name, store.as_ref())?, clock.now_ms()),
            clock,
            store,
            peers: Peers::new(secrets, sender),
            answers,
            process: Process {
                admin_addr,
                store: options.store.clone(),
                started_ms: clock.now_ms(),
                store_error: String::new(),
            },
            waiting: HashMap::new(),
            command_id: 0,
            stepped: Instant::now(),
        })
    }

    async fn run(
        &mut self,
        mut questions: mpsc::Receiver<(Asked, oneshot::Sender<Value>)>,
    ) -> Result<(), String> {
        let failed = |why: std::io::Error| format!("cannot watch signals: {why}");
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        loop {
            let tick = if self.machine.is_busy() { TICK_BUSY } else { TICK_IDLE };
            tokio::select! {
                Some((peer, id, answer)) = self.answers.recv() => {
                    self.step(Event::Reply { peer, id, answer })?;
                }
                Some((asked, reply)) = questions.recv() => match asked {
                    Asked::Shutdown => {
                        drop(reply.send(Value::simple("OK")));
                        // The session writes it in its next turn.
                        tokio::task::yield_now().await;
                        return Ok(());
                    }
                    asked => self.asked(asked, reply)?,
                },
                // Counted from the last step: questions that are only shown something are none.
                () = sleep_until(self.stepped + tick) => self.step(Event::Tick)?,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    fn asked(&mut self, asked: Asked, reply: oneshot::Sender<Value>) -> Result<(), String> {
        match asked {
            Asked::Show(what) => {
                let value = show(&self.machine, &self.process, self.clock.now_ms(), &what);
                // Who asked may be gone.
                drop(reply.send(value));
                Ok(())
            }
            Asked::Do(command) => {
                self.command_id += 1;
                self.waiting.insert(self.command_id, reply);
                self.step(Event::Command { id: self.command_id, command })
            }
            Asked::Shutdown => Ok(()),
        }
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        self.stepped = Instant::now();
        let before = self.machine.model().meta.event_id;
        let actions = self.machine.step(self.clock.now_ms(), event);
        for action in actions {
            match action {
                Action::Persist(records) => {
                    if let Err(why) = self.store.put(&records) {
                        return self.start_over(&why.to_string());
                    }
                    self.process.store_error.clear();
                }
                Action::Send { peer, id, request } => {
                    let is_proxy = self.machine.is_proxy(&peer);
                    self.peers.ask(peer, id, request, is_proxy);
                }
                Action::Forget { peer } => self.peers.forget(&peer),
                Action::Answer { id, outcome } => self.answer(id, &outcome),
            }
        }
        self.log_since(before);
        Ok(())
    }

    /// What was decided could not be kept, so it was not decided: the machine goes on from what is
    /// kept. Questions under way are answered to nobody.
    fn start_over(&mut self, why: &str) -> Result<(), String> {
        tracing::error!(why, "the store cannot be written");
        why.clone_into(&mut self.process.store_error);
        let model = load(&self.product, self.store.as_ref())?;
        self.machine = Machine::new(model, self.clock.now_ms());
        // Another channel: an answer to a question of before must not pass for one of now.
        let (sender, answers) = mpsc::unbounded_channel();
        self.answers = answers;
        self.peers.start_over(sender);
        let text = format!("ERR the store cannot be written: {why}");
        for (_, reply) in self.waiting.drain() {
            drop(reply.send(Value::Error(text.clone())));
        }
        Ok(())
    }

    fn answer(&mut self, id: CommandId, result: &Result<Outcome, String>) {
        if let Some(reply) = self.waiting.remove(&id) {
            drop(reply.send(outcome(&self.machine, result)));
        }
    }

    /// Events are log lines too.
    fn log_since(&self, before: u64) {
        let events = self.machine.model().events.iter().rev();
        let new: Vec<_> = events.take_while(|event| event.id > before).collect();
        for event in new.into_iter().rev() {
            tracing::info!(kind = event.kind, "{}", event.text);
        }
    }
}

fn load(product: &str, store: &dyn Store) -> Result<Model, String> {
    let records = store.load();
    if records.is_empty() {
        return Ok(Model::new(product));
    }
    let texts = records.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Model::load(product, texts).map_err(|why| why.to_string())
}
