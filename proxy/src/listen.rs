//! The sockets that a proxy listens on, taken before anything else runs; each failure is one line that
//! says what to do.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use cordis_engine::process::listen_patiently;
use cordis_engine::sys::socket;

use crate::config::Settings;

/// The sockets that clients connect to.
///
/// # Errors
/// One line that says what to do.
pub fn clients(settings: &Settings) -> Result<Vec<OwnedFd>, String> {
    const FLAG: &str = "--proxy-addr";
    let listen = |address| {
        let listen = || socket::listen_tcp(address, settings.tcp_backlog);
        listen_patiently(&address.to_string(), listen)
            .map_err(|error| tcp_advice(address, FLAG, &error))
    };
    resolve(&settings.proxy_addr, FLAG)?.into_iter().map(listen).collect()
}

/// The socket that administrators connect to. `flag` is what its address is given by.
///
/// # Errors
/// One line that says what to do.
pub fn admin(settings: &Settings, flag: &str) -> Result<TcpListener, String> {
    let admin = bind(&settings.admin_addr, flag)?;
    if settings.admin_auth.is_empty()
        && admin.local_addr().is_ok_and(|addr| !addr.ip().is_loopback())
    {
        tracing::warn!("no admin_auth is set: the admin port refuses all but this machine");
    }
    Ok(admin)
}

fn resolve(addr: &str, flag: &str) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = addr.rsplit_once(':').ok_or_else(|| format!("{flag}: no port in {addr}"))?;
    let port = port.parse().map_err(|_| format!("{flag}: '{port}' is no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = socket::resolve(host, port)
        .map_err(|error| format!("'{host}' is no address ({error}): correct {flag}"))?;
    if found.is_empty() {
        Err(format!("'{host}' has no address: correct {flag}"))
    } else {
        Ok(found)
    }
}

fn bind(addr: &str, flag: &str) -> Result<TcpListener, String> {
    let addresses = resolve(addr, flag)?;
    listen_patiently(addr, || TcpListener::bind(&addresses[..]))
        .map_err(|error| tcp_advice(addresses[0], flag, &error))
}

fn tcp_advice(address: SocketAddr, flag: &str, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} of {} is in use: stop what listens there, or choose another with {flag}",
            address.ip()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} may not be used ({error}): choose one above 1023 with {flag}, or grant \
             CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {}: correct {flag}", address.ip())
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let addr = taken.local_addr().expect("it is bound").to_string();
        let error = bind(&addr, "--admin-addr").expect_err("it is taken");
        assert!(error.contains("is in use") && error.contains("--admin-addr"), "{error}");
        assert!(resolve("nonsense", "--proxy-addr").expect_err("no port").contains("no port"));
        assert_eq!(resolve("[::1]:7", "--proxy-addr").expect("an address").len(), 1);
    }
}
