//! The receiving half: what lies whole in the ring, what was released, what was granted.

use std::ops::Range;

use super::greeting::{Direction, Greeting, POSITION_MAX, RefuseCode};
use super::machine::{Half, Heard, Mismatch, Offer, Resumed, Session};
use super::{CONTROL_ROOM, Headers, Violation};
use crate::frame::{GAP_BODY, HEADER_LEN, Header, Kind, frame_len};

/// Bytes that are acknowledged at once, however large the rings: else a sender with a ring of 4 MiB seldom
/// knows that it is empty. Beside a bare socket in the same process, round trips of 64 KiB took 1.18 to 1.24
/// times as long with an eighth of the ring, and 1.09 to 1.12 with this.
const ACK_MOST: u64 = 128 << 10;

/// The receiving half of a session. The order of its positions is drawn in the module's front page.
#[derive(Debug)]
pub struct Receiving {
    capacity: u64,
    window: u64,
    /// The longest body that the sender announced.
    body_max: u32,
    /// Everything below was released by the application.
    released: u64,
    /// What the sender was last told of that, on this connection.
    told: u64,
    /// Everything below lies in the ring in whole frames.
    received: u64,
    /// Bytes behind that: the front of a frame.
    partial: u64,
    /// Messages that were left out, as the gaps below `received` say.
    missed: u64,
    ack_delay_ns: u64,
    /// When to acknowledge at the latest.
    ack_at_ns: Option<u64>,
    ack_now: bool,
    /// The sender's stream ends there.
    fin: Option<u64>,
    /// It said so on this connection, and was not answered.
    answer_fin: bool,
    /// It was answered, on any connection.
    answered: bool,
    fin_sent: bool,
    /// This side closes: it releases nothing beyond.
    closed_at: Option<u64>,
}

impl Session<Receiving> {
    /// Everything below lies in the ring in whole frames, checked: data frames alone, each at the
    /// position that its header says, up to here.
    #[inline(always)]
    pub fn received(&self) -> u64 {
        self.half.received
    }

    /// Everything below was released.
    #[inline(always)]
    pub fn released(&self) -> u64 {
        self.half.released
    }

    /// Where the next bytes from the connection go: the free tail of the ring, never empty. It
    /// begins behind the front of a frame, if part of one has come.
    #[inline(always)]
    pub fn free(&self) -> Range<u64> {
        let half = &self.half;
        half.received + half.partial..half.released + half.capacity
    }

    /// Where the front of a frame lies that came in part: from [`Self::received`] on, so many bytes.
    #[inline(always)]
    pub fn partial(&self) -> u64 {
        self.half.partial
    }

    /// The sender has said where its stream ends, and all of it was received. When it was read as
    /// well, nothing will follow.
    #[inline(always)]
    pub fn is_complete(&self) -> bool {
        self.half.fin.is_some()
    }

    /// The application is done with everything below `position`, a frame boundary. Reads no clock:
    /// the acknowledgement leaves with one of the next calls of [`Session::poll_transmit`].
    ///
    /// # Panics
    /// If `position` goes back or was not received yet.
    #[inline(always)]
    pub fn handle_released(&mut self, position: u64) {
        let half = &mut self.half;
        assert!(half.released <= position && position <= half.received, "released out of order");
        if half.closed_at.is_none() {
            half.released = position;
        }
    }

    /// Whether the sender may soon stand still for want of an acknowledgement, as nobody calls
    /// [`Session::poll_transmit`]. Most calls for messages do, when there are none left; who waits for that
    /// keeps the answer to a message from waiting for its acknowledgement. Round trips of 64 KiB over rings
    /// of 256 KiB were 1.1 times as long.
    #[inline(always)]
    pub fn is_late_to_acknowledge(&self) -> bool {
        self.half.released - self.half.told > self.half.window / 8 * 3
    }

    /// Acknowledges what was released with the next [`Session::poll_transmit`], however little.
    /// For a caller that is about to sleep.
    pub fn acknowledge_now(&mut self) {
        self.half.ack_now = self.half.released > self.half.told;
    }

    /// Takes in bytes that came over the connection. `tail` is the ring from [`Self::received`] on,
    /// with the front of a frame that was there before and the new bytes behind it. Whole frames
    /// are checked and counted in; control frames are obeyed and taken out, and what is behind them
    /// moves down. Bytes that come after a violation or the end are dropped.
    pub fn handle_received(&mut self, tail: &mut [u8], now_ns: u64) {
        self.heard(now_ns);
        let mut read = 0;
        // Data from `run` to `read` is whole, and belongs at `write`.
        let (mut run, mut write) = (0, 0);
        while self.hears() {
            read = self.take_messages(tail, read);
            let Some(header) = tail[read..].first_chunk::<HEADER_LEN>() else { break };
            let header = Header::from_bytes(*header);
            let half = &mut self.half;
            let (kind, len) = match header.check(half.body_max) {
                Ok(checked) => checked,
                Err(error) => {
                    self.violation(Violation::Frame(error));
                    break;
                }
            };
            // On 64-bit machines, where rings of 4 GiB are, this loses nothing.
            let end = read + len as usize;
            if kind == Kind::Data
                && let Err(violation) = self.check_data(header.seq, len)
            {
                self.violation(violation);
                break;
            }
            if end > tail.len() {
                break;
            }
            if kind == Kind::Data {
                // Whole and as it must be, a message were taken already: it is a gap.
                if let Err(violation) = self.take_gap(&tail[read + HEADER_LEN..end]) {
                    self.violation(violation);
                    break;
                }
                read = end;
                continue;
            }
            tail.copy_within(run..read, write);
            write += read - run;
            self.handle_control(kind, header.seq, &tail[read..end], &NoHeaders, now_ns);
            (run, read) = (end, end);
        }
        if self.hears() {
            if run != write {
                tail.copy_within(run.., write);
            }
            self.half.partial = (tail.len() - read) as u64;
        } else {
            tail.copy_within(run..read, write);
            self.half.partial = 0;
        }
    }

    /// Counts in messages as long as they are whole and as they must be, from `read` on. Returns where
    /// the first begins that is not, or is none, or a gap.
    #[inline(always)]
    fn take_messages(&mut self, tail: &[u8], mut read: usize) -> usize {
        if !self.is_up() || self.half.fin.is_some() {
            return read;
        }
        let half = &mut self.half;
        let limit = half.released + half.window;
        let mut received = half.received;
        // As long as the last one, the frame ends where it was expected to: the address of the next
        // header does not wait for what this one says. No length fits at first.
        let (mut last, mut len) = (0, u64::MAX);
        while let Some(header) = tail.get(read..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
            let (word, seq) = Header::words(*header);
            if word != last || len == u64::MAX {
                let Some(own) = Header::from_bytes(*header).message_len(half.body_max) else {
                    break;
                };
                (last, len) = (word, own);
            }
            if seq != received || len > (tail.len() - read) as u64 || received + len > limit {
                break;
            }
            read += len as usize;
            received += len;
        }
        if received != half.received {
            half.received = received;
            self.progress();
        }
        read
    }

    /// Counts in a whole gap, whose header was checked, by its body and padding. A message's number counts those
    /// that were left out, so what gaps say in all is bounded as positions are.
    #[cold]
    fn take_gap(&mut self, body: &[u8]) -> Result<(), Violation> {
        let half = &mut self.half;
        let told = body.first_chunk().map_or(0, |missed| u64::from_le_bytes(*missed));
        let missed = half.missed.checked_add(told).filter(|&missed| missed < POSITION_MAX);
        half.missed = missed.ok_or(Violation::Gap { missed: told, before: half.missed })?;
        half.received += frame_len(GAP_BODY);
        self.progress();
        Ok(())
    }

    /// What the header of a data frame of `len` bytes in all must say.
    #[inline(always)]
    fn check_data(&self, seq: u64, len: u64) -> Result<(), Violation> {
        let half = &self.half;
        if !self.is_up() || half.fin.is_some() {
            return Err(Violation::Unexpected(Kind::Data));
        }
        half.expect(Kind::Data, seq)?;
        let (end, limit) = (half.received + len, half.released + half.window);
        if end > limit { Err(Violation::Credit { end, limit }) } else { Ok(()) }
    }
}

impl Receiving {
    #[inline(always)]
    fn expect(&self, kind: Kind, found: u64) -> Result<(), Violation> {
        let expected = self.received;
        if found == expected { Ok(()) } else { Err(Violation::Position { kind, expected, found }) }
    }

    /// The next frame tells the sender so much.
    fn tell(&mut self) -> u64 {
        self.told = self.released;
        self.ack_at_ns = None;
        self.ack_now = false;
        self.released
    }

    fn ack_is_due(&mut self, now_ns: u64) -> bool {
        let untold = self.released - self.told;
        if untold == 0 {
            return false;
        }
        // An eighth: late enough to cost nothing while streaming, soon enough that the sender
        // does not stand still, and has its ring for empty when it is.
        if self.ack_now || untold >= (self.window / 8).min(ACK_MOST) {
            return true;
        }
        let at_ns = *self.ack_at_ns.get_or_insert(now_ns.saturating_add(self.ack_delay_ns));
        now_ns >= at_ns
    }
}

/// The receiving half needs no headers of a send ring.
struct NoHeaders;

impl Headers for NoHeaders {
    fn header(&self, _position: u64) -> [u8; HEADER_LEN] {
        [0; HEADER_LEN]
    }
}

impl Half for Receiving {
    const DIRECTION: Direction = Direction::Receives;

    fn new(capacity: u64, ack_delay_ns: u64) -> Self {
        Self {
            capacity,
            window: capacity - CONTROL_ROOM,
            body_max: 0,
            released: 0,
            told: 0,
            received: 0,
            partial: 0,
            missed: 0,
            ack_delay_ns,
            ack_at_ns: None,
            ack_now: false,
            fin: None,
            answer_fin: false,
            answered: false,
            fin_sent: false,
            closed_at: None,
        }
    }

    fn offer(&mut self) -> Offer {
        // So much and no more: what is released until the answer comes is to be told then.
        let (position, released, window) = (self.received, self.tell(), self.window);
        Offer { position, released, window, body_max: 0 }
    }

    fn check_peer(&self, peer: &Greeting, _ring: &impl Headers) -> Result<(), Mismatch> {
        let frame = frame_len(peer.body_max);
        if frame > self.window {
            return Err(Mismatch { code: RefuseCode::Window, here: self.window, there: frame });
        }
        // It cannot know of more than was released, and keeps everything from there.
        if peer.position > self.released {
            let (here, there) = (self.released, peer.position);
            return Err(Mismatch { code: RefuseCode::Position, here, there });
        }
        Ok(())
    }

    fn connected(&mut self, peer: &Greeting, _early: bool) -> Resumed {
        self.body_max = peer.body_max;
        Resumed { again: 0, progress: false }
    }

    fn disconnected(&mut self) {
        self.answer_fin = false;
        self.fin_sent = false;
        self.partial = 0;
    }

    fn handle_control(
        &mut self,
        kind: Kind,
        seq: u64,
        _ring: &impl Headers,
    ) -> Result<Heard, Violation> {
        match kind {
            Kind::Heartbeat => {
                self.expect(kind, seq)?;
                Ok(Heard::Nothing)
            }
            Kind::Fin => {
                self.expect(kind, seq)?;
                self.fin = Some(seq);
                self.answer_fin = true;
                Ok(Heard::Progress)
            }
            Kind::FinAck if self.fin_sent => {
                if self.closed_at != Some(seq) {
                    let expected = self.released;
                    return Err(Violation::Position { kind, expected, found: seq });
                }
                Ok(Heard::Finished)
            }
            Kind::Bye if self.answered => Ok(Heard::Bye),
            kind => Err(Violation::Unexpected(kind)),
        }
    }

    fn next_control(&mut self, closing: bool, now_ns: u64) -> Option<(Kind, u64)> {
        if self.answer_fin && self.fin == Some(self.released) {
            self.answer_fin = false;
            self.answered = true;
            return Some((Kind::FinAck, self.tell()));
        }
        // Where the sender has said the same first, the answer tells it. A fin that was said once is said again on
        // every connection: a sender that heard it says no fin of its own any more, for which to wait.
        let is_untold = self.closed_at.is_some() || self.fin != Some(self.released);
        if closing && !self.fin_sent && is_untold {
            self.fin_sent = true;
            self.closed_at = Some(self.released);
            return Some((Kind::Fin, self.tell()));
        }
        if self.ack_is_due(now_ns) { Some((Kind::Ack, self.tell())) } else { None }
    }

    fn heartbeat(&mut self) -> Option<(Kind, u64)> {
        Some((Kind::Ack, self.tell()))
    }

    fn clear(&mut self, _ring: &impl Headers) {}

    fn data(&self) -> Range<u64> {
        0..0
    }

    fn sent(&mut self, _bytes: u64) {}

    fn deadline_ns(&self) -> Option<u64> {
        self.ack_at_ns
    }

    fn peer_closed(&self) -> bool {
        self.fin.is_some()
    }

    fn nothing_to_lose(&self, closing: bool) -> bool {
        closing || self.fin == Some(self.released)
    }
}
