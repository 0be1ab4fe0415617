//! The memory a ring lives in, as the algorithms see it: words, payload bytes, two pages of cursors.
//!
//! `BoxedMemory` is heap memory for tests and models; mapped memory is in `segment`. No algorithm
//! here.

use crate::error::Fault;
use crate::layout::{ConsumerPage, ProducerPage, RecordHeader};
use crate::sync::Word;

/// What an algorithm needs of the memory under it.
///
/// # Safety
/// For as long as the value lives: `word` returns a live word for every multiple of 8 below
/// `capacity`, `payload` a pointer that is valid up to the end of the ring and aligned to 16
/// whenever `offset` is; `capacity` is a constant power of two, and the ring stays where it is
/// when the value moves.
pub unsafe trait RingMemory {
    /// Bytes of ring.
    fn capacity(&self) -> u64;
    /// The word at `offset` bytes into the ring.
    fn word(&self, offset: u64) -> &Word;
    /// The same by way of `payload(0)`, for those who have that in a register, while behind a store all that
    /// this value knows would be looked up again.
    ///
    /// # Safety
    /// That is what `ring` is.
    #[inline(always)]
    unsafe fn word_from(&self, ring: *mut u8, offset: u64) -> &Word {
        let _ = ring;
        self.word(offset)
    }
    /// The producer's page, likewise.
    ///
    /// # Safety
    /// As for [`Self::word_from`].
    #[inline(always)]
    unsafe fn producer_from(&self, ring: *mut u8) -> &ProducerPage {
        let _ = ring;
        self.producer()
    }
    /// The bytes at `offset` into the ring. Writable for the side that writes the ring.
    fn payload(&self, offset: u64) -> *mut u8;
    /// The producer's page.
    fn producer(&self) -> &ProducerPage;
    /// The consumer's page.
    fn consumer(&self) -> &ConsumerPage;
    /// Up to where everybody who reads has given the ring back, as the writer asks for it, who has
    /// published everything below `published`.
    #[inline]
    fn released(&self, published: Boundary) -> Result<u64, Fault> {
        let _ = published;
        released_by(self.consumer())
    }
    /// Asks for the line at `offset`, and `AHEAD` bytes, to be written soon. A hint: does nothing by
    /// itself, and may be asked for what is outside of the ring.
    #[inline(always)]
    fn prefetch_write<const AHEAD: usize>(&self, offset: u64) {
        let _ = offset;
    }
    /// The same, to be read soon.
    #[inline(always)]
    fn prefetch_read(&self, offset: u64) {
        let _ = offset;
    }
    /// The word at `offset`, for those who look again and again: orders nothing. If it is on its way from another core, the
    /// lines behind its own may be asked for, up to the one of the byte at `last`.
    #[inline(always)]
    fn look_again(&self, offset: u64, last: u64) -> u64 {
        let _ = last;
        self.word(offset).load_relaxed()
    }
    /// Tells a model that the bytes are written or read between now and the next atomic operation.
    #[inline(always)]
    fn touch(&self, offset: u64, len: u64, access: Access) {
        let _ = (offset, len, access);
    }
}

/// How far one reader has given the ring back.
#[inline]
pub fn released_by(page: &ConsumerPage) -> Result<u64, Fault> {
    // A reader that gave the ring up will not release anything any more.
    if page.end.poisoned.load_relaxed() != 0 {
        return Err(Fault::Poisoned);
    }
    // A2, pairs with R2 in Reader::publish_head.
    Ok(page.gate.head.load_acquire())
}

/// Messages that the producer has published or queued in this segment.
pub fn sent_by(page: &ProducerPage) -> u64 {
    let counters = &page.counters;
    // A13, pairs with R13 in Writer::count: the number that follows is no older.
    let mut before = counters.sent_before.load_acquire();
    for _ in 0..LOOKS {
        // Acquire for what comes behind it, a second look that is not to be taken before.
        let next = RecordHeader(counters.next.load_acquire());
        let again = counters.sent_before.load_acquire();
        if again == before {
            return next.count_from(before);
        }
        before = again;
    }
    // Who is that often interrupted, for thousands of messages each time, tells what it knows.
    before
}

const LOOKS: u32 = 8;

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    /// Where.
    pub position: u64,
    /// Number of the first message behind it.
    pub sequence: u64,
}

/// What a message is touched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By who receives it, before release.
    Read,
    /// By who sends it, before publication.
    Write,
}

#[cfg(any(test, loom, feature = "testing"))]
pub use boxed::BoxedMemory;

#[cfg(any(test, loom, feature = "testing"))]
mod boxed {
    use std::sync::Arc;

    use super::{Access, Boundary, RingMemory, released_by};
    use crate::broadcast::{Gate, Hall, Posted};
    use crate::error::Fault;
    use crate::layout::{
        Bell, Board, Changes, ConsumerPage, End, Intent, MARKS, MAX_PARTICIPANTS, Mark, Newest,
        ProducerCounters, ProducerPage, Progress, RECORD_HEADER, RoleRecord, Roster,
    };
    use crate::layout::{Gate as GateLine, SIDE_RECEIVES};
    use crate::overwrite::Leash;
    use crate::spsc::Geometry;
    use crate::sync::{Word, Word32};

    /// A ring in heap memory that all sides share by cloning. [`Self::seat`] and [`Self::blocking`]
    /// make the views of a broadcast.
    #[derive(Clone, Debug)]
    pub struct BoxedMemory {
        shared: Arc<Shared>,
        /// Whose page is the consumer's.
        seat: usize,
        role: Role,
    }

    #[derive(Clone, Debug)]
    enum Role {
        /// An end of a ring of two, or a reader.
        Plain,
        /// The writer that waits for all readers.
        Blocking(Arc<Gate>),
        /// The writer that waits for none.
        Overwriting(Arc<Leash>),
    }

    #[derive(Debug)]
    struct Shared {
        words: Box<[Word]>,
        #[cfg(loom)]
        bytes: Box<[std::cell::UnsafeCell<u8>]>,
        #[cfg(loom)]
        touched: Box<[loom::cell::UnsafeCell<()>]>,
        producer: ProducerPage,
        consumers: Box<[ConsumerPage]>,
        /// Of a broadcast.
        hall: Option<Box<(Board, Roster)>>,
    }

    // SAFETY: the raw bytes are reached only through the ring's protocol, whose payload accesses
    // `touched` reports to loom; that is what the models check.
    #[cfg(loom)]
    unsafe impl Sync for Shared {}
    // SAFETY: as above; nothing in it belongs to a thread.
    #[cfg(loom)]
    unsafe impl Send for Shared {}

    fn zero() -> Word {
        Word::new(0)
    }

    fn end() -> End {
        End { state: zero(), poisoned: zero() }
    }

    fn bell() -> Bell {
        let zero = || Word32::new(0);
        Bell { state: zero(), rung: zero(), sleeps: zero() }
    }

    fn producer_page() -> ProducerPage {
        ProducerPage {
            end: end(),
            bell: bell(),
            counters: ProducerCounters {
                next: zero(),
                position: zero(),
                full_waits: zero(),
                parks: zero(),
                wakes: zero(),
                depth_max: zero(),
                sent_before: zero(),
            },
        }
    }

    fn consumer_page() -> ConsumerPage {
        ConsumerPage {
            gate: GateLine { head: zero() },
            bell: bell(),
            progress: Progress {
                received: zero(),
                lent: zero(),
                attached: zero(),
                parks: zero(),
                wakes: zero(),
                missed: zero(),
            },
            end: end(),
        }
    }

    fn role_record() -> RoleRecord {
        RoleRecord {
            epoch: zero(),
            state: zero(),
            pid: zero(),
            start: zero(),
            pid_ns: zero(),
            since_ns: zero(),
            command: [zero(), zero()],
            side: zero(),
            first: zero(),
        }
    }

    fn board() -> Board {
        Board {
            intent: Intent { limit: zero() },
            newest: Newest { number: zero(), evicted: zero() },
            expelled: [(); MAX_PARTICIPANTS].map(|()| zero()),
            marks: [(); MARKS].map(|()| Mark { position: zero(), sequence: zero() }),
        }
    }

    impl BoxedMemory {
        /// A zeroed ring of `capacity` bytes (a power of two, at least 64).
        pub fn new(capacity: u64) -> Self {
            Self::build(capacity, 1, None)
        }

        /// The memory of a broadcast of up to `seats` readers, none of them there.
        pub fn hall(capacity: u64, seats: usize) -> Self {
            let roster = Roster {
                changes: Changes { joins: zero() },
                records: [(); MAX_PARTICIPANTS].map(|()| role_record()),
            };
            Self::build(capacity, seats, Some(Box::new((board(), roster))))
        }

        fn build(capacity: u64, seats: usize, hall: Option<Box<(Board, Roster)>>) -> Self {
            assert!(capacity.is_power_of_two() && capacity >= 64);
            let shared = Shared {
                words: (0..capacity / 8).map(|_| zero()).collect(),
                #[cfg(loom)]
                bytes: (0..capacity).map(|_| std::cell::UnsafeCell::new(0)).collect(),
                #[cfg(loom)]
                touched: (0..capacity / 16).map(|_| loom::cell::UnsafeCell::new(())).collect(),
                producer: producer_page(),
                consumers: (0..seats).map(|_| consumer_page()).collect(),
                hall,
            };
            Self { shared: Arc::new(shared), seat: 0, role: Role::Plain }
        }

        /// The view of reader `seat`.
        pub fn seat_of(&self, seat: usize) -> Self {
            Self { seat, role: Role::Plain, ..self.clone() }
        }

        /// The view of a writer that waits for its readers.
        pub fn blocking(&self, geometry: Geometry, history: u64) -> Self {
            Self { role: Role::Blocking(Arc::new(Gate::new(geometry, history))), ..self.clone() }
        }

        /// The view of a writer that overwrites.
        pub fn overwriting(&self) -> Self {
            let leash = Leash::new(self.capacity());
            Self { role: Role::Overwriting(Arc::new(leash)), ..self.clone() }
        }

        /// Fills in the roster's entry as one does who joins.
        pub fn enter(&self, seat: usize) {
            let record = &self.roster().records[seat];
            record.side.store_relaxed(SIDE_RECEIVES);
            record.state.store_relaxed(crate::layout::ATTACHED);
            record.epoch.store_release(record.epoch.load_relaxed() + 1);
            let joins = &self.roster().changes.joins;
            joins.store_release(joins.load_relaxed() + 1);
        }

        fn parts(&self) -> &(Board, Roster) {
            self.shared.hall.as_deref().expect("made by `hall`")
        }
    }

    impl Posted for BoxedMemory {
        fn board(&self) -> &Board {
            &self.parts().0
        }
    }

    impl Hall for BoxedMemory {
        fn roster(&self) -> &Roster {
            &self.parts().1
        }

        fn seat(&self, id: usize) -> &ConsumerPage {
            &self.shared.consumers[id]
        }
    }

    // SAFETY: the boxed slices live as long as the Arc and never move; capacity / 8 words of 8
    // bytes are `capacity` bytes. Words are 8-aligned only, so `payload` is 16-aligned only when
    // the allocator says so: tests that rely on it use mapped memory.
    unsafe impl RingMemory for BoxedMemory {
        fn capacity(&self) -> u64 {
            self.shared.words.len() as u64 * 8
        }

        fn word(&self, offset: u64) -> &Word {
            &self.shared.words[usize::try_from(offset / 8).expect("offset within the ring")]
        }

        #[cfg(not(loom))]
        fn payload(&self, offset: u64) -> *mut u8 {
            self.shared.words.as_ptr().cast_mut().cast::<u8>().wrapping_add(offset as usize)
        }

        #[cfg(loom)]
        fn payload(&self, offset: u64) -> *mut u8 {
            self.shared.bytes.as_ptr().cast_mut().cast::<u8>().wrapping_add(offset as usize)
        }

        fn producer(&self) -> &ProducerPage {
            &self.shared.producer
        }

        fn consumer(&self) -> &ConsumerPage {
            &self.shared.consumers[self.seat]
        }

        fn released(&self, published: Boundary) -> Result<u64, Fault> {
            match &self.role {
                Role::Plain => released_by(self.consumer()),
                Role::Blocking(gate) => gate.look(self, published),
                Role::Overwriting(leash) => {
                    Ok(leash.lengthen(self.board(), self.capacity(), published))
                }
            }
        }

        #[cfg(loom)]
        fn touch(&self, offset: u64, len: u64, access: Access) {
            // Bytes that are overwritten under a reader are words, which loom sees by itself.
            if matches!(self.role, Role::Overwriting(_)) {
                return;
            }
            for granule in offset / 16..(offset + len).div_ceil(16) {
                let cell = &self.shared.touched[granule as usize];
                match access {
                    Access::Read => cell.with(|_| ()),
                    Access::Write => cell.with_mut(|_| ()),
                }
            }
        }

        #[cfg(not(loom))]
        fn touch(&self, offset: u64, len: u64, _access: Access) {
            assert!(offset >= RECORD_HEADER && offset + len <= self.capacity(), "outside the ring");
        }
    }
}
