//! The ends whose messages are not simply written and read in place, in a ring of one writer: copied,
//! shared, to another host. The same verbs, each in a function of its own, out of the caller's line.
//!
//! Why not one enum of everybody's claims: what a call writes through a pointer can't live in registers,
//! and with all flavors' loops beside it the ring's own path, some 50 instructions, went at half its rate.
//! So what is claimed or received stays open in the end that knows of it, and here is only where its
//! bytes are and whose they are: a few words, put together by the caller.
//!
//! Nothing here knows what the bytes mean.

use std::mem::{ManuallyDrop, forget};
use std::ops::{Deref, DerefMut};

use ringway_net::{NetReceiver, NetSender};
use ringway_shm::{BatchMessage, BatchRun, MpmcReceiver, MpmcSender, Publisher, Subscriber};

use crate::channel::{Limit, Patience, Publish};
use crate::error::{RecvError, SendError};
use crate::flavor::{Outlet, Room};

/// A sending end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the ends in shared memory are behind no pointer")]
pub(crate) enum Sending {
    Copied(Publisher),
    Shared(MpmcSender),
    Remote(Box<NetSender>),
}

/// A receiving end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the ends in shared memory are behind no pointer")]
pub(crate) enum Receiving {
    Copied(Subscriber),
    Shared(MpmcReceiver),
    Remote(Box<NetReceiver>),
}

/// Room for one message, which the end has open; dropping this aborts it.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    end: &'a mut Sending,
    room: *mut u8,
    len: usize,
}

// SAFETY: the pointer goes into memory that the borrowed end, itself Send, keeps.
unsafe impl Send for Claim<'_> {}

impl<'a> Claim<'a> {
    #[inline(always)]
    pub(crate) fn open(end: &'a mut Sending, len: usize, limit: Limit) -> Result<Self, SendError> {
        let room = open(end, len, limit)?;
        Ok(Self { end, room, len })
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the end granted `len` bytes there, this claim's until it ends.
        unsafe { std::slice::from_raw_parts(self.room, self.len) }
    }
}

impl DerefMut for Claim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; what is claimed is to be written.
        unsafe { std::slice::from_raw_parts_mut(self.room, self.len) }
    }
}

impl Room for Claim<'_> {
    type Error = SendError;

    #[inline(always)]
    fn finish(self, len: usize, publish: Publish) -> Result<(), SendError> {
        let mut this = ManuallyDrop::new(self);
        let room = this.len;
        finish(this.end, room, len, publish)
    }

    #[inline(always)]
    fn finish_whole(self, publish: Publish) -> Result<(), SendError> {
        let len = self.len;
        self.finish(len, publish)
    }
}

impl Drop for Claim<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        abort(self.end, self.len);
    }
}

/// Whatever it is, by calls: for single messages.
impl Outlet for Sending {
    type Error = SendError;
    type Claim<'a> = Claim<'a>;

    #[inline(never)]
    fn expect(&mut self, messages: usize) -> Result<(), SendError> {
        match self {
            Self::Copied(end) => Outlet::expect(end, messages)?,
            Self::Shared(end) => Outlet::expect(end, messages)?,
            Self::Remote(end) => Outlet::expect(end.as_mut(), messages)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn claim_run(&mut self, likely: usize) -> Result<Option<Claim<'_>>, SendError> {
        let run = run(self, likely)?;
        Ok(run.map(|(room, len)| Claim { end: self, room, len }))
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Claim<'_>, SendError> {
        Claim::open(self, len, Limit::of(patience))
    }
}

/// Claims, and leaves the claim open: asked for as much again, an end grants the same bytes.
#[inline(never)]
fn open(end: &mut Sending, len: usize, limit: Limit) -> Result<*mut u8, SendError> {
    let patience = limit.patience();
    Ok(match end {
        Sending::Copied(end) => leave(Outlet::claim(end, len, patience)?),
        Sending::Shared(end) => leave(Outlet::claim(end, len, patience)?),
        Sending::Remote(end) => leave(Outlet::claim(end.as_mut(), len, patience)?),
    }
    .0)
}

/// As [`open`], of what is free.
#[inline(never)]
fn run(end: &mut Sending, likely: usize) -> Result<Option<(*mut u8, usize)>, SendError> {
    Ok(match end {
        Sending::Copied(end) => Outlet::claim_run(end, likely)?.map(leave),
        Sending::Shared(end) => Outlet::claim_run(end, likely)?.map(leave),
        Sending::Remote(end) => Outlet::claim_run(end.as_mut(), likely)?.map(leave),
    })
}

/// Where the room is, and how much of it.
fn leave(mut claim: impl Room) -> (*mut u8, usize) {
    let room = (claim.as_mut_ptr(), claim.len());
    forget(claim);
    room
}

#[inline(never)]
fn finish(end: &mut Sending, room: usize, len: usize, publish: Publish) -> Result<(), SendError> {
    let open = Patience::None;
    match end {
        Sending::Copied(end) => Outlet::claim(end, room, open)?.finish(len, publish)?,
        Sending::Shared(end) => end.finish(len.min(room), matches!(publish, Publish::Now))?,
        Sending::Remote(end) => Outlet::claim(end.as_mut(), room, open)?.finish(len, publish)?,
    }
    Ok(())
}

/// Only slots are anything to give back: nobody saw what was claimed of the others.
#[cold]
#[inline(never)]
fn abort(end: &mut Sending, room: usize) {
    if let Sending::Shared(end) = end {
        drop(end.try_claim(room));
    }
}

/// A message, in place or copied. The end has it open; dropping this gives it back.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    end: &'a mut Receiving,
    message: Message,
}

/// Where a message is.
#[derive(Clone, Copy, Debug)]
struct Message {
    payload: *const u8,
    len: usize,
    sequence: u64,
    redelivered: bool,
}

// SAFETY: the pointer goes into memory that the borrowed end, itself Send, keeps.
unsafe impl Send for Received<'_> {}

impl<'a> Received<'a> {
    #[inline(always)]
    pub(crate) fn take(end: &'a mut Receiving, limit: Limit) -> Result<Self, RecvError> {
        let message = take(end, limit)?;
        Ok(Self { end, message })
    }

    pub(crate) fn redelivered(&self) -> bool {
        self.message.redelivered
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.message.sequence
    }

    /// See [`ringway_shm::Received::copy_to`]; what is a copy already is copied as it is.
    #[inline(never)]
    pub(crate) fn copy_to(&mut self, to: &mut [u8]) {
        if let Receiving::Shared(end) = self.end
            && let Ok(message) = end.try_recv()
        {
            message.copy_to(to);
            forget(message);
            return;
        }
        let len = to.len().min(self.len());
        to[..len].copy_from_slice(&self[..len]);
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes of the message that the end has open, which it leaves as they are until it
        // is given back: when this is dropped.
        unsafe { std::slice::from_raw_parts(self.message.payload, self.message.len) }
    }
}

impl Drop for Received<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        give_back(self.end);
    }
}

/// Receives, and leaves the message open.
#[inline(never)]
fn take(end: &mut Receiving, limit: Limit) -> Result<Message, RecvError> {
    let patience = limit.patience();
    macro_rules! message {
        ($end:expr, $message:ident => $redelivered:expr) => {{
            let end = $end;
            let $message = match patience {
                Patience::None => end.try_recv()?,
                Patience::Forever => end.recv()?,
                Patience::Within(timeout) => end.recv_timeout(timeout)?,
                Patience::Until(deadline) => end.recv_timeout(Patience::left(deadline))?,
            };
            let message = Message {
                payload: $message.as_ptr(),
                len: $message.len(),
                sequence: $message.sequence(),
                redelivered: $redelivered,
            };
            forget($message);
            message
        }};
    }
    Ok(match end {
        Receiving::Copied(end) => message!(end, message => false),
        Receiving::Shared(end) => message!(end, message => message.redelivered()),
        Receiving::Remote(end) => message!(end, message => message.redelivered()),
    })
}

#[inline(never)]
fn give_back(end: &mut Receiving) {
    match end {
        Receiving::Copied(end) => end.give_back(),
        Receiving::Shared(end) => end.give_back(),
        Receiving::Remote(end) => end.give_back(),
    }
}

/// Several messages. The end has them open; dropping this gives them back.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    end: &'a mut Receiving,
    left: usize,
}

impl<'a> Batch<'a> {
    #[inline(always)]
    pub(crate) fn take(
        end: &'a mut Receiving,
        most: usize,
        limit: Limit,
    ) -> Result<Self, RecvError> {
        take_batch(end, most, limit)?;
        Ok(Self { end, left: most })
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(message) = next(self.end)? else { return Ok(None) };
        self.left -= 1;
        let Message { payload, len, sequence, redelivered } = message;
        // SAFETY: as in Received::deref: the message is the batch's until its next one, a copy, or until
        // its end, and either needs `self`, which the result borrows.
        let payload = unsafe { std::slice::from_raw_parts(payload, len) };
        Ok(Some(BatchMessage { payload, sequence, redelivered }))
    }

    /// A copy is a run of one, and so is a slot, and a frame.
    #[inline(always)]
    pub(crate) fn next_run(&mut self) -> Result<Option<BatchRun<'_>>, RecvError> {
        Ok(self.next()?.map(|message| BatchRun {
            payload: message.payload,
            len: message.payload.len(),
            count: 1,
            sequence: message.sequence,
            redelivered: message.redelivered,
        }))
    }
}

impl Drop for Batch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        give_back_batch(self.end);
    }
}

/// Receives, and leaves the batch open.
#[inline(never)]
fn take_batch(end: &mut Receiving, most: usize, limit: Limit) -> Result<(), RecvError> {
    let patience = limit.patience();
    macro_rules! batch {
        ($end:expr) => {
            forget(match patience {
                Patience::None => $end.try_recv_batch(most)?,
                Patience::Forever => $end.recv_batch(most, None)?,
                Patience::Within(timeout) => $end.recv_batch(most, Some(timeout))?,
                Patience::Until(deadline) => {
                    $end.recv_batch(most, Some(Patience::left(deadline)))?
                }
            })
        };
    }
    match end {
        Receiving::Copied(end) => batch!(end),
        Receiving::Shared(end) => batch!(end),
        Receiving::Remote(end) => batch!(end),
    }
    Ok(())
}

#[inline(never)]
fn next(end: &mut Receiving) -> Result<Option<Message>, RecvError> {
    macro_rules! next {
        ($end:expr, $message:ident => $redelivered:expr) => {
            ManuallyDrop::new($end.batch_again(1)).next()?.map(|$message| Message {
                payload: $message.payload.as_ptr(),
                len: $message.payload.len(),
                sequence: $message.sequence,
                redelivered: $redelivered,
            })
        };
    }
    Ok(match end {
        Receiving::Copied(end) => next!(end, message => false),
        Receiving::Shared(end) => next!(end, message => message.redelivered),
        Receiving::Remote(end) => next!(end, message => message.redelivered),
    })
}

#[inline(never)]
fn give_back_batch(end: &mut Receiving) {
    match end {
        Receiving::Copied(end) => drop(end.batch_again(0)),
        Receiving::Shared(end) => drop(end.batch_again(0)),
        Receiving::Remote(end) => drop(end.batch_again(0)),
    }
}
