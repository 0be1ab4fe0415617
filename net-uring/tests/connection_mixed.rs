//! Both ends over real sockets on loopback, the end that binds on io_uring, the other on epoll.

#[path = "connection/door.rs"]
mod door;
#[path = "connection/ends.rs"]
mod ends;
#[path = "connection/flow.rs"]
mod flow;
#[path = "connection/proxy.rs"]
mod proxy;
#[path = "connection/sides.rs"]
mod sides;
#[path = "connection/support.rs"]
mod support;

/// Of the end that binds, and of the other.
const BACKENDS: (ringway_net::Backend, ringway_net::Backend) =
    (ringway_net::Backend::Uring, ringway_net::Backend::Epoll);

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Inline;
