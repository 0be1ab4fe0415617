//! rtrb, the fastest ring of the crate registry, inside of one process: the active process keeps the
//! ring and a thread on the other CPU; the passive process only watches.

use crate::cpu::pin;
use crate::payload::{Seen, check, fill};
use crate::pingpong::{Driver, Echo};
use crate::plan::{Fault, Outcome, Role, Scenario};
use crate::poll::{Paused, Poll};
use crate::side::{Place, Rx, Side, Tx, play};
use crate::stream::{Sink, Source};
use rtrb::{Consumer, PopError, Producer, PushError, RingBuffer};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    match place.seat.size {
        8 => open_sized::<8>(place),
        16 => open_sized::<16>(place),
        48 => open_sized::<48>(place),
        64 => open_sized::<64>(place),
        256 => open_sized::<256>(place),
        1024 => open_sized::<1024>(place),
        other => Err(Fault::new(format!("no code for rtrb with messages of {other} B"))),
    }
}

/// Messages go by value, through the stack: larger ones than this would measure `memcpy`.
pub(crate) fn fits(size: usize) -> bool {
    size <= 1024
}

/// It brings its own memory.
pub(crate) fn arena_len(_size: usize, _capacity: usize) -> usize {
    0
}

fn open_sized<const N: usize>(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    if place.role == Role::Passive {
        return Ok(Box::new(Onlooker));
    }
    let slots = place.seat.capacity / N;
    let (there_tx, there_rx) = RingBuffer::<Message<N>>::new(slots);
    let there_tx = Pusher { ring: there_tx, poll: Paused::default() };
    let there_rx = Popper { ring: there_rx, poll: Paused::default() };
    Ok(Box::new(match place.seat.scenario {
        Scenario::Pingpong => {
            let (back_tx, back_rx) = RingBuffer::<Message<N>>::new(slots);
            let tx = Pusher { ring: back_tx, poll: Paused::default() };
            let rx = Popper { ring: back_rx, poll: Paused::default() };
            Threads::start(
                Box::new(Driver::new(there_tx, rx)),
                Echo::new(there_rx, tx),
                place.passive_cpu,
            )?
        }
        Scenario::Stream => {
            Threads::start(Box::new(Source::new(there_tx)), Sink::new(there_rx), place.passive_cpu)?
        }
        other => return Err(Fault::new(format!("rtrb has no {other}"))),
    }))
}

/// On lines of its own, as the other rings' records are.
#[repr(C, align(8))]
struct Message<const N: usize>([u8; N]);

struct Pusher<const N: usize> {
    ring: Producer<Message<N>>,
    poll: Paused,
}

impl<const N: usize> Tx for Pusher<N> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let mut message = Message([0; N]);
        fill(&mut message.0, first | mark);
        while let Err(PushError::Full(back)) = self.ring.push(message) {
            message = back;
            self.poll.missed();
        }
        Ok(())
    }
}

struct Popper<const N: usize> {
    ring: Consumer<Message<N>>,
    poll: Paused,
}

impl<const N: usize> Rx for Popper<N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        loop {
            match self.ring.pop() {
                Ok(message) => {
                    self.poll.met();
                    return Ok(check::<N>(&message.0));
                }
                Err(PopError::Empty) => self.poll.missed(),
            }
        }
    }
}

/// Both sides in one process: the active one here, the passive one on its own thread.
struct Threads {
    active: Box<dyn Side>,
    rounds: mpsc::Sender<Duration>,
    outcomes: mpsc::Receiver<Result<Outcome, Fault>>,
}

impl Threads {
    fn start(
        active: Box<dyn Side>,
        mut passive: impl Side + Send + 'static,
        cpu: Option<usize>,
    ) -> Result<Threads, Fault> {
        let (rounds, orders) = mpsc::channel();
        let (replies, outcomes) = mpsc::channel();
        thread::Builder::new()
            .name("passive".into())
            .spawn(move || {
                let pinned = cpu.map_or(Ok(()), pin);
                for length in orders {
                    let outcome = match &pinned {
                        Ok(()) => play(&mut passive, length),
                        Err(e) => Err(Fault::new(e.to_string())),
                    };
                    if replies.send(outcome).is_err() {
                        break;
                    }
                }
            })
            .map_err(|e| Fault::new(format!("can't start a thread: {e}")))?;
        Ok(Threads { active, rounds, outcomes })
    }
}

impl Side for Threads {
    fn round(&mut self, length: Duration) -> Result<Outcome, Fault> {
        let gone = || Fault::new("the other thread has ended");
        self.rounds.send(length).map_err(|_| gone())?;
        let active = self.active.round(length)?;
        let passive = self.outcomes.recv().map_err(|_| gone())??;
        Ok(active.and(passive))
    }
}

/// The process that has no part in it.
struct Onlooker;

impl Side for Onlooker {
    fn round(&mut self, _length: Duration) -> Result<Outcome, Fault> {
        Ok(Outcome::default())
    }
}
