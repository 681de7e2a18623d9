//! `cordis-control`: the control process of a cluster.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cordis_control::start::main()
}
