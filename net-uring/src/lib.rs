//! Sessions over sockets between hosts: every message once and in order, across broken connections.
//!
//! This crate moves bytes; the crate `ringway` puts types and addresses on top, and is what most
//! programs want. The path of a message:
//!
//! ```text
//!   the caller writes a body into the send ring          the caller reads it in the receive ring
//!        │                                                   ▲
//!   Claim::commit: header, position                      Session::handle_received: checked, in place
//!        │                                                   │
//!   Session::handle_committed: up to there                   │
//!        │                                                   │
//!   Session::poll_transmit ── backend ══ a byte stream ══▶ backend ── into the ring's free tail
//!        ◀────────── ack: released by the application ──────┘
//! ```
//!
//! Where things are: `frame` is the layout on the wire, `session` the protocol, which does no I/O and reads no
//! clock; docs/WIRE.md has both in words. `connection` drives a session: `mirror` is the ring, `backend` moves the
//! bytes, `listener` is the door, `socket` and `fork` what the system needs. `gauge` is where an end shows its
//! counters, `say` what standard error is told. `sender` and `receiver` are the two ends, and `link` what drives
//! the connection for them: their own calls, or a `thread`.

pub mod backend;
mod clock;
pub mod connection;
pub mod crowd;
pub mod error;
pub mod fork;
pub mod frame;
pub mod gauge;
pub mod link;
pub mod listener;
pub mod mirror;
pub mod options;
pub mod receiver;
mod say;
pub mod sender;
pub mod session;
pub mod socket;
pub mod stats;
pub mod sync;
pub mod thread;

pub use connection::{Peer, Trouble};
pub use crowd::{PeerChange, PeerEvent, Peers};
pub use error::{Error, ErrorKind};
pub use gauge::{Gauge, Shown};
pub use options::{Backend, Io, Kind, Options, Overflow, Reins, Side, Wait};
pub use receiver::{Batch, BatchMessage, NetReceiver, Received, RecvError};
pub use sender::{Claim, CloseError, NetSender, NotClosed, SendError};
pub use socket::{Congestion, Facts, Tuning};
pub use stats::Stats;
