//! The live line: on a terminal it overwrites itself, elsewhere a plain one comes now and then.
//! The final report never lives here.

use std::io::{IsTerminal, Write, stdout};

use super::news::{Received, Sent};
use super::units::{count, duration, rate};

/// How often a plain line comes, in nanoseconds.
const PLAIN_EVERY_NS: u64 = 1_000_000_000;

/// Shows how far a run is.
pub(super) struct Progress {
    terminal: bool,
    /// The counters that are on show, to compute the rate from.
    shown: Received,
    start_ns: u64,
    line_is_open: bool,
}

impl Progress {
    pub(super) fn new(start_ns: u64) -> Self {
        let terminal = stdout().is_terminal();
        let shown = Received { at_ns: start_ns, ..Received::default() };
        Self { terminal, shown, start_ns, line_is_open: false }
    }

    /// Shows the newest counters, if it's time.
    pub(super) fn show(&mut self, sent: &Sent, received: &Received) {
        let passed_ns = received.at_ns.saturating_sub(self.shown.at_ns);
        if received.received == 0
            || passed_ns == 0
            || (!self.terminal && passed_ns < PLAIN_EVERY_NS)
        {
            return;
        }
        let text = text(self.start_ns, &self.shown, sent, received);
        // `\x1b[K` clears what a longer line left.
        self.write(&if self.terminal { format!("\r{text}\x1b[K") } else { format!("{text}\n") });
        self.line_is_open = self.terminal;
        self.shown = *received;
    }

    /// A line of its own, below the live one.
    pub(super) fn say(&mut self, line: &str) {
        self.close();
        self.write(&format!("{line}\n"));
    }

    /// Ends the live line, so that what is printed next begins on a line of its own.
    pub(super) fn close(&mut self) {
        if self.line_is_open {
            self.line_is_open = false;
            self.write("\n");
        }
    }

    fn write(&self, text: &str) {
        // A standard output that is closed (`| head`) is no reason to leave the run half-way.
        let mut out = stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

fn text(start_ns: u64, before: &Received, sent: &Sent, now: &Received) -> String {
    let passed_ns = now.at_ns.saturating_sub(before.at_ns).max(1);
    let per_second =
        (now.received - before.received.min(now.received)) as f64 * 1e9 / passed_ns as f64;
    format!(
        "{:5.1} s  {} msg/s  depth {}  p50 {}  p99 {}  max {}",
        now.at_ns.saturating_sub(start_ns) as f64 / 1e9,
        rate(per_second),
        count(sent.depth),
        duration(now.p50_ns),
        duration(now.p99_ns),
        duration(now.max_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_time_since_the_last_line() {
        let before = Received { at_ns: 2_000_000_000, received: 1_000, ..Received::default() };
        let now = Received {
            at_ns: 2_500_000_000,
            received: 3_000,
            p50_ns: 150,
            p99_ns: 2_500,
            max_ns: 30_000,
            ..Received::default()
        };
        let sent = Sent { depth: 12, ..Sent::default() };
        assert_eq!(
            text(1_000_000_000, &before, &sent, &now),
            "  1.5 s  4,000 msg/s  depth 12  p50 150 ns  p99 2.50 µs  max 30.0 µs"
        );
        assert!(text(1_000_000_000, &now, &sent, &before).contains(" 0 msg/s"));
    }
}
