//! One process of the crew: stays on its CPU, opens its seats, plays the rounds it is told to, and
//! answers on standard output. Decides nothing.

use crate::arena::Region;
use crate::clock;
use crate::cpu;
use crate::many::Common;
use crate::plan::{Fault, Job, Order, Reply};
use crate::side::{Place, Side, play};
use crate::systems;
use std::io::{self, Write};
use std::time::Duration;

/// Serves until the parent closes its end. Faults are answers too; the return value is for a parent
/// that can't be talked to.
pub(crate) fn serve() -> Result<(), Fault> {
    let mut lines = io::stdin().lines();
    let Some(first) = lines.next() else { return Ok(()) };
    let job: Job = parse(&first.map_err(broken)?)?;
    let mut party = Party { job, sides: Vec::new() };
    let mut begun = party.begin();
    for line in lines {
        let order: Order = parse(&line.map_err(broken)?)?;
        let reply = std::mem::replace(&mut begun, Ok(())).and_then(|()| party.obey(order));
        answer(&reply.unwrap_or_else(|fault| Reply::Fault(fault.0)))?;
    }
    Ok(())
}

struct Party {
    job: Job,
    /// By seat; none where it takes no part.
    sides: Vec<Option<Box<dyn Side>>>,
}

impl Party {
    fn begin(&mut self) -> Result<(), Fault> {
        match self.cpu() {
            Some(cpu) => cpu::pin(cpu).map_err(|e| Fault::new(e.to_string())),
            None => Ok(()),
        }
    }

    fn cpu(&self) -> Option<usize> {
        self.job.cpus.as_ref().map(|cpus| cpus.of(self.job.party))
    }

    fn obey(&mut self, order: Order) -> Result<Reply, Fault> {
        match order {
            Order::Open => self.open(),
            Order::Jitter { ms } => Ok(Reply::Jitter(clock::watch(self.cpu(), ms))),
            Order::Round { seat, micros } => {
                let side = self.sides.get_mut(seat).and_then(Option::as_mut);
                let side = side.ok_or_else(|| Fault::new(format!("seat {seat} is not open")))?;
                answer(&Reply::Ready)?;
                let outcome = play(side.as_mut(), Duration::from_micros(micros))?;
                Ok(Reply::Done(Box::new(outcome)))
            }
        }
    }

    fn open(&mut self) -> Result<Reply, Fault> {
        let job = &self.job;
        let arena = Region::map(job.arena_fd, job.arena_len)?;
        for seat in &job.seats {
            if !seat.parties.include(job.party) {
                self.sides.push(None);
                continue;
            }
            let system = systems::find(&seat.system)
                .ok_or_else(|| Fault::new(format!("no system is called {}", seat.system)))?;
            let place = Place {
                seat,
                role: job.party.role,
                party: job.party,
                region: arena.part(seat.arena_offset, (system.arena_len)(seat.size, seat.capacity)),
                common: arena.part(seat.common_offset, Common::LEN),
                passive_cpu: job.cpus.as_ref().map(|cpus| cpus.receivers[0]),
                cpus: job.cpus.as_ref(),
                hosts: job.hosts,
            };
            self.sides.push(Some((system.open)(&place)?));
        }
        Ok(Reply::Opened)
    }
}

fn answer(reply: &Reply) -> Result<(), Fault> {
    let mut line = serde_json::to_string(reply).map_err(|e| Fault::new(e.to_string()))?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(broken)
}

fn parse<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, Fault> {
    serde_json::from_str(line).map_err(|e| {
        Fault::new(format!("not an order: {e}; `peer` is for ringway-bench's own use"))
    })
}

fn broken(e: io::Error) -> Fault {
    Fault::new(format!("the pipe to the parent process: {e}"))
}
