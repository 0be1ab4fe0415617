//! A relay between two ends over sockets: passes on in pieces, refuses some connections, and cuts others
//! after the byte that the seed names.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::rng::Rng;
use super::scripts::Weather;

/// What becomes of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on for as long as both want it.
    Lives,
    /// It is closed as soon as it is there.
    Refused,
    /// It is cut as soon as so many bytes of one side were passed on.
    Cut {
        /// Of which: 0 the one that dialed.
        writer: usize,
        after: u64,
        /// What is on its way still arrives, and then the end; else it is a reset.
        drains: bool,
    },
}

/// The fate of the next connection.
pub fn plan(rng: &mut Rng, weather: &Weather) -> Fate {
    if rng.one_in(weather.dial_fails) {
        return Fate::Refused;
    }
    if weather.severs == 0 {
        return Fate::Lives;
    }
    // Greetings have 240 bytes: half of the cuts come in those or right behind.
    let most = if rng.one_in(2) { 320 } else { 40 * weather.severs };
    Fate::Cut { writer: rng.range(0, 1) as usize, after: rng.range(0, most), drains: rng.one_in(2) }
}

/// The relay's thread. Dropping this ends it.
pub struct Relay {
    port: u16,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Relay {
    /// Relays to `target`. After as many troubles as the weather has, it only passes on.
    pub fn start(target: SocketAddr, weather: &Weather, seed: u64) -> Self {
        let door = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = door.local_addr().expect("it is bound").port();
        let (end, ended) = channel();
        let weather = weather.clone();
        let relay = move || relay(&door, target, &weather, seed, &ended);
        Self { port, end: Some(end), thread: Some(thread::spawn(relay)) }
    }

    /// Where it is dialed.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it. How many connections it has cut.
    pub fn end(mut self) -> u64 {
        self.end = None;
        self.thread.take().map_or(0, |thread| thread.join().expect("the relay's own checks"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn relay(
    door: &TcpListener,
    target: SocketAddr,
    weather: &Weather,
    seed: u64,
    ended: &Receiver<()>,
) -> u64 {
    let over = || ended.try_recv() == Err(TryRecvError::Disconnected);
    door.set_nonblocking(true).expect("a socket");
    let (mut rng, mut cuts, mut troubles) = (Rng::new(seed ^ 0xcafe), 0, 0);
    let mut standing: Vec<Pair> = Vec::new();
    while !over() {
        let mut idle = true;
        if let Ok((dialer, _)) = door.accept() {
            idle = false;
            // Of a dozen each: a real back-off takes its time.
            let fate = match troubles < weather.troubles.min(12) {
                true => plan(&mut rng, weather),
                false => Fate::Lives,
            };
            troubles += u64::from(fate != Fate::Lives);
            if fate != Fate::Refused
                && let Ok(binder) = TcpStream::connect(target)
            {
                standing.push(Pair::new([dialer, binder], fate));
            }
        }
        if rng.one_in(weather.stalls * 20) {
            thread::sleep(Duration::from_millis(rng.range(1, 5)));
        }
        standing.retain_mut(|pair| match pair.pass_on(&mut rng, weather) {
            Passed::Nothing => true,
            Passed::Some => {
                idle = false;
                true
            }
            Passed::Gone => false,
            Passed::Cut => {
                cuts += 1;
                false
            }
        });
        if idle {
            thread::sleep(Duration::from_micros(20));
        }
    }
    cuts
}

enum Passed {
    Nothing,
    Some,
    /// Both have let go of it.
    Gone,
    Cut,
}

/// A connection: who dialed, and who is dialed.
struct Pair {
    streams: [TcpStream; 2],
    /// What each wrote and the other has not got.
    pending: [Vec<u8>; 2],
    /// Bytes of each that the other got.
    passed: [u64; 2],
    /// Each has ended what it says.
    ended: [bool; 2],
    fate: Fate,
}

impl Pair {
    fn new(streams: [TcpStream; 2], fate: Fate) -> Self {
        for stream in &streams {
            stream.set_nonblocking(true).expect("a socket");
            stream.set_nodelay(true).expect("a socket");
        }
        Self { streams, pending: Default::default(), passed: [0; 2], ended: [false; 2], fate }
    }

    /// One look at either direction.
    fn pass_on(&mut self, rng: &mut Rng, weather: &Weather) -> Passed {
        let mut moved = false;
        for writer in [0, 1] {
            if self.is_due() {
                return self.cut();
            }
            let piece = rng.range(1, weather.piece as u64) as usize;
            match self.pump(writer, piece, weather.pipe) {
                Some(bytes) => moved |= bytes > 0,
                None => return Passed::Gone,
            }
        }
        if self.is_due() {
            return self.cut();
        }
        match (self.ended, moved) {
            ([true, true], _) => Passed::Gone,
            (_, true) => Passed::Some,
            (_, false) => Passed::Nothing,
        }
    }

    fn is_due(&self) -> bool {
        matches!(self.fate, Fate::Cut { writer, after, .. } if self.passed[writer] >= after)
    }

    fn cut(&self) -> Passed {
        if let Fate::Cut { drains: false, .. } = self.fate {
            for stream in &self.streams {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
        // With bytes that nobody read, the close of the other kind is a reset as well, behind what was sent.
        Passed::Cut
    }

    /// Moves at most so much of what `writer` wrote, and holds at most so much. `None`: one side is gone.
    fn pump(&mut self, writer: usize, piece: usize, pipe: usize) -> Option<usize> {
        let [from, to] = [&self.streams[writer], &self.streams[1 - writer]];
        let pending = &mut self.pending[writer];
        if pending.is_empty() && !self.ended[writer] {
            let mut bytes = [0; 4096];
            match (&*from).read(&mut bytes[..pipe.min(4096)]) {
                Ok(0) => {
                    self.ended[writer] = true;
                    let _ = to.shutdown(Shutdown::Write);
                }
                Ok(count) => pending.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        let room = match self.fate {
            Fate::Cut { writer: cut, after, .. } if cut == writer => after - self.passed[writer],
            _ => u64::MAX,
        };
        let len = pending.len().min(piece).min(usize::try_from(room).unwrap_or(usize::MAX));
        if len == 0 {
            return Some(0);
        }
        match (&*to).write(&pending[..len]) {
            Ok(count) => {
                pending.drain(..count);
                self.passed[writer] += count as u64;
                Some(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }
}
