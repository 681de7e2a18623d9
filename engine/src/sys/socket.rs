//! Sockets: listening, options of a connection, addresses as Redis prints them.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl std::fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl RawAddress {
    fn zeroed() -> Self {
        // SAFETY: `sockaddr_storage` is plain integers, for which zero is a valid value.
        let storage = unsafe { MaybeUninit::zeroed().assume_init() };
        Self { storage, len: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    /// Stores an address of one of the concrete types.
    fn of<T>(address: T) -> Self {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        let mut raw = Self::zeroed();
        // SAFETY: the storage is large enough (asserted) and aligned for every socket address;
        // nothing else refers to it.
        unsafe { (&raw mut raw.storage).cast::<T>().write(address) };
        raw.len = size_of::<T>() as libc::socklen_t;
        raw
    }

    /// Reads it as one of the concrete types, all of which are plain integers.
    ///
    /// # Safety
    /// `T` is a `sockaddr` type of libc.
    unsafe fn read<T: Copy>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        // SAFETY: the storage is initialised, large enough and aligned, and any bits are a valid
        // `T`, as the caller promises.
        unsafe { (&raw const self.storage).cast::<T>().read() }
    }

    /// Where it is.
    pub fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    /// Its length in bytes.
    pub fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// An internet address.
    pub fn of_ip(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: `sockaddr_in` is plain integers, for which zero is a valid value.
                let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                Self::of(raw)
            }
            SocketAddr::V6(v6) => {
                // SAFETY: `sockaddr_in6` is plain integers, for which zero is a valid value.
                let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                Self::of(raw)
            }
        }
    }

    fn of_path(path: &Path) -> io::Result<Self> {
        // SAFETY: `sockaddr_un` is plain integers, for which zero is a valid value.
        let mut raw: libc::sockaddr_un = unsafe { mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        // One byte stays for the zero that ends it.
        if bytes.len() >= raw.sun_path.len() || bytes.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a path may have at most {} bytes", raw.sun_path.len() - 1),
            ));
        }
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        Ok(Self::of(raw))
    }

    /// `ip:port`, `[ip]:port`, or `path:0`.
    fn text(&self) -> String {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: a `sockaddr_in` is a `sockaddr` type.
                let raw = unsafe { self.read::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
                format!("{ip}:{}", u16::from_be(raw.sin_port))
            }
            libc::AF_INET6 => {
                // SAFETY: a `sockaddr_in6` is a `sockaddr` type.
                let raw = unsafe { self.read::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                format!("[{ip}]:{}", u16::from_be(raw.sin6_port))
            }
            libc::AF_UNIX => {
                // SAFETY: a `sockaddr_un` is a `sockaddr` type.
                let raw = unsafe { self.read::<libc::sockaddr_un>() };
                let bytes: Vec<u8> =
                    raw.sun_path.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
                format!("{}:0", String::from_utf8_lossy(&bytes))
            }
            _ => "?:0".to_owned(),
        }
    }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_stream_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes plain integers.
    checked(unsafe { libc::socket(family, kind, 0) }).map(own)
}

fn set_option(
    fd: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `value` is readable memory of `size` bytes for as long as the call takes.
    let result = unsafe { libc::setsockopt(raw, level, name, (&raw const value).cast(), size) };
    checked(result).map(|_| ())
}

fn bind(fd: &OwnedFd, address: &RawAddress) -> io::Result<()> {
    // SAFETY: the address is initialised memory of the length given.
    checked(unsafe { libc::bind(fd.as_raw_fd(), address.pointer(), address.len) }).map(|_| ())
}

fn listen(fd: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: the call takes plain integers.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(|_| ())
}

/// A TCP socket that listens. IPv6 sockets take IPv6 only, so that `*` and `::*` can be two.
///
/// It blocks: the ring arms a poll for an accept that finds nobody, which the kernel refuses to do
/// for a socket that was told not to wait.
///
/// # Errors
/// What the kernel says: the address is in use, or not of this host.
pub fn listen_tcp(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let fd = new_stream_socket(family)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    bind(&fd, &RawAddress::of_ip(address))?;
    listen(&fd, backlog)?;
    Ok(fd)
}

/// A TCP socket to connect to `address` with.
///
/// # Errors
/// What the kernel says: no more descriptors.
pub fn dialler(address: SocketAddr) -> io::Result<OwnedFd> {
    new_stream_socket(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
}

/// A unix socket that listens at `path`, in the place of a socket that a dead server left there.
/// `permissions` of 0 leaves what the umask gives.
///
/// # Errors
/// What the kernel says; that somebody listens there, or that something else is there.
pub fn listen_unix(path: &Path, permissions: u32, backlog: i32) -> io::Result<OwnedFd> {
    remove_dead_socket(path)?;
    let fd = new_stream_socket(libc::AF_UNIX)?;
    bind(&fd, &RawAddress::of_path(path)?)?;
    if permissions != 0 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(permissions))?;
    }
    listen(&fd, backlog)?;
    Ok(fd)
}

fn remove_dead_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if !meta.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

/// The addresses that a word of `bind` stands for: `*` is all of IPv4, `::*` and `::` all of IPv6.
///
/// # Errors
/// That it is neither an IP address nor a host name.
pub fn resolve(word: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    let ip: Option<IpAddr> = match word {
        "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        "::*" => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => word.parse().ok(),
    };
    match ip {
        Some(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        None => Ok((word, port).to_socket_addrs()?.collect()),
    }
}

/// Takes charge of a descriptor that the kernel has just handed out, as a ring does in the
/// completion of an accept. Nobody else may close it.
pub fn own(fd: RawFd) -> OwnedFd {
    invariant!(fd >= 0, "the kernel handed out descriptor {fd}");
    // SAFETY: the descriptor is open, and by this function's contract the caller is the only one
    // that knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets the options of a connection: probes after `keepalive_seconds` of silence (0: none), and
/// small packets sent at once if `nodelay`. Options that a socket does not have are skipped.
pub fn configure(fd: &impl AsFd, keepalive_seconds: u32, nodelay: bool) {
    if nodelay {
        // Failure means that the peer has gone already, which the next receive will tell.
        let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    }
    if keepalive_seconds == 0 || set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1).is_err() {
        return;
    }
    let idle = i32::try_from(keepalive_seconds).unwrap_or(i32::MAX);
    // Redis: three probes within another such time, so a dead peer is noticed after twice that.
    let options = [
        (libc::TCP_KEEPIDLE, idle),
        (libc::TCP_KEEPINTVL, (idle / 3).max(1)),
        (libc::TCP_KEEPCNT, 3),
    ];
    for (name, value) in options {
        // The kernel caps what it takes; its default is no harm. A unix socket has none of these.
        let _ = set_option(fd, libc::IPPROTO_TCP, name, value);
    }
}

/// The processor that handled the connection's last packet; none if the kernel does not say.
pub fn incoming_cpu(fd: &impl AsFd) -> Option<usize> {
    let mut cpu: libc::c_int = -1;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `cpu` is writable memory of `size` bytes, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_INCOMING_CPU,
            (&raw mut cpu).cast(),
            &raw mut size,
        )
    };
    checked(result).ok().and_then(|_| usize::try_from(cpu).ok())
}

type NameCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name_of(fd: &impl AsFd, call: NameCall) -> RawAddress {
    let mut address = RawAddress::zeroed();
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the storage is writable memory of `len` bytes, and both calls take these arguments.
    let result = unsafe { call(raw, (&raw mut address.storage).cast(), &mut address.len) };
    if result != 0 {
        // The peer has gone; an address of no family prints as `?:0`.
        return RawAddress::zeroed();
    }
    address
}

/// Our address of a connection: `127.0.0.1:6379`, `[::1]:6379`, or `/path:0` for a unix socket.
pub fn local_name(fd: &impl AsFd) -> String {
    name_of(fd, libc::getsockname).text()
}

/// The peer's address of a connection, in the same form. A client of a unix socket has no address
/// of its own and is shown with the socket's.
pub fn peer_name(fd: &impl AsFd) -> String {
    let peer = name_of(fd, libc::getpeername);
    if i32::from(peer.storage.ss_family) == libc::AF_UNIX { local_name(fd) } else { peer.text() }
}

/// Sends what fits into the socket's buffer at once, and gives up on the rest: for a last word to
/// a client that is being refused.
pub fn send_once(fd: &impl AsFd, bytes: &[u8]) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `bytes` is readable memory of the length given for as long as the call takes. What
    // was not sent is not missed.
    unsafe { libc::send(raw, bytes.as_ptr().cast(), bytes.len(), flags) };
}

/// Ends a connection in both directions; pending receives and sends complete.
pub fn shutdown(fd: &impl AsFd) {
    // SAFETY: the call takes plain integers. It fails only if the peer has ended it before.
    unsafe { libc::shutdown(fd.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn loopback(ip: &str) -> OwnedFd {
        let ip: IpAddr = ip.parse().expect("the test gives an address");
        listen_tcp(SocketAddr::new(ip, 0), 16).expect("loopback can be bound")
    }

    #[test]
    fn listen_tcp_takes_connections_and_names_both_ends() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = TcpListener::from(loopback(ip));
            let address = listener.local_addr().expect("it is bound");
            let mut client = TcpStream::connect(address).expect("it listens");
            let (accepted, peer) = listener.accept().expect("somebody connected");
            configure(&accepted, 300, true);
            assert!(accepted.nodelay().expect("it is a TCP socket"));
            assert_eq!(peer_name(&accepted), peer.to_string());
            assert_eq!(local_name(&accepted), address.to_string());
            send_once(&accepted, b"bye");
            shutdown(&accepted);
            let mut text = String::new();
            client.read_to_string(&mut text).expect("the peer ended it");
            assert_eq!(text, "bye");
        }
    }

    #[test]
    fn listen_tcp_on_a_port_in_use_is_refused() {
        let fd = loopback("127.0.0.1");
        let address = local_name(&fd).parse().expect("it prints as an address");
        let error = listen_tcp(address, 16).expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn listener_serves_a_multishot_accept_of_a_ring() {
        let fd = loopback("127.0.0.1");
        let mut ring = io_uring::IoUring::new(8).expect("tests run where io_uring is allowed");
        let accept =
            io_uring::opcode::AcceptMulti::new(io_uring::types::Fd(fd.as_raw_fd())).build();
        // SAFETY: the entry refers to no memory, and `fd` outlives the ring's use of it.
        unsafe { ring.submission().push(&accept) }.expect("the ring is empty");
        ring.submit().expect("the entry is valid");
        let address: SocketAddr = local_name(&fd).parse().expect("it prints as an address");
        let client = TcpStream::connect(address).expect("it listens");
        ring.submit_and_wait(1).expect("somebody connected");
        let event = ring.completion().next().expect("one event was waited for");
        assert!(event.result() >= 0, "errno {}", -event.result());
        let accepted = own(event.result());
        let want = client.local_addr().expect("it is connected").to_string();
        assert_eq!(peer_name(&accepted), want);
    }

    #[test]
    fn listen_unix_replaces_dead_sockets_only() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("cordis-socket-test-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let first = UnixListener::from(listen_unix(&path, 0o600, 16).expect("the path is free"));
        let mode = std::fs::metadata(&path).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let client = UnixStream::connect(&path).expect("it listens");
        let (accepted, _) = first.accept().expect("somebody connected");
        configure(&accepted, 300, false);
        let shown = format!("{}:0", path.display());
        assert_eq!((local_name(&accepted), peer_name(&accepted)), (shown.clone(), shown));
        let error = listen_unix(&path, 0, 16).expect_err("somebody listens there");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop((first, accepted, client));
        drop(listen_unix(&path, 0, 16).expect("nobody listens there any more"));
        std::fs::remove_file(&path).expect("it was made again");
        std::fs::write(&path, "data").expect("the directory is writable");
        assert!(listen_unix(&path, 0, 16).is_err());
        std::fs::remove_file(&path).expect("it is still there");
    }

    #[test]
    fn listen_unix_with_an_endless_path_is_refused() {
        let error = listen_unix(Path::new(&"x".repeat(108)), 0, 16).expect_err("too long");
        assert!(error.to_string().contains("107 bytes"));
    }

    #[test]
    fn resolve_knows_wildcards_and_names() {
        let text = |word| resolve(word, 1).map(|found| found[0].to_string()).ok();
        assert_eq!(text("*").as_deref(), Some("0.0.0.0:1"));
        assert_eq!(text("::*").as_deref(), Some("[::]:1"));
        assert_eq!(text("::1").as_deref(), Some("[::1]:1"));
        assert_eq!(text("10.0.0.7").as_deref(), Some("10.0.0.7:1"));
        assert!(resolve("localhost", 1).is_ok_and(|found| !found.is_empty()));
    }
}
