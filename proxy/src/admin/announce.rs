//! A proxy makes itself known to control: it asks to be added, again and again until control has
//! answered, and then control does the rest.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::Admin;

/// How long a try may take.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// Pauses between rounds over all addresses: doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Starts a thread that announces the proxy to the control processes of its settings.
///
/// # Errors
/// There is no thread to be had.
pub fn announce(admin: Arc<Admin>) -> std::io::Result<()> {
    if admin.settings.control.is_empty() {
        return Ok(());
    }
    let run = move || {
        let mut pause = PAUSE_MIN;
        loop {
            for control in &admin.settings.control {
                match ask(control, &admin) {
                    Ok(()) => {
                        tracing::info!(control, "control knows this proxy");
                        return;
                    }
                    Err(why) => tracing::warn!(control, why, "control was not reached"),
                }
            }
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    std::thread::Builder::new().name("announce".to_owned()).spawn(run).map(drop)
}

/// One try: connect, log in, ask to be added.
fn ask(control: &str, admin: &Admin) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let addr = control.to_socket_addrs().map_err(text)?.next().ok_or("it has no address")?;
    let stream = TcpStream::connect_timeout(&addr, TRY_LIMIT).map_err(text)?;
    stream.set_read_timeout(Some(TRY_LIMIT)).map_err(text)?;
    stream.set_write_timeout(Some(TRY_LIMIT)).map_err(text)?;
    let own = stream.local_addr().map_err(text)?;
    let mut replies = BufReader::new(&stream);
    if !admin.settings.admin_auth.is_empty() {
        exchange(&stream, &mut replies, &[b"AUTH", admin.settings.admin_auth.as_bytes()])?;
    }
    let shown = reachable(&admin.admin_addr, own);
    exchange(&stream, &mut replies, &[b"PROXY", b"ADD", shown.as_bytes()])
}

/// An address that listens everywhere is reached where this connection comes from.
pub(super) fn reachable(addr: &str, own: SocketAddr) -> String {
    match addr.parse::<SocketAddr>() {
        Ok(addr) if addr.ip().is_unspecified() => {
            SocketAddr::new(own.ip(), addr.port()).to_string()
        }
        _ => addr.to_owned(),
    }
}

/// Sends a call and looks at the first line of its reply: more is not of interest, since nothing but
/// a login is followed by another call.
fn exchange(
    mut stream: &TcpStream,
    replies: &mut BufReader<&TcpStream>,
    words: &[&[u8]],
) -> Result<(), String> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    stream.write_all(&bytes).map_err(|error| error.to_string())?;
    let mut line = Vec::new();
    let limit = std::io::Read::take(&mut *replies, 4096).read_until(b'\n', &mut line);
    limit.map_err(|error| error.to_string())?;
    let line = String::from_utf8_lossy(&line);
    match line.trim_end() {
        "" => Err("it closed the connection".to_owned()),
        error if error.starts_with('-') => Err(error[1..].to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn address_for_others_is_not_unspecified() {
        let own = "10.0.0.7:4242".parse().expect("an address");
        assert_eq!(reachable("0.0.0.0:11080", own), "10.0.0.7:11080");
        assert_eq!(reachable("127.0.0.1:11080", own), "127.0.0.1:11080");
        assert_eq!(reachable("proxy-1:11080", own), "proxy-1:11080");
    }
}
