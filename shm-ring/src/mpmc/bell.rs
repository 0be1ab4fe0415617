//! Sleeping and waking among many: a flag for each participant, so that a death leaves one flag up and
//! no count wrong.
//!
//! Who has published wakes as many sleepers as there is news for. The protocol is that of `wait`, with a
//! bit of one word in the place of each sleeper's own flag: whoever takes the bit down wakes, or has
//! slept enough. A waker that dies in between costs the sleeper the rest of its slice.

use std::time::Duration;

use crate::futex;
use crate::layout::Sleepers;
use crate::membarrier;
use crate::sync::{Dekker, Word32, compiler_fence, fence_store_load};

/// Says, on joining, whether this process can run a membarrier. Wakers need fences of their own for as
/// long as anybody came who can't.
pub fn attach(sleepers: &Sleepers) {
    if !membarrier::register() {
        sleepers.fences.store_release(1);
    }
}

/// Raises the flag of `seat`. The caller then looks once more at what it waits for, and calls [`sleep`]
/// or not, and [`awake`] in any case. Returns what to sleep on.
pub fn announce(sleepers: &Sleepers, seat: u16, rung: &Word32) -> u32 {
    // A24, pairs with R24 in wake_one. Before the flag: who sees the flag counts up from here or later.
    let seen = rung.load_acquire();
    set(sleepers, seat, true);
    // Pairs with the fence in wake, or, by the barrier, takes its place.
    fence_store_load(Dekker::Sleeper);
    if sleepers.fences.load_relaxed() == 0 && !membarrier::barrier() {
        // It worked when this participant came. What was published without a fence just now is found
        // when this sleep ends.
        sleepers.fences.store_release(1);
    }
    seen
}

/// Sleeps until woken or for `timeout`.
pub fn sleep(rung: &Word32, seen: u32, timeout: Duration) {
    futex::wait(rung, seen, timeout);
}

/// Takes the flag down. False: somebody has, who wanted to wake this participant for something.
pub fn awake(sleepers: &Sleepers, seat: u16) -> bool {
    sleepers.bits.load_relaxed() & bit(seat) != 0 && set(sleepers, seat, false)
}

/// Wakes up to `news` sleepers, after a publication. `registered`: membarriers of others reach this
/// process. Returns how many.
#[inline(always)]
pub fn wake<'a>(
    sleepers: &Sleepers,
    news: u64,
    registered: bool,
    rung: impl Fn(u16) -> &'a Word32,
) -> u64 {
    if registered && sleepers.fences.load_relaxed() == 0 {
        // The sleeper's barrier is the fence.
        compiler_fence();
    } else {
        // Pairs with the fence in announce.
        fence_store_load(Dekker::Waker);
    }
    if sleepers.bits.load_acquire() == 0 { 0 } else { wake_some(sleepers, news, rung) }
}

#[cold]
fn wake_some<'a>(sleepers: &Sleepers, news: u64, rung: impl Fn(u16) -> &'a Word32) -> u64 {
    let mut woken = 0;
    while woken < news {
        let bits = sleepers.bits.load_acquire();
        if bits == 0 {
            break;
        }
        let seat = bits.trailing_zeros() as u16;
        if sleepers.bits.replace(bits, bits & !bit(seat)).is_ok() {
            wake_one(rung(seat));
            woken += 1;
        }
    }
    woken
}

fn wake_one(rung: &Word32) {
    let mut count = rung.load_relaxed();
    // R24, pairs with A24 in announce: what a sleeper's note is compared with.
    while let Err(found) = rung.replace(count, count.wrapping_add(1)) {
        count = found;
    }
    // One sleeper at most: it is its own.
    futex::wake_all(rung);
}

/// Returns whether it was not so already.
fn set(sleepers: &Sleepers, seat: u16, up: bool) -> bool {
    let mut bits = sleepers.bits.load_relaxed();
    loop {
        let next = if up { bits | bit(seat) } else { bits & !bit(seat) };
        match sleepers.bits.replace(bits, next) {
            Ok(()) => return next != bits,
            Err(found) => bits = found,
        }
    }
}

fn bit(seat: u16) -> u64 {
    1 << (seat & 63)
}
