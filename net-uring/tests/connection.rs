//! Both ends over real sockets on loopback: what arrives, what is refused, what is told.

#[path = "connection/door.rs"]
mod door;
#[path = "connection/ends.rs"]
mod ends;
#[path = "connection/flow.rs"]
mod flow;
#[path = "connection/proxy.rs"]
mod proxy;
#[path = "connection/scripted.rs"]
mod scripted;
#[path = "connection/sides.rs"]
mod sides;
#[path = "connection/support.rs"]
mod support;
