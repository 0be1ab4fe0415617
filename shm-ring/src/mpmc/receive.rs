//! The receiver's half: claims messages, shows them, gives their slots back.

use super::cursor::Cursor;
use super::memory::{SlotMemory, SlotWord};
use super::word::{self, Lap, Owner, RUN_MAX, Sent, Taken};
use super::{Geometry, Holder, STEPS_PER_HINT, TICKETS, back_off, leading};
use crate::error::Fault;
use crate::memory::Access;

/// How many slots ahead a receiver in a stream asks for what it will read.
const TAKE_AHEAD: u64 = 8;

/// How many slots ahead one that takes single messages asks for the receivers' words that it will swap: senders look at
/// those of a lap before they use it again, and a swap waits for its line. Measured with one sender and one receiver,
/// with and without: 34 and 20 M messages of 8 bytes a second, 35 and 22 M of 64; two and two 35 and 25 M, 37 and
/// 25 M.
const SWAP_AHEAD: u64 = 32;

/// How many runs ahead a receiver in a stream of batches asks for both, all the lines of as long a run. Measured with
/// batches of 32, one sender and one receiver, in a loop that is not in the tree: without, 6.5 ns a message of 8 bytes
/// and 8.8 of 64, with 1, 2 and 3 4.1, 4.0 and 4.1, and 7.6, 7.7 and 7.8; with 2, and the last line of each run asked for
/// as well, 4.2 and 6.5. A request with each message that is shown instead, 64 slots ahead: 4.2 to 5.2, and 6.4.
const RUNS_AHEAD: u64 = 2;

/// So many takes in a row are a stream.
const STREAK: u8 = 3;

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeError {
    /// No message; or the next one is not published yet, and by whom it is held up.
    Empty(Option<Holder>),
    /// The memory makes no sense.
    Corrupt(Fault),
}

impl From<Fault> for TakeError {
    fn from(fault: Fault) -> Self {
        Self::Corrupt(fault)
    }
}

/// A message that this receiver has claimed, to be read before [`Receiver::release`].
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Its bytes.
    pub payload: *const u8,
    /// How many.
    pub len: usize,
    /// Its place in the queue, from 0; some places are never taken.
    pub ticket: u64,
    /// Whether another receiver may have had it before.
    pub redelivered: bool,
}

/// The slots that a receiver has claimed. Small, since each message stores it twice, and a swap waits for all
/// stores before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Held {
    first: u64,
    /// Of each of those that are `alike`.
    bytes: u32,
    /// Those from the front that are known to have `bytes` bytes, for which a slot has room, and to be no
    /// redeliveries.
    alike: u8,
    /// Slots; 0: no claim.
    len: u8,
    /// Those from the front that were looked at.
    used: u8,
    redelivered: bool,
}

// A claim of `RUN_MAX` slots can be told.
const _: () = assert!(RUN_MAX <= u8::MAX as u64);

/// The receiver's half of the algorithm. At most one claim at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receiver<M> {
    memory: M,
    owner: Owner,
    /// How it claims one slot: the word, but for the lap.
    one: u64,
    geometry: Geometry,
    /// Where a claim begins that this receiver has not made, as far as it knows the next one.
    cursor: Cursor,
    /// The number of returns up to which all that was returned has been found.
    returns: u64,
    /// Whether there may be more.
    may_return: bool,
    /// Takes since the last time that nothing was there, up to [`STREAK`].
    streak: u8,
    held: Held,
}

impl<M: SlotMemory> Receiver<M> {
    /// A receiver with nothing claimed. `owner` is this participant's alone, and was swept.
    pub fn new(memory: M, owner: Owner) -> Self {
        let geometry = Geometry::of(memory.slots());
        let cursor = Cursor::new(&geometry, memory.head());
        Self {
            memory,
            owner,
            one: one_of(owner),
            geometry,
            cursor,
            returns: 0,
            may_return: true,
            streak: 0,
            held: Held::default(),
        }
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

    /// How many messages anybody has taken, as far as this receiver knows.
    pub fn seen(&self) -> u64 {
        self.cursor.next()
    }

    /// Messages claimed and not released.
    #[inline(always)]
    pub fn held(&self) -> u64 {
        self.held.len.into()
    }

    /// Those of them that were looked at.
    #[inline(always)]
    pub fn used(&self) -> u64 {
        self.held.used.into()
    }

    /// Whether another receiver may have had what is held.
    #[inline(always)]
    pub fn is_redelivered(&self) -> bool {
        self.held.redelivered
    }

    /// Claims up to `most` messages (at least 1) that are there. Call only with nothing claimed.
    #[inline(always)]
    pub fn try_take(&mut self, most: u64) -> Result<(), TakeError> {
        debug_assert!(self.held.len == 0 && most >= 1);
        let taken = match most {
            1 => self.take_one_at_once(self.memory.room() + 1).is_some(),
            _ => self.take_run_at_once(most),
        };
        if taken {
            Ok(())
        } else if self.sees_nothing() {
            Err(TakeError::Empty(None))
        } else {
            self.take_in_doubt(most)
        }
    }

    /// As [`Self::try_take`], as it nearly always is: messages are there and nobody else took them. False, and nothing
    /// taken: there is none, or look closer.
    #[inline(always)]
    fn take_run_at_once(&mut self, most: u64) -> bool {
        if self.may_return || self.cursor.is_far() {
            return false;
        }
        let (first, lap) = (self.cursor.next(), self.cursor.lap());
        // A21, pairs with R21 in settle_slot.
        let found = self.memory.flag(self.geometry.index(first)).load_acquire();
        // So that its caller need not look at the length again.
        let fits = word::ready_len(found) <= self.memory.room();
        word::is_ready(found, lap) && fits && self.take(found, most).is_ok()
    }

    /// Takes one message, as it nearly always is, and shows it: as [`Self::try_take`] and [`Self::message`]. `None`, and
    /// nothing taken: there is none, something is held already, it has not less than `below` bytes, which are at most
    /// one more than a slot has room for; or look closer. Its own straight line, as `Sender::claim_one_at_once`.
    #[inline(always)]
    pub fn take_one_at_once(&mut self, below: u64) -> Option<Message> {
        if self.may_return || self.held.len > 0 || self.cursor.is_far() {
            return None;
        }
        let (first, lap) = (self.cursor.next(), self.cursor.lap());
        let index = self.geometry.index(first);
        // Before the swap: behind it the compiler would have all that it comes from read again.
        let payload = self.memory.payload(index).cast_const();
        // A21, pairs with R21 in settle_slot.
        let found = self.memory.flag(index).load_acquire();
        let bytes = word::ready_len(found);
        if !word::is_ready(found, lap) || bytes >= below {
            return None;
        }
        let taken = self.memory.taken(index);
        // As `ask_for`, but of one message at a time.
        if self.streak == STREAK {
            self.memory.prefetch_ahead::<TAKE_AHEAD>(payload, Access::Read);
            self.memory.prefetch_taken_ahead::<SWAP_AHEAD>(taken);
        } else {
            self.streak += 1;
            self.memory.prefetch(index, Access::Read);
        }
        let untouched = Taken::Done.word(lap.before());
        if taken.replace(untouched, word::in_lap(self.one, lap)).is_err() {
            return None;
        }
        crate::fault::point(crate::fault::Point::Taken);
        self.held = Held { first, bytes: bytes as u32, alike: 1, len: 1, ..Held::default() };
        if self.cursor.claimed(first, 1, &self.geometry, self.memory.head()) {
            self.notice_returns();
        }
        self.memory.touch(index, Access::Read);
        Some(Message { payload, len: bytes as usize, ticket: first, redelivered: false })
    }

    /// As [`Self::try_take`], whatever is in the way.
    #[cold]
    #[inline(never)]
    fn take_in_doubt(&mut self, most: u64) -> Result<(), TakeError> {
        // The senders' words are on lines that senders write more often than they publish: they are for
        // those who doubt, and for what the flag does not tell.
        let doubts = self.may_return;
        if doubts && self.take_returned()? {
            return Ok(());
        }
        let mut failures = 0;
        let mut taken = 0;
        for _ in 0..self.geometry.patience() {
            self.memory.forget([2, u64::from(taken % STEPS_PER_HINT), doubts.into()]);
            let (first, lap) = (self.cursor.next(), self.cursor.lap());
            let index = self.geometry.index(first);
            // A21, pairs with R21 in settle_slot.
            let mut found = self.memory.flag(index).load_acquire();
            let mut given_up = false;
            if !word::is_ready(found, lap) {
                if word::is_settled(found, lap.before()) && !doubts {
                    return Err(TakeError::Empty(None));
                }
                // A21, as above. If it is ready, the flag was written over, or stored just now.
                found = self.memory.sent(index).load_acquire();
                if !word::is_ready(found, lap) {
                    given_up = self.is_given_up(first, found, &mut taken)?;
                    if !given_up {
                        continue;
                    }
                }
            }
            self.keep_hint();
            let swapped = if given_up { self.swap(1, Taken::Done) } else { self.take(found, most) };
            match swapped {
                Ok(()) if given_up => {}
                Ok(()) => return Ok(()),
                Err(found) => {
                    self.step_over(first, found, &mut taken)?;
                    back_off(failures);
                    failures += 1;
                }
            }
        }
        Err(TakeError::Empty(None))
    }

    /// Claims up to `most` messages, the first of which is ready, as `found` says.
    #[inline(always)]
    fn take(&mut self, found: u64, most: u64) -> Result<(), u64> {
        let first = self.cursor.next();
        let bytes = word::ready_len(found);
        let (len, alike) = self.ready_from(first, bytes, most);
        let alike = if bytes > self.memory.room() { 0 } else { alike };
        self.ask_for(first, len, bytes);
        self.swap(len, Taken::Reading { owner: self.owner, run: len })?;
        self.hold(first, len, bytes, alike);
        Ok(())
    }

    /// What was just claimed.
    #[inline(always)]
    fn hold(&mut self, first: u64, len: u64, bytes: u64, alike: u64) {
        crate::fault::point(crate::fault::Point::Taken);
        if self.streak < STREAK {
            self.streak += 1;
        }
        let (len, alike, bytes) = (len as u8, alike as u8, bytes as u32);
        self.held = Held { first, bytes, alike, len, used: 0, redelivered: false };
    }

    /// Swaps the receivers' word of the first of so many slots.
    #[inline(always)]
    fn swap(&mut self, len: u64, claim: Taken) -> Result<(), u64> {
        let (first, lap) = (self.cursor.next(), self.cursor.lap());
        let untouched = Taken::Done.word(lap.before());
        self.memory.taken(self.geometry.index(first)).replace(untouched, claim.word(lap))?;
        if self.cursor.claimed(first, len, &self.geometry, self.memory.head()) {
            self.notice_returns();
        }
        Ok(())
    }

    /// Looks whether messages of the dead came back since the last look; the next
    /// [`Self::try_take`] then begins with those. Returns whether some may have.
    #[inline(always)]
    pub fn notice_returns(&mut self) -> bool {
        if self.memory.returns().load_relaxed() != self.returns {
            self.may_return = true;
        }
        self.may_return
    }

    /// Has the next [`Self::try_take`] look everywhere. For now and then, when nothing comes: a word that
    /// was written over may have parted the senders from the receivers.
    #[inline(always)]
    pub fn doubt(&mut self) {
        self.may_return = true;
    }

    /// Who has claimed the next slot and not published it. For now and then: the word is on a line that
    /// senders write.
    pub fn held_up_by(&self) -> Option<Holder> {
        let ticket = self.cursor.next();
        let found = self.memory.sent(self.geometry.index(ticket)).load_acquire();
        match Sent::read(found) {
            Ok(Sent::Writing { owner, .. }) if word::lap(found) == self.cursor.lap() => {
                Some(Holder { owner: Some(owner), ticket, word: found })
            }
            _ => None,
        }
    }

    /// Who has the oldest message that was taken and not released, so that it may still come back. For those
    /// who found nothing to take.
    #[cold]
    pub fn held_elsewhere(&self) -> Option<Holder> {
        let end = self.cursor.next();
        // From the oldest: when the first word of a claim no longer covers the others, those tell themselves.
        (0..=self.geometry.mask).rev().find_map(|back| {
            let ticket = end.wrapping_sub(back + 1);
            // A22, as in Sender::look_ahead.
            let word = self.memory.taken(self.geometry.index(ticket)).load_acquire();
            if word::lap(word) != self.geometry.lap(ticket) {
                return None;
            }
            match Taken::read(word).ok()? {
                Taken::Reading { owner, .. } | Taken::Again { owner, .. } => {
                    Some(Holder { owner: Some(owner), ticket, word })
                }
                Taken::Returned { .. } => Some(Holder { owner: None, ticket, word }),
                Taken::Done => None,
            }
        })
    }

    /// How many of the slots from ticket `from` on to the next claim are free for senders again.
    #[cold]
    pub fn over_since(&self, from: u64) -> u64 {
        let end = self.cursor.next();
        let from = from.max(end.saturating_sub(self.geometry.mask + 1));
        let is_over = |ticket: &u64| {
            let word = self.memory.taken(self.geometry.index(*ticket)).load_relaxed();
            word == Taken::Done.word(self.geometry.lap(*ticket))
        };
        (from..end).filter(is_over).count() as u64
    }

    /// Whether messages came one after the other until just now. Asked once after each such streak.
    #[inline(always)]
    pub fn ends_streak(&mut self) -> bool {
        std::mem::take(&mut self.streak) == STREAK
    }

    /// Whether [`Self::try_take`] would find nothing: one load.
    #[inline(always)]
    pub fn sees_nothing(&self) -> bool {
        word::is_settled(self.next_flag(), self.cursor.lap().before()) && !self.may_return
    }

    /// The same for those who have found nothing and look again. A message as long as the last is asked for while its
    /// flag is on its way.
    #[inline(always)]
    pub fn still_sees_nothing(&self) -> bool {
        let next = self.cursor.next();
        let last = self.memory.flag(self.geometry.index(next.wrapping_sub(1))).load_relaxed();
        let flag = self.memory.look_again(self.geometry.index(next), word::ready_len(last));
        word::is_settled(flag, self.cursor.lap().before()) && !self.may_return
    }

    /// Whether there is a message after those claimed, unless another receiver takes it.
    #[inline]
    pub fn sees_more(&self) -> bool {
        word::is_ready(self.next_flag(), self.cursor.lap())
    }

    #[inline(always)]
    fn next_flag(&self) -> u64 {
        self.memory.flag(self.geometry.index(self.cursor.next())).load_relaxed()
    }

    /// The first message of the claim that was not looked at.
    #[inline(always)]
    pub fn message(&self) -> Result<Option<Message>, Fault> {
        match self.message_at_once() {
            Some(message) => Ok(Some(message)),
            None => self.message_in_doubt(),
        }
    }

    /// As [`Self::message`], of one whose length is known; `None`: ask that.
    #[inline(always)]
    pub fn message_at_once(&self) -> Option<Message> {
        let Held { first, used, alike, bytes, .. } = self.held;
        (used < alike).then(|| self.show(first + u64::from(used), bytes.into(), false))
    }

    /// As [`Self::message`], whatever is known.
    #[inline(never)]
    fn message_in_doubt(&self) -> Result<Option<Message>, Fault> {
        let Held { first, len, used, redelivered, .. } = self.held;
        if used == len {
            return Ok(None);
        }
        let ticket = first + u64::from(used);
        Ok(Some(self.show(ticket, self.published(ticket)?, redelivered)))
    }

    #[inline(always)]
    fn show(&self, ticket: u64, bytes: u64, redelivered: bool) -> Message {
        let index = self.geometry.index(ticket);
        self.memory.touch(index, Access::Read);
        let payload = self.memory.payload(index).cast_const();
        Message { payload, len: bytes as usize, ticket, redelivered }
    }

    /// Steps over the message that [`Self::message`] showed.
    #[inline(always)]
    pub fn advance(&mut self) {
        debug_assert!(self.held.used < self.held.len);
        self.held.used += 1;
    }

    /// How many messages from that on, in slots that follow each other in memory, [`Self::message_at_once`] shows.
    #[inline(always)]
    pub fn alike_in_line(&self) -> u64 {
        let Held { first, used, alike, .. } = self.held;
        let to_end = self.geometry.mask + 1 - self.geometry.index(first + u64::from(used));
        u64::from(alike.saturating_sub(used)).min(to_end)
    }

    /// Steps over one of those. Returns its ticket, and its bytes.
    #[inline(always)]
    pub fn advance_alike(&mut self) -> (u64, usize) {
        let Held { first, used, alike, bytes, .. } = self.held;
        debug_assert!(used < alike);
        self.held.used += 1;
        (first + u64::from(used), bytes as usize)
    }

    /// Gives back a claim of one message, whether it was looked at or not, that is no redelivery. False: the
    /// claim is none such, and stays.
    #[inline(always)]
    pub fn release_one(&mut self) -> bool {
        let Held { len, redelivered, .. } = self.held;
        let is_one = len == 1 && !redelivered;
        if is_one {
            self.release_only();
        }
        is_one
    }

    /// Gives back what was stepped over. The rest of the claim stays. Returns how many slots.
    #[inline(always)]
    pub fn release(&mut self) -> u64 {
        let Held { len, used, .. } = self.held;
        if len > 1 {
            self.release_run();
        } else if used == 1 {
            self.release_only();
        }
        used.into()
    }

    /// Gives back the one slot that is claimed.
    #[inline(always)]
    fn release_only(&mut self) {
        let first = self.held.first;
        self.memory.touch(self.geometry.index(first), Access::Read);
        self.store(first, Taken::Done);
        self.held = Held::default();
    }

    #[cold]
    fn release_run(&mut self) {
        let Held { first, len, used, alike, bytes, .. } = self.held;
        if used == 0 {
            return;
        }
        let behind = first + u64::from(used);
        if used < len {
            // A claim of its own, before the one that covers it ends.
            let rest = Taken::Reading { owner: self.owner, run: (len - used).into() };
            self.store(behind, rest);
        }
        // The first goes last: until then senders stay before it, and receivers step over all.
        let taken = self.memory.taken_at();
        for (lap, slots) in self.geometry.pieces(first, used.into()).into_iter().rev() {
            let done = Taken::Done.word(lap);
            for index in slots.rev() {
                self.memory.touch(index, Access::Read);
                // R22, as in `store`.
                taken(index).store_release(done);
                crate::fault::point(crate::fault::Point::Releasing);
            }
        }
        self.held = Held::default();
        if used < len {
            let (alike, len) = (alike.saturating_sub(used), len - used);
            self.held = Held { first: behind, bytes, alike, len, ..Held::default() };
        }
    }

    /// How many bytes the sender said of a slot that was claimed already, perhaps by another receiver.
    fn published(&self, ticket: u64) -> Result<u64, Fault> {
        let index = self.geometry.index(ticket);
        let lap = self.geometry.lap(ticket);
        // A21, as in try_take.
        let mut word = self.memory.flag(index).load_acquire();
        if !word::is_ready(word, lap) {
            // A flag that was written over.
            word = self.memory.sent(index).load_acquire();
        }
        let len = word::ready_len(word);
        if word::is_ready(word, lap) && len <= self.memory.room() {
            Ok(len)
        } else {
            Err(Fault::Slot)
        }
    }

    /// Leaves: what was looked at is released, the rest goes to whoever comes. Returns how many went.
    pub fn give_back(&mut self) -> u64 {
        self.release();
        let Held { first, len, .. } = std::mem::take(&mut self.held);
        let len = u64::from(len);
        for ticket in (0..len).rev().map(|behind| first.wrapping_add(behind)) {
            self.store(ticket, Taken::Returned { attempt: 1 });
        }
        if len > 0 {
            announce_returns(&self.memory);
        }
        len
    }

    /// R22, pairs with A22 in Sender::look_ahead.
    #[inline(always)]
    fn store(&self, ticket: u64, state: Taken) {
        let index = self.geometry.index(ticket);
        self.memory.taken(index).store_release(state.word(self.geometry.lap(ticket)));
    }

    /// Asks for the line of a message that is about to be taken, while the swap waits for the stores before it.
    /// Measured: 442 and 429 ns, as in Sender::claim. In a stream that was mostly asked for before, and the lines of a
    /// run ahead are: only there, as a receiver which keeps up would ask for what is about to be written.
    #[inline(always)]
    fn ask_for(&self, ticket: u64, len: u64, bytes: u64) {
        if self.streak < STREAK {
            self.memory.prefetch(self.geometry.index(ticket), Access::Read);
            return;
        }
        let ahead = (RUNS_AHEAD * len).max(TAKE_AHEAD);
        if ahead + len > self.geometry.mask {
            // Round a small queue that would be the run itself.
            return;
        }
        let index = self.geometry.index(ticket + ahead);
        self.memory.prefetch_run(index, len, bytes.min(self.memory.room()), Access::Read);
        self.memory.prefetch_taken_run(index, len, Access::Write);
    }

    /// How many messages are there in a row, of which the first has so many bytes; and how many at least, from
    /// the front, have as many.
    #[inline(always)]
    fn ready_from(&self, first: u64, bytes: u64, most: u64) -> (u64, u64) {
        if most == 1 {
            return (1, 1);
        }
        let most = most.min(self.geometry.run_max());
        let [(lap, slots), (next_lap, more)] = self.geometry.pieces(first + 1, most - 1);
        let expected = Sent::Ready { len: bytes }.word(lap);
        // A21, all, as in try_take.
        let flag = self.memory.flags_at();
        let same = leading(slots.clone(), |index| flag(index).load_acquire() == expected);
        let alike = 1 + same;
        let mut ready = alike;
        for index in slots.start + same..slots.end {
            if !word::is_ready(flag(index).load_acquire(), lap) {
                return (ready, alike);
            }
            ready += 1;
        }
        for index in more {
            if !word::is_ready(flag(index).load_acquire(), next_lap) {
                return (ready, alike);
            }
            ready += 1;
        }
        (ready, alike)
    }

    /// Whether the slot holds no message and never will in this lap; false: look at `next` again.
    #[cold]
    fn is_given_up(&mut self, ticket: u64, found: u64, taken: &mut u32) -> Result<bool, TakeError> {
        let state = match Sent::read(found) {
            Ok(state) => state,
            Err(fault) => return self.pass_over(ticket, fault, taken),
        };
        match (word::lap(found).since(self.geometry.lap(ticket)), state) {
            (0, Sent::Nothing) => Ok(true),
            (0, Sent::Writing { owner, .. }) => {
                Err(TakeError::Empty(Some(Holder { owner: Some(owner), ticket, word: found })))
            }
            // Its sender may have set the flag of the last lap, and not settled its word yet.
            (-1, _) => Err(TakeError::Empty(None)),
            (1.., _) => {
                let found = self.memory.taken(self.geometry.index(ticket)).load_acquire();
                self.step_over(ticket, found, taken)?;
                Ok(false)
            }
            _ if self.catch_up(ticket, taken)? => Ok(false),
            _ => Err(Fault::Slot.into()),
        }
    }

    /// Where words were written over, the others may have gone on beyond the place at which this one waits:
    /// steps over a place that receivers have passed, and passes over one that senders have. False: neither.
    #[cold]
    fn catch_up(&mut self, ticket: u64, taken: &mut u32) -> Result<bool, TakeError> {
        let lap = self.geometry.lap(ticket);
        let index = self.geometry.index(ticket);
        let found = self.memory.taken(index).load_acquire();
        let state = Taken::read(found);
        if state.is_ok() && word::lap(found).since(lap) >= 0 {
            self.keep_hint();
            self.step_over(ticket, found, taken)?;
            return Ok(true);
        }
        // Acquire: whoever moved it beyond this place had seen it claimed, and so does the look that follows.
        let tail = self.memory.tail().load_acquire() & (TICKETS - 1);
        let sent = self.memory.sent(index).load_acquire();
        let is_left_out = tail.wrapping_sub(ticket).cast_signed() > 0
            && word::lap(sent).since(lap) < 0
            && matches!(Sent::read(sent), Ok(Sent::Nothing | Sent::Ready { .. }));
        let is_held = matches!(state, Ok(state) if state != Taken::Done);
        if !is_left_out || is_held {
            return Ok(false);
        }
        if self.memory.taken(index).replace(found, Taken::Done.word(lap)).is_ok() {
            self.cursor.skip(1, &self.geometry);
            self.keep_hint();
            announce_returns(&self.memory);
        }
        Err(Fault::Slot.into())
    }

    /// A senders' word that nobody writes: this lap of the slot is over, and that is told once. The slot
    /// is of use again in the next.
    #[cold]
    fn pass_over(&mut self, ticket: u64, fault: Fault, taken: &mut u32) -> Result<bool, TakeError> {
        let lap = self.geometry.lap(ticket);
        self.keep_hint();
        let own_word = self.memory.taken(self.geometry.index(ticket));
        match own_word.replace(Taken::Done.word(lap.before()), Taken::Done.word(lap)) {
            Ok(()) => {
                self.cursor.skip(1, &self.geometry);
                announce_returns(&self.memory);
                Err(fault.into())
            }
            Err(found) => {
                self.step_over(ticket, found, taken)?;
                Ok(false)
            }
        }
    }

    #[inline(always)]
    fn keep_hint(&mut self) {
        self.cursor.keep_hint(&self.geometry, self.memory.head());
    }

    /// Another receiver has the slot, or had it: on to the next claim.
    #[cold]
    fn step_over(&mut self, ticket: u64, found: u64, taken: &mut u32) -> Result<(), TakeError> {
        let state = match Taken::read(found) {
            Ok(state) => state,
            Err(fault) => {
                // A word that nobody writes: as above.
                self.keep_hint();
                let own_word = self.memory.taken(self.geometry.index(ticket));
                let done = Taken::Done.word(self.geometry.lap(ticket));
                if own_word.replace(found, done).is_ok() {
                    self.cursor.skip(1, &self.geometry);
                    announce_returns(&self.memory);
                }
                return Err(fault.into());
            }
        };
        match word::lap(found).since(self.geometry.lap(ticket)) {
            0 => {
                *taken += 1;
                let run = if let Taken::Reading { run, .. } = state { run } else { 1 };
                self.cursor.step_over(run, *taken, &self.geometry, self.memory.head());
                Ok(())
            }
            1.. => {
                // Others went round. The hint lags by less than a lap, so it is ahead of here.
                if self.cursor.follow_hint(&self.geometry, self.memory.head()) {
                    Ok(())
                } else {
                    Err(Fault::Hint.into())
                }
            }
            // The senders are further than that. It was part of a receiver's claim whose word was
            // written over: the claim ended without it.
            laps => {
                let lap = self.geometry.lap(ticket);
                if state == Taken::Done {
                    let over = if laps == -1 { lap } else { lap.before() };
                    let own_word = self.memory.taken(self.geometry.index(ticket));
                    let _ = own_word.replace(found, Taken::Done.word(over));
                }
                Err(Fault::Slot.into())
            }
        }
    }

    /// Looks through all slots for a message that came back, and claims it.
    #[cold]
    fn take_returned(&mut self) -> Result<bool, TakeError> {
        // A23, pairs with R23 in announce_returns. Before the look: what comes back later counts
        // anew.
        let returns = self.memory.returns().load_acquire();
        for index in 0..=self.geometry.mask {
            self.memory.forget([3, index, returns]);
            let own_word = self.memory.taken(index);
            let found = own_word.load_acquire();
            // What makes no sense is for those to tell who come to it.
            let Ok(Taken::Returned { attempt }) = Taken::read(found) else { continue };
            let lap = word::lap(found);
            if own_word
                .replace(found, Taken::Again { owner: self.owner, attempt }.word(lap))
                .is_err()
            {
                continue;
            }
            let laps = lap.since(self.cursor.lap());
            let first = self.geometry.ticket(index, self.cursor.next(), laps);
            self.held = Held { first, len: 1, redelivered: true, ..Held::default() };
            return Ok(true);
        }
        self.returns = returns;
        self.may_return = false;
        let mut taken = 0;
        for step in 0..=self.geometry.mask {
            self.memory.forget([4, step, taken.into()]);
            if !self.catch_up(self.cursor.next(), &mut taken)? {
                break;
            }
        }
        Ok(false)
    }
}

/// [`Receiver::one`].
fn one_of(owner: Owner) -> u64 {
    Taken::Reading { owner, run: 1 }.word(Lap::default())
}

/// Tells receivers that messages may have come back, or that a place was passed over at which they may
/// wait. After they have, or it was.
pub(super) fn announce_returns<M: SlotMemory>(memory: &M) {
    let returns = memory.returns();
    let mut old = returns.load_relaxed();
    // R23, pairs with A23 in Receiver::take_returned.
    while let Err(found) = returns.replace(old, old.wrapping_add(1)) {
        old = found;
    }
}
