//! A received message, wherever it is: how it is read and given back with as little asked as there is to ask.
//!
//! Nothing here knows what the bytes mean, nor how an end receives.

use std::hint::unreachable_unchecked;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use ringway_shm::spsc::{Found, Step};
use ringway_shm::{Consumer, copy_out};

use crate::channel::{Limit, Patience};
use crate::elsewhere::{self, Told};
use crate::error::RecvError;
use crate::flavor::Receiving;

/// A received message, in the ring or elsewhere, which its end has open; dropping this gives it back. Where it
/// is, and whether a step over it is all there is to do, stands outside of whose it is, so that neither
/// reading it nor giving it back need ask.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    at: NonNull<u8>,
    len: usize,
    step: Step,
    /// Of a message elsewhere.
    told: Told,
    end: &'a mut Receiving,
}

// SAFETY: the pointers in what was found go where the end's do, which is Send.
unsafe impl Send for Guard<'_> {}

impl<'a> Guard<'a> {
    #[inline(always)]
    pub(crate) fn receive(end: &'a mut Receiving, patience: Patience) -> Result<Self, RecvError> {
        let (at, len, step, told) = match end {
            Receiving::InPlace(end) => {
                let received = match patience {
                    Patience::None => end.try_recv()?,
                    Patience::Forever => end.recv()?,
                    Patience::Within(timeout) => end.recv_timeout(timeout)?,
                    Patience::Until(deadline) => end.recv_timeout(Patience::left(deadline))?,
                };
                let Found { payload, len, step } = received.leave_open();
                (somewhere(payload), len, step, Told::default())
            }
            Receiving::Elsewhere(end) => {
                let (message, told) = elsewhere::receive(end, Limit::of(patience))?;
                (somewhere(message.at), message.len, Step::nowhere(), told)
            }
        };
        Ok(Self { at, len, step, told, end })
    }

    /// Gives back a message that makes no sense. By a call that fills the whole error: what it left out would be what
    /// the last message's guard left there, which would be kept on the stack for it, five stores a message.
    #[inline(always)]
    pub(crate) fn refuse(self) -> RecvError {
        let mut guard = ManuallyDrop::new(self);
        let (step, told) = (guard.step, guard.told);
        refuse(guard.end, step, told)
    }

    pub(crate) fn redelivered(&self) -> bool {
        match &*self.end {
            Receiving::InPlace(end) => end.redelivered(),
            Receiving::Elsewhere(_) => self.told.redelivered(),
        }
    }

    #[inline(always)]
    pub(crate) fn sequence(&self) -> u64 {
        sequence(self.end, self.told)
    }

    /// See [`ringway_shm::Received::copy_to`].
    pub(crate) fn copy_to(&self, to: &mut [u8]) {
        let len = to.len().min(self.len);
        // SAFETY: as in `deref`, but for others who may be writing these bytes.
        unsafe { copy_out(self.at.as_ptr(), &mut to[..len]) };
    }
}

impl Deref for Guard<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes of the message that the end has open, and leaves as they are until it is given back:
        // when this is dropped. As for `ringway_shm::Received`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Guard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `end` lives, and with it whatever found the message.
        if !unsafe { self.step.is_short() } {
            return give_back(self.end, self.step);
        }
        match &mut *self.end {
            // SAFETY: the message that the end has open, and a short step.
            Receiving::InPlace(end) => unsafe { end.step(self.step) },
            // SAFETY: no step of theirs is short.
            Receiving::Elsewhere(_) => unsafe { unreachable_unchecked() },
        }
    }
}

/// Said like this, nothing asks again whether the message is there.
#[inline(always)]
fn somewhere(at: *const u8) -> NonNull<u8> {
    // SAFETY: in place it is an offset into a mapping; elsewhere the pointer of a slice, and `receive` has asked
    // again where a first call found nothing, which is what null would say.
    NonNull::new(at.cast_mut()).unwrap_or_else(|| unsafe { unreachable_unchecked() })
}

#[inline(always)]
fn sequence(end: &Receiving, told: Told) -> u64 {
    match end {
        Receiving::InPlace(end) => end.sequence(),
        Receiving::Elsewhere(_) => told.sequence(),
    }
}

/// A call for all of them, which jumps on: with more of it in the caller's line, what drops a guard is so
/// long that the compiler leaves that out of the line, for the ring's messages too: 13 instructions of 53.
#[inline(never)]
fn give_back(end: &mut Receiving, step: Step) {
    match end {
        Receiving::InPlace(end) => give_back_in_place(end, step),
        Receiving::Elsewhere(end) => elsewhere::give_back(end),
    }
}

#[cold]
#[inline(never)]
fn refuse(end: &mut Receiving, step: Step, told: Told) -> RecvError {
    let sequence = sequence(end, told);
    give_back(end, step);
    RecvError::Invalid { sequence }
}

#[inline(never)]
fn give_back_in_place(end: &mut Consumer, step: Step) {
    // SAFETY: as in Guard::drop.
    unsafe { end.give_back(step) };
}
