//! What a command *is*: one `const` record from which lookup, arity, gates, keys, routing,
//! documentation and statistics are derived. Must not know any particular command, nor storage.

use bitflags::bitflags;

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::words::long_words_min;
use crate::net::client::ClientState;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// What a handler returns: a reply has been written, or this error is the reply.
pub type CommandResult = Result<(), CommandError>;

/// Everything that is known of one command or subcommand.
#[derive(Debug)]
pub struct CommandSpec {
    /// Lower-case name; `container|sub` for a subcommand.
    pub name: &'static str,
    /// The group it is documented in.
    pub family: Family,
    /// First Redis version that has it (our own commands name the Codis or Cordis version).
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Cost in big-O terms.
    pub complexity: &'static str,
    /// How many words a call has, the name included (a subcommand counts its container too).
    pub arity: Arity,
    /// Gates and properties.
    pub flags: Flags,
    /// ACL categories besides those that follow from `flags`.
    pub acl: Acl,
    /// Hints for clients and proxies, as COMMAND shows them.
    pub tips: &'static [&'static str],
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    /// The argument tree.
    pub args: &'static [Arg],
    /// Changes since `since`: version and what changed.
    pub history: &'static [(&'static str, &'static str)],
    /// The version that deprecated it, and what to use instead.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// For servers among themselves and for tests, not for applications.
    pub is_internal: bool,
    /// Where a proxy or a core sends it.
    pub route: Route,
    /// How partial replies become one when `route` splits it.
    pub merge: Merge,
    /// What the journal records when it has written.
    pub propagate: Propagate,
    /// Which of its calls may go on after their handler has returned, in steps.
    pub deferral: Deferral,
    /// Subcommands of a container.
    pub subcommands: &'static [CommandSpec],
    /// What runs.
    pub handler: Handler,
}

impl CommandSpec {
    /// A literal to start from: everything that most commands leave empty.
    pub const EMPTY: Self = Self {
        name: "",
        family: Family::Generic,
        since: "",
        summary: "",
        complexity: "",
        arity: Arity::Exact(1),
        flags: Flags::empty(),
        acl: Acl::empty(),
        tips: &[],
        keys: &[],
        args: &[],
        history: &[],
        deprecated: None,
        is_internal: false,
        route: Route::ByKey,
        merge: Merge::First,
        propagate: Propagate::Never,
        deferral: Deferral::Never,
        subcommands: &[],
        handler: Handler::Container,
    };

    /// The name of a subcommand without its container; the whole name otherwise.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, sub)| sub)
    }

    /// Whether a call may go on after its handler has returned: in steps, or when its keys can serve
    /// it (see `commands::long`). Its session waits meanwhile.
    #[inline]
    pub fn may_defer(&self, args: &Args<'_>) -> bool {
        match self.deferral {
            Deferral::Never => self.flags.contains(Flags::BLOCKING),
            Deferral::Always => true,
            Deferral::ManyWords => args.len() >= long_words_min(),
            Deferral::FromWords(min) => args.len() >= usize::from(min),
            Deferral::FromBytes { word, min } => {
                args.get(usize::from(word)).is_some_and(|word| word.len() >= min as usize)
            }
        }
    }

    /// Whether it may change data.
    #[inline]
    pub const fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE)
    }
}

/// Groups of commands, as COMMAND DOCS names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// AUTH, HELLO, CLIENT …
    Connection,
    /// Keys of any type.
    Generic,
    /// Strings.
    String,
    /// Strings as arrays of bits.
    Bitmap,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// HyperLogLog.
    HyperLogLog,
    /// Positions on the globe.
    Geo,
    /// Streams.
    Stream,
    /// Publish and subscribe.
    PubSub,
    /// MULTI and its kin.
    Transactions,
    /// Lua.
    Scripting,
    /// The cluster that Redis makes of itself.
    Cluster,
    /// The process.
    Server,
    /// Hash slots: Codis' family, ours.
    Slots,
}

impl Family {
    /// The group's name in COMMAND DOCS.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::String => "string",
            Self::Bitmap => "bitmap",
            Self::List => "list",
            Self::Hash => "hash",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::HyperLogLog => "hyperloglog",
            Self::Geo => "geo",
            Self::Stream => "stream",
            Self::PubSub => "pubsub",
            Self::Transactions => "transactions",
            Self::Scripting => "scripting",
            Self::Cluster => "cluster",
            Self::Server => "server",
            Self::Slots => "slots",
        }
    }
}

/// Number of words of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arity {
    /// Exactly this many.
    Exact(u16),
    /// This many or more.
    AtLeast(u16),
}

impl Arity {
    /// Whether a call of `words` words is well formed.
    #[inline]
    pub const fn accepts(self, words: usize) -> bool {
        match self {
            Self::Exact(n) => words == n as usize,
            Self::AtLeast(n) => words >= n as usize,
        }
    }

    /// Redis' number: negative for "at least".
    pub const fn wire(self) -> i64 {
        match self {
            Self::Exact(n) => n as i64,
            Self::AtLeast(n) => -(n as i64),
        }
    }
}

bitflags! {
    /// Properties that gates and COMMAND read.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u32 {
        /// May change data.
        const WRITE = 1 << 0;
        /// Never changes data.
        const READONLY = 1 << 1;
        /// Refused when memory is over `maxmemory` and nothing can be evicted.
        const DENYOOM = 1 << 2;
        /// For administrators.
        const ADMIN = 1 << 3;
        /// Publish and subscribe.
        const PUBSUB = 1 << 4;
        /// Refused in scripts.
        const NOSCRIPT = 1 << 5;
        /// May block the client.
        const BLOCKING = 1 << 6;
        /// Allowed while data is loading.
        const LOADING = 1 << 7;
        /// Allowed on a replica that lost its link.
        const STALE = 1 << 8;
        /// Not shown to MONITOR.
        const SKIP_MONITOR = 1 << 9;
        /// Not recorded by the slow log.
        const SKIP_SLOWLOG = 1 << 10;
        /// Constant or logarithmic time.
        const FAST = 1 << 11;
        /// Allowed before AUTH.
        const NO_AUTH = 1 << 12;
        /// May be propagated although it is no write.
        const MAY_REPLICATE = 1 << 13;
        /// Refused inside MULTI.
        const NO_MULTI = 1 << 14;
        /// Its keys depend on more than positions.
        const MOVABLE_KEYS = 1 << 15;
        /// Allowed while another script runs too long.
        const ALLOW_BUSY = 1 << 16;
        /// Does not need async loading to finish.
        const NO_ASYNC_LOADING = 1 << 17;
        /// Not under the ACL's control by key.
        const NO_MANDATORY_KEYS = 1 << 18;
        /// Accepted by a cluster node that imports the key's slot.
        const ASKING = 1 << 19;
    }
}

bitflags! {
    /// ACL categories.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Acl: u32 {
        /// `@keyspace`
        const KEYSPACE = 1 << 0;
        /// `@read`
        const READ = 1 << 1;
        /// `@write`
        const WRITE = 1 << 2;
        /// `@set`
        const SET = 1 << 3;
        /// `@sortedset`
        const SORTEDSET = 1 << 4;
        /// `@list`
        const LIST = 1 << 5;
        /// `@hash`
        const HASH = 1 << 6;
        /// `@string`
        const STRING = 1 << 7;
        /// `@bitmap`
        const BITMAP = 1 << 8;
        /// `@hyperloglog`
        const HYPERLOGLOG = 1 << 9;
        /// `@geo`
        const GEO = 1 << 10;
        /// `@stream`
        const STREAM = 1 << 11;
        /// `@pubsub`
        const PUBSUB = 1 << 12;
        /// `@admin`
        const ADMIN = 1 << 13;
        /// `@fast`
        const FAST = 1 << 14;
        /// `@slow`
        const SLOW = 1 << 15;
        /// `@blocking`
        const BLOCKING = 1 << 16;
        /// `@dangerous`
        const DANGEROUS = 1 << 17;
        /// `@connection`
        const CONNECTION = 1 << 18;
        /// `@transaction`
        const TRANSACTION = 1 << 19;
        /// `@scripting`
        const SCRIPTING = 1 << 20;
    }
}

/// One rule that finds keys among the words of a call.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// What is done to the keys it finds.
    pub access: Access,
    /// More about it: COMMAND's key flags.
    pub purpose: Purpose,
    /// Where the search begins.
    pub begin: Begin,
    /// Which words from there on are keys.
    pub find: Find,
    /// What a reader should know.
    pub notes: &'static str,
    /// It finds some of the keys, not all.
    pub incomplete: bool,
    /// What it finds only decides the slot and is no key (shard channels).
    pub not_key: bool,
    /// The key's access depends on the arguments.
    pub variable: bool,
}

impl KeySpec {
    /// Keys at a fixed range of positions: the shape of most commands.
    pub const fn range(access: Access, purpose: Purpose, first: i32, last: i32, step: u16) -> Self {
        Self {
            access,
            purpose,
            begin: Begin::Index(first as u16),
            find: Find::Range { last, step, limit: 0 },
            notes: "",
            incomplete: false,
            not_key: false,
            variable: false,
        }
    }
}

/// How a key's value is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// `RO`: read only.
    Read,
    /// `RW`: read and write.
    ReadWrite,
    /// `OW`: overwritten whatever it was.
    Overwrite,
    /// `RM`: removed.
    Remove,
}

/// What of the data the access shows or changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Neither shows nor changes content (EXISTS, TYPE).
    None,
    /// `ACCESS`: the reply shows content.
    Access,
    /// `UPDATE`: content changes, and depends on what it was.
    Update,
    /// `ACCESS` and `UPDATE`.
    AccessUpdate,
    /// `ACCESS` and `INSERT`.
    AccessInsert,
    /// `INSERT`: adds, without touching what is there.
    Insert,
    /// `DELETE`: removes content.
    Delete,
    /// `ACCESS` and `DELETE`.
    AccessDelete,
}

/// Where a key search begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// At this word (0 is the command's name).
    Index(u16),
    /// After this keyword, searched from word `start_from` (negative: backwards from the end).
    Keyword {
        /// The keyword, in any case.
        keyword: &'static str,
        /// Where the search for it begins.
        start_from: i32,
    },
    /// Nowhere that a rule can say.
    Unknown,
}

/// Which words are keys, seen from the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// Up to `last` (relative to the beginning; negative: from the end, -1 the last word), every
    /// `step`th. `limit` > 1 with `last` -1: only the first 1/limit of the remaining words.
    Range {
        /// The last key.
        last: i32,
        /// Distance of two keys.
        step: u16,
        /// Share of the rest that is keys, as its inverse; 0 or 1 for all.
        limit: u16,
    },
    /// A word holds the number of keys: `count_index` and `first` are relative to the beginning.
    Count {
        /// The word with the number.
        count_index: u16,
        /// The first key.
        first: u16,
        /// Distance of two keys.
        step: u16,
    },
    /// The word behind each of these; COMMAND does not say it. It finds all keys that there are, and
    /// perhaps a word that is none.
    Behind(&'static str),
    /// No word: data names the keys, by filling in the `*` of a word behind one of these. They may be
    /// anywhere.
    Named(&'static [&'static str]),
    /// Those of the call that begins at this word.
    Wrapped(u16),
    /// Nothing that a rule can say.
    Unknown,
}

/// A node of the argument tree.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Name in documentation.
    pub name: &'static str,
    /// What may stand there.
    pub kind: ArgKind,
    /// A literal that precedes it.
    pub token: Option<&'static str>,
    /// Index of the key spec that a key argument belongs to.
    pub key_spec: Option<u8>,
    /// May be left out.
    pub optional: bool,
    /// May be repeated.
    pub multiple: bool,
    /// The token is repeated with each repetition.
    pub multiple_token: bool,
    /// Version that added it, if later than the command.
    pub since: Option<&'static str>,
    /// Version that deprecated it.
    pub deprecated_since: Option<&'static str>,
    /// Parts of a block or alternatives.
    pub args: &'static [Arg],
}

impl Arg {
    /// A required, plain argument.
    pub const fn new(name: &'static str, kind: ArgKind) -> Self {
        Self {
            name,
            kind,
            token: None,
            key_spec: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            since: None,
            deprecated_since: None,
            args: &[],
        }
    }
    /// The argument is a key that key spec `index` finds.
    pub const fn key(name: &'static str, index: u8) -> Self {
        let mut arg = Self::new(name, ArgKind::Key);
        arg.key_spec = Some(index);
        arg
    }
    /// A literal word.
    pub const fn token(name: &'static str, token: &'static str) -> Self {
        let mut arg = Self::new(name, ArgKind::PureToken);
        arg.token = Some(token);
        arg
    }
    /// Exactly one of `args`.
    pub const fn one_of(name: &'static str, args: &'static [Arg]) -> Self {
        let mut arg = Self::new(name, ArgKind::OneOf);
        arg.args = args;
        arg
    }
    /// All of `args`, in order.
    pub const fn block(name: &'static str, args: &'static [Arg]) -> Self {
        let mut arg = Self::new(name, ArgKind::Block);
        arg.args = args;
        arg
    }
    /// The same with a literal before it.
    pub const fn with_token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }
    /// The same, but it may be left out.
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
    /// The same, but it may be repeated.
    pub const fn multiple(mut self) -> Self {
        self.multiple = true;
        self
    }
    /// The same, repeated together with its token.
    pub const fn multiple_token(mut self) -> Self {
        self.multiple = true;
        self.multiple_token = true;
        self
    }
    /// The same, added in a later version.
    pub const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }
    /// The same, deprecated in a later version.
    pub const fn deprecated(mut self, version: &'static str) -> Self {
        self.deprecated_since = Some(version);
        self
    }
}

/// Kinds of arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgKind {
    /// Any bytes.
    String,
    /// A 64-bit integer.
    Integer,
    /// A number with a fraction.
    Double,
    /// A key.
    Key,
    /// A glob pattern.
    Pattern,
    /// Seconds or milliseconds since the Unix epoch.
    UnixTime,
    /// A literal word.
    PureToken,
    /// One of several.
    OneOf,
    /// Several in a row.
    Block,
}

/// Where a call is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// On the shards of its keys: one, or several at once when the keys are spread.
    ByKey,
    /// As `ByKey`; a proxy may split it per backend, because each key stands for itself.
    SplitKeys,
    /// On all shards at once.
    AllSlots,
    /// On any shard.
    AnySlot,
    /// On the session's own core, without data.
    Session,
    /// On the shards of all calls that the session has queued, and of the keys it watches.
    Queued,
    /// Nowhere, for this reason.
    Denied(&'static str),
}

/// How partial replies are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// There is one.
    First,
    /// Integers are added.
    Sum,
    /// The smallest integer.
    Min,
    /// Logical and of integers.
    And,
    /// `OK` if all are.
    AllOk,
    /// Elements return to the order of the keys.
    InKeyOrder,
    /// Arrays are appended.
    Concat,
}

/// Which calls of a command may turn out to be long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deferral {
    /// None.
    Never,
    /// All: it works on whole collections.
    Always,
    /// Those of very many words ([`words`](crate::commands::words)).
    ManyWords,
    /// Those of this many words and more.
    FromWords(u16),
    /// Those of which word `word` has at least so many bytes.
    FromBytes {
        /// Which word.
        word: u8,
        /// How long it is at least.
        min: u32,
    },
}

/// What a write leaves in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Propagate {
    /// Nothing: it is no write.
    Never,
    /// The call as it came, if it changed something.
    Verbatim,
    /// What the handler emits instead: the call depends on time, chance or state.
    Rewritten,
}

/// The code of a command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Runs on held shards; never sees a session.
    Data(fn(&mut Ctx<'_>, &Args<'_>, &mut Reply<'_>) -> CommandResult),
    /// Runs on the session's core; touches no data.
    Session(fn(&mut SessionCtx<'_>, &Args<'_>, &mut Reply<'_>) -> CommandResult),
    /// Runs on the session's core with the doors of its keys held: sees data and the client.
    Held(fn(&mut Ctx<'_>, &mut ClientState, &Args<'_>, &mut Reply<'_>) -> CommandResult),
    /// Runs on the data slice by slice, so that no turn is long.
    Sliced(fn(&mut Ctx<'_>, &Args<'_>, &mut SliceState) -> Result<SliceStep, CommandError>),
    /// Has subcommands instead.
    Container,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Data(_) => "Data",
            Self::Session(_) => "Session",
            Self::Held(_) => "Held",
            Self::Sliced(_) => "Sliced",
            Self::Container => "Container",
        })
    }
}

/// What a sliced command remembers between two slices.
#[derive(Debug, Default)]
pub struct SliceState {
    /// The slot that the next slice works on.
    pub slot_index: usize,
    /// Position within the slot, or within the arguments: the command's own.
    pub cursor: u64,
    /// Sum, count or whatever the reply will say.
    pub total: u64,
    /// Reply elements so far, encoded.
    pub elements: Vec<u8>,
    /// How many `elements` holds.
    pub element_count: u64,
}

/// What follows a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SliceStep {
    /// Another slice, for `SliceState::slot_index`.
    More,
    /// The reply is this integer: `SliceState::total`.
    DoneInteger,
    /// The reply is an array of `SliceState::elements`.
    DoneArray,
    /// The reply is `SliceState::elements` as it is.
    DoneEncoded,
}
