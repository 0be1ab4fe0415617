//! The memory a ring lives in, as the algorithms see it: words, payload bytes, two pages of cursors.
//!
//! `BoxedMemory` is heap memory for tests and models; mapped memory is in `segment`. No algorithm
//! here.

use crate::error::Fault;
use crate::layout::{ConsumerPage, ProducerPage};
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
    /// The bytes at `offset` into the ring. Writable for the side that writes the ring.
    fn payload(&self, offset: u64) -> *mut u8;
    /// The producer's page.
    fn producer(&self) -> &ProducerPage;
    /// The consumer's page.
    fn consumer(&self) -> &ConsumerPage;
    /// Up to where everybody who reads has given the ring back, as the writer asks for it.
    #[inline]
    fn released(&self) -> Result<u64, Fault> {
        let page = self.consumer();
        // A reader that gave the ring up will not release anything any more.
        if page.end.poisoned.load_relaxed() != 0 {
            return Err(Fault::Poisoned);
        }
        // A2, pairs with R2 in Reader::publish_head.
        Ok(page.gate.head.load_acquire())
    }
    /// Asks for the line at `offset` to be written soon. A hint: does nothing by itself.
    #[inline(always)]
    fn prefetch_write(&self, offset: u64) {
        let _ = offset;
    }
    /// Tells a model that the bytes are written or read between now and the next atomic operation.
    #[inline(always)]
    fn touch(&self, offset: u64, len: u64, access: Access) {
        let _ = (offset, len, access);
    }
}

/// What a payload is touched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By the consumer, before release.
    Read,
    /// By the producer, before commit.
    Write,
}

#[cfg(any(test, loom, feature = "testing"))]
pub use boxed::BoxedMemory;

#[cfg(any(test, loom, feature = "testing"))]
mod boxed {
    use std::sync::Arc;

    use super::{Access, RingMemory};
    use crate::layout::{
        Bell, ConsumerPage, End, Gate, ProducerCounters, ProducerPage, Progress, RECORD_HEADER,
    };
    use crate::sync::{Word, Word32};

    /// A ring in heap memory that both sides share by cloning.
    #[derive(Clone, Debug)]
    pub struct BoxedMemory(Arc<Shared>);

    #[derive(Debug)]
    struct Shared {
        words: Box<[Word]>,
        #[cfg(loom)]
        bytes: Box<[std::cell::UnsafeCell<u8>]>,
        #[cfg(loom)]
        touched: Box<[loom::cell::UnsafeCell<()>]>,
        producer: ProducerPage,
        consumer: ConsumerPage,
    }

    // SAFETY: the raw bytes are reached only through the ring's protocol, whose payload accesses
    // `touched` reports to loom; that is what the models check.
    #[cfg(loom)]
    unsafe impl Sync for Shared {}
    // SAFETY: as above; nothing in it belongs to a thread.
    #[cfg(loom)]
    unsafe impl Send for Shared {}

    impl BoxedMemory {
        /// A zeroed ring of `capacity` bytes (a power of two, at least 64).
        pub fn new(capacity: u64) -> Self {
            assert!(capacity.is_power_of_two() && capacity >= 64);
            let zero = || Word::new(0);
            let zero32 = || Word32::new(0);
            let end = || End { state: zero(), poisoned: zero() };
            let bell = || Bell { asleep: zero32(), rung: zero32(), barrier: zero32() };
            Self(Arc::new(Shared {
                words: (0..capacity / 8).map(|_| zero()).collect(),
                #[cfg(loom)]
                bytes: (0..capacity).map(|_| std::cell::UnsafeCell::new(0)).collect(),
                #[cfg(loom)]
                touched: (0..capacity / 16).map(|_| loom::cell::UnsafeCell::new(())).collect(),
                producer: ProducerPage {
                    end: end(),
                    bell: bell(),
                    counters: ProducerCounters {
                        sent: zero(),
                        position: zero(),
                        full_waits: zero(),
                        parks: zero(),
                        wakes: zero(),
                        depth_max: zero(),
                    },
                },
                consumer: ConsumerPage {
                    gate: Gate { head: zero() },
                    bell: bell(),
                    progress: Progress {
                        received: zero(),
                        lent: zero(),
                        attached: zero(),
                        parks: zero(),
                        wakes: zero(),
                    },
                    end: end(),
                },
            }))
        }
    }

    // SAFETY: the boxed slices live as long as the Arc and never move; capacity / 8 words of 8
    // bytes are `capacity` bytes. Words are 8-aligned only, so `payload` is 16-aligned only when
    // the allocator says so: tests that rely on it use mapped memory.
    unsafe impl RingMemory for BoxedMemory {
        fn capacity(&self) -> u64 {
            self.0.words.len() as u64 * 8
        }

        fn word(&self, offset: u64) -> &Word {
            &self.0.words[usize::try_from(offset / 8).expect("offset within the ring")]
        }

        #[cfg(not(loom))]
        fn payload(&self, offset: u64) -> *mut u8 {
            self.0.words.as_ptr().cast_mut().cast::<u8>().wrapping_add(offset as usize)
        }

        #[cfg(loom)]
        fn payload(&self, offset: u64) -> *mut u8 {
            self.0.bytes.as_ptr().cast_mut().cast::<u8>().wrapping_add(offset as usize)
        }

        fn producer(&self) -> &ProducerPage {
            &self.0.producer
        }

        fn consumer(&self) -> &ConsumerPage {
            &self.0.consumer
        }

        #[cfg(loom)]
        fn touch(&self, offset: u64, len: u64, access: Access) {
            for granule in offset / 16..(offset + len).div_ceil(16) {
                let cell = &self.0.touched[granule as usize];
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
