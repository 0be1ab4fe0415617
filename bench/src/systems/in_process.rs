//! Queues of the crate registry that live inside of one process: the first sender's process keeps the
//! queue and a thread for each party, on the CPU where the party's process is; that one only watches.
//! Each party spins, then yields, on full and on empty. All of them have as many slots as Ringway's
//! row has.

use super::courtesy::Courtesy;
use crate::cpu::pin;
use crate::many::{self, Stool};
use crate::payload::{Seen, check, fill};
use crate::pingpong::{Driver, Echo};
use crate::plan::{Cpus, Fault, Outcome, Party, Role, Scenario};
use crate::poll::Poll;
use crate::side::{Place, Rx, Side, Tx, play};
use crate::stream::{Sink, Source};
use crossbeam_queue::ArrayQueue;
use std::marker::PhantomData;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Messages that a queue holds.
pub(crate) const SLOTS: usize = 4096;

pub(crate) fn open_array_queue(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open::<Array>(place)
}

pub(crate) fn open_crossbeam_channel(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open::<Crossbeam>(place)
}

pub(crate) fn open_kanal(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open::<Kanal>(place)
}

/// Messages go by value: larger ones would measure `memcpy`.
pub(crate) fn fits(size: usize) -> bool {
    [8, 64, 1024].contains(&size)
}

/// They bring their own memory.
pub(crate) fn arena_len(_size: usize, _capacity: usize) -> usize {
    0
}

/// A queue that any number of threads may push to and pop from.
trait Queue: 'static {
    /// A handle for one thread, both ends.
    type Handle<M: Send + 'static>: Clone + Send + 'static;

    fn bounded<M: Send + 'static>() -> Self::Handle<M>;
    /// False: full.
    fn push<M: Send + Copy + 'static>(queue: &Self::Handle<M>, message: M) -> Result<bool, Fault>;
    /// None: empty.
    fn pop<M: Send + 'static>(queue: &Self::Handle<M>) -> Result<Option<M>, Fault>;
}

struct Array;

impl Queue for Array {
    type Handle<M: Send + 'static> = Arc<ArrayQueue<M>>;

    fn bounded<M: Send + 'static>() -> Self::Handle<M> {
        Arc::new(ArrayQueue::new(SLOTS))
    }

    #[inline(always)]
    fn push<M: Send + Copy + 'static>(queue: &Self::Handle<M>, message: M) -> Result<bool, Fault> {
        Ok(queue.push(message).is_ok())
    }

    #[inline(always)]
    fn pop<M: Send + 'static>(queue: &Self::Handle<M>) -> Result<Option<M>, Fault> {
        Ok(queue.pop())
    }
}

struct Crossbeam;

impl Queue for Crossbeam {
    type Handle<M: Send + 'static> = (crossbeam_channel::Sender<M>, crossbeam_channel::Receiver<M>);

    fn bounded<M: Send + 'static>() -> Self::Handle<M> {
        crossbeam_channel::bounded(SLOTS)
    }

    #[inline(always)]
    fn push<M: Send + Copy + 'static>(queue: &Self::Handle<M>, message: M) -> Result<bool, Fault> {
        match queue.0.try_send(message) {
            Ok(()) => Ok(true),
            Err(crossbeam_channel::TrySendError::Full(_)) => Ok(false),
            Err(error) => Err(Fault::new(error.to_string())),
        }
    }

    #[inline(always)]
    fn pop<M: Send + 'static>(queue: &Self::Handle<M>) -> Result<Option<M>, Fault> {
        match queue.1.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(None),
            Err(error) => Err(Fault::new(error.to_string())),
        }
    }
}

struct Kanal;

impl Queue for Kanal {
    type Handle<M: Send + 'static> = (kanal::Sender<M>, kanal::Receiver<M>);

    fn bounded<M: Send + 'static>() -> Self::Handle<M> {
        kanal::bounded(SLOTS)
    }

    #[inline(always)]
    fn push<M: Send + Copy + 'static>(queue: &Self::Handle<M>, message: M) -> Result<bool, Fault> {
        queue.0.try_send(message).map_err(|error| Fault::new(error.to_string()))
    }

    #[inline(always)]
    fn pop<M: Send + 'static>(queue: &Self::Handle<M>) -> Result<Option<M>, Fault> {
        queue.1.try_recv().map_err(|error| Fault::new(error.to_string()))
    }
}

fn open<Q: Queue>(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    if (place.party) != (Party { role: Role::Active, index: 0 }) {
        return Ok(Box::new(Onlooker));
    }
    match place.seat.size {
        8 => open_sized::<Q, 8>(place),
        64 => open_sized::<Q, 64>(place),
        1024 => open_sized::<Q, 1024>(place),
        other => Err(Fault::new(format!("no code for this queue with messages of {other} B"))),
    }
}

fn open_sized<Q: Queue, const N: usize>(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    let there = Q::bounded::<Message<N>>();
    let back = Q::bounded::<Message<N>>();
    let end = |queue: &Q::Handle<Message<N>>| End::<Q, N> {
        queue: queue.clone(),
        courtesy: Courtesy::of(place),
        _queue: PhantomData,
    };
    let stool = |party| Stool { party, ..Stool::of(place) };
    let mut sides: Vec<(Party, Box<dyn Side + Send>)> = Vec::new();
    for party in place.seat.parties.all() {
        let side: Box<dyn Side + Send> = match (place.seat.scenario, party.role) {
            (Scenario::Pingpong, Role::Active) => Box::new(Driver::new(end(&there), end(&back))),
            (Scenario::Pingpong, Role::Passive) => Box::new(Echo::new(end(&there), end(&back))),
            (Scenario::Stream, Role::Active) => Box::new(Source::new(end(&there))),
            (Scenario::Stream, Role::Passive) => Box::new(Sink::new(end(&there))),
            (_, Role::Active) => Box::new(many::Sender::new(end(&there), stool(party))),
            (_, Role::Passive | Role::Stopped) => {
                Box::new(many::Receiver::new(end(&there), stool(party)))
            }
        };
        sides.push((party, side));
    }
    Ok(Box::new(Threads::start(sides, place)?))
}

/// Aligned as the other systems' messages are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Message<const N: usize>([u8; N]);

/// Either end, for one thread.
struct End<Q: Queue, const N: usize> {
    queue: Q::Handle<Message<N>>,
    courtesy: Courtesy,
    _queue: PhantomData<fn() -> Q>,
}

impl<Q: Queue, const N: usize> Tx for End<Q, N> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let mut message = Message([0; N]);
        fill(&mut message.0, first | mark);
        while !Q::push(&self.queue, message)? {
            self.courtesy.missed();
        }
        self.courtesy.met();
        Ok(())
    }
}

impl<Q: Queue, const N: usize> Rx for End<Q, N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        loop {
            match Q::pop(&self.queue)? {
                Some(message) => {
                    self.courtesy.met();
                    return Ok(check::<N>(&message.0));
                }
                None => self.courtesy.missed(),
            }
        }
    }
}

/// All parties in one process: the first sender on the calling thread, the others on threads of their
/// own.
struct Threads {
    own: Box<dyn Side + Send>,
    others: Vec<Other>,
}

struct Other {
    party: Party,
    rounds: mpsc::Sender<Duration>,
    outcomes: mpsc::Receiver<Result<Outcome, Fault>>,
}

impl Threads {
    fn start(
        sides: Vec<(Party, Box<dyn Side + Send>)>,
        place: &Place<'_>,
    ) -> Result<Threads, Fault> {
        let mut own = None;
        let mut others = Vec::new();
        for (party, side) in sides {
            if party == place.party {
                own = Some(side);
            } else {
                others.push(Other::start(party, side, place.cpus)?);
            }
        }
        let own = own.ok_or_else(|| Fault::new("the first sender takes no part"))?;
        Ok(Threads { own, others })
    }
}

impl Other {
    fn start(
        party: Party,
        mut side: Box<dyn Side + Send>,
        cpus: Option<&Cpus>,
    ) -> Result<Other, Fault> {
        let (rounds, orders) = mpsc::channel();
        let (replies, outcomes) = mpsc::channel();
        let cpu = cpus.map(|cpus| cpus.of(party));
        thread::Builder::new()
            .name(party.to_string())
            .spawn(move || {
                let pinned = cpu.map_or(Ok(()), pin);
                for length in orders {
                    let outcome = match &pinned {
                        Ok(()) => play(side.as_mut(), length),
                        Err(e) => Err(Fault::new(e.to_string())),
                    };
                    if replies.send(outcome).is_err() {
                        break;
                    }
                }
            })
            .map_err(|e| Fault::new(format!("can't start a thread: {e}")))?;
        Ok(Other { party, rounds, outcomes })
    }

    fn gone(&self) -> Fault {
        Fault::new(format!("the thread of {} has ended", self.party))
    }
}

impl Side for Threads {
    fn round(&mut self, length: Duration) -> Result<Outcome, Fault> {
        // In the order of `Parties::all`: receivers first.
        for other in &self.others {
            other.rounds.send(length).map_err(|_| other.gone())?;
        }
        let mut sum = self.own.round(length)?;
        for other in &self.others {
            sum = sum.and(other.outcomes.recv().map_err(|_| other.gone())??);
        }
        Ok(sum)
    }
}

/// A process that has no part in it.
struct Onlooker;

impl Side for Onlooker {
    fn round(&mut self, _length: Duration) -> Result<Outcome, Fault> {
        Ok(Outcome::default())
    }
}
