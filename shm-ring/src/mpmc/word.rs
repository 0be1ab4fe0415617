//! What the two words of a slot say. Bits only; who may write which is told in the parent module.

use crate::error::Fault;

/// Who has claimed: the number of a participant.
pub type Owner = u16;

/// Participants are numbered below this.
pub const OWNERS: u16 = 1 << 12;
/// Most slots that one claim covers.
pub const RUN_MAX: u64 = 255;
/// Messages are shorter than this.
pub const LEN_MAX: u64 = (1 << 20) - 1;

const OWNER_SHIFT: u32 = 4;
const COUNT_SHIFT: u32 = 16;
const LAP_SHIFT: u32 = 24;
const LAP_MASK: u64 = !((1 << LAP_SHIFT) - 1);
const STATE_MASK: u64 = 0xf;

const NOTHING: u64 = 0;
const WRITING: u64 = 1;
const READY: u64 = 2;

const DONE: u64 = 0;
const READING: u64 = 1;
const RETURNED: u64 = 2;
const READING_AGAIN: u64 = 3;

/// How often the ring has gone round, from 1; 0 is before the first time. Modulo 2^40: only
/// neighbours are ever compared. Kept where a word has it, for words are what it is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lap(u64);

impl Lap {
    /// Of a ticket in a ring of 2^`shift` slots.
    #[inline(always)]
    pub fn of(ticket: u64, shift: u32) -> Self {
        Self((ticket >> shift).wrapping_add(1) << LAP_SHIFT)
    }

    /// The one before.
    #[inline(always)]
    pub fn before(self) -> Self {
        Self(self.0.wrapping_sub(1 << LAP_SHIFT))
    }

    /// The one after.
    #[inline(always)]
    pub fn after(self) -> Self {
        Self(self.0.wrapping_add(1 << LAP_SHIFT))
    }

    /// How many laps after `other`; negative: before.
    #[inline(always)]
    pub fn since(self, other: Self) -> i64 {
        // The difference has its sign where an i64 has it.
        self.0.wrapping_sub(other.0).cast_signed() >> LAP_SHIFT
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        self.0
    }
}

/// The lap of either word.
#[inline(always)]
pub fn lap(word: u64) -> Lap {
    Lap(word & LAP_MASK)
}

/// The senders' word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// No message in this lap: given up by its sender, or taken from a dead one. Also how a slot begins,
    /// in lap 0.
    Nothing,
    /// Claimed, with the `run - 1` slots behind it, whose own words say nothing until this one does.
    Writing {
        /// By whom.
        owner: Owner,
        /// Slots.
        run: u64,
    },
    /// A message.
    Ready {
        /// Its bytes.
        len: u64,
    },
}

impl Sent {
    /// Reads a word; the lap beside it is [`lap`].
    #[inline(always)]
    pub fn read(word: u64) -> Result<Self, Fault> {
        match word & STATE_MASK {
            NOTHING => Ok(Self::Nothing),
            WRITING => Ok(Self::Writing { owner: owner(word), run: run(word)? }),
            READY => Ok(Self::Ready { len: word >> OWNER_SHIFT & LEN_MAX }),
            _ => Err(Fault::Slot),
        }
    }

    /// The word.
    #[inline(always)]
    pub fn word(self, lap: Lap) -> u64 {
        lap.bits()
            | match self {
                Self::Nothing => NOTHING,
                Self::Writing { owner, run } => claim(WRITING, owner, run),
                Self::Ready { len } => READY | len << OWNER_SHIFT,
            }
    }
}

/// A word of lap 0 in another one: what is the same in all laps need not be put together anew.
#[inline(always)]
pub fn in_lap(word: u64, lap: Lap) -> u64 {
    debug_assert!(word & LAP_MASK == 0);
    word | lap.bits()
}

/// Whether the word says that lap `lap` of the slot has a message, of whatever length.
#[inline(always)]
pub fn is_ready(word: u64, lap: Lap) -> bool {
    word & !(LEN_MAX << OWNER_SHIFT) == lap.bits() | READY
}

/// Bytes of the message that [`is_ready`].
#[inline(always)]
pub fn ready_len(word: u64) -> u64 {
    word >> OWNER_SHIFT & LEN_MAX
}

/// Whether the word says that lap `lap` of the slot was claimed and is over for the senders.
#[inline(always)]
pub fn is_settled(word: u64, lap: Lap) -> bool {
    // Of the states these two only have no bit but this one.
    word & !(LEN_MAX << OWNER_SHIFT | READY) == lap.bits() | NOTHING
}

/// The receivers' word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Taken {
    /// This lap is over, the slot is free for the next. Lap 0: the slot's beginning.
    Done,
    /// Claimed, with the `run - 1` slots behind it, whose own words say that the lap before is over.
    Reading {
        /// By whom.
        owner: Owner,
        /// Slots.
        run: u64,
    },
    /// To be delivered again: its reader died, or left without having looked at it.
    Returned {
        /// How often that has happened, up to 255.
        attempt: u64,
    },
    /// Claimed from [`Self::Returned`].
    Again {
        /// By whom.
        owner: Owner,
        /// As it was there.
        attempt: u64,
    },
}

impl Taken {
    /// Reads a word; the lap beside it is [`lap`].
    #[inline(always)]
    pub fn read(word: u64) -> Result<Self, Fault> {
        match word & STATE_MASK {
            DONE => Ok(Self::Done),
            READING => Ok(Self::Reading { owner: owner(word), run: run(word)? }),
            RETURNED => Ok(Self::Returned { attempt: count(word) }),
            READING_AGAIN => Ok(Self::Again { owner: owner(word), attempt: count(word) }),
            _ => Err(Fault::Slot),
        }
    }

    /// The word.
    #[inline(always)]
    pub fn word(self, lap: Lap) -> u64 {
        lap.bits()
            | match self {
                Self::Done => DONE,
                Self::Reading { owner, run } => claim(READING, owner, run),
                Self::Returned { attempt } => claim(RETURNED, 0, attempt),
                Self::Again { owner, attempt } => claim(READING_AGAIN, owner, attempt),
            }
    }
}

#[inline(always)]
fn claim(state: u64, owner: Owner, count: u64) -> u64 {
    debug_assert!(owner < OWNERS && count <= RUN_MAX);
    state | u64::from(owner) << OWNER_SHIFT | count << COUNT_SHIFT
}

#[inline(always)]
fn owner(word: u64) -> Owner {
    (word >> OWNER_SHIFT) as Owner & (OWNERS - 1)
}

#[inline(always)]
fn count(word: u64) -> u64 {
    word >> COUNT_SHIFT & RUN_MAX
}

#[inline(always)]
fn run(word: u64) -> Result<u64, Fault> {
    match count(word) {
        0 => Err(Fault::Slot),
        run => Ok(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        let last = Lap::of(u64::MAX, 0);
        for lap_ in [Lap::of(0, 0).before(), Lap::of(0, 0), Lap::of(77, 0), last] {
            for state in [
                Sent::Nothing,
                Sent::Writing { owner: OWNERS - 1, run: RUN_MAX },
                Sent::Writing { owner: 0, run: 1 },
                Sent::Ready { len: LEN_MAX },
                Sent::Ready { len: 0 },
            ] {
                let word = state.word(lap_);
                assert_eq!((Sent::read(word), lap(word)), (Ok(state), lap_));
                assert_eq!(in_lap(state.word(Lap::default()), lap_), word);
                let ready = matches!(state, Sent::Ready { .. });
                assert_eq!(is_ready(word, lap_), ready);
                assert!(!is_ready(word, lap_.before()));
                assert_eq!(is_settled(word, lap_), !matches!(state, Sent::Writing { .. }));
            }
            for state in [
                Taken::Done,
                Taken::Reading { owner: OWNERS - 1, run: RUN_MAX },
                Taken::Returned { attempt: 255 },
                Taken::Again { owner: 9, attempt: 1 },
            ] {
                let word = state.word(lap_);
                assert_eq!((Taken::read(word), lap(word)), (Ok(state), lap_));
            }
        }
    }

    #[test]
    fn what_nobody_writes_is_a_fault() {
        for word in [3, 15, WRITING, u64::MAX] {
            assert_eq!(Sent::read(word), Err(Fault::Slot));
        }
        for word in [4, 15, READING, u64::MAX] {
            assert_eq!(Taken::read(word), Err(Fault::Slot));
        }
    }

    #[test]
    fn laps_are_compared_across_the_end_of_their_numbers() {
        let (first, last) = (Lap::of(u64::MAX, 0), Lap::of(u64::MAX - 1, 0));
        assert_eq!((Sent::Nothing.word(first), Sent::Nothing.word(last)), (0, LAP_MASK));
        assert_eq!(first.since(last), 1);
        assert_eq!(last.since(first), -1);
        assert_eq!((first.before(), last.after()), (last, first));
        assert_eq!(Lap::of(5, 0).since(Lap::of(7, 0)), -2);
        assert_eq!(Lap::of(8, 3), Lap::of(1, 0));
    }
}
