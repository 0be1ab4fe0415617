//! Ringway's channels of many, `kind=broadcast` and `kind=mpmc`, through the same API as one to one:
//! bytes written and read in place, one call per message, and 32 at a time on both sides.

use super::courtesy::Courtesy;
use super::in_process::SLOTS;
use super::ringway_channel::{address, fault};
use super::ringway_raw;
use crate::payload::{Seen, check, fill};
use crate::plan::{Fault, Wait};
use crate::poll::Poll;
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use ringway::{Receiver, RecvError, SendError, Sender};
use std::array;

/// Messages of a batch.
const BATCH: usize = 32;

/// One call per message: by the very code that `ringway-shm-raw` runs, where the verbs wait and tell
/// of no gaps.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    if !polls(place) && !place.seat.system.ends_with("-overwrite") {
        return ringway_raw::open(place);
    }
    sized!(place, N => Many<N, 1>; 8 64 1024)
}

/// A batch a call.
pub(crate) fn open_batch(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Many<N, BATCH>; 8 64 1024)
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
        "ringway-broadcast-block" => "kind=broadcast&overflow=block".into(),
        "ringway-broadcast-overwrite" => "kind=broadcast&overflow=overwrite".into(),
        "ringway-mpmc" | "ringway-mpmc-batch" => {
            // A slot's own word is in it.
            format!("kind=mpmc&slots={SLOTS}&slot={}", size + 8)
        }
        _ => return None,
    })
}

struct Many<const N: usize, const B: usize>;

impl<const N: usize, const B: usize> Link for Many<N, B> {
    type Tx = Ends<Sender<[u8]>, N, B>;
    type Rx = Ends<Receiver<[u8]>, N, B>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        Ok(Ends::new(ringway::sender(&address(place, lane)).map_err(fault)?, place))
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        Ok(Ends::new(ringway::receiver(&address(place, lane)).map_err(fault)?, place))
    }
}

/// Whether a party spins on a core that is not its own: it polls by itself then, and yields. Else the
/// verbs wait.
fn polls(place: &Place<'_>) -> bool {
    place.is_crowded() && place.seat.wait == Wait::Spin
}

/// Either end of a channel, by this process's own polling or by the channel's.
pub(super) struct Ends<E, const N: usize, const B: usize> {
    end: E,
    /// As [`polls`] says.
    polls: bool,
    courtesy: Courtesy,
    /// Number that the next message has unless some are passed over.
    next: u64,
    /// Whether the channel said that some are.
    told: bool,
    missed: u64,
}

impl<E, const N: usize, const B: usize> Ends<E, N, B> {
    pub(super) fn new(end: E, place: &Place<'_>) -> Self {
        Ends {
            end,
            polls: polls(place),
            courtesy: Courtesy::of(place),
            next: 0,
            told: false,
            missed: 0,
        }
    }
}

impl<const N: usize, const B: usize> Tx for Ends<Sender<[u8]>, N, B> {
    const BATCH: u64 = B as u64;

    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        if B > 1 {
            return self.send_batch(first, mark);
        }
        if self.polls {
            return self.send_polling(first | mark);
        }
        let mut claim = self.end.claim(N).map_err(fault)?;
        fill(&mut claim[..N], first | mark);
        claim.commit().map_err(fault)
    }
}

/// Two ways each, apart from end to end: a claim or a message that could come from either would have
/// to go through memory, and cost half the rate.
impl<const N: usize, const B: usize> Ends<Sender<[u8]>, N, B> {
    #[inline(always)]
    fn send_polling(&mut self, word: u64) -> Result<(), Fault> {
        loop {
            match self.end.try_claim(N) {
                Ok(mut claim) => {
                    fill(&mut claim[..N], word);
                    self.courtesy.met();
                    return claim.commit().map_err(fault);
                }
                Err(SendError::Full { .. }) => self.courtesy.missed(),
                Err(error) => return Err(fault(error)),
            }
        }
    }

    #[inline(always)]
    fn send_batch(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let batch: [[u8; N]; B] = array::from_fn(|i| {
            let mut message = [0; N];
            fill(&mut message, (first + i as u64) | if i + 1 == B { mark } else { 0 });
            message
        });
        if !self.polls {
            return self.end.send_batch(&batch).map(drop).map_err(fault);
        }
        let mut rest = &batch[..];
        while let Err(error) = self.end.try_send_batch(rest) {
            let SendError::Full { .. } = error.error else { return Err(fault(error)) };
            rest = &rest[error.sent..];
            self.courtesy.missed();
        }
        self.courtesy.met();
        Ok(())
    }
}

impl<const N: usize, const B: usize> Rx for Ends<Receiver<[u8]>, N, B> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        if self.polls {
            return self.recv_polling();
        }
        loop {
            match self.end.recv() {
                Ok(message) => {
                    note(message.sequence(), &mut self.next, &mut self.told, &mut self.missed);
                    return Ok(check::<N>(&message));
                }
                Err(error) => self.told |= told_of_a_gap(error)?,
            }
        }
    }

    #[inline(always)]
    fn recv_some(&mut self, mut each: impl FnMut(Seen)) -> Result<(), Fault> {
        if B == 1 {
            each(self.recv()?);
            return Ok(());
        }
        if self.polls {
            return self.recv_some_polling(each);
        }
        let mut batch = self.end.recv_batch(B).map_err(fault)?;
        while let Some(message) = batch.next().map_err(fault)? {
            each(check::<N>(&message));
        }
        Ok(())
    }

    fn missed(&self) -> u64 {
        self.missed
    }
}

impl<const N: usize, const B: usize> Ends<Receiver<[u8]>, N, B> {
    #[inline(always)]
    fn recv_polling(&mut self) -> Result<Seen, Fault> {
        loop {
            match self.end.try_recv() {
                Ok(message) => {
                    note(message.sequence(), &mut self.next, &mut self.told, &mut self.missed);
                    self.courtesy.met();
                    return Ok(check::<N>(&message));
                }
                Err(error) => self.told |= told_of_a_gap(error)?,
            }
            self.courtesy.missed();
        }
    }

    #[inline(always)]
    fn recv_some_polling(&mut self, mut each: impl FnMut(Seen)) -> Result<(), Fault> {
        loop {
            match self.end.try_recv_batch(B) {
                Ok(mut batch) => {
                    while let Some(message) = batch.next().map_err(fault)? {
                        each(check::<N>(&message));
                    }
                    self.courtesy.met();
                    return Ok(());
                }
                Err(RecvError::Empty) => self.courtesy.missed(),
                Err(error) => return Err(fault(error)),
            }
        }
    }
}

/// Notes a message's number; if the channel said that some are missing, so many are.
#[inline(always)]
fn note(sequence: u64, next: &mut u64, told: &mut bool, missed: &mut u64) {
    if *told {
        *told = false;
        *missed += sequence.saturating_sub(*next);
    }
    *next = sequence + 1;
}

/// Sorts out why there was no message: nothing there yet (false), the channel's end or a fault of it
/// (an error), or, what is left, that this receiver was lapped (true).
#[cold]
fn told_of_a_gap(error: RecvError) -> Result<bool, Fault> {
    match error {
        RecvError::Empty => Ok(false),
        RecvError::Timeout
        | RecvError::Disconnected
        | RecvError::PeerDied { .. }
        | RecvError::Invalid { .. }
        | RecvError::Corrupt { .. }
        | RecvError::PassedOver { .. }
        | RecvError::Open(_)
        | RecvError::Forked
        | RecvError::Other => Err(fault(error)),
        _ => Ok(true),
    }
}
