//! The binding end's door: takes connections in, hears who they are, and hands on those that said
//! hello. Whoever says nothing, or something else, costs a small buffer for a while, and a counter.
//!
//! Nothing of a connection is read beyond its greeting: what follows belongs in a ring.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::backend::{recv_now, send_now};
use crate::error::Error;
use crate::fork::OwnSocket;
use crate::frame::{CONTROL_MAX, Kind};
use crate::mirror::Span;
use crate::session::{Greeting, GreetingError, Refusal};
use crate::socket::{self, Tuning};

/// Connections taken in at once, so that a flood of them does not keep a call.
const ACCEPTS: usize = 64;

/// A connection that said hello.
#[derive(Debug)]
pub struct Arrival {
    /// The connection, read up to the end of the greeting.
    pub socket: OwnSocket,
    /// From where.
    pub from: SocketAddr,
    /// What it said.
    pub hello: Greeting,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DoorStats {
    /// Taken in.
    pub accepted: u64,
    /// Closed because they did not say hello in time.
    pub silent: u64,
    /// Closed because newer ones needed the place before they had said hello.
    pub displaced: u64,
    /// Closed because what they said was no greeting.
    pub garbage: u64,
    /// Answered with a refusal.
    pub refused: u64,
    /// Times that the system had no descriptor or memory for one.
    pub starved: u64,
}

/// The door.
#[derive(Debug)]
pub struct Listener {
    socket: OwnSocket,
    address: SocketAddr,
    /// Readable when anything is to be done here.
    epoll: OwnedFd,
    tuning: Tuning,
    guests: Vec<Guest>,
    silent_max: usize,
    patience_ns: u64,
    stats: DoorStats,
}

/// A connection that has not said hello, or was refused.
#[derive(Debug)]
struct Guest {
    socket: OwnSocket,
    from: SocketAddr,
    until_ns: u64,
    heard: [u8; CONTROL_MAX],
    heard_len: usize,
    /// It is read to its end, so that closing it is no reset that overtakes the refusal.
    leaving: bool,
}

enum Heard {
    Nothing,
    Hello(Greeting),
    Refuse(Refusal),
    Garbage,
    Gone,
}

impl Listener {
    /// Listens on a socket that is bound. `silent_max` guests are kept, each for `patience_ns`.
    ///
    /// # Errors
    /// Lack of descriptors.
    pub fn new(
        socket: OwnSocket,
        tuning: Tuning,
        silent_max: usize,
        patience_ns: u64,
    ) -> Result<Self, Error> {
        let failed = |error| Error::io("listening", error);
        let address = socket::local_addr(&socket).map_err(failed)?;
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: just opened, and nobody else knows of it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let silent_max = silent_max.max(1);
        let guests = Vec::with_capacity(silent_max + 1);
        let stats = DoorStats::default();
        let listener =
            Self { socket, address, epoll, tuning, guests, silent_max, patience_ns, stats };
        listener.watch(listener.socket.as_fd());
        Ok(listener)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Readable when [`Self::poll`] has something to do, but for time-outs.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// What became of connections so far.
    pub fn stats(&self) -> DoorStats {
        self.stats
    }

    /// When the next guest's patience ends.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.guests.iter().map(|guest| guest.until_ns).min()
    }

    /// Takes in who has come, hears them, and returns one that said hello, if there is one; ask
    /// again then. Never blocks.
    pub fn poll(&mut self, now_ns: u64) -> Option<Arrival> {
        // Those who are here first: a flood must not displace who is just speaking.
        if let Some(arrival) = self.hear(now_ns) {
            return Some(arrival);
        }
        for _ in 0..ACCEPTS {
            match socket::accept(&self.socket, &self.tuning) {
                Ok(Some((socket, from))) => {
                    self.stats.accepted += 1;
                    if let Some(arrival) = self.admit(socket, from, now_ns) {
                        return Some(arrival);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    // Of descriptors, say. A silent guest's place is worth less than a newcomer's.
                    self.stats.starved += 1;
                    if !self.displace() {
                        break;
                    }
                }
            }
        }
        None
    }

    /// Tells a connection why not, and sees it out.
    pub fn refuse(&mut self, arrival: Arrival, refusal: Refusal, now_ns: u64) {
        let Arrival { socket, from, .. } = arrival;
        let guest = self.guest(socket, from, now_ns);
        self.see_out(guest, refusal);
    }

    fn guest(&self, socket: OwnSocket, from: SocketAddr, now_ns: u64) -> Guest {
        let until_ns = now_ns.saturating_add(self.patience_ns);
        let heard = [0; CONTROL_MAX];
        Guest { socket, from, until_ns, heard, heard_len: 0, leaving: false }
    }

    /// A newcomer: most have their hello with them.
    fn admit(&mut self, socket: OwnSocket, from: SocketAddr, now_ns: u64) -> Option<Arrival> {
        let mut guest = self.guest(socket, from, now_ns);
        match guest.hear() {
            Heard::Nothing => self.keep(guest),
            Heard::Hello(hello) => {
                return Some(Arrival { socket: guest.socket, from, hello });
            }
            Heard::Refuse(refusal) => self.see_out(guest, refusal),
            Heard::Garbage => self.stats.garbage += 1,
            Heard::Gone => self.stats.silent += 1,
        }
        None
    }

    fn hear(&mut self, now_ns: u64) -> Option<Arrival> {
        let mut index = 0;
        while index < self.guests.len() {
            let guest = &mut self.guests[index];
            let overdue = now_ns >= guest.until_ns;
            match guest.hear() {
                Heard::Nothing if !overdue => {
                    index += 1;
                    continue;
                }
                Heard::Nothing | Heard::Gone => {
                    self.stats.silent += u64::from(!self.guests[index].leaving);
                }
                Heard::Garbage => self.stats.garbage += 1,
                Heard::Refuse(refusal) => {
                    let guest = self.guests.swap_remove(index);
                    self.see_out(guest, refusal);
                    continue;
                }
                Heard::Hello(hello) => {
                    let Guest { socket, from, .. } = self.guests.swap_remove(index);
                    self.unwatch(socket.as_fd());
                    return Some(Arrival { socket, from, hello });
                }
            }
            self.guests.swap_remove(index);
        }
        None
    }

    fn see_out(&mut self, mut guest: Guest, refusal: Refusal) {
        self.stats.refused += 1;
        let mut words = refusal.to_bytes();
        let span = Span { start: words.as_mut_ptr(), len: words.len() };
        // SAFETY: a live array. 48 bytes fit into any socket's buffer; if not, the connection's
        // time-out has to tell.
        let _ = unsafe { send_now(&guest.socket, span) };
        socket::shutdown_write(&guest.socket);
        guest.leaving = true;
        self.keep(guest);
    }

    fn keep(&mut self, guest: Guest) {
        if self.guests.len() >= self.silent_max {
            self.displace();
        }
        self.watch(guest.socket.as_fd());
        self.guests.push(guest);
    }

    /// Closes the oldest guest's connection. False: there is none.
    fn displace(&mut self) -> bool {
        let ages = self.guests.iter().enumerate().map(|(index, guest)| (guest.until_ns, index));
        let Some((_, oldest)) = ages.min() else { return false };
        let guest = self.guests.swap_remove(oldest);
        self.stats.displaced += u64::from(!guest.leaving);
        true
    }

    fn watch(&self, fd: BorrowedFd<'_>) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        // SAFETY: open descriptors and a live value. Without memory for it, time-outs do the work.
        unsafe {
            let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event);
        }
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        // SAFETY: open descriptors; no event is passed.
        unsafe {
            let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut());
        }
    }
}

impl Guest {
    fn hear(&mut self) -> Heard {
        // A greeting comes in a few pieces at most; whoever talks on is heard on the next time.
        for _ in 0..8 {
            if self.leaving {
                // Whatever it says now.
                self.heard_len = 0;
            }
            let room = &mut self.heard[self.heard_len..];
            let span = Span { start: room.as_mut_ptr(), len: room.len() };
            // SAFETY: the rest of a live array; never empty, as a whole greeting was handed on.
            match unsafe { recv_now(&self.socket, span) } {
                Ok(0) => return Heard::Gone,
                Ok(count) => self.heard_len += count,
                Err(errno) if errno.is_later() => return Heard::Nothing,
                Err(_) => return Heard::Gone,
            }
            if self.leaving {
                continue;
            }
            match Greeting::read(Kind::Hello, &self.heard[..self.heard_len]) {
                Ok(None) => {}
                Ok(Some(hello)) => return Heard::Hello(hello),
                Err(GreetingError::Garbage) => return Heard::Garbage,
                Err(GreetingError::Refuse(refusal)) => return Heard::Refuse(refusal),
            }
        }
        Heard::Nothing
    }
}
