//! The memory a queue lives in, as the algorithm sees it. `BoxedMemory` is heap memory for tests and
//! models; mapped memory is in the segment. No algorithm here.

use crate::memory::Access;
use crate::sync::Word;

/// A shared word: [`Word`], or a model's, that counts each access as a step.
pub trait SlotWord {
    /// Reads without ordering anything.
    fn load_relaxed(&self) -> u64;
    /// Reads; what the matching release published is visible afterwards.
    fn load_acquire(&self) -> u64;
    /// Writes without ordering anything.
    fn store_relaxed(&self, value: u64);
    /// Writes, after everything before it.
    fn store_release(&self, value: u64);
    /// Writes `new` if the word holds `old`, else returns what it holds. Acquires and releases.
    fn replace(&self, old: u64, new: u64) -> Result<(), u64>;
}

impl SlotWord for Word {
    #[inline(always)]
    fn load_relaxed(&self) -> u64 {
        self.load_relaxed()
    }
    #[inline(always)]
    fn load_acquire(&self) -> u64 {
        self.load_acquire()
    }
    #[inline(always)]
    fn store_relaxed(&self, value: u64) {
        self.store_relaxed(value);
    }
    #[inline(always)]
    fn store_release(&self, value: u64) {
        self.store_release(value);
    }
    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.replace(old, new)
    }
}

/// What the algorithm needs of the memory under it. All words are zero in a new queue.
///
/// # Safety
/// For as long as the value lives: `slots` is a constant power of two, at least 2; for every index
/// below it `payload` returns a pointer that is valid for `room` bytes, which overlap no other slot's;
/// `payloads` yields what `payload` does for the same slots; and the queue stays where it is when the
/// value moves.
pub unsafe trait SlotMemory {
    /// Its words.
    type Word: SlotWord;
    /// How many slots.
    fn slots(&self) -> u64;
    /// Bytes that a message may have.
    fn room(&self) -> u64;
    /// The senders' word of a slot.
    fn sent(&self, index: u64) -> &Self::Word;
    /// What a receiver looks at first, on the line of the message: the senders' word as it was when the
    /// slot was last settled.
    fn flag(&self, index: u64) -> &Self::Word;
    /// The receivers' word of a slot.
    fn taken(&self, index: u64) -> &Self::Word;
    /// The message's bytes.
    fn payload(&self, index: u64) -> *mut u8;
    /// A ticket at or before the next that a sender will claim.
    fn tail(&self) -> &Self::Word;
    /// A ticket at or before the next that a receiver will claim.
    fn head(&self) -> &Self::Word;
    /// Counts the sweeps that may have left messages to deliver again.
    fn returns(&self) -> &Self::Word;
    /// Counts the messages that died with their receivers.
    fn dropped(&self) -> &Self::Word;
    /// The messages' bytes of `count` slots, at most all there are, from `index` on, across the queue's end
    /// if need be, to be written; with each, the lines of a slot are asked for, from `ahead` on.
    #[inline(always)]
    fn payloads(&self, index: u64, ahead: u64, count: u64) -> impl Iterator<Item = *mut u8> {
        let mask = self.slots() - 1;
        (0..count).map(move |more| {
            self.prefetch((ahead + more) & mask, Access::Write);
            self.touch((index + more) & mask, Access::Write);
            self.payload((index + more) & mask)
        })
    }
    /// The flags by their slots: [`Self::flag`], for loops over many. With what it works with in registers: a store
    /// to one of the words might, for all the compiler knows, change `self`.
    #[inline(always)]
    fn flags_at<'a>(&'a self) -> impl Fn(u64) -> &'a Self::Word {
        |index| self.flag(index)
    }
    /// Their senders' words, likewise.
    #[inline(always)]
    fn sent_at<'a>(&'a self) -> impl Fn(u64) -> &'a Self::Word {
        |index| self.sent(index)
    }
    /// Their receivers' words, likewise.
    #[inline(always)]
    fn taken_at<'a>(&'a self) -> impl Fn(u64) -> &'a Self::Word {
        |index| self.taken(index)
    }
    /// Asks for the slot's lines, to be written or read soon. A hint: does nothing by itself.
    #[inline(always)]
    fn prefetch(&self, index: u64, access: Access) {
        let _ = (index, access);
    }
    /// The same for the slot that is so many behind the one of that payload, unless the queue's end is between.
    #[inline(always)]
    fn prefetch_ahead<const SLOTS: u64>(&self, payload: *const u8, access: Access) {
        let _ = (payload, access);
    }
    /// Asks for the line of the receivers' word that is so many slots behind this one, to be written soon: a hint, too.
    #[inline(always)]
    fn prefetch_taken_ahead<const SLOTS: u64>(&self, taken: &Self::Word) {
        let _ = taken;
    }
    /// Asks for the lines of messages of so many bytes in `count` slots from that one on, as far as the queue's end: a
    /// hint, too.
    #[inline(always)]
    fn prefetch_run(&self, index: u64, count: u64, bytes: u64, access: Access) {
        let _ = (index, count, bytes, access);
    }
    /// The same for the receivers' words.
    #[inline(always)]
    fn prefetch_taken_run(&self, index: u64, count: u64, access: Access) {
        let _ = (index, count, access);
    }
    /// The flag, for those who look again and again: orders nothing. If it is on its way from another core, the
    /// lines of so many bytes of the message may be asked for.
    #[inline(always)]
    fn look_again(&self, index: u64, bytes: u64) -> u64 {
        let _ = bytes;
        self.flag(index).load_relaxed()
    }
    /// Tells a model that, of what the running call has read so far, nothing matters from here on but what
    /// is in the handle and in `kept`.
    #[inline(always)]
    fn forget(&self, kept: [u64; 3]) {
        let _ = kept;
    }
    /// Tells a model that the message is written or read between now and the next atomic operation.
    #[inline(always)]
    fn touch(&self, index: u64, access: Access) {
        let _ = (index, access);
    }
}

#[cfg(any(test, loom, feature = "testing"))]
pub use boxed::BoxedMemory;

#[cfg(any(test, loom, feature = "testing"))]
mod boxed {
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    use super::{Access, SlotMemory};
    use crate::sync::Word;

    /// A queue in heap memory that its participants share by cloning.
    #[derive(Clone, Debug)]
    pub struct BoxedMemory(Arc<Shared>);

    #[derive(Debug)]
    struct Shared {
        room: u64,
        sent: Box<[Word]>,
        flags: Box<[Word]>,
        taken: Box<[Word]>,
        bytes: Box<[UnsafeCell<u8>]>,
        #[cfg(loom)]
        touched: Box<[loom::cell::UnsafeCell<()>]>,
        tail: Word,
        head: Word,
        returns: Word,
        dropped: Word,
    }

    // SAFETY: the raw bytes are reached only through the queue's protocol, whose accesses `touch`
    // reports to loom; that is what the models check.
    unsafe impl Sync for Shared {}
    // SAFETY: as above; nothing in it belongs to a thread.
    unsafe impl Send for Shared {}

    impl BoxedMemory {
        /// A new queue of `slots` (a power of two, at least 2) messages of at most `room` bytes.
        pub fn new(slots: u64, room: u64) -> Self {
            assert!(slots.is_power_of_two() && slots >= 2);
            let words = || (0..slots).map(|_| Word::new(0)).collect();
            Self(Arc::new(Shared {
                room,
                sent: words(),
                flags: words(),
                taken: words(),
                bytes: (0..slots * room).map(|_| UnsafeCell::new(0)).collect(),
                #[cfg(loom)]
                touched: (0..slots).map(|_| loom::cell::UnsafeCell::new(())).collect(),
                tail: Word::new(0),
                head: Word::new(0),
                returns: Word::new(0),
                dropped: Word::new(0),
            }))
        }
    }

    // SAFETY: the boxed slices live as long as the Arc and never move; slot `index` has bytes
    // `index * room ..` of `slots * room`.
    unsafe impl SlotMemory for BoxedMemory {
        type Word = Word;

        fn slots(&self) -> u64 {
            self.0.sent.len() as u64
        }
        fn room(&self) -> u64 {
            self.0.room
        }
        fn sent(&self, index: u64) -> &Word {
            &self.0.sent[index as usize]
        }
        fn flag(&self, index: u64) -> &Word {
            &self.0.flags[index as usize]
        }
        fn taken(&self, index: u64) -> &Word {
            &self.0.taken[index as usize]
        }
        fn payload(&self, index: u64) -> *mut u8 {
            self.0.bytes[(index * self.0.room) as usize].get()
        }
        fn tail(&self) -> &Word {
            &self.0.tail
        }
        fn head(&self) -> &Word {
            &self.0.head
        }
        fn returns(&self) -> &Word {
            &self.0.returns
        }
        fn dropped(&self) -> &Word {
            &self.0.dropped
        }
        #[cfg(loom)]
        fn touch(&self, index: u64, access: Access) {
            let cell = &self.0.touched[index as usize];
            match access {
                Access::Read => cell.with(|_| ()),
                Access::Write => cell.with_mut(|_| ()),
            }
        }
        #[cfg(not(loom))]
        fn touch(&self, index: u64, _access: Access) {
            assert!(index < self.slots(), "outside the queue");
        }
    }
}
