//! How connections come about: dialed, or taken in at a door, or given by somebody else. What then passes
//! over them is `flow`.

use std::io;
use std::net::SocketAddr;

use super::{Connection, Inbox, Trouble};
use crate::backend::{Backend, Errno};
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::listener::{Arrival, Listener};
use crate::options::{self, Options};
use crate::session::{Refusal, RefuseCode, Side, Verdict};
use crate::socket::{self, Facts, Tuning};

/// Hellos answered in one look, so that a flood of them does not keep a call.
pub(crate) const HELLOS: usize = 64;

/// How connections come about.
#[derive(Debug)]
pub enum Way {
    /// They come in.
    Bind(Listener),
    /// They are made, to one of these addresses after the other.
    Connect {
        /// Where.
        addresses: Vec<SocketAddr>,
        /// Which is next.
        next: usize,
        /// How the sockets are set up.
        tuning: Tuning,
    },
    /// Somebody else makes them: a crowd, a test.
    Given {
        /// Whether this end says hello.
        dials: bool,
    },
}

impl<H: Inbox, B: Backend> Connection<H, B> {
    pub(super) fn dial(&mut self) {
        let Way::Connect { addresses, next, tuning } = &mut self.way else { return };
        let address = addresses[*next];
        *next = (*next + 1) % addresses.len();
        self.peer = Some(address);
        match socket::connect(address, tuning) {
            Ok(socket) => {
                // Attached while it connects, so that a park ends when it stands.
                H::prepare(&socket);
                self.backend.attach(socket);
                self.dialing = true;
                self.look_at_the_dial();
            }
            Err(error) => self.dial_failed(&error),
        }
    }

    pub(super) fn look_at_the_dial(&mut self) {
        let Some(socket) = self.backend.socket() else { return };
        match socket::connected(&socket) {
            Ok(false) => {}
            Ok(true) => {
                self.dialing = false;
                self.facts = Some(Facts::of(&socket));
                self.session.handle_dialed(self.now_ns);
                self.push();
            }
            Err(error) => self.dial_failed(&error),
        }
    }

    fn dial_failed(&mut self, error: &io::Error) {
        let errno = Errno(error.raw_os_error().unwrap_or(libc::EIO));
        if let Some(address) = self.peer {
            self.trouble = Some(Trouble::Connect { address, errno });
        }
        self.disconnect();
    }

    pub(super) fn look_at_the_door(&mut self) {
        // More are heard with the next look, which those who wait bring on.
        for _ in 0..HELLOS {
            let Way::Bind(listener) = &mut self.way else { return };
            let Some(arrival) = listener.poll(self.now_ns) else { return };
            if let Some((arrival, refusal)) = self.greet(arrival)
                && let Way::Bind(listener) = &mut self.way
            {
                listener.refuse(arrival, refusal, self.now_ns);
            }
        }
    }

    /// Whoever has said hello is welcome, or comes back with why not.
    pub(crate) fn greet(&mut self, arrival: Arrival) -> Option<(Arrival, Refusal)> {
        // Of one of many it may be long ago that somebody looked.
        self.now_ns = clock::coarse_ns();
        if self.told && Some(arrival.hello.session) != self.session.id() {
            if !self.is_alone() && !self.is_said() {
                // Its last words are still on their way: a newcomer would cut them off. A second at most.
                return Some((arrival, Refusal::new(RefuseCode::Busy, 0, 0)));
            }
            // Nobody waits for the old session any more.
            self.renew();
        }
        if self.past.has(&arrival.hello.session) {
            return Some((arrival, Refusal::new(RefuseCode::UnknownSession, 0, 0)));
        }
        let hello = &arrival.hello;
        let mut verdict = self.session.handle_hello(hello, &*self.ring, self.now_ns);
        if verdict == Verdict::CloseFirst {
            // It has had what came over the old connection, or it comes again.
            self.reap();
            self.disconnect();
            verdict = self.session.handle_hello(hello, &*self.ring, self.now_ns);
        }
        match verdict {
            Verdict::Welcome => {
                self.peer = Some(arrival.from);
                self.facts = Some(Facts::of(&arrival.socket));
                self.trouble = None;
                H::prepare(&arrival.socket);
                self.backend.attach(arrival.socket);
                self.push();
            }
            // It was closed: not said twice.
            Verdict::CloseFirst => {}
            Verdict::Refuse(refusal) => return Some((arrival, refusal)),
        }
        None
    }
}

/// Binds, and listens.
pub(crate) fn bind(options: &Options) -> Result<Listener, Error> {
    match open_way(options)? {
        Way::Bind(listener) => Ok(listener),
        // Who must bind does, or is told why not.
        Way::Connect { .. } | Way::Given { .. } => {
            let tried = format!("binding {}:{}", options.host, options.port);
            let found = "no address of the host is this host's";
            Err(Error::new(ErrorKind::NoHost, tried, found, "Bind an address of this host"))
        }
    }
}

/// Decides who binds, and does it.
pub(super) fn open_way(options: &Options) -> Result<Way, Error> {
    let Options { host, port, tuning, .. } = options;
    socket::check(tuning)?;
    let addresses = socket::resolve(host, *port)?;
    let connect = |addresses| Way::Connect { addresses, next: 0, tuning: tuning.clone() };
    let only_binds = *port == 0 || addresses.iter().any(|address| address.ip().is_unspecified());
    if options.side == options::Side::Connect {
        if only_binds {
            return Err(Error::new(
                ErrorKind::BadOption,
                format!("connecting to {host}:{port}"),
                "no host has that address",
                "Name the host and port of the end that binds",
            ));
        }
        return Ok(connect(addresses));
    }
    let must_bind = only_binds || options.side == options::Side::Bind;
    let mut failure = None;
    for address in &addresses {
        match socket::bind(*address, tuning) {
            Ok(socket) => {
                let patience_ns = options.timing.handshake_ns;
                let (tuning, silent_max) = (tuning.clone(), options.silent_max);
                return Ok(Way::Bind(Listener::new(socket, tuning, silent_max, patience_ns)?));
            }
            // It is here, and somebody has it: the other end, by all appearances.
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && !must_bind => {
                return Ok(connect(addresses));
            }
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && !must_bind => {}
            Err(error) => {
                failure.get_or_insert((*address, error));
            }
        }
    }
    match failure {
        None => Ok(connect(addresses)),
        Some((address, error)) => Err(Error::io(format!("binding {address}"), error)),
    }
}

pub(super) fn connector() -> Side {
    let mut random = [0_u8; 24];
    // SAFETY: an array of that length. It can fail only before the kernel has ever had entropy.
    unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    let (session, seed) = random.split_at(16);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(session);
    let mut number = [0; 8];
    number.copy_from_slice(seed);
    Side::Connector { session: bytes, seed: u64::from_le_bytes(number) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use super::connector;
    use crate::backend::Kind;
    use crate::backend::fake::Step;
    use crate::clock;
    use crate::connection::testing::{ends, join, script_receiver};
    use crate::fork::OwnSocket;
    use crate::frame;
    use crate::link::Inline;
    use crate::listener::Arrival;
    use crate::options::{self, Options};
    use crate::receiver::{NetReceiver, RecvError};
    use crate::sender::NetSender;
    use crate::session::{
        Action, Config, Format, Greeting, Receiving, RefuseCode, Sending, Session, Side,
    };

    /// Who is at the door with the hello of a session of which it has heard nothing.
    fn newcomer(config: &Config, side: Side) -> Arrival {
        let mut session = Session::<Sending>::new(Config { side, ..config.clone() }).unwrap();
        assert_eq!(session.poll_action(1), Action::Dial);
        session.handle_dialed(1);
        let ring = crate::mirror::Ring::new(config.capacity).unwrap();
        let transmit = session.poll_transmit(&ring, 1);
        let hello = Greeting::read(frame::Kind::Hello, transmit.control).ok().flatten().unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = door.local_addr().unwrap();
        let socket = TcpStream::connect(from).unwrap();
        let socket = OwnSocket::open(|| Ok::<_, Infallible>(OwnedFd::from(socket))).unwrap();
        Arrival { socket, from, hello }
    }

    #[test]
    fn an_answer_that_nobody_looked_for_in_time_is_no_late_answer() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        options.linger = Duration::ZERO;
        let bind = Options { side: options::Side::Bind, ..options.clone() };
        let mut rx = NetReceiver::with(Inline::<Receiving, _>::open(&bind).unwrap(), &bind);
        let port = rx.local_addr().unwrap().port();
        // Its time is over whenever somebody looks.
        options.timing.handshake_ns = 1;
        let connect = Options { side: options::Side::Connect, port, ..options };
        let mut tx = NetSender::with(Inline::<Sending, _>::open(&connect).unwrap(), &connect);
        let start = Instant::now();
        let wait_until = |done: &mut dyn FnMut() -> bool| {
            while !done() {
                assert!(start.elapsed() < Duration::from_secs(30));
            }
        };
        // It has connected and said hello when it was opened, or does now.
        wait_until(&mut || {
            let dialer = tx.link_mut().connection_mut();
            if dialer.bytes_sent == 0 {
                dialer.tend();
            }
            dialer.bytes_sent > 0
        });
        wait_until(&mut || {
            assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
            rx.peer().is_some()
        });
        let failed = tx.stats().failed_attempts;
        let said_ns = clock::coarse_ns();
        wait_until(&mut || clock::coarse_ns() > said_ns + 1);
        tx.link_mut().connection_mut().step();
        assert!(tx.peer().is_some(), "{:?}", tx.trouble());
        assert_eq!(tx.stats().failed_attempts, failed);
    }

    #[test]
    fn a_newcomer_waits_until_the_last_words_are_said() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        // There is no socket that a drop could see closed.
        options.linger = Duration::ZERO;
        let (mut tx, mut rx) = ends(&options).unwrap();
        assert!(join(&mut tx, &mut rx, 4096));
        let mut message = |rx: &mut NetReceiver<_>| loop {
            tx.flush().unwrap();
            match rx.try_recv() {
                Ok(message) => return message.len(),
                Err(RecvError::Empty) if tx.stats().messages == 0 => {
                    tx.try_claim(8).unwrap().commit().unwrap();
                }
                Err(RecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(message(&mut rx), 8);
        // Its sender closes, and what the receiver answers does not get through.
        let late = std::iter::repeat_n(Step::Late, 100_000);
        script_receiver(&mut rx).script(Kind::Send, late);
        let dialer = tx.link_mut().connection_mut();
        dialer.session.close();
        dialer.push();
        assert_eq!(rx.try_recv().err(), Some(RecvError::Disconnected));

        let binder = rx.link_mut().connection_mut();
        let arrival = newcomer(binder.session.config(), connector());
        let (arrival, refusal) = binder.greet(arrival).expect("it is refused");
        assert_eq!(refusal.code, RefuseCode::Busy);
        assert_eq!(binder.number(), 1);
        // They get through, and the same newcomer is let in.
        script_receiver(&mut rx).unscript(Kind::Send);
        let binder = rx.link_mut().connection_mut();
        binder.push();
        assert!(binder.greet(arrival).is_none());
        assert_eq!(binder.number(), 2);
        assert!(binder.session.is_up());
        // The first one's session does not begin again, as if nothing had been had of it.
        let session = tx.link_mut().connection_mut().session.id().unwrap();
        let arrival = newcomer(binder.session.config(), Side::Connector { session, seed: 1 });
        let (_, refusal) = binder.greet(arrival).expect("it is refused");
        assert_eq!(refusal.code, RefuseCode::UnknownSession);
        assert_eq!(binder.number(), 2);
        // And the one before it has heard them.
        let dialer = tx.link_mut().connection_mut();
        dialer.pull();
        assert!(dialer.session.end().is_some());
    }
}
