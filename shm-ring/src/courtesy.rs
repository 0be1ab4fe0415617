//! Spinning beside others: when who polls in vain leaves the core to whoever else wants it.
//!
//! It may be the one that is waited for, or another receiver of the same messages. Nobody can ask whether a core
//! is shared, but a yield tells: alone, it comes back at once. So yields are rare until one takes long, and follow
//! a few polls from then on, until they come back at once again. Polling itself is in `wait`.

use std::time::{Duration, Instant};

/// A yield that took as long let somebody else run: two switches take that, and one that comes back at once takes
/// 0.1 to 0.5 us.
const LET_RUN: Duration = Duration::from_nanos(1_500);

/// A yield that took as long let somebody run who does not give the core back, such as a computation: it had a
/// whole time slice. The kernel takes a yield for the renunciation of one, so that who yields at once again would
/// hardly run.
const TIME_SLICE: Duration = Duration::from_millis(1);

/// What part of the time for which the core was away this end then keeps it. All of it cost two senders and two
/// receivers a quarter of their rate, for the other one may have to run before anything comes; an eighth cost them
/// nothing. Who streams beside a computation had, with an eighth, 0.84 to 1.2 times the rate that it had without yields.
const STAYS: u32 = 8;

/// A time away that is taken for longer than any wait for time slices.
const AWAY_MAX: Duration = Duration::from_millis(100);

/// Yields in a row after which a core is one's own again.
const VAIN: u32 = 16;

/// At most 2 to the power of this many spins, of some 10 us each, between two yields on a core of one's own: a
/// yield there is late for a message that comes in it, by its 0.1 to 0.5 us, and so they are a thousandth of the time.
const RARELY: u32 = 6;

/// What is known of the core, kept in the handle so that it serves the next wait, too.
#[derive(Debug, Default)]
pub struct Courtesy {
    /// Spins that are left before the next yield.
    spins: u32,
    /// Yields since the last that let somebody run.
    vain: u32,
    /// Whether somebody else was seen to run here.
    shares: bool,
    /// Until when this end takes its share of a core that it got back late.
    stays_until: Option<Instant>,
}

impl Courtesy {
    /// Whether others want the core, as far as known. Polls before the next yield are to be few then.
    pub fn shares(&self) -> bool {
        self.shares
    }

    /// After polls that found nothing: may leave the core to others. Returns the time if it did.
    pub fn may_yield(&mut self, now: Instant) -> Option<Instant> {
        if self.spins > 0 {
            self.spins -= 1;
            return None;
        }
        if self.stays_until.is_some_and(|until| now < until) {
            return None;
        }
        std::thread::yield_now();
        let later = Instant::now();
        self.learn(now, later);
        Some(later)
    }

    /// From a yield. Who was stopped in it, by a debugger, say, was not away for anybody's computation.
    fn learn(&mut self, from: Instant, to: Instant) {
        let took = to.duration_since(from);
        self.vain = if took < LET_RUN { self.vain.saturating_add(1) } else { 0 };
        self.shares = self.vain == 0 || (self.shares && self.vain < VAIN);
        self.spins = if self.shares { 0 } else { 1 << self.vain.min(RARELY) };
        self.stays_until = (took >= TIME_SLICE).then(|| to + took.min(AWAY_MAX) / STAYS);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_nanos(300);
    const SHARED: Duration = Duration::from_micros(20);

    /// Yields that took so long.
    fn learned(yields: impl IntoIterator<Item = Duration>) -> Courtesy {
        let mut courtesy = Courtesy::default();
        let now = Instant::now();
        for took in yields {
            courtesy.learn(now, now + took);
        }
        courtesy
    }

    #[test]
    fn who_is_alone_yields_rarely() {
        let mut courtesy = learned([QUICK; 100]);
        assert!(!courtesy.shares());
        let now = Instant::now();
        let kept = (0..1_000).take_while(|_| courtesy.may_yield(now).is_none()).count();
        assert_eq!(kept, 1 << RARELY);
    }

    #[test]
    fn who_shares_yields_each_time() {
        let mut courtesy = learned([QUICK, QUICK, SHARED, QUICK, QUICK]);
        assert!(courtesy.shares());
        assert!(courtesy.may_yield(Instant::now()).is_some());
    }

    #[test]
    fn a_core_that_others_have_left_is_noticed() {
        let alone = [QUICK; VAIN as usize];
        assert!(!learned([SHARED].into_iter().chain(alone)).shares());
        assert!(learned([SHARED].into_iter().chain(alone).chain([SHARED])).shares());
    }

    #[test]
    fn who_got_the_core_back_late_keeps_it_for_a_while() {
        let slice = Duration::from_millis(3);
        let mut courtesy = learned([slice]);
        let until = courtesy.stays_until.unwrap();
        assert!(courtesy.may_yield(until - Duration::from_micros(1)).is_none());
        assert!(courtesy.may_yield(until).is_some());
        assert_eq!(learned([slice, SHARED]).stays_until, None);
    }

    #[test]
    fn who_was_stopped_yields_soon_again() {
        let hour = Duration::from_secs(3_600);
        let mut courtesy = learned([hour]);
        let back = courtesy.stays_until.unwrap() - AWAY_MAX / STAYS;
        assert!(courtesy.may_yield(back + AWAY_MAX).is_some());
    }
}
