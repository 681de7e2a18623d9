//! The line that describes one client: CLIENT INFO, CLIENT LIST.

use std::fmt::Write;

use crate::net::client::ClientState;
use crate::pubsub::Kind;
use crate::resp::reply::Protocol;
use crate::units::Ms;

/// Output up to here is shown as a filled reply buffer (`obl`), more as a list of replies (`oll`,
/// `omem`): where Redis draws the line between its two kinds of buffers.
const REPLY_BUFFER_BYTES: usize = 16 * 1024;

/// The fields of a client, in the order and form of Redis 7.0, without a line end.
///
/// Fields about buffers that Redis has and Cordis has not are zero: `qbuf-free`, `argv-mem`, `rbs`,
/// `rbp`.
///
/// # Complexity
/// O(N) with N calls that the client has queued.
pub fn client_line(client: &ClientState, now: Ms) -> String {
    let seconds_since = |at: Ms| now.0.saturating_sub(at.0).max(0) / 1000;
    let (multi_count, multi_bytes) = match &client.multi {
        Some(multi) => {
            let bytes: usize = multi.queued.iter().map(|(_, call)| call.heap_bytes()).sum();
            (multi.queued.len() as i64, bytes)
        }
        None => (-1, 0),
    };
    let names = |kind| client.subs.as_ref().map_or(0, |subs| subs.of(kind).len());
    let out_bytes = client.out_bytes;
    let (obl, oll, omem) =
        if out_bytes <= REPLY_BUFFER_BYTES { (out_bytes, 0, 0) } else { (0, 1, out_bytes) };
    let total_bytes =
        size_of::<ClientState>() + client.name.len() + client.query_bytes + multi_bytes + out_bytes;
    let mut line = String::with_capacity(320);
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} \
         ssub={} multi={multi_count} qbuf={} qbuf-free=0 argv-mem=0 multi-mem={multi_bytes} rbs=0 rbp=0 \
         obl={obl} oll={oll} omem={omem} tot-mem={total_bytes} events={} cmd={} user=default \
         redir=-1 resp={}",
        client.id,
        client.addr,
        client.laddr,
        client.fd,
        String::from_utf8_lossy(&client.name),
        seconds_since(client.created_at),
        seconds_since(client.last_at),
        flags(client),
        client.db.0,
        names(Kind::Channel),
        names(Kind::Pattern),
        names(Kind::Shard),
        client.query_bytes,
        if out_bytes > 0 { "rw" } else { "r" },
        client.last_command.map_or("NULL", |command| command.spec.name),
        match client.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        },
    );
    line
}

/// The letters that say what state a client is in; `N` if there is nothing to say.
fn flags(client: &ClientState) -> String {
    let letters = [
        ('O', client.is_monitor),
        ('P', client.subs.is_some()),
        ('x', client.multi.is_some()),
        ('b', client.is_blocked),
        ('d', client.watching.as_ref().is_some_and(|watching| watching.is_touched())),
        ('c', client.close_after_reply),
        ('U', client.is_unix),
        ('e', client.no_evict),
    ];
    let set: String = letters.iter().filter(|(_, on)| *on).map(|(letter, _)| *letter).collect();
    if set.is_empty() { "N".to_owned() } else { set }
}
