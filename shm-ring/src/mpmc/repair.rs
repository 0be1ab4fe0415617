//! What the dead leave in the slots, and its repair: by anybody, at any time, any number at once.
//!
//! Each step is one swap of a word that names the dead for one that does not. It can't hit a living
//! claim, because the proof of death is got after the look at the word, and the word looked at again
//! after the proof: a participant's number passes on only when its words are gone.

use super::Geometry;
use super::memory::{SlotMemory, SlotWord};
use super::receive::announce_returns;
use super::word::{self, Lap, Owner, RUN_MAX, Sent, Taken};
use crate::error::Fault;

/// Who lives, as of now.
pub trait Living {
    /// Whether the participant is dead, by a proof that is no older than the call.
    fn is_dead(&self, owner: Owner) -> bool;
}

impl<F: Fn(Owner) -> bool> Living for F {
    fn is_dead(&self, owner: Owner) -> bool {
        self(owner)
    }
}

/// What becomes of a message whose receiver dies with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Redeliver {
    /// Another receiver gets it, flagged, out of its sender's order.
    #[default]
    Again,
    /// It is dropped, and counted.
    Drop,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Repaired {
    /// Claims of senders that were given up.
    pub given_up: u64,
    /// Messages that came back.
    pub returned: u64,
    /// Messages that were dropped.
    pub dropped: u64,
    /// A word that made no sense, if there was one. The others were repaired all the same.
    pub fault: Option<Fault>,
}

/// Looks through all slots for claims of `owner` and ends them, as long as `living` says that it is
/// dead. Whoever takes a participant's number does it before first use; it may say so itself then.
///
/// Afterwards receivers have been told to look for what came back, so that whoever is killed in the
/// middle of a sweep has told nobody that it was done.
pub fn sweep<M: SlotMemory>(
    memory: &M,
    owner: Owner,
    redeliver: Redeliver,
    living: &impl Living,
) -> Repaired {
    let repair = Repair { memory, geometry: Geometry::of(memory.slots()), redeliver, living };
    let mut done = Repaired::default();
    for index in 0..memory.slots() {
        memory.forget([5, 2 * index, done.fault.is_some().into()]);
        if let Err(fault) = repair.sent(index, owner, &mut done) {
            done.fault = Some(fault);
        }
        memory.forget([5, 2 * index + 1, done.fault.is_some().into()]);
        if let Err(fault) = repair.taken(index, owner, &mut done) {
            done.fault = Some(fault);
        }
    }
    memory.forget([5, 2 * memory.slots(), done.fault.is_some().into()]);
    announce_returns(memory);
    done
}

struct Repair<'a, M, L> {
    memory: &'a M,
    geometry: Geometry,
    redeliver: Redeliver,
    living: &'a L,
}

impl<M: SlotMemory, L: Living> Repair<'_, M, L> {
    /// A claim that was not published: no slot of it ever holds a message in its lap. Of one that was, what
    /// its sender would have done next.
    fn sent(&self, index: u64, dead: Owner, done: &mut Repaired) -> Result<(), Fault> {
        let own_word = self.memory.sent(index);
        let found = own_word.load_acquire();
        let Sent::Writing { owner, run } = Sent::read(found)? else { return Ok(()) };
        if owner != dead || !self.living.is_dead(dead) {
            return Ok(());
        }
        // After the proof, for its owner says nothing any more; and before the second look, for once somebody
        // else has ended the claim the flag may speak of the next lap, and not tell that this was published.
        let flag = self.memory.flag(index).load_acquire();
        if own_word.load_acquire() != found {
            return Ok(());
        }
        let lap = word::lap(found);
        if word::is_ready(flag, lap) {
            // Published; receivers may have come and gone. The rest of the claim was settled before.
            let _ = own_word.replace(found, flag);
            return Ok(());
        }
        for ticket in self.behind(index, found, run) {
            let index = self.geometry.index(ticket);
            self.give_up(self.memory.flag(index), self.geometry.lap(ticket));
            self.give_up(self.memory.sent(index), self.geometry.lap(ticket));
        }
        crate::fault::point(crate::fault::Point::Repairing);
        if word::is_settled(flag, lap.before()) {
            // So that receivers look further.
            let _ = self.memory.flag(index).replace(flag, Sent::Nothing.word(lap));
        }
        let repaired = own_word.replace(found, Sent::Nothing.word(lap)).is_ok();
        done.given_up += u64::from(repaired);
        Ok(())
    }

    /// A word of a slot behind the first of a dead sender's claim: untouched, or filled. Once it is neither
    /// it never is again: somebody was here before.
    fn give_up(&self, own_word: &M::Word, lap: Lap) {
        let found = own_word.load_acquire();
        if word::is_settled(found, lap.before()) || word::is_ready(found, lap) {
            let _ = own_word.replace(found, Sent::Nothing.word(lap));
        }
    }

    /// A claim that was not released, or in part: the rest of it comes back.
    fn taken(&self, index: u64, dead: Owner, done: &mut Repaired) -> Result<(), Fault> {
        let own_word = self.memory.taken(index);
        let found = own_word.load_acquire();
        let (owner, run, attempt) = match Taken::read(found)? {
            Taken::Reading { owner, run } => (owner, run, 0),
            Taken::Again { owner, attempt } => (owner, 1, attempt),
            Taken::Done | Taken::Returned { .. } => return Ok(()),
        };
        if owner != dead || !self.is_left(own_word, found, dead) {
            return Ok(());
        }
        for ticket in self.behind(index, found, run) {
            // Not released. Once it is anything else it never says this again.
            let untouched = Taken::Done.word(self.geometry.lap(ticket).before());
            self.end(ticket, untouched, 1, done);
        }
        crate::fault::point(crate::fault::Point::Repairing);
        let first = self.geometry.ticket(index, 0, word::lap(found).since(self.geometry.lap(0)));
        self.end(first, found, (attempt + 1).min(RUN_MAX), done);
        Ok(())
    }

    /// Ends a dead receiver's hold of a slot, if its word is still the one found.
    fn end(&self, ticket: u64, found: u64, attempt: u64, done: &mut Repaired) {
        let own_word = self.memory.taken(self.geometry.index(ticket));
        let lap = self.geometry.lap(ticket);
        match self.redeliver {
            Redeliver::Again => {
                let returned = Taken::Returned { attempt }.word(lap);
                done.returned += u64::from(own_word.replace(found, returned).is_ok());
            }
            Redeliver::Drop => {
                // Counted first: killed in between, this counts one too many, and never loses one.
                let dropped = self.memory.dropped();
                if own_word.load_relaxed() != found {
                    return;
                }
                add(dropped, 1);
                if own_word.replace(found, Taken::Done.word(lap)).is_ok() {
                    done.dropped += 1;
                } else {
                    add(dropped, u64::MAX);
                }
            }
        }
    }

    /// Whether `found` is what a dead participant left, and not what it did after the look.
    fn is_left(&self, own_word: &M::Word, found: u64, dead: Owner) -> bool {
        self.living.is_dead(dead) && own_word.load_acquire() == found
    }

    /// The tickets that a claim covers beyond its first, modulo 2^40 laps, from the last.
    fn behind(&self, index: u64, found: u64, run: u64) -> impl Iterator<Item = u64> {
        let laps = word::lap(found).since(self.geometry.lap(0));
        let first = self.geometry.ticket(index, 0, laps);
        (1..run.min(self.geometry.mask + 1)).rev().map(move |behind| first.wrapping_add(behind))
    }
}

fn add<W: SlotWord>(counter: &W, by: u64) {
    let mut old = counter.load_relaxed();
    while let Err(found) = counter.replace(old, old.wrapping_add(by)) {
        old = found;
    }
}
