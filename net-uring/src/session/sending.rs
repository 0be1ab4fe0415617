//! The sending half: what is kept, what may go, what was acknowledged.

use std::ops::Range;

use super::greeting::{Direction, Greeting, RefuseCode};
use super::machine::{Half, Heard, Mismatch, Offer, Resumed, Session};
use super::{Headers, Violation};
use crate::frame::{CONTROL_MAX, GAP, HEADER_LEN, Header, Kind, body_max, frame_len};

/// The sending half of a session. The order of its positions is drawn in the module's front page.
#[derive(Debug)]
pub struct Sending {
    capacity: u64,
    body_max: u32,
    /// Everything below was released by the receiving application. A frame boundary.
    acknowledged: u64,
    /// Everything below was taken by the connection. May be inside a frame.
    sent: u64,
    /// Data may go up to here. A frame boundary.
    cleared: u64,
    /// End of the last frame committed.
    tail: u64,
    /// The receiver has room up to here.
    credit: u64,
    /// The farthest that `sent` ever was: what is sent below again is a repetition.
    sent_max: u64,
    /// What the peer had received when this connection began.
    resumed_at: u64,
    fin_sent: bool,
    /// The receiver will release nothing beyond.
    peer_fin: Option<u64>,
    /// Not yet answered on this connection.
    answer_fin: bool,
    /// It was answered, on any connection.
    answered: bool,
    /// Bytes of a control frame that came in pieces.
    inbox: [u8; CONTROL_MAX],
    inbox_len: usize,
}

/// Messages that were committed and not acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unacknowledged {
    /// How many.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Why a frame has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Not before more is acknowledged.
    Full,
    /// Never.
    TooLarge {
        /// The longest body.
        max: u32,
    },
}

impl Session<Sending> {
    /// Where the next frame begins.
    #[inline(always)]
    pub fn tail(&self) -> u64 {
        self.half.tail
    }

    /// Everything below was released by the receiving application, and may be overwritten.
    #[inline(always)]
    pub fn acknowledged(&self) -> u64 {
        self.half.acknowledged
    }

    /// Bytes below `end` that no connection has taken: they leave with later calls.
    #[inline(always)]
    pub fn unsent_below(&self, end: u64) -> u64 {
        end.saturating_sub(self.half.sent)
    }

    /// The longest body of a message: half a ring, less a header.
    #[inline(always)]
    pub fn body_max(&self) -> u32 {
        self.half.body_max
    }

    /// Bytes behind the tail that may be written, header included.
    #[inline(always)]
    pub fn room(&self) -> u64 {
        self.half.acknowledged + self.half.capacity - self.half.tail
    }

    /// The receiver has closed and was answered: it has nothing more to say, nor to hear.
    pub fn has_answered(&self) -> bool {
        self.half.answered
    }

    /// Bytes of frames that the receiver has room for, beyond those that are committed.
    pub fn credit(&self) -> u64 {
        self.half.credit.saturating_sub(self.half.tail)
    }

    /// Whether a body of `len` bytes may be written behind the header at [`Self::tail`] now.
    ///
    /// # Errors
    /// [`NoRoom`].
    #[inline(always)]
    pub fn check_room(&self, len: usize) -> Result<(), NoRoom> {
        if len > self.half.body_max as usize {
            return Err(NoRoom::TooLarge { max: self.half.body_max });
        }
        if frame_len(len as u32) > self.room() { Err(NoRoom::Full) } else { Ok(()) }
    }

    /// Ends the frame at [`Self::tail`], whose body of `len` bytes is written. The header that is
    /// returned belongs at the old tail, before the next [`Self::poll_transmit`]; zeros belong
    /// behind the body up to the new tail.
    ///
    /// # Panics
    /// If [`Self::check_room`] would have refused: the caller has overwritten what it must keep.
    #[inline(always)]
    #[must_use = "the header is to be written into the ring"]
    pub fn commit(&mut self, len: usize) -> [u8; HEADER_LEN] {
        assert!(self.check_room(len).is_ok(), "a frame without room");
        let header = Header::data(len as u32, self.half.tail);
        self.half.tail += frame_len(len as u32);
        header.to_bytes()
    }

    /// Takes over frames that somebody else wrote behind the tail, as [`Self::commit`] would have: whole
    /// frames up to `tail`, each with its header, position and padding.
    ///
    /// # Panics
    /// If there was no room for them, or `tail` goes back.
    #[inline(always)]
    pub fn handle_committed(&mut self, tail: u64) {
        let half = &mut self.half;
        let room = half.acknowledged + half.capacity;
        assert!(half.tail <= tail && tail <= room, "frames without room");
        half.tail = tail;
    }

    /// Takes in bytes that came over the connection: control frames, as the receiver sends nothing
    /// else. `ring` is the send ring. Bytes that come after a violation or the end are ignored.
    pub fn handle_received(&mut self, mut bytes: &[u8], ring: &impl Headers, now_ns: u64) {
        self.heard(now_ns);
        while !bytes.is_empty() && self.hears() {
            let half = &mut self.half;
            let wanted = match half.inbox[..half.inbox_len].first_chunk::<HEADER_LEN>() {
                // A header that was found good when it came in.
                Some(header) => frame_len(Header::from_bytes(*header).len) as usize,
                None => HEADER_LEN,
            };
            let (front, rest) = bytes.split_at(bytes.len().min(wanted - half.inbox_len));
            half.inbox[half.inbox_len..][..front.len()].copy_from_slice(front);
            half.inbox_len += front.len();
            bytes = rest;
            let Some(header) = half.inbox[..half.inbox_len].first_chunk::<HEADER_LEN>() else {
                return;
            };
            let header = Header::from_bytes(*header);
            // No data: of data, the longest body allowed is none at all, and it is refused below.
            match header.check(0) {
                Err(error) => return self.violation(Violation::Frame(error)),
                Ok((Kind::Data, _)) => return self.violation(Violation::Unexpected(Kind::Data)),
                Ok((kind, len)) if half.inbox_len as u64 == len => {
                    let frame = half.inbox;
                    half.inbox_len = 0;
                    self.handle_control(kind, header.seq, &frame[..len as usize], ring, now_ns);
                }
                Ok(_) => {}
            }
        }
    }

    /// What was committed and never acknowledged. Walks through the ring, so for the end.
    pub fn unacknowledged(&self, ring: &impl Headers) -> Unacknowledged {
        self.unacknowledged_below(self.half.tail, ring)
    }

    /// As [`Self::unacknowledged`], with frames that lie behind the tail already, up to `end`.
    pub fn unacknowledged_below(&self, end: u64, ring: &impl Headers) -> Unacknowledged {
        let mut sum = Unacknowledged::default();
        let mut at = self.half.acknowledged;
        while at < end {
            let Header { len, flags, .. } = Header::from_bytes(ring.header(at));
            at += frame_len(len);
            if flags != GAP {
                sum.messages += 1;
                sum.bytes += u64::from(len);
            }
        }
        sum
    }
}

impl Sending {
    /// Whether a frame begins at `position`, or the next one will, of positions from what was acknowledged to
    /// what was cleared. It is found from frame to frame: 16 bytes that look like a header may be a part of a
    /// message. An acknowledgement passes each frame once, and none where it is of everything; a greeting passes what
    /// is not acknowledged.
    fn is_boundary(&self, position: u64, ring: &impl Headers) -> bool {
        if position == self.cleared {
            return true;
        }
        let mut at = self.acknowledged;
        while at < position {
            at += frame_len(Header::from_bytes(ring.header(at)).len);
        }
        at == position
    }

    fn acknowledge(&mut self, to: u64, ring: &impl Headers) -> Result<bool, Violation> {
        let (low, high) = (self.acknowledged, self.cleared);
        if to < low || to > high || !self.is_boundary(to, ring) {
            return Err(Violation::Ack { low, high, found: to });
        }
        // The window stays as wide: what was released is granted again.
        self.credit += to - low;
        self.acknowledged = to;
        Ok(to > low)
    }
}

impl Half for Sending {
    const DIRECTION: Direction = Direction::Sends;

    fn new(capacity: u64, _ack_delay_ns: u64) -> Self {
        let body_max = body_max(capacity / 2);
        Self {
            capacity,
            body_max,
            acknowledged: 0,
            sent: 0,
            cleared: 0,
            tail: 0,
            // What every receiver has that does not refuse: see `is_early`.
            credit: frame_len(body_max),
            sent_max: 0,
            resumed_at: 0,
            fin_sent: false,
            peer_fin: None,
            answer_fin: false,
            answered: false,
            inbox: [0; CONTROL_MAX],
            inbox_len: 0,
        }
    }

    fn offer(&mut self) -> Offer {
        Offer { position: self.acknowledged, released: 0, window: 0, body_max: self.body_max }
    }

    fn check_peer(&self, peer: &Greeting, ring: &impl Headers) -> Result<(), Mismatch> {
        let (position, released, window) = (peer.position, peer.released, peer.window);
        let frame = frame_len(self.body_max);
        if window < frame {
            return Err(Mismatch { code: RefuseCode::Window, here: frame, there: window });
        }
        // What the peer has of this is at most what was cleared to go.
        let known = self.acknowledged <= released && position <= self.cleared;
        let fits = released <= position && position - released <= window;
        let whole = |at| self.is_boundary(at, ring);
        if !known || !fits || !whole(released) || !whole(position) {
            let (here, there) = (self.cleared, position);
            return Err(Mismatch { code: RefuseCode::Position, here, there });
        }
        Ok(())
    }

    fn connected(&mut self, peer: &Greeting, early: bool) -> Resumed {
        let progress = peer.position > self.resumed_at;
        self.resumed_at = peer.position;
        self.acknowledged = peer.released;
        if !early {
            self.sent = peer.position;
            self.cleared = peer.position;
        }
        self.credit = peer.released + peer.window;
        Resumed { again: self.sent_max.saturating_sub(peer.position), progress }
    }

    fn disconnected(&mut self) {
        self.sent_max = self.sent_max.max(self.sent);
        self.fin_sent = false;
        self.answer_fin = false;
        self.inbox_len = 0;
    }

    fn handle_control(
        &mut self,
        kind: Kind,
        seq: u64,
        ring: &impl Headers,
    ) -> Result<Heard, Violation> {
        match kind {
            Kind::Ack => {
                let news = self.acknowledge(seq, ring)?;
                Ok(if news { Heard::Progress } else { Heard::Nothing })
            }
            Kind::Fin => {
                self.acknowledge(seq, ring)?;
                self.peer_fin = Some(seq);
                self.answer_fin = true;
                Ok(Heard::Progress)
            }
            // It says that all of this was released, and nothing less.
            Kind::FinAck if self.fin_sent => {
                if seq != self.tail {
                    let (kind, expected) = (kind, self.tail);
                    return Err(Violation::Position { kind, expected, found: seq });
                }
                self.acknowledge(seq, ring)?;
                Ok(Heard::Finished)
            }
            Kind::Bye if self.peer_fin.is_some() => Ok(Heard::Bye),
            kind => Err(Violation::Unexpected(kind)),
        }
    }

    fn next_control(&mut self, closing: bool, _now_ns: u64) -> Option<(Kind, u64)> {
        if self.sent != self.cleared {
            return None;
        }
        if let Some(seq) = self.peer_fin {
            self.answered |= self.answer_fin;
            return std::mem::take(&mut self.answer_fin).then_some((Kind::FinAck, seq));
        }
        if closing && !self.fin_sent && self.sent == self.tail {
            self.fin_sent = true;
            return Some((Kind::Fin, self.tail));
        }
        None
    }

    fn heartbeat(&mut self) -> Option<(Kind, u64)> {
        (self.sent == self.cleared).then_some((Kind::Heartbeat, self.sent))
    }

    fn clear(&mut self, ring: &impl Headers) {
        // What a peer will not release need not be sent; a range that is on its way is finished.
        if self.peer_fin.is_some() {
            return;
        }
        if self.tail <= self.credit {
            self.cleared = self.tail;
            return;
        }
        // Behind a slow receiver only. Each frame is looked at once.
        while self.cleared < self.tail {
            let len = Header::from_bytes(ring.header(self.cleared)).len;
            let end = self.cleared + frame_len(len);
            if end > self.credit {
                return;
            }
            self.cleared = end;
        }
    }

    fn data(&self) -> Range<u64> {
        self.sent..self.cleared
    }

    fn sent(&mut self, bytes: u64) {
        self.sent = (self.sent + bytes).min(self.cleared);
    }

    fn deadline_ns(&self) -> Option<u64> {
        None
    }

    fn peer_closed(&self) -> bool {
        self.peer_fin.is_some()
    }

    fn nothing_to_lose(&self, closing: bool) -> bool {
        self.peer_fin.is_some() || (closing && self.acknowledged == self.tail)
    }
}
