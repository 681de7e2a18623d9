//! INFO: which sections a call wants, and the section that needs data. The texts of the others are
//! in `info_text`.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::server::info_text::{self, Page};
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route,
};
use crate::resp::reply::Reply;
use crate::shard::state::Shard;
use crate::units::{DATABASES_MAX, Ms, SlotId};

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "info",
    family: Family::Server,
    since: "1.0.0",
    summary: "Returns facts and counters of the server, by section",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Acl::DANGEROUS,
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    args: &[Arg::new("section", ArgKind::String).optional().multiple()],
    history: &[("7.0.0", "Takes several sections in one call")],
    route: Route::AllSlots,
    handler: Handler::Data(info),
    ..CommandSpec::EMPTY
}];

/// A part of the reply, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    Server,
    Clients,
    Memory,
    Persistence,
    Stats,
    Replication,
    Cpu,
    /// Ours: what each core does.
    Cores,
    Modules,
    CommandStats,
    ErrorStats,
    LatencyStats,
    Cluster,
    Keyspace,
}

impl Section {
    /// All, in order.
    const ALL: [Self; 14] = [
        Self::Server,
        Self::Clients,
        Self::Memory,
        Self::Persistence,
        Self::Stats,
        Self::Replication,
        Self::Cpu,
        Self::Cores,
        Self::Modules,
        Self::CommandStats,
        Self::ErrorStats,
        Self::LatencyStats,
        Self::Cluster,
        Self::Keyspace,
    ];

    /// Its heading; in lower case, the name that selects it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Clients => "Clients",
            Self::Memory => "Memory",
            Self::Persistence => "Persistence",
            Self::Stats => "Stats",
            Self::Replication => "Replication",
            Self::Cpu => "CPU",
            Self::Cores => "Cores",
            Self::Modules => "Modules",
            Self::CommandStats => "Commandstats",
            Self::ErrorStats => "Errorstats",
            Self::LatencyStats => "Latencystats",
            Self::Cluster => "Cluster",
            Self::Keyspace => "Keyspace",
        }
    }

    /// Whether INFO without a name shows it.
    fn is_default(self) -> bool {
        !matches!(self, Self::Cores | Self::CommandStats | Self::LatencyStats)
    }
}

/// Whether a call wants a section.
fn wants(args: &Args<'_>, section: Section) -> bool {
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if args.len() == 1 {
        return section.is_default();
    }
    args.iter_from(1).any(|word| {
        is(word, section.title())
            || is(word, "all")
            || is(word, "everything")
            || (is(word, "default") && section.is_default())
    })
}

/// INFO [section ...]
fn info(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    ctx.node.sample_rates(ctx.now);
    let mut page = Page::default();
    for section in Section::ALL.into_iter().filter(|section| wants(args, *section)) {
        page.heading(section.title());
        if section == Section::Keyspace {
            keyspace(ctx, &mut page);
        } else {
            info_text::section(section, ctx.node, ctx.now, &mut page);
        }
    }
    reply.verbatim(page.text().as_bytes());
    Ok(())
}

/// What INFO keyspace says of one database.
#[derive(Clone, Copy, Debug, Default)]
struct DbFacts {
    keys: usize,
    expiring: usize,
    ttl_sum_ms: i64,
    ttl_count: i64,
}

fn keyspace(ctx: &mut Ctx<'_>, page: &mut Page) {
    let now = ctx.now;
    let mut facts = [DbFacts::default(); DATABASES_MAX];
    ctx.shards.each(|shard| count_keys(shard, now, &mut facts));
    for (db, facts) in facts.iter().enumerate().filter(|(_, facts)| facts.keys > 0) {
        let mean_ttl_ms = facts.ttl_sum_ms.checked_div(facts.ttl_count).unwrap_or(0);
        let DbFacts { keys, expiring, .. } = facts;
        page.field(
            &format!("db{db}"),
            format_args!("keys={keys},expires={expiring},avg_ttl={mean_ttl_ms}"),
        );
    }
}

/// Slots looked into for the mean time to live, and keys per slot.
const TTL_SLOT_SAMPLES: u64 = 32;
const TTL_KEY_SAMPLES: usize = 4;

/// Adds a shard's keys, and the times to live of some of them.
///
/// # Complexity
/// O(1): counts are kept, and times to live are sampled.
fn count_keys(shard: &mut Shard, now: Ms, facts: &mut [DbFacts; DATABASES_MAX]) {
    let random = shard.random();
    for (db, dbase) in shard.keys.dbs() {
        let facts = &mut facts[db.index()];
        facts.keys += dbase.len();
        facts.expiring += dbase.expiring();
        if dbase.expiring() == 0 {
            continue;
        }
        for i in 0..TTL_SLOT_SAMPLES {
            // An odd factor visits as many different slots as it takes steps.
            let slot = SlotId::from_crc((random.wrapping_add(i * 331)) as u32);
            dbase.table(slot).sample(random.rotate_left(i as u32), TTL_KEY_SAMPLES, |entry| {
                if let Some(deadline) = entry.expires_at() {
                    facts.ttl_sum_ms =
                        facts.ttl_sum_ms.saturating_add((deadline.0.saturating_sub(now.0)).max(0));
                    facts.ttl_count += 1;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::net::client::ClientState;

    fn info(bare: &mut Bare, client: &mut ClientState, sections: &[&[u8]]) -> String {
        let words: Vec<&[u8]> = [&b"INFO"[..]].iter().chain(sections).copied().collect();
        let reply = String::from_utf8(bare.call(client, &words)).expect("text");
        let (header, text) = reply.split_once("\r\n").expect("a bulk reply");
        assert_eq!(header, format!("${}", text.len() - 2));
        text[..text.len() - 2].to_owned()
    }

    fn titles(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# ")).collect()
    }

    #[test]
    fn sections_come_in_redis_order_whatever_the_words() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        let text = info(&mut bare, &mut client, &[b"KEYSPACE", b"nosuch", b"server", b"Server"]);
        assert_eq!(titles(&text), ["Server", "Keyspace"]);
        let default = info(&mut bare, &mut client, &[]);
        let all = "Server Clients Memory Persistence Stats Replication CPU Cores Modules \
                   Commandstats Errorstats Latencystats Cluster Keyspace";
        let hidden = ["Cores", "Commandstats", "Latencystats"];
        let shown: Vec<_> = all.split(' ').filter(|title| !hidden.contains(title)).collect();
        assert_eq!(titles(&default), shown);
        for word in [&b"all"[..], b"everything"] {
            let text = info(&mut bare, &mut client, &[word]);
            assert_eq!(titles(&text), all.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(info(&mut bare, &mut client, &[b"nosuch"]), "");
    }

    #[test]
    fn sections_are_separated_by_an_empty_line_and_have_fields() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let text = info(&mut bare, &mut client, &[b"cluster", b"modules", b"keyspace"]);
        assert_eq!(text, "# Modules\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\n");
        for line in info(&mut bare, &mut client, &[b"all"]).lines() {
            assert!(line.is_empty() || line.starts_with("# ") || line.contains(':'), "{line}");
        }
    }

    #[test]
    fn keyspace_counts_keys_of_all_shards_and_their_mean_ttl() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        for i in 0..3000 {
            let key = format!("k{i}");
            bare.call(&mut client, &[b"SET", key.as_bytes(), b"v", b"PX", b"60000"]);
        }
        bare.call(&mut client, &[b"SET", b"forever", b"v"]);
        let text = info(&mut bare, &mut client, &[b"keyspace"]);
        assert_eq!(text, "# Keyspace\r\ndb0:keys=3001,expires=3000,avg_ttl=60000\r\n");
    }

    #[test]
    fn errors_are_counted_by_their_first_word() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"NOSUCH"]);
        bare.call(&mut client, &[b"CONFIG", b"SET", b"a"]);
        bare.node.config.set_at_start("requirepass", "secret").expect("an option");
        client.authenticated = false;
        bare.call(&mut client, &[b"TIME"]);
        client.authenticated = true;
        let text = info(&mut bare, &mut client, &[b"errorstats"]);
        let want = "# Errorstats\r\nerrorstat_ERR:count=2\r\nerrorstat_NOAUTH:count=1\r\n";
        assert_eq!(text, want);
    }
}
