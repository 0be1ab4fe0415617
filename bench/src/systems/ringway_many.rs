//! Ringway's channels of many, `kind=broadcast` and `kind=mpmc`, through the same API as one to one:
//! bytes written and read in place, one call per message, and 32 at a time on both sides.

use super::in_process::SLOTS;
use super::ringway_channel::{address, fault};
use super::ringway_raw;
use crate::payload::{Seen, check, fill};
use crate::plan::Fault;
use crate::side::{Lane, Link, Look, Place, Rx, Side, Tx, sized};
use ringway::{Receiver, RecvError, Sender};
use std::array;

/// Messages of a batch.
const BATCH: usize = 32;

/// One call per message: by the very code that `ringway-shm-raw` runs, unless receivers are told of gaps.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    if !place.seat.system.ends_with("-overwrite") {
        return ringway_raw::open(place);
    }
    sized!(place, N => Overwriting<N>; 8 64 1024)
}

/// A batch a call.
pub(crate) fn open_batch(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Batched<N>; 8 64 1024)
}

pub(crate) fn fits(size: usize) -> bool {
    [8, 64, 1024].contains(&size)
}

/// Whether this build of Ringway knows the addresses of a system.
pub(crate) fn knows(system: &str) -> bool {
    let address = kind(system, 64).map(|options| format!("shm://any?{options}"));
    address.is_some_and(|address| ringway::Builder::new(&address).is_ok())
}

/// What a system's addresses say beside what every address here does; nothing for channels of two.
pub(super) fn kind(system: &str, size: usize) -> Option<String> {
    Some(match system {
        "ringway-broadcast-block" | "ringway-broadcast-typed-batch" => {
            "kind=broadcast&overflow=block".into()
        }
        "ringway-broadcast-overwrite" => "kind=broadcast&overflow=overwrite".into(),
        "ringway-mpmc" | "ringway-mpmc-batch" => {
            // A slot's own word is in it.
            format!("kind=mpmc&slots={SLOTS}&slot={}", size + 8)
        }
        _ => return None,
    })
}

struct Overwriting<const N: usize>;

impl<const N: usize> Link for Overwriting<N> {
    type Tx = ringway_raw::Ends<Sender<[u8]>, N, 1>;
    type Rx = Lapped<N>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        Ok(ringway_raw::Ends(ringway::sender(&address(place, lane)).map_err(fault)?))
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        let end = ringway::receiver(&address(place, lane)).map_err(fault)?;
        Ok(Lapped { end, missed: 0 })
    }
}

/// A receiver that goes on behind what was overwritten, and keeps count of it.
struct Lapped<const N: usize> {
    end: Receiver<[u8]>,
    missed: u64,
}

impl<const N: usize> Rx for Lapped<N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        loop {
            match self.end.recv() {
                Ok(message) => return Ok(check::<N>(&message)),
                Err(RecvError::Lagged { missed }) => self.missed += missed,
                Err(error) => return Err(fault(error)),
            }
        }
    }

    fn missed(&self) -> u64 {
        self.missed
    }
}

struct Batched<const N: usize>;

impl<const N: usize> Link for Batched<N> {
    type Tx = InBatches<Sender<[u8]>, N>;
    type Rx = InBatches<Receiver<[u8]>, N>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        Ok(InBatches(ringway::sender(&address(place, lane)).map_err(fault)?))
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        Ok(InBatches(ringway::receiver(&address(place, lane)).map_err(fault)?))
    }
}

struct InBatches<E, const N: usize>(E);

impl<const N: usize> Tx for InBatches<Sender<[u8]>, N> {
    const BATCH: u64 = BATCH as u64;

    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let batch: [[u8; N]; BATCH] = array::from_fn(|i| {
            let mut message = [0; N];
            fill(&mut message, (first + i as u64) | if i + 1 == BATCH { mark } else { 0 });
            message
        });
        self.0.send_batch(&batch).map(drop).map_err(fault)
    }
}

impl<const N: usize> Rx for InBatches<Receiver<[u8]>, N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let message = self.0.recv().map_err(fault)?;
        Ok(check::<N>(&message))
    }

    #[inline(always)]
    fn recv_some(&mut self, mut look: impl Look) -> Result<(), Fault> {
        let mut batch = self.0.recv_batch(BATCH).map_err(fault)?;
        while let Some(message) = batch.next().map_err(fault)? {
            look.at(check::<N>(&message));
        }
        Ok(())
    }
}
