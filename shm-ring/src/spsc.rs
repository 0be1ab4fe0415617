//! The SPSC ring: variable-length records in one contiguous byte ring, one writer, one reader.
//!
//! A record's own first word says whether it is there, so a small message costs the reader one
//! cache-line transfer and no look at a shared tail. The writer keeps a zero word (the terminator)
//! behind its newest record at all times; that is what the reader polls.
//!
//! Everything here works on a [`RingMemory`](crate::memory::RingMemory), and is total: whatever bytes the other side wrote,
//! the result is a message, nothing, or a [`Fault`](crate::error::Fault). No waiting, no system calls, no files.
//!
//! Orderings, by label:
//! - `R1` publication: the writer's Release of a header; `A1` the reader's look at it.
//! - `R2` release: the reader's Release of its head; `A2` the look at it in `RingMemory::released`.
//! - `R3` progress: the reader's Release of `received`; `A3` a successor's look.

mod ahead;
mod reader;
pub(crate) mod sizes;
mod writer;

pub use crate::home::Foreign;
pub use reader::{Found, Reader, Run, Step};
pub use writer::{Claim, ClaimError, Publish, Writer};

/// How the records of a ring are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// What sizes of records are multiples of: 16 or 64, at most a quarter of the capacity. With 16, those of records
    /// with more than 56 bytes in them are multiples of 8, unless messages need more.
    pub record_align: u64,
    /// Where a message starts in its record: 8, or 16 for messages that need that alignment.
    pub payload_offset: u64,
}

/// Longest record in a ring of `capacity` bytes: half of it, so that a record and the padding before it
/// always fit together once the ring has drained.
pub const fn max_record(capacity: u64) -> u64 {
    capacity / 2
}
