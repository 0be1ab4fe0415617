//! Ringway over shared memory with messages of a type: serialised by rkyv into the ring, validated
//! and read in place, every field. One call per message, and 32 at a time.

use super::ringway_channel::{address, fault};
use crate::payload::{Seen, judge};
use crate::plan::Fault;
use crate::side::{Lane, Link, Place, Rx, Side, Tx, open as open_link};
use ringway::{Describe, Message, Receiver, Sender, rkyv};
use std::array;
use std::marker::PhantomData;

/// `send` for each message.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open_sized::<1>(place)
}

/// `send_batch` for 32.
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
trait Payload: Message + Sized + 'static {
    fn new(word: u64) -> Self;
    fn seen(view: &Self::View) -> Seen;
}

/// A message of so many bytes whose fields are the words of any other message of that size.
macro_rules! message {
    ($name:ident, $size:literal: $first:ident $($field:ident)*) => {
        #[derive(rkyv::Archive, rkyv::Serialize, Describe)]
        #[rkyv(crate = ringway::rkyv)]
        struct $name {
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
    type Tx = Ends<Sender<T>, B>;
    type Rx = Ends<Receiver<T>, B>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        Ok(Ends(ringway::sender(&address(place, lane)).map_err(fault)?))
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        Ok(Ends(ringway::receiver(&address(place, lane)).map_err(fault)?))
    }
}

struct Ends<E, const B: usize>(E);

impl<T: Payload, const B: usize> Tx for Ends<Sender<T>, B> {
    const BATCH: u64 = B as u64;

    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        if B == 1 {
            return self.0.send(&T::new(first | mark)).map_err(fault);
        }
        let last = B as u64 - 1;
        let batch: [T; B] = array::from_fn(|i| {
            let i = i as u64;
            T::new((first + i) | if i == last { mark } else { 0 })
        });
        self.0.send_batch(&batch).map_err(fault)?;
        Ok(())
    }
}

impl<T: Payload, const B: usize> Rx for Ends<Receiver<T>, B> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let message = self.0.recv().map_err(fault)?;
        Ok(T::seen(&message))
    }
}
