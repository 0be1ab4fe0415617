//! The receiver's half: claims messages, shows them, gives their slots back.

use super::memory::{SlotMemory, SlotWord};
use super::word::{self, Lap, Owner, Sent, Taken};
use super::{Geometry, Holder, STEPS_PER_HINT, TICKETS, back_off, help, look};
use crate::error::Fault;
use crate::memory::Access;

/// How many slots ahead a receiver in a stream asks for what it will read.
const TAKE_AHEAD: u64 = 8;

/// How many slots ahead it asks for the receivers' words that it will swap: senders look at those of a lap
/// before they use it again, and a swap waits for its line. Measured with one sender and one receiver, with
/// and without: 34 and 20 M messages of 8 bytes a second, 35 and 22 M of 64; two and two 35 and 25 M, 37 and
/// 25 M.
const SWAP_AHEAD: u64 = 32;

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

/// What a short look for messages found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// They are claimed.
    Taken,
    /// There is none.
    Nothing,
    /// Something that takes a closer look.
    Doubt,
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

/// The slots that a receiver has claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Held {
    first: u64,
    /// Slots; 0: no claim.
    len: u64,
    /// Those from the front that were looked at.
    used: u64,
    /// Those from the front that are known to have `bytes` bytes, for which a slot has room, and to be no
    /// redeliveries.
    alike: u64,
    bytes: u64,
    redelivered: bool,
}

/// The receiver's half of the algorithm. At most one claim at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receiver<M> {
    memory: M,
    owner: Owner,
    geometry: Geometry,
    /// Where a claim begins that this receiver has not made, as far as it knows the next one.
    next: u64,
    /// The hint as last seen.
    hint: u64,
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
        let hint = look(memory.head());
        Self {
            memory,
            owner,
            geometry,
            next: hint,
            hint,
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
        Self { owner, ..self.clone() }
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// How many messages anybody has taken, as far as this receiver knows.
    pub fn seen(&self) -> u64 {
        self.next
    }

    /// Messages claimed and not released.
    #[inline(always)]
    pub fn held(&self) -> u64 {
        self.held.len
    }

    /// Those of them that were looked at.
    #[inline(always)]
    pub fn used(&self) -> u64 {
        self.held.used
    }

    /// Whether another receiver may have had what is held.
    #[inline(always)]
    pub fn is_redelivered(&self) -> bool {
        self.held.redelivered
    }

    /// Claims up to `most` messages (at least 1) that are there. Call only with nothing claimed.
    #[inline(always)]
    pub fn try_take(&mut self, most: u64) -> Result<(), TakeError> {
        match self.take_at_once(most) {
            Glance::Taken => Ok(()),
            Glance::Nothing => Err(TakeError::Empty(None)),
            Glance::Doubt => self.take_in_doubt(most),
        }
    }

    /// As [`Self::try_take`], as it nearly always is: a message is there and nobody else took it, or nothing
    /// is there.
    #[inline(always)]
    pub fn take_at_once(&mut self, most: u64) -> Glance {
        debug_assert!(self.held.len == 0 && most >= 1);
        if self.may_return {
            return Glance::Doubt;
        }
        let first = self.next;
        let lap = self.geometry.lap(first);
        // A21, pairs with R21 in settle_slot.
        let found = self.memory.flag(self.geometry.index(first)).load_acquire();
        if word::is_ready(found, lap) {
            // So that its caller need not look at the length again.
            let fits = word::ready_len(found) <= self.memory.room();
            if fits && !self.is_far(first) && self.take(first, lap, found, most).is_ok() {
                return Glance::Taken;
            }
        } else if word::is_settled(found, lap.before()) {
            return Glance::Nothing;
        }
        Glance::Doubt
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
            let first = self.next;
            let index = self.geometry.index(first);
            let lap = self.geometry.lap(first);
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
            self.keep_hint(first);
            let swapped = if given_up {
                self.swap(first, lap, 1, Taken::Done)
            } else {
                self.take(first, lap, found, most)
            };
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
    fn take(&mut self, first: u64, lap: Lap, found: u64, most: u64) -> Result<(), u64> {
        // While the swap waits for the stores before it. Measured: 442 and 429 ns, as in Sender::claim.
        self.memory.prefetch(self.geometry.index(first), Access::Read);
        let bytes = word::ready_len(found);
        let (len, alike) = self.ready_from(first, bytes, most);
        let alike = if bytes > self.memory.room() { 0 } else { alike };
        self.swap(first, lap, len, Taken::Reading { owner: self.owner, run: len })?;
        self.ask_ahead(first);
        crate::fault::point(crate::fault::Point::Taken);
        self.held = Held { first, len, used: 0, alike, bytes, redelivered: false };
        Ok(())
    }

    /// Swaps the receivers' word of the first of so many slots.
    #[inline(always)]
    fn swap(&mut self, first: u64, lap: Lap, len: u64, claim: Taken) -> Result<(), u64> {
        let untouched = Taken::Done.word(lap.before());
        self.memory.taken(self.geometry.index(first)).replace(untouched, claim.word(lap))?;
        self.next = first + len;
        if self.geometry.moves_hint(first, self.next) {
            self.hint = help(self.memory.head(), self.next);
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
        let ticket = self.next;
        let found = self.memory.sent(self.geometry.index(ticket)).load_acquire();
        match Sent::read(found) {
            Ok(Sent::Writing { owner, .. }) if word::lap(found) == self.geometry.lap(ticket) => {
                Some(Holder { owner: Some(owner), ticket, word: found })
            }
            _ => None,
        }
    }

    /// Whether messages came one after the other until just now. Asked once after each such streak.
    #[inline(always)]
    pub fn ends_streak(&mut self) -> bool {
        std::mem::take(&mut self.streak) == STREAK
    }

    /// Whether [`Self::try_take`] would find nothing: one load, for those who look again and again.
    #[inline(always)]
    pub fn sees_nothing(&self) -> bool {
        let found = self.memory.flag(self.geometry.index(self.next)).load_relaxed();
        word::is_settled(found, self.geometry.lap(self.next).before()) && !self.may_return
    }

    /// Whether there is a message after those claimed, unless another receiver takes it.
    #[inline]
    pub fn sees_more(&self) -> bool {
        let found = self.memory.flag(self.geometry.index(self.next)).load_relaxed();
        word::is_ready(found, self.geometry.lap(self.next))
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
        (used < alike).then(|| self.show(first + used, bytes, false))
    }

    /// As [`Self::message`], whatever is known.
    #[inline(never)]
    fn message_in_doubt(&self) -> Result<Option<Message>, Fault> {
        let Held { first, len, used, redelivered, .. } = self.held;
        if used == len {
            return Ok(None);
        }
        let ticket = first + used;
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
        used
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
        if used < len {
            // A claim of its own, before the one that covers it ends.
            let rest = Taken::Reading { owner: self.owner, run: len - used };
            self.store(first + used, rest);
        }
        // The first goes last: until then senders stay before it, and receivers step over all.
        for (lap, slots) in self.geometry.pieces(first, used).into_iter().rev() {
            let done = Taken::Done.word(lap);
            for (index, taken) in slots.clone().rev().zip(self.memory.taken_words(slots).rev()) {
                self.memory.touch(index, Access::Read);
                // R22, as in `store`.
                taken.store_release(done);
                crate::fault::point(crate::fault::Point::Releasing);
            }
        }
        self.held = Held::default();
        if used < len {
            let (first, len) = (first + used, len - used);
            let alike = alike.saturating_sub(used);
            self.held = Held { first, len, alike, bytes, ..Held::default() };
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

    /// In a stream only: the lines that a receiver which keeps up would ask for are about to be written.
    #[inline(always)]
    fn ask_ahead(&mut self, ticket: u64) {
        if self.streak < STREAK {
            self.streak += 1;
        } else {
            self.memory.prefetch(self.geometry.index(ticket + TAKE_AHEAD), Access::Read);
            self.memory.prefetch_taken(self.geometry.index(ticket + SWAP_AHEAD));
        }
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
        let mut words = self.memory.flags(slots).map(SlotWord::load_acquire);
        let mut alike = 1;
        let other = loop {
            match words.next() {
                Some(word) if word == expected => alike += 1,
                other => break other,
            }
        };
        let mut ready = alike;
        for word in other.into_iter().chain(words) {
            if !word::is_ready(word, lap) {
                return (ready, alike);
            }
            ready += 1;
        }
        for word in self.memory.flags(more).map(SlotWord::load_acquire) {
            if !word::is_ready(word, next_lap) {
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
            self.keep_hint(ticket);
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
            self.next = ticket + 1;
            self.keep_hint(self.next);
            announce_returns(&self.memory);
        }
        Err(Fault::Slot.into())
    }

    /// A senders' word that nobody writes: this lap of the slot is over, and that is told once. The slot
    /// is of use again in the next.
    #[cold]
    fn pass_over(&mut self, ticket: u64, fault: Fault, taken: &mut u32) -> Result<bool, TakeError> {
        let lap = self.geometry.lap(ticket);
        self.keep_hint(ticket);
        let own_word = self.memory.taken(self.geometry.index(ticket));
        match own_word.replace(Taken::Done.word(lap.before()), Taken::Done.word(lap)) {
            Ok(()) => {
                self.next = ticket + 1;
                announce_returns(&self.memory);
                Err(fault.into())
            }
            Err(found) => {
                self.step_over(ticket, found, taken)?;
                Ok(false)
            }
        }
    }

    /// Moves the hint if a claim at `first` would be too far beyond it.
    #[inline(always)]
    fn keep_hint(&mut self, first: u64) {
        if self.is_far(first) {
            self.hint = help(self.memory.head(), first);
        }
    }

    /// Whether a claim at `first` would be too far beyond the hint.
    #[inline(always)]
    fn is_far(&self, first: u64) -> bool {
        first.wrapping_sub(self.hint).cast_signed() >= self.geometry.reach.cast_signed()
    }

    /// Another receiver has the slot, or had it: on to the next claim.
    #[cold]
    fn step_over(&mut self, ticket: u64, found: u64, taken: &mut u32) -> Result<(), TakeError> {
        let state = match Taken::read(found) {
            Ok(state) => state,
            Err(fault) => {
                // A word that nobody writes: as above.
                self.keep_hint(ticket);
                let own_word = self.memory.taken(self.geometry.index(ticket));
                let done = Taken::Done.word(self.geometry.lap(ticket));
                if own_word.replace(found, done).is_ok() {
                    self.next = ticket + 1;
                    announce_returns(&self.memory);
                }
                return Err(fault.into());
            }
        };
        match word::lap(found).since(self.geometry.lap(ticket)) {
            0 => {
                *taken += 1;
                self.next += if let Taken::Reading { run, .. } = state { run } else { 1 };
                if taken.is_multiple_of(STEPS_PER_HINT) {
                    self.hint = look(self.memory.head());
                    self.next = self.next.max(self.hint);
                }
                Ok(())
            }
            1.. => {
                // Others went round. The hint lags by less than a lap, so it is ahead of here.
                self.hint = look(self.memory.head());
                if self.hint <= self.next {
                    return Err(Fault::Hint.into());
                }
                self.next = self.hint;
                Ok(())
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
            let laps = lap.since(self.geometry.lap(self.next));
            let first = self.geometry.ticket(index, self.next, laps);
            self.held = Held { first, len: 1, redelivered: true, ..Held::default() };
            return Ok(true);
        }
        self.returns = returns;
        self.may_return = false;
        let mut taken = 0;
        for step in 0..=self.geometry.mask {
            self.memory.forget([4, step, taken.into()]);
            if !self.catch_up(self.next, &mut taken)? {
                break;
            }
        }
        Ok(false)
    }
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
