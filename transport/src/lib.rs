//! Messages between processes in nanoseconds, behind one send/recv API.
//!
//! ```
//! use ringway::{Describe, rkyv};
//!
//! #[derive(rkyv::Archive, rkyv::Serialize, Describe)]
//! #[rkyv(crate = ringway::rkyv)]
//! struct Tick {
//!     price: i64,
//!     quantity: u32,
//! }
//!
//! # let name = format!("front-page-{}", std::process::id());
//! # let address = format!("shm://{name}");
//! // In one process; "shm://ticks", say:
//! let mut tx = ringway::sender::<Tick>(&address)?;
//! tx.send(&Tick { price: 101_25, quantity: 7 })?;
//!
//! // In another:
//! let mut rx = ringway::receiver::<Tick>(&address)?;
//! let tick = rx.recv()?; // derefs to ArchivedTick, in place, checked
//! assert_eq!((tick.price.to_native(), tick.quantity.to_native()), (101_25, 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What happens to a message
//! [`Sender::send`] serialises it with rkyv straight into the ring that both processes have mapped,
//! and publishes it with one store. [`Receiver::recv`] finds that store, validates the bytes where
//! they lie, and lends them out; dropping the guard gives the room back. While messages flow,
//! nothing is allocated, nothing else is copied and the kernel is not called.
//!
//! # Verbs
//! | | at once or not at all | waits | waits so long |
//! |---|---|---|---|
//! | one message | [`try_send`](Sender::try_send) | [`send`](Sender::send) | [`send_timeout`](Sender::send_timeout) |
//! | keep back until [`flush`](Sender::flush) | [`try_queue`](Sender::try_queue) | [`queue`](Sender::queue) | [`queue_timeout`](Sender::queue_timeout) |
//! | many | [`try_send_batch`](Sender::try_send_batch) | [`send_batch`](Sender::send_batch) | [`send_batch_timeout`](Sender::send_batch_timeout) |
//! | bytes, in place | [`try_claim`](Sender::try_claim) | [`claim`](Sender::claim) | [`claim_timeout`](Sender::claim_timeout) |
//! | receive | [`try_recv`](Receiver::try_recv) | [`recv`](Receiver::recv) | [`recv_timeout`](Receiver::recv_timeout) |
//! | receive many | [`try_recv_batch`](Receiver::try_recv_batch) | [`recv_batch`](Receiver::recv_batch) | [`recv_batch_timeout`](Receiver::recv_batch_timeout) |
//! | receive a copy | [`try_recv_copy`](Receiver::try_recv_copy) | [`recv_copy`](Receiver::recv_copy) | [`recv_copy_timeout`](Receiver::recv_copy_timeout) |
//!
//! Messages of type `[u8]` are plain bytes; everything else derives rkyv's traits and [`Describe`],
//! and both sides are checked to mean the same fields before the first message passes.
//!
//! # Who gets a message
//! One receiver, unless the address says otherwise: with `kind=broadcast` every receiver gets every
//! message, any number of them (on one host up to 64) may come and go at any time, and `overflow` says what becomes
//! of one that is behind by a whole ring: the sender waits for it (`block`, the default), or goes on,
//! and the receiver is told exactly how much it missed (`overwrite`, [`RecvError::Lagged`]).
//!
//! Between hosts the end that binds may have many on the other side:
//!
//! - `kind=mpmc`, `side=bind` at a receiver and `side=connect` at any number of senders: it gets the messages
//!   of all, each sender's in order, the senders in turns. Nobody's end is the channel's, unless
//!   `until=last` says so.
//! - `kind=mpmc`, `side=bind` at a sender and `side=connect` at any number of receivers: each message goes to
//!   one that has room for it. What a receiver had not released when it closed or was lost goes to
//!   another, flagged ([`Received::redelivered`]).
//! - `kind=broadcast`: the sender binds, the receivers connect, and each gets what is sent while it is there.
//!   A receiver without room is waited for, and named in the time-out, or, with `overflow=overwrite`,
//!   told how many messages were left out.
//!
//! [`Receiver::peers`] and [`Sender::peers`] tell who is there, and who has come, left, lost its
//! connection or was lost.
//!
//! # Whom to trust
//! Processes of one user are one trust domain: a receiver reads messages where the sender wrote
//! them, and a sender that changes one afterwards breaks the receiver. [`Receiver::recv_copy`]
//! copies first and validates the copy. `Rc`, `Arc` and `Weak` do not belong in messages.

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

// The derive's expansion names `::ringway`, also in this crate's own tests.
extern crate self as ringway;

mod address;
mod channel;
mod cpu_latency;
mod describe;
mod elsewhere;
mod error;
mod flavor;
mod guard;
mod message;
mod options;
mod peers;
mod put;
mod remote;
pub mod watch;

pub use address::{Address, AddressError, AddressOptions, AddressProblem, Host, Scheme, SizeError};
pub use channel::{Receiver, Sender, Sent, receiver, remove, sender};
pub use describe::{Describe, Schema, SchemaWriter, VariantWriter};
pub use error::{
    BatchError, CloseError, Error, ErrorKind, Lag, NotClosed, Peer, RecvError, SendError,
};
pub use message::{Batch, Borrowed, Claim, Message, Received};
pub use options::Builder;
pub use peers::{PeerEvent, Peers};
pub use ringway_net::session::Death;
pub use ringway_net::{
    Backend, Congestion, Facts as NetSocket, Io, PeerChange, Side, Stats as NetStats,
    Trouble as NetTrouble,
};
pub use ringway_shm::{HeldUp, Kind, Overflow, Read, Redeliver, Stats, Until, Wait};
pub use rkyv;
