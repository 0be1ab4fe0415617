//! The sender's half: claims slots, fills them, publishes them or gives them up.

use super::cursor::Cursor;
use super::memory::{SlotMemory, SlotWord};
use super::receive::announce_returns;
use super::word::{self, LEN_MAX, Lap, Owner, RUN_MAX, Sent, Taken};
use super::{Geometry, Holder, STEPS_PER_HINT, TICKETS, back_off, leading};
use crate::error::Fault;
use crate::memory::Access;

/// Slots looked at in advance, at least, when the known free ones are used up: eight lines of receivers'
/// words, fetched at once instead of one at a time.
const LOOK_AHEAD: u64 = 64;

/// How many slots ahead a sender asks for the lines that it will write. A swap waits for all stores
/// before it, so that without this each message pays for its own misses. Measured at 64 bytes, with 8 and
/// with 16: one sender to one receiver 17 and 24 M messages a second, two to two 47 and 30 M.
const SEND_AHEAD: u64 = 8;

/// Why a claim was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The next slot is in use still; by whom, unless it only seems so because the others are too
    /// fast for this sender.
    Full(Option<Holder>),
    /// The memory makes no sense.
    Corrupt(Fault),
}

/// The slots that a sender has claimed and not published: the last ones before its cursor. Small, since each
/// message stores it twice, and a swap waits for all stores before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
struct Run {
    /// Slots; 0: no claim.
    len: u16,
    /// Those from the front that hold a message.
    filled: u16,
    /// Bytes of the first one's message.
    first_bytes: u32,
    /// Of the first.
    lap: Lap,
}

// A claim of `RUN_MAX` slots can be told, and a message of `LEN_MAX` bytes.
const _: () = assert!(RUN_MAX <= u16::MAX as u64 && LEN_MAX <= u32::MAX as u64);

/// The sender's half of the algorithm. At most one claim at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sender<M> {
    memory: M,
    owner: Owner,
    /// How it claims one slot: the word, but for the lap.
    one: u64,
    geometry: Geometry,
    /// Where a claim begins that this sender has not made, as far as it knows the next one.
    cursor: Cursor,
    /// The tickets from there up to here are known to be free: their last lap is over, for both sides.
    free: u64,
    /// As far as a claim may reach of which nothing is to be asked: up to `free`, and not too far beyond the hint.
    clear: u64,
    run: Run,
}

impl<M: SlotMemory> Sender<M> {
    /// A sender with nothing claimed. `owner` is this participant's alone, and was swept.
    pub fn new(memory: M, owner: Owner) -> Self {
        let geometry = Geometry::of(memory.slots());
        let cursor = Cursor::new(&geometry, memory.tail());
        let free = cursor.next();
        let one = one_of(owner);
        Self { memory, owner, one, geometry, cursor, free, clear: free, run: Run::default() }
    }

    /// The same in the place of another participant, for models in which all are alike.
    #[cfg(feature = "testing")]
    pub fn of_owner(&self, owner: Owner) -> Self
    where
        M: Clone,
    {
        Self { owner, one: one_of(owner), ..self.clone() }
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Most slots of a claim.
    pub fn run_max(&self) -> u64 {
        self.geometry.run_max()
    }

    /// Slots claimed, filled or not.
    #[inline(always)]
    pub fn claimed(&self) -> u64 {
        self.run.len.into()
    }

    /// Those that hold a message already.
    #[inline(always)]
    pub fn filled(&self) -> u64 {
        self.run.filled.into()
    }

    /// Whether the slot after those claimed is known to be free, too.
    #[inline(always)]
    pub fn knows_more_room(&self) -> bool {
        self.cursor.next() < self.free
    }

    /// Claims up to `most` slots (at least 1), as many as are free. Call only with nothing claimed.
    #[inline(always)]
    pub fn try_claim(&mut self, most: u64) -> Result<(), ClaimError> {
        debug_assert!(self.run.len == 0 && most >= 1);
        let claimed = match most {
            1 => self.claim_one_at_once().is_some(),
            _ => self.claim_run_at_once(most),
        };
        if claimed { Ok(()) } else { self.claim_in_doubt(most) }
    }

    /// As [`Self::try_claim`], as it nearly always is: nobody else was here, and the slots are known to be
    /// free. False, and nothing claimed: look closer.
    #[inline(always)]
    fn claim_run_at_once(&mut self, most: u64) -> bool {
        let (first, lap) = (self.cursor.next(), self.cursor.lap());
        let len = most.min(self.geometry.run_max());
        if first + len > self.clear {
            return false;
        }
        // Relaxed: the swap acquires. And behind an Acquire all that this has read would be read again.
        let found = self.memory.sent(self.geometry.index(first)).load_relaxed();
        word::is_settled(found, lap.before()) && self.claim(found, len)
    }

    /// Claims one slot, as it nearly always is, and returns [`Self::payload`]. `None`, and nothing claimed: something
    /// is already, or look closer. A swap waits until everything before it is over, so what this costs is its
    /// instructions, and the registers that its caller has to save for it: one thing after the other.
    #[inline(always)]
    pub fn claim_one_at_once(&mut self) -> Option<*mut u8> {
        let first = self.cursor.next();
        if first >= self.clear || self.run.len > 0 {
            return None;
        }
        let index = self.geometry.index(first);
        let payload = self.memory.payload(index);
        self.memory.prefetch(index, Access::Write);
        self.memory.prefetch_ahead::<SEND_AHEAD>(payload, Access::Write);
        let sent = self.memory.sent(index);
        // Relaxed: the swap acquires.
        let (found, lap) = (sent.load_relaxed(), self.cursor.lap());
        let claim = word::in_lap(self.one, lap);
        if !word::is_settled(found, lap.before()) || sent.replace(found, claim).is_err() {
            return None;
        }
        self.claimed_from(first, 1, lap);
        self.memory.touch(index, Access::Write);
        Some(payload)
    }

    /// As [`Self::try_claim`], whatever is in the way.
    #[cold]
    #[inline(never)]
    fn claim_in_doubt(&mut self, most: u64) -> Result<(), ClaimError> {
        let claimed = self.look_and_claim(most);
        self.clear_up();
        claimed
    }

    /// After either end of what is clear has moved.
    #[inline(always)]
    fn clear_up(&mut self) {
        self.clear = self.free.min(self.cursor.far());
    }

    fn look_and_claim(&mut self, most: u64) -> Result<(), ClaimError> {
        let most = most.min(self.geometry.run_max());
        let mut failures = 0;
        let mut taken = 0;
        for _ in 0..self.geometry.patience() {
            self.memory.forget([1, u64::from(taken % STEPS_PER_HINT), 0]);
            let (first, lap) = (self.cursor.next(), self.cursor.lap());
            let index = self.geometry.index(first);
            let found = self.memory.sent(index).load_acquire();
            if !word::is_settled(found, lap.before()) {
                self.step_over(first, found, &mut taken)?;
                continue;
            }
            if first + most > self.free && !self.look_ahead(first, most)? {
                self.follow(first, found);
                continue;
            }
            self.keep_hint();
            let len = most.min(self.free - first);
            if self.claim(found, len) {
                return Ok(());
            }
            back_off(failures);
            failures += 1;
        }
        Err(ClaimError::Full(None))
    }

    /// Swaps the word of the slot that is next, in which `found` was; the others are free.
    #[inline(always)]
    fn claim(&mut self, found: u64, len: u64) -> bool {
        let (first, lap) = (self.cursor.next(), self.cursor.lap());
        let index = self.geometry.index(first);
        let claim = Sent::Writing { owner: self.owner, run: len }.word(lap);
        // Its other lines come along with the one that is swapped, which the swap waits for, and which
        // a receiver has just looked at. Measured: a round trip of 64 bytes 590 and 442 ns.
        let ahead = self.geometry.index(first + SEND_AHEAD);
        self.memory.prefetch(index, Access::Write);
        self.memory.prefetch(ahead, Access::Write);
        if self.memory.sent(index).replace(found, claim).is_err() {
            return false;
        }
        self.claimed_from(first, len, lap);
        true
    }

    /// So many slots are this sender's now.
    #[inline(always)]
    fn claimed_from(&mut self, first: u64, len: u64, lap: Lap) {
        crate::fault::point(crate::fault::Point::Claimed);
        self.run = Run { len: len as u16, lap, ..Run::default() };
        if self.cursor.claimed(first, len, &self.geometry, self.memory.tail()) {
            self.clear_up();
        }
    }

    /// For who has just claimed slots for messages of so many bytes each: asks for their lines, as far as a page or,
    /// where slots are apart, four lines of each, and the queue's end; and, unless that is round a small queue, for those
    /// of as many behind, where the next such claim will be. Hints. Measured,
    /// with 32 messages a claim, one sender to one receiver: 8 bytes 4.1 and 3.6 ns, 64 bytes 7.2 and 6.8; with its
    /// own alone 3.6 and 7.2.
    #[inline(always)]
    pub fn ask_for_run(&self, bytes: u64) {
        let (first, len, bytes) = (self.first(), self.claimed(), bytes.min(self.memory.room()));
        self.memory.prefetch_run(self.geometry.index(first), len, bytes, Access::Write);
        if 4 * len <= self.memory.slots() {
            self.memory.prefetch_run(self.geometry.index(first + len), len, bytes, Access::Write);
        }
    }

    /// Where the message goes that is filled next: `room` bytes, nobody else's until publication.
    /// Call only while fewer are filled than claimed.
    #[inline(always)]
    pub fn payload(&self) -> *mut u8 {
        debug_assert!(self.run.filled < self.run.len);
        let ticket = self.first() + self.filled();
        let index = self.geometry.index(ticket);
        self.memory.prefetch(self.geometry.index(ticket + SEND_AHEAD), Access::Write);
        self.memory.touch(index, Access::Write);
        self.memory.payload(index)
    }

    /// The first slot of the claim.
    #[inline(always)]
    fn first(&self) -> u64 {
        self.cursor.next() - self.claimed()
    }

    /// The same for the next `count` slots, of which no more may be than are claimed and not filled.
    #[inline(always)]
    pub fn payloads(&self, count: u64) -> impl Iterator<Item = *mut u8> {
        debug_assert!(self.filled() + count <= self.claimed());
        let ticket = self.first() + self.filled();
        let ahead = self.geometry.index(ticket + SEND_AHEAD);
        self.memory.payloads(self.geometry.index(ticket), ahead, count)
    }

    /// Makes the first `bytes` of [`Self::payload`] a message, to be published with the others.
    #[inline(always)]
    pub fn fill(&mut self, bytes: u64) {
        self.fill_many(1, bytes);
    }

    /// The same for the next `count` slots, of which no more may be than are claimed and not filled.
    #[inline(always)]
    pub fn fill_many(&mut self, count: u64, bytes: u64) {
        let (first, filled) = (self.first(), self.filled());
        debug_assert!(filled + count <= self.claimed() && bytes <= LEN_MAX);
        let (mut ticket, mut left) = (first + filled, count);
        if filled == 0 && count > 0 {
            self.memory.touch(self.geometry.index(first), Access::Write);
            self.run.first_bytes = bytes as u32;
            (ticket, left) = (first + 1, count - 1);
        }
        let (flag, sent) = (self.memory.flags_at(), self.memory.sent_at());
        // Nobody looks at these before the first one's word says that the claim is over.
        for (lap, slots) in self.geometry.pieces(ticket, left) {
            let word = Sent::Ready { len: bytes }.word(lap);
            for index in slots {
                self.memory.touch(index, Access::Write);
                settle_slot(flag(index), sent(index), word);
            }
        }
        self.run.filled = (filled + count) as u16;
    }

    /// Whether one slot is claimed, and not filled.
    #[inline(always)]
    pub fn holds_one(&self) -> bool {
        // One compare, for the compiler.
        u32::from(self.run.len) | u32::from(self.run.filled) << 16 == 1
    }

    /// Publishes a claim of one slot, as a message of so many bytes. Call only while [`Self::holds_one`].
    #[inline(always)]
    pub fn publish_one(&mut self, bytes: u64) {
        debug_assert!(self.holds_one() && bytes <= LEN_MAX);
        self.memory.touch(self.geometry.index(self.first()), Access::Write);
        self.settle_first(bytes);
        self.run = Run::default();
    }

    /// Publishes what was filled, all of it or, under a crash, nothing. Slots that were claimed beyond
    /// that are given up. Returns how many messages.
    #[inline(always)]
    pub fn publish(&mut self) -> u64 {
        let Run { first_bytes, len, filled, .. } = self.run;
        if filled < len {
            self.give_up_rest();
        }
        if filled > 0 {
            // Last: until now the whole claim is this sender's, or a dead one's.
            self.settle_first(first_bytes.into());
        }
        self.run = Run::default();
        filled.into()
    }

    /// Gives up what was claimed, filled or not.
    pub fn abort(&mut self) {
        self.run.filled = 0;
        self.publish();
    }

    #[cold]
    fn give_up_rest(&mut self) {
        let first = self.first();
        for ticket in (first + self.filled()..first + self.claimed()).rev() {
            // Of an empty claim that includes the first, which `rev` leaves for last.
            self.settle(ticket, Sent::Nothing.word(self.geometry.lap(ticket)));
        }
    }

    /// Publishes the first slot, and with it the claim.
    #[inline(always)]
    fn settle_first(&self, bytes: u64) {
        crate::fault::point(crate::fault::Point::Publishing);
        let first = self.first();
        self.settle(first, Sent::Ready { len: bytes }.word(self.run.lap));
    }

    #[inline(always)]
    fn settle(&self, ticket: u64, word: u64) {
        let index = self.geometry.index(ticket);
        settle_slot(self.memory.flag(index), self.memory.sent(index), word);
    }

    /// The slot is not to be had in this lap: on to the next claim, or why not.
    #[cold]
    fn step_over(&mut self, ticket: u64, found: u64, taken: &mut u32) -> Result<(), ClaimError> {
        let state = match Sent::read(found) {
            Ok(state) => state,
            Err(fault) => return self.mend(ticket, found, fault),
        };
        match word::lap(found).since(self.geometry.lap(ticket)) {
            0 => {
                *taken += 1;
                let run = if let Sent::Writing { run, .. } = state { run } else { 1 };
                self.cursor.step_over(run, *taken, &self.geometry, self.memory.tail());
                Ok(())
            }
            -1 => match state {
                Sent::Writing { owner, .. } => Err(ClaimError::Full(Some(Holder {
                    owner: Some(owner),
                    ticket: ticket.wrapping_sub(self.geometry.mask + 1),
                    word: found,
                }))),
                // Settled after all, which the caller has asked for.
                Sent::Nothing | Sent::Ready { .. } => Err(ClaimError::Corrupt(Fault::Slot)),
            },
            ..=-2 if matches!(state, Sent::Nothing | Sent::Ready { .. }) => {
                // A lap was left out, because the word of the claim that covered it was written over.
                // Nobody comes to that lap any more; with this the receivers pass over it.
                let left_out = Sent::Nothing.word(self.geometry.lap(ticket).before());
                let _ = self.memory.sent(self.geometry.index(ticket)).replace(found, left_out);
                Err(ClaimError::Corrupt(Fault::Slot))
            }
            laps if laps > 0 => {
                // Others went round. The hint lags by less than a lap, so it is ahead of here.
                if self.cursor.follow_hint(&self.geometry, self.memory.tail()) {
                    Ok(())
                } else {
                    Err(ClaimError::Corrupt(Fault::Hint))
                }
            }
            _ => Err(ClaimError::Corrupt(Fault::Slot)),
        }
    }

    /// A senders' word that nobody writes. Where the receivers are through with the last lap it can't have
    /// meant anything.
    #[cold]
    fn mend(&mut self, ticket: u64, found: u64, fault: Fault) -> Result<(), ClaimError> {
        let index = self.geometry.index(ticket);
        let lap = self.geometry.lap(ticket);
        let taken = self.memory.taken(index).load_acquire();
        if taken == Taken::Done.word(lap.before()) {
            // Somebody else may have done so.
            let _ = self.memory.sent(index).replace(found, Sent::Nothing.word(lap.before()));
            return Ok(());
        }
        match (Taken::read(taken), word::lap(taken).since(lap)) {
            // They have passed over it in this lap, too.
            (Ok(_), 0..) => {
                self.pass_over();
                return Ok(());
            }
            (Err(_), _) | (Ok(Taken::Done), ..=-2) if self.is_left_behind(ticket) => {
                self.end_left_behind(ticket, taken);
            }
            _ => {}
        }
        Err(ClaimError::Corrupt(fault))
    }

    /// Receivers have come by here in this lap. So has a sender since the look at its word; or they passed
    /// over a word that nobody writes, and then so do the senders.
    #[cold]
    fn follow(&mut self, ticket: u64, found: u64) {
        let index = self.geometry.index(ticket);
        let passed_over = Sent::Nothing.word(self.geometry.lap(ticket));
        if self.memory.sent(index).replace(found, passed_over).is_ok() {
            self.pass_over();
        }
    }

    /// Goes on behind a slot that nobody uses in this lap.
    fn pass_over(&mut self) {
        self.cursor.skip(1, &self.geometry);
        self.keep_hint();
    }

    #[inline(always)]
    fn keep_hint(&mut self) {
        self.cursor.keep_hint(&self.geometry, self.memory.tail());
    }

    /// Finds out how many slots from `first` on are free, as far as `most` of them matter; of the first its
    /// own word says that it is settled. False: others have used this one meanwhile.
    #[cold]
    fn look_ahead(&mut self, first: u64, most: u64) -> Result<bool, ClaimError> {
        self.free = first;
        // A22, pairs with R22 in Receiver::release: whoever read the message is through with it.
        let found = self.memory.taken(self.geometry.index(first)).load_acquire();
        if found != Taken::Done.word(self.geometry.lap(first).before()) {
            return self.is_past(first, found);
        }
        let mut free = first + 1;
        let len = LOOK_AHEAD.max(most).min(self.geometry.mask + 1);
        let (taken, sent) = (self.memory.taken_at(), self.memory.sent_at());
        for (lap, slots) in self.geometry.pieces(free, len - 1) {
            let (before, done) = (lap.before(), Taken::Done.word(lap.before()));
            // A22, as above. And its sender may have set the flag, and not settled its word yet: that
            // store must not come after a claim that covers the slot. Of the first one the caller knows.
            let is_free = |index: u64| {
                taken(index).load_acquire() == done
                    && word::is_settled(sent(index).load_acquire(), before)
            };
            let len = slots.end - slots.start;
            let found = leading(slots, is_free);
            free += found;
            if found < len {
                break;
            }
        }
        self.free = free;
        if free == first + len {
            // There is room, so receivers are probably through with the next ones, too. A look that waited for its eight
            // lines was what bounded batches, and 7 % of single messages.
            self.memory.prefetch_taken_run(self.geometry.index(free), len, Access::Read);
        }
        Ok(true)
    }

    /// A slot that is not free: it is that no more, or not yet.
    #[cold]
    fn is_past(&self, ticket: u64, found: u64) -> Result<bool, ClaimError> {
        let state = match Taken::read(found) {
            Ok(state) => state,
            Err(fault) => {
                // A word that nobody writes.
                if self.is_left_behind(ticket) {
                    self.end_left_behind(ticket, found);
                }
                return Err(ClaimError::Corrupt(fault));
            }
        };
        let owner = match (state, word::lap(found).since(self.geometry.lap(ticket))) {
            // A message of this lap was sent and taken already.
            (_, 0..) => return Ok(false),
            (Taken::Reading { owner, .. } | Taken::Again { owner, .. }, -1) => Some(owner),
            (Taken::Done, ..=-2) if self.is_left_behind(ticket) => {
                // Taken between the look at the word and that at `head`; or it was part of a receiver's
                // claim whose word was written over, and the claim ended without it.
                return Err(match self.end_left_behind(ticket, found) {
                    true => ClaimError::Corrupt(Fault::Slot),
                    false => ClaimError::Full(None),
                });
            }
            // The lap before is over for the senders, and nobody has taken it.
            (Taken::Returned { .. }, -1) | (Taken::Done, -2) => None,
            _ => return Err(ClaimError::Corrupt(Fault::Slot)),
        };
        let ticket = ticket.wrapping_sub(self.geometry.mask + 1);
        Err(ClaimError::Full(Some(Holder { owner, ticket, word: found })))
    }

    /// Whether receivers have gone on beyond the last lap of this slot.
    #[cold]
    fn is_left_behind(&self, ticket: u64) -> bool {
        let last = ticket.wrapping_sub(self.geometry.mask + 1);
        // Acquire: what took the slot, if anything did, is visible to the swap that follows.
        let head = self.memory.head().load_acquire() & (TICKETS - 1);
        head.wrapping_sub(last).cast_signed() > 0
    }

    /// Ends the last lap of a slot that was left behind: nobody else comes to it. A sender comes here after
    /// all of the claim that covers the slot was released, so that without damage the word has changed
    /// since it was found. Returns whether it had not.
    #[cold]
    fn end_left_behind(&self, ticket: u64, found: u64) -> bool {
        let done = Taken::Done.word(self.geometry.lap(ticket).before());
        let is_ended = self.memory.taken(self.geometry.index(ticket)).replace(found, done).is_ok();
        if is_ended {
            announce_returns(&self.memory);
        }
        is_ended
    }
}

/// [`Sender::one`].
fn one_of(owner: Owner) -> u64 {
    Sent::Writing { owner, run: 1 }.word(Lap::default())
}

/// R21, both, pair with A21 in Receiver::try_take. The flag first: the slot is this sender's until the
/// senders' word says otherwise, and a flag stored later might hit a claim of the next lap.
#[inline(always)]
fn settle_slot<W: SlotWord>(flag: &W, sent: &W, word: u64) {
    flag.store_release(word);
    crate::fault::point(crate::fault::Point::Flagged);
    sent.store_release(word);
}
