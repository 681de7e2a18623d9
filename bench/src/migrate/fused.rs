//! CPU time per request of a server that hosts a proxy, by the port of the proxy within, beside that
//! of a server that hosts none. What the first costs more is the price of the proxy.

use super::cost::{COMMANDS, Row, drive};
use super::{Bench, KEYS, VALUE_BYTES};
use crate::cluster::{map, set_map};
use crate::compare::Line;
use crate::fault::Fault;
use crate::link::Target;
use crate::process::{Launch, Server, free_port};
use crate::report;

/// Pipeline, and requests before `--scale`.
const DEPTHS: [(u64, u64); 3] = [(1, 400_000), (16, 2_000_000), (100, 4_000_000)];
/// Of the cost without a proxy.
const BUDGET: f64 = 1.10;

/// Measures both servers in turn, row by row. `peer` is the one without a proxy.
///
/// # Errors
/// A program that does not start. A load that fails is a note of its row.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<Line>, Fault> {
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for (pipeline, requests) in DEPTHS {
        for (name, command) in COMMANDS {
            rows.push(Row { command, pipeline, requests: bench.requests(requests) });
            lines.push(Line::new(&format!("{name} P{pipeline}"), Some(BUDGET)));
        }
    }
    for number in 0..bench.args.repeats {
        report::progress(&format!("fused, repeat {} of {}", number + 1, bench.args.repeats));
        let plain = Server::start(&launch(bench))?;
        let (fused, within) = start(bench)?;
        bench.fill(plain.target(), KEYS, VALUE_BYTES)?;
        bench.fill(within.clone(), KEYS, VALUE_BYTES)?;
        for (row, line) in rows.iter().zip(&mut lines) {
            let measure = |target: Target, server: &Server| {
                let sample = drive(bench, target, row, || server.cpu());
                sample.map_err(|fault| fault.to_string())
            };
            // They change places, so that a drift of the machine hits both.
            if number % 2 == 0 {
                line.peer.take(measure(plain.target(), &plain));
                line.cordis.take(measure(within.clone(), &fused));
            } else {
                line.cordis.take(measure(within.clone(), &fused));
                line.peer.take(measure(plain.target(), &plain));
            }
        }
    }
    lines.iter_mut().for_each(Line::sum_up);
    Ok(lines)
}

/// A server of Cordis on the processors where proxies are measured.
fn launch(bench: &Bench<'_>) -> Launch {
    Launch { cpus: bench.proxy_cpus.clone(), ..bench.backends[1].clone() }
}

/// A server that serves all slots, and where its proxy's clients connect.
fn start(bench: &Bench<'_>) -> Result<(Server, Target), Fault> {
    let (port, admin_port) = (free_port()?, free_port()?);
    let mut launch = launch(bench);
    let flags = [
        ("--proxy-addr", format!("127.0.0.1:{port}")),
        ("--proxy-admin-addr", format!("127.0.0.1:{admin_port}")),
        ("--proxy-product-name", crate::cluster::PRODUCT.to_owned()),
    ];
    launch.arguments.extend(crate::cluster::flags(&flags));
    let server = Server::start(&launch)?;
    set_map(&Target::loopback(admin_port), &map(&[server.port()], "cordis"))?;
    Ok((server, Target::loopback(port)))
}
