//! What the caller of an endpoint and the thread that moves its bytes tell each other while both run: a
//! position each way, and who sleeps. Positions are those of the ring between them, whose bytes these
//! words hand over:
//!
//! ```text
//!             sender                                     receiver
//!   given     committed: the thread may send it          released: the thread may receive over it
//!   shown     acknowledged: the caller may write over    received: the caller may read it
//! ```
//!
//! Orderings, by label:
//! - `G1` the caller's Release of `given`; `H1` the thread's look at it.
//! - `G2` the thread's Release of `shown`; `H2` the caller's look at it.
//! - `G3` the thread's Release of `outcome`, behind all it has shown; `H3` the caller's look at it.
//! - `G4` the caller's Release of `demand`; `H4` the thread's look at it.
//! - `F1` the fence between a publication and the look whether the other sleeps, and `F2` that between
//!   the announcement of a sleep and the last look at what the other has published: one of the two sees
//!   the other. The caller's `F1` is run for it by the thread, where the system has `membarrier`.
//!
//! No waiting and no system calls here but that one.

use crate::sync::{self, Word};

/// See the module. Each block is on a line of its own: the caller writes one at each publication, the
/// thread one whenever something comes, and the third is written when somebody sleeps or a session ends.
#[derive(Debug)]
pub struct Line {
    caller: Caller,
    thread: Thread,
    rare: Rare,
    /// Whether the thread runs the caller's fence.
    barrier: bool,
}

/// Written by the caller.
#[derive(Debug)]
#[repr(align(128))]
struct Caller {
    given: Word,
    /// 1 while the caller sleeps, or is about to.
    asleep: Word,
    /// 1: the caller wants what the thread holds. 2: the thread shall end.
    demand: Word,
}

/// Written by the thread.
#[derive(Debug)]
#[repr(align(128))]
struct Thread {
    shown: Word,
}

/// Written by the thread, seldom.
#[derive(Debug)]
#[repr(align(128))]
struct Rare {
    /// Odd while the thread sleeps, or is about to; counts up, so that each sleep has its number.
    sleeps: Word,
    /// What [`Line::outcome`] returns.
    outcome: Word,
}

/// Whether anything will come of the session behind a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Open,
    /// It is over, and everything that came of it is shown.
    Over,
    /// The thread has ended without having been told to.
    Broken,
}

/// What the caller asks of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// To go on.
    Nothing,
    /// To let go for a moment.
    Hold,
    /// To end.
    End,
}

impl Default for Line {
    fn default() -> Self {
        let caller = Caller { given: Word::zero(), asleep: Word::zero(), demand: Word::zero() };
        let rare = Rare { sleeps: Word::zero(), outcome: Word::zero() };
        Self { caller, thread: Thread { shown: Word::zero() }, rare, barrier: sync::has_barrier() }
    }
}

/// The caller's side.
impl Line {
    /// Hands over everything below `position`. Some: the thread sleeps its sleep of that number, and has
    /// to be woken.
    #[inline(always)]
    pub fn give(&self, position: u64) -> Option<u64> {
        // G1, pairs with H1 in `given`.
        self.caller.given.store_release(position);
        // F1, pairs with F2 in `doze`.
        if self.barrier {
            sync::compiler_fence()
        } else {
            sync::full_fence()
        }
        let sleep = self.rare.sleeps.load_relaxed();
        (sleep % 2 == 1).then_some(sleep)
    }

    /// As [`Self::give`], for what the thread need not be woken for.
    #[inline(always)]
    pub fn give_quietly(&self, position: u64) {
        // G1, pairs with H1 in `given`.
        self.caller.given.store_release(position);
    }

    /// Up to where the thread has come.
    #[inline(always)]
    pub fn shown(&self) -> u64 {
        // H2, pairs with G2 in `show`.
        self.thread.shown.load_acquire()
    }

    /// Looked at after [`Self::shown`] says nothing new, as everything is shown before it is over.
    #[inline(always)]
    pub fn outcome(&self) -> Outcome {
        // H3, pairs with G3 in `show` and `fail`.
        match self.rare.outcome.load_acquire() {
            0 => Outcome::Open,
            1 => Outcome::Over,
            _ => Outcome::Broken,
        }
    }

    /// The caller is about to sleep: looks a last time after this.
    pub fn lie_down(&self) {
        self.caller.asleep.store_relaxed(1);
        // F2, pairs with F1 in `show`.
        sync::full_fence();
    }

    /// The caller sleeps no more.
    pub fn rise(&self) {
        self.caller.asleep.store_relaxed(0);
    }

    /// Tells the thread what to do. It has to be woken.
    pub fn demand(&self, demand: Demand) {
        // G4, pairs with H4 in `demanded`.
        self.caller.demand.store_release(demand as u64);
    }

    /// Begins anew, at position 0. For a caller that holds what the thread works on.
    pub fn start_over(&self) {
        self.caller.given.store_relaxed(0);
        self.thread.shown.store_relaxed(0);
        self.rare.outcome.store_release(0);
    }
}

/// The thread's side.
impl Line {
    /// Up to where the caller has come.
    #[inline(always)]
    pub fn given(&self) -> u64 {
        // H1, pairs with G1 in `give`.
        self.caller.given.load_acquire()
    }

    /// Hands over everything below `position`. Whether the caller sleeps, and has to be woken.
    #[inline(always)]
    pub fn show(&self, position: u64, is_over: bool) -> bool {
        let news = position != self.thread.shown.load_relaxed();
        let end = is_over && self.outcome() == Outcome::Open;
        if news {
            // G2, pairs with H2 in `shown`.
            self.thread.shown.store_release(position);
        }
        if end {
            // G3, pairs with H3 in `outcome`.
            self.rare.outcome.store_release(1);
        }
        if !news && !end {
            return false;
        }
        // F1, pairs with F2 in `lie_down`.
        sync::full_fence();
        self.caller.asleep.load_relaxed() != 0
    }

    /// Nothing will be shown any more, as the thread is ending without having been told to.
    pub fn fail(&self) {
        // G3, pairs with H3 in `outcome`.
        self.rare.outcome.store_release(2);
        // F1, pairs with F2 in `lie_down`: who calls this wakes the caller, or is seen by its last look.
        sync::full_fence();
    }

    /// What the caller wants.
    #[inline(always)]
    pub fn demanded(&self) -> Demand {
        // H4, pairs with G4 in `demand`.
        match self.caller.demand.load_acquire() {
            0 => Demand::Nothing,
            1 => Demand::Hold,
            _ => Demand::End,
        }
    }

    /// The thread is about to sleep: looks a last time after this.
    pub fn doze(&self) {
        self.rare.sleeps.store_relaxed(self.rare.sleeps.load_relaxed() | 1);
        // F2, pairs with F1 in `give`. The barrier is a fence here, and on the caller's thread between
        // its store and its look, wherever it is.
        if !(self.barrier && sync::barrier()) {
            sync::full_fence();
        }
    }

    /// The thread sleeps no more.
    pub fn wake(&self) {
        self.rare.sleeps.store_relaxed((self.rare.sleeps.load_relaxed() | 1) + 1);
    }
}
