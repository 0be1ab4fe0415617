//! Both ends over real sockets on loopback, on io_uring.

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
    (ringway_net::Backend::Uring, ringway_net::Backend::Uring);

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Inline;
