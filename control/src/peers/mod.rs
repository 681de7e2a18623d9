//! The shell around questions: a task and a connection for each peer. Decides nothing. Runs on the
//! thread of the control process.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::machine::RequestId;
use crate::machine::request::{Answer, Request};

mod link;
pub mod wire;

/// What peers want to hear before they obey.
#[derive(Clone, Default)]
pub struct Secrets {
    /// `AUTH` of servers.
    pub product_auth: String,
    /// `CORDIS AUTH` of servers.
    pub cluster_secret: String,
    /// `AUTH` of the proxies' admin ports.
    pub proxy_auth: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// What a question is for, and so which secret it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PeerKind {
    Server,
    Proxy,
}

/// An answer: the peer, the question, and what it said.
pub type Answered = (String, RequestId, Answer);

/// All connections to peers.
#[derive(Debug)]
pub struct Peers {
    secrets: Secrets,
    answers: mpsc::UnboundedSender<Answered>,
    tasks: HashMap<String, mpsc::UnboundedSender<(RequestId, Request, bool)>>,
}

impl Peers {
    /// No connection yet. Answers go to the channel.
    pub fn new(secrets: Secrets, answers: mpsc::UnboundedSender<Answered>) -> Self {
        Self { secrets, answers, tasks: HashMap::new() }
    }

    /// Asks a peer, a proxy or a server. Exactly one answer comes, unless the peer is forgotten.
    ///
    /// Queues hold at most one question, because the machine asks one at a time.
    pub fn ask(&mut self, addr: String, id: RequestId, request: Request, is_proxy: bool) {
        let (secrets, answers) = (&self.secrets, &self.answers);
        let task = self.tasks.entry(addr.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let link = link::Link::new(addr.clone(), secrets.clone());
            tokio::task::spawn_local(serve(addr.clone(), link, receiver, answers.clone()));
            sender
        });
        // The task ends only when its sender is dropped.
        if task.send((id, request, is_proxy)).is_err() {
            self.tasks.remove(&addr);
        }
    }

    /// Closes all connections. Answers go elsewhere from now on; those under way go nowhere.
    pub fn start_over(&mut self, answers: mpsc::UnboundedSender<Answered>) {
        self.tasks.clear();
        self.answers = answers;
    }

    /// Closes the connection to a peer.
    pub fn forget(&mut self, addr: &str) {
        self.tasks.remove(addr);
    }
}

async fn serve(
    addr: String,
    mut link: link::Link,
    mut questions: mpsc::UnboundedReceiver<(RequestId, Request, bool)>,
    answers: mpsc::UnboundedSender<Answered>,
) {
    while let Some((id, request, is_proxy)) = questions.recv().await {
        let answer = link.ask(&request, is_proxy).await;
        if answers.send((addr.clone(), id, answer)).is_err() {
            return;
        }
    }
}
