//! The MPMC queue: fixed slots, any number of senders and receivers, any of whom may die at any
//! instruction.
//!
//! A claim names its owner, so that whatever a death leaves behind can be attributed, and repaired by
//! anybody, one idempotent compare-and-swap at a time. Each slot has two words, one that senders swap and
//! one that receivers swap, in arrays of their own; and a flag on the line of the message, which is what
//! receivers look at. With one word for both sides the line went back and forth twice as often, and half
//! as often again with the senders' word in the place of the flag: a waiting receiver took the line
//! between the claim and the publication.
//!
//! ```text
//!   senders' word      Nothing/Ready(l-1) ──▶ Writing(l, who, run) ──▶ Ready(l, len) or Nothing(l)
//!   receivers' word    Done(l-1) ──▶ Reading(l, who, run) ──▶ Done(l)
//!                                        │ who died            ▲
//!                                        ▼                     │
//!                                  Returned(l, n) ──▶ Again(l, who, n)
//! ```
//!
//! The flag is stored before the senders' word when a slot is settled, and says the same: `Ready` in it is
//! the publication.
//!
//! A ticket is a place in the queue: slot `ticket mod slots` in lap `ticket / slots + 1`. A claim
//! covers `run` slots and is one swap of the first one's word; the others are settled before the first
//! is, so that they are there all or none.
//!
//! What holds, and everything rests on:
//! - **Claims adjoin.** Each begins where the one before ends, on either side: whoever looks for the
//!   next begins where a claim begins, and steps over claims whole. So there is one word on which two
//!   that want the same slot meet.
//! - **A lap of a slot is over when the receivers' word says so**, and no sender's claim of the next
//!   covers it before. Hence nobody else's word changes under a claim.
//! - **Hints lag by less than a lap**: `tail` and `head` are where to begin to look. Whoever would claim
//!   half a lap beyond the hint moves it first, so that no crash and no stop leaves it further behind.
//! - **Proof of death comes after the look at the word and before the look again**: the number of a
//!   dead participant may be given to a living one at any time.
//!
//! Orderings, by label:
//! - `R21` publication: the sender's Release of `Ready`, in the flag and then in its word; `A21` the
//!   receiver's look at either.
//! - `R22` release: the receiver's Release of `Done`; `A22` the sender's look at it.
//! - `R23` return: the Release of the number of returns; `A23` the receiver's look at it.
//!
//! Everything here works on a [`SlotMemory`] and is total: whatever the others wrote, the result is a
//! claim, nothing, or a [`Fault`](crate::Fault). No waiting, no system calls, no files.

pub mod bell;
mod cursor;
pub mod memory;
mod receive;
mod repair;
mod send;
pub mod word;

pub use memory::{SlotMemory, SlotWord};
pub use receive::{Message, Receiver, TakeError};
pub use repair::{Living, Redeliver, Repaired, sweep};
pub use send::{ClaimError, Sender};
pub use word::{LEN_MAX, OWNERS, Owner, RUN_MAX};

use std::ops::Range;

use word::Lap;

/// Least slots of a queue.
pub const SLOTS_MIN: u64 = 2;
/// Most slots of a queue.
pub const SLOTS_MAX: u64 = 1 << 24;

/// Claims between two moves of a hint.
const HINT_EVERY: u64 = 16;

/// Claims of others that are stepped over before the hint is asked.
const STEPS_PER_HINT: u32 = 4;

/// Who is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The participant; `None`: nobody, the message waits to be delivered again.
    pub owner: Option<Owner>,
    /// The slot's ticket.
    pub ticket: u64,
    /// The word that says so: as long as it stays, so does the claim.
    pub word: u64,
}

/// Sizes that follow from the number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Geometry {
    mask: u64,
    shift: u32,
    /// How far beyond its hint a claim may begin, and the most slots it covers.
    reach: u64,
    /// The bits of a ticket that change when the hint is to move.
    hint_bits: u64,
}

impl Geometry {
    fn of(slots: u64) -> Self {
        debug_assert!(slots.is_power_of_two() && slots >= SLOTS_MIN);
        let reach = slots / 2;
        Self {
            mask: slots - 1,
            shift: slots.trailing_zeros(),
            reach,
            hint_bits: !(HINT_EVERY.min(reach) - 1),
        }
    }

    #[inline(always)]
    fn index(&self, ticket: u64) -> u64 {
        ticket & self.mask
    }

    #[inline(always)]
    fn lap(&self, ticket: u64) -> Lap {
        Lap::of(ticket, self.shift)
    }

    /// The slots of `len` tickets from `first` on, at most all there are, with their laps: in two pieces, of
    /// which the second is empty unless the ring's end is between.
    #[inline(always)]
    fn pieces(&self, first: u64, len: u64) -> [(Lap, Range<u64>); 2] {
        debug_assert!(len <= self.mask + 1);
        let (lap, at) = (self.lap(first), self.index(first));
        let end = (at + len).min(self.mask + 1);
        // Within the slots, whatever `len` is.
        [(lap, at..end), (lap.after(), 0..(at + len - end) & self.mask)]
    }

    /// The ticket of slot `index` in the lap that is `laps` after that of `near`.
    fn ticket(&self, index: u64, near: u64, laps: i64) -> u64 {
        let lap = (near >> self.shift).wrapping_add_signed(laps);
        lap << self.shift | index
    }

    /// The first ticket at which a claim would be too far beyond a hint.
    #[inline(always)]
    fn far_beyond(&self, hint: u64) -> u64 {
        hint + self.reach
    }

    /// Whether a claim from `first` to before `next` is one after which the hint moves.
    #[inline(always)]
    fn moves_hint(&self, first: u64, next: u64) -> bool {
        (first ^ next) & self.hint_bits != 0
    }

    /// Steps that a look for the next claim takes at most; more are taken only if others move all
    /// the time, or somebody scribbles.
    fn patience(&self) -> u64 {
        2 * self.mask + 64
    }

    /// Most slots of a claim.
    fn run_max(&self) -> u64 {
        self.reach.min(RUN_MAX)
    }
}

/// Tickets are below this in earnest. A hint beyond it was scribbled on, and is cut down to something
/// to which anything can be added; that it makes no sense then shows where its slot is looked at.
const TICKETS: u64 = 1 << 62;

/// Where a hint is.
fn look<W: SlotWord>(hint: &W) -> u64 {
    hint.load_relaxed() & (TICKETS - 1)
}

/// Moves a hint forward to `ticket`, unless it is there. Returns where it is.
fn help<W: SlotWord>(hint: &W, ticket: u64) -> u64 {
    loop {
        let seen = hint.load_relaxed();
        if seen >= ticket || hint.replace(seen, ticket).is_ok() {
            return seen.max(ticket) & (TICKETS - 1);
        }
    }
}

/// How many of these slots from the front are so; looked at four at a time, and perhaps twice.
#[inline(always)]
fn leading(slots: Range<u64>, is_so: impl Fn(u64) -> bool) -> u64 {
    let Range { start, end } = slots;
    let (mut at, mut left) = (start, end.saturating_sub(start));
    while left >= 4 && is_so(at) && is_so(at + 1) && is_so(at + 2) && is_so(at + 3) {
        (at, left) = (at + 4, left - 4);
    }
    while left > 0 && is_so(at) {
        (at, left) = (at + 1, left - 1);
    }
    at - start
}

/// After the `failures`-th swap in a row that somebody else won. Two who retry at once take the line
/// from each other; measured with two senders on two cores.
#[inline(always)]
fn back_off(failures: u32) {
    #[cfg(not(loom))]
    for _ in 0..1_u32 << failures.min(8) {
        std::hint::spin_loop();
    }
    #[cfg(loom)]
    let _ = failures;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_slots_of_the_tickets_in_order() {
        for slots in [2, 4, 8] {
            let geometry = Geometry::of(slots);
            for first in 0..3 * slots {
                for len in 0..=slots {
                    let pieces = geometry.pieces(first, len).into_iter();
                    let found: Vec<_> =
                        pieces.flat_map(|(lap, slots)| slots.map(move |at| (lap, at))).collect();
                    let tickets = first..first + len;
                    let expected: Vec<_> =
                        tickets.map(|at| (geometry.lap(at), geometry.index(at))).collect();
                    assert_eq!(found, expected, "{len} from {first} on of {slots}");
                }
            }
        }
    }
}
