//! The floor under any round trip: one 64-bit atomic each way, nothing else. A message is written
//! over an older one and its first word, which is its sequence number too, is stored last.
//! Ping-pong only: with one message's room there is no stream.
//!
//! The pair of lines is another one every 64 trips. On a mesh the address decides how far a line
//! travels: 32 pairs, measured in turn by the same two threads on a Xeon, took 245 to 308 ns and kept
//! their order from pass to pass. One pair would be a lottery ticket, drawn anew for each run, while
//! a ring walks over all addresses.
#![allow(clippy::disallowed_types)] // A floor under `ringway-shm` can't be built of its parts.

use crate::payload::{SEQ, Seen, check, fill};
use crate::plan::Fault;
use crate::poll::{Paused, Poll, Tight};
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use std::marker::PhantomData;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// Polled without a pause.
pub(crate) fn open_tight(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => CacheLine<N, Tight>)
}

/// Polled as the ring polls.
pub(crate) fn open_paused(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => CacheLine<N, Paused>)
}

/// Shared bytes for messages of `size`.
pub(crate) fn arena_len(size: usize, _capacity: usize) -> usize {
    2 * spots(size) * spot_len(size)
}

/// Messages in a row that use the same place.
const STAY: u64 = 64;

/// Places for a message, each way: a power of two. Large messages have enough addresses in one.
const fn spots(size: usize) -> usize {
    if size >= 4096 { 1 } else { 64 }
}

/// A message, and the line that the prefetcher may take along with it.
const fn spot_len(size: usize) -> usize {
    (size + 64).next_multiple_of(128)
}

struct CacheLine<const N: usize, P>(PhantomData<P>);

impl<const N: usize, P: Poll + 'static> Link for CacheLine<N, P> {
    type Tx = Writer<N>;
    type Rx = Reader<N, P>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Writer<N>, Fault> {
        Ok(Writer { spots: Spots::of(place, lane) })
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Reader<N, P>, Fault> {
        Ok(Reader { spots: Spots::of(place, lane), seq: 0, poll: P::default() })
    }
}

struct Writer<const N: usize> {
    spots: Spots<N>,
}

impl<const N: usize> Tx for Writer<N> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let word = first | mark;
        let spot = self.spots.of_seq(first & SEQ);
        // SAFETY: N bytes, mapped for good (`Region`). The reader looks behind the first word only
        // between this store of it and its answer, and this side writes only after that answer.
        unsafe { fill(slice::from_raw_parts_mut(spot.add(8), N - 8), word.wrapping_add(1)) };
        flag(spot).store(word, Ordering::Release); // C1: pairs with C2 in `recv`
        Ok(())
    }
}

struct Reader<const N: usize, P> {
    spots: Spots<N>,
    /// The last one read. They count up from 1, so the next one's word was never there before.
    seq: u64,
    poll: P,
}

impl<const N: usize, P: Poll> Rx for Reader<N, P> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let next = self.seq + 1;
        let spot = self.spots.of_seq(next);
        // C2: pairs with C1 in `send`
        while flag(spot).load(Ordering::Acquire) & SEQ != next {
            self.poll.missed();
        }
        self.poll.met();
        self.seq = next;
        // SAFETY: N bytes, mapped for good; the writer leaves them alone until our answer.
        Ok(check::<N>(unsafe { slice::from_raw_parts(spot, N) }))
    }
}

/// One way's places.
#[derive(Clone, Copy)]
struct Spots<const N: usize> {
    first: *mut u8,
}

impl<const N: usize> Spots<N> {
    fn of(place: &Place<'_>, lane: Lane) -> Spots<N> {
        let len = spots(N) * spot_len(N);
        let start = if lane == Lane::There { 0 } else { len };
        Spots { first: place.region.part(start, len).base() }
    }

    #[inline(always)]
    fn of_seq(self, seq: u64) -> *mut u8 {
        let index = (seq / STAY) as usize % spots(N);
        // SAFETY: the index is below the number of places that `of` found inside of the region.
        unsafe { self.first.add(index * spot_len(N)) }
    }
}

fn flag(spot: *mut u8) -> &'static AtomicU64 {
    // SAFETY: page-aligned plus a multiple of 128, mapped for good, at least 8 bytes; both processes
    // use this word as an atomic while the other may write it.
    unsafe { AtomicU64::from_ptr(spot.cast()) }
}
