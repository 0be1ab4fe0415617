//! How a party of many waits: it spins, then leaves its core to whoever it may be waiting for.

use crate::poll::Poll;
use crate::side::Place;
use std::hint::spin_loop;
use std::thread::yield_now;

/// Looks before the first yield where a core is shared: some microseconds, so that a message on its
/// way from another core is waited for, and one whose sender waits for this core is not.
const CROWDED: u32 = 64;

/// The same on a core of one's own: far longer than any wait between two that both run.
const ALONE: u32 = 1 << 14;

/// A pause between two looks, and after `patience` of them a yield.
pub(crate) struct Courtesy {
    patience: u32,
    misses: u32,
}

impl Courtesy {
    pub(crate) fn of(place: &Place<'_>) -> Courtesy {
        Courtesy { patience: if place.is_crowded() { CROWDED } else { ALONE }, misses: 0 }
    }
}

impl Default for Courtesy {
    fn default() -> Courtesy {
        Courtesy { patience: CROWDED, misses: 0 }
    }
}

impl Poll for Courtesy {
    #[inline(always)]
    fn missed(&mut self) {
        spin_loop();
        self.misses += 1;
        if self.misses >= self.patience {
            self.misses = 0;
            yield_now();
        }
    }

    #[inline(always)]
    fn met(&mut self) {
        self.misses = 0;
    }
}
