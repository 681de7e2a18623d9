//! `cordis`: the command line of a cluster.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cordis_control::cli::main()
}
