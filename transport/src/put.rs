//! How messages get into the room that an end grants: encoded where they will lie, one by one, or many of one
//! length together. The same for every flavor of end.
//!
//! Whose room it is and what it costs is not known here, nor what a message is.

use std::borrow::Borrow;

use crate::channel::{Limit, Patience, Publish, Sent};
use crate::error::{BatchError, SendError};
use crate::flavor::{ArrayRoom, BatchOutlet, Outlet, Room};
use crate::message::{FLAT_MAX, Message, Scratch};

/// Serialises straight into the free run at the tail, or, if the length is certain enough beforehand, into room for just
/// that. Only when that is too short, now and then in a lap and when the ring is full, room is claimed for the length
/// that came out, and the message serialised again.
///
/// A message that was just put together goes nowhere but there: to be handed to a call it would have to be whole in
/// memory first, whether the call comes or not, which is as much to write again as the ring gets. With 64 bytes
/// a send took half as long again. So what is called when there is no room gets bytes, if the message
/// [is flat](Message::flat).
#[inline(always)]
pub(crate) fn put<E: Outlet, T: Message + ?Sized>(
    end: &mut E,
    scratch: &mut Scratch,
    message: &T,
    patience: Patience,
    publish: Publish,
    queued: usize,
) -> Result<(), SendError> {
    if let Publish::Later = publish {
        end.expect(queued).map_err(Into::into)?;
    }
    let inline = message.inline_len();
    let room = if T::MAY_BE_LONGER { end.claim_run(inline) } else { end.claim_at_once(inline) };
    let len = match room.map_err(Into::into)? {
        Some(mut run) => {
            let len = scratch.encode(message, &mut run)?;
            if len <= run.len() {
                return run.finish(len, publish).map_err(Into::into);
            }
            Some(len)
        }
        None => None,
    };
    if len.is_none_or(|len| len == inline) {
        let mut room = [0; FLAT_MAX];
        if let Some(bytes) = message.flat(&mut room, scratch) {
            return put_bytes(end, bytes, Limit::of(patience), publish);
        }
    }
    put_slowly(end, scratch, message, len, Limit::of(patience), publish)
}

/// Puts an encoded message where there is room for it.
#[cold]
#[inline(never)]
fn put_bytes<E: Outlet>(
    end: &mut E,
    bytes: &[u8],
    limit: Limit,
    publish: Publish,
) -> Result<(), SendError> {
    let mut claim = end.claim(bytes.len(), limit.patience()).map_err(Into::into)?;
    claim[..bytes.len()].copy_from_slice(bytes);
    claim.finish(bytes.len(), publish).map_err(Into::into)
}

/// Encodes a message where there is room for it, once it is known how much that takes: `len`, or it is encoded twice.
#[cold]
#[inline(never)]
fn put_slowly<E: Outlet, T: Message + ?Sized>(
    end: &mut E,
    scratch: &mut Scratch,
    message: &T,
    len: Option<usize>,
    limit: Limit,
    publish: Publish,
) -> Result<(), SendError> {
    let len = match len {
        Some(len) => len,
        None => scratch.encode(message, &mut [])?,
    };
    let mut claim = end.claim(len, limit.patience()).map_err(Into::into)?;
    if scratch.encode(message, &mut claim)? != len {
        // A Serialize that writes another length each time; the claim is aborted.
        return Err(SendError::Encode);
    }
    claim.finish(len, publish).map_err(Into::into)
}

/// Sends them together, as [`crate::Sender::try_send_batch`] says.
#[inline(always)]
pub(crate) fn put_batch<E: BatchOutlet, T: Message + ?Sized, M: Borrow<T>>(
    end: &mut E,
    scratch: &mut Scratch,
    messages: &[M],
    patience: Patience,
) -> Result<Sent, BatchError> {
    let begun = put_alike::<E, T, M>(end, scratch, messages);
    if begun.sent > 0 && begun.sent == messages.len() {
        return Ok(Sent { messages: begun.sent, publications: 1 });
    }
    put_rest(end, scratch, messages, begun, patience)
}

/// How far a batch is that is not through.
struct Begun {
    /// Messages that were queued, or, if that is all, published.
    sent: usize,
    /// Whether there may be many of one length at the front of the others.
    alike: bool,
    result: Result<(), SendError>,
}

/// Publishes all of them at once, if they are of one length and there is room for which nobody has to be waited for: a
/// straight line, which most batches go. Of a batch that turns out to be otherwise on the way, the front is queued.
#[inline(always)]
fn put_alike<E: BatchOutlet, T: Message + ?Sized, M: Borrow<T>>(
    end: &mut E,
    scratch: &mut Scratch,
    messages: &[M],
) -> Begun {
    let mut begun = Begun { sent: 0, alike: E::HAS_ARRAYS, result: Ok(()) };
    if !E::HAS_ARRAYS {
        return begun;
    }
    let (len, count) = alike::<E, T, M>(end, messages);
    if count < 2 || count < messages.len() {
        return begun;
    }
    let mut claim = match end.claim_array_at_once(len, count) {
        Ok(Some(claim)) => claim,
        Ok(None) => return begun,
        Err(error) => return Begun { result: Err(error.into()), ..begun },
    };
    let (written, error) = encode_alike(scratch, messages, claim.rooms(len), len);
    if written == 0 {
        // No second claim of as many: of slots, each one that is given up takes room until receivers come by.
        return Begun { alike: false, result: error.map_or(Ok(()), Err), ..begun };
    }
    let publish = if written == count { Publish::Now } else { Publish::Later };
    begun.result = claim.finish(written, publish).map_err(Into::into);
    begun.sent = if begun.result.is_ok() { written } else { 0 };
    begun
}

/// Goes on with a batch.
#[inline(never)]
fn put_rest<E: BatchOutlet, T: Message + ?Sized, M: Borrow<T>>(
    end: &mut E,
    scratch: &mut Scratch,
    messages: &[M],
    begun: Begun,
    patience: Patience,
) -> Result<Sent, BatchError> {
    let before = end.publications();
    let Begun { mut sent, alike: mut equal, mut result } = begun;
    while sent < messages.len() && result.is_ok() {
        let rest = &messages[sent..];
        let queued =
            if equal { queue_equal::<E, T, M>(end, scratch, rest, patience) } else { Ok(0) };
        result = match queued {
            Ok(0) => {
                equal = false;
                put::<E, T>(end, scratch, rest[0].borrow(), patience, Publish::Later, rest.len())
                    .map(|()| sent += 1)
            }
            queued => queued.map(|count| sent += count),
        };
    }
    let flushed = end.flush().map_err(Into::into);
    // How a session ended is told once: what the next call finds again gives way to it.
    let result = match result {
        Err(
            SendError::Full { .. }
            | SendError::Timeout { .. }
            | SendError::TooLarge { .. }
            | SendError::Encode,
        ) => flushed.and(result),
        _ => result.and(flushed),
    };
    match result {
        Ok(()) => Ok(Sent { messages: sent, publications: end.publications() - before }),
        Err(error) => Err(BatchError { sent, error }),
    }
}

/// Queues as many messages from the front as are of one length, as one record. 0: they have to go one
/// by one.
#[inline(always)]
fn queue_equal<E: BatchOutlet, T: Message + ?Sized, M: Borrow<T>>(
    end: &mut E,
    scratch: &mut Scratch,
    messages: &[M],
    patience: Patience,
) -> Result<usize, SendError> {
    let (len, count) = alike::<E, T, M>(end, messages);
    if count < 2 {
        return Ok(0);
    }
    let mut claim = match end.claim_array(len, count, patience) {
        Ok(claim) => claim,
        Err(error) => match error.into() {
            // Some of them may fit one by one.
            SendError::Full { .. } => return Ok(0),
            error => return Err(error),
        },
    };
    let (written, error) = encode_alike(scratch, messages, claim.rooms(len), len);
    match error {
        // It comes first, and its error with it, when those before it are through.
        Some(error) if written == 0 => return Err(error),
        _ if written == 0 => return Ok(0),
        _ => claim.finish(written, Publish::Later).map_err(Into::into)?,
    }
    Ok(written)
}

/// Bytes of the first message, and how many at the front have as many and may go in one record; none, if those
/// are 0.
#[inline(always)]
fn alike<E: BatchOutlet, T: Message + ?Sized, M: Borrow<T>>(
    end: &E,
    messages: &[M],
) -> (usize, usize) {
    let len = messages.first().map_or(0, |first| first.borrow().inline_len());
    if len == 0 {
        return (0, 0);
    }
    let most = messages.len().min(end.array_max(len));
    let is_alike = |message: &&M| (*message).borrow().inline_len() == len;
    (len, messages[..most].iter().take_while(is_alike).count())
}

/// Writes messages of `len` bytes, each into a room of its own, as far as they are as long: a message with parts
/// out of line ends that, since an element's place in an array promises only the alignment of its inline part; so
/// does one that fails. Returns how many were written, and what the next one failed of.
#[inline(always)]
fn encode_alike<'a, T: Message + ?Sized, M: Borrow<T>>(
    scratch: &mut Scratch,
    messages: &[M],
    rooms: impl Iterator<Item = &'a mut [u8]>,
    len: usize,
) -> (usize, Option<SendError>) {
    let mut written = 0;
    for (message, room) in messages.iter().zip(rooms) {
        match scratch.encode(message.borrow(), room) {
            Ok(bytes) if bytes == len => written += 1,
            Ok(_) => break,
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

#[cfg(test)]
mod tests {
    use ringway_net::SendError as NetSendError;

    use super::*;
    use crate::remote::NoArray;

    /// An end between hosts that has no room, and whose session then ends.
    struct Doomed {
        claimed: NetSendError,
        flushed: NetSendError,
    }

    impl Outlet for Doomed {
        type Error = NetSendError;
        type Claim<'a> = ringway_net::Claim<'a>;

        fn claim_run(&mut self, _likely: usize) -> Result<Option<Self::Claim<'_>>, NetSendError> {
            Ok(None)
        }

        fn claim(&mut self, _: usize, _: Patience) -> Result<Self::Claim<'_>, NetSendError> {
            Err(self.claimed)
        }
    }

    impl BatchOutlet for Doomed {
        type ArrayClaim<'a> = NoArray;

        const HAS_ARRAYS: bool = false;

        fn claim_array(
            &mut self,
            _: usize,
            _: usize,
            _: Patience,
        ) -> Result<NoArray, NetSendError> {
            Err(self.claimed)
        }

        fn flush(&mut self) -> Result<(), NetSendError> {
            Err(self.flushed)
        }

        fn max_len(&self) -> usize {
            16
        }

        fn publications(&self) -> u64 {
            0
        }
    }

    #[test]
    fn what_a_batch_lost_is_told_though_it_failed_for_something_else() {
        let told = |claimed, flushed| {
            let mut end = Doomed { claimed, flushed };
            let (mut scratch, messages) = (Scratch::default(), [&[7_u8; 8][..]]);
            put_batch::<_, [u8], _>(&mut end, &mut scratch, &messages, Patience::None).unwrap_err()
        };
        let lost = NetSendError::Disconnected { lost: 3 };
        let error = SendError::Lost { lost: 3, death: None };
        for again in [
            NetSendError::Full { peer: None },
            NetSendError::Timeout { peer: None },
            NetSendError::TooLarge { len: 8, max: 4 },
        ] {
            assert_eq!(told(again, lost), BatchError { sent: 0, error });
        }
        // Nor is it forgotten for what comes again.
        assert_eq!(told(lost, NetSendError::Forked), BatchError { sent: 0, error });
    }
}
