//! What a reference does between two looks at a line that has nothing new. It matters more than
//! anything else in a round trip: each look takes the line from the writer.

use ringway_shm::wait::Burst;
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

/// As Ringway's ring polls, by its own rule: one pause between two looks, so that the writer gets its line
/// back meanwhile, and before the second look more, in proportion to what has just come.
pub(crate) struct Paused {
    burst: Burst,
    met: u64,
    patience: Patience,
}

impl Default for Paused {
    fn default() -> Self {
        Self { burst: Burst::in_ring(), met: 0, patience: Patience::default() }
    }
}

impl Poll for Paused {
    #[inline(always)]
    fn missed(&mut self) {
        for _ in 0..self.burst.pauses(self.met) {
            spin_loop();
        }
        self.patience.lose();
    }

    #[inline(always)]
    fn met(&mut self) {
        self.met += 1;
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
