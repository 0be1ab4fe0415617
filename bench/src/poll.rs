//! What a reference does between two looks at a line that has nothing new. It matters more than
//! anything else in a round trip: each look takes the line from the writer.

use std::hint::spin_loop;
use std::thread::yield_now;

/// A way of polling. `missed` is called after each look that found nothing, `met` after each
/// message.
pub(crate) trait Poll: Default {
    fn missed(&mut self);
    fn met(&mut self);
}

/// Looks again at once.
#[derive(Default)]
pub(crate) struct Tight {
    patience: Patience,
}

impl Poll for Tight {
    #[inline(always)]
    fn missed(&mut self) {
        self.patience.lose();
    }

    #[inline(always)]
    fn met(&mut self) {
        self.patience = Patience::default();
    }
}

/// As Ringway's ring polls: one pause between two looks, so that the writer gets its line back
/// meanwhile, and before the second look as many as messages have just come.
#[derive(Default)]
pub(crate) struct Paused {
    burst: u32,
    patience: Patience,
}

/// As in `ringway_shm::wait`.
const PAUSES_MAX: u32 = 64;

impl Poll for Paused {
    #[inline(always)]
    fn missed(&mut self) {
        let pauses = self.burst.clamp(1, PAUSES_MAX);
        self.burst = 0;
        for _ in 0..pauses {
            spin_loop();
        }
        self.patience.lose();
    }

    #[inline(always)]
    fn met(&mut self) {
        self.burst = self.burst.wrapping_add(1);
        self.patience = Patience::default();
    }
}

/// Yields the core now and then to whom it may be waiting for: without it, two parties that share
/// one core make one trip per time slice. Far longer than any wait between two cores.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    #[inline(always)]
    fn lose(&mut self) {
        self.0 += 1;
        if self.0 >= 1 << 14 {
            self.out();
        }
    }

    #[cold]
    fn out(&mut self) {
        self.0 = 0;
        yield_now();
    }
}
