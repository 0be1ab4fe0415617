//! A relay between the two ends of a channel between hosts, which resets the connection now and then:
//! how the demo shows that nothing is lost by that. What the bytes mean never lives here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// When to cut: as often as is asked for, spread over the time that the stream lasts at most, or over
/// the bytes that it has at least if these pass sooner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts {
    pub(super) count: u32,
    pub(super) length: Duration,
    pub(super) bytes: Option<u64>,
}

/// A running relay. Dropped, it ends, and what it relays is cut.
pub(super) struct Relay {
    address: SocketAddr,
    /// Nothing is sent: that it goes away is the sign.
    leash: Option<Sender<()>>,
    thread: Option<JoinHandle<u32>>,
}

impl Relay {
    /// Relays to `target` from an address of its own.
    pub(super) fn start(target: SocketAddr, cuts: Cuts) -> Result<Self, String> {
        let explain = |error: io::Error| format!("cannot start the relay: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(explain)?;
        listener.set_nonblocking(true).map_err(explain)?;
        let address = listener.local_addr().map_err(explain)?;
        let (leash, held) = channel();
        let work = Work { listener, target, plan: cuts, start: None, passed: 0, done: 0, held };
        let thread = thread::spawn(move || work.run());
        Ok(Self { address, leash: Some(leash), thread: Some(thread) })
    }

    /// Where to connect instead of the target.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it. How many times it has cut.
    pub(super) fn end(mut self) -> u32 {
        self.leash = None;
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.leash = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long to sleep when nothing moves. It is in the latency of what comes then.
const NAP: Duration = Duration::from_micros(50);

struct Work {
    listener: TcpListener,
    target: SocketAddr,
    plan: Cuts,
    /// Of the first connection.
    start: Option<Instant>,
    /// Bytes so far, both ways and with all that was said again.
    passed: u64,
    /// Cuts so far.
    done: u32,
    held: Receiver<()>,
}

impl Work {
    fn run(mut self) -> u32 {
        while !self.is_over() {
            match self.listener.accept() {
                Ok((one, _)) => {
                    self.start.get_or_insert_with(Instant::now);
                    // A target that is gone is for the ends to find: this side hangs up, too.
                    if let Ok(other) = TcpStream::connect(self.target) {
                        self.relay(&one, &other);
                    }
                }
                Err(_) => thread::sleep(NAP),
            }
        }
        self.done
    }

    fn is_over(&self) -> bool {
        matches!(self.held.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Until the connection ends, or is cut.
    fn relay(&mut self, one: &TcpStream, other: &TcpStream) {
        for stream in [one, other] {
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                return;
            }
        }
        let mut ways = [Way::new(one, other), Way::new(other, one)];
        while !self.is_over() {
            let mut moved = 0;
            for way in &mut ways {
                match way.pump() {
                    Ok(bytes) => moved += bytes,
                    Err(_) => return reset(one, other),
                }
            }
            if ways.iter().all(|way| way.over) {
                return;
            }
            self.passed += moved as u64;
            if self.is_time() {
                self.done += 1;
                return reset(one, other);
            }
            if moved == 0 {
                thread::sleep(NAP);
            }
        }
        reset(one, other);
    }

    /// Whether the next cut is due.
    fn is_time(&self) -> bool {
        let Cuts { count, length, bytes } = self.plan;
        if self.done >= count {
            return false;
        }
        let (step, steps) = (self.done + 1, count + 1);
        let by_time = self.start.is_some_and(|start| start.elapsed() >= length / steps * step);
        let by_bytes =
            bytes.is_some_and(|all| self.passed >= all / u64::from(steps) * u64::from(step));
        by_time || by_bytes
    }
}

/// Both connections end at once, with whatever is under way.
fn reset(one: &TcpStream, other: &TcpStream) {
    for stream in [one, other] {
        // Closing resets then. Where this fails there is no connection any more.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

/// One direction.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    pending: Vec<u8>,
    /// Everything that came was passed on, and so was the end.
    over: bool,
}

impl<'a> Way<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream) -> Self {
        Self { from, to, pending: Vec::new(), over: false }
    }

    /// Moves what is there, as far as the other side takes it. How many bytes that were.
    fn pump(&mut self) -> io::Result<usize> {
        if self.over {
            return Ok(0);
        }
        if self.pending.is_empty() {
            let mut bytes = [0; 16384];
            match later(self.from.read(&mut bytes))? {
                None => return Ok(0),
                Some(0) => {
                    self.over = true;
                    self.to.shutdown(std::net::Shutdown::Write)?;
                    return Ok(0);
                }
                Some(count) => self.pending.extend_from_slice(&bytes[..count]),
            }
        }
        let count = later(self.to.write(&self.pending))?.unwrap_or(0);
        self.pending.drain(..count);
        Ok(count)
    }
}

/// `None`: not now.
fn later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn relay(count: u32, length: Duration, bytes: Option<u64>) -> (TcpListener, Relay) {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let cuts = Cuts { count, length, bytes };
        let relay = Relay::start(target.local_addr().unwrap(), cuts).unwrap();
        (target, relay)
    }

    #[test]
    fn it_passes_on_everything_and_the_end() {
        let (target, relay) = relay(0, LONG, None);
        let mut one = TcpStream::connect(relay.address()).unwrap();
        let mut other = target.accept().unwrap().0;
        let sent = vec![7; 1_000_000];
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            one.write_all(&sent).unwrap();
            one.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = Vec::new();
            one.read_to_end(&mut back).unwrap();
            back
        });
        let mut received = Vec::new();
        other.read_to_end(&mut received).unwrap();
        assert!(received == expected);
        other.write_all(b"had it").unwrap();
        drop(other);
        assert_eq!(writer.join().unwrap(), b"had it");
        assert_eq!(relay.end(), 0);
    }

    #[test]
    fn it_cuts_at_its_bytes_and_no_more_often() {
        let (target, relay) = relay(2, LONG, Some(3000));
        for _ in 0..2 {
            let mut one = TcpStream::connect(relay.address()).unwrap();
            let mut other = target.accept().unwrap().0;
            one.write_all(&[1; 1000]).unwrap();
            let error = one.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            // What was under way may be lost, and the end is no orderly one.
            while other.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        }
        let mut one = TcpStream::connect(relay.address()).unwrap();
        let mut other = target.accept().unwrap().0;
        one.write_all(&[1; 10_000]).unwrap();
        other.read_exact(&mut [0; 10_000]).unwrap();
        assert_eq!(relay.end(), 2);
    }

    #[test]
    fn it_cuts_when_its_time_has_come() {
        let (target, relay) = relay(1, Duration::from_millis(20), None);
        let mut one = TcpStream::connect(relay.address()).unwrap();
        let _other = target.accept().unwrap().0;
        assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(relay.end(), 1);
    }
}
