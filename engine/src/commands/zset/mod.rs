//! The sorted set family: members with scores, in order.
//!
//! What the commands are is said in `specs_read` and `specs_write`; the structure behind them is
//! [`types::zset`](crate::types::zset).

mod add;
mod blocking;
mod bounds;
mod combine;
mod random;
mod range;
mod read;
mod remove;
mod reply;
mod scan;
mod specs_read;
mod specs_write;

use crate::commands::spec::CommandSpec;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    specs_write::BZMPOP,
    specs_write::BZPOPMAX,
    specs_write::BZPOPMIN,
    specs_write::ZADD,
    specs_read::ZCARD,
    specs_read::ZCOUNT,
    specs_read::ZDIFF,
    specs_write::ZDIFFSTORE,
    specs_write::ZINCRBY,
    specs_read::ZINTER,
    specs_read::ZINTERCARD,
    specs_write::ZINTERSTORE,
    specs_read::ZLEXCOUNT,
    specs_write::ZMPOP,
    specs_read::ZMSCORE,
    specs_write::ZPOPMAX,
    specs_write::ZPOPMIN,
    specs_read::ZRANDMEMBER,
    specs_read::ZRANGE,
    specs_read::ZRANGEBYLEX,
    specs_read::ZRANGEBYSCORE,
    specs_write::ZRANGESTORE,
    specs_read::ZRANK,
    specs_write::ZREM,
    specs_write::ZREMRANGEBYLEX,
    specs_write::ZREMRANGEBYRANK,
    specs_write::ZREMRANGEBYSCORE,
    specs_read::ZREVRANGE,
    specs_read::ZREVRANGEBYLEX,
    specs_read::ZREVRANGEBYSCORE,
    specs_read::ZREVRANK,
    specs_read::ZSCAN,
    specs_read::ZSCORE,
    specs_read::ZUNION,
    specs_write::ZUNIONSTORE,
];

#[cfg(test)]
mod tests;
