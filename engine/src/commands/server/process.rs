//! TIME and ROLE.

use crate::commands::args::Args;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Acl, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route,
};
use crate::resp::reply::Reply;

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "role",
        family: Family::Server,
        since: "2.8.12",
        summary: "Says whether the server is a primary or a replica, and how far replication is",
        complexity: "O(1)",
        arity: Arity::Exact(1),
        flags: Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE).union(Flags::FAST),
        acl: Acl::ADMIN.union(Acl::DANGEROUS),
        route: Route::Session,
        handler: Handler::Session(role),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "time",
        family: Family::Server,
        since: "2.6.0",
        summary: "Returns the server's clock: seconds of the Unix epoch and microseconds",
        complexity: "O(1)",
        arity: Arity::Exact(1),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        tips: &["nondeterministic_output"],
        route: Route::Session,
        handler: Handler::Session(time),
        ..CommandSpec::EMPTY
    },
];

/// ROLE
fn role(_ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    // Master, the offset of its journal, its replicas.
    reply.array(3);
    reply.bulk(b"master");
    reply.int(0);
    reply.array(0);
    Ok(())
}

/// TIME
fn time(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(2);
    let us = ctx.micros.get();
    reply.bulk_int(us.div_euclid(1_000_000));
    reply.bulk_int(us.rem_euclid(1_000_000));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::units::Ms;

    #[test]
    fn time_is_seconds_and_microseconds() {
        let mut bare = Bare::new(1, 1);
        bare.now = Ms(1_700_000_000_042);
        let mut client = bare.client();
        let reply = bare.call(&mut client, &[b"TIME"]);
        assert_eq!(reply, b"*2\r\n$10\r\n1700000000\r\n$5\r\n42000\r\n");
    }

    #[test]
    fn role_without_replication_is_master() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        assert_eq!(bare.call(&mut client, &[b"ROLE"]), b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    }
}
