//! Both ends over real sockets on loopback, on epoll: what arrives, what is refused, what is told.
//! `connection_uring` and `connection_mixed` run the same on the other backend, and on both.

#[path = "connection/scripted.rs"]
mod scripted;
#[path = "connection/suite.rs"]
mod suite;

use suite::support;

/// Of the end that binds, and of the other.
const BACKENDS: (ringway_net::Backend, ringway_net::Backend) =
    (ringway_net::Backend::Epoll, ringway_net::Backend::Epoll);

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Inline;
