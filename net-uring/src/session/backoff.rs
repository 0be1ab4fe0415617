//! When to try again: at once, then after 2^n times the least delay, up to the most, half of it by
//! chance. Without the chance, a thousand peers of a restarted host come back in step.

/// Delays between attempts.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    state: u64,
    min_ns: u64,
    max_ns: u64,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(seed: u64, min_ns: u64, max_ns: u64) -> Self {
        Self { state: seed, min_ns, max_ns, failures: 0 }
    }

    /// The last connection was of use: the next attempt follows at once.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Nanoseconds to wait before the next attempt. 0 the first time.
    pub(super) fn next_ns(&mut self) -> u64 {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return 0;
        }
        let grown = self.min_ns.saturating_mul(1 << (failures - 1).min(40));
        let full = grown.clamp(self.min_ns, self.max_ns);
        full - self.random() % (full / 2 + 1)
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_starts_again() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(seed, 10, 1000);
            assert_eq!(backoff.next_ns(), 0);
            for full in [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000] {
                let delay = backoff.next_ns();
                assert!((full / 2..=full).contains(&delay), "{delay} of {full}");
            }
            (0..1000).for_each(|_| assert!((500..=1000).contains(&backoff.next_ns())));
            backoff.reset();
            assert_eq!(backoff.next_ns(), 0);
        }
    }

    #[test]
    fn two_peers_do_not_stay_in_step() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed, 1_000_000, 1_000_000_000);
            (0..20).map(move |_| backoff.next_ns()).skip(1)
        };
        assert!(delays(1).zip(delays(2)).all(|(one, other)| one != other));
    }
}
