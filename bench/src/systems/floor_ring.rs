//! The floor under a ring: in-band, one producer, one consumer; no checks, no counters, no types, no
//! way to tell who is there. It is what `ringway-shm` must come close to, and nobody's product: it
//! stays private to this program.
//!
//! A record is a header word (0 = not there yet) and a payload. The producer writes the payload,
//! zeroes the header after the record, then stores the record's header with Release.
#![allow(clippy::disallowed_types)] // A floor under `ringway-shm` can't be built of its parts.

use crate::arena::{PAGE, Region};
use crate::payload::{Seen, check, fill};
use crate::plan::Fault;
use crate::poll::{Paused, Poll, Tight};
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// Header and payload start.
const HEADER: usize = 8;
/// In a header: the rest of the lap is unused, go on at its start.
const PAD: u64 = 1 << 32;

/// Messages about a line long have the lines ahead of them asked for. Without, a ring that is larger than a core's own
/// cache is slower than `rtrb`, and no floor: 0.6 of its rate at 64 B in 4 MiB. For shorter ones the consumer alone asks.
const LINE_LONG: RangeInclusive<usize> = 48..=256;

/// How far ahead a producer asks.
const WRITES_AHEAD: usize = 4096;

/// How far ahead a consumer in a stream asks, if that is not more than a 32nd of the ring. In 4 MiB messages of 8 B have 1.5 times
/// the rate that they have without; at the distance of longer ones they are half as fast in 1 MiB.
const fn reads_ahead(len: usize) -> usize {
    if len < *LINE_LONG.start() { 2048 } else { 8192 }
}

/// Polled as Ringway's ring polls.
pub(crate) fn open_paused(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Ring<N, Paused>)
}

/// Polled without a pause.
pub(crate) fn open_tight(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Ring<N, Tight>)
}

/// Shared bytes: two rings, each behind a page for the consumer's position.
pub(crate) fn arena_len(_size: usize, capacity: usize) -> usize {
    2 * (PAGE + capacity)
}

/// Bytes from one record to the next. A record that fits into a line does not straddle two, which
/// shortens a round trip; a larger one straddles anyway, and what counts then is how many lines a
/// stream fills. Measured on a Xeon with 4 MiB rings: at 8 B multiples of 16 carry twice what
/// multiples of 64 do; at 48 B multiples of 8 make the round trip 1.17 times longer; at 64 B they
/// carry 1.1 times what multiples of 16 do and 1.7 times what multiples of 64 do.
const fn stride(len: usize) -> usize {
    let len = HEADER + len;
    if len <= 64 { len.next_multiple_of(16) } else { len.next_multiple_of(8) }
}

struct Ring<const N: usize, P>(PhantomData<P>);

impl<const N: usize, P: Poll + 'static> Link for Ring<N, P> {
    type Tx = Producer<N, P>;
    type Rx = Consumer<N, P>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Producer<N, P>, Fault> {
        let shared = Shared::of(place, lane);
        Ok(Producer { shared, tail: 0, gate: shared.capacity as u64, poll: P::default() })
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Consumer<N, P>, Fault> {
        let shared = Shared::of(place, lane);
        Ok(Consumer { shared, head: 0, told: 0, guess: 0, ahead: 0, poll: P::default() })
    }
}

/// Asks for a line to be written soon: a hint, which does nothing by itself.
#[inline(always)]
fn ask_to_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that the program could tell, and never faults, whatever the address.
    unsafe {
        std::arch::asm!("prefetchw [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The same of one to be read.
#[inline(always)]
fn ask_to_read(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `ask_to_write`.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Positions count bytes for ever; their place in the ring is the position modulo the capacity.
#[derive(Clone, Copy)]
struct Shared {
    /// Where the consumer tells its position, on a line of its own.
    head: &'static AtomicU64,
    data: *mut u8,
    /// A power of two, at least twice any record.
    capacity: usize,
}

impl Shared {
    fn of(place: &Place<'_>, lane: Lane) -> Shared {
        let capacity = place.seat.capacity;
        let start = if lane == Lane::There { 0 } else { PAGE + capacity };
        let head: Region = place.region.part(start, PAGE);
        let data = place.region.part(start + PAGE, capacity);
        // SAFETY: page-aligned, mapped for good, and an atomic to both processes.
        let head = unsafe { AtomicU64::from_ptr(head.base().cast()) };
        Shared { head, data: data.base(), capacity }
    }

    #[inline(always)]
    fn at(&self, position: u64) -> *mut u8 {
        // SAFETY: the sum is inside of the ring's bytes, since the capacity is a power of two.
        unsafe { self.data.add(position as usize & (self.capacity - 1)) }
    }

    #[inline(always)]
    fn header(&self, position: u64) -> &'static AtomicU64 {
        // SAFETY: strides are multiples of 8, and the capacity is one too, so these 8 bytes are
        // aligned, mapped for good, and an atomic to both processes.
        unsafe { AtomicU64::from_ptr(self.at(position).cast()) }
    }
}

struct Producer<const N: usize, P> {
    shared: Shared,
    tail: u64,
    /// Positions below it may be written, as far as known.
    gate: u64,
    poll: P,
}

impl<const N: usize, P: Poll> Producer<N, P> {
    /// Waits until `len` bytes and the header behind them can be written.
    #[inline(always)]
    fn room(&mut self, len: usize) {
        while self.tail + (len + HEADER) as u64 > self.gate {
            let head = self.shared.head.load(Ordering::Acquire); // H2: pairs with H1
            let gate = head + self.shared.capacity as u64;
            if gate == self.gate {
                self.poll.missed();
            }
            self.gate = gate;
        }
    }

    /// Skips the rest of the lap.
    #[inline(always)]
    fn wrap(&mut self, left: usize) {
        self.room(left);
        let start = self.tail;
        self.tail += left as u64;
        self.shared.header(self.tail).store(0, Ordering::Relaxed);
        self.shared.header(start).store(PAD | left as u64, Ordering::Release);
    }
}

impl<const N: usize, P: Poll> Tx for Producer<N, P> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let capacity = self.shared.capacity;
        let left = capacity - (self.tail as usize & (capacity - 1));
        if left < stride(N) {
            self.wrap(left);
        }
        self.room(stride(N));
        let start = self.tail;
        self.tail += stride(N) as u64;
        if LINE_LONG.contains(&N) {
            ask_to_write(self.shared.at(start + WRITES_AHEAD as u64));
        }
        // SAFETY: `room` and `wrap` made sure that these N bytes are in one piece and that the
        // consumer has given them back; it does not look at them before the header is stored.
        let payload = unsafe { slice::from_raw_parts_mut(self.shared.at(start).add(HEADER), N) };
        fill(payload, first | mark);
        self.shared.header(self.tail).store(0, Ordering::Relaxed);
        self.shared.header(start).store(N as u64, Ordering::Release); // R1: pairs with R2
        Ok(())
    }
}

struct Consumer<const N: usize, P> {
    shared: Shared,
    head: u64,
    /// The position last told to the producer.
    told: u64,
    /// The last record's length: the next is likely as long, and a guess is not waited for.
    guess: usize,
    /// How far ahead it asks for lines: not at all where it has found nothing lately, for those are the producer's.
    ahead: u64,
    poll: P,
}

impl<const N: usize, P: Poll> Consumer<N, P> {
    #[inline(always)]
    fn tell(&mut self) {
        if self.told != self.head {
            self.shared.head.store(self.head, Ordering::Release); // H1: pairs with H2
            self.told = self.head;
        }
    }
}

impl<const N: usize, P: Poll> Rx for Consumer<N, P> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        loop {
            let header = self.shared.header(self.head).load(Ordering::Acquire); // R2: pairs with R1
            if header == 0 {
                self.ahead = 0;
                self.tell();
                self.poll.missed();
                continue;
            }
            if header != self.guess as u64 {
                if header & PAD != 0 {
                    self.head += header & !PAD;
                    continue;
                }
                self.guess = header as usize;
            }
            self.poll.met();
            // SAFETY: the header says that the producer is done with these bytes, and it leaves them
            // alone until `tell` gives them back, which the lines below do after the last look.
            let payload =
                unsafe { slice::from_raw_parts(self.shared.at(self.head).add(HEADER), self.guess) };
            let seen = check::<N>(payload);
            self.head += stride(self.guess) as u64;
            if N <= *LINE_LONG.end() {
                ask_to_read(self.shared.at(self.head + self.ahead));
            }
            if self.head - self.told >= self.shared.capacity as u64 / 8 {
                self.tell();
                self.ahead = reads_ahead(N).min(self.shared.capacity / 32) as u64;
            }
            return Ok(seen);
        }
    }
}
