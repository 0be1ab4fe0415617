//! Both ends over real sockets on loopback, the end that binds on io_uring, the other on epoll.

#[path = "connection/suite.rs"]
mod suite;

/// Of the end that binds, and of the other.
const BACKENDS: (ringway_net::Backend, ringway_net::Backend) =
    (ringway_net::Backend::Uring, ringway_net::Backend::Epoll);

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Inline;
