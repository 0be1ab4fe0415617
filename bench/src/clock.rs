//! The clock, what it costs, and what a core does behind one's back.
//! Nothing here knows about messages.

use crate::plan::{Fault, Jitter};
use hdrhistogram::Histogram;
use std::hint;

/// Monotonic time in nanoseconds. About 25 ns a call (see [`cost_ns`]), no system call.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a live timespec; CLOCK_MONOTONIC exists on every Linux, so it is filled in.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Of times in ns, from 1 ns to a minute with three digits; what is longer counts as a minute.
pub(crate) fn histogram() -> Result<Histogram<u64>, Fault> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .map_err(|e| Fault::new(format!("histogram: {e}")))
}

/// What 99.9 % of them took at most. None of fewer than a thousand, of which it would be the maximum.
pub(crate) fn p999_ns(times: &Histogram<u64>) -> Option<u64> {
    (times.len() >= 1000).then(|| times.value_at_quantile(0.999))
}

/// What one [`now_ns`] costs, in ns.
pub(crate) fn cost_ns() -> f64 {
    per_call_ns(|| {
        hint::black_box(now_ns());
    })
}

/// What one pause (`spin_loop`) costs, in ns.
pub(crate) fn pause_ns() -> f64 {
    per_call_ns(hint::spin_loop)
}

/// The smallest step the clock was seen to make, in ns.
pub(crate) fn step_ns() -> u64 {
    let mut least = u64::MAX;
    let mut last = now_ns();
    for _ in 0..20_000 {
        let now = now_ns();
        if now > last {
            least = least.min(now - last);
        }
        last = now;
    }
    least
}

/// Reads the clock for `ms` and tells of the gaps between readings: time that went elsewhere.
pub(crate) fn watch(cpu: Option<usize>, ms: u64) -> Jitter {
    const GAP_NS: u64 = 1_000;
    let mut gaps = Vec::with_capacity(100_000);
    let start = now_ns();
    let end = start + ms * 1_000_000;
    let mut last = start;
    while last < end {
        let now = now_ns();
        if now - last > GAP_NS && gaps.len() < gaps.capacity() {
            gaps.push(now - last);
        }
        last = now;
    }
    gaps.sort_unstable();
    let total_ns = (last - start) as f64;
    Jitter {
        cpu,
        gaps_per_s: gaps.len() as f64 / total_ns * 1e9,
        median_gap_ns: gaps.get(gaps.len() / 2).copied().unwrap_or(0),
        max_gap_ns: gaps.last().copied().unwrap_or(0),
        stolen: gaps.iter().sum::<u64>() as f64 / total_ns,
    }
}

/// Median over blocks, so that an interrupt in one of them does not count.
fn per_call_ns(call: impl Fn()) -> f64 {
    const CALLS: u64 = 100;
    let mut blocks: Vec<u64> = (0..201)
        .map(|_| {
            let start = now_ns();
            for _ in 0..CALLS {
                call();
            }
            now_ns() - start
        })
        .collect();
    blocks.sort_unstable();
    blocks[blocks.len() / 2] as f64 / CALLS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward_and_has_a_cost() {
        let before = now_ns();
        assert!(cost_ns() > 0.0);
        assert!(step_ns() > 0);
        assert!(now_ns() > before);
    }

    #[test]
    fn a_tail_of_too_few_is_none() {
        let mut times = histogram().expect("its bounds are in order");
        for ns in 1..=999 {
            times.saturating_record(ns);
        }
        assert_eq!(p999_ns(&times), None);
        times.saturating_record(1_000_000);
        assert_eq!(p999_ns(&times), Some(999));
    }

    #[test]
    fn a_watch_accounts_for_the_time_it_took() {
        let jitter = watch(None, 5);
        assert!((0.0..=1.0).contains(&jitter.stolen));
        assert!(jitter.median_gap_ns <= jitter.max_gap_ns);
    }
}
