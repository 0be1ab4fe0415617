//! What can go wrong while something is set up, in words that tell what was tried, what was found
//! and what to type next. What ends a session is in [`crate::session::End`].

use std::io;

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{tried}: {found}. {remedy}")]
pub struct Error {
    kind: ErrorKind,
    tried: String,
    found: String,
    remedy: String,
    source: Option<io::Error>,
}

/// What sort of [`Error`] it is, for programs; people read its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The channel's name breaks the rules.
    BadName,
    /// An option has a value that is never valid.
    BadOption,
    /// The host has no such name or address.
    NoHost,
    /// The address is in use.
    InUse,
    /// The peer's host or network cannot be reached, or refuses.
    Unreachable,
    /// The peer cannot be talked to: another protocol, version, format or ring.
    Mismatch,
    /// The channel carries messages of another type.
    SchemaMismatch,
    /// The system refused.
    Permission,
    /// Too little memory, or too few descriptors.
    NoSpace,
    /// The system lacks something that is needed.
    Unsupported,
    /// Something else that the system reported.
    Io,
}

impl Error {
    /// An error from its three sentences, without full stops: what was tried, what was found, and
    /// what to type next.
    pub fn new(
        kind: ErrorKind,
        tried: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (tried, found, remedy) = (tried.into(), found.into(), remedy.into());
        Self { kind, tried, found, remedy, source: None }
    }

    /// What the system said no to, with the remedy for the usual reasons.
    pub fn io(tried: impl Into<String>, error: io::Error) -> Self {
        let (kind, remedy) = match error.raw_os_error() {
            Some(libc::EADDRINUSE) => (
                ErrorKind::InUse,
                "Look who has the port with `ss -ltnp`, or bind port 0 and ask which one it became",
            ),
            Some(libc::EADDRNOTAVAIL) => (
                ErrorKind::NoHost,
                "Bind an address of this host (`ip addr` lists them), or 0.0.0.0 for all",
            ),
            Some(libc::ECONNREFUSED) => {
                (ErrorKind::Unreachable, "Start the side that binds, or check the port")
            }
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ETIMEDOUT | libc::EHOSTDOWN) => (
                ErrorKind::Unreachable,
                "Check the address, the route (`ip route get <address>`) and the firewall between",
            ),
            Some(libc::EACCES | libc::EPERM) => (
                ErrorKind::Permission,
                "Ports below 1024 need privileges; or a firewall or seccomp profile says no",
            ),
            Some(libc::EMFILE | libc::ENFILE) => {
                (ErrorKind::NoSpace, "Raise the limit of open files (`ulimit -n`)")
            }
            Some(libc::ENOMEM | libc::ENOBUFS) => {
                (ErrorKind::NoSpace, "Free some memory, or use a smaller `capacity`")
            }
            Some(libc::ENOSYS | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
                (ErrorKind::Unsupported, "Use an address family that this kernel has")
            }
            _ => (ErrorKind::Io, "Look the error up in `man errno`"),
        };
        let found = error.to_string();
        Self { source: Some(error), ..Self::new(kind, tried, found, remedy) }
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
