//! Both ends over real sockets on loopback, on io_uring.

#[path = "connection/suite.rs"]
mod suite;

/// Of the end that binds, and of the other.
const BACKENDS: (ringway_net::Backend, ringway_net::Backend) =
    (ringway_net::Backend::Uring, ringway_net::Backend::Uring);

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Inline;
