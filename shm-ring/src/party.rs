//! Taking part in an MPMC channel: joining, leaving, who died and what that leaves to repair, sleeping
//! and being woken. The same for both sides; what they do with slots is in `mpmc_sender` and
//! `mpmc_receiver`.
//!
//! Nobody is in charge of repair. Whoever joins sweeps for the place it takes; whoever waits, or polls in
//! vain, asks the kernel now and then after those who have not left, and sweeps for the dead.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::control::{self, Control};
use crate::counters::Stats;
use crate::courtesy::Courtesy;
use crate::error::{Error, ErrorKind, Peer};
use crate::fork::Birth;
use crate::layout::RoleRecord;
use crate::layout::{MAX_PARTICIPANTS, SIDE_RECEIVES, SIDE_SENDS, Sleepers};
use crate::liveness::{self, Identity};
use crate::membarrier;
use crate::mpmc::{self, Holder, Owner, Redeliver, Repaired, SlotMemory, bell, word};
use crate::options::{Kind, Options, Until, Wait};
use crate::participants::{Purpose, Seat};
use crate::queue::{self, OwnCounters, QueueMemory};
use crate::recover;
use crate::registry::{self, LockedDirectory};
use crate::sync::Word32;
use crate::wait::ProbeClock;

/// Which side of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Sends,
    Receives,
}

/// A participant's place, and what both sides need of the channel.
#[derive(Debug)]
pub struct Party {
    pub memory: QueueMemory,
    pub counters: OwnCounters,
    pub birth: Birth,
    pub wait: Wait,
    pub until: Until,
    pub probe_clock: ProbeClock,
    pub courtesy: Courtesy,
    /// Whether anybody on this channel ever sleeps.
    sleepy: bool,
    /// Whether membarriers of others reach this process.
    registered: bool,
    side: Side,
    seat: Seat,
    redeliver: Redeliver,
    /// By place: the holder whose leavings this handle has swept. It stays in the table until somebody
    /// takes the place.
    swept: Box<[u64; MAX_PARTICIPANTS]>,
    /// The sender that was found dead last, and how many had left in good order by then; until it is told.
    pub last_death: Option<(Peer, u64)>,
    /// In whose way it is to go on, and since when.
    held_up: Option<(Holder, Instant)>,
    /// Wakes it had been given when it last announced a sleep.
    rung_before: u32,
    control: Control,
}

/// Somebody who keeps others waiting: it has claimed the next slot and neither published nor released
/// it. It may be slow, or stopped; if it dies, the slot is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldUp {
    /// Who. `None`: nobody has it; the message is to be received.
    pub peer: Option<Peer>,
    /// The slot's place in the queue.
    pub ticket: u64,
    /// For at least how long: since this handle saw it first.
    pub since: Duration,
}

impl Party {
    pub fn join(options: &Options, side: Side) -> Result<Self, Error> {
        let options = Options { kind: Some(Kind::Mpmc), ..options.clone() };
        Self::join_in(Control::join_table(&options)?, side)
    }

    /// Another handle of the same side: a participant of its own.
    pub fn another(&self) -> Result<Self, Error> {
        if self.birth.is_foreign() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("making another handle of {}", self.control.directory().display()),
                "this handle was opened before fork()",
                "Open the channel again in the child",
            ));
        }
        Self::join_in(self.control.join_table_again()?, self.side)
    }

    /// Takes a place in the channel's table.
    fn join_in(
        (directory, control): (LockedDirectory, Control),
        side: Side,
    ) -> Result<Self, Error> {
        let who = Identity::of_this_process();
        let memory = match queue::open_or_create(&control, &who) {
            Ok(memory) => memory,
            Err(error) => {
                recover::abandon(&control, directory);
                return Err(error);
            }
        };
        let redeliver = control::redeliver_of(control.header());
        let table = control
            .participants()
            .ok_or_else(|| crate::file::damaged(control.directory(), "it has no participants"))?;
        let seat = table.join(&directory, &who, |id, _| {
            // The place is this handle's, and nothing in the queue is yet: whatever names it was left
            // by its last holder, who is gone. A word that makes no sense is for those to tell who come
            // to it; the others have been swept.
            count(&memory, mpmc::sweep(&memory, id as Owner, redeliver, &|_: Owner| true));
            clear_flags(&memory, id as Owner);
            Ok(Purpose { side: side.code(), first: 0 })
        })?;
        drop(directory);
        let wait = control.wait();
        let sleepy = wait != Wait::Spin;
        let party = Self {
            birth: Birth::now(),
            wait,
            until: control::until_of(control.header()),
            probe_clock: ProbeClock::start(),
            courtesy: Courtesy::default(),
            sleepy,
            registered: sleepy && membarrier::register(),
            side,
            seat,
            redeliver,
            swept: Box::new([0; MAX_PARTICIPANTS]),
            last_death: None,
            held_up: None,
            rung_before: 0,
            counters: memory.counters(seat.id),
            memory,
            control,
        };
        if sleepy {
            bell::attach(party.sleepers(side));
        }
        if side == Side::Sends {
            // Not before it is in the table: who sees it come has to see it there.
            party.memory.page().news.arrivals.add(1);
        }
        // The sweep may have made room, or messages.
        party.wake(Side::Sends, u64::MAX);
        party.wake(Side::Receives, u64::MAX);
        Ok(party)
    }

    #[inline(always)]
    pub fn owner(&self) -> Owner {
        self.seat.id as Owner
    }

    /// After a publication of `news` messages or rooms: wakes as many who wait for that.
    #[inline(always)]
    pub fn wake(&self, side: Side, news: u64) {
        if self.sleepy {
            self.wake_sleepers(side, news);
        }
    }

    /// Out of the line of those who never sleep, and need no registers for this.
    #[inline(never)]
    fn wake_sleepers(&self, side: Side, news: u64) {
        let page = self.memory.page();
        let rung = |seat: Owner| &page.seats[usize::from(seat) % MAX_PARTICIPANTS].rung.count;
        let woken = bell::wake(self.sleepers(side), news, self.registered, rung);
        if woken > 0 {
            self.counters.wakes[self.side as usize].bump(woken);
        }
    }

    /// Whether anybody of that side sleeps, at a glance.
    #[inline(always)]
    pub fn sleeps_any(&self, side: Side) -> bool {
        self.sleepy && self.sleepers(side).bits.load_relaxed() != 0
    }

    /// Announces a sleep.
    pub fn announce(&mut self) {
        self.counters.parks[self.side as usize].bump(1);
        self.rung_before = bell::announce(self.sleepers(self.side), self.owner(), self.rung());
    }

    /// Sleeps until somebody wakes this participant, or has since it announced it.
    pub fn sleep(&self, timeout: Duration) {
        bell::sleep(self.rung(), self.rung_before, timeout);
    }

    /// Ends what was announced. `has_found`: without a sleep, because what it waits for was there in its last look.
    /// Then whoever has woken it meanwhile has woken nobody for something else, that another may sleep for.
    pub fn awake(&self, has_found: bool) {
        let was_woken = !bell::awake(self.sleepers(self.side), self.owner());
        if was_woken && has_found {
            self.wake(self.side, 1);
        }
    }

    /// Asks after everybody who has not left, and sweeps for those who died. Up to a system call for
    /// each.
    #[cold]
    pub fn look_for_the_dead(&mut self) {
        let Some(table) = self.control.participants() else { return };
        let mut news = false;
        for id in 0..MAX_PARTICIPANTS {
            let record = &table.roster.records[id];
            if id == self.seat.id || !self.may_live(id, record) {
                continue;
            }
            let Some((epoch, peer)) = table.dead(id) else { continue };
            if record.side.load_relaxed() == SIDE_SENDS {
                self.last_death = Some((peer, self.senders_so_far().1));
            }
            // Somebody who takes the place in the middle makes good what this passes over, unless it dies
            // before it has: then the entry still tells of the same epoch.
            let passes_over = Cell::new(false);
            let proof = |owner: Owner| {
                let is_dead = usize::from(owner) == id && !table.is_held(id);
                passes_over.set(passes_over.get() || !is_dead);
                is_dead
            };
            // A word that makes no sense is for those to tell who come to it.
            let done = mpmc::sweep(&self.memory, id as Owner, self.redeliver, &proof);
            if !table.is_held(id) {
                clear_flags(&self.memory, id as Owner);
            }
            count(&self.memory, done);
            if !passes_over.get() {
                self.swept[id] = epoch;
            }
            news = true;
        }
        if news {
            self.wake(Side::Sends, u64::MAX);
            self.wake(Side::Receives, u64::MAX);
        }
    }

    /// How the last sender ended, if none is there any more; whoever died has been swept for then. Of a death
    /// and a departure the later is what this handle found later. `None`: one is there, or never was.
    pub fn last_sender(&mut self) -> Option<Departed> {
        if self.senders_so_far().0 == 0 {
            return None;
        }
        let table = self.control.participants()?;
        for (id, record) in table.roster.records.iter().enumerate() {
            if self.may_live(id, record) && record.side.load_relaxed() == SIDE_SENDS {
                table.dead(id)?;
            }
        }
        self.look_for_the_dead();
        let (_, left) = self.senders_so_far();
        Some(match self.last_death {
            Some((peer, before)) if before >= left => Departed::Died(peer),
            _ => Departed::Left,
        })
    }

    /// Whether that record's holder takes part, as far as memory tells, and was not found dead before.
    fn may_live(&self, id: usize, record: &RoleRecord) -> bool {
        liveness::attached(record).is_some_and(|(epoch, _)| epoch != self.swept[id])
    }

    /// How many senders came, and how many left in good order.
    pub fn senders_so_far(&self) -> (u64, u64) {
        let news = &self.memory.page().news;
        (news.arrivals.load_acquire(), news.departures.load_acquire())
    }

    /// Notes who is in the way.
    pub fn note_holder(&mut self, holder: Option<Holder>) {
        match (holder, self.held_up) {
            (Some(new), Some((old, _))) if new == old => {}
            (Some(new), _) => self.held_up = Some((new, Instant::now())),
            (None, _) => self.held_up = None,
        }
    }

    /// Who is in the way, as last noted, if it still is.
    pub fn held_up(&self) -> Option<HeldUp> {
        let (holder, since) = self.held_up?;
        let index = holder.ticket & (self.memory.slots() - 1);
        let now = [self.memory.sent(index).load_acquire(), self.memory.taken(index).load_acquire()];
        now.contains(&holder.word).then(|| HeldUp {
            peer: holder.owner.and_then(|owner| self.peer(owner)),
            ticket: holder.ticket,
            since: since.elapsed(),
        })
    }

    /// That holder, seen just now.
    pub fn held_up_since_now(&self, holder: Holder) -> HeldUp {
        let peer = holder.owner.and_then(|owner| self.peer(owner));
        HeldUp { peer, ticket: holder.ticket, since: Duration::ZERO }
    }

    /// The process in that place, unless it was found dead.
    pub fn peer(&self, owner: Owner) -> Option<Peer> {
        let table = self.control.participants()?;
        let id = usize::from(owner);
        let record = table.roster.records.get(id).filter(|record| self.may_live(id, record))?;
        Some(Peer { pid: u32::try_from(record.pid.load_relaxed()).unwrap_or(0) })
    }

    /// Somebody of the other side, if anybody is there, as far as memory tells.
    pub fn any_peer(&self) -> Option<Peer> {
        let table = self.control.participants()?;
        let wanted = self.side.other().code();
        let ids = 0..MAX_PARTICIPANTS as Owner;
        ids.filter(|&id| table.roster.records[usize::from(id)].side.load_relaxed() == wanted)
            .find_map(|id| self.peer(id))
    }

    /// Counts messages that this participant gave back, and wakes as many who may take them.
    pub fn gave_back(&self, returned: u64) {
        count(&self.memory, Repaired { returned, ..Repaired::default() });
        self.wake(Side::Receives, returned);
    }

    pub fn stats(&self) -> Stats {
        Stats::of_queue(self.memory.page())
    }

    /// Leaves, with nothing claimed any more, and removes the channel if it was the last and nothing is
    /// left in it.
    pub fn leave(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let Some(table) = self.control.participants() else { return };
        bell::awake(self.sleepers(self.side), self.owner());
        table.leave(self.seat);
        if self.side == Side::Sends {
            self.memory.page().news.departures.add(1);
        }
        self.wake(Side::Receives, u64::MAX);
        let Ok(Some(directory)) = registry::relock(self.control.directory(), PATIENCE) else {
            table.unlock(self.seat);
            return;
        };
        let is_last = table.others().next().is_none();
        if is_last {
            self.look_for_the_dead();
        }
        let is_over = is_last && self.control.is_in(&directory) && self.is_drained();
        // The place goes before the lock: whoever gets the lock next must find it free.
        if let Some(table) = self.control.participants() {
            table.unlock(self.seat);
        }
        if is_over {
            let _ = directory.remove();
        }
    }

    /// Whether no message is left.
    fn is_drained(&self) -> bool {
        (0..self.memory.slots()).all(|index| {
            let sent = self.memory.sent(index).load_acquire();
            let taken = self.memory.taken(index).load_acquire();
            let lap = word::lap(sent);
            taken == word::Taken::Done.word(lap) || sent == word::Sent::Nothing.word(lap)
        })
    }

    fn sleepers(&self, side: Side) -> &Sleepers {
        sleepers(&self.memory, side)
    }

    fn rung(&self) -> &Word32 {
        &self.memory.page().seats[self.seat.id].rung.count
    }
}

/// How a sender ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departed {
    Left,
    Died(Peer),
}

impl Side {
    fn code(self) -> u64 {
        match self {
            Self::Sends => SIDE_SENDS,
            Self::Receives => SIDE_RECEIVES,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Sends => Self::Receives,
            Self::Receives => Self::Sends,
        }
    }
}

fn sleepers(memory: &QueueMemory, side: Side) -> &Sleepers {
    match side {
        Side::Sends => &memory.page().senders,
        Side::Receives => &memory.page().receivers,
    }
}

/// Counts what a sweep did. What it dropped it has counted itself.
fn count(memory: &QueueMemory, done: Repaired) {
    let news = &memory.page().news;
    news.given_up.add(done.given_up);
    news.returned.add(done.returned);
}

/// A dead sleeper's flags go down, else it would be woken in the place of the living.
fn clear_flags(memory: &QueueMemory, owner: Owner) {
    for side in [Side::Sends, Side::Receives] {
        bell::awake(sleepers(memory, side), owner);
    }
}
