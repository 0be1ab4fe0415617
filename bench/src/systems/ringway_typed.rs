//! Ringway over shared memory with messages of a type: serialised by rkyv into the ring, validated
//! and read in place, every field. One call per message, and 32 at a time.

use super::ringway_channel::{address, fault};
use crate::payload::{Seen, judge};
use crate::plan::Fault;
use crate::side::{Lane, Link, Look, Place, Rx, Side, Tx, open as open_link};
use ringway::{Describe, Message, Receiver, Sender, rkyv};
use std::marker::PhantomData;

/// `send` for each message.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open_sized::<1>(place)
}

/// `send_batch` for 32, and up to 32 with `recv_batch`.
pub(crate) fn open_batch(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open_sized::<32>(place)
}

/// There is one type for each size.
pub(crate) fn fits(size: usize) -> bool {
    [8, 48, 64].contains(&size)
}

fn open_sized<const B: usize>(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    match place.seat.size {
        8 => open_link::<Typed<Beat, B>>(place),
        48 => open_link::<Typed<Tick, B>>(place),
        64 => open_link::<Typed<Order, B>>(place),
        other => Err(Fault::new(format!("no message type of {other} B"))),
    }
}

/// What can be sent and found out about a type of message here.
pub(super) trait Payload: Message<View: Sized> + Sized + 'static {
    fn new(word: u64) -> Self;
    fn seen(view: &Self::View) -> Seen;
}

/// A message of so many bytes whose fields are the words of any other message of that size.
macro_rules! message {
    ($name:ident, $size:literal: $first:ident $($field:ident)*) => {
        #[derive(rkyv::Archive, rkyv::Serialize, Describe)]
        #[rkyv(crate = ringway::rkyv)]
        pub(super) struct $name {
            $first: u64,
            $($field: u64,)*
        }

        impl Payload for $name {
            #[inline(always)]
            fn new(word: u64) -> Self {
                let mut words = word..;
                let mut next = || words.next().unwrap_or(word);
                $name { $first: next(), $($field: next(),)* }
            }

            #[inline(always)]
            fn seen(view: &Self::View) -> Seen {
                let word = view.$first.to_native();
                let sum = word $(.wrapping_add(view.$field.to_native()))*;
                judge::<$size>(word, sum)
            }
        }

        const _: () = assert!(size_of::<$name>() == $size);
    };
}

message!(Beat, 8: sequence);
message!(Tick, 48: sequence instrument bid_price bid_size ask_price ask_size);
message!(Order, 64: sequence account instrument price quantity side placed expires);

struct Typed<T, const B: usize>(PhantomData<T>);

impl<T: Payload, const B: usize> Link for Typed<T, B> {
    type Tx = Sending<T, B>;
    type Rx = Receiving<T, B>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        let tx = ringway::sender(&address(place, lane)).map_err(fault)?;
        Ok(Sending { tx, batch: Vec::with_capacity(B) })
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        Ok(Receiving(ringway::receiver(&address(place, lane)).map_err(fault)?))
    }
}

struct Sending<T: Payload, const B: usize> {
    tx: Sender<T>,
    batch: Vec<T>,
}

impl<T: Payload, const B: usize> Tx for Sending<T, B> {
    const BATCH: u64 = B as u64;

    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        if B == 1 {
            return self.tx.send(&T::new(first | mark)).map_err(fault);
        }
        let last = first + (B as u64 - 1);
        self.batch.clear();
        self.batch.extend((first..last).map(T::new));
        self.batch.push(T::new(last | mark));
        self.tx.send_batch(&self.batch).map_err(fault)?;
        Ok(())
    }
}

struct Receiving<T: Payload, const B: usize>(Receiver<T>);

impl<T: Payload, const B: usize> Rx for Receiving<T, B> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let message = self.0.recv().map_err(fault)?;
        Ok(T::seen(&message))
    }

    #[inline(always)]
    fn recv_some(&mut self, mut look: impl Look) -> Result<(), Fault> {
        if B == 1 {
            look.at(self.recv()?);
            return Ok(());
        }
        let mut batch = self.0.recv_batch(B).map_err(fault)?;
        while let Some(messages) = batch.next_run().map_err(fault)? {
            let (eights, rest) = messages.as_chunks();
            for eight in eights {
                look.at_eight(eight.each_ref().map(T::seen));
            }
            for message in rest {
                look.at(T::seen(message));
            }
        }
        Ok(())
    }
}
