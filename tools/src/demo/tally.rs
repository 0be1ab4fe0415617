//! The subscriber's bookkeeping: what came, what is missing, and how long it took. Receiving and
//! the clock never live here.

use hdrhistogram::Histogram;

use super::news::Received;

/// A histogram for latencies: three significant digits, from 1 ns to an hour; what is longer
/// counts as an hour.
pub(super) fn latency_histogram() -> Histogram<u64> {
    const HOUR_NS: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, HOUR_NS, 3).expect("these bounds are in the histogram's range")
}

/// What the subscriber has seen so far.
pub(super) struct Tally {
    seen: Received,
    expected: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { seen: Received::default(), expected: 0, latencies: latency_histogram() }
    }

    /// Counts a message that came at `now_ns`.
    pub(super) fn take(
        &mut self,
        sequence: u64,
        sent_ns: u64,
        bytes: u64,
        intact: bool,
        now_ns: u64,
    ) {
        self.seen.received += 1;
        self.seen.bytes += bytes;
        self.seen.last_received_ns = now_ns;
        if !intact {
            // Its fields can't be believed. Its place in the order is known nevertheless.
            self.seen.altered += 1;
            self.expected += 1;
            return;
        }
        if sequence < self.expected {
            self.seen.repeated += 1;
            return;
        }
        self.seen.missing += sequence - self.expected;
        self.expected = sequence.saturating_add(1);

        let latency_ns = now_ns.saturating_sub(sent_ns);
        if sequence == 0 {
            self.seen.opening_ns = latency_ns;
            return;
        }
        if self.latencies.is_empty() {
            self.seen.first_sent_ns = sent_ns;
        }
        self.latencies.saturating_record(latency_ns);
    }

    /// The counters now. Walks the histogram, which takes tens of microseconds.
    pub(super) fn snapshot(&self, now_ns: u64) -> Received {
        Received {
            at_ns: now_ns,
            p50_ns: self.latencies.value_at_quantile(0.5),
            p99_ns: self.latencies.value_at_quantile(0.99),
            max_ns: self.latencies.max(),
            ..self.seen
        }
    }

    /// Each latency that occurred, in nanoseconds, with the number of messages.
    pub(super) fn latencies(&self) -> Vec<(u64, u64)> {
        self.latencies
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unbroken_stream_is_all_there() {
        let mut tally = Tally::new();
        for sequence in 0..100 {
            tally.take(sequence, sequence * 1000, 8, true, sequence * 1000 + 150);
        }
        let seen = tally.snapshot(7);
        assert_eq!((seen.received, seen.missing, seen.repeated, seen.altered), (100, 0, 0, 0));
        assert_eq!(seen.bytes, 800);
        assert_eq!((seen.at_ns, seen.first_sent_ns, seen.last_received_ns), (7, 1000, 99_150));
        assert_eq!((seen.opening_ns, seen.p50_ns, seen.p99_ns, seen.max_ns), (150, 150, 150, 150));
        assert_eq!(tally.latencies(), [(150, 99)]);
    }

    #[test]
    fn gaps_repeats_and_alterations_are_told_apart() {
        let mut tally = Tally::new();
        tally.take(0, 0, 8, true, 9_999);
        tally.take(3, 0, 8, true, 10);
        tally.take(3, 0, 8, true, 20);
        tally.take(u64::MAX, 0, 8, false, 30);
        tally.take(5, 0, 8, true, 40);
        let seen = tally.snapshot(0);
        assert_eq!((seen.received, seen.missing, seen.repeated, seen.altered), (5, 2, 1, 1));
        assert_eq!((seen.opening_ns, seen.max_ns), (9_999, 40));
        assert_eq!(tally.latencies(), [(10, 1), (40, 1)]);
    }

    #[test]
    fn latencies_beyond_all_bounds_are_kept() {
        let mut tally = Tally::new();
        tally.take(1, 0, 8, true, u64::MAX);
        tally.take(2, 50, 8, true, 40);
        assert_eq!(tally.latencies().iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert!(tally.snapshot(0).max_ns >= 3_600_000_000_000);
    }
}
