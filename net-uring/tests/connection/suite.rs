//! What is shown of both ends on any backend and with any io mode. The crate says which: `BACKENDS`, of the end
//! that binds and of the other, and `IO`, who moves the bytes.

#[path = "door.rs"]
mod door;
#[path = "ends.rs"]
mod ends;
#[path = "flow.rs"]
mod flow;
#[path = "proxy.rs"]
mod proxy;
#[path = "sides.rs"]
mod sides;
#[path = "support.rs"]
pub mod support;
