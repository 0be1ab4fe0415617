//! The floor under any wake-up: the sender always wakes, the receiver always sleeps, on the first
//! word of the message itself. Ping-pong only.
#![allow(clippy::disallowed_types)] // A floor under `ringway-shm` can't be built of its parts.

use crate::arena::Region;
use crate::payload::{Seen, check, fill};
use crate::plan::Fault;
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use std::io;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Futex<N>)
}

/// Shared bytes for messages of `size`: one message each way.
pub(crate) fn arena_len(size: usize, _capacity: usize) -> usize {
    2 * lane_len(size)
}

fn lane_len(size: usize) -> usize {
    size.next_multiple_of(64) + 192
}

struct Futex<const N: usize>;

impl<const N: usize> Link for Futex<N> {
    type Tx = Waker<N>;
    type Rx = Sleeper<N>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Waker<N>, Fault> {
        Ok(Waker { message: message(place, lane) })
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Sleeper<N>, Fault> {
        Ok(Sleeper { message: message(place, lane), last: 0 })
    }
}

fn message(place: &Place<'_>, lane: Lane) -> Region {
    let len = lane_len(place.seat.size);
    place.region.part(if lane == Lane::There { 0 } else { len }, place.seat.size)
}

struct Waker<const N: usize> {
    message: Region,
}

impl<const N: usize> Tx for Waker<N> {
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let word = first | mark;
        // SAFETY: N bytes, mapped for good (`Region`). The reader looks behind the first word only
        // between this store of it and its answer, and this side writes only after that answer.
        unsafe {
            let rest = slice::from_raw_parts_mut(self.message.base().add(8), N - 8);
            fill(rest, word.wrapping_add(1));
        }
        word_at(self.message).store(word, Ordering::Release); // F1: pairs with F2 in `recv`
        futex(self.message, libc::FUTEX_WAKE, 1)
    }
}

struct Sleeper<const N: usize> {
    message: Region,
    last: u64,
}

impl<const N: usize> Rx for Sleeper<N> {
    fn recv(&mut self) -> Result<Seen, Fault> {
        loop {
            let word = word_at(self.message).load(Ordering::Acquire); // F2: pairs with F1 in `send`
            if word != self.last {
                self.last = word;
                // SAFETY: N bytes, mapped for good; the writer leaves them alone until our answer.
                let bytes = unsafe { slice::from_raw_parts(self.message.base(), N) };
                return Ok(check::<N>(bytes));
            }
            // Sequence numbers follow each other, so the low half changes with every message.
            futex(self.message, libc::FUTEX_WAIT, word as u32)?;
        }
    }
}

fn word_at(message: Region) -> &'static AtomicU64 {
    // SAFETY: page-aligned plus a multiple of 64, mapped for good, at least 8 bytes; both processes
    // use this word as an atomic while the other may write it.
    unsafe { AtomicU64::from_ptr(message.base().cast()) }
}

/// A shared futex on the low half of the message's first word.
fn futex(message: Region, operation: libc::c_int, value: u32) -> Result<(), Fault> {
    let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
    // SAFETY: the address is a mapped, aligned u32; no time-out and no second word are passed.
    let done = unsafe {
        let address = message.base().add(low_half);
        libc::syscall(libc::SYS_futex, address, operation, value, ptr::null::<libc::timespec>())
    };
    if done >= 0 {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        // The word changed before we slept, or a signal came: look again.
        Some(libc::EAGAIN | libc::EINTR) => Ok(()),
        _ => Err(Fault::new(format!("futex: {e}"))),
    }
}
