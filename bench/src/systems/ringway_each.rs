//! A fan-out without a channel made for it: one channel of two for each subscriber, and every message
//! written into each. What a broadcast has to beat.

use super::ringway_channel::{address, fault};
use super::ringway_raw::Ends;
use crate::plan::Fault;
use crate::side::{Lane, Link, Place, Side, Tx, sized};
use ringway::{Receiver, Sender};

pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Each<N>; 8 64 1024)
}

struct Each<const N: usize>;

impl<const N: usize> Link for Each<N> {
    type Tx = ToEach<N>;
    type Rx = Ends<Receiver<[u8]>, N, 1>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<ToEach<N>, Fault> {
        let one = |index| Ok(Ends(ringway::sender(&numbered(place, lane, index)).map_err(fault)?));
        (0..place.seat.parties.receivers).map(one).collect::<Result<_, _>>().map(ToEach)
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        let address = numbered(place, lane, place.party.index);
        Ok(Ends(ringway::receiver(&address).map_err(fault)?))
    }
}

fn numbered(place: &Place<'_>, lane: Lane, index: usize) -> String {
    address(place, lane).replacen("shm://", &format!("shm://{index}-"), 1)
}

struct ToEach<const N: usize>(Vec<Ends<Sender<[u8]>, N, 1>>);

impl<const N: usize> Tx for ToEach<N> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        self.0.iter_mut().try_for_each(|end| end.send(first, mark))
    }
}
