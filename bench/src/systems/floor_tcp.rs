//! The floor under anything that travels over TCP: one socket for both ways, without Nagle, asked again
//! and again, asked through epoll, or slept on. One write a message, reads until it is whole; no frames,
//! no acknowledgements of its own. Ping-pong only.
#![allow(clippy::disallowed_types)] // The word through which both sides meet is the harness's own.

use crate::arena::Region;
use crate::payload::{Seen, check, fill};
use crate::plan::{Fault, Scenario, Wait};
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Spins on reads that do not wait.
pub(crate) fn open_spin(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Plain<Spin, N>)
}

/// Sleeps in its reads.
pub(crate) fn open_block(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Plain<Block, N>)
}

/// Reads when epoll says so, which it is asked all the time or slept in.
pub(crate) fn open_epoll(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Plain<Epoll, N>)
}

/// Two words for the ports of two lanes, each on a line of its own.
pub(crate) fn arena_len(_size: usize, _capacity: usize) -> usize {
    128
}

/// Where one side tells the other at which port it waits.
fn port_word(region: Region, lane: Lane) -> &'static AtomicU64 {
    let offset = if lane == Lane::There { 0 } else { 64 };
    // SAFETY: page-aligned plus 0 or 64, within the 128 bytes that `arena_len` asked for, mapped for
    // good; both processes use the word as an atomic.
    unsafe { AtomicU64::from_ptr(region.base().add(offset).cast()) }
}

/// Tells the other side the port of a lane.
pub(super) fn tell_port(place: &Place<'_>, lane: Lane, port: u16) {
    // T1: pairs with T2 in `hear_port`.
    port_word(place.region, lane).store(port.into(), Ordering::Release);
}

/// Waits for the other side to tell the port of a lane.
pub(super) fn hear_port(place: &Place<'_>, lane: Lane) -> Result<u16, Fault> {
    let start = Instant::now();
    loop {
        // T2: pairs with T1 in `tell_port`.
        let port = port_word(place.region, lane).load(Ordering::Acquire);
        if let (Ok(port), true) = (u16::try_from(port), port != 0) {
            return Ok(port);
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(Fault::new("the other side did not say at which port it waits"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

struct Plain<W, const N: usize>(PhantomData<W>);

impl<W: Waiting + 'static, const N: usize> Link for Plain<W, N> {
    type Tx = End<W, N>;
    type Rx = End<W, N>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<End<W, N>, Fault> {
        End::new(place, lane, true)
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<End<W, N>, Fault> {
        End::new(place, lane, false)
    }
}

/// How a socket is waited on.
trait Waiting: Sized {
    /// Whether reads and writes wait by themselves.
    const BLOCKS: bool;

    fn new(stream: &TcpStream, wait: Wait) -> io::Result<Self>;

    /// Before each read.
    fn wait(&mut self) -> io::Result<()>;
}

struct Spin;

impl Waiting for Spin {
    const BLOCKS: bool = false;

    fn new(_: &TcpStream, _: Wait) -> io::Result<Spin> {
        Ok(Spin)
    }

    #[inline(always)]
    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Block;

impl Waiting for Block {
    const BLOCKS: bool = true;

    fn new(_: &TcpStream, _: Wait) -> io::Result<Block> {
        Ok(Block)
    }

    #[inline(always)]
    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Epoll {
    epoll: OwnedFd,
    timeout_ms: i32,
}

impl Waiting for Epoll {
    const BLOCKS: bool = false;

    fn new(stream: &TcpStream, wait: Wait) -> io::Result<Epoll> {
        // SAFETY: no pointers; the result is checked, and nobody else knows of the descriptor.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        let (fd, add) = (stream.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: open descriptors and a live value.
        if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &raw mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Epoll { epoll, timeout_ms: if wait == Wait::Park { -1 } else { 0 } })
    }

    #[inline(always)]
    fn wait(&mut self) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let (epoll, timeout) = (self.epoll.as_raw_fd(), self.timeout_ms);
        loop {
            // SAFETY: room for one event.
            match unsafe { libc::epoll_wait(epoll, &raw mut event, 1, timeout) } {
                0 => {}
                1.. => return Ok(()),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

std::thread_local! {
    /// The socket of the lane there, for the lane back.
    static SOCKET: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

/// The socket of a lane; the lane back has that of the lane there.
pub(super) fn connect(place: &Place<'_>, lane: Lane, sends: bool) -> Result<TcpStream, Fault> {
    let kept = SOCKET.with(|socket| socket.borrow_mut().take());
    let stream = match (lane, kept) {
        (Lane::Back, Some(stream)) => stream,
        _ if sends => {
            TcpStream::connect((place.host(lane), hear_port(place, lane)?)).map_err(fault)?
        }
        _ => {
            let listener = TcpListener::bind((place.host(lane), 0)).map_err(fault)?;
            tell_port(place, lane, listener.local_addr().map_err(fault)?.port());
            listener.accept().map_err(fault)?.0
        }
    };
    stream.set_nodelay(true).map_err(fault)?;
    cubic_or_reno(&stream);
    if lane == Lane::There && place.seat.scenario == Scenario::Pingpong {
        let twin = stream.try_clone().map_err(fault)?;
        SOCKET.with(|socket| *socket.borrow_mut() = Some(twin));
    }
    Ok(stream)
}

#[cold]
pub(super) fn fault(error: io::Error) -> Fault {
    Fault::new(format!("a plain TCP connection: {error}"))
}

/// What Ringway's sockets get, too: the system's default may be bbr.
fn cubic_or_reno(stream: &TcpStream) {
    for name in ["cubic", "reno"] {
        // SAFETY: an open socket, and bytes of the length told.
        let done = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_CONGESTION,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        };
        if done == 0 {
            return;
        }
    }
}

struct End<W, const N: usize> {
    stream: TcpStream,
    waiting: W,
    message: Box<[u8]>,
}

impl<W: Waiting, const N: usize> End<W, N> {
    fn new(place: &Place<'_>, lane: Lane, sends: bool) -> Result<Self, Fault> {
        let stream = connect(place, lane, sends)?;
        stream.set_nonblocking(!W::BLOCKS).map_err(fault)?;
        let waiting = W::new(&stream, place.seat.wait).map_err(fault)?;
        Ok(End { stream, waiting, message: vec![0; N].into_boxed_slice() })
    }
}

impl<W: Waiting, const N: usize> Tx for End<W, N> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        fill(&mut self.message[..N], first | mark);
        write_all(&mut self.stream, &self.message[..N])
    }
}

/// Writes all of it; where the socket has no room and does not wait for it, again and again.
#[inline(always)]
pub(super) fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> Result<(), Fault> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(e) if is_later(&e) => {}
            Err(e) => return Err(fault(e)),
        }
    }
    Ok(())
}

#[inline(always)]
pub(super) fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl<W: Waiting, const N: usize> Rx for End<W, N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let mut came = 0;
        while came < N {
            self.waiting.wait().map_err(fault)?;
            match self.stream.read(&mut self.message[came..N]) {
                Ok(0) => return Err(Fault::new("the other side has closed the connection")),
                Ok(count) => came += count,
                Err(e) if is_later(&e) => {}
                Err(e) => return Err(fault(e)),
            }
        }
        Ok(check::<N>(&self.message[..N]))
    }
}
