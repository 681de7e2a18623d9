//! Every error text on the wire, once. Redis' words where Redis has them.

use std::borrow::Cow;

use crate::config::ConfigError;

/// An error reply, without the leading `-` and the line end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandError(Cow<'static, str>);

impl CommandError {
    /// The option or its position is wrong.
    pub const SYNTAX: Self = Self::fixed("ERR syntax error");
    /// The key holds another type.
    pub const WRONG_TYPE: Self =
        Self::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// No 64-bit integer.
    pub const NOT_INTEGER: Self = Self::fixed("ERR value is not an integer or out of range");
    /// No number.
    pub const NOT_FLOAT: Self = Self::fixed("ERR value is not a valid float");
    /// A number below zero where none may be.
    pub const NOT_POSITIVE: Self = Self::fixed("ERR value is out of range, must be positive");
    /// The key does not exist, for commands that need it.
    pub const NO_SUCH_KEY: Self = Self::fixed("ERR no such key");
    /// An index outside of the value.
    pub const INDEX_OUT_OF_RANGE: Self = Self::fixed("ERR index out of range");
    /// An increment that leaves 64 bits.
    pub const OVERFLOW: Self = Self::fixed("ERR increment or decrement would overflow");
    /// An increment to something that is no number.
    pub const NAN_OR_INFINITY: Self = Self::fixed("ERR increment would produce NaN or Infinity");
    /// A string beyond the limit.
    pub const STRING_TOO_LONG: Self =
        Self::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// An offset that no string can have.
    pub const OFFSET_OUT_OF_RANGE: Self = Self::fixed("ERR offset is out of range");
    /// A bit offset that no string can have.
    pub const BIT_OFFSET: Self = Self::fixed("ERR bit offset is not an integer or out of range");
    /// An increment that is no finite number.
    pub const VALUE_NAN_OR_INFINITY: Self = Self::fixed("ERR value is NaN or Infinity");
    /// HINCRBY of a field that is no integer.
    pub const HASH_VALUE_NOT_INTEGER: Self = Self::fixed("ERR hash value is not an integer");
    /// HINCRBYFLOAT of a field that is no number.
    pub const HASH_VALUE_NOT_FLOAT: Self = Self::fixed("ERR hash value is not a float");
    /// DECRBY of the one number that has no opposite.
    pub const DECREMENT_OVERFLOW: Self = Self::fixed("ERR decrement would overflow");
    /// Something else than a bit for SETBIT.
    pub const BIT_VALUE: Self = Self::fixed("ERR bit is not an integer or out of range");
    /// Something else than a bit for BITPOS.
    pub const BIT_ARGUMENT: Self = Self::fixed("ERR The bit argument must be 1 or 0.");
    /// BITOP NOT of several strings.
    pub const BITOP_NOT: Self =
        Self::fixed("ERR BITOP NOT must be called with a single source key.");
    /// A field that BITFIELD does not know.
    pub const BITFIELD_TYPE: Self = Self::fixed(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but \
         i64 is.",
    );
    /// A policy that BITFIELD does not know.
    pub const BITFIELD_OVERFLOW: Self = Self::fixed("ERR Invalid OVERFLOW type specified");
    /// A write in BITFIELD_RO.
    pub const BITFIELD_READ_ONLY: Self =
        Self::fixed("ERR BITFIELD_RO only supports the GET subcommand");
    /// LCS of keys that hold no strings.
    pub const LCS_WRONG_TYPE: Self =
        Self::fixed("ERR The specified keys must contain string values");
    /// LCS with two options of which one says it all.
    pub const LCS_LEN_AND_IDX: Self =
        Self::fixed("ERR If you want both the length and indexes, please just use IDX.");
    /// LCS of a string whose positions do not fit 32 bits.
    pub const LCS_STRING_TOO_LONG: Self = Self::fixed("ERR String too long for LCS");
    /// LCS of strings whose table is larger than a string may be.
    pub const LCS_TABLE_TOO_LARGE: Self =
        Self::fixed("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
    /// A number of keys that is none, or no number.
    pub const NUMKEYS_NOT_POSITIVE: Self = Self::fixed("ERR numkeys should be greater than 0");
    /// More keys announced than there are words.
    pub const NUMKEYS_TOO_LARGE: Self =
        Self::fixed("ERR Number of keys can't be greater than number of args");
    /// LIMIT of SINTERCARD and ZINTERCARD below zero, or no number.
    pub const LIMIT_NEGATIVE: Self = Self::fixed("ERR LIMIT can't be negative");
    /// The one count that has no opposite.
    pub const NOT_NEGATABLE_INT64: Self = Self::fixed(
        "ERR value is out of range, value must between -9223372036854775807 and \
         9223372036854775807",
    );
    /// A range of scores with something else than numbers at its ends.
    pub const SCORE_RANGE: Self = Self::fixed("ERR min or max is not a float");
    /// A range of names with something else than names at its ends.
    pub const LEX_RANGE: Self = Self::fixed("ERR min or max not valid string range item");
    /// ZADD of what is not there and only what is there.
    pub const ZADD_NX_XX: Self =
        Self::fixed("ERR XX and NX options at the same time are not compatible");
    /// ZADD with conditions of which one rules out the other.
    pub const ZADD_GT_LT_NX: Self =
        Self::fixed("ERR GT, LT, and/or NX options at the same time are not compatible");
    /// ZADD INCR of several members.
    pub const ZADD_INCR_PAIR: Self =
        Self::fixed("ERR INCR option supports a single increment-element pair");
    /// A sum of infinities of different sign.
    pub const SCORE_NAN: Self = Self::fixed("ERR resulting score is not a number (NaN)");
    /// ZRANGE by rank with LIMIT.
    pub const LIMIT_BY_RANK: Self = Self::fixed(
        "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
    );
    /// ZRANGE by name with scores.
    pub const WITHSCORES_BY_LEX: Self =
        Self::fixed("ERR syntax error, WITHSCORES not supported in combination with BYLEX");
    /// A weight of ZUNION or ZINTER that is no number.
    pub const WEIGHT_NOT_FLOAT: Self = Self::fixed("ERR weight value is not a float");
    /// A number of elements to take that is none.
    pub const COUNT_NOT_POSITIVE: Self = Self::fixed("ERR count should be greater than 0");
    /// A string that is no HyperLogLog.
    pub const NO_HLL: Self = Self::fixed("WRONGTYPE Key is not a valid HyperLogLog string value.");
    /// A HyperLogLog whose registers do not add up.
    pub const CORRUPTED_HLL: Self = Self::fixed("INVALIDOBJ Corrupted HLL object detected");
    /// PFDEBUG DECODE of a dense HyperLogLog.
    pub const HLL_NOT_SPARSE: Self = Self::fixed("ERR HLL encoding is not sparse");
    /// PFDEBUG of a key that is not there.
    pub const SPECIFIED_KEY_MISSING: Self = Self::fixed("ERR The specified key does not exist");
    /// PFSELFTEST that failed.
    pub const HLL_SELF_TEST: Self = Self::fixed("ERR the arithmetic of HyperLogLogs is broken");
    /// A database that does not exist.
    pub const DB_INDEX: Self = Self::fixed("ERR DB index is out of range");
    /// Source and destination are the same.
    pub const SAME_OBJECT: Self = Self::fixed("ERR source and destination objects are the same");
    /// Memory is over the limit and nothing can be evicted.
    pub const OOM: Self = Self::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    /// The data is not loaded yet.
    pub const LOADING: Self = Self::fixed("LOADING Redis is loading the dataset in memory");
    /// BGREWRITEAOF while one runs.
    pub const REWRITE_RUNS: Self =
        Self::fixed("ERR Background append only file rewriting already in progress");
    /// Not authenticated.
    pub const NO_AUTH: Self = Self::fixed("NOAUTH Authentication required.");
    /// Wrong name or password.
    pub const WRONG_PASS: Self =
        Self::fixed("WRONGPASS invalid username-password pair or user is disabled.");
    /// EXEC of a transaction that was refused while it was queued.
    pub const EXEC_ABORT: Self =
        Self::fixed("EXECABORT Transaction discarded because of previous errors.");
    /// A cursor that SCAN never gave.
    pub const INVALID_CURSOR: Self = Self::fixed("ERR invalid cursor");
    /// A number that C's `int` cannot hold.
    pub const NOT_INT32: Self =
        Self::fixed("ERR value is out of range, value must between -2147483648 and 2147483647");
    /// EXPIRE with NX and another condition.
    pub const EXPIRE_NX_ALONE: Self =
        Self::fixed("ERR NX and XX, GT or LT options at the same time are not compatible");
    /// EXPIRE with GT and LT.
    pub const EXPIRE_GT_LT: Self =
        Self::fixed("ERR GT and LT options at the same time are not compatible");
    /// OBJECT FREQ while entries keep times.
    pub const LFU_NOT_SELECTED: Self = Self::fixed(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
         that when switching between policies at runtime LRU and LFU data will take some time to \
         adjust.",
    );
    /// OBJECT IDLETIME while entries keep frequencies.
    pub const LFU_SELECTED: Self = Self::fixed(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
         switching between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    /// RESTORE of a key that is there.
    pub const BUSY_KEY: Self = Self::fixed("BUSYKEY Target key name already exists.");
    /// RESTORE with a time to live below zero.
    pub const INVALID_TTL: Self = Self::fixed("ERR Invalid TTL value, must be >= 0");
    /// RESTORE with an idle time below zero.
    pub const INVALID_IDLETIME: Self = Self::fixed("ERR Invalid IDLETIME value, must be >= 0");
    /// RESTORE with a frequency that no counter can have.
    pub const INVALID_FREQ: Self = Self::fixed("ERR Invalid FREQ value, must be >= 0 and <= 255");
    /// RESTORE of bytes that DUMP has not returned, or a newer version of it.
    pub const DUMP_FOOTER: Self = Self::fixed("ERR DUMP payload version or checksum are wrong");
    /// RESTORE of bytes that are no value.
    pub const BAD_FORMAT: Self = Self::fixed("ERR Bad data format");
    /// SWAPDB: the first index is no number.
    pub const FIRST_DB_INDEX: Self = Self::fixed("ERR invalid first DB index");
    /// SWAPDB: the second index is no number.
    pub const SECOND_DB_INDEX: Self = Self::fixed("ERR invalid second DB index");
    /// A timeout that is no integer.
    pub const TIMEOUT_NOT_INTEGER: Self =
        Self::fixed("ERR timeout is not an integer or out of range");
    /// A timeout that is no number.
    pub const TIMEOUT_NOT_FLOAT: Self = Self::fixed("ERR timeout is not a float or out of range");
    /// A timeout below zero.
    pub const TIMEOUT_NEGATIVE: Self = Self::fixed("ERR timeout is negative");
    /// COUNT below zero.
    pub const COUNT_NEGATIVE: Self = Self::fixed("ERR COUNT can't be negative");
    /// LPOS: MAXLEN below zero.
    pub const MAXLEN_NEGATIVE: Self = Self::fixed("ERR MAXLEN can't be negative");
    /// SORT by what is no number.
    pub const SORT_SCORE: Self =
        Self::fixed("ERR One or more scores can't be converted into double");
    /// LPOS: RANK of none.
    pub const LPOS_RANK: Self = Self::fixed(
        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
         negative to start from the end of the list",
    );
    /// SLOTSRESTORE with a negative time to live.
    pub const RESTORE_TTL: Self = Self::fixed("ERR invalid ttl value, must be >= 0");
    /// SLOTSRESTORE of a payload that has changed on its way, or of a newer version.
    pub const RESTORE_FOOTER: Self = Self::fixed("ERR dump payload version or checksum are wrong");
    /// SLOTSRESTORE of a payload that is no value.
    pub const RESTORE_FORMAT: Self = Self::fixed("ERR bad data format");
    /// A move where another one runs.
    pub const DB_IS_MIGRATED: Self = Self::fixed("ERR the specified DB is being migrated");
    /// A write to a key that is on its way.
    pub const KEY_IS_MIGRATED: Self = Self::fixed("ERR the specified key is being migrated");
    /// A wrapped command whose key is not here.
    pub const KEY_NOT_HERE: Self = Self::fixed("ERR the specified key doesn't exist");
    /// An acknowledgement from somebody who owes none.
    pub const NO_SUCH_MOVE: Self = Self::fixed("ERR invalid client, permission denied");
    /// A target that does not take the connection in time.
    pub const TARGET_CONNECT: Self = Self::fixed("IOERR error or timeout connecting to the client");
    /// A target that takes nothing in.
    pub const TARGET_WRITE: Self = Self::fixed("IOERR error or timeout writing to target");
    /// A target that does not answer.
    pub const TARGET_READ: Self = Self::fixed("IOERR error or timeout reading from target");
    /// A move where there is no network.
    pub const NO_NETWORK: Self = Self::fixed("ERR keys cannot be moved from here");
    /// A number that Codis' commands do not take.
    pub const OUT_OF_RANGE: Self = Self::fixed("ERR value is out of range");

    /// The number of words is no number, or too large.
    pub const INVALID_WORD_COUNT: Self =
        Self::fixed("ERR Protocol error: invalid multibulk length");
    /// More words than a client may send before it has authenticated.
    pub const UNAUTHENTICATED_WORD_COUNT: Self =
        Self::fixed("ERR Protocol error: unauthenticated multibulk length");
    /// The length of a word is no number, or too large.
    pub const INVALID_WORD_LENGTH: Self = Self::fixed("ERR Protocol error: invalid bulk length");
    /// A longer word than a client may send before it has authenticated.
    pub const UNAUTHENTICATED_WORD_LENGTH: Self =
        Self::fixed("ERR Protocol error: unauthenticated bulk length");
    /// A line with the number of words that does not end.
    pub const TOO_BIG_COUNT: Self = Self::fixed("ERR Protocol error: too big mbulk count string");
    /// A line with the length of a word that does not end.
    pub const TOO_BIG_LENGTH: Self = Self::fixed("ERR Protocol error: too big bulk count string");
    /// An inline call that does not end.
    pub const TOO_BIG_INLINE: Self = Self::fixed("ERR Protocol error: too big inline request");
    /// An inline call whose quotes do not match.
    pub const UNBALANCED_QUOTES: Self =
        Self::fixed("ERR Protocol error: unbalanced quotes in request");
    /// No more connections.
    pub const MAX_CLIENTS: Self = Self::fixed("ERR max number of clients reached");

    /// The command cannot be queued.
    pub const NOT_IN_MULTI: Self = Self::fixed("ERR Command not allowed inside a transaction");
    /// CLIENT UNBLOCK ... ERROR.
    pub const UNBLOCKED: Self = Self::fixed("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    /// CLIENT KILL of an address that nobody has.
    pub const NO_SUCH_CLIENT: Self = Self::fixed("ERR No such client");
    /// A peer from elsewhere, while anybody could be there.
    pub const PROTECTED_MODE: Self = Self::fixed(
        "DENIED Cordis runs in protected mode: no password is set, so only this machine may \
         connect. Set `requirepass`, or `bind` the addresses that may be reached and set \
         `protected-mode no`.",
    );
    /// COMMAND GETKEYS of a command that does not exist.
    pub const INVALID_COMMAND: Self = Self::fixed("ERR Invalid command specified");
    /// COMMAND GETKEYS of a command that never has keys.
    pub const NO_KEY_ARGUMENTS: Self = Self::fixed("ERR The command has no key arguments");
    /// COMMAND GETKEYS of too few or too many words.
    pub const INVALID_ARGUMENT_COUNT: Self =
        Self::fixed("ERR Invalid number of arguments specified for command");
    /// COMMAND GETKEYS of words among which no keys can be found.
    pub const INVALID_ARGUMENTS: Self = Self::fixed("ERR Invalid arguments specified for command");
    /// DEBUG PROTOCOL of a type that does not exist.
    pub const PROTOCOL_TYPE: Self = Self::fixed(
        "ERR Wrong protocol type name. Please use one of the following: string|integer|double|\
         bignum|null|array|set|map|attrib|push|verbatim|true|false",
    );
    /// What RESP2 cannot express.
    pub const RESP2_UNSUPPORTED: Self = Self::fixed("ERR RESP2 is not supported by this command");
    /// DEBUG MOVE-SLOT of a slot that does not exist.
    pub const MOVE_SLOT_SLOT: Self = Self::fixed("ERR slot is not a number from 0 to 1023");
    /// DEBUG MOVE-SLOT to a shard that does not exist.
    pub const MOVE_SLOT_SHARD: Self = Self::fixed("ERR shard is not the number of a core");
    /// DEBUG MOVE-SLOT of a slot that is on its way to another server, or from one.
    pub const MOVE_SLOT_PINNED: Self = Self::fixed("ERR a move to or from another server is at it");

    /// AUTH without a user while no password is set.
    pub const AUTH_WITHOUT_PASSWORD: Self = Self::fixed(
        "ERR AUTH <password> called without any password configured for the default user. Are you \
         sure your configuration is correct?",
    );
    /// HELLO with a protocol that is no number.
    pub const PROTOCOL_NOT_INTEGER: Self =
        Self::fixed("ERR Protocol version is not an integer or out of range");
    /// HELLO with a protocol that nobody speaks.
    pub const NO_PROTO: Self = Self::fixed("NOPROTO unsupported protocol version");
    /// HELLO before the login.
    pub const HELLO_NO_AUTH: Self = Self::fixed(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
         AUTH <user> <pass> option can be used to authenticate the client and select the RESP \
         protocol version at the same time",
    );
    /// A connection's name with other than printable ASCII in it.
    pub const CLIENT_NAME: Self =
        Self::fixed("ERR Client names cannot contain spaces, newlines or special characters.");
    /// CLIENT CACHING without tracking.
    pub const NOT_TRACKING: Self = Self::fixed(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
         OPTOUT mode enabled",
    );
    /// CLIENT PAUSE with another word.
    pub const PAUSE_MODE: Self = Self::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL");
    /// CLIENT UNBLOCK with another word.
    pub const UNBLOCK_REASON: Self =
        Self::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    /// CLIENT LIST: an id that is no number.
    pub const CLIENT_ID: Self = Self::fixed("ERR Invalid client ID");
    /// CLIENT KILL: an id that nobody can have.
    pub const CLIENT_ID_NOT_POSITIVE: Self = Self::fixed("ERR client-id should be greater than 0");
    /// A transaction runs with shards held: other cores cannot be asked about their clients.
    pub const OTHER_CLIENTS_IN_EXEC: Self =
        Self::fixed("ERR other clients cannot be reached inside a transaction");
    /// MULTI within MULTI.
    pub const NESTED_MULTI: Self = Self::fixed("ERR MULTI calls can not be nested");
    /// EXEC without MULTI.
    pub const EXEC_WITHOUT_MULTI: Self = Self::fixed("ERR EXEC without MULTI");
    /// DISCARD without MULTI.
    pub const DISCARD_WITHOUT_MULTI: Self = Self::fixed("ERR DISCARD without MULTI");
    /// WATCH within MULTI.
    pub const WATCH_IN_MULTI: Self = Self::fixed("ERR WATCH inside MULTI is not allowed");
    /// SSUBSCRIBE within a transaction.
    pub const SSUBSCRIBE_IN_EXEC: Self =
        Self::fixed("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    /// MONITOR within a transaction.
    pub const MONITOR_IN_EXEC: Self =
        Self::fixed("ERR MONITOR isn't allowed for DENY BLOCKING client");
    /// A client that monitors and wants data.
    pub const MONITOR_ON_DATA: Self = Self::fixed("ERR Replica can't interact with the keyspace");
    /// SLOWLOG GET of fewer than no entries.
    pub const SLOWLOG_COUNT: Self = Self::fixed("ERR count should be greater than or equal to -1");
    /// SHUTDOWN ABORT while the server is not ending.
    pub const NO_SHUTDOWN: Self = Self::fixed("ERR No shutdown in progress.");
    /// SHUTDOWN SAVE where nothing can be saved.
    pub const SHUTDOWN_FAILED: Self = Self::fixed("ERR Errors trying to SHUTDOWN. Check logs.");

    /// Keys of one call that no one server holds.
    pub const CROSS_SLOT: Self =
        Self::fixed("CROSSSLOT Keys in request don't hash to the same slot");
    /// A call of a session that fills no slot.
    pub const NOT_IMPORTING: Self = Self::fixed("ERR this connection imports no slot");
    /// A call of a session that fills a slot, which touches something else.
    pub const IMPORT_CALL: Self =
        Self::fixed("ERR an import takes calls on one key of its slot, and nothing else");
    /// A call of a session whose attempt to fill a slot is over.
    pub const TIED_TO_CORE: Self = Self::fixed(
        "ERR a connection that subscribes, monitors, watches, queues or imports stays on its core",
    );
    /// An attempt that another has replaced, or that was called off.
    pub const IMPORT_STALE: Self = Self::fixed("STALEIMPORT this attempt is over");
    /// An attempt to fill a slot, or to serve it, that is not known and never will be.
    pub const IMPORT_UNKNOWN: Self = Self::fixed("NOIMPORT this attempt is not known");
    /// An attempt to fill a slot that is served here.
    pub const IMPORT_ACTIVE: Self = Self::fixed("ACTIVE this slot is served here");
    /// What an attempt has brought is not what its source has.
    pub const IMPORT_MISMATCH: Self =
        Self::fixed("MISMATCH what has arrived is not what the source has");
    /// A move that nobody has announced here.
    pub const MOVE_UNKNOWN: Self = Self::fixed("ERR no such move is expected");
    /// A move that was called off.
    pub const MOVE_CANCELLED: Self = Self::fixed("ERR this move was cancelled");
    /// A move of another number takes one of its slots.
    pub const MOVE_OVERLAPS: Self =
        Self::fixed("ERR another move takes one of these slots, or they are not served here");
    /// A command for members of a cluster.
    pub const NOT_JOINED: Self = Self::fixed("ERR this server is in no cluster: CORDIS JOIN");
    /// CORDIS commands of somebody who does not know the secret.
    pub const CLUSTER_SECRET: Self =
        Self::fixed("NOAUTH CORDIS AUTH with the cluster-secret first");
    /// CORDIS AUTH with another secret.
    pub const CLUSTER_SECRET_WRONG: Self = Self::fixed("WRONGPASS that is not the cluster-secret");
    /// A text that names no slots.
    pub const SLOT_RANGES: Self = Self::fixed("ERR slots are written as 0-511,600");
    /// An address to connect to.
    pub const PEER_ADDRESS: Self = Self::fixed("ERR an address is written as ip:port");
    /// A core that does not exist.
    pub const NO_SUCH_CORE: Self = Self::fixed("ERR there is no such core");
    /// CORDIS MAP GET before there is a map.
    pub const NO_MAP: Self = Self::fixed("ERR no map has been set");

    /// A text that is known when the program is built.
    pub(crate) const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A text with something of the call in it. Only for functions of this file.
    const fn owned(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// The line, without `-` and line end. Each character is one byte of the wire: what a client sent
    /// is quoted as it came, whether it is UTF-8 or not.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A word that does not begin with its length.
    pub fn expected_dollar(got: u8) -> Self {
        Self::owned(format!("ERR Protocol error: expected '$', got '{}'", got as char))
    }

    /// The first word, which says what kind of error it is; `ERR` if there is only one word.
    pub fn prefix(&self) -> &str {
        self.0.split_once(' ').map_or("ERR", |(prefix, _)| prefix)
    }

    /// A slot that another server serves.
    pub fn moved(slot: crate::units::SlotId, to: &str) -> Self {
        Self::owned(format!("MOVED {slot} {to}"))
    }

    /// A write, or PING, while the append log cannot be written.
    pub fn misconf_log(error: &std::io::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Self::owned(format!("MISCONF Errors writing to the AOF file: {text}"))
    }

    /// A slot that nobody is known to serve.
    pub fn not_served(slot: crate::units::SlotId) -> Self {
        Self::owned(format!("CLUSTERDOWN slot {slot} is not served"))
    }

    /// A slot that is on its way here.
    pub fn being_imported(slot: crate::units::SlotId) -> Self {
        Self::owned(format!("TRYAGAIN slot {slot} is being imported"))
    }

    /// A slot that may have been handed over before a restart.
    pub fn in_doubt(slot: crate::units::SlotId) -> Self {
        Self::owned(format!("TRYAGAIN slot {slot} is in doubt after a restart"))
    }

    /// A slot that is served, but a call on it that was refused on this link has to come first.
    pub fn refused_before(slot: crate::units::SlotId) -> Self {
        Self::owned(format!("TRYAGAIN slot {slot} was refused here before: CORDIS RETRY"))
    }

    /// A slot whose state has changed in this very moment.
    pub fn changing_hands(slot: crate::units::SlotId) -> Self {
        Self::owned(format!("TRYAGAIN slot {slot} is changing hands"))
    }

    /// A map that is older than the one there is.
    pub fn stale_map(epoch: u64) -> Self {
        Self::owned(format!("STALE map epoch is {epoch}"))
    }

    /// A map that cannot be used.
    pub fn bad_map(why: &str) -> Self {
        Self::owned(format!("ERR {why}"))
    }

    /// JOIN of a server that is in another cluster.
    pub fn other_product(product: &str) -> Self {
        Self::owned(format!("ERR this server belongs to product '{product}'"))
    }

    /// Wrong number of words. `name` as in the spec, `container|sub` for subcommands.
    pub fn wrong_arity(name: &str) -> Self {
        Self::owned(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// A command that does not exist, with the beginning of its arguments.
    pub fn unknown_command(name: &[u8], args: &[&[u8]]) -> Self {
        let mut beginning = String::new();
        for arg in args {
            // Redis: quotes arguments until about 128 bytes are shown.
            if beginning.len() >= 128 {
                break;
            }
            let room = 128 - beginning.len();
            let shown = &arg[..arg.len().min(room)];
            beginning.push_str(&format!("'{}' ", quoted(shown)));
        }
        let name = quoted(&name[..name.len().min(128)]);
        Self::owned(format!("ERR unknown command '{name}', with args beginning with: {beginning}"))
    }

    /// A subcommand that does not exist. `container` as the spec has it.
    pub fn unknown_subcommand(sub: &[u8], container: &str) -> Self {
        let sub = quoted(&sub[..sub.len().min(128)]);
        Self::owned(format!(
            "ERR unknown subcommand '{sub}'. Try {} HELP.",
            container.to_ascii_uppercase()
        ))
    }

    /// An option that EXPIRE and its kin do not know.
    pub fn unsupported_option(option: &[u8]) -> Self {
        Self::owned(format!("ERR Unsupported option {}", quoted(option)))
    }

    /// A number that is no slot.
    pub fn invalid_slot(n: i32) -> Self {
        Self::owned(format!("ERR invalid slot number = {n}"))
    }

    /// A negative timeout of a synchronous move.
    pub fn invalid_timeout(n: i32) -> Self {
        Self::owned(format!("ERR invalid timeout = {n}"))
    }

    /// A parameter of an asynchronous move that is none.
    pub fn invalid_value_of(name: &str, word: &[u8]) -> Self {
        Self::owned(format!("ERR invalid value of {name} ({})", quoted(word)))
    }

    /// A connection of an asynchronous move that cannot be made.
    pub fn no_client(host: &str, port: u16) -> Self {
        Self::owned(format!("ERR create client to {host}:{port} failed"))
    }

    /// A target that cannot be reached.
    pub fn no_target(why: &str) -> Self {
        Self::owned(format!("ERR Can't connect to target node: {why}"))
    }

    /// A target that refuses a synchronous move.
    pub fn target_refuses(part: &str) -> Self {
        Self::owned(format!("ERR error on slotsrestore, {part}"))
    }

    /// A batch that has ended early.
    pub fn interrupted(why: &str) -> Self {
        Self::owned(format!("ERR interrupted: {why}"))
    }

    /// A command to wrap that there is not, or that cannot be wrapped.
    pub fn cannot_wrap(name: &[u8]) -> Self {
        Self::owned(format!("ERR invalid command specified ({})", quoted(name)))
    }

    /// A command to wrap with too few or too many words.
    pub fn wrong_arity_wrapped(name: &[u8]) -> Self {
        Self::owned(format!("ERR wrong number of arguments for command ({})", quoted(name)))
    }

    /// A negative number of slots.
    pub fn invalid_slot_count(n: i32) -> Self {
        Self::owned(format!("ERR invalid slot count = {n}"))
    }

    /// SLOTSCHECK: a key that one structure has and another has not.
    pub fn slots_check(step: u8, key: &[u8]) -> Self {
        Self::owned(format!("ERR step {step}, miss = '{}'", quoted(key)))
    }

    /// A subcommand that does not exist or has a wrong number of words, of commands that parse their
    /// subcommands themselves. `container` as Redis spells it.
    pub fn subcommand_syntax(sub: &[u8], container: &str) -> Self {
        let sub = quoted(&sub[..sub.len().min(128)]);
        Self::owned(format!(
            "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {container} HELP."
        ))
    }

    /// A subcommand of PFDEBUG that does not exist.
    pub fn unknown_pfdebug(sub: &[u8]) -> Self {
        Self::owned(format!("ERR Unknown PFDEBUG subcommand '{}'", quoted(sub)))
    }

    /// A command that a subscribed RESP2 client may not send. `name` as in the spec.
    pub fn in_subscribed_mode(name: &str) -> Self {
        Self::owned(format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        ))
    }

    /// A subcommand of DEBUG that this server knows and does not have.
    pub fn debug_refused(sub: &str) -> Self {
        Self::owned(format!("ERR DEBUG {} is not available", sub.to_ascii_uppercase()))
    }

    /// The text that DEBUG ERROR was asked for.
    pub fn as_asked(text: &[u8]) -> Self {
        Self::owned(quoted(text))
    }

    /// Why settings were not changed or written.
    pub fn of_config(error: &ConfigError) -> Self {
        Self::owned(format!("ERR {error}"))
    }

    /// EXEC that was refused itself: the transaction is gone.
    pub fn exec_refused(why: &Self) -> Self {
        let why = why.text().strip_prefix("ERR ").unwrap_or(why.text());
        Self::owned(format!("EXECABORT Transaction discarded because of: {why}"))
    }

    /// HELLO: an option that does not exist, or lacks its words.
    pub fn hello_option(option: &[u8]) -> Self {
        let option = quoted(option);
        Self::owned(format!("ERR Syntax error in HELLO option '{option}'"))
    }

    /// CLIENT LIST and KILL: a type of clients that does not exist.
    pub fn unknown_client_type(kind: &[u8]) -> Self {
        Self::owned(format!("ERR Unknown client type '{}'", quoted(kind)))
    }

    /// A user who does not exist.
    pub fn no_such_user(user: &[u8]) -> Self {
        Self::owned(format!("ERR No such user '{}'", quoted(user)))
    }

    /// LATENCY GRAPH of an event that never was.
    pub fn no_samples(event: &[u8]) -> Self {
        let event = quoted(event);
        Self::owned(format!("ERR No samples available for event '{event}'"))
    }

    /// A combination of no sorted sets. `name` is the command's.
    pub fn input_key_needed(name: &str) -> Self {
        Self::owned(format!("ERR at least 1 input key is needed for '{name}' command"))
    }

    /// An expire time that is not allowed. `name` is the command's.
    pub fn invalid_expire(name: &str) -> Self {
        Self::owned(format!("ERR invalid expire time in '{name}' command"))
    }
}
/// What a client sent, to be quoted: up to its first zero byte, as Redis' format strings do, and one
/// character a byte (see [`CommandError::text`]).
fn quoted(bytes: &[u8]) -> String {
    bytes.iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect()
}
