//! Ringway over shared memory with messages of plain bytes, written in place: one call per message,
//! and 32 messages of their own queued under one flush.

use super::ringway_channel::{address, fault};
use crate::payload::{Seen, check, fill};
use crate::plan::Fault;
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use ringway::{Receiver, Sender};

/// `claim` and `commit` for each message.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Raw<N, 1>)
}

/// `claim` and `queue` for each message, `flush` for 32.
pub(crate) fn open_batch(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Raw<N, 32>)
}

struct Raw<const N: usize, const B: u64>;

impl<const N: usize, const B: u64> Link for Raw<N, B> {
    type Tx = Ends<Sender<[u8]>, N, B>;
    type Rx = Ends<Receiver<[u8]>, N, B>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        Ok(Ends(ringway::sender(&address(place, lane)).map_err(fault)?))
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        Ok(Ends(ringway::receiver(&address(place, lane)).map_err(fault)?))
    }
}

pub(super) struct Ends<E, const N: usize, const B: u64>(pub(super) E);

impl<const N: usize, const B: u64> Tx for Ends<Sender<[u8]>, N, B> {
    const BATCH: u64 = B;

    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        for word in first..first + (B - 1) {
            let mut claim = self.0.claim(N).map_err(fault)?;
            fill(&mut claim[..N], word);
            claim.queue().map_err(fault)?;
        }
        // Its commit publishes the queued ones, too: a flush.
        let mut claim = self.0.claim(N).map_err(fault)?;
        fill(&mut claim[..N], (first + (B - 1)) | mark);
        claim.commit().map_err(fault)
    }
}

impl<const N: usize, const B: u64> Rx for Ends<Receiver<[u8]>, N, B> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let message = self.0.recv().map_err(fault)?;
        Ok(check::<N>(&message))
    }
}
