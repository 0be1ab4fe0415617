//! What can be a message, and the guards through which messages are written and read in place.
//!
//! The rkyv bounds stand here and nowhere else. Which ring the bytes are in is not known here.

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};

use rkyv::api::access_with_context;
use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::{Positional, Serializer, Writer};
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Portable, Serialize};

use crate::channel::Publish;
use crate::describe::Describe;
use crate::error::{RecvError, SendError};
use crate::flavor::{AnyBatch, AnyClaim};
use crate::guard::Guard;

/// What can be sent: `[u8]`, and every type that derives rkyv's `Archive` and `Serialize` and
/// [`Describe`]. Its archived form must not need an alignment above 16. What it points to may point on:
/// up to 1,024 deep, as in a chain of boxes; a receiver takes what goes deeper for invalid.
///
/// Implemented for all of those already; there is nothing to implement by hand.
pub trait Message: Describe {
    /// What the receiver sees: rkyv's archived form, or `[u8]`.
    type View: ?Sized;

    /// Whether messages may well take more bytes than [`Self::inline_len`] says. A guess: those that do although it
    /// says no are encoded twice.
    #[doc(hidden)]
    const MAY_BE_LONGER: bool;

    /// Bytes that this message takes if nothing in it lies out of line.
    #[doc(hidden)]
    fn inline_len(&self) -> usize;

    /// Writes the message into `room`, as far as it fits, and returns how many bytes it takes.
    #[doc(hidden)]
    fn encode(&self, room: &mut [u8], scratch: &mut Scratch) -> Result<usize, SendError>;

    /// The encoded message, if it is no longer than `room` and nothing of it lies out of line, or it is bytes anyway. Of
    /// a type without such parts the compiler knows that there is one, and that is what this is for.
    #[doc(hidden)]
    fn flat<'a>(&'a self, room: &'a mut [u8; FLAT_MAX], scratch: &mut Scratch) -> Option<&'a [u8]>;

    /// Validates received bytes and reads them in place.
    #[doc(hidden)]
    fn view(bytes: &[u8]) -> Option<&Self::View>;

    /// Whether [`Self::view`] has an answer: in a register, where a reference that may be none would be looked at
    /// once more.
    #[doc(hidden)]
    #[inline(always)]
    fn is_valid(bytes: &[u8]) -> bool {
        Self::view(bytes).is_some()
    }

    /// Validates `count` messages of equal length side by side, none of which has parts out of line.
    #[doc(hidden)]
    fn view_run(bytes: &[u8], count: usize) -> Option<&[Self::View]>
    where
        Self::View: Sized,
    {
        let _ = count;
        Self::view(bytes).map(std::slice::from_ref)
    }

    /// As [`Self::view`], again.
    ///
    /// # Safety
    /// `view` was asked about the same bytes, and had an answer.
    #[doc(hidden)]
    unsafe fn view_again(bytes: &[u8]) -> &Self::View;
}

impl<T> Message for T
where
    T: Describe + Archive + for<'a> Serialize<Strategy<Encoder<'a>, Failure>>,
    T::Archived: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    type View = T::Archived;

    /// Who has parts out of line mostly has to free them.
    const MAY_BE_LONGER: bool = std::mem::needs_drop::<T>();

    #[inline(always)]
    fn inline_len(&self) -> usize {
        size_of::<T::Archived>()
    }

    #[inline(always)]
    fn encode(&self, room: &mut [u8], scratch: &mut Scratch) -> Result<usize, SendError> {
        const {
            assert!(align_of::<T::Archived>() <= 16, "messages are aligned to 16 bytes in the ring")
        };
        let writer = RoomWriter { room, len: 0 };
        let mut encoder = Serializer::new(writer, SubAllocator::new(&mut scratch.bytes), ());
        match rkyv::api::serialize_using::<_, Failure>(self, &mut encoder) {
            Ok(_) => Ok(encoder.into_writer().len),
            Err(Failure) => {
                // The writer never fails, so it is the allocator that had too little to lend, or
                // the type's own code that refuses for ever.
                scratch.grow()?;
                Err(SendError::Encode)
            }
        }
    }

    #[inline(always)]
    fn flat<'a>(&'a self, room: &'a mut [u8; FLAT_MAX], scratch: &mut Scratch) -> Option<&'a [u8]> {
        let room = room.get_mut(..size_of::<T::Archived>())?;
        match scratch.encode(self, room) {
            Ok(len) if len == room.len() => Some(room),
            // It has parts out of line, or fails: whoever encodes it again is told how.
            _ => None,
        }
    }

    #[inline(always)]
    fn view(bytes: &[u8]) -> Option<&T::Archived> {
        // SAFETY: just validated.
        Self::is_valid(bytes).then(|| unsafe { Self::view_again(bytes) })
    }

    #[inline(always)]
    fn is_valid(bytes: &[u8]) -> bool {
        let root = bytes.as_ptr().cast::<T::Archived>();
        if bytes.len() != size_of::<T::Archived>() || !root.is_aligned() {
            let validator = ArchiveValidator::with_max_depth(bytes, Some(MAX_DEPTH));
            let mut validator = Validator::new(validator, ());
            return access_with_context::<T::Archived, _, Failure>(bytes, &mut validator).is_ok();
        }
        // The root is all there is: no need to find out where it begins, and where its parts may lie.
        // SAFETY: in bounds and aligned.
        unsafe { is_valid_alone(root) }
    }

    #[inline(always)]
    fn view_run(bytes: &[u8], count: usize) -> Option<&[T::Archived]> {
        let first = bytes.as_ptr().cast::<T::Archived>();
        if bytes.len() != count * size_of::<T::Archived>() || !first.is_aligned() {
            // One message may have parts out of line, before its root.
            return if count == 1 { Self::view(bytes).map(std::slice::from_ref) } else { None };
        }
        for index in 0..count {
            // SAFETY: in bounds and aligned, as the size of a type is a multiple of its alignment.
            if !unsafe { is_valid_alone(first.add(index)) } {
                return None;
            }
        }
        // SAFETY: all of them were just checked, and lie side by side in `bytes`.
        Some(unsafe { std::slice::from_raw_parts(first, count) })
    }

    #[inline(always)]
    unsafe fn view_again(bytes: &[u8]) -> &T::Archived {
        // SAFETY: `view` validated the same bytes, says the caller.
        unsafe { rkyv::access_unchecked(bytes) }
    }
}

/// Longest message of a type that is flat: longer ones may stay in memory, where the writing again is not what they
/// cost.
#[doc(hidden)]
pub const FLAT_MAX: usize = 256;

/// How deep a message may point. Validation goes down with it, a few hundred bytes of stack for each
/// step, and who sends may not be trusted: a chain of boxes in a message of a mebibyte would run out of
/// an ordinary thread's stack. One more than may be: rkyv stops before it would be at 0.
const MAX_DEPTH: NonZeroUsize = NonZeroUsize::new(1024 + 1).expect("not 0");

/// Whether these bytes are a message without parts out of line. What it says of such parts has to lie
/// in the nothing before it, as rkyv asks of parts.
///
/// # Safety
/// The bytes can be read, and are aligned.
#[inline(always)]
unsafe fn is_valid_alone<V>(root: *const V) -> bool
where
    V: for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    // SAFETY: of no length.
    let before = unsafe { std::slice::from_raw_parts(root.cast::<u8>(), 0) };
    let mut validator = Validator::new(ArchiveValidator::new(before), ());
    // SAFETY: as the caller says.
    unsafe { V::check_bytes(root, Strategy::<_, Failure>::wrap(&mut validator)) }.is_ok()
}

impl Message for [u8] {
    type View = [u8];

    const MAY_BE_LONGER: bool = false;

    #[inline(always)]
    fn inline_len(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn encode(&self, room: &mut [u8], _scratch: &mut Scratch) -> Result<usize, SendError> {
        if let Some(room) = room.get_mut(..self.len()) {
            room.copy_from_slice(self);
        }
        Ok(self.len())
    }

    #[inline(always)]
    fn flat<'a>(&'a self, _: &'a mut [u8; FLAT_MAX], _: &mut Scratch) -> Option<&'a [u8]> {
        Some(self)
    }

    #[inline(always)]
    fn view(bytes: &[u8]) -> Option<&[u8]> {
        Some(bytes)
    }

    #[inline(always)]
    unsafe fn view_again(bytes: &[u8]) -> &[u8] {
        bytes
    }
}

/// What rkyv serialises with: into the ring, with scratch memory lent by the sender, and nothing
/// shared between pointers.
type Encoder<'a> = Serializer<RoomWriter<'a>, SubAllocator<'a>, ()>;

/// Writes what fits and counts the rest, so that one pass over a message too long for the free run
/// tells how much it needs.
#[doc(hidden)]
#[derive(Debug)]
pub struct RoomWriter<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Positional for RoomWriter<'_> {
    #[inline(always)]
    fn pos(&self) -> usize {
        self.len
    }
}

impl<E> Writer<E> for RoomWriter<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        let end = self.len + bytes.len();
        if let Some(room) = self.room.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
        Ok(())
    }
}

/// Memory that a serialiser borrows while it works on nested lists. Starts empty, grows when a
/// message asks for more, and is kept.
#[doc(hidden)]
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<MaybeUninit<u8>>,
}

/// Beyond this a message is refused: its scratch is a few words per nested element, so something
/// is wrong with it.
const MAX_SCRATCH: usize = 256 << 20;

impl Scratch {
    /// Encodes, with more scratch memory as long as that may help.
    #[inline(always)]
    pub(crate) fn encode<T: Message + ?Sized>(
        &mut self,
        message: &T,
        room: &mut [u8],
    ) -> Result<usize, SendError> {
        let before = self.bytes.len();
        match message.encode(room, self) {
            Err(SendError::Encode) if self.bytes.len() > before => self.encode_again(message, room),
            result => result,
        }
    }

    #[cold]
    fn encode_again<T: Message + ?Sized>(
        &mut self,
        message: &T,
        room: &mut [u8],
    ) -> Result<usize, SendError> {
        loop {
            let before = self.bytes.len();
            match message.encode(room, self) {
                Err(SendError::Encode) if self.bytes.len() > before => {}
                result => return result,
            }
        }
    }

    #[cold]
    fn grow(&mut self) -> Result<(), SendError> {
        let len = (self.bytes.len() * 2).max(4096);
        if len > MAX_SCRATCH {
            return Err(SendError::Encode);
        }
        self.bytes.resize(len, MaybeUninit::uninit());
        Ok(())
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scratch({} bytes)", self.bytes.len())
    }
}

/// Room for one message of bytes, to be written through `DerefMut`. Dropping it aborts, and nobody
/// sees that it was. The bytes hold whatever was there before.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct Claim<'a>(pub(crate) AnyClaim<'a>);

impl Claim<'_> {
    /// Publishes the message, with everything queued before it.
    ///
    /// # Errors
    /// [`SendError::Forked`]: the room is the parent's; [`SendError::Corrupt`]. Between hosts with `io=thread`
    /// also how the session ended since the claim, as a send tells it: the message is not sent then.
    #[inline(always)]
    pub fn commit(self) -> Result<(), SendError> {
        self.0.finish_whole(Publish::Now)
    }

    /// Publishes the first `len` bytes only; more than claimed counts as all.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn commit_len(self, len: usize) -> Result<(), SendError> {
        self.0.finish(len, Publish::Now)
    }

    /// Keeps the message back until the next flush or commit.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue(self) -> Result<(), SendError> {
        self.0.finish_whole(Publish::Later)
    }

    /// As [`Self::queue`], with the first `len` bytes only.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue_len(self, len: usize) -> Result<(), SendError> {
        self.0.finish(len, Publish::Later)
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Claim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A message, validated and read where the sender wrote it. Dropping it gives the room back to the
/// sender, so hold it no longer than needed.
pub struct Received<'a, T: Message + ?Sized> {
    /// Validated by `new`. Where the bytes are, the guard knows: with a pointer beside it, a result
    /// that holds either this or an error would have both in the same word, and that word would be
    /// taken apart and put together for each message.
    guard: Guard<'a>,
    _view: PhantomData<&'a T::View>,
}

impl<'a, T: Message + ?Sized> Received<'a, T> {
    #[inline(always)]
    pub(crate) fn new(guard: Guard<'a>) -> Result<Self, RecvError> {
        if !T::is_valid(&guard) {
            return Err(guard.refuse());
        }
        Ok(Self { guard, _view: PhantomData })
    }

    /// Whether a receiver that died may have seen this message before.
    pub fn redelivered(&self) -> bool {
        self.guard.redelivered()
    }

    /// Number of the message, from 0. In shared memory: since its sender opened the channel, or, with
    /// `kind=mpmc`, its place in the queue, of which not every one is taken. Between hosts: in the session
    /// that it came in. Another sender has numbers of its own, a later session begins anew, and that of a
    /// broadcast or a work queue counts what is for this receiver.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.guard.sequence()
    }

    /// The bytes as they lie in the ring.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.guard
    }
}

impl<T: Message + ?Sized> Deref for Received<'_, T> {
    type Target = T::View;

    #[inline(always)]
    fn deref(&self) -> &T::View {
        // SAFETY: `new` validated the bytes of `guard`, which keeps them in place and unchanged for
        // as long as it lives.
        unsafe { T::view_again(&self.guard) }
    }
}

/// Tells the number, not the contents: archived types seldom are `Debug`.
impl<T: Message + ?Sized> fmt::Debug for Received<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received(message {}, {} bytes)", self.sequence(), self.as_bytes().len())
    }
}

/// A validated message that borrows from its receiver without holding the ring's room by itself: one
/// of a [`Batch`], or one that was copied out.
pub struct Borrowed<'a, T: Message + ?Sized> {
    pub(crate) view: &'a T::View,
    pub(crate) sequence: u64,
    pub(crate) redelivered: bool,
}

impl<T: Message + ?Sized> Borrowed<'_, T> {
    /// Whether a receiver that died may have seen this message before.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Number of the message: see [`Received::sequence`].
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl<T: Message + ?Sized> Deref for Borrowed<'_, T> {
    type Target = T::View;

    #[inline(always)]
    fn deref(&self) -> &T::View {
        self.view
    }
}

/// Tells the number, not the contents: archived types seldom are `Debug`.
impl<T: Message + ?Sized> fmt::Debug for Borrowed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Borrowed(message {})", self.sequence)
    }
}

/// Several messages, given back together when it is dropped.
///
/// It lends one message at a time: `while let Some(message) = batch.next()? { … }`.
#[derive(Debug)]
pub struct Batch<'a, T: Message + ?Sized> {
    pub(crate) batch: AnyBatch<'a>,
    pub(crate) _type: PhantomData<fn() -> T>,
}

impl<T: Message + ?Sized> Batch<'_, T> {
    /// The next message, until there is none or the batch's limit is reached.
    ///
    /// # Errors
    /// [`RecvError::Invalid`], after which the batch goes on; [`RecvError::Corrupt`].
    #[inline(always)]
    #[allow(clippy::should_implement_trait, reason = "lends, which Iterator can't")]
    pub fn next(&mut self) -> Result<Option<Borrowed<'_, T>>, RecvError> {
        let Some(message) = self.batch.next()? else { return Ok(None) };
        let (sequence, redelivered) = (message.sequence, message.redelivered);
        match T::view(message.payload) {
            Some(view) => Ok(Some(Borrowed { view, sequence, redelivered })),
            None => Err(RecvError::Invalid { sequence }),
        }
    }
}

impl<T: Message + ?Sized> Batch<'_, T>
where
    T::View: Sized,
{
    /// The next messages that were sent together with [`Sender::send_batch`], as one slice; of other
    /// messages the next one by itself. The way to take out small messages at the cost of their
    /// bytes.
    ///
    /// [`Sender::send_batch`]: crate::Sender::send_batch
    ///
    /// # Errors
    /// As [`Self::next`]; the number is that of the first of them, and all are skipped.
    #[inline(always)]
    pub fn next_run(&mut self) -> Result<Option<&[T::View]>, RecvError> {
        let Some(run) = self.batch.next_run()? else { return Ok(None) };
        match T::view_run(run.payload, run.count) {
            Some(views) => Ok(Some(views)),
            None => Err(RecvError::Invalid { sequence: run.sequence }),
        }
    }
}

#[cfg(test)]
mod tests {
    use rkyv::{Archive, Serialize};

    use super::*;

    #[derive(Archive, Serialize, Describe)]
    struct Flat {
        number: u64,
        yes: bool,
    }

    #[derive(Archive, Serialize, Describe)]
    struct Named {
        name: String,
    }

    #[derive(Archive, Serialize, Describe)]
    struct Long {
        words: [u64; FLAT_MAX / 8 + 1],
    }

    fn flat<T: Message + ?Sized>(message: &T) -> Option<Vec<u8>> {
        message.flat(&mut [0; FLAT_MAX], &mut Scratch::default()).map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_short_and_in_line_is_flat_and_is_what_is_sent_otherwise() {
        let message = Flat { number: 7, yes: true };
        let mut room = [0; size_of::<ArchivedFlat>()];
        assert_eq!(Scratch::default().encode(&message, &mut room), Ok(room.len()));
        assert_eq!(flat(&message), Some(room.to_vec()));
        assert_eq!(flat(&[1_u8, 2, 3][..]), Some(vec![1, 2, 3]));
    }

    #[test]
    fn what_points_elsewhere_or_is_long_is_not_flat() {
        assert_eq!(flat(&Named { name: "longer than what fits in line".into() }), None);
        assert_eq!(flat(&Long { words: [0; FLAT_MAX / 8 + 1] }), None);
    }
}
