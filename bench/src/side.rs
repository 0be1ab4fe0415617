//! The seam between the scenarios and the systems. A system says how one message is sent and how
//! one is received; what is done with them, and how it is timed, is the same for all, but that eight may be shown
//! together where a system hands out a slice.

use crate::arena::Region;
use crate::cpu::preemptions;
use crate::many::{Receiver, Sender, Stool};
use crate::payload::Seen;
use crate::pingpong::{Driver, Echo};
use crate::plan::{Cpus, Fault, Hosts, Outcome, Party, Role, Scenario, Seat};
use crate::stream::{Sink, Source};
use std::net::IpAddr;
use std::time::Duration;

/// One way's sending end.
pub(crate) trait Tx {
    /// Messages that one [`send`](Tx::send) sends.
    const BATCH: u64 = 1;

    /// Sends `BATCH` messages with the words `first`, `first + 1`, ...; `mark` is or-ed into the
    /// last one's word. All of it is visible to the receiver, or soon will be, on return.
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault>;

    /// Ends a stream: what was sent is on its way, and nothing of it waits for this end to be called
    /// again.
    fn finish(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// One way's receiving end.
pub(crate) trait Rx {
    /// Waits for the next message, reads all of it, and gives it back to the system.
    fn recv(&mut self) -> Result<Seen, Fault>;

    /// Waits for the next message, reads it and what else the system hands out at once, and gives
    /// all of it back.
    #[inline(always)]
    fn recv_some(&mut self, mut look: impl Look) -> Result<(), Fault> {
        look.at(self.recv()?);
        Ok(())
    }

    /// Messages so far that the system said this end would not get.
    fn missed(&self) -> u64 {
        0
    }
}

/// Who is shown what a receiving end found.
pub(crate) trait Look {
    fn at(&mut self, seen: Seen);

    /// Eight messages in a row.
    #[inline(always)]
    fn at_eight(&mut self, seen: [Seen; 8]) {
        seen.into_iter().for_each(|seen| self.at(seen));
    }
}

impl<F: FnMut(Seen)> Look for F {
    #[inline(always)]
    fn at(&mut self, seen: Seen) {
        self(seen);
    }
}

/// How a system connects the parties. All processes open the same lanes, in the same order.
pub(crate) trait Link {
    type Tx: Tx + 'static;
    type Rx: Rx + 'static;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault>;
    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault>;
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// From the active side to the passive one: pings, streams, and all that goes to or from many.
    There,
    /// The other way: pongs.
    Back,
}

/// A seat as one process sees it.
pub(crate) struct Place<'a> {
    pub(crate) seat: &'a Seat,
    pub(crate) role: Role,
    pub(crate) party: Party,
    /// Shared by all processes, zero when opened, mapped as long as the process lives.
    pub(crate) region: Region,
    /// As `region`, for the scenario.
    pub(crate) common: Region,
    /// The other side's CPU, for systems that live in one process.
    pub(crate) passive_cpu: Option<usize>,
    /// Everybody's.
    pub(crate) cpus: Option<&'a Cpus>,
    pub(crate) hosts: Hosts,
}

impl Place<'_> {
    /// Where a lane's receiver listens, for systems that have hosts.
    pub(crate) fn host(&self, lane: Lane) -> IpAddr {
        match lane {
            Lane::There => self.hosts.passive,
            Lane::Back => self.hosts.active,
        }
    }

    /// Whether some of the seat's parties share a CPU, so that whoever polls has to yield.
    pub(crate) fn is_crowded(&self) -> bool {
        self.cpus.is_none_or(|cpus| cpus.are_shared(self.seat.parties))
    }
}

/// Plays a round on the calling thread and counts who disturbed it.
pub(crate) fn play(side: &mut dyn Side, length: Duration) -> Result<Outcome, Fault> {
    let before = preemptions();
    let mut outcome = side.round(length)?;
    outcome.preempted += preemptions() - before;
    Ok(outcome)
}

/// One party of one seat, open and ready for rounds.
pub(crate) trait Side {
    /// Plays one round of about `length`.
    fn round(&mut self, length: Duration) -> Result<Outcome, Fault>;
}

/// Opens this process's party on a link between processes.
pub(crate) fn open<L: Link>(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    use {Lane::*, Role::*, Scenario::*};
    Ok(match (place.seat.scenario, place.role) {
        (Pingpong, Active) => Box::new(Driver::new(L::tx(place, There)?, L::rx(place, Back)?)),
        (Pingpong, Passive) => Box::new(Echo::new(L::rx(place, There)?, L::tx(place, Back)?)),
        (Stream, Active) => Box::new(Source::new(L::tx(place, There)?)),
        (Stream, Passive) => Box::new(Sink::new(L::rx(place, There)?)),
        (Fanout | Mpmc, Active) => Box::new(Sender::new(L::tx(place, There)?, Stool::of(place))),
        (Fanout | Mpmc, Passive) => Box::new(Receiver::new(L::rx(place, There)?, Stool::of(place))),
        (_, Stopped) => Box::new(Subscribed { _rx: L::rx(place, There)? }),
    })
}

/// A receiver that is there, and stopped.
struct Subscribed<R> {
    _rx: R,
}

impl<R> Side for Subscribed<R> {
    fn round(&mut self, _length: Duration) -> Result<Outcome, Fault> {
        Err(Fault::new("a stopped receiver was told to play"))
    }
}

/// Message sizes a run can ask for. The sizes are constants in the code that fills and checks, as
/// they are in a program that knows its messages; a size read at run time costs 8 to 12 ns.
pub(crate) const SIZES: &[usize] = &[8, 16, 48, 64, 256, 1024, 4096, 65536];

/// Opens a link that is generic over the message size: `sized!(place, N => Link<N>)`.
macro_rules! sized {
    ($place:expr, $n:ident => $link:ty) => {
        $crate::side::sized!($place, $n => $link; 8 16 48 64 256 1024 4096 65536)
    };
    ($place:expr, $n:ident => $link:ty; $($size:literal)*) => {
        match $place.seat.size {
            $($size => {
                const $n: usize = $size;
                $crate::side::open::<$link>($place)
            })*
            other => Err($crate::plan::Fault::new(format!("no code for messages of {other} B"))),
        }
    };
}
pub(crate) use sized;
