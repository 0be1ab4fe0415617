//! Waiting for the other side: when to poll, when to sleep, and how nobody sleeps through a message.
//!
//! The doorbell. Each page has a [`Bell`]: `state`, which tells whether the owner of the page sleeps, and
//! `rung`, which the owner counts up to wake the other side. The sleeper
//!
//! 1. notes the other side's `rung`, raises its own flag in `state` ([`announce`]),
//! 2. fence,
//! 3. looks at the ring once more; if there is still nothing,
//! 4. sleeps while `rung` is what it noted ([`sleep`]), for a bounded time.
//!
//! The waker publishes, then fence, then looks at the flag ([`Ringer::ring`]). With both fences at
//! least one of the two sees the other; without either a wake-up can get lost, which the models in
//! `tests/loom.rs` show by taking them away. On channels opened with [`Wait::Spin`] nobody ever
//! sleeps, and the waker looks at a word that always says so.
//!
//! A fence per publication costs the waker more than the rest of a small message. So where the
//! kernel has it, the sleeper runs both fences: its own, and by `membarrier` one on whatever core
//! the waker is on, once per sleep. It says so in `state`, too; a waker that is registered for such
//! barriers and finds that bit set leaves its own fence out. What a message costs that wakes nobody is
//! then a load and a compare ([`is_quiet`]).
//!
//! Death is not found here but asked for: [`block_further`] calls `probe` at most 20 times a second.

use std::time::{Duration, Instant};

use crate::clock;
use crate::courtesy::Courtesy;
use crate::futex;
use crate::layout::{BELL_ASLEEP, BELL_BARRIER, BELL_NUMBER_SHIFT, Bell};
use crate::membarrier;
use crate::options::Wait;
use crate::sync::{Dekker, Word32, compiler_fence, fence_store_load};

/// A sleep that was announced.
#[derive(Clone, Copy, Debug)]
pub struct Nap {
    /// `rung` before the flag went up.
    seen: u32,
    /// What `state` is meanwhile; 0 if it was not announced.
    ticket: u32,
}

impl Nap {
    /// A sleep on a number that only grows, `seen` when last looked at: whoever counts it up wakes
    /// all sleepers without looking for any, so nothing needs announcing.
    pub fn unannounced(seen: u32) -> Self {
        Self { seen, ticket: 0 }
    }

    /// Whether somebody's flag is up for it.
    pub fn is_announced(&self) -> bool {
        self.ticket != 0
    }
}

/// Prepares the page of a side that may sleep and wake: takes down the flag of a predecessor that
/// was killed in its sleep, and says who runs the fences. The count of sleeps goes on: who rang for one of
/// the predecessor's remembers its number.
pub fn attach(own: &Bell) {
    own.state.store_release(if membarrier::register() { BELL_BARRIER } else { 0 });
}

/// Raises the flag. The caller then looks once more at what it waits for, and calls [`sleep`] or
/// not, and [`awake`] in any case.
pub fn announce(own: &Bell, peer: &Bell) -> Nap {
    // A11, pairs with R11 in wake_all. Before the flag: a waker that sees the flag counts up
    // from here or later.
    let seen = peer.rung.load_acquire();
    let number = own.sleeps.load_relaxed().wrapping_add(1);
    own.sleeps.store_relaxed(number);
    let barrier = own.state.load_relaxed() & BELL_BARRIER;
    let mut ticket = number << BELL_NUMBER_SHIFT | barrier | BELL_ASLEEP;
    // R7, pairs with A7 in `state_of` and `is_quiet`: the waker's count comes after our look at it.
    own.state.store_release(ticket);
    // Pairs with the fence in Ringer::ring and Crier::ring, or, by the barrier, takes its place.
    fence_store_load(Dekker::Sleeper);
    if barrier != 0 && !membarrier::barrier() {
        // It worked when this side attached. From now on the waker has to do it; the message that
        // it may have published without a fence just now is found when this sleep ends.
        ticket &= !BELL_BARRIER;
        own.state.store_release(ticket);
    }
    Nap { seen, ticket }
}

/// Sleeps until rung or for `timeout`.
pub fn sleep(nap: &Nap, peer: &Bell, timeout: Duration) {
    futex::wait(&peer.rung, nap.seen, timeout);
}

/// Sleeps, without having announced it, until the number is another than the one noted.
pub fn sleep_unannounced(nap: &Nap, number: &Word32, timeout: Duration) {
    futex::wait(number, nap.seen, timeout);
}

/// Takes the flag down.
pub fn awake(nap: &Nap, own: &Bell) {
    own.state.store_relaxed(nap.ticket & BELL_BARRIER);
}

/// The waker's memory of whom it has woken: one wake per sleep, however many messages are published
/// before the sleeper gets to run.
#[derive(Debug)]
pub struct Ringer {
    woken: u32,
    /// Whether other processes' barriers reach this one.
    registered: bool,
}

impl Ringer {
    /// One that has woken nobody yet. Unless somebody may sleep, this process is not registered
    /// for barriers: each one interrupts the registered, and those who only spin want none.
    pub fn new(sleepy: bool) -> Self {
        Self { woken: 0, registered: register(sleepy) }
    }

    /// Wakes the other side if it sleeps. To be called after every publication on a channel where
    /// somebody may sleep, unless [`is_quiet`] says that nobody does. Returns whether a wake was given.
    #[cold]
    #[inline(never)]
    pub fn ring(&mut self, own: &Bell, peer: &Bell) -> bool {
        compiler_fence();
        let mut state = state_of(peer);
        if !self.registered || state & BELL_BARRIER == 0 {
            // Pairs with the fence in announce.
            fence_store_load(Dekker::Waker);
            state = state_of(peer);
        }
        if !is_new(state, &mut self.woken) {
            return false;
        }
        wake_all(own);
        true
    }

    /// Whether barriers of others reach this process, so that the peer's word alone may tell that there
    /// is nobody to wake.
    pub fn trusts_barriers(&self) -> bool {
        self.registered
    }
}

/// Whether there certainly is nobody to wake, for a waker that barriers reach. To be asked after every
/// publication, before [`Ringer::ring`].
#[inline(always)]
pub fn is_quiet(state: &Word32) -> bool {
    // The sleeper's barrier is the fence.
    compiler_fence();
    // A7, pairs with R7 in announce.
    state.load_acquire() == BELL_BARRIER
}

/// A bell's, after a fence of whichever side runs it.
#[inline(always)]
pub fn state_of(bell: &Bell) -> u32 {
    // A7, pairs with R7 in announce.
    bell.state.load_acquire()
}

/// Whether other processes' barriers reach this one, from now on.
pub fn register(sleepy: bool) -> bool {
    sleepy && membarrier::register()
}

/// Whether the owner of the bell sleeps, and in another sleep than the one it was `woken` from last.
#[inline(always)]
pub fn is_new(state: u32, woken: &mut u32) -> bool {
    if state & BELL_ASLEEP == 0 || state == *woken {
        return false;
    }
    *woken = state;
    true
}

/// Wakes whoever sleeps on this side's bell: one on a channel of two, some on a broadcast.
#[cold]
pub fn wake_all(own: &Bell) {
    // R11, pairs with A11 in announce: what a sleeper's note is compared with.
    own.rung.store_release(own.rung.load_relaxed().wrapping_add(1));
    futex::wake_all(&own.rung);
}

/// Least time between two questions to the kernel whether the peer lives.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Longest sleep. Each end of a sleep looks at the ring, so this also bounds how late a message is
/// found whose wake-up went to a process that died of it.
const SLICE: Duration = Duration::from_millis(50);

/// Polls between two looks at the clock: some 10 us, so that a spinning call stays within that of
/// its time-out.
const POLLS_PER_LOOK: u32 = 256;

/// The same where the core is shared: 0.5 to 2 us, about what it costs to leave it and come back.
const POLLS_SHARED: u32 = 16;

/// How long an adaptive waiter polls. A sleep and the wake-up from it cost 40-60 us across cores:
/// to poll for as long is at most twice as bad as knowing the future.
const SPIN_FOR: Duration = Duration::from_micros(50);

/// How long a reader that finds nothing leaves the ring alone: for one pause when it waits for single
/// messages, for more in the middle of a stream.
///
/// Each look takes the line from the writer. One pause is best for a round trip. But a reader who is
/// as fast as the writer would take every line while it is being written, and both would go at the
/// pace of cache misses: 8-byte messages at 60 million a second instead of 220. So it waits in
/// proportion to what it has just seen, and longer for each message than the writer needs for one that nobody takes from
/// it: only then bursts grow until the writer is left alone for as long as is of use. A message after a burst is late by
/// that, at most.
#[derive(Debug)]
pub struct Burst {
    /// Messages seen when the last wait began.
    before: u64,
    ns_per_message: u64,
    most_ns: u64,
    /// The same after a burst of less than [`MANY`] messages.
    most_ns_of_few: u64,
    pause: Pause,
}

/// Where so many messages come in the time of a wait, more of them would not stay in the nearest cache until they are read.
const MANY: u64 = 400;

impl Burst {
    /// For a ring of one writer. Measured through 1 MiB, in millions of messages, on an EPYC whose cores share a cache, with
    /// 5 ns a message and 2,500 at most, 20 and 2,500, 20 and 6,000: 72, 110 and 171 of 8 bytes, 32, 48 and 71 of 64
    /// (`ringway-bench stream --size 8,64 --capacity 1MiB --systems ringway-shm-raw`). On a Cascade Lake, with 5 ns a
    /// message and 300, 1,200, 2,500 and 5,000 at most: 87, 122, 115 and 132, 83, 91, 99 and 96. Where messages take less than
    /// 5 ns, 5,000 at most cost messages of a type a tenth.
    pub fn in_ring() -> Self {
        let pause = Pause::measured();
        Self { before: 0, ns_per_message: 20, most_ns: 2_500, most_ns_of_few: 6_000, pause }
    }

    /// For a queue of many, whose messages take several times as long. Measured likewise, one to one, with 20 ns a
    /// message and 300, 1,200, 4,700 and 9,400 at most: 18, 26, 29 and 29 of 8 bytes, 19, 23, 25 and 25 of 64. On the EPYC with 20, 60
    /// and 200 a message: 62, 63 and 66, 22, 25 and 24; where its cores were of two complexes, 4.2, 4.5 and 6.5 of 64.
    pub fn in_queue() -> Self {
        let pause = Pause::measured();
        Self { before: 0, ns_per_message: 60, most_ns: 8_000, most_ns_of_few: 8_000, pause }
    }

    /// Pauses before the second look, for a reader that found nothing after `seen` messages in all.
    pub fn pauses(&mut self, seen: u64) -> u32 {
        let burst = seen.wrapping_sub(self.before);
        self.before = seen;
        // A single message says nothing of a next one.
        let more = burst.saturating_sub(1);
        let most_ns = if burst < MANY { self.most_ns_of_few } else { self.most_ns };
        self.pause.times_in(more.saturating_mul(self.ns_per_message).min(most_ns))
    }
}

/// A writer who finds no room is in the middle of a stream in any case.
pub const PAUSES_WITHOUT_ROOM: u32 = 8;

/// Pauses for a sender that finds a queue of so many slots full. It would take the line of each slot that is given
/// back; while it looks away, receivers give back many, and have the rest to go on with. A nanosecond for each slot, up
/// to 2.5 us, is a fraction of what its message takes. Measured as for [`Burst::in_queue`], of 4,096 slots: one pause 21 and 23,
/// 600 ns 25 and 22, 1,200 26 and 26, 2,400 27 and 26, 4,700 27 and 27.
pub fn pauses_without_slots(slots: u64) -> u32 {
    Pause::measured().times_in(slots.min(2_500))
}

/// How long a pause takes: from 4 ns to 50, as the processor and who else is on its core have it.
#[derive(Clone, Copy, Debug)]
struct Pause {
    per_1024_ns: u64,
}

impl Pause {
    /// Measures it once in a process, which takes some microseconds.
    #[cfg(not(loom))]
    fn measured() -> Self {
        // 0: not yet. No lock, as in `membarrier`.
        static MEASURED: Word32 = Word32::new(0);
        if MEASURED.load_relaxed() == 0 {
            MEASURED.store_relaxed(Self::measure());
        }
        Self { per_1024_ns: MEASURED.load_relaxed().into() }
    }

    /// Models share nothing that lives longer than one of their runs.
    #[cfg(loom)]
    fn measured() -> Self {
        Self { per_1024_ns: Self::measure().into() }
    }

    /// From 1 to 1024.
    fn measure() -> u32 {
        const PAUSES: u64 = 128;
        let time = || {
            let start = Instant::now();
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
            start.elapsed().as_nanos() as u64
        };
        // The shortest is the one that nobody interrupted.
        let ns = (0..5).map(|_| time()).min().unwrap_or_default();
        (PAUSES * 1024 / ns.max(1)).clamp(1, 1024) as u32
    }

    /// How many of them take so long; at least one.
    fn times_in(self, ns: u64) -> u32 {
        (ns * self.per_1024_ns / 1024).max(1) as u32
    }
}

/// When the peer was last asked after, kept in the handle so that many short waits add up.
#[derive(Debug)]
pub struct ProbeClock {
    last: Instant,
    /// The same by the coarse clock.
    last_ns: u64,
}

impl ProbeClock {
    /// As if just asked.
    pub fn start() -> Self {
        Self { last: Instant::now(), last_ns: clock::coarse_ns() }
    }

    /// Whether it is time to ask again; if so, the caller does.
    pub fn is_due(&mut self, now: Instant) -> bool {
        // By the fine clock: a slice of sleep is an interval long, and by the coarse one it may be less.
        let due = now.duration_since(self.last) >= PROBE_INTERVAL;
        if due {
            *self = Self::start();
        }
        due
    }

    /// The same for callers who poll on their own, at whatever pace, which may change: the coarse clock is cheap
    /// enough for each poll that finds nothing.
    #[inline]
    pub fn is_due_after_poll(&mut self) -> bool {
        let since_ns = clock::coarse_ns().saturating_sub(self.last_ns);
        let due = since_ns >= PROBE_INTERVAL.as_nanos() as u64;
        if due {
            *self = Self::start();
        }
        due
    }
}

/// One end of a channel, as far as waiting is concerned.
pub trait Waiter {
    /// Why the wait ends without what is waited for.
    type Error;

    /// Whether it is there: a look at the ring; cheap.
    fn poll(&mut self) -> Result<bool, Self::Error>;
    /// Whether a poll would hardly find it: cheaper than a poll, for a spin from which it is not far to the
    /// message. Polls come now and then all the same.
    #[inline(always)]
    fn sees_nothing(&self) -> bool {
        false
    }
    /// A look at what else the peer may have written: that it closed, say. Still no system call.
    fn glance(&mut self) -> Result<(), Self::Error>;
    /// Asks the kernel whether the peer lives. At most every [`PROBE_INTERVAL`].
    fn probe(&mut self) -> Result<(), Self::Error>;
    /// Announces a sleep.
    fn announce(&mut self) -> Nap;
    /// Sleeps.
    fn sleep(&mut self, nap: &Nap, timeout: Duration);
    /// Ends the announcement.
    fn awake(&mut self, nap: &Nap);
    /// The handle's clock.
    fn probe_clock(&mut self) -> &mut ProbeClock;
    /// What the handle knows of its core.
    fn courtesy(&mut self) -> &mut Courtesy;
}

/// When a wait of at most so long ends that begins now; `None`: longer than the clock can count.
#[cold]
pub fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// The first polls of a wait, in which most waits end: whether there is something to look at. For ends whose
/// answer to it has to be short, out of the caller's line and in a few registers: what a round trip
/// waits for is how long it takes from the poll that finds the message to the message. With those polls in
/// [`block`], and its way back through errors that there might have been, round trips of 8 bytes took 1.07 times as long
/// on a Cascade Lake, and 1.3 times where the cores are as near as can be, in a loop that is not in the tree. Who gets a
/// no asks [`block_further`].
#[inline(always)]
pub fn poll_first(pauses: u32, courtesy: &Courtesy, sees_nothing: impl Fn() -> bool) -> bool {
    for _ in 0..pauses {
        std::hint::spin_loop();
    }
    for _ in 0..polls(courtesy) {
        if !sees_nothing() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

/// Waits until `poll` says yes, the peer is gone, or `deadline` has passed (false). For callers who
/// have just looked themselves: `pauses` is for how long they look away now.
pub fn block<W: Waiter>(
    waiter: &mut W,
    wait: Wait,
    deadline: Option<Instant>,
    pauses: u32,
) -> Result<bool, W::Error> {
    for _ in 0..pauses {
        std::hint::spin_loop();
    }
    if waiter.poll()? || wait != Wait::Park && spin(waiter)? {
        return Ok(true);
    }
    block_further(waiter, wait, deadline)
}

/// As [`block`], for callers who have polled for a while ([`poll_first`]), or are to sleep at once.
pub fn block_further<W: Waiter>(
    waiter: &mut W,
    wait: Wait,
    deadline: Option<Instant>,
) -> Result<bool, W::Error> {
    // Set by the first look at the clock, which comes after the first polls: what is a round trip away comes
    // before.
    let mut spin_until = None;
    loop {
        waiter.glance()?;
        let mut now = Instant::now();
        // Not who sleeps soon anyway: a yield may wait for the end of somebody's time slice, and a wake-up does not.
        if wait == Wait::Spin
            && let Some(later) = waiter.courtesy().may_yield(now)
        {
            if waiter.poll()? {
                return Ok(true);
            }
            now = later;
        }
        if waiter.probe_clock().is_due(now) {
            waiter.probe()?;
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            return waiter.poll();
        }
        let spins = match wait {
            Wait::Spin => true,
            Wait::Adaptive => now < *spin_until.get_or_insert(now + SPIN_FOR),
            Wait::Park => false,
        };
        let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(now));
        let found = if spins { spin(waiter)? } else { nap(waiter, left.min(SLICE))? };
        if found {
            return Ok(true);
        }
    }
}

/// Sleeps for so long at most, unless it finds something on the way there.
#[inline(always)]
fn nap<W: Waiter>(waiter: &mut W, timeout: Duration) -> Result<bool, W::Error> {
    let nap = waiter.announce();
    let polled = waiter.poll().and_then(|there| {
        if !there {
            waiter.glance()?;
        }
        Ok(there)
    });
    let sleeps = matches!(polled, Ok(false));
    if sleeps {
        waiter.sleep(&nap, timeout);
    }
    waiter.awake(&nap);
    if !sleeps {
        return polled;
    }
    // What it was woken for comes before the clock, and before another sleep is announced, which takes a
    // system call: 1.15x of `floor-futex` with those before it, and 0.45x without, when the answer comes
    // while the asker is still about to sleep
    // (`ringway-bench pingpong --size 8 --wait park --systems floor-futex,ringway-shm-raw`).
    waiter.poll()
}

/// Polls for a while. A round trip of 64 bytes takes 0.99 to 1.03 times as long as `floor-ring`'s, and took 1.07 to
/// 1.14 times with a whole poll after each pause and a look at the clock before the first
/// (`ringway-bench pingpong --size 64 --systems floor-ring,ringway-shm-raw`).
#[inline(always)]
fn spin<W: Waiter>(waiter: &mut W) -> Result<bool, W::Error> {
    for _ in 0..polls(waiter.courtesy()) {
        std::hint::spin_loop();
        if !waiter.sees_nothing() && waiter.poll()? {
            return Ok(true);
        }
    }
    waiter.poll()
}

fn polls(courtesy: &Courtesy) -> u32 {
    if courtesy.shares() { POLLS_SHARED } else { POLLS_PER_LOOK }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_asked_after_in_time_by_who_slows_down() {
        let mut clock = ProbeClock::start();
        let polls = (0..10_000).filter(|_| clock.is_due_after_poll()).count();
        assert!(polls < 10_000);
        let start = Instant::now();
        // As coarse as the clock may be.
        while start.elapsed() < PROBE_INTERVAL + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert!(clock.is_due_after_poll());
    }
}
