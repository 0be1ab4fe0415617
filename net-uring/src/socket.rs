//! Sockets as the rest wants them: non-blocking, without Nagle, tuned, closed in forked children.
//! Resolving, binding, accepting, connecting; no protocol.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::error::{Error, ErrorKind};
use crate::fork::OwnSocket;

/// Connections that the kernel keeps for a binder that is busy elsewhere.
const BACKLOG: i32 = 1024;

/// A host that vanished is found after 10 s of silence and 4 unanswered probes, 5 s apart. The
/// kernel of a process that is merely stopped or busy answers for it.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 4;

/// Longest name of a congestion control, with its zero (`TCP_CA_NAME_MAX`).
const CONGESTION_LEN: usize = 16;

/// The name of a congestion control, such as `cubic` or `bbr`: 1 to 15 of `a-z 0-9 _ -`. Whether the
/// system has it shows when a socket is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Congestion {
    /// Zero-padded.
    name: [u8; CONGESTION_LEN],
}

impl Congestion {
    /// What the kernel says.
    fn of(name: &[u8]) -> Self {
        let len = name.len().min(CONGESTION_LEN);
        let mut padded = [0; CONGESTION_LEN];
        padded[..len].copy_from_slice(&name[..len]);
        Self { name: padded }
    }

    /// The name.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(CONGESTION_LEN);
        str::from_utf8(&self.name[..end]).unwrap_or("?")
    }
}

impl fmt::Debug for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name())
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no name of a congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to 15 of a-z 0-9 _ -")]
pub struct NoCongestion;

impl FromStr for Congestion {
    type Err = NoCongestion;

    fn from_str(text: &str) -> Result<Self, NoCongestion> {
        let is_legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        };
        let fits = (1..CONGESTION_LEN).contains(&text.len());
        if fits && text.bytes().all(is_legal) {
            Ok(Self::of(text.as_bytes()))
        } else {
            Err(NoCongestion)
        }
    }
}

/// How sockets are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Congestion control. `None`: cubic, or reno where that is not allowed, because a default of
    /// bbr costs up to half the speed between near hosts.
    pub congestion: Option<Congestion>,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`). `None`: the kernel adapts it.
    pub send_buffer: Option<usize>,
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`). `None`: the kernel adapts it.
    pub recv_buffer: Option<usize>,
}

/// How a socket came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Congestion control.
    pub congestion: Congestion,
    /// Bytes of the kernel's send buffer, as the kernel counts (twice what was asked for).
    pub send_buffer: usize,
    /// Bytes of the kernel's receive buffer, likewise.
    pub recv_buffer: usize,
    /// Whether small segments leave at once.
    pub nodelay: bool,
}

impl Facts {
    /// Asks the kernel.
    pub fn of(socket: &impl AsFd) -> Self {
        let socket = SockRef::from(socket);
        Self {
            congestion: Congestion::of(&socket.tcp_congestion().unwrap_or_default()),
            send_buffer: socket.send_buffer_size().unwrap_or(0),
            recv_buffer: socket.recv_buffer_size().unwrap_or(0),
            nodelay: socket.tcp_nodelay().unwrap_or(false),
        }
    }
}

/// Whether sockets can be set up so: what can't be had is refused when an end is opened, not with every
/// connection that then would not come about.
///
/// # Errors
/// [`ErrorKind::BadOption`], with what can be had; lack of descriptors.
pub(crate) fn check(tuning: &Tuning) -> Result<(), Error> {
    for (option, bytes) in
        [("send_buffer", tuning.send_buffer), ("recv_buffer", tuning.recv_buffer)]
    {
        if bytes.is_some_and(|bytes| libc::c_int::try_from(bytes).is_err()) {
            return Err(Error::new(
                ErrorKind::BadOption,
                format!("setting {option}"),
                "it is 2 GiB or more",
                "Use a smaller one; a few times the bytes on their way is enough",
            ));
        }
    }
    let Some(congestion) = &tuning.congestion else { return Ok(()) };
    let set = |socket: Socket| socket.set_tcp_congestion(congestion.name().as_bytes());
    let result = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)))
        .and_then(set);
    let Err(error) = result else { return Ok(()) };
    let tried = format!("setting congestion={congestion}");
    let list = |kind: &str| {
        let path = format!("/proc/sys/net/ipv4/tcp_{kind}_congestion_control");
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    match error.raw_os_error() {
        Some(libc::ENOENT) => Err(Error::new(
            ErrorKind::BadOption,
            tried,
            format!("this system has {}", list("available")),
            format!("Use one of those, or type `modprobe tcp_{congestion}` as root"),
        )),
        Some(libc::EPERM) => Err(Error::new(
            ErrorKind::Permission,
            tried,
            format!("who is not root may use {}", list("allowed")),
            format!(
                "Use one of those, or type `sysctl -w net.ipv4.tcp_allowed_congestion_control=\"{} \
                 {congestion}\"` as root",
                list("allowed")
            ),
        )),
        _ => Err(Error::io(tried, error)),
    }
}

/// The address that a host is in digits, with or without brackets.
pub fn in_digits(host: &str) -> Option<IpAddr> {
    bare(host).parse().ok()
}

/// All addresses of a host. May wait for a name server; addresses in digits need none.
///
/// # Errors
/// [`ErrorKind::NoHost`].
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Some(ip) = in_digits(host) {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let bare = bare(host);
    let no_host = |found: String| {
        Error::new(
            ErrorKind::NoHost,
            format!("resolving {host:?}"),
            found,
            format!("Check the name with `getent hosts {bare}`, or write the address in digits"),
        )
    };
    match (bare, port).to_socket_addrs() {
        Ok(addresses) => {
            let mut unique: Vec<SocketAddr> = Vec::new();
            for address in addresses {
                if !unique.contains(&address) {
                    unique.push(address);
                }
            }
            if unique.is_empty() { Err(no_host("it has no address".into())) } else { Ok(unique) }
        }
        Err(error) => Err(no_host(error.to_string())),
    }
}

/// A socket that listens at `address`.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL` (no address of this host), `EACCES`, `EMFILE` and the like.
pub fn bind(address: SocketAddr, tuning: &Tuning) -> io::Result<OwnSocket> {
    let socket = new(address, tuning)?;
    let raw = SockRef::from(&socket);
    // Else a binder could not come back for a minute after its connections ended.
    raw.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] takes IPv4 as well.
        raw.set_only_v6(!address.ip().is_unspecified())?;
    }
    raw.bind(&address.into())?;
    raw.listen(BACKLOG)?;
    Ok(socket)
}

/// Where a socket is bound.
///
/// # Errors
/// Whatever the system says.
pub fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    SockRef::from(socket).local_addr()?.as_socket().ok_or_else(no_internet_address)
}

/// A connection that has come in, if one has.
///
/// # Errors
/// Of this side, such as `EMFILE`. What went wrong with a connection before it was accepted is that
/// connection's business, and the next one is looked at.
pub fn accept(
    listener: &OwnSocket,
    tuning: &Tuning,
) -> io::Result<Option<(OwnSocket, SocketAddr)>> {
    let mut from = None;
    loop {
        let accepted = OwnSocket::open(|| {
            let (socket, address) = SockRef::from(listener).accept()?;
            from = address.as_socket();
            io::Result::Ok(OwnedFd::from(socket))
        });
        match accepted {
            Ok(socket) => {
                tune(&socket, tuning)?;
                return Ok(Some((socket, from.ok_or_else(no_internet_address)?)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                    return Err(error);
                }
                Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                    return Err(error);
                }
                // ECONNABORTED, EINTR, EPROTO, and whatever the network says of one connection.
                _ => {}
            },
        }
    }
}

/// Begins to connect. Ask [`connected`] whether it has come about.
///
/// # Errors
/// `ENETUNREACH`, `ECONNREFUSED` and the like, if that is known at once.
pub fn connect(address: SocketAddr, tuning: &Tuning) -> io::Result<OwnSocket> {
    let socket = new(address, tuning)?;
    match SockRef::from(&socket).connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Whether a connection that was begun stands; false while nobody knows.
///
/// # Errors
/// Why it does not and never will.
pub fn connected(socket: &impl AsFd) -> io::Result<bool> {
    let raw = SockRef::from(socket);
    if let Some(error) = raw.take_error()? {
        return Err(error);
    }
    let peer = match raw.peer_addr() {
        Ok(peer) => peer.as_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
        Err(error) => return Err(error),
    };
    // Where nobody listens at a port of the range that the kernel takes from for connecting, it may
    // choose that very port, and then the connection is with itself.
    if peer == raw.local_addr()?.as_socket() {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(true)
}

/// Bytes that were sent and that the peer's host has not acknowledged.
pub fn unacknowledged(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: an open socket, and a live integer to write to.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Says that nothing more will be sent. Fails only where there is no connection any more.
pub fn shutdown_write(socket: &impl AsFd) {
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
}

/// Without the brackets that an IPv6 address has before a port.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn new(address: SocketAddr, tuning: &Tuning) -> io::Result<OwnSocket> {
    let domain = Domain::for_address(address);
    let socket = OwnSocket::open(|| {
        Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP)).map(OwnedFd::from)
    })?;
    // Before it connects or listens: the window's scale is decided then.
    let raw = SockRef::from(&socket);
    if let Some(bytes) = tuning.send_buffer {
        raw.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = tuning.recv_buffer {
        raw.set_recv_buffer_size(bytes)?;
    }
    tune(&socket, tuning)?;
    Ok(socket)
}

fn tune(socket: &OwnSocket, tuning: &Tuning) -> io::Result<()> {
    let raw = SockRef::from(socket);
    raw.set_nonblocking(true)?;
    raw.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    raw.set_tcp_keepalive(&keepalive)?;
    match &tuning.congestion {
        Some(congestion) => raw.set_tcp_congestion(congestion.name().as_bytes())?,
        // Whether either is allowed depends on privileges; the stats tell what it became.
        None => {
            let _ = raw.set_tcp_congestion(b"cubic").or_else(|_| raw.set_tcp_congestion(b"reno"));
        }
    }
    Ok(())
}

fn no_internet_address() -> io::Error {
    io::Error::from_raw_os_error(libc::EAFNOSUPPORT)
}
