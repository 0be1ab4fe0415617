//! The stream: messages one way as fast as they go. Both parties and the timing, which is the
//! sink's: a message counts when it was read. How it travels is the system's business.

use crate::clock::now_ns;
use crate::payload::{MARK, SEQ, STOP, Seen};
use crate::plan::{Fault, Flow, Outcome};
use crate::side::{Look, Rx, Side, Tx};
use std::time::Duration;

/// The sending party. Its end is moved into the loop's frame for a round, as it would be in a
/// program of its own: behind a pointer, its positions go through memory with every message.
pub(crate) struct Source<T>(Option<T>);

impl<T> Source<T> {
    pub(crate) fn new(tx: T) -> Source<T> {
        Source(Some(tx))
    }
}

impl<T: Tx> Side for Source<T> {
    /// A quarter of the time fills the ring and warms up; the sink does not count it.
    fn round(&mut self, length: Duration) -> Result<Outcome, Fault> {
        let length_ns = length.as_nanos() as u64;
        let start = now_ns();
        let mut tx = self.0.take().ok_or_else(spent)?;
        let mut next = 1;
        send_until(&mut tx, &mut next, start + length_ns / 4)?;
        tx.send(next, MARK)?;
        // All that follow bear the mark, too: the first one may be overwritten before it is read.
        next = (next + T::BATCH) | MARK;
        let end = (start + length_ns).max(now_ns() + length_ns / 4);
        send_until(&mut tx, &mut next, end)?;
        tx.send(next, STOP)?;
        next += T::BATCH;
        tx.finish()?;
        self.0 = Some(tx);
        Ok(Outcome { sent: (next & SEQ) - 1, ..Outcome::default() })
    }
}

/// The receiving party, with its end moved about like the [`Source`]'s.
pub(crate) struct Sink<R>(Option<R>);

impl<R> Sink<R> {
    pub(crate) fn new(rx: R) -> Sink<R> {
        Sink(Some(rx))
    }
}

impl<R: Rx> Side for Sink<R> {
    fn round(&mut self, _length: Duration) -> Result<Outcome, Fault> {
        let mut rx = self.0.take().ok_or_else(spent)?;
        let missed_before = rx.missed();
        let mut tally = Tally::default();
        let mut watch = Watch { tally: &mut tally, next: 1, last: None };
        while watch.last.is_none() {
            rx.recv_some(&mut watch)?;
        }
        let missed = rx.missed() - missed_before;
        self.0 = Some(rx);
        let Watch { next, last, .. } = watch;
        Ok(tally.outcome(last.unwrap_or(next & SEQ), missed))
    }
}

/// What a sink looks at messages with, in registers. With the tally in it, which a call is handed now and then, all of
/// it would be in memory: a tenth of a stream of 8 bytes.
struct Watch<'a> {
    tally: &'a mut Tally,
    /// The word of the next message.
    next: u64,
    /// The sequence number of the last one, when that has come.
    last: Option<u64>,
}

impl Look for &mut Watch<'_> {
    /// One comparison a message; marks, gaps and altered bytes are told apart elsewhere.
    #[inline(always)]
    fn at(&mut self, seen: Seen) {
        if (seen.word ^ self.next) | seen.altered != 0 {
            match self.tally.odd(seen, self.next & SEQ) {
                Odd::GoOn { word } => self.next = word,
                Odd::Last { seq } => self.last = Some(seq),
            }
        }
        self.next += 1;
    }

    /// One comparison for all of them. With one for each the loop is so short that where the linker puts it, within a
    /// cache line or across two, decides: 1.3 or 1.0 billion messages of 8 bytes a second.
    #[inline(always)]
    fn at_eight(&mut self, seen: [Seen; 8]) {
        let odd = |odd, (seen, word): (&Seen, u64)| odd | (seen.word ^ word) | seen.altered;
        if seen.iter().zip(self.next..).fold(0, odd) == 0 {
            self.next += 8;
        } else {
            seen.into_iter().for_each(|seen| self.at(seen));
        }
    }
}

/// Sends until the time is up. The clock is read every few microseconds' worth of messages: below
/// 1 % of the time.
#[inline(always)]
fn send_until<T: Tx>(tx: &mut T, next: &mut u64, end_ns: u64) -> Result<(), Fault> {
    const CALLS: u64 = 1024;
    let mut calls = 1;
    let mut before = now_ns();
    while before < end_ns {
        for _ in 0..calls {
            tx.send(*next, 0)?;
            *next += T::BATCH;
        }
        let now = now_ns();
        // Large messages and waits: don't run past the end by much.
        calls = if now - before > 50_000 { (calls / 2).max(1) } else { CALLS.min(calls * 2) };
        before = now;
    }
    Ok(())
}

fn spent() -> Fault {
    Fault::new("an earlier round failed on this seat")
}

/// Where the stream goes on after a message that was not simply the next.
enum Odd {
    /// With the mark that what follows bears.
    GoOn {
        word: u64,
    },
    Last {
        seq: u64,
    },
}

/// What a sink remembers of the messages that were not simply the next one.
#[derive(Default)]
struct Tally {
    /// When the first message of the measured part came, the sequence number behind it, and what was skipped
    /// before.
    begun: Option<(u64, u64, u64)>,
    ended_ns: u64,
    skipped: u64,
    altered: u64,
}

impl Tally {
    /// Looks at a message that is marked, altered, or not the expected one.
    #[cold]
    fn odd(&mut self, seen: Seen, expected: u64) -> Odd {
        let mut seq = seen.word & SEQ;
        if seen.altered != 0 {
            // Its sequence number can't be trusted either: take it for the expected one.
            self.altered += 1;
            seq = expected;
        } else if seq > expected {
            self.skipped += seq - expected;
        } else if seq < expected {
            self.altered += 1;
            seq = expected - 1;
        }
        if seen.word & MARK != 0 && self.begun.is_none() {
            self.begun = Some((now_ns(), seq + 1, self.skipped));
        }
        if seen.word & STOP != 0 {
            self.ended_ns = now_ns();
            return Odd::Last { seq };
        }
        Odd::GoOn { word: seq | if self.begun.is_some() { MARK } else { 0 } }
    }

    /// `missed`: messages that the system said were overwritten.
    fn outcome(self, last: u64, missed: u64) -> Outcome {
        Outcome {
            received: last.saturating_sub(self.skipped),
            missed,
            // What was skipped and not told is lost; what was told and came is a fault as well.
            altered: self.altered + u64::from(missed > self.skipped),
            flow: self.begun.and_then(|(begun_ns, first, skipped)| {
                let messages = (last + 1).saturating_sub(first + (self.skipped - skipped));
                let ns = self.ended_ns.saturating_sub(begun_ns).max(1);
                // If the last message is all that came of the measured part, it was no time.
                (messages > 0).then_some(Flow { messages, ns })
            }),
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    struct Script {
        seen: VecDeque<Seen>,
        /// Told once all was seen.
        missed: u64,
    }

    impl Rx for Script {
        fn recv(&mut self) -> Result<Seen, Fault> {
            self.seen.pop_front().ok_or_else(|| Fault::new("the script has ended"))
        }

        fn missed(&self) -> u64 {
            if self.seen.is_empty() { self.missed } else { 0 }
        }
    }

    fn sink(words: &[u64]) -> Outcome {
        sink_of(words, 0)
    }

    fn sink_of(words: &[u64], missed: u64) -> Outcome {
        let seen = words.iter().map(|&word| Seen { word, altered: 0 }).collect();
        Sink::new(Script { seen, missed }).round(Duration::ZERO).expect("the script has a STOP")
    }

    #[test]
    fn a_whole_stream_is_counted_from_its_mark() {
        let outcome = sink(&[1, 2 | MARK, 3 | MARK, 4 | MARK | STOP]);
        assert_eq!((outcome.received, outcome.altered), (4, 0));
        assert_eq!(outcome.flow.map(|f| f.messages), Some(2));
    }

    #[test]
    fn a_gap_is_not_received() {
        let outcome = sink(&[1 | MARK, 4 | MARK, 5 | MARK | STOP]);
        assert_eq!((outcome.received, outcome.altered), (3, 0));
        assert_eq!(outcome.flow.map(|f| f.messages), Some(2));
    }

    #[test]
    fn a_gap_that_was_told_is_missed_and_one_that_was_not_there_is_a_fault() {
        let told = sink_of(&[1 | MARK, 4 | MARK, 5 | MARK | STOP], 2);
        assert_eq!((told.received, told.missed, told.altered), (3, 2, 0));
        let too_much = sink_of(&[1 | MARK, 4 | MARK, 5 | MARK | STOP], 3);
        assert_eq!((too_much.received, too_much.missed, too_much.altered), (3, 3, 1));
    }

    #[test]
    fn a_measured_part_whose_beginning_was_overwritten_begins_with_what_came_of_it() {
        let outcome = sink_of(&[1, 2, 7 | MARK, 8 | MARK, 9 | MARK | STOP], 4);
        assert_eq!((outcome.received, outcome.missed, outcome.altered), (5, 4, 0));
        assert_eq!(outcome.flow.map(|f| f.messages), Some(2));
        // Nothing of it but its end.
        let outcome = sink_of(&[1, 2, 9 | MARK | STOP], 6);
        assert_eq!((outcome.received, outcome.missed, outcome.flow), (3, 6, None));
    }

    #[derive(Default)]
    struct Record(Vec<u64>);

    impl Tx for Record {
        const BATCH: u64 = 1;

        fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
            self.0.push(first | mark);
            Ok(())
        }
    }

    #[test]
    fn every_message_of_the_measured_part_says_that_it_is_of_it() {
        let mut source = Source::new(Record::default());
        let outcome = source.round(Duration::from_micros(100)).expect("it sends");
        let words = source.0.expect("it is back").0;
        let seqs: Vec<u64> = words.iter().map(|word| word & SEQ).collect();
        assert!(seqs.iter().copied().eq(1..=outcome.sent));
        let measured = words.iter().position(|word| word & MARK != 0).expect("a measured part");
        assert!(words[measured..].iter().all(|word| word & MARK != 0));
        assert!(words[..words.len() - 1].iter().all(|word| word & STOP == 0));
    }

    /// The same as one by one, whatever is wrong and wherever.
    #[test]
    fn eight_in_a_row_are_looked_at_as_one_by_one() {
        let sound: [Seen; 8] = std::array::from_fn(|i| Seen { word: 5 + i as u64, altered: 0 });
        let mut outcomes = 0;
        for at in 0..8 {
            for wrong in [
                sound[at],
                Seen { word: sound[at].word + 3, altered: 0 },
                Seen { word: sound[at].word - 1, altered: 0 },
                Seen { altered: 1, ..sound[at] },
                Seen { word: sound[at].word | MARK | STOP, altered: 0 },
            ] {
                let mut seen = sound;
                seen[at] = wrong;
                let facts = |look: fn(&mut Watch, [Seen; 8])| {
                    let mut tally = Tally::default();
                    let mut watch = Watch { tally: &mut tally, next: 5, last: None };
                    look(&mut watch, seen);
                    (watch.next, watch.last, tally.skipped, tally.altered)
                };
                let together = facts(|mut watch, seen| watch.at_eight(seen));
                let apart =
                    facts(|mut watch, seen| seen.into_iter().for_each(|seen| watch.at(seen)));
                assert_eq!(together, apart, "message {at}");
                outcomes += u64::from(together == (13, None, 0, 0));
            }
        }
        assert_eq!(outcomes, 8, "nothing else looks as if all were well");
    }

    #[test]
    fn a_message_that_comes_twice_is_altered() {
        let outcome = sink(&[1 | MARK, 2 | MARK, 2 | MARK, 3 | MARK | STOP]);
        assert_eq!((outcome.received, outcome.altered), (3, 1));
    }

    #[test]
    fn altered_bytes_are_counted_and_the_stream_goes_on() {
        let script = [(1 | MARK, 0), (99, 1), (3 | MARK, 0), (4 | MARK | STOP, 0)];
        let seen = script.into_iter().map(|(word, altered)| Seen { word, altered }).collect();
        let script = Script { seen, missed: 0 };
        let outcome = Sink::new(script).round(Duration::ZERO).expect("it ends");
        assert_eq!((outcome.received, outcome.altered), (4, 1));
    }
}
