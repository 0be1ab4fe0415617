//! Rings in shared memory between processes of one host, right when processes die.
//!
//! This crate moves bytes; the crate `ringway` puts types and addresses on top, and is what most
//! programs want. The path of a message:
//!
//! ```text
//!   Producer::claim ── spsc::Writer::try_claim          Consumer::recv ── spsc::Reader::ready
//!        │ full? wait::block (spin, sleep, probe)            │ empty? wait::poll_first, and
//!   Claim: the caller writes in place                        │ wait::block_further (sleep, probe)
//!        │                                                   │
//!   Claim::commit ── Writer::commit ══ the ring ════════▶ Received: the caller reads in place
//!        │            (R1: header, Release)  (A1)            │
//!        └─ wait::Ringer::ring ── futex ──▶ wakes ──────────┘ drop: Reader::consume (R2 ▶ A2)
//! ```
//!
//! Where things are: `layout` is the memory ABI, `spsc` the ring, `wait` the doorbell and the patience, `courtesy`
//! when who spins yields its core, `liveness` who is alive, `fork` and `home` what a fork does to all that,
//! `segment`, `control` and `registry` the files, `recover` what a death leaves behind, `ledger` and `listing` what
//! tools are shown, `say` what standard error is told. Many to many: `mpmc` is the queue, `queue` its memory,
//! `party` who takes part.

pub mod broadcast;
mod clock;
#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod control;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod counters;
mod courtesy;
pub mod error;
pub mod fault;
#[cfg(not(loom))]
mod file;
#[cfg(not(loom))]
mod fork;
pub mod futex;
mod home;
pub mod layout;
#[cfg(not(loom))]
pub mod ledger;
#[cfg(not(loom))]
mod listener;
#[cfg(not(loom))]
mod listing;
#[cfg(not(loom))]
mod liveness;
pub mod membarrier;
pub mod memory;
pub mod mpmc;
#[cfg(not(loom))]
mod mpmc_receiver;
#[cfg(not(loom))]
mod mpmc_sender;
#[cfg(not(loom))]
mod open;
pub mod options;
pub mod overwrite;
#[cfg(not(loom))]
mod participants;
#[cfg(not(loom))]
mod party;
#[cfg(not(loom))]
mod prefetch;
#[cfg(not(loom))]
mod producer;
#[cfg(not(loom))]
mod publisher;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod recover;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod runahead;
#[cfg(not(loom))]
pub mod say;
#[cfg(not(loom))]
mod segment;
pub mod spsc;
#[cfg(not(loom))]
mod subscriber;
#[cfg(not(loom))]
mod subscription;
pub mod sync;
pub mod wait;

pub use error::{Error, ErrorKind, Fault, Lag, Peer, RecvError, SendError};
pub use mpmc::Redeliver;
pub use options::{Kind, Options, Overflow, Schema, Until, Wait};

#[cfg(not(loom))]
pub use broadcast::Laggard;
#[cfg(not(loom))]
pub use consumer::{Batch, BatchMessage, BatchRun, Consumer, Received};
#[cfg(not(loom))]
pub use copy::copy_out;
#[cfg(not(loom))]
pub use counters::Stats;
#[cfg(not(loom))]
pub use listing::{Listed, ListedEnd, channels};
#[cfg(not(loom))]
pub use mpmc_receiver::{MpmcBatch, MpmcReceived, MpmcReceiver};
#[cfg(not(loom))]
pub use mpmc_sender::{MpmcArrayClaim, MpmcClaim, MpmcSender};
#[cfg(not(loom))]
pub use open::{Receiving, Sending, receiving, sending};
#[cfg(not(loom))]
pub use party::HeldUp;
#[cfg(not(loom))]
pub use producer::{ArrayClaim, Claim, Producer};
#[cfg(not(loom))]
pub use publisher::{Copied, CopiedArray, Publisher};
#[cfg(not(loom))]
pub use recover::remove;
#[cfg(not(loom))]
pub use subscriber::{CopiedBatch, CopiedMessage, Read, ReceivedCopy, Subscriber};
