//! What a channel has done so far: a snapshot of the counters that both sides keep in the segment.
//!
//! Each counter has one writer and is a plain word, so a snapshot is exact for the caller's own
//! side and up to a moment old for the other.

use crate::broadcast::Posted;
use crate::layout::{QueuePage, SeatCounters};
use crate::memory::{RingMemory, sent_by};
use crate::sync::Word;

/// Counters of one segment, that is, of one incarnation of the producer; they start from 0 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages sent, queued ones included.
    pub sent: u64,
    /// Messages released by the consumer; by the slowest, if a broadcast's producer asks.
    pub received: u64,
    /// Bytes of ring used for them, record headers and padding included. Counted when the producer
    /// looks how far the consumer is, so up to a capacity behind; 0 until it had to.
    pub bytes: u64,
    /// Messages sent and not received yet.
    pub depth: u64,
    /// Most bytes ever in the ring, headers and padding included, as seen when the producer looked
    /// how far the consumer is; 0 until it had to.
    pub depth_max_bytes: u64,
    /// Times the producer found no room.
    pub full_waits: u64,
    /// Times the producer went to sleep.
    pub producer_parks: u64,
    /// Times the producer woke the consumer.
    pub producer_wakes: u64,
    /// Times the consumer went to sleep.
    pub consumer_parks: u64,
    /// Times the consumer woke the producer.
    pub consumer_wakes: u64,
    /// Of a broadcast that overwrites, as its subscriber sees it: messages that it missed.
    pub missed: u64,
    /// Of a broadcast that waits, as its producer sees it: subscribers that died and are not waited
    /// for any more.
    pub evicted: u64,
    /// Of an MPMC channel: messages received that a receiver which died may have seen before.
    pub redelivered: u64,
    /// Of an MPMC channel: messages of receivers that died or left, which came back.
    pub returned: u64,
    /// Of an MPMC channel: messages that were dropped with receivers that died. Where a process was
    /// killed while it counted, one too many.
    pub dropped: u64,
    /// Of an MPMC channel: claims of senders that died, which were given up. None was a message.
    pub given_up: u64,
}

impl Stats {
    /// Of a broadcast, of which the slowest subscriber has received so much.
    pub(crate) fn of_broadcast(memory: &impl Posted, received: Option<u64>) -> Self {
        let stats = Self::read(memory);
        let received = received.unwrap_or(stats.sent);
        let depth = stats.sent.saturating_sub(received);
        let evicted = memory.board().newest.evicted.load_relaxed();
        Self { received, depth, evicted, consumer_parks: 0, consumer_wakes: 0, ..stats }
    }

    /// Of an MPMC channel: over all who take part in it or did, since it was made.
    pub(crate) fn of_queue(page: &QueuePage) -> Self {
        let sum = |counter: fn(&SeatCounters) -> &Word| {
            page.seats
                .iter()
                .fold(0_u64, |sum, seat| sum.wrapping_add(counter(&seat.counters).load_acquire()))
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
            full_waits: sum(|counters| &counters.full_waits),
            producer_parks: sum(|counters| &counters.parks[0]),
            producer_wakes: sum(|counters| &counters.wakes[0]),
            consumer_parks: sum(|counters| &counters.parks[1]),
            consumer_wakes: sum(|counters| &counters.wakes[1]),
            redelivered: sum(|counters| &counters.redelivered),
            returned: page.news.returned.load_relaxed(),
            dropped,
            given_up: page.news.given_up.load_relaxed(),
            ..Self::default()
        }
    }

    pub(crate) fn read(memory: &impl RingMemory) -> Self {
        let producer = &memory.producer().counters;
        let consumer = &memory.consumer().progress;
        // Received first: what was received was sent before.
        let received = consumer.received.load_acquire();
        let sent = sent_by(memory.producer());
        Self {
            sent,
            received,
            bytes: producer.position.load_relaxed(),
            depth: sent.saturating_sub(received),
            depth_max_bytes: producer.depth_max.load_relaxed(),
            full_waits: producer.full_waits.load_relaxed(),
            producer_parks: producer.parks.load_relaxed(),
            producer_wakes: producer.wakes.load_relaxed(),
            consumer_parks: consumer.parks.load_relaxed(),
            consumer_wakes: consumer.wakes.load_relaxed(),
            missed: consumer.missed.load_relaxed(),
            evicted: 0,
            ..Self::default()
        }
    }
}
