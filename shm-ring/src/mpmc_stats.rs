//! What an MPMC channel has done so far: the counters that each participant keeps in its place, summed
//! up.

use crate::layout::{QueuePage, SeatCounters};
use crate::sync::Word;

/// Counters of an MPMC channel, over all who take part in it or did, since it was made. Each is exact for
/// the caller's own part and up to a moment old for the others'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MpmcStats {
    /// Messages sent.
    pub sent: u64,
    /// Messages received and released.
    pub received: u64,
    /// Payload bytes sent.
    pub bytes: u64,
    /// Messages sent and neither received yet nor dropped.
    pub depth: u64,
    /// Of those received: may have been seen before, by a receiver that died.
    pub redelivered: u64,
    /// Messages of receivers that died, which came back.
    pub returned: u64,
    /// Messages that were dropped with receivers that died. Where a process was killed while it counted,
    /// one too many.
    pub dropped: u64,
    /// Claims of senders that died, which were given up. None of them was a message.
    pub given_up: u64,
    /// Times a sender found no room.
    pub full_waits: u64,
    /// Times somebody went to sleep.
    pub parks: u64,
    /// Times somebody woke another.
    pub wakes: u64,
}

impl MpmcStats {
    pub(crate) fn read(page: &QueuePage) -> Self {
        let sum = |counter: fn(&SeatCounters) -> &Word| {
            page.seats.iter().fold(0_u64, |sum, seat| {
                sum.wrapping_add(counter(&seat.counters).load_acquire())
            })
        };
        // Received first: what was received was sent before.
        let received = sum(|counters| &counters.received);
        let dropped = page.news.dropped.load_relaxed();
        let sent = sum(|counters| &counters.sent);
        Self {
            sent,
            received,
            bytes: sum(|counters| &counters.bytes),
            depth: sent.saturating_sub(received).saturating_sub(dropped),
            redelivered: sum(|counters| &counters.redelivered),
            returned: page.news.returned.load_relaxed(),
            dropped,
            given_up: page.news.given_up.load_relaxed(),
            full_waits: sum(|counters| &counters.full_waits),
            parks: sum(|counters| &counters.parks),
            wakes: sum(|counters| &counters.wakes),
        }
    }
}
