//! The `cordis` command line: words for the admin protocol of a control process, and what comes back
//! as tables for people or JSON for scripts. Decides nothing: whatever it can do, `redis-cli` on the
//! admin port can do as well.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::up;

mod link;
mod render;
mod watch;

use link::{Link, Trouble};

/// Wrong words on the command line.
const WRONG_WORDS: u8 = 2;

/// Operates a Cordis cluster.
#[derive(Debug, Parser)]
#[command(name = "cordis", version, about = "Operates a Cordis cluster", max_term_width = 100)]
struct Cli {
    /// Admin address of a control process; several, separated by commas, are tried in order.
    #[arg(long, global = true, value_name = "ADDR,...", default_value = "127.0.0.1:18080")]
    control: String,
    /// File that holds the admin secret in its first line; `CORDIS_SECRET` is used if it is not given.
    #[arg(long, global = true, value_name = "FILE")]
    secret_file: Option<std::path::PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster on this machine, and stop it with Ctrl-C.
    Up(UpArgs),
    /// Show the cluster: control, groups, proxies, slots, what is moving.
    Status,
    /// Groups of servers that hold the same slots.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Servers.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Slots and their moves.
    #[command(subcommand)]
    Slots(SlotsCommand),
    /// Proxies.
    #[command(subcommand)]
    Proxy(ProxyCommand),
    /// Watch cores, slots, commands and latency.
    Top {
        /// Print one sample and leave.
        #[arg(long)]
        once: bool,
    },
    /// Show what has happened.
    Events {
        /// So many of the last ones.
        #[arg(long, value_name = "N", default_value_t = 20)]
        count: u32,
        /// Go on with those that come.
        #[arg(long, short)]
        follow: bool,
    },
    /// Settings of the control process.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Send words to the control process as they are, and print what it answers.
    Raw {
        /// The words, for example `HELP`.
        #[arg(required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Folder for the cluster's files.
    #[arg(long, value_name = "PATH", default_value = "cordis-data")]
    dir: std::path::PathBuf,
    /// Groups, one server each [default: 2].
    #[arg(long, value_name = "N")]
    groups: Option<u16>,
    /// Replicas of each server. This version has no replication: only 0 is possible.
    #[arg(long, value_name = "N", default_value_t = 0)]
    replicas: u16,
    /// Port that applications connect to [default: 19000].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Port of the control process [default: 18080].
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Port of the web page. This version has no web page: nothing listens there.
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Port of the first server; the others follow [default: 6380].
    #[arg(long, value_name = "PORT")]
    server_port: Option<u16>,
    /// Processors to use, for example 0-3 [default: all].
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Keep a gentle load on the cluster, so that there is something to see.
    #[arg(long)]
    demo: bool,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Make a group.
    Add {
        /// Its number, 1 to 9999.
        id: u16,
    },
    /// Remove a group that has no servers.
    Del {
        /// Its number.
        id: u16,
    },
    /// Show the groups.
    List,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Add a server to a group; it is verified first.
    Add {
        /// The group's number.
        group: u16,
        /// Where the server listens: ip:port.
        addr: String,
        /// Where it stands.
        #[arg(long, value_name = "NAME")]
        datacenter: Option<String>,
        /// Accept a server that is not Cordis, or that holds keys.
        #[arg(long)]
        import: bool,
    },
    /// Remove a server whose group serves no slots, or is left with another.
    Del {
        /// The group's number.
        group: u16,
        /// Its address.
        addr: String,
    },
    /// Show the servers.
    List,
}

#[derive(Debug, Subcommand)]
enum SlotsCommand {
    /// Give slots that nobody serves to a group.
    Assign {
        /// Slots, for example 0-511,600.
        #[arg(long)]
        slots: String,
        /// The group.
        #[arg(long)]
        to: u16,
    },
    /// Show who serves which slots.
    List,
    /// Move slots with their keys to another group, while they are used.
    Move {
        /// Slots, for example 0-511,600.
        #[arg(long)]
        slots: String,
        /// The group.
        #[arg(long)]
        to: u16,
        /// Stay until they have moved, and show how far it is.
        #[arg(long)]
        wait: bool,
    },
    /// Show moves that are under way.
    Moves,
    /// Level the groups. Shows what would move; --confirm moves it.
    Rebalance {
        /// What to level.
        #[arg(long, value_enum, default_value_t = Measure::Slots)]
        by: Measure,
        /// Do it.
        #[arg(long)]
        confirm: bool,
        /// Stay until the slots have moved, and show how far it is.
        #[arg(long, requires = "confirm")]
        wait: bool,
    },
    /// Cancel a move, or moves of these slots. What has moved stays where it is.
    Cancel {
        /// The move's number.
        #[arg(required_unless_present = "slots")]
        id: Option<u64>,
        /// Slots, for example 0-511.
        #[arg(long, conflicts_with = "id")]
        slots: Option<String>,
    },
    /// Begin no further moves of slots.
    Pause,
    /// Go on with moves.
    Resume,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Measure {
    Slots,
    Keys,
    Memory,
    Load,
}

#[derive(Debug, Subcommand)]
enum ProxyCommand {
    /// Add a proxy by its admin address.
    Add {
        /// ip:port.
        addr: String,
    },
    /// Remove a proxy.
    Del {
        /// Its admin address or token.
        proxy: String,
        /// Also if it does not answer.
        #[arg(long)]
        force: bool,
    },
    /// Show the proxies.
    List,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show settings.
    Get {
        /// A name, or a pattern with `*`.
        #[arg(default_value = "*")]
        name: String,
    },
    /// Change a setting.
    Set {
        /// Its name.
        name: String,
        /// Its new value.
        value: String,
    },
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // Without any words, the list of commands helps most.
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                let _ = error.print();
            } else {
                say(&one_line(&error));
            }
            return ExitCode::from(WRONG_WORDS);
        }
    };
    let result = match &cli.command {
        Command::Up(args) => start_all(args),
        _ => operate(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Words(line)) => {
            say(&line);
            ExitCode::from(WRONG_WORDS)
        }
        Err(Trouble::Refused(line) | Trouble::Unreachable(line)) => {
            say(&line);
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "cordis: {line}");
}

/// An error of the command line as one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let named: Vec<&str> = text.lines().skip(1).take_while(|l| l.starts_with("  ")).collect();
    let named = named.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let more = if named.is_empty() { String::new() } else { format!(" {named}") };
    format!("{first}{more} (see cordis --help)")
}

fn start_all(args: &UpArgs) -> Result<(), Trouble> {
    if args.replicas != 0 {
        return Err(Trouble::Words(
            "--replicas: this version has no replication, only 0 is possible".to_owned(),
        ));
    }
    let options = up::Options {
        dir: args.dir.clone(),
        groups: args.groups,
        port: args.port,
        admin_port: args.admin_port,
        http_port: args.http_port,
        server_port: args.server_port,
        cores: args.cores.clone(),
        demo: args.demo,
    };
    up::run(&options).map_err(|error| match error {
        up::UpError::Options(line) => Trouble::Words(line),
        up::UpError::Run(line) => Trouble::Refused(line),
    })
}

fn operate(cli: &Cli) -> Result<(), Trouble> {
    let mut link = Link::open(&cli.control, secret(cli)?.as_deref())?;
    match &cli.command {
        Command::Top { once } => return watch::top(&mut link, cli.json, *once),
        Command::Events { count, follow } => {
            return watch::events(&mut link, cli.json, *count, *follow);
        }
        _ => {}
    }
    let words = words(&cli.command);
    let answer = link.call(&words)?;
    let wait = match &cli.command {
        Command::Slots(SlotsCommand::Move { wait, .. } | SlotsCommand::Rebalance { wait, .. }) => {
            *wait
        }
        _ => false,
    };
    if wait {
        return watch::moves(&mut link, cli.json, &answer);
    }
    render::print(&answer, cli.json);
    Ok(())
}

fn secret(cli: &Cli) -> Result<Option<String>, Trouble> {
    match &cli.secret_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Trouble::Words(format!("cannot read --secret-file {}: {error}", path.display()))
            })?;
            Ok(text.lines().next().map(|line| line.trim().to_owned()))
        }
        None => Ok(std::env::var("CORDIS_SECRET").ok()),
    }
}

/// A command as words of the admin protocol.
fn words(command: &Command) -> Vec<String> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match command {
        Command::Status => owned(&["STATUS"]),
        Command::Group(group) => match group {
            GroupCommand::Add { id } => owned(&["GROUP", "ADD", &id.to_string()]),
            GroupCommand::Del { id } => owned(&["GROUP", "DEL", &id.to_string()]),
            GroupCommand::List => owned(&["GROUP", "LIST"]),
        },
        Command::Server(server) => server_words(server),
        Command::Slots(slots) => slots_words(slots),
        Command::Proxy(proxy) => match proxy {
            ProxyCommand::Add { addr } => owned(&["PROXY", "ADD", addr]),
            ProxyCommand::Del { proxy, force: false } => owned(&["PROXY", "DEL", proxy]),
            ProxyCommand::Del { proxy, force: true } => owned(&["PROXY", "DEL", proxy, "FORCE"]),
            ProxyCommand::List => owned(&["PROXY", "LIST"]),
        },
        Command::Config(ConfigCommand::Get { name }) => owned(&["CONFIG", "GET", name]),
        Command::Config(ConfigCommand::Set { name, value }) => {
            owned(&["CONFIG", "SET", name, value])
        }
        Command::Raw { words } => words.clone(),
        Command::Top { .. } => owned(&["TOP"]),
        Command::Events { count, .. } => owned(&["EVENTS", "COUNT", &count.to_string()]),
        Command::Up(_) => Vec::new(),
    }
}

fn server_words(server: &ServerCommand) -> Vec<String> {
    let mut words: Vec<String> = vec!["SERVER".to_owned()];
    match server {
        ServerCommand::Add { group, addr, datacenter, import } => {
            words.extend(["ADD".to_owned(), group.to_string(), addr.clone()]);
            if let Some(name) = datacenter {
                words.extend(["DATACENTER".to_owned(), name.clone()]);
            }
            if *import {
                words.push("IMPORT".to_owned());
            }
        }
        ServerCommand::Del { group, addr } => {
            words.extend(["DEL".to_owned(), group.to_string(), addr.clone()]);
        }
        ServerCommand::List => words.push("LIST".to_owned()),
    }
    words
}

fn slots_words(slots: &SlotsCommand) -> Vec<String> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match slots {
        SlotsCommand::Assign { slots, to } => {
            owned(&["SLOTS", "ASSIGN", slots, "TO", &to.to_string()])
        }
        SlotsCommand::List => owned(&["SLOTS", "LIST"]),
        SlotsCommand::Move { slots, to, .. } => {
            owned(&["SLOTS", "MOVE", slots, "TO", &to.to_string()])
        }
        SlotsCommand::Moves => owned(&["MOVE", "STATUS"]),
        SlotsCommand::Rebalance { by, confirm, .. } => {
            let by = match by {
                Measure::Slots => "SLOTS",
                Measure::Keys => "KEYS",
                Measure::Memory => "MEMORY",
                Measure::Load => "LOAD",
            };
            let mut words = owned(&["SLOTS", "REBALANCE", "BY", by]);
            if *confirm {
                words.push("CONFIRM".to_owned());
            }
            words
        }
        SlotsCommand::Cancel { id: Some(id), .. } => owned(&["SLOTS", "CANCEL", &id.to_string()]),
        SlotsCommand::Cancel { id: None, slots } => {
            owned(&["SLOTS", "CANCEL", "SLOTS", slots.as_deref().unwrap_or_default()])
        }
        SlotsCommand::Pause => owned(&["SLOTS", "PAUSE"]),
        SlotsCommand::Resume => owned(&["SLOTS", "RESUME"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Vec<String> {
        let cli = Cli::try_parse_from(line.split(' ')).expect("the words are right");
        words(&cli.command)
    }

    #[test]
    fn commands_become_words_of_the_admin_protocol() {
        assert_eq!(
            parsed("cordis slots move --slots 0-511 --to 2 --wait"),
            ["SLOTS", "MOVE", "0-511", "TO", "2"]
        );
        assert_eq!(
            parsed("cordis --json server add 2 127.0.0.1:6381 --import"),
            ["SERVER", "ADD", "2", "127.0.0.1:6381", "IMPORT"]
        );
        assert_eq!(
            parsed("cordis slots rebalance --by keys --confirm"),
            ["SLOTS", "REBALANCE", "BY", "KEYS", "CONFIRM"]
        );
        assert_eq!(parsed("cordis slots cancel 7"), ["SLOTS", "CANCEL", "7"]);
    }

    #[test]
    fn wrong_words_give_one_line() {
        let error = Cli::try_parse_from(["cordis", "slots", "move", "--to", "2"])
            .expect_err("there are no slots");
        let line = one_line(&error);
        assert!(!line.contains('\n') && line.contains("--slots"), "{line}");
    }
}
