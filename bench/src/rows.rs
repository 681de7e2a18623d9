//! The rows of the comparison: what each sends, what it needs beforehand, and its budget.
//!
//! Budgets are bounds on the ratio of Cordis to Redis in one run: of CPU time per request for
//! speed, of resident bytes per element for memory. The rows of the curve are made in `curve`.

use crate::curve::{self, CurveRow};

/// What a row needs in the server before it can be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Prepare {
    /// Nothing.
    Nothing,
    /// Every key set once.
    Keys,
    /// A fresh key, filled by as many requests of this command as the row sends.
    Fill {
        /// The key to delete first.
        key: &'static str,
        /// What fills it.
        command: &'static str,
    },
}

/// A row that measures CPU time per request.
#[derive(Clone, Debug)]
pub(crate) struct SpeedRow {
    /// Its name in tables and in `--rows`.
    pub(crate) name: &'static str,
    group: &'static str,
    /// The command it repeats.
    pub(crate) command: &'static str,
    /// Connections.
    pub(crate) clients: usize,
    /// Requests sent together.
    pub(crate) pipeline: u64,
    /// Requests in all, before `--scale`.
    pub(crate) requests: u64,
    /// What must be there.
    pub(crate) prepare: Prepare,
    /// The budget with one server core, and with two.
    budgets: [Option<f64>; 2],
}

impl SpeedRow {
    /// The bound on the ratio, if the row has one.
    pub(crate) fn budget(&self, two_cores: bool) -> Option<f64> {
        self.budgets[usize::from(two_cores)]
    }
}

/// A row that measures resident memory per element.
#[derive(Clone, Debug)]
pub(crate) struct MemoryRow {
    /// Its name in tables and in `--rows`.
    pub(crate) name: &'static str,
    /// The command that adds one key.
    pub(crate) command: String,
    /// Keys to add; `None` for the number that `--keys` says.
    pub(crate) keys: Option<u64>,
    /// Elements of each key over which its bytes are spread.
    pub(crate) elements: u64,
    /// The bound on the ratio.
    pub(crate) budget: f64,
}

/// Words that name several rows.
const GROUPS: [&str; 5] = ["all", "perf", "suite", "memory", "memory-curve"];

const SET: &str = "SET __key__ __data__";
const GET: &str = "GET __key__";
const LIST: Prepare = Prepare::Fill { key: "mylist", command: "LPUSH mylist __data__" };
const FULL_SET: Prepare =
    Prepare::Fill { key: "myset", command: "SADD myset element:__rand_int__" };
const FULL_ZSET: Prepare =
    Prepare::Fill { key: "myzset", command: "ZADD myzset __rand_int__ element:__rand_int__" };

/// Rows of the main table.
fn perf() -> Vec<SpeedRow> {
    let row = |name, command, clients, pipeline, requests, budgets| SpeedRow {
        name,
        group: "perf",
        command,
        clients,
        pipeline,
        requests,
        prepare: if command == GET { Prepare::Keys } else { Prepare::Nothing },
        budgets,
    };
    vec![
        row("set c50 P16", SET, 50, 16, 1_000_000, [Some(0.60), Some(0.45)]),
        row("get c50 P16", GET, 50, 16, 1_000_000, [Some(0.60), Some(0.45)]),
        row("get c50 P100", GET, 50, 100, 3_000_000, [Some(0.52), Some(0.45)]),
        row("set c50 P1", SET, 50, 1, 200_000, [Some(0.92), Some(0.45)]),
        row("get c50 P1", GET, 50, 1, 200_000, [Some(0.92), Some(0.45)]),
        row("get c1 P1", GET, 1, 1, 30_000, [None, Some(1.0)]),
        row("get c500 P1", GET, 500, 1, 200_000, [Some(0.80), None]),
    ]
}

/// Rows named and shaped as the tests of redis-benchmark, at pipeline 16.
fn suite() -> Vec<SpeedRow> {
    let row = |name, command, prepare, requests| SpeedRow {
        name,
        group: "suite",
        command,
        clients: 50,
        pipeline: 16,
        requests,
        prepare,
        budgets: [Some(0.75), None],
    };
    use Prepare::{Keys, Nothing};
    vec![
        row("ping_mbulk", "PING", Nothing, 500_000),
        row("set", SET, Nothing, 500_000),
        row("get", GET, Keys, 500_000),
        row("incr", "INCR counter:__rand_int__", Nothing, 500_000),
        row("lpush", "LPUSH mylist __data__", Nothing, 500_000),
        row("rpush", "RPUSH mylist __data__", Nothing, 500_000),
        row("lpop", "LPOP mylist", LIST, 500_000),
        row("rpop", "RPOP mylist", LIST, 500_000),
        row("sadd", "SADD myset element:__rand_int__", Nothing, 500_000),
        row("hset", "HSET myhash element:__rand_int__ __data__", Nothing, 500_000),
        row("spop", "SPOP myset", FULL_SET, 500_000),
        row("zadd", "ZADD myzset __rand_int__ element:__rand_int__", Nothing, 500_000),
        row("zpopmin", "ZPOPMIN myzset", FULL_ZSET, 500_000),
        row("lrange_100", "LRANGE mylist 0 99", LIST, 50_000),
        row("lrange_300", "LRANGE mylist 0 299", LIST, 50_000),
        row(
            "mset",
            "MSET __key__ __data__ __key__ __data__ __key__ __data__ __key__ __data__ \
             __key__ __data__ __key__ __data__ __key__ __data__ __key__ __data__ \
             __key__ __data__ __key__ __data__",
            Nothing,
            200_000,
        ),
    ]
}

/// Rows of the memory table, in the order in which they are loaded into one server.
fn memory() -> Vec<MemoryRow> {
    let fields: String = (0..10).map(|n| format!(" field{n} __rand_int__")).collect();
    // 37 is coprime to 1000, so the scores are all different and come in no order.
    let members: String = (0..1000).map(|n| format!(" {} member:{n:08}", n * 37 % 1000)).collect();
    vec![
        MemoryRow {
            name: "string 16+64",
            command: format!("SET key:__seq__ __seq__{}", "x".repeat(52)),
            keys: None,
            elements: 1,
            budget: 0.62,
        },
        MemoryRow {
            name: "hash of 10 fields",
            command: format!("HSET hsh:__seq__{fields}"),
            keys: Some(200_000),
            elements: 1,
            budget: 0.50,
        },
        MemoryRow {
            name: "zset member",
            command: format!("ZADD zst:__seq__{members}"),
            keys: Some(2_000),
            elements: 1000,
            budget: 0.42,
        },
    ]
}

/// The rows to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Rows of speed.
    pub(crate) speed: Vec<SpeedRow>,
    /// Rows of memory.
    pub(crate) memory: Vec<MemoryRow>,
    /// Points of the curve of memory over size.
    pub(crate) curve: Vec<CurveRow>,
}

/// Finds the rows that a list names: groups (`perf`, `suite`, `memory`, `memory-curve`, `all`),
/// names of rows, or parts of names, separated by commas. The many rows of the curve are not part
/// of `all`; the first words of a name find them, as in `curve list`.
///
/// # Errors
/// A word that names nothing.
pub(crate) fn select(list: &str) -> Result<Selection, String> {
    let speed: Vec<SpeedRow> = perf().into_iter().chain(suite()).collect();
    let (memory, curve) = (memory(), curve::rows());
    let words: Vec<&str> = list.split(',').map(str::trim).collect();
    let names: Vec<&str> =
        speed.iter().map(|row| row.name).chain(memory.iter().map(|row| row.name)).collect();
    for word in &words {
        let known = GROUPS.contains(word) || names.iter().any(|name| name.contains(word));
        if word.is_empty() || !(known || curve.iter().any(|row| in_curve(&row.name, word))) {
            let (groups, names) = (GROUPS.join(", "), names.join(", "));
            return Err(format!(
                "no row '{word}'; groups: {groups}; rows: {names}, and 'curve list 10k' etc."
            ));
        }
    }
    let wanted = |name: &str, group: &str| {
        words.iter().any(|&word| match word {
            "all" => true,
            _ if GROUPS.contains(&word) => word == group,
            _ if names.contains(&word) => word == name,
            _ => name.contains(word),
        })
    };
    Ok(Selection {
        speed: speed.into_iter().filter(|row| wanted(row.name, row.group)).collect(),
        memory: memory.into_iter().filter(|row| wanted(row.name, "memory")).collect(),
        curve: curve
            .into_iter()
            .filter(|row| words.iter().any(|word| in_curve(&row.name, word)))
            .collect(),
    })
}

/// Whether a word of the list names a row of the curve: all of them, this one, or a first part of
/// its name up to a blank.
fn in_curve(name: &str, word: &str) -> bool {
    let rest = name.strip_prefix(word);
    word == "memory-curve" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Workload, WorkloadSpec};

    fn names(list: &str) -> Vec<&'static str> {
        let selection = select(list).unwrap();
        let speed = selection.speed.iter().map(|row| row.name);
        speed.chain(selection.memory.iter().map(|row| row.name)).collect()
    }

    fn curve_names(list: &str) -> Vec<String> {
        select(list).unwrap().curve.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn select_groups_names_and_parts() {
        assert_eq!(names("perf").len(), 7);
        assert_eq!(names("suite").len(), 16);
        assert_eq!(names("memory").len(), 3);
        assert_eq!(names("all").len(), 26);
        assert_eq!(names("set"), ["set"]);
        assert_eq!(names("get c1 P1, string"), ["get c1 P1", "string 16+64"]);
        assert_eq!(names("c50 P16"), ["set c50 P16", "get c50 P16"]);
        assert!(select("nothing").is_err());
        assert!(select("perf,").is_err());
    }

    #[test]
    fn select_takes_the_curve_only_by_its_name() {
        assert!(curve_names("all,memory,zset,100").is_empty());
        assert_eq!(names("memory-curve").len(), 0);
        assert_eq!(curve_names("memory-curve"), curve_names("curve"));
        assert_eq!(curve_names("curve list64").len(), 6);
        assert_eq!(curve_names("curve zset 1"), ["curve zset 1"]);
        assert_eq!(curve_names("curve zset 100k, get c1 P1"), ["curve zset 100k"]);
        assert!(select("curve 7").is_err());
    }

    #[test]
    fn commands_of_all_rows_compile() {
        let selection = select("all,memory-curve").unwrap();
        let memory = selection.memory.iter().map(|row| row.command.clone());
        let memory = memory.chain(selection.curve.iter().map(|row| row.command.clone()));
        for command in selection.speed.iter().map(|row| row.command.to_owned()).chain(memory) {
            Workload::new(&WorkloadSpec::uniform(&command, 10, 64), 0).unwrap();
        }
    }
}
