//! A producer that waits for room: what is wanted, and what it looks at meanwhile.
//!
//! When to poll and when to sleep is the business of `wait`.

use std::time::Duration;

use super::Producer;
use crate::control::Role;
use crate::courtesy::Courtesy;
use crate::error::{Peer, SendError};
use crate::layout::{ConsumerPage, DETACHED};
use crate::liveness;
use crate::memory::RingMemory;
use crate::segment::SegmentMemory;
use crate::spsc::{self, ClaimError, Writer};
use crate::wait::{self, Nap, ProbeClock, Waiter};

/// What room is wanted for. Two words, so that it goes to the slow paths in registers: a store per
/// message less.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    len: usize,
    /// Elements of an array; 0 for a message by itself.
    count: usize,
}

impl Wanted {
    #[inline(always)]
    pub(super) fn message(len: usize) -> Self {
        Self { len, count: 0 }
    }

    #[inline(always)]
    pub(super) fn array(len: usize, count: usize) -> Self {
        // The writer refuses an array without bytes.
        if count == 0 { Self { len: 0, count: 1 } } else { Self { len, count } }
    }

    #[inline(always)]
    pub(super) fn claim(
        self,
        writer: &mut Writer<SegmentMemory>,
    ) -> Result<spsc::Claim, ClaimError> {
        match self.count {
            0 => writer.try_claim(self.len),
            count => writer.try_claim_array(self.len, count),
        }
    }

    pub(super) fn bytes(self) -> usize {
        self.len.saturating_mul(self.count.max(1))
    }

    pub(super) fn max_len(self, writer: &Writer<SegmentMemory>) -> usize {
        if self.count == 0 { writer.max_len() } else { writer.max_array_len() }
    }
}

pub(super) struct WaitForRoom<'a> {
    producer: &'a mut Producer,
    wanted: Wanted,
    /// Page of the consumer whose bell the announced sleep is on: its address.
    sleeps_on: usize,
}

impl<'a> WaitForRoom<'a> {
    pub(super) fn new(producer: &'a mut Producer, wanted: Wanted) -> Self {
        Self { producer, wanted, sleeps_on: 0 }
    }

    /// Who has to make room: the consumer, or the slowest of many.
    fn debtor(&self) -> &ConsumerPage {
        let memory = self.producer.writer.memory();
        let slowest = memory.gate().and_then(|gate| gate.slowest(memory));
        slowest.unwrap_or_else(|| memory.consumer())
    }
}

impl Waiter for WaitForRoom<'_> {
    type Error = SendError;

    fn poll(&mut self) -> Result<bool, SendError> {
        match self.wanted.claim(&mut self.producer.writer) {
            Ok(_) => Ok(true),
            // What a reader took since is history, and nobody else would end a wait for that.
            Err(ClaimError::Full) => self.producer.make_way(self.wanted),
            Err(error) => self.producer.after_failed_claim(self.wanted, error),
        }
    }

    fn glance(&mut self) -> Result<(), SendError> {
        let producer = &mut *self.producer;
        if producer.crier.is_some() {
            // One of many that comes or goes is no news.
            return Ok(());
        }
        let role = producer.control.consumer();
        // A6, pairs with R6 in Control::note_dead_consumer.
        let dead = role.dead.epoch.load_acquire();
        if dead > producer.told {
            producer.told = dead;
            let pid = u32::try_from(role.dead.pid.load_relaxed()).unwrap_or(0);
            return Err(SendError::PeerDied { peer: Peer { pid } });
        }
        let epoch = role.record.epoch.load_acquire();
        if epoch > producer.told && role.record.state.load_acquire() == DETACHED {
            producer.told = epoch;
            return Err(SendError::Disconnected);
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), SendError> {
        let producer = &mut *self.producer;
        let memory = producer.writer.memory();
        if let Some((gate, participants)) = memory.gate().zip(producer.control.participants()) {
            gate.evict(memory, |id| participants.dead(id).map(|(epoch, _)| epoch));
            return Ok(());
        }
        let record = &producer.control.consumer().record;
        let Some((epoch, pid)) = liveness::attached(record) else { return Ok(()) };
        if epoch <= producer.told || producer.control.is_held(Role::Consumer) {
            return Ok(());
        }
        // The lock is free, but the record may be from before a clean leave just now.
        if liveness::attached(record) == Some((epoch, pid)) {
            producer.told = epoch;
            return Err(SendError::PeerDied { peer: Peer { pid } });
        }
        Ok(())
    }

    fn announce(&mut self) -> Nap {
        let memory = self.producer.writer.memory();
        memory.producer().counters.parks.bump(1);
        let debtor = self.debtor();
        let nap = wait::announce(&memory.producer().bell, &debtor.bell);
        self.sleeps_on = std::ptr::from_ref(debtor).addr();
        nap
    }

    fn sleep(&mut self, nap: &Nap, timeout: Duration) {
        let debtor = self.debtor();
        // Another is the slowest since the announcement: whoever was would not ring.
        if std::ptr::from_ref(debtor).addr() == self.sleeps_on {
            wait::sleep(nap, &debtor.bell, timeout);
        }
    }

    fn awake(&mut self, nap: &Nap) {
        wait::awake(nap, &self.producer.writer.memory().producer().bell);
    }

    fn probe_clock(&mut self) -> &mut ProbeClock {
        &mut self.producer.probe_clock
    }

    fn courtesy(&mut self) -> &mut Courtesy {
        &mut self.producer.courtesy
    }
}
