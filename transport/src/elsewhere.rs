//! The ends whose messages are not simply written and read in place, in a ring of one writer: copied,
//! shared, to another host. The same verbs, each in a function of its own, out of the caller's line.
//!
//! Why not one enum of everybody's claims: what a call writes through a pointer can't live in registers,
//! and with all flavors' loops beside it the ring's own path, some 50 instructions, went at half its rate.
//! So what is claimed or received stays open in the end that knows of it, and here is only where its
//! bytes are and whose they are: a few words, put together by the caller. Each flavor has calls of its
//! own; what is in a hurry has one that says in a register where the bytes are, since what comes by way of
//! memory waits there for the stores that bring it, and another one for what takes longer. Batches of slots
//! are the exception: they step from one message to the next by a pointer, which the caller keeps.
//!
//! Nothing here knows what the bytes mean.

use std::mem::{ManuallyDrop, forget};
use std::ops::{Deref, DerefMut};
use std::ptr::null_mut;

use ringway_net::{NetReceiver, NetSender};
use ringway_shm::{
    BatchMessage, BatchRun, MpmcBatch, MpmcReceiver, MpmcSender, Publisher, Subscriber,
};

use crate::channel::{Limit, Patience, Publish};
use crate::error::{RecvError, SendError};
use crate::flavor::{Outlet, Room};

/// A sending end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the ends in shared memory are behind no pointer")]
#[repr(u64)] // Else the flavor is worked out of a field of one of them, for each message.
pub(crate) enum Sending {
    Copied(Publisher),
    Shared(MpmcSender),
    Remote(Box<NetSender>),
}

/// A receiving end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the ends in shared memory are behind no pointer")]
#[repr(u64)] // As above.
pub(crate) enum Receiving {
    Copied(Subscriber),
    Shared(MpmcReceiver),
    Remote(Box<NetReceiver>),
}

/// The `match` on the flavor of an end, for calls that all of them have.
macro_rules! whichever {
    ($kind:ident, $end:expr, $name:ident => $call:expr) => {
        match &mut *$end {
            $kind::Copied($name) => $call,
            $kind::Shared($name) => $call,
            $kind::Remote(remote) => {
                let $name = remote.as_mut();
                $call
            }
        }
    };
}

/// The bytes that a call found, or made room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    /// Null: there are none.
    pub(crate) at: *mut u8,
    pub(crate) len: usize,
}

impl Bytes {
    const NONE: Self = Self { at: null_mut(), len: 0 };
}

/// Room for one message, which the end has open; dropping this aborts it.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    end: &'a mut Sending,
    room: Bytes,
}

// SAFETY: the pointer goes into memory that the borrowed end, itself Send, keeps.
unsafe impl Send for Claim<'_> {}

impl<'a> Claim<'a> {
    #[inline(always)]
    pub(crate) fn open(end: &'a mut Sending, len: usize, limit: Limit) -> Result<Self, SendError> {
        let mut room = Bytes { at: room_at_once(end, |_| len), len };
        if room.at.is_null() {
            room = open(end, len, limit)?;
        }
        Ok(Self { end, room })
    }

    /// Of `len` bytes, no more than were claimed.
    #[inline(always)]
    fn settle(self, len: usize, publish: Publish) -> Result<(), SendError> {
        let mut this = ManuallyDrop::new(self);
        let room = this.room.len;
        if let (Sending::Shared(end), Publish::Now) = (&mut *this.end, publish)
            && commit_shared(end, len)
        {
            return Ok(());
        }
        finish(this.end, room, len, publish)
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the end granted `len` bytes there, this claim's until it ends.
        unsafe { std::slice::from_raw_parts(self.room.at, self.room.len) }
    }
}

impl DerefMut for Claim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; what is claimed is to be written.
        unsafe { std::slice::from_raw_parts_mut(self.room.at, self.room.len) }
    }
}

impl Room for Claim<'_> {
    type Error = SendError;

    #[inline(always)]
    fn finish(self, len: usize, publish: Publish) -> Result<(), SendError> {
        let len = len.min(self.room.len);
        self.settle(len, publish)
    }

    #[inline(always)]
    fn finish_whole(self, publish: Publish) -> Result<(), SendError> {
        let len = self.room.len;
        self.settle(len, publish)
    }
}

impl Drop for Claim<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        abort(self.end, self.room.len);
    }
}

/// Whatever it is, by calls: for single messages.
impl Outlet for Sending {
    type Error = SendError;
    type Claim<'a> = Claim<'a>;

    #[inline(never)]
    fn expect(&mut self, messages: usize) -> Result<(), SendError> {
        whichever!(Self, self, end => Ok(Outlet::expect(end, messages)?))
    }

    #[inline(always)]
    fn claim_run(&mut self, likely: usize) -> Result<Option<Claim<'_>>, SendError> {
        let mut len = 0;
        let at = room_at_once(self, |end| {
            len = end.max_len();
            len
        });
        let room = if at.is_null() { run(self, likely)? } else { Bytes { at, len } };
        Ok(if room.at.is_null() { None } else { Some(Claim { end: self, room }) })
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Claim<'_>, SendError> {
        Claim::open(self, len, Limit::of(patience))
    }
}

/// Where the room is that an end grants without waiting or asking anybody; null: ask [`open`], or [`run`].
/// The two are apart so that neither needs registers for the other: what a call saves of its caller's goes
/// through memory, and a swap waits for all stores before it.
#[inline(always)]
fn room_at_once(end: &mut Sending, len: impl FnOnce(&MpmcSender) -> usize) -> *mut u8 {
    match end {
        Sending::Shared(end) => room_shared(end, len(end)),
        _ => null_mut(),
    }
}

#[inline(never)]
fn room_shared(end: &mut MpmcSender, len: usize) -> *mut u8 {
    match end.claim_at_once(len) {
        Some(claim) => leave(claim).at,
        None => nothing().at,
    }
}

/// Claims, and leaves the claim open: asked for as much again, an end grants the same bytes. Here and below, a call
/// for all flavors, which jumps on to that of one: three in the caller's line cost the ring's own messages a
/// dozenth of their instructions.
#[inline(never)]
fn open(end: &mut Sending, len: usize, limit: Limit) -> Result<Bytes, SendError> {
    whichever!(Sending, end, end => open_one(end, len, limit))
}

#[inline(never)]
fn open_one<E: Outlet>(end: &mut E, len: usize, limit: Limit) -> Result<Bytes, SendError> {
    end.claim(len, limit.patience()).map(leave).map_err(Into::into)
}

/// As [`open`], of what is free; nothing: a length is to be asked for.
#[inline(never)]
fn run(end: &mut Sending, likely: usize) -> Result<Bytes, SendError> {
    whichever!(Sending, end, end => run_one(end, likely))
}

#[inline(never)]
fn run_one<E: Outlet>(end: &mut E, likely: usize) -> Result<Bytes, SendError> {
    let run = end.claim_run(likely).map_err(Into::into)?;
    Ok(run.map_or(Bytes::NONE, leave))
}

#[inline(always)]
fn leave(mut claim: impl Room) -> Bytes {
    let room = Bytes { at: claim.as_mut_ptr(), len: claim.len() };
    forget(claim);
    room
}

/// Publishes what is open, if that is all there is to do. False: ask [`finish`].
#[inline(never)]
fn commit_shared(end: &mut MpmcSender, len: usize) -> bool {
    end.commit_at_once(len)
}

/// Publishes what is open, or keeps it for the flush.
#[inline(never)]
fn finish(end: &mut Sending, room: usize, len: usize, publish: Publish) -> Result<(), SendError> {
    whichever!(Sending, end, end => finish_one(end, room, len, publish))
}

#[inline(never)]
fn finish_one<E: Outlet>(
    end: &mut E,
    room: usize,
    len: usize,
    publish: Publish,
) -> Result<(), SendError> {
    // The claim that the end has open, again: it is of as much, since a run of free bytes is as long as a record.
    let claim = end.claim(room, Patience::None).map_err(Into::into)?;
    claim.finish(len, publish).map_err(Into::into)
}

/// Only slots are anything to give back: nobody saw what was claimed of the others.
#[cold]
#[inline(never)]
fn abort(end: &mut Sending, room: usize) {
    if let Sending::Shared(end) = end {
        drop(end.try_claim(room));
    }
}

/// What a call tells of a message beside where it is, in one word: a guard with a flag of its own in it
/// would go through memory, as the compiler puts there which kind of guard it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told(u64);

impl Told {
    /// Messages are not so many.
    const REDELIVERED: u64 = 1 << 63;

    #[inline(always)]
    fn new(sequence: u64, redelivered: bool) -> Self {
        Self(sequence & !Self::REDELIVERED | if redelivered { Self::REDELIVERED } else { 0 })
    }

    #[inline(always)]
    pub(crate) fn sequence(self) -> u64 {
        self.0 & !Self::REDELIVERED
    }

    #[inline(always)]
    pub(crate) fn redelivered(self) -> bool {
        self.0 & Self::REDELIVERED != 0
    }
}

/// Receives a message, in place or copied, and leaves it open: until [`give_back`].
#[inline(always)]
pub(crate) fn receive(end: &mut Receiving, limit: Limit) -> Result<(Bytes, Told), RecvError> {
    let mut told = Told::default();
    let mut message = match end {
        Receiving::Copied(_) => Bytes::NONE,
        Receiving::Shared(end) => match take_at_once(end, &mut told) {
            // Most waits end in their first polls, and a round trip waits for what follows on them: no more calls
            // than these two.
            none if none.at.is_null() && limit.is_forever() && end.comes_soon() => {
                take_at_once(end, &mut told)
            }
            found => found,
        },
        Receiving::Remote(end) => take_at_once(end.as_mut(), &mut told),
    };
    if message.at.is_null() {
        message = take(end, limit, &mut told)?;
    }
    Ok((message, told))
}

/// The verbs of a receiving end, each of which leaves open what it received.
trait Inlet {
    /// The next message, if it is there and nothing else is to be said; `None`: ask [`Self::take`].
    #[inline(always)]
    fn take_at_once(&mut self) -> Option<Message> {
        None
    }
    fn take(&mut self, patience: Patience) -> Result<Message, RecvError>;
    fn give_back(&mut self);
    fn take_batch(&mut self, most: usize, patience: Patience) -> Result<(), RecvError>;
}

/// Those of an end that keeps its batches to itself.
trait BatchInlet: Inlet {
    fn next(&mut self) -> Result<Option<Message>, RecvError>;
    fn give_back_batch(&mut self);
}

/// Where a message is, and what is told of it.
struct Message {
    at: *const u8,
    len: usize,
    told: Told,
}

impl Message {
    #[inline(always)]
    fn tell(self, told: &mut Told) -> Bytes {
        *told = self.told;
        Bytes { at: self.at.cast_mut(), len: self.len }
    }
}

/// A message whose guard is forgotten.
macro_rules! open {
    ($message:ident, $again:expr) => {{
        let (at, len) = ($message.as_ptr(), $message.len());
        let told = Told::new($message.sequence(), $again);
        forget($message);
        Message { at, len, told }
    }};
}

macro_rules! inlet {
    ($end:ty $(, $at_once:ident)?; $recv:ident, $message:ident => $again:expr) => {
        impl Inlet for $end {
            $(#[inline(always)]
            fn take_at_once(&mut self) -> Option<Message> {
                self.$at_once().map(|$message| open!($message, $again))
            })?

            #[inline(always)]
            fn take(&mut self, patience: Patience) -> Result<Message, RecvError> {
                let $message = match patience {
                    Patience::None => self.try_recv()?,
                    Patience::Forever => self.$recv()?,
                    Patience::Within(timeout) => self.recv_timeout(timeout)?,
                    Patience::Until(deadline) => self.recv_timeout(Patience::left(deadline))?,
                };
                Ok(open!($message, $again))
            }

            #[inline(always)]
            fn give_back(&mut self) {
                self.give_back();
            }

            #[inline(always)]
            fn take_batch(&mut self, most: usize, patience: Patience) -> Result<(), RecvError> {
                forget(match patience {
                    Patience::None => self.try_recv_batch(most)?,
                    Patience::Forever => self.recv_batch(most, None)?,
                    Patience::Within(timeout) => self.recv_batch(most, Some(timeout))?,
                    Patience::Until(deadline) => {
                        self.recv_batch(most, Some(Patience::left(deadline)))?
                    }
                });
                Ok(())
            }
        }
    };
}
inlet!(Subscriber; recv, message => false);
// `receive` has polled before.
inlet!(MpmcReceiver, recv_at_once; recv_later, message => message.redelivered());
inlet!(NetReceiver, recv_at_once; recv, message => message.redelivered());

macro_rules! batch_inlet {
    ($end:ty; $next:ident => $next_again:expr) => {
        impl BatchInlet for $end {
            #[inline(always)]
            fn next(&mut self) -> Result<Option<Message>, RecvError> {
                let mut batch = ManuallyDrop::new(self.batch_again(1));
                Ok(batch.next()?.map(|$next| Message {
                    at: $next.payload.as_ptr(),
                    len: $next.payload.len(),
                    told: Told::new($next.sequence, $next_again),
                }))
            }

            #[inline(always)]
            fn give_back_batch(&mut self) {
                drop(self.batch_again(0));
            }
        }
    };
}
batch_inlet!(Subscriber; next => false);
batch_inlet!(NetReceiver; next => next.redelivered);

/// Receives what is there, and leaves the message open. Nothing: ask [`take`], as with [`room_at_once`].
#[inline(never)]
fn take_at_once<E: Inlet>(end: &mut E, told: &mut Told) -> Bytes {
    match end.take_at_once() {
        Some(message) => message.tell(told),
        None => nothing(),
    }
}

/// Out of line, so that nothing is prepared for it on the way to a message.
#[cold]
#[inline(never)]
fn nothing() -> Bytes {
    Bytes::NONE
}

#[inline(never)]
fn take(end: &mut Receiving, limit: Limit, told: &mut Told) -> Result<Bytes, RecvError> {
    whichever!(Receiving, end, end => take_one(end, limit, told))
}

#[inline(never)]
fn take_one<E: Inlet>(end: &mut E, limit: Limit, told: &mut Told) -> Result<Bytes, RecvError> {
    Ok(end.take(limit.patience())?.tell(told))
}

/// Gives back the message that is open.
#[inline(always)]
pub(crate) fn give_back(end: &mut Receiving) {
    whichever!(Receiving, end, end => give_back_one(end));
}

#[inline(never)]
fn give_back_one<E: Inlet>(end: &mut E) {
    end.give_back();
}

/// Several messages; dropping this gives them back.
#[derive(Debug)]
pub(crate) enum Batch<'a> {
    Shared(MpmcBatch<'a>),
    Other(Open<'a>),
}

impl<'a> Batch<'a> {
    #[inline(always)]
    pub(crate) fn take(
        end: &'a mut Receiving,
        most: usize,
        limit: Limit,
    ) -> Result<Self, RecvError> {
        // An end between hosts would wait for a message that nobody asked for.
        if most > 0 {
            whichever!(Receiving, end, end => take_batch(end, most, limit))?;
        }
        Ok(match end {
            Receiving::Shared(end) => Self::Shared(end.batch_again(most)),
            Receiving::Copied(end) => Self::Other(Open { end: Whole::Copied(end), left: most }),
            Receiving::Remote(end) => Self::Other(Open { end: Whole::Remote(end), left: most }),
        })
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        match self {
            Self::Shared(batch) => Ok(batch.next()?),
            Self::Other(batch) => batch.next(),
        }
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

/// A batch that its end has open.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    end: Whole<'a>,
    left: usize,
}

/// An end whose batches are not in slots.
#[derive(Debug)]
enum Whole<'a> {
    Copied(&'a mut Subscriber),
    Remote(&'a mut NetReceiver),
}

impl Open<'_> {
    #[inline(always)]
    fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        if self.left == 0 {
            return Ok(None);
        }
        let next = match &mut self.end {
            Whole::Copied(end) => next(end)?,
            Whole::Remote(end) => end.next()?,
        };
        let Some(Message { at, len, told }) = next else { return Ok(None) };
        self.left -= 1;
        // SAFETY: as in Guard::deref: the message is the batch's until its next one, a copy, or until
        // its end, and either needs `self`, which the result borrows.
        let payload = unsafe { std::slice::from_raw_parts(at, len) };
        let (sequence, redelivered) = (told.sequence(), told.redelivered());
        Ok(Some(BatchMessage { payload, sequence, redelivered }))
    }
}

impl Drop for Open<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        give_back_batch(&mut self.end);
    }
}

/// Receives, and leaves the batch open.
#[inline(never)]
fn take_batch<E: Inlet>(end: &mut E, most: usize, limit: Limit) -> Result<(), RecvError> {
    end.take_batch(most, limit.patience())
}

/// Out of the caller's line, and by way of memory, as the copy itself is.
#[inline(never)]
fn next(end: &mut Subscriber) -> Result<Option<Message>, RecvError> {
    end.next()
}

#[inline(never)]
fn give_back_batch(end: &mut Whole<'_>) {
    match end {
        Whole::Copied(end) => end.give_back_batch(),
        Whole::Remote(end) => end.give_back_batch(),
    }
}
