//! The scenarios of many, `fanout` and `mpmc`: every sender sends as fast as it goes, with a sequence
//! of its own; every receiver checks each sender's. Both parties and the timing; how a message
//! travels is the system's business.
//!
//! A round has no coordinator. The first sender to begin says in shared memory when the measured part
//! begins; the last one to end sends each receiver a message that ends its round:
//!
//! ```text
//! sender 1   warm up │ measured ............ │ leaves
//! sender 2    warm up│ measured ............ │  leaves, is the last: STOP for each receiver
//! receiver     ......│......................│ .......... STOP
//! ```
#![allow(clippy::disallowed_types)] // Two words of the harness's own between its processes.

use crate::arena::{PAGE, Region};
use crate::clock::{histogram, now_ns, p999_ns};
use crate::payload::{MEASURED, OWN_SEQ, SENDER, SENDER_SHIFT, STOP, Seen};
use crate::plan::{Fault, Outcome, Parties, Party, Share};
use crate::side::{Look, Place, Rx, Side, Tx};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Calls between two readings of the clock, which take less than 1 % of the time then.
const CALLS: u64 = 512;

/// Messages before each STOP: more than any receiver takes at once, so that none takes two.
const APART: u64 = 128;

/// What all parties of a round know of each other.
#[derive(Clone, Copy)]
pub(crate) struct Common(&'static Words);

#[repr(C)]
struct Words {
    /// When the measured part begins; 0 as long as nobody has said.
    begin_ns: AtomicU64,
    /// Senders that have sent all they had.
    left: AtomicU64,
}

impl Common {
    /// Bytes of the arena.
    pub(crate) const LEN: usize = PAGE;

    fn at(region: Region) -> Common {
        // SAFETY: `region` is `LEN` zeroed bytes on a page of their own, mapped for good, which every
        // process uses for nothing but these words.
        Common(unsafe { &*region.base().cast::<Words>() })
    }

    /// The first one to ask decides.
    fn begin_ns(self, proposed: u64) -> u64 {
        let word = &self.0.begin_ns;
        match word.compare_exchange(0, proposed, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => proposed,
            Err(decided) => decided,
        }
    }

    /// Says that this sender is through. True for the last one; everything is as before the round
    /// then, and what the others sent has been sent.
    fn leave(self, senders: usize) -> bool {
        let last = self.0.left.fetch_add(1, Ordering::AcqRel) + 1 == senders as u64;
        if last {
            self.0.begin_ns.store(0, Ordering::Relaxed);
            self.0.left.store(0, Ordering::Relaxed);
        }
        last
    }
}

/// Where a party sits.
#[derive(Clone, Copy)]
pub(crate) struct Stool {
    pub(crate) party: Party,
    pub(crate) parties: Parties,
    pub(crate) common: Common,
}

impl Stool {
    pub(crate) fn of(place: &Place<'_>) -> Stool {
        Stool { party: place.party, parties: place.seat.parties, common: Common::at(place.common) }
    }
}

/// A sending party. Its end is moved into the loop's frame for a round, as in `stream`.
pub(crate) struct Sender<T> {
    tx: Option<T>,
    stool: Stool,
    /// Goes on from round to round.
    next: u64,
}

impl<T: Tx> Sender<T> {
    pub(crate) fn new(tx: T, stool: Stool) -> Sender<T> {
        Sender { tx: Some(tx), stool, next: 1 }
    }
}

impl<T: Tx> Side for Sender<T> {
    /// A quarter of the time fills the queue and warms up.
    fn round(&mut self, length: Duration) -> Result<Outcome, Fault> {
        let Stool { party, parties, common } = self.stool;
        let length_ns = length.as_nanos() as u64;
        let begin_ns = common.begin_ns(now_ns() + length_ns / 4);
        let tx = self.tx.take().ok_or_else(spent)?;
        let first = self.next;
        let who = (party.index as u64) << SENDER_SHIFT;
        let mut pump = Pump { tx, next: first, ops: histogram()? };

        pump.until::<false>(who, begin_ns)?;
        let (from_ns, from) = (now_ns(), pump.next);
        // One that was kept from its core for a while has its share of the time all the same.
        let end_ns = begin_ns + length_ns / 4 * 3;
        let to_ns = pump.until::<true>(who | MEASURED, end_ns.max(from_ns + length_ns / 4))?;
        let messages = pump.next - from;

        if common.leave(parties.senders) {
            let stops = if parties.to_all { 1 } else { parties.receivers };
            for _ in 0..stops {
                for _ in 0..APART.div_ceil(T::BATCH) {
                    pump.send(who, 0)?;
                }
                pump.send(who, STOP)?;
            }
        }

        let Pump { tx, next, ops } = pump;
        (self.tx, self.next) = (Some(tx), next);
        let readers = if parties.to_all { parties.receivers as u64 } else { 1 };
        let share = Share {
            party,
            messages,
            from_ns,
            to_ns,
            sum: sum_of(first, next),
            op_p999_ns: p999_ns(&ops),
        };
        Ok(Outcome { sent: (next - first) * readers, shares: vec![share], ..Outcome::default() })
    }
}

struct Pump<T> {
    tx: T,
    next: u64,
    ops: Histogram<u64>,
}

impl<T: Tx> Pump<T> {
    /// Sends until the time is up, and returns when that was. With `TIMED`, the first call after each
    /// reading of the clock is timed by itself.
    #[inline(always)]
    fn until<const TIMED: bool>(&mut self, bits: u64, end_ns: u64) -> Result<u64, Fault> {
        let mut calls = 1;
        let mut before = now_ns();
        while before < end_ns {
            self.send(bits, 0)?;
            if TIMED {
                self.ops.saturating_record(now_ns() - before);
            }
            for _ in 1..calls {
                self.send(bits, 0)?;
            }
            let now = now_ns();
            calls = paced(calls, now - before);
            before = now;
        }
        Ok(before)
    }

    #[inline(always)]
    fn send(&mut self, bits: u64, mark: u64) -> Result<(), Fault> {
        self.tx.send(bits | self.next, mark)?;
        self.next += T::BATCH;
        Ok(())
    }
}

/// How many calls go between the next two readings of the clock: large messages and waits must not
/// carry a round past its end by much.
#[inline(always)]
fn paced(calls: u64, took_ns: u64) -> u64 {
    if took_ns > 200_000 { (calls / 2).max(1) } else { CALLS.min(calls * 2) }
}

/// A receiving party, with its end moved about like the [`Sender`]'s.
pub(crate) struct Receiver<R> {
    rx: Option<R>,
    stool: Stool,
    /// The last sequence number of each sender.
    last: [u64; Parties::MOST],
    /// Of the system's own count at the end of the last round.
    missed: u64,
}

impl<R: Rx> Receiver<R> {
    pub(crate) fn new(rx: R, stool: Stool) -> Receiver<R> {
        Receiver { rx: Some(rx), stool, last: [0; Parties::MOST], missed: 0 }
    }
}

impl<R: Rx> Side for Receiver<R> {
    fn round(&mut self, _length: Duration) -> Result<Outcome, Fault> {
        let mut rx = self.rx.take().ok_or_else(spent)?;
        // Messages may go to other receivers, unless every receiver gets every message.
        let gap_max = if self.stool.parties.to_all { 1 } else { 1 << 55 };
        let mut tally = Tally { last: self.last, gap_max, ..Tally::default() };
        let run = Run { word: self.last[0], ..Run::default() };
        let mut watch = Watch { tally: &mut tally, run, gap_max };
        let mut calls = 1;
        let mut before = now_ns();
        let mut span = Span { idle_ns: before, ..Span::default() };
        while watch.tally.stops == 0 {
            for _ in 0..calls {
                rx.recv_some(&mut watch)?;
                if watch.tally.stops != 0 {
                    break;
                }
            }
            let now = now_ns();
            span.read(now, watch.tally.measured + watch.run.measured());
            calls = paced(calls, now - before);
            before = now;
        }
        let run = watch.run;
        if tally.stops > 1 {
            return Err(Fault::new("took the message that ends another receiver's round"));
        }
        tally.end(run);
        let missed = rx.missed() - self.missed;
        (self.rx, self.last, self.missed) = (Some(rx), tally.last, self.missed + missed);
        let (messages, from_ns, to_ns) = span.messages();
        let share = Share {
            party: self.stool.party,
            messages,
            from_ns,
            to_ns,
            sum: tally.sum,
            op_p999_ns: None,
        };
        Ok(Outcome {
            received: tally.received,
            missed,
            // What was not there must have been told, exactly.
            altered: tally.altered + u64::from(self.stool.parties.to_all && tally.gaps != missed),
            shares: vec![share],
            ..Outcome::default()
        })
    }
}

/// What a receiver looks at messages with.
struct Watch<'a> {
    tally: &'a mut Tally,
    run: Run,
    /// The tally's.
    gap_max: u64,
}

impl Look for &mut Watch<'_> {
    #[inline(always)]
    fn at(&mut self, seen: Seen) {
        if !self.run.goes_on(seen, self.gap_max) {
            self.run = self.tally.begin(self.run, seen);
        }
    }

    /// One comparison for all of them, as in a stream of two.
    #[inline(always)]
    fn at_eight(&mut self, seen: [Seen; 8]) {
        if !self.run.goes_on_by_eight(&seen) {
            seen.into_iter().for_each(|seen| self.at(seen));
        }
    }
}

/// Messages of one sender, one after the other, as most come: what is kept of each, in registers. With all of
/// [`Tally`] in memory instead, two subscribers on one core got 62 million messages of 8 bytes a second
/// each where they get 70 (`ringway-bench fanout --parties 1P2S --size 8 --systems ringway-broadcast-block`).
#[derive(Clone, Copy, Default)]
struct Run {
    /// The last one's.
    word: u64,
    messages: u64,
    /// Of their words.
    sum: u64,
}

impl Run {
    /// Counts one that is nothing out of the ordinary after the last one: of the same sender and part, and
    /// less than `gap_max` further on. False: it is something else.
    #[inline(always)]
    fn goes_on(&mut self, seen: Seen, gap_max: u64) -> bool {
        let gap = seen.word.wrapping_sub(self.word).wrapping_sub(1);
        if (seen.word ^ self.word) & !OWN_SEQ | seen.altered != 0 || gap >= gap_max {
            return false;
        }
        *self = Run {
            word: seen.word,
            messages: self.messages + 1,
            sum: self.sum.wrapping_add(seen.word),
        };
        true
    }

    /// Counts eight that are the next ones of the same sender and part. False: something else is among them.
    #[inline(always)]
    fn goes_on_by_eight(&mut self, seen: &[Seen; 8]) -> bool {
        let next = self.word.wrapping_add(1);
        let odd = |odd, (seen, word): (&Seen, u64)| odd | (seen.word ^ word) | seen.altered;
        if seen.iter().zip(next..).fold(0, odd) != 0 {
            return false;
        }
        *self = Run {
            word: self.word + 8,
            messages: self.messages + 8,
            sum: seen.iter().fold(self.sum, |sum, seen| sum.wrapping_add(seen.word)),
        };
        true
    }

    /// Messages of the measured part.
    fn measured(self) -> u64 {
        if self.word & MEASURED == 0 { 0 } else { self.messages }
    }
}

/// What a receiver remembers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    last: [u64; Parties::MOST],
    /// From here on a gap is one.
    gap_max: u64,
    received: u64,
    sum: u64,
    /// Messages of the measured part.
    measured: u64,
    stops: u64,
    altered: u64,
    /// Messages between two, where there should be none.
    gaps: u64,
}

impl Tally {
    /// Another run, which begins with this message, perhaps.
    #[inline(never)]
    fn begin(&mut self, run: Run, seen: Seen) -> Run {
        self.end(run);
        let gap = (seen.word & OWN_SEQ).wrapping_sub(*self.last(seen.word)).wrapping_sub(1);
        if (gap >= self.gap_max) | (seen.word & STOP != 0) | (seen.altered != 0) {
            self.odd(seen, gap);
            // What follows goes on from there.
            return Run { word: seen.word & SENDER | *self.last(seen.word), ..Run::default() };
        }
        Run { word: seen.word, messages: 1, sum: seen.word }
    }

    /// Adds up a run.
    fn end(&mut self, run: Run) {
        if run.messages == 0 {
            return;
        }
        *self.last(run.word) = run.word & OWN_SEQ;
        self.received += run.messages;
        self.measured += run.measured();
        let rest = (run.word & !OWN_SEQ).wrapping_mul(run.messages);
        self.sum = self.sum.wrapping_add(run.sum.wrapping_sub(rest));
    }

    /// The last number of the one who sent such a word.
    fn last(&mut self, word: u64) -> &mut u64 {
        &mut self.last[(word >> SENDER_SHIFT) as usize % Parties::MOST]
    }

    /// A message that is altered, or ends the round, or is not of the order.
    #[cold]
    fn odd(&mut self, seen: Seen, gap: u64) {
        if seen.altered != 0 {
            // Neither its sender nor its number can be trusted.
            self.altered += 1;
            self.received += 1;
            return;
        }
        if gap > OWN_SEQ / 2 {
            // One that was there before, or overtaken by a later one.
            self.altered += 1;
        } else {
            if gap >= self.gap_max {
                self.gaps += gap;
            }
            *self.last(seen.word) = seen.word & OWN_SEQ;
        }
        self.stops += seen.word / STOP;
        self.received += 1;
        self.sum = self.sum.wrapping_add(seen.word & OWN_SEQ);
        self.measured += (seen.word / MEASURED) & 1;
    }
}

/// The measured part, as far as it lies between two readings of the clock.
#[derive(Default)]
struct Span {
    /// When there was nothing yet.
    idle_ns: u64,
    /// When, and the count of messages then.
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl Span {
    #[inline(always)]
    fn read(&mut self, now_ns: u64, measured: u64) {
        if measured != self.last.1 {
            self.last = (now_ns, measured);
            self.first.get_or_insert(self.last);
        } else if measured == 0 {
            self.idle_ns = now_ns;
        }
    }

    fn messages(&self) -> (u64, u64, u64) {
        match self.first {
            Some((from_ns, before)) if before < self.last.1 => {
                (self.last.1 - before, from_ns, self.last.0)
            }
            // All of it between two readings.
            Some((to_ns, messages)) => (messages, self.idle_ns, to_ns),
            None => (0, self.idle_ns, self.idle_ns),
        }
    }
}

/// Of the numbers from `first` on, below `next`.
fn sum_of(first: u64, next: u64) -> u64 {
    (u128::from(next - first) * u128::from(first + next - 1) / 2) as u64
}

fn spent() -> Fault {
    Fault::new("an earlier round failed on this seat")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Role;
    use std::collections::VecDeque;

    fn stool(role: Role, parties: &str) -> Stool {
        let words: &'static Words =
            Box::leak(Box::new(Words { begin_ns: AtomicU64::new(0), left: AtomicU64::new(0) }));
        Stool {
            party: Party { role, index: 0 },
            parties: parties.parse().expect("legal"),
            common: Common(words),
        }
    }

    struct Script {
        words: VecDeque<u64>,
        missed: u64,
    }

    impl Rx for Script {
        fn recv(&mut self) -> Result<Seen, Fault> {
            let word = self.words.pop_front().ok_or_else(|| Fault::new("the script has ended"))?;
            Ok(Seen { word, altered: 0 })
        }

        fn missed(&self) -> u64 {
            self.missed
        }
    }

    fn receive(parties: &str, words: &[u64], missed: u64) -> Outcome {
        let script = Script { words: words.iter().copied().collect(), missed };
        let mut receiver = Receiver::new(script, stool(Role::Passive, parties));
        receiver.round(Duration::ZERO).expect("the script has a STOP")
    }

    #[test]
    fn a_message_of_the_round_before_is_altered() {
        let words = [5, 6 | STOP, 6, 7 | STOP];
        let mut receiver =
            Receiver::new(Script { words: words.into(), missed: 0 }, stool(Role::Passive, "2P2C"));
        let altered = [(); 2].map(|()| receiver.round(Duration::ZERO).expect("a STOP").altered);
        assert_eq!(altered, [0, 1]);
    }

    const OTHER: u64 = 1 << SENDER_SHIFT;

    #[test]
    fn a_receiver_of_many_counts_what_came_and_keeps_each_senders_order() {
        let words = [1, 1 | OTHER, 4 | MEASURED, 7 | OTHER | MEASURED, 9 | STOP];
        let outcome = receive("2P2C", &words, 0);
        assert_eq!((outcome.received, outcome.altered, outcome.missed), (5, 0, 0));
        assert_eq!(outcome.shares[0].sum, 1 + 1 + 4 + 7 + 9);
    }

    #[test]
    fn a_message_twice_or_overtaken_is_altered() {
        assert_eq!(receive("2P2C", &[3, 3, 4 | STOP], 0).altered, 1);
        assert_eq!(receive("2P2C", &[3, 1 | OTHER, 2, 4 | STOP], 0).altered, 1);
        assert_eq!(receive("2P2C", &[3, 9 | OTHER, 9 | OTHER, 2, 4 | STOP], 0).altered, 2);
    }

    #[test]
    fn a_subscribers_gap_must_have_been_told() {
        assert_eq!(receive("1P2S", &[1, 2, 3 | STOP], 0).altered, 0);
        let told = receive("1P2S", &[1, 5, 6 | STOP], 3);
        assert_eq!((told.received, told.missed, told.altered), (3, 3, 0));
        let untold = receive("1P2S", &[1, 5, 6 | STOP], 0);
        assert_eq!((untold.received, untold.missed, untold.altered), (3, 0, 1));
        assert_eq!(receive("1P2S", &[1, 5, 6 | STOP], 2).altered, 1, "told wrong");
    }

    /// The books kept message by message.
    fn one_by_one(tally: &mut Tally, seen: Seen) {
        let last = *tally.last(seen.word);
        let gap = (seen.word & OWN_SEQ).wrapping_sub(last).wrapping_sub(1);
        if (gap >= tally.gap_max) | (seen.word & STOP != 0) | (seen.altered != 0) {
            return tally.odd(seen, gap);
        }
        *tally.last(seen.word) = seen.word & OWN_SEQ;
        tally.received += 1;
        tally.sum = tally.sum.wrapping_add(seen.word & OWN_SEQ);
        tally.measured += (seen.word / MEASURED) & 1;
    }

    #[test]
    fn runs_add_up_to_what_their_messages_do() {
        let mut random = 1_u64;
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % limit
        };
        for gap_max in [1, 1 << 55] {
            let (mut whole, mut plain) = (Tally::default(), Tally::default());
            (whole.gap_max, plain.gap_max) = (gap_max, gap_max);
            let mut run = Run { word: whole.last[0], ..Run::default() };
            let mut next = [1, 1];
            for _ in 0..100_000 {
                let from = usize::from(below(8) == 0);
                let step = [1, 1, 1, 1, 1, 1, 1, 1, 0, 5][below(10) as usize];
                next[from] += step;
                let marks = if below(50) == 0 { STOP } else { MEASURED * below(2) };
                let word = (next[from] - 1) | (from as u64) << SENDER_SHIFT | marks;
                let seen = Seen { word, altered: u64::from(below(50) == 0) };
                one_by_one(&mut plain, seen);
                if !run.goes_on(seen, gap_max) {
                    run = whole.begin(run, seen);
                }
                assert_eq!(whole.measured + run.measured(), plain.measured);
            }
            whole.end(run);
            assert_eq!(whole, plain);
            assert!(plain.altered > 0 && plain.stops > 0 && plain.received == 100_000);
        }
    }

    /// The same as one by one, whatever is odd and wherever.
    #[test]
    fn eight_in_a_row_are_looked_at_as_one_by_one() {
        let sound: [Seen; 8] = std::array::from_fn(|i| Seen { word: 5 + i as u64, altered: 0 });
        for gap_max in [1, 1 << 55] {
            let mut runs = 0;
            for at in 0..8 {
                for odd in [
                    sound[at],
                    Seen { word: sound[at].word + 3, altered: 0 },
                    Seen { word: sound[at].word - 1, altered: 0 },
                    Seen { altered: 1, ..sound[at] },
                    Seen { word: sound[at].word | MEASURED, altered: 0 },
                    Seen { word: sound[at].word | STOP, altered: 0 },
                    Seen { word: sound[at].word | OTHER, altered: 0 },
                ] {
                    let mut seen = sound;
                    seen[at] = odd;
                    let books = |look: fn(&mut Watch, [Seen; 8])| {
                        let mut tally =
                            Tally { last: [4; Parties::MOST], gap_max, ..Tally::default() };
                        let run = Run { word: 4, ..Run::default() };
                        let mut watch = Watch { tally: &mut tally, run, gap_max };
                        look(&mut watch, seen);
                        let run = watch.run;
                        tally.end(run);
                        (tally, run.messages == 8)
                    };
                    let (together, is_run) = books(|mut watch, seen| watch.at_eight(seen));
                    let (apart, _) =
                        books(|mut watch, seen| seen.into_iter().for_each(|seen| watch.at(seen)));
                    assert_eq!(together, apart, "message {at}");
                    runs += u64::from(is_run && odd.word == sound[at].word);
                }
            }
            assert_eq!(runs, 8, "nothing odd is part of a run");
        }
    }

    struct Sent(Vec<u64>);

    impl Tx for Sent {
        fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
            self.0.push(first | mark);
            Ok(())
        }
    }

    #[test]
    fn a_sender_that_timed_too_few_sends_has_no_tail() {
        let mut sender = Sender::new(Sent(vec![]), stool(Role::Active, "1P1C"));
        // Fewer than a thousand nanoseconds.
        let outcome = sender.round(Duration::from_nanos(900)).expect("nothing fails");
        assert_eq!(outcome.shares[0].op_p999_ns, None);
    }

    #[test]
    fn a_senders_round_ends_with_one_stop_for_each_receiver_or_for_all() {
        for (parties, stops) in [("1P3C", 3), ("1P3S", 1)] {
            let mut sender = Sender::new(Sent(vec![]), stool(Role::Active, parties));
            for round in 0..2 {
                let outcome = sender.round(Duration::from_micros(200)).expect("nothing fails");
                let sent = std::mem::take(&mut sender.tx.as_mut().expect("given back").0);
                assert_eq!(sent.iter().filter(|&&word| word & STOP != 0).count(), stops);
                assert_ne!(sent.last().expect("some") & STOP, 0);
                assert!(sent.iter().any(|word| word & MEASURED != 0), "round {round}");
                let readers = if stops == 1 { 3 } else { 1 };
                assert_eq!(outcome.sent, sent.len() as u64 * readers);
                let sum = sent.iter().map(|word| word & OWN_SEQ).fold(0, u64::wrapping_add);
                assert_eq!(outcome.shares[0].sum, sum);
            }
        }
    }

    #[test]
    fn the_last_sender_to_leave_is_one() {
        let common = stool(Role::Active, "3P1C").common;
        for _ in 0..2 {
            assert_eq!(common.begin_ns(17), 17);
            assert_eq!(common.begin_ns(18), 17);
            assert_eq!([(); 3].map(|()| common.leave(3)), [false, false, true]);
        }
    }
}
