//! The floor under a stream over TCP: messages with a 16-byte header each, as Ringway's frames have one,
//! written one behind the other into a buffer that goes out whole, and read from large reads. No
//! acknowledgements of its own, no checks of the headers beyond the length.

use super::floor_tcp::{connect, fault, is_later, write_all};
use crate::clock::now_ns;
use crate::payload::{MARK, STOP, Seen, check, fill};
use crate::plan::Fault;
use crate::side::{Lane, Link, Look, Place, Rx, Side, Tx, sized};
use std::io::Read;
use std::net::TcpStream;

/// In writes of whichever of two lengths is faster in the round at hand.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Plain<N, false>)
}

/// One bare write for each message.
pub(crate) fn open_send(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Plain<N, true>)
}

/// The most that fits one packet of segments on loopback, less a little; and so much that it does not
/// matter any more.
const LENGTHS: [usize; 2] = [65_400, 1 << 20];
/// What each length sends of a round before one of them is chosen for the rest.
const TRIAL: usize = 16 << 20;
const HEADER: usize = 16;

struct Plain<const N: usize, const EACH: bool>;

impl<const N: usize, const EACH: bool> Link for Plain<N, EACH> {
    type Tx = Writer<N, EACH>;
    type Rx = Reader<N>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        let stream = connect(place, lane, true)?;
        stream.set_nonblocking(true).map_err(fault)?;
        let buffer = vec![0; LENGTHS[1] + HEADER + N].into_boxed_slice();
        Ok(Writer { stream, buffer, used: 0, choice: Choice::default() })
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        let stream = connect(place, lane, false)?;
        stream.set_nonblocking(true).map_err(fault)?;
        let buffer = vec![0; 2 * LENGTHS[1]].into_boxed_slice();
        Ok(Reader { stream, buffer, start: 0, end: 0 })
    }
}

struct Writer<const N: usize, const EACH: bool> {
    stream: TcpStream,
    buffer: Box<[u8]>,
    used: usize,
    choice: Choice,
}

impl<const N: usize, const EACH: bool> Tx for Writer<N, EACH> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        let frame = &mut self.buffer[self.used..][..HEADER + N];
        let (header, body) = frame.split_at_mut(HEADER);
        header[..8].copy_from_slice(&(N as u64).to_le_bytes());
        header[8..].copy_from_slice(&first.to_le_bytes());
        fill(&mut body[..N], first | mark);
        self.used += HEADER + N;
        // Whole messages, as many as fit the length, or one.
        if EACH || mark != 0 || self.used + HEADER + N > LENGTHS[self.choice.length] {
            self.write(mark)?;
        }
        Ok(())
    }
}

impl<const N: usize, const EACH: bool> Writer<N, EACH> {
    #[inline(always)]
    fn write(&mut self, mark: u64) -> Result<(), Fault> {
        let used = std::mem::take(&mut self.used);
        if EACH {
            return write_all(&mut self.stream, &self.buffer[..used]);
        }
        for piece in self.buffer[..used].chunks(LENGTHS[self.choice.length]) {
            write_all(&mut self.stream, piece)?;
        }
        self.choice.wrote(used, mark);
        Ok(())
    }
}

/// Which length the next write has.
#[derive(Default)]
struct Choice {
    length: usize,
    /// Bytes and times of this round's trials, and whether they are over.
    bytes: [usize; 2],
    took_ns: [u64; 2],
    chosen: bool,
    since_ns: u64,
}

impl Choice {
    fn wrote(&mut self, bytes: usize, mark: u64) {
        if !self.chosen {
            let now = now_ns();
            if self.since_ns != 0 {
                self.bytes[self.length] += bytes;
                self.took_ns[self.length] += now - self.since_ns;
            }
            self.since_ns = now;
            let tried = self.bytes[self.length] >= TRIAL;
            if mark & MARK != 0 || (tried && self.length == 1) {
                self.chosen = true;
                let rate = |at: usize| self.bytes[at] as f64 / self.took_ns[at].max(1) as f64;
                self.length = usize::from(rate(1) > rate(0));
            } else if tried {
                self.length = 1;
            }
        }
        if mark & STOP != 0 {
            *self = Choice::default();
        }
    }
}

struct Reader<const N: usize> {
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<const N: usize> Reader<N> {
    /// Waits until a whole message is there.
    #[inline(always)]
    fn more(&mut self) -> Result<(), Fault> {
        if self.end - self.start >= HEADER + N {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < HEADER + N {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Fault::new("the other side has closed the connection")),
                Ok(count) => self.end += count,
                Err(e) if is_later(&e) => {}
                Err(e) => return Err(fault(e)),
            }
        }
        Ok(())
    }

    /// The next message, which is there.
    #[inline(always)]
    fn next(&mut self) -> Seen {
        let frame = &self.buffer[self.start..][..HEADER + N];
        self.start += HEADER + N;
        let seen = check::<N>(&frame[HEADER..]);
        let len = u64::from_le_bytes(std::array::from_fn(|at| frame[at]));
        Seen { altered: seen.altered | (len ^ N as u64), ..seen }
    }
}

impl<const N: usize> Rx for Reader<N> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        self.more()?;
        Ok(self.next())
    }

    #[inline(always)]
    fn recv_some(&mut self, mut look: impl Look) -> Result<(), Fault> {
        self.more()?;
        while self.end - self.start >= HEADER + N {
            look.at(self.next());
        }
        Ok(())
    }
}
