//! How a party of a queue waits that has no waiting of its own: it spins, then leaves its core to whoever it may be
//! waiting for.

use crate::plan::Scenario;
use crate::poll::Poll;
use crate::side::Place;
use std::hint::spin_loop;
use std::thread::yield_now;

/// Looks before a yield where a core is shared: some microseconds, so that a message on its way from
/// another core is waited for, and one whose sender waits for this core is not.
const CROWDED: u32 = 12;

/// The same on a core of one's own: far longer than any wait between two that both run.
const ALONE: u32 = 1 << 14;

/// Between two looks: twice as many pauses each time, up to 2 to the power of `slowest`; after
/// `patience` looks a yield, and one after each further look.
pub(crate) struct Courtesy {
    slowest: u32,
    patience: u32,
    misses: u32,
}

impl Courtesy {
    pub(crate) fn of(place: &Place<'_>) -> Courtesy {
        // One that looks all the time is the first to see an answer, and slows a stream down.
        let slowest = if place.seat.scenario == Scenario::Pingpong { 0 } else { 6 };
        let patience = if place.is_crowded() { CROWDED } else { ALONE };
        Courtesy { slowest, patience, misses: 0 }
    }
}

impl Default for Courtesy {
    fn default() -> Courtesy {
        Courtesy { slowest: 6, patience: CROWDED, misses: 0 }
    }
}

impl Poll for Courtesy {
    #[inline(always)]
    fn missed(&mut self) {
        for _ in 0..1 << self.misses.min(self.slowest) {
            spin_loop();
        }
        self.misses += 1;
        if self.misses >= self.patience {
            yield_now();
        }
    }

    #[inline(always)]
    fn met(&mut self) {
        self.misses = 0;
    }
}
