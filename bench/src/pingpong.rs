//! The ping-pong: one message there and one back. Both parties and the timing of round trips; how a
//! message travels is the system's business.

use crate::clock::{histogram, now_ns, p999_ns};
use crate::payload::{SEQ, STOP};
use crate::plan::{Fault, Outcome, Trips};
use crate::side::{Rx, Side, Tx};
use std::time::Duration;

/// Trips per timed block. A clock reading costs as much as a fifth of a trip; a 64th of it does not
/// matter.
const BLOCK: u64 = 64;

/// The party that starts each trip and times it. Its ends are moved into the loop's frame for a
/// round, as they would be in a program of its own: behind a pointer, their positions go through
/// memory with every message.
pub(crate) struct Driver<T, R> {
    ends: Option<(T, R)>,
    /// The last sequence number: it goes on from round to round, so that nothing left over from an
    /// earlier one can be taken for an answer.
    seq: u64,
}

impl<T: Tx, R: Rx> Driver<T, R> {
    pub(crate) fn new(tx: T, rx: R) -> Driver<T, R> {
        Driver { ends: Some((tx, rx)), seq: 0 }
    }
}

impl<T: Tx, R: Rx> Side for Driver<T, R> {
    /// An eighth of the time warms up, half goes to blocks, the rest to single trips.
    fn round(&mut self, length: Duration) -> Result<Outcome, Fault> {
        let length_ns = length.as_nanos() as u64;
        let (tx, rx) = self.ends.take().ok_or_else(spent)?;
        let mut ball = Ball { tx, rx, seq: self.seq, altered: 0 };

        let start = now_ns();
        while now_ns() < start + length_ns / 8 {
            ball.block()?;
        }

        let mut blocks = Vec::with_capacity(1 << 12);
        let end = start + length_ns / 8 * 5;
        loop {
            // `push` may allocate, so that one block's end is not the next one's start.
            let from = now_ns();
            ball.block()?;
            let to = now_ns();
            blocks.push(to - from);
            if to >= end {
                break;
            }
        }

        let mut singles = histogram()?;
        let end = (start + length_ns).max(now_ns() + length_ns / 8);
        loop {
            let from = now_ns();
            ball.trip(0)?;
            let to = now_ns();
            singles.saturating_record(to - from);
            if to >= end {
                break;
            }
        }
        ball.trip(STOP)?;

        let Ball { tx, rx, seq, altered } = ball;
        let sent = seq - self.seq;
        (self.ends, self.seq) = (Some((tx, rx)), seq);
        blocks.sort_unstable();
        let trips = Trips {
            block_rtt_ns: blocks[blocks.len() / 2] as f64 / BLOCK as f64,
            p50_ns: singles.value_at_quantile(0.50),
            p99_ns: singles.value_at_quantile(0.99),
            p999_ns: p999_ns(&singles),
            max_ns: singles.max(),
            count: singles.len(),
        };
        Ok(Outcome { sent, altered, trips: Some(trips), ..Outcome::default() })
    }
}

/// What goes to and fro, with both ends that it goes through.
struct Ball<T, R> {
    tx: T,
    rx: R,
    seq: u64,
    altered: u64,
}

impl<T: Tx, R: Rx> Ball<T, R> {
    #[inline(always)]
    fn block(&mut self) -> Result<(), Fault> {
        for _ in 0..BLOCK {
            self.trip(0)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn trip(&mut self, mark: u64) -> Result<(), Fault> {
        self.seq += 1;
        self.tx.send(self.seq, mark)?;
        let seen = self.rx.recv()?;
        if (seen.word ^ (self.seq | mark)) | seen.altered != 0 {
            self.altered += 1;
        }
        Ok(())
    }
}

/// The party that answers each message with one of the same word, written anew.
pub(crate) struct Echo<R, T> {
    ends: Option<(R, T)>,
    /// As in [`Driver`].
    seq: u64,
}

impl<R: Rx, T: Tx> Echo<R, T> {
    pub(crate) fn new(rx: R, tx: T) -> Echo<R, T> {
        Echo { ends: Some((rx, tx)), seq: 0 }
    }
}

impl<R: Rx, T: Tx> Side for Echo<R, T> {
    fn round(&mut self, _length: Duration) -> Result<Outcome, Fault> {
        let (mut rx, mut tx) = self.ends.take().ok_or_else(spent)?;
        let (mut seq, mut altered) = (self.seq, 0);
        loop {
            let seen = rx.recv()?;
            seq += 1;
            if ((seen.word & SEQ) ^ seq) | seen.altered != 0 {
                altered += 1;
            }
            tx.send(seen.word, 0)?;
            if seen.word & STOP != 0 {
                break;
            }
        }
        let received = seq - self.seq;
        (self.ends, self.seq) = (Some((rx, tx)), seq);
        Ok(Outcome { received, altered, ..Outcome::default() })
    }
}

fn spent() -> Fault {
    Fault::new("an earlier round failed on this seat")
}
