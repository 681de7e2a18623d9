//! The string family: values as bytes, as numbers, with deadlines, several at once.
//!
//! Knows no encoding: what a value is stored as is the context's business, and `Encode` says what
//! it may be. Handlers run on the core that holds the shards of their keys.

mod counter;
mod lcs;
mod multi;
mod read;
mod set;

pub(super) use read::{clamp_range, is_reversed};

use crate::commands::spec::*;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "append",
        family: Family::String,
        since: "2.0.0",
        summary: "Adds a value to the end of a string, and makes the string if it is missing",
        complexity: "O(1) amortised over a growing string, plus O(N) with N bytes appended",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Insert, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("value", ArgKind::String)],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(read::append),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "decr",
        family: Family::String,
        since: "1.0.0",
        summary: "Subtracts one from an integer; a missing key counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(counter::decr),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "decrby",
        family: Family::String,
        since: "1.0.0",
        summary: "Subtracts a number from an integer; a missing key counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("decrement", ArgKind::Integer)],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(counter::decrby),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "get",
        family: Family::String,
        since: "1.0.0",
        summary: "Returns the string under a key",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(read::get),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "getdel",
        family: Family::String,
        since: "6.2.0",
        summary: "Returns the string under a key and deletes the key",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(set::getdel),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "getex",
        family: Family::String,
        since: "6.2.0",
        summary: "Returns the string under a key and changes when it expires",
        complexity: "O(1)",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec {
            notes: "Its deadline may change, so the key counts as updated",
            ..KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)
        }],
        args: &[
            Arg::key("key", 0),
            Arg::one_of(
                "expiration",
                &[
                    Arg::new("seconds", ArgKind::Integer).with_token("EX"),
                    Arg::new("milliseconds", ArgKind::Integer).with_token("PX"),
                    Arg::new("unix-time-seconds", ArgKind::UnixTime).with_token("EXAT"),
                    Arg::new("unix-time-milliseconds", ArgKind::UnixTime).with_token("PXAT"),
                    Arg::token("persist", "PERSIST"),
                ],
            )
            .optional(),
        ],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(set::getex),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "getrange",
        family: Family::String,
        since: "2.4.0",
        summary: "Returns a part of a string, given by the positions of its first and last byte",
        complexity: "O(N) with N bytes returned",
        arity: Arity::Exact(4),
        flags: Flags::READONLY,
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("start", ArgKind::Integer),
            Arg::new("end", ArgKind::Integer),
        ],
        handler: Handler::Data(read::getrange),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "getset",
        family: Family::String,
        since: "1.0.0",
        summary: "Stores a string and returns the one that was there",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("value", ArgKind::String)],
        deprecated: Some(("6.2.0", "`SET` with `GET`")),
        propagate: Propagate::Verbatim,
        handler: Handler::Data(set::getset),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "incr",
        family: Family::String,
        since: "1.0.0",
        summary: "Adds one to an integer; a missing key counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(counter::incr),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "incrby",
        family: Family::String,
        since: "1.0.0",
        summary: "Adds a number to an integer; a missing key counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("increment", ArgKind::Integer)],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(counter::incrby),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "incrbyfloat",
        family: Family::String,
        since: "2.6.0",
        summary: "Adds a number with a fraction to a number; a missing key counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("increment", ArgKind::Double)],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(counter::incrbyfloat),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "lcs",
        family: Family::String,
        since: "7.0.0",
        summary: "Finds the longest common subsequence of two strings",
        complexity: "O(N*M) with N and M the lengths of the two strings",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 1, 1)],
        args: &[
            Arg::key("key1", 0),
            Arg::key("key2", 0),
            Arg::token("len", "LEN").optional(),
            Arg::token("idx", "IDX").optional(),
            Arg::new("len", ArgKind::Integer).with_token("MINMATCHLEN").optional(),
            Arg::token("withmatchlen", "WITHMATCHLEN").optional(),
        ],
        handler: Handler::Data(lcs::lcs),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "mget",
        family: Family::String,
        since: "1.0.0",
        summary: "Returns the strings under several keys",
        complexity: "O(N) with N keys",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::STRING,
        tips: &["request_policy:multi_shard"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, -1, 1)],
        args: &[Arg::key("key", 0).multiple()],
        route: Route::SplitKeys,
        merge: Merge::InKeyOrder,
        handler: Handler::Data(multi::mget),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "mset",
        family: Family::String,
        since: "1.0.1",
        summary: "Stores several strings at once",
        complexity: "O(N) with N keys",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::STRING,
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        keys: &[KeySpec::range(Access::Overwrite, Purpose::Update, 1, -1, 2)],
        args: &[Arg::block("key_value", &[Arg::key("key", 0), Arg::new("value", ArgKind::String)])
            .multiple()],
        route: Route::SplitKeys,
        merge: Merge::AllOk,
        propagate: Propagate::Rewritten,
        handler: Handler::Data(multi::mset),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "msetnx",
        family: Family::String,
        since: "1.0.1",
        summary: "Stores several strings at once, or none of them if any of the keys exists",
        complexity: "O(N) with N keys",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::STRING,
        tips: &["request_policy:multi_shard", "response_policy:agg_min"],
        keys: &[KeySpec::range(Access::Overwrite, Purpose::Insert, 1, -1, 2)],
        args: &[Arg::block("key_value", &[Arg::key("key", 0), Arg::new("value", ArgKind::String)])
            .multiple()],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(multi::msetnx),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "psetex",
        family: Family::String,
        since: "2.6.0",
        summary: "Stores a string that expires after some milliseconds",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("milliseconds", ArgKind::Integer),
            Arg::new("value", ArgKind::String),
        ],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(set::psetex),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "set",
        family: Family::String,
        since: "1.0.0",
        summary: "Stores a string under a key, whatever was there",
        complexity: "O(1)",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::STRING,
        keys: &[KeySpec {
            notes: "It is read as well if `GET` is given",
            variable: true,
            ..KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)
        }],
        args: &[
            Arg::key("key", 0),
            Arg::new("value", ArgKind::String),
            Arg::one_of("condition", &[Arg::token("nx", "NX"), Arg::token("xx", "XX")])
                .optional()
                .since("2.6.12"),
            Arg::token("get", "GET").optional().since("6.2.0"),
            Arg::one_of(
                "expiration",
                &[
                    Arg::new("seconds", ArgKind::Integer).with_token("EX").since("2.6.12"),
                    Arg::new("milliseconds", ArgKind::Integer).with_token("PX").since("2.6.12"),
                    Arg::new("unix-time-seconds", ArgKind::UnixTime)
                        .with_token("EXAT")
                        .since("6.2.0"),
                    Arg::new("unix-time-milliseconds", ArgKind::UnixTime)
                        .with_token("PXAT")
                        .since("6.2.0"),
                    Arg::token("keepttl", "KEEPTTL").since("6.0.0"),
                ],
            )
            .optional(),
        ],
        history: &[
            ("2.6.12", "Options `EX`, `PX`, `NX` and `XX`"),
            ("6.0.0", "Option `KEEPTTL`"),
            ("6.2.0", "Options `GET`, `EXAT` and `PXAT`"),
            ("7.0.0", "`NX` and `GET` may be combined"),
        ],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(set::set),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "setex",
        family: Family::String,
        since: "2.0.0",
        summary: "Stores a string that expires after some seconds",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("seconds", ArgKind::Integer),
            Arg::new("value", ArgKind::String),
        ],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(set::setex),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "setnx",
        family: Family::String,
        since: "1.0.0",
        summary: "Stores a string unless the key exists",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Overwrite, Purpose::Insert, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("value", ArgKind::String)],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(set::setnx),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "setrange",
        family: Family::String,
        since: "2.2.0",
        summary: "Overwrites a part of a string and pads it with zero bytes up to there",
        complexity: "O(N) with N bytes written, padding included",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("offset", ArgKind::Integer),
            Arg::new("value", ArgKind::String),
        ],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(read::setrange),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "strlen",
        family: Family::String,
        since: "2.2.0",
        summary: "Returns the length of a string in bytes",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(read::strlen),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "substr",
        family: Family::String,
        since: "1.0.0",
        summary: "Returns a part of a string: the old name of GETRANGE",
        complexity: "O(N) with N bytes returned",
        arity: Arity::Exact(4),
        flags: Flags::READONLY,
        acl: Acl::STRING,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("start", ArgKind::Integer),
            Arg::new("end", ArgKind::Integer),
        ],
        deprecated: Some(("2.0.0", "`GETRANGE`")),
        handler: Handler::Data(read::getrange),
        ..CommandSpec::EMPTY
    },
];

#[cfg(test)]
pub(super) mod tests {
    //! What the tests of this and the bitmap family share.

    use crate::commands::bare::Bare;

    /// Splits a line into words; a word in quotes may hold escapes `\\xHH`.
    fn words(line: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').expect("the quote is closed"),
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(unescape(word));
            rest = after.trim_start();
        }
        words
    }

    fn unescape(word: &str) -> Vec<u8> {
        let mut parts = word.split("\\x");
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let (hex, text) = part.split_at(2);
            bytes.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// The escaped reply to a call of a new client.
    pub(in crate::commands) fn run(bare: &mut Bare, line: &str) -> String {
        let words = words(line);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut client = bare.client();
        // The escape of `'` would only be noise in expected texts.
        bare.call(&mut client, &words).escape_ascii().to_string().replace("\\'", "'")
    }

    /// The calls that a call leaves in the journal.
    pub(in crate::commands) fn effects(bare: &mut Bare, line: &str) -> Vec<String> {
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        run(bare, line);
        let records = bare.held.iter_mut().flatten().flat_map(|shard| {
            let records = shard.journal.take();
            shard.journal.detach();
            records
        });
        let call = |record: crate::journal::Record| {
            let words: Vec<&[u8]> = record.call.args().iter_from(0).collect();
            words.join(&b' ').escape_ascii().to_string()
        };
        records.map(call).collect()
    }
}
