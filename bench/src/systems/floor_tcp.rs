//! The floor under anything that travels over TCP: one socket for both ways, non-blocking, without
//! Nagle, asked again and again. One write a message, reads until it is whole; no frames, no
//! acknowledgements of its own. Ping-pong only.
#![allow(clippy::disallowed_types)] // The word through which both sides meet is the harness's own.

use crate::arena::Region;
use crate::payload::{Seen, check, fill};
use crate::plan::Fault;
use crate::side::{Lane, Link, Place, Rx, Side, Tx, sized};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Plain<N>)
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

struct Plain<const N: usize>;

impl<const N: usize> Link for Plain<N> {
    type Tx = End<N>;
    type Rx = End<N>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<End<N>, Fault> {
        end(place, lane, true)
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<End<N>, Fault> {
        end(place, lane, false)
    }
}

std::thread_local! {
    /// The socket of the lane there, for the lane back.
    static SOCKET: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

fn end<const N: usize>(place: &Place<'_>, lane: Lane, sends: bool) -> Result<End<N>, Fault> {
    let fault = |e: std::io::Error| Fault::new(format!("a plain TCP connection: {e}"));
    let kept = SOCKET.with(|socket| socket.borrow_mut().take());
    let stream = match (lane, kept) {
        (Lane::Back, Some(stream)) => stream,
        _ if sends => {
            TcpStream::connect((Ipv4Addr::LOCALHOST, hear_port(place, lane)?)).map_err(fault)?
        }
        _ => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fault)?;
            tell_port(place, lane, listener.local_addr().map_err(fault)?.port());
            listener.accept().map_err(fault)?.0
        }
    };
    stream.set_nodelay(true).map_err(fault)?;
    stream.set_nonblocking(true).map_err(fault)?;
    cubic_or_reno(&stream);
    if lane == Lane::There {
        let twin = stream.try_clone().map_err(fault)?;
        SOCKET.with(|socket| *socket.borrow_mut() = Some(twin));
    }
    Ok(End { stream, message: vec![0; N].into_boxed_slice() })
}

/// What Ringway's sockets get, too: the system's default may be bbr.
fn cubic_or_reno(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
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

struct End<const N: usize> {
    stream: TcpStream,
    message: Box<[u8]>,
}

impl<const N: usize> Tx for End<N> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        fill(&mut self.message[..N], first | mark);
        let mut sent = 0;
        while sent < N {
            match self.stream.write(&self.message[sent..N]) {
                Ok(count) => sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(Fault::new(format!("write: {e}"))),
            }
        }
        Ok(())
    }
}

impl<const N: usize> Rx for End<N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        let mut came = 0;
        while came < N {
            match self.stream.read(&mut self.message[came..N]) {
                Ok(0) => return Err(Fault::new("the other side has closed the connection")),
                Ok(count) => came += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(Fault::new(format!("read: {e}"))),
            }
        }
        Ok(check::<N>(&self.message[..N]))
    }
}
