//! Two ends, the connections between them, and a clock that only this moves. Everything that
//! happens is drawn from one seed.

use ringway_net::frame::{CONTROL_MAX, Kind};
use ringway_net::session::{Action, Greeting, GreetingError, Half, HangUp, Session, Verdict};

use super::node::{App, MS, Node, Ring};
use super::rng::Rng;
use super::scripts::{Script, Weather};
use super::wire::{Cut, Read, SIDES, Side, Wire};

/// A connection that stands, and what its binder knows of it.
struct Standing {
    wire: Wire,
    /// What came of the hello.
    hello: Vec<u8>,
}

pub struct World<C, B> {
    pub connector: Node<C>,
    pub binder: Node<B>,
    pub now: u64,
    pub steps: u64,
    /// Cuts of the first connections, one each.
    cuts: Vec<Cut>,
    pub dials: u64,
    /// Bytes delivered over the first connection, per writer.
    pub first_delivered: [u64; 2],
    pub most_waiting: usize,
    pub hang_ups: Vec<HangUp>,
    wires: Vec<Option<Standing>>,
    mine: Option<usize>,
    theirs: Option<usize>,
    /// Dialed, and not yet accepted or not yet through with its hello.
    waiting: Vec<usize>,
    shut: [bool; 2],
    stopped_until: [u64; 2],
    weather: Weather,
    rng: Rng,
}

impl<C: Half, B: Half> World<C, B>
where
    Node<C>: App,
    Node<B>: App,
{
    pub fn new(
        connector: Node<C>,
        binder: Node<B>,
        weather: Weather,
        cuts: &[Cut],
        seed: u64,
    ) -> Self {
        Self {
            connector,
            binder,
            now: 0,
            steps: 0,
            cuts: cuts.to_vec(),
            dials: 0,
            first_delivered: [0; 2],
            most_waiting: 0,
            hang_ups: Vec::new(),
            wires: Vec::new(),
            mine: None,
            theirs: None,
            waiting: Vec::new(),
            shut: [false; 2],
            stopped_until: [0; 2],
            weather,
            rng: Rng::new(seed),
        }
    }

    /// Runs until `over`, or panics when nothing gets it there.
    pub fn run(&mut self, script: &Script, over: impl Fn(&Self) -> bool) {
        // Far more than any conversation here takes: a run that gets here goes round in circles.
        const STEPS_MAX: u64 = 2_000_000;
        while !over(self) {
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "livelock: {}", self.describe());
            if !self.step(script) {
                self.wait();
            }
            self.connector.check();
            self.binder.check();
            self.most_waiting = self.most_waiting.max(self.waiting.len());
        }
    }

    /// Both ends are through, and no connection is left.
    pub fn is_closed(&self) -> bool {
        self.is_over(Side::Connector) && self.is_over(Side::Binder)
    }

    /// The binder's process is killed, and another one is there at once.
    pub fn restart_binder(&mut self, binder: Node<B>) -> Node<B> {
        for id in std::mem::take(&mut self.waiting) {
            self.let_go(id, Side::Binder);
        }
        if let Some(id) = self.theirs.take() {
            self.let_go(id, Side::Binder);
        }
        std::mem::replace(&mut self.binder, binder)
    }

    /// The connector's.
    pub fn restart_connector(&mut self, connector: Node<C>) -> Node<C> {
        if let Some(id) = self.mine.take() {
            self.let_go(id, Side::Connector);
        }
        std::mem::replace(&mut self.connector, connector)
    }

    /// That end has ended and has no connection.
    pub fn is_over(&self, side: Side) -> bool {
        let end = match side {
            Side::Connector => self.connector.end(),
            Side::Binder => self.binder.end(),
        };
        end.is_some() && self.connection(side).is_none()
    }

    pub fn describe(&self) -> String {
        // Without the bytes of the inbox, and of a greeting on its way.
        let shown = |session: String| {
            let parts = session.split("[").map(|part| part.rsplit(']').next().unwrap_or_default());
            parts.collect::<Vec<_>>().join("[..]")
        };
        format!(
            "at {} ns, step {}, stopped until {:?}\nconnector on {:?}: {}\nbinder on {:?}: {}\n\
             waiting {:?}, cuts {:?}, hang-ups {:?}",
            self.now,
            self.steps,
            self.stopped_until,
            self.mine,
            shown(format!("{:?}", self.connector.session)),
            self.theirs,
            shown(format!("{:?}", self.binder.session)),
            self.waiting,
            self.cuts,
            self.hang_ups
        )
    }

    /// Something happens, somewhere. False: nothing can.
    fn step(&mut self, script: &Script) -> bool {
        self.trouble();
        let mut moved = false;
        // Each gets its turn in a step, in an order by chance, and may be passed over.
        let first = self.rng.next() % 5;
        for turn in 0..5 {
            if self.weather.piece < 1 << 20 && self.rng.one_in(3) {
                moved = true;
                continue;
            }
            let stopped = |side: Side| self.stopped_until[side as usize] > self.now;
            let (connector, binder) = (!stopped(Side::Connector), !stopped(Side::Binder));
            moved |= match (first + turn) % 5 {
                0 if connector => self.connector.work(&mut self.rng, script),
                1 if binder => self.binder.work(&mut self.rng, script),
                2 if connector => self.drive(Side::Connector),
                3 if binder => self.drive(Side::Binder),
                4 if binder => self.listen(),
                _ => false,
            };
        }
        // Time passes while things happen, too.
        self.now += self.rng.range(1, 2000);
        moved
    }

    /// To the next time that anybody waits for.
    fn wait(&mut self) {
        let mut times = Vec::new();
        for (side, action) in [
            (Side::Connector, self.connector.session.poll_action(self.now)),
            (Side::Binder, self.binder.session.poll_action(self.now)),
        ] {
            let stopped = self.stopped_until[side as usize];
            match action {
                Action::Wait { until_ns } if stopped <= self.now => times.extend(until_ns),
                Action::Shutdown { until_ns }
                    if self.shut[side as usize] && stopped <= self.now =>
                {
                    times.push(until_ns);
                }
                Action::Done if self.connection(side).is_none() => {}
                // To be seen by the next step. A dial that is said once has to be done at once.
                Action::Dial => return self.dial(),
                _ if stopped <= self.now => return,
                _ => {}
            }
            times.extend((stopped > self.now).then_some(stopped));
        }
        // One may be all that the test waits for.
        if self.is_over(Side::Connector) || self.is_over(Side::Binder) {
            if let Some(next) = times.into_iter().min() {
                self.now = self.now.max(next);
            }
            return;
        }
        let next = times.into_iter().min();
        let Some(next) = next else { panic!("deadlock: {}", self.describe()) };
        // A limit that lies far behind all that can happen here.
        assert!(next < 36_000_000 * MS, "nothing happens for hours: {}", self.describe());
        self.now = self.now.max(next);
    }

    fn trouble(&mut self) {
        if self.weather.troubles == 0 {
            return;
        }
        if self.rng.one_in(self.weather.severs) {
            let severed = [self.mine, self.theirs][self.rng.range(0, 1) as usize];
            let drains = self.rng.one_in(2);
            if let Some(standing) = severed.and_then(|id| self.wires[id].as_mut()) {
                standing.wire.sever(drains);
                self.weather.troubles -= 1;
            }
        }
        if self.weather.troubles > 0 && self.rng.one_in(self.weather.stalls) {
            let side = self.rng.range(0, 1) as usize;
            // Up to longer than the handshake waits, and shorter than the resume deadline.
            self.stopped_until[side] = self.now + self.rng.range(1, 12_000) * MS;
            self.weather.troubles -= 1;
        }
    }

    fn dial(&mut self) {
        self.dials += 1;
        if self.weather.troubles > 0 && self.rng.one_in(self.weather.dial_fails) {
            self.weather.troubles -= 1;
            self.connector.session.handle_disconnected(self.now);
            return;
        }
        let cut = self.cuts.get(self.wires.len()).copied();
        let id = self.wires.len();
        self.wires.push(Some(Standing { wire: Wire::new(self.weather.pipe, cut), hello: vec![] }));
        self.mine = Some(id);
        self.waiting.push(id);
        self.shut[Side::Connector as usize] = false;
        self.connector.session.handle_dialed(self.now);
    }

    /// One end's share in a step.
    fn drive(&mut self, side: Side) -> bool {
        let action = match side {
            Side::Connector => self.connector.session.poll_action(self.now),
            Side::Binder => self.binder.session.poll_action(self.now),
        };
        let Some(id) = self.connection(side) else {
            if action == Action::Dial {
                self.dial();
                return true;
            }
            return false;
        };
        match action {
            Action::HangUp(why) => {
                self.hang_ups.push(why);
                self.disconnect(side);
                return true;
            }
            Action::Dial => unreachable!("a dial with a connection"),
            _ => {}
        }
        let (mut read, mut write) =
            (self.rng.range(1, self.weather.piece as u64) as usize, self.weather.piece);
        if write > 1 {
            write = self.rng.range(1, write as u64) as usize;
        }
        let now = self.now;
        let wire = &mut self.wires[id].as_mut().expect("it is in use").wire;
        let (mut moved, gone) = match side {
            Side::Connector => pump(&mut self.connector, wire, side, write, now),
            Side::Binder => pump(&mut self.binder, wire, side, write, now),
        };
        if gone {
            // What had come before may be read or not: a reset takes it along, a close does not.
            if self.rng.one_in(2) {
                self.disconnect(side);
                return true;
            }
            read = usize::MAX;
        }
        let nothing_left = match side {
            Side::Connector => {
                self.connector.session.poll_transmit(&self.connector.memory, now).is_empty()
            }
            Side::Binder => self.binder.session.poll_transmit(&self.binder.memory, now).is_empty(),
        };
        if matches!(action, Action::Shutdown { .. }) && nothing_left && !self.shut[side as usize] {
            self.shut[side as usize] = true;
            wire.shut(side);
            moved = true;
        }
        let room = match side {
            Side::Connector => self.connector.room(),
            Side::Binder => self.binder.room(),
        };
        match wire.read(side, read.min(room)) {
            Read::Nothing => {}
            Read::Gone => {
                self.disconnect(side);
                moved = true;
            }
            Read::Bytes(bytes) => {
                match side {
                    Side::Connector => self.connector.feed(&bytes, now),
                    Side::Binder => self.binder.feed(&bytes, now),
                }
                moved = true;
            }
        }
        moved
    }

    fn connection(&self, side: Side) -> Option<usize> {
        match side {
            Side::Connector => self.mine,
            Side::Binder => self.theirs,
        }
    }

    fn disconnect(&mut self, side: Side) {
        let id = match side {
            Side::Connector => self.mine.take(),
            Side::Binder => self.theirs.take(),
        };
        if let Some(id) = id {
            self.let_go(id, side);
        }
        match side {
            Side::Connector => self.connector.session.handle_disconnected(self.now),
            Side::Binder => self.binder.session.handle_disconnected(self.now),
        }
    }

    /// The binder looks at one of the connections that have not said who they are.
    fn listen(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        // Late ones may overtake: what is accepted first need not be the oldest.
        let at = self.rng.next() as usize % self.waiting.len();
        let id = self.waiting[at];
        let most = self.rng.range(1, self.weather.piece as u64) as usize;
        let standing = self.wires[id].as_mut().expect("it waits");
        let wanted = CONTROL_MAX - standing.hello.len();
        let gone = match standing.wire.read(Side::Binder, wanted.min(most)) {
            Read::Bytes(bytes) => {
                standing.hello.extend(bytes);
                false
            }
            Read::Nothing => return false,
            Read::Gone => true,
        };
        let drop_it = match Greeting::read(Kind::Hello, &standing.hello) {
            Ok(None) => gone,
            Ok(Some(hello)) => {
                if let Some(answer) = self.judge(&hello) {
                    let standing = self.wires[id].as_mut().expect("it waits");
                    match answer {
                        Verdict::Welcome => {
                            self.waiting.swap_remove(at);
                            self.theirs = Some(id);
                            self.shut[Side::Binder as usize] = false;
                            return true;
                        }
                        Verdict::Refuse(refusal) => {
                            standing.wire.write_whole(Side::Binder, &refusal.to_bytes());
                        }
                        Verdict::CloseFirst => unreachable!("it was closed"),
                    }
                }
                true
            }
            Err(GreetingError::Garbage) => true,
            Err(GreetingError::Refuse(refusal)) => {
                standing.wire.write_whole(Side::Binder, &refusal.to_bytes());
                true
            }
        };
        if drop_it {
            self.waiting.swap_remove(at);
            self.let_go(id, Side::Binder);
        }
        true
    }

    fn judge(&mut self, hello: &Greeting) -> Option<Verdict> {
        let verdict = self.binder.session.handle_hello(hello, &self.binder.memory, self.now);
        if verdict != Verdict::CloseFirst {
            return Some(verdict);
        }
        // Some of what the old connection had received is still taken in, as by a ring that is
        // reaped; it must not matter how much.
        let old = self.theirs.expect("there is something to close");
        let most = self.rng.range(0, 300) as usize;
        let room = self.binder.room();
        let wire = &mut self.wires[old].as_mut().expect("it is in use").wire;
        if let Read::Bytes(bytes) = wire.read(Side::Binder, most.min(room)) {
            self.binder.feed(&bytes, self.now);
        }
        self.disconnect(Side::Binder);
        // That may have been the end of it.
        let verdict = self.binder.session.handle_hello(hello, &self.binder.memory, self.now);
        assert_ne!(verdict, Verdict::CloseFirst);
        Some(verdict)
    }

    /// Closes that end of a connection, which goes away with the second.
    fn let_go(&mut self, id: usize, side: Side) {
        let slot = &mut self.wires[id];
        slot.as_mut().expect("one end is open").wire.close(side);
        let gone = slot.take_if(|standing| standing.wire.is_forgotten());
        if let (0, Some(standing)) = (id, gone) {
            self.first_delivered = SIDES.map(|by| standing.wire.delivered(by));
        }
    }
}

/// Sends some of what is to be sent. Whether something moved, and whether the
/// connection is gone.
fn pump<H: Half>(
    node: &mut Node<H>,
    wire: &mut Wire,
    side: Side,
    most: usize,
    now: u64,
) -> (bool, bool)
where
    Node<H>: App,
{
    let Node { session, memory, .. } = node;
    let bytes = outgoing(session, memory, now, most.min(wire.room(side)));
    if session.poll_transmit(memory, now).is_empty() {
        return (false, false);
    }
    match wire.write(side, &bytes, most) {
        None => (false, true),
        Some(0) => (false, false),
        Some(len) => {
            session.handle_sent(len, now);
            (true, false)
        }
    }
}

/// The front of what a session wants to send.
fn outgoing<H: Half>(session: &mut Session<H>, ring: &Ring, now: u64, most: usize) -> Vec<u8> {
    let transmit = session.poll_transmit(ring, now);
    let control = &transmit.control[..most.min(transmit.control.len())];
    let mut bytes = control.to_vec();
    let start = transmit.data.start;
    let end = transmit.data.end.min(start + (most - control.len()) as u64);
    bytes.extend(ring.read(start, end));
    bytes
}
