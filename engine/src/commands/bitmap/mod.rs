//! The bitmap family: strings as rows of bits. The highest bit of the first byte is bit 0.
//!
//! Knows no encoding. Handlers run on the core that holds the shards of their keys.

mod bits;
mod field;
mod op;

use crate::commands::ctx::Ctx;
use crate::commands::spec::*;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;

/// Work in steps goes on by this much: some 50 µs, with fresh pages for a result.
const STEP_BYTES: usize = 128 * 1024;
/// Bytes that count as one element when work is measured in elements: a cache line.
const BYTES_PER_ELEMENT: usize = 64;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "bitcount",
        family: Family::Bitmap,
        since: "2.6.0",
        summary: "Counts the bits that are set in a string or in a part of it",
        complexity: "O(N) with N bytes looked at",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::BITMAP,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::block(
                "index",
                &[
                    Arg::new("start", ArgKind::Integer),
                    Arg::new("end", ArgKind::Integer),
                    Arg::one_of(
                        "index_unit",
                        &[Arg::token("byte", "BYTE"), Arg::token("bit", "BIT")],
                    )
                    .optional()
                    .since("7.0.0"),
                ],
            )
            .optional(),
        ],
        history: &[("7.0.0", "Units `BYTE` and `BIT`")],
        handler: Handler::Data(bits::bitcount),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "bitfield",
        family: Family::Bitmap,
        since: "3.2.0",
        summary: "Reads, sets and increments integers of any width within a string",
        complexity: "O(1) per operation",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::BITMAP,
        keys: &[KeySpec {
            notes: "Which of the two it is depends on the operations",
            variable: true,
            ..KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)
        }],
        args: &[
            Arg::key("key", 0),
            Arg::one_of(
                "operation",
                &[
                    Arg::block(
                        "encoding_offset",
                        &[
                            Arg::new("encoding", ArgKind::String),
                            Arg::new("offset", ArgKind::Integer),
                        ],
                    )
                    .with_token("GET"),
                    Arg::block(
                        "write",
                        &[
                            Arg::one_of(
                                "wrap_sat_fail",
                                &[
                                    Arg::token("wrap", "WRAP"),
                                    Arg::token("sat", "SAT"),
                                    Arg::token("fail", "FAIL"),
                                ],
                            )
                            .with_token("OVERFLOW")
                            .optional(),
                            Arg::one_of(
                                "write_operation",
                                &[
                                    Arg::block(
                                        "encoding_offset_value",
                                        &[
                                            Arg::new("encoding", ArgKind::String),
                                            Arg::new("offset", ArgKind::Integer),
                                            Arg::new("value", ArgKind::Integer),
                                        ],
                                    )
                                    .with_token("SET"),
                                    Arg::block(
                                        "encoding_offset_increment",
                                        &[
                                            Arg::new("encoding", ArgKind::String),
                                            Arg::new("offset", ArgKind::Integer),
                                            Arg::new("increment", ArgKind::Integer),
                                        ],
                                    )
                                    .with_token("INCRBY"),
                                ],
                            ),
                        ],
                    ),
                ],
            )
            .optional()
            .multiple(),
        ],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(field::bitfield),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "bitfield_ro",
        family: Family::Bitmap,
        since: "6.0.0",
        summary: "Reads integers of any width within a string",
        complexity: "O(1) per operation",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::BITMAP,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::block(
                "encoding_offset",
                &[Arg::new("encoding", ArgKind::String), Arg::new("offset", ArgKind::Integer)],
            )
            .with_token("GET")
            .optional()
            .multiple_token(),
        ],
        handler: Handler::Data(field::bitfield_ro),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "bitop",
        family: Family::Bitmap,
        since: "2.6.0",
        summary: "Combines strings bit by bit and stores the result",
        complexity: "O(N) with N the length of the longest string",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::BITMAP,
        keys: &[
            KeySpec::range(Access::Overwrite, Purpose::Update, 2, 0, 1),
            KeySpec::range(Access::Read, Purpose::Access, 3, -1, 1),
        ],
        args: &[
            Arg::new("operation", ArgKind::String),
            Arg::key("destkey", 0),
            Arg::key("key", 1).multiple(),
        ],
        propagate: Propagate::Rewritten,
        deferral: Deferral::Always,
        handler: Handler::Data(op::bitop),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "bitpos",
        family: Family::Bitmap,
        since: "2.8.7",
        summary: "Finds the first bit that is set, or clear, in a string or in a part of it",
        complexity: "O(N) with N bytes looked at",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Acl::BITMAP,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("bit", ArgKind::Integer),
            Arg::block(
                "index",
                &[
                    Arg::new("start", ArgKind::Integer),
                    Arg::block(
                        "end_index",
                        &[
                            Arg::new("end", ArgKind::Integer),
                            Arg::one_of(
                                "index_unit",
                                &[Arg::token("byte", "BYTE"), Arg::token("bit", "BIT")],
                            )
                            .optional()
                            .since("7.0.0"),
                        ],
                    )
                    .optional(),
                ],
            )
            .optional(),
        ],
        history: &[("7.0.0", "Units `BYTE` and `BIT`")],
        handler: Handler::Data(bits::bitpos),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "getbit",
        family: Family::Bitmap,
        since: "2.2.0",
        summary: "Returns one bit of a string",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::BITMAP,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("offset", ArgKind::Integer)],
        handler: Handler::Data(bits::getbit),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "setbit",
        family: Family::Bitmap,
        since: "2.2.0",
        summary: "Sets or clears one bit of a string and returns what it was",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::BITMAP,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("offset", ArgKind::Integer),
            Arg::new("value", ArgKind::Integer),
        ],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(bits::setbit),
        ..CommandSpec::EMPTY
    },
];

/// A word as the offset of a bit, if a string may be as long as that.
fn offset(ctx: &Ctx<'_>, word: &[u8]) -> Result<u64, CommandError> {
    parse_i64(word).and_then(|at| in_limit(ctx, at)).ok_or(CommandError::BIT_OFFSET)
}

/// The same; `#n` means the offset of the nth field of `width` bits.
fn field_offset(ctx: &Ctx<'_>, word: &[u8], width: u32) -> Result<u64, CommandError> {
    let [b'#', index @ ..] = word else {
        return offset(ctx, word);
    };
    // Redis: the product wraps, and what is left of it may be an offset again.
    let at = parse_i64(index).map(|index| index.wrapping_mul(i64::from(width)));
    at.and_then(|at| in_limit(ctx, at)).ok_or(CommandError::BIT_OFFSET)
}

fn in_limit(ctx: &Ctx<'_>, at: i64) -> Option<u64> {
    let at = u64::try_from(at).ok()?;
    (at / 8 < ctx.node.config.proto_max_bulk_bytes() as u64).then_some(at)
}
