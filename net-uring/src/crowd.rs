//! Many connections behind one door: who has come, whose turn it is, who has gone. The bound end of a
//! channel that has many ends on the other side.
//!
//! ```text
//!   door ── hello ──▶ known session? its member resumes        one epoll for all: whose turn is
//!                     another?  a new member joins              worth while
//!
//!   member = session + ring, as between two, and what its owner keeps with it
//! ```
//!
//! Each member has a ring of the channel's capacity, so none can take another's room, and whoever is slow
//! or hostile costs its own. What is done with the messages is the owner's: `fan` reads those of all,
//! `spread` hands out to all. Here is neither.

/// What both owners of a crowd leave to it, of what a link tells.
macro_rules! asks_the_crowd {
    () => {
        fn birth(&self) -> crate::fork::Birth {
            self.crowd.birth()
        }

        fn peers(&mut self) -> crate::crowd::Peers {
            self.crowd.peers()
        }

        fn local_addr(&self) -> Option<std::net::SocketAddr> {
            Some(self.crowd.local_addr())
        }

        fn trouble(&self) -> Option<crate::connection::Trouble> {
            self.crowd.trouble()
        }

        fn backend(&self) -> &'static str {
            "epoll"
        }

        fn stats(&self) -> crate::stats::Stats {
            self.crowd.stats()
        }

        fn tally(&self) -> Option<std::sync::Arc<crate::gauge::Tally>> {
            self.crowd.tally()
        }
    };
}

pub mod fan;
pub mod spread;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::joint::{Joint, Set};
use crate::clock;
use crate::connection::{Connection, HELLOS, Inbox, Past, Peer, SLICE, SPIN_FOR, Trouble, bind};
use crate::error::{Error, ErrorKind};
use crate::fork::Birth;
use crate::gauge::{Meter, Shown, Tally};
use crate::listener::{Arrival, Listener};
use crate::options::{Options, Side, Wait};
use crate::session::{Death, End, Refusal, RefuseCode};
use crate::stats::Stats;

/// What the door is called in the set.
const DOOR: u64 = u64::MAX;
/// Looks between two at the fine clock.
const LOOKS_PER_CLOCK: u32 = 16;
/// Events that are kept for who never asks.
const EVENTS_MAX: usize = 4096;

/// Who is there, and what has become of the others: what the end of a channel with many ends on the
/// other side tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peers {
    /// Connected, or about to connect again.
    pub present: Vec<Peer>,
    /// Since it was last asked, in order.
    pub events: Vec<PeerEvent>,
    /// Older events that were forgotten, because nobody asked for so long.
    pub forgotten: u64,
}

/// Something about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEvent {
    /// Who.
    pub peer: Peer,
    /// What.
    pub change: PeerChange,
}

/// What has become of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerChange {
    /// It has come.
    Joined,
    /// Its connection is gone: it died, or the network lost it. It may come back until it is taken for
    /// gone; of a process that was killed the kernel tells at once.
    Disconnected,
    /// It has come back, and goes on where it was.
    Reconnected,
    /// It has closed. Of a sender: all that it sent was received.
    Left,
    /// It is gone for good. Of a sender: what had come of its messages was received.
    Lost {
        /// Why it is taken for gone.
        death: Death,
    },
}

/// One of many. `K` is what the crowd's owner keeps with it.
#[derive(Debug)]
pub struct Member<H: Inbox, K> {
    pub(crate) connection: Connection<H, Joint>,
    pub(crate) keep: K,
    /// As it was when it came, for the words about its end.
    pub(crate) peer: Peer,
    /// A turn over its socket may be worth while.
    ready: bool,
    /// It had a connection when that was last looked at.
    up: bool,
    /// Its end was told.
    pub(crate) told: bool,
}

impl<H: Inbox, K> Member<H, K> {
    /// Whether it has a session, and has had no connection for so long.
    fn is_down_for(&self, lasting_ns: u64, now_ns: u64) -> bool {
        let session = &self.connection.session;
        let since_ns = session.down_since_ns().filter(|_| session.end().is_none());
        since_ns.is_some_and(|since_ns| now_ns.saturating_sub(since_ns) >= lasting_ns)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Crowd<H: Inbox, K> {
    options: Options,
    listener: Listener,
    set: Set,
    /// By number; gaps are filled by who comes next.
    members: Vec<Option<Member<H, K>>>,
    /// Where the next one who comes is judged.
    spare: Option<Connection<H, Joint>>,
    /// Numbers of members that are ready.
    ready: Vec<usize>,
    /// The door has news.
    knocked: bool,
    /// Nobody is let in any more: a peer that was told of the end may want to begin again.
    closing: bool,
    events: VecDeque<PeerEvent>,
    forgotten: u64,
    joins: u64,
    now_ns: u64,
    tended_ns: u64,
    /// Of members that are gone.
    before: Stats,
    past: Past,
    trouble: Option<Trouble>,
    birth: Birth,
    parks: u64,
    /// Bytes that the owner has for them and has not handed on.
    pub(crate) queued: u64,
    meter: Option<Meter>,
}

impl<H: Inbox, K: Default> Crowd<H, K> {
    /// Binds. Allocates.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let birth = Birth::now();
        let options = Options { side: Side::Bind, ..options.clone() };
        let failed = |errno: crate::backend::Errno| {
            Error::io("opening epoll", std::io::Error::from_raw_os_error(errno.0))
        };
        let set = Set::new().map_err(failed)?;
        let listener = bind(&options)?;
        set.watch(listener.news(), DOOR);
        // Options that make no sense are told now.
        let spare = Connection::member(&options, Joint::new(&set, 0))?;
        let meter = options.gauge.clone().map(Meter::new);
        let past = Past::of(options.peers_max);
        let mut crowd = Self {
            options,
            listener,
            set,
            members: Vec::new(),
            spare: Some(spare),
            ready: Vec::new(),
            knocked: true,
            closing: false,
            events: VecDeque::new(),
            forgotten: 0,
            joins: 0,
            now_ns: clock::coarse_ns(),
            tended_ns: 0,
            before: Stats::default(),
            past,
            trouble: None,
            birth,
            parks: 0,
            queued: 0,
            meter,
        };
        crowd.show();
        Ok(crowd)
    }

    /// Shows how it stands to whoever looks at counters.
    fn show(&mut self) {
        let Some(meter) = self.meter.take() else { return };
        let present = || self.members().filter(|(_, member)| !member.told);
        let waiting = present().map(|(_, member)| H::waiting(&member.connection.session));
        let [mut unsent_bytes, mut behind_bytes] = [self.queued; 2];
        for (unsent, behind) in waiting {
            unsent_bytes += unsent;
            behind_bytes += behind;
        }
        let stats = Stats { unsent_bytes, ..self.stats() };
        let first = present().next().map(|(_, member)| member.peer);
        let peers = present().count();
        let alone = first.filter(|_| peers == 1);
        meter.show(&Shown {
            binds: true,
            is_up: present().any(|(_, member)| member.connection.session.is_up()),
            peers,
            peer: alone.map(|peer| peer.address),
            session: alone.map(|peer| peer.session),
            local: Some(self.local_addr()),
            backend: "epoll",
            behind_bytes,
            stats: &stats,
        });
        self.meter = Some(meter);
    }

    pub(crate) fn tally(&self) -> Option<Arc<Tally>> {
        self.meter.as_ref().map(Meter::tally)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn birth(&self) -> Birth {
        self.birth
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.listener.address()
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Who is there, with their numbers.
    pub(crate) fn members(&self) -> impl Iterator<Item = (usize, &Member<H, K>)> {
        self.members.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// As [`Self::members`].
    pub(crate) fn members_mut(&mut self) -> impl Iterator<Item = (usize, &mut Member<H, K>)> {
        let slots = self.members.iter_mut().enumerate();
        slots.filter_map(|(number, slot)| Some((number, slot.as_mut()?)))
    }

    pub(crate) fn member(&mut self, number: usize) -> Option<&mut Member<H, K>> {
        self.members.get_mut(number)?.as_mut()
    }

    /// One look at the door and at everybody who has news: bytes come in and go out. `moved` is told
    /// whose came.
    pub(crate) fn look(&mut self, moved: &mut Vec<usize>) {
        self.listen(Duration::ZERO);
        self.attend(moved);
    }

    /// Sleeps until there is news, for at most `limit`. No more than that.
    pub(crate) fn sleep(&mut self, limit: Duration) {
        let now_ns = self.now_ns;
        let mut until_ns = self.listener.deadline_ns();
        for (_, member) in self.members_mut() {
            if member.ready {
                return;
            }
            member.connection.before_sleep();
            let due_ns = member.connection.deadline_ns();
            until_ns = [until_ns, due_ns].into_iter().flatten().min();
        }
        let timer = until_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns)));
        self.parks += 1;
        self.listen(timer.map_or(limit, |timer| timer.min(limit)));
    }

    fn listen(&mut self, timeout: Duration) {
        let Self { set, members, ready, knocked, .. } = self;
        set.look(timeout, |number| {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            match members.get_mut(number) {
                Some(Some(member)) if !member.ready => {
                    member.ready = true;
                    ready.push(number);
                }
                Some(_) => {}
                // The door, which nobody else's number is.
                None => *knocked = true,
            }
        });
    }

    /// Everybody who is ready has one turn; whoever had more than a turn's worth stays ready.
    fn attend(&mut self, moved: &mut Vec<usize>) {
        self.now_ns = clock::coarse_ns();
        let is_later = self.now_ns != self.tended_ns;
        // Who is back is let in before its time is judged: nobody may have looked meanwhile.
        if self.knocked || is_later {
            self.answer();
        }
        if is_later {
            self.tend(moved);
        }
        let mut turns = std::mem::take(&mut self.ready);
        turns.retain(|number| {
            let Some(member) = self.members[*number].as_mut() else { return false };
            member.ready = member.connection.pull();
            // Also of one whose connection is gone: that may be news.
            moved.push(*number);
            member.ready
        });
        for number in &*moved {
            self.look_at_the_connection(*number);
        }
        // Who became ready by an answer at the door.
        turns.append(&mut self.ready);
        self.ready = turns;
    }

    /// What the clock asks of everybody, when the coarse one has moved on.
    fn tend(&mut self, moved: &mut Vec<usize>) {
        self.tended_ns = self.now_ns;
        let (now_ns, lasting_ns) = (self.now_ns, self.options.timing.takeover_ns);
        for (number, member) in self.members_mut() {
            if member.told && member.is_down_for(lasting_ns, now_ns) {
                // It has had its time to come back for the last words.
                member.connection.session.give_up();
            }
            member.connection.tend();
            member.connection.push();
            let session = &member.connection.session;
            if session.end().is_some() || session.is_up() != member.up {
                moved.push(number);
            }
        }
        let now_ns = self.now_ns;
        // The more there are, the seldomer: it is a walk over all of them.
        let every = 1 + self.members.len() as u64 / 64;
        if self.meter.as_mut().is_some_and(|meter| meter.is_due(now_ns, every)) {
            self.show();
        }
    }

    fn answer(&mut self) {
        self.knocked = false;
        for _ in 0..HELLOS {
            let Some(arrival) = self.listener.poll(self.now_ns) else { return };
            if let Some((arrival, refusal)) = self.greet(arrival) {
                self.listener.refuse(arrival, refusal, self.now_ns);
            }
        }
        // There may be more.
        self.knocked = true;
    }

    /// Whoever is known resumes; anybody else is judged as the other end of a new session. Who is refused
    /// comes back.
    fn greet(&mut self, arrival: Arrival) -> Option<(Arrival, Refusal)> {
        let session = arrival.hello.session;
        let known =
            self.members().find(|(_, member)| member.connection.session.id() == Some(session));
        if let Some((number, _)) = known
            && let Some(member) = self.member(number)
        {
            let epoch = member.connection.session.epoch();
            let refused = member.connection.greet(arrival);
            if member.up && member.connection.session.epoch() != epoch {
                // It has noticed before this end did.
                self.look_at_the_connection_as(number, false);
            }
            self.look_at_the_connection(number);
            self.rouse(number);
            return refused;
        }
        if self.past.has(&session) {
            return Some((arrival, Refusal::new(RefuseCode::UnknownSession, 0, 0)));
        }
        let free = self.members.iter().position(Option::is_none);
        let number = free.unwrap_or(self.members.len());
        if self.closing || number >= self.options.peers_max {
            self.make_room();
            return Some((arrival, Refusal::new(RefuseCode::Busy, 0, 0)));
        }
        let spare = match self.spare.take() {
            Some(spare) => Ok(spare),
            None => Connection::member(&self.options, Joint::new(&self.set, 0)),
        };
        // Lack of memory: it may come again.
        let Ok(mut connection) = spare else {
            return Some((arrival, Refusal::new(RefuseCode::Busy, 0, 0)));
        };
        connection.set_backend(Joint::new(&self.set, number as u64));
        // It may have waited for long, and asks the clock.
        connection.tend();
        let refused = connection.greet(arrival);
        match (&refused, connection.peer()) {
            (None, Some(peer)) => {
                let member = Member {
                    connection,
                    keep: K::default(),
                    peer,
                    ready: false,
                    up: true,
                    told: false,
                };
                match self.members.get_mut(number) {
                    Some(slot) => *slot = Some(member),
                    None => self.members.push(Some(member)),
                }
                self.joins += 1;
                self.tell(PeerEvent { peer, change: PeerChange::Joined });
                self.rouse(number);
            }
            _ if connection.session.id().is_none() => self.spare = Some(connection),
            _ => {}
        }
        refused
    }

    /// Somebody wants a place, and there is none: one that has no connection is given up, if it has closed, or
    /// has had none for long enough. One at a time: the owner has to be through with it before its place is
    /// free.
    fn make_room(&mut self) {
        let (now_ns, lasting_ns) = (self.now_ns, self.options.timing.takeover_ns);
        if self.members().any(|(_, member)| member.connection.session.end().is_some()) {
            return;
        }
        let absent = self.members_mut().filter(|(_, member)| {
            member.is_down_for(if member.told { 0 } else { lasting_ns }, now_ns)
        });
        let first =
            |member: &Member<H, K>| (!member.told, member.connection.session.down_since_ns());
        if let Some((number, member)) = absent.min_by_key(|(_, member)| first(member)) {
            member.connection.session.give_up();
            self.rouse(number);
        }
    }

    /// Whether a member's connection has broken, or it has come back with another, is told.
    fn look_at_the_connection(&mut self, number: usize) {
        if let Some(member) = self.member(number) {
            let up = member.connection.session.is_up();
            self.look_at_the_connection_as(number, up);
        }
    }

    fn look_at_the_connection_as(&mut self, number: usize, up: bool) {
        let Some(member) = self.member(number) else { return };
        // The end of one that has closed, or was given up, is told as such.
        let session = &member.connection.session;
        let over = member.told || session.end().is_some() || session.is_peer_closed();
        if over || std::mem::replace(&mut member.up, up) == up {
            return;
        }
        let peer = member.peer;
        let change = if up { PeerChange::Reconnected } else { PeerChange::Disconnected };
        self.tell(PeerEvent { peer, change });
    }

    fn rouse(&mut self, number: usize) {
        if let Some(member) = self.member(number)
            && !member.ready
        {
            member.ready = true;
            self.ready.push(number);
        }
    }

    fn tell(&mut self, event: PeerEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.forgotten += 1;
        }
        self.events.push_back(event);
    }

    /// How a member's session ended, told once: it is no longer one of them, though its connection may
    /// still be being closed.
    pub(crate) fn tell_end(&mut self, number: usize) {
        let Some(member) = self.member(number) else { return };
        if member.told {
            return;
        }
        member.told = true;
        let change = match member.connection.session.end() {
            Some(End::Died(death)) => PeerChange::Lost { death },
            Some(End::Closed) | None => PeerChange::Left,
        };
        let peer = member.peer;
        self.tell(PeerEvent { peer, change });
    }

    /// Whether all that is left of a member is its number.
    pub(crate) fn is_gone(&mut self, number: usize) -> bool {
        self.member(number).is_some_and(|member| member.told && member.connection.is_alone())
    }

    /// Forgets a member, whose number is the next one's.
    pub(crate) fn remove(&mut self, number: usize) -> Option<Member<H, K>> {
        let member = self.members.get_mut(number)?.take()?;
        self.ready.retain(|ready| *ready != number);
        self.before.add(&member.connection.stats());
        self.past.add(member.peer.session);
        self.trouble = member.connection.trouble().or(self.trouble);
        Some(member)
    }

    /// How many have ever come.
    pub(crate) fn joins(&self) -> u64 {
        self.joins
    }

    /// How many are there, or about to connect again.
    pub(crate) fn present(&self) -> usize {
        self.members().filter(|(_, member)| !member.told).count()
    }

    pub(crate) fn peers(&mut self) -> Peers {
        let present = self.members().filter(|(_, member)| !member.told);
        Peers {
            present: present.map(|(_, member)| member.peer).collect(),
            forgotten: std::mem::take(&mut self.forgotten),
            events: self.events.drain(..).collect(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.before;
        for (_, member) in self.members() {
            stats.add(&member.connection.stats());
        }
        stats.door = Some(self.listener.stats());
        stats.trouble = self.trouble;
        stats.parks += self.parks;
        stats
    }

    /// Closes all sessions in good order, and waits until all have ended. Whether they have.
    pub(crate) fn close(&mut self, timeout: Duration) -> bool {
        self.finish(timeout, |member| member.connection.is_alone())
    }

    /// See [`Connection::begin_to_leave`].
    pub(crate) fn begin_to_leave(&mut self) {
        for (_, member) in self.members_mut() {
            member.connection.begin_to_leave();
        }
    }

    /// As [`Self::close`], but is content when the peers' hosts have everything.
    pub(crate) fn leave(&mut self, linger: Duration) {
        self.begin_to_leave();
        self.finish(linger, |member| member.connection.is_alone() || member.connection.is_said());
    }

    fn finish(
        &mut self,
        timeout: Duration,
        mut is_through: impl FnMut(&mut Member<H, K>) -> bool,
    ) -> bool {
        self.closing = true;
        for (_, member) in self.members_mut() {
            member.connection.begin_to_close();
        }
        let mut moved = Vec::new();
        let done = |crowd: &mut Self| {
            crowd.look(&mut moved);
            moved.clear();
            let mut through = true;
            for (_, member) in crowd.members_mut() {
                member.connection.let_go();
                through = through && is_through(member);
            }
            through
        };
        wait(self, self.options.wait, Some(timeout), done, Self::sleep)
    }
}

/// Waits until `done`, which takes a look and says whether that was all, or until the deadline (false).
pub(crate) fn wait<O>(
    owner: &mut O,
    mode: Wait,
    timeout: Option<Duration>,
    mut done: impl FnMut(&mut O) -> bool,
    sleep: impl Fn(&mut O, Duration),
) -> bool {
    let start = Instant::now();
    let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
    let mut now = start;
    let mut looks = 0_u32;
    loop {
        if done(owner) {
            return true;
        }
        looks = looks.wrapping_add(1);
        let awake = match mode {
            Wait::Spin => true,
            Wait::Adaptive => now - start < SPIN_FOR,
            Wait::Park => false,
        };
        if awake && !looks.is_multiple_of(LOOKS_PER_CLOCK) {
            continue;
        }
        now = Instant::now();
        if deadline.is_some_and(|at| now >= at) {
            return done(owner);
        }
        if !awake {
            let left = deadline.map_or(SLICE, |at| at.saturating_duration_since(now));
            sleep(owner, left.min(SLICE));
        }
    }
}

/// What the options of a channel with many ends must not say.
pub(crate) fn check(options: &Options) -> Result<(), Error> {
    let refused = |found: &str, remedy: &str| {
        let tried = format!("opening the bound end of channel {:?}", options.channel);
        Err(Error::new(ErrorKind::BadOption, tried, found, remedy))
    };
    if options.io == crate::options::Io::Thread {
        return refused(
            "`io=thread` is for an end that has one connection, and this one may have many",
            "Leave `io` out at the end that binds; those that connect may have it",
        );
    }
    if options.backend == crate::options::Backend::Uring {
        return refused(
            "`backend=uring` is for an end that has one connection; many share one epoll",
            "Leave `backend` out at the end that binds; those that connect may have it",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Member;
    use crate::connection::CONTROL_BYTES;
    use crate::session::{Receiving, Sending};

    /// Beyond its ring, as `Options::peers_max` tells.
    #[test]
    fn a_connection_takes_no_more_than_is_told() {
        let most =
            size_of::<Member<Sending, [u64; 4]>>().max(size_of::<Member<Receiving, [u64; 4]>>());
        assert!(most + CONTROL_BYTES <= 8 << 10, "{most} + {CONTROL_BYTES}");
    }
}
