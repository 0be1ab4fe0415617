//! Broadcast that overwrites: a writer that never waits, and readers that find out when it has lapped
//! them. A seqlock over the records of `spsc`.
//!
//! The writer announces how far it may write before it does ([`Leash`]), a piece of the ring at a
//! time, so that a message costs it nothing more than in any other ring. A reader copies a message
//! out, word by word, and then looks whether what it copied may have been overwritten:
//!
//! ```text
//!   writer                            reader
//!     intent = limit                    copy the record's words        (Relaxed)
//!     fence(Release)        (O1)        fence(Acquire)                 (O2)
//!     words of the record (Relaxed)     intent <= start + capacity?    else it was lapped
//!     header (R1)
//! ```
//!
//! O1 pairs with O2: a reader that saw a word of a later lap sees the intent to write it. A lapped
//! reader goes on at a mark (see `broadcast`), and from the mark's number knows how many it missed.
//!
//! Positions, headers and terminators are the business of `spsc::Writer`, which runs on a memory that
//! answers "how far was it given back?" with what the leash gives.

use crate::broadcast::{self, Posted, publish_mark};
use crate::error::Fault;
use crate::layout::{
    ARRAY_OFFSET, ARRAY_SHAPE, ArrayShape, Board, MARKS, RECORD_ARRAY, RECORD_HEADER,
    RECORD_MESSAGE, RECORD_PADDING, RUN_MAX, RecordHeader, SEQUENCE_MASK,
};
use crate::memory::{Boundary, RingMemory};
use crate::spsc::sizes::Sizes;
use crate::spsc::{Geometry, max_record};
use crate::sync::{Word, fence_acquire, fence_release};

/// Into how many pieces the ring is cut: after so many announcements the writer is once round. Few
/// enough that one is seldom, many enough that little of the ring is announced and not written.
const PIECES: u64 = 64;

/// A message, in the ring or copied out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its bytes.
    pub payload: *const u8,
    /// How many.
    pub len: usize,
    /// Its number, from 0, in this segment.
    pub sequence: u64,
}

/// How far the writer has announced. Answers [`RingMemory::released`] for it: everything below was
/// given back, for nobody is asked.
#[derive(Debug)]
pub struct Leash {
    piece: u64,
    /// Words because the memory is shared with those who look at counters; the writer alone uses them.
    gate: Word,
    marked: Word,
}

impl Leash {
    /// For a writer of a fresh segment.
    pub fn new(capacity: u64) -> Self {
        Self { piece: (capacity / PIECES).max(64), gate: Word::new(0), marked: Word::new(0) }
    }

    /// Announces another piece. A claim larger than that takes several calls.
    pub fn lengthen(&self, board: &Board, capacity: u64, published: Boundary) -> u64 {
        let gate = published.position.min(self.gate.load_relaxed() + self.piece);
        let marked = self.marked.load_relaxed();
        // The newest mark must never be overwritten.
        if published.position >= marked + self.piece || gate > marked {
            self.marked.store_relaxed(published.position);
            publish_mark(board, published);
        }
        self.gate.store_relaxed(gate);
        // O3, pairs with the load in Follower::is_intact: whoever sees that it was lapped sees a mark
        // that was not.
        board.intent.limit.store_release(gate + capacity);
        // O1, pairs with O2 in Follower::is_intact.
        fence_release();
        crate::fault::point(crate::fault::Point::Announced);
        gate
    }

    /// Whether another call would give more.
    pub fn is_longer(&self, published: Boundary) -> bool {
        self.gate.load_relaxed() < published.position
    }
}

/// Copies a message into the ring, whose readers may look at any of it at any time. `at` is a
/// multiple of 8; the record is rounded up to whole words.
#[inline]
pub fn write_words<M: RingMemory>(memory: &M, at: u64, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut offset = at;
    for word in words {
        memory.word(offset).store_relaxed(u64::from_ne_bytes(*word));
        offset += 8;
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        memory.word(offset).store_relaxed(u64::from_ne_bytes(last));
    }
}

/// Why a reader has no message to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What it found makes no sense.
    Fault(Fault),
    /// The writer has overwritten what came next: so many messages. The reader goes on behind them.
    Lagged(u64),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// One reader of an overwriting ring. Its messages are copies.
#[derive(Debug)]
pub struct Follower<M> {
    memory: M,
    mask: u64,
    sizes: Sizes,
    /// Only the last message of all that are there is wanted.
    wants_newest: bool,
    /// The record to look at next.
    cursor: u64,
    /// Number of the next message.
    next: u64,
    received: u64,
    /// The rest of the record at `cursor`; `left` 0: its header is still to be looked at.
    current: Current,
    /// The message at the front was copied.
    is_copied: bool,
    copy: Vec<Chunk>,
}

/// What messages are aligned to.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct Chunk([u64; 2]);

#[derive(Clone, Copy, Debug, Default)]
struct Current {
    left: u32,
    len: u32,
    offset: u64,
    /// Position behind the record.
    end: u64,
}

impl<M: Posted> Follower<M> {
    /// A reader that starts at `start`.
    pub fn new(memory: M, geometry: Geometry, start: Boundary) -> Self {
        let capacity = memory.capacity();
        Self {
            mask: capacity - 1,
            sizes: Sizes::of(geometry),
            wants_newest: false,
            cursor: start.position,
            next: start.sequence,
            received: start.sequence,
            current: Current::default(),
            is_copied: false,
            copy: Vec::new(),
            memory,
        }
    }

    /// From now on shows only the last message that is there, and tells of no gaps.
    pub fn want_newest(&mut self) {
        self.wants_newest = true;
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Messages given back or missed.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether messages were stepped over and not given back.
    pub fn holds_any(&self) -> bool {
        self.next != self.received
    }

    /// A copy of the next message, if there is one. Looking twice without [`Self::advance`] shows the
    /// same, or, to who wants the newest, one that has come since. Allocates only when a message is longer than any
    /// before.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Message>, Trouble> {
        self.is_copied &= !self.wants_newest;
        while !self.is_copied {
            if self.wants_newest {
                self.skip()?;
            }
            if self.current.left == 0 && !self.enter()? {
                return Ok(None);
            }
            self.copy_out();
            self.is_copied = self.is_intact(self.cursor);
            if !self.is_copied {
                self.lapped()?;
            }
        }
        let payload = self.copy.as_ptr().cast();
        Ok(Some(Message { payload, len: self.current.len as usize, sequence: self.next }))
    }

    /// Steps over the message that `peek` showed, if it showed one.
    #[inline]
    pub fn advance(&mut self) {
        if !self.is_copied {
            return;
        }
        self.is_copied = false;
        self.next += 1;
        self.current.left -= 1;
        self.current.offset += u64::from(self.current.len);
        if self.current.left == 0 {
            self.cursor = self.current.end;
        }
    }

    /// Notes how far it is, for those who look; nobody waits for it.
    #[inline]
    pub fn release(&mut self) {
        let progress = &self.memory.consumer().progress;
        progress.received.store_relaxed(self.next);
        self.received = self.next;
    }

    /// Tells a producer that waits how far it may write, if that is news.
    pub fn publish_head(&mut self) -> bool {
        let head = &self.memory.consumer().gate.head;
        if head.load_relaxed() >= self.cursor {
            return false;
        }
        // R2, pairs with A2 in Gate::look.
        head.store_release(self.cursor);
        true
    }

    /// Moves on to the first message of the latest `history`, as far as it is still there.
    pub fn rewind(&mut self, history: u64) -> Result<(), Fault> {
        let end = self.end()?;
        let wanted = end.sequence.saturating_sub(history);
        // Marks grow older; the first at or before the wanted message will do.
        let mut start = end;
        let (newest, _) = broadcast::newest_mark(self.memory.board())?;
        for number in (newest.saturating_sub(MARKS as u64)..=newest).rev() {
            let Some(mark) = broadcast::mark(self.memory.board(), number)? else { break };
            if !self.is_intact(mark.position) {
                break;
            }
            start = mark;
            if mark.sequence <= wanted {
                break;
            }
        }
        self.go_to(start);
        while self.next < wanted {
            match self.enter() {
                Ok(true) => {}
                Ok(false) => break,
                // Overwritten meanwhile; the rest is told as it is met.
                Err(Trouble::Lagged(_)) => continue,
                Err(Trouble::Fault(fault)) => return Err(fault),
            }
            let skipped = u64::from(self.current.left).min(wanted - self.next) as u32;
            self.next += u64::from(skipped);
            self.current.left -= skipped;
            self.current.offset += u64::from(skipped) * u64::from(self.current.len);
            if self.current.left == 0 {
                self.cursor = self.current.end;
            }
        }
        self.received = self.next;
        self.release();
        // What it has stepped over on its way was never its own.
        self.memory.consumer().progress.missed.store_relaxed(0);
        Ok(())
    }

    /// The end of what there is, from the newest mark on.
    fn end(&mut self) -> Result<Boundary, Fault> {
        let (_, mark) = broadcast::newest_mark(self.memory.board())?;
        self.go_to(mark);
        loop {
            match self.enter() {
                // What was there when this began is less than that; whoever writes faster than it is
                // walked over is not to be followed for ever.
                Ok(true) if self.cursor.saturating_sub(mark.position) > self.mask => {
                    return Ok(Boundary { position: self.cursor, sequence: self.next });
                }
                Ok(true) => {
                    self.next += u64::from(self.current.left);
                    self.cursor = self.current.end;
                    self.current.left = 0;
                }
                Ok(false) => return Ok(Boundary { position: self.cursor, sequence: self.next }),
                Err(Trouble::Lagged(_)) => {}
                Err(Trouble::Fault(fault)) => return Err(fault),
            }
        }
    }

    fn go_to(&mut self, place: Boundary) {
        self.cursor = place.position;
        self.next = place.sequence;
        self.current = Current::default();
        self.is_copied = false;
    }

    /// Whether nothing at or above `position` was overwritten when what was read of it was read.
    #[inline]
    fn is_intact(&self, position: u64) -> bool {
        // O2, pairs with O1 in Leash::lengthen.
        fence_acquire();
        // O3, pairs with the store in Leash::lengthen.
        self.memory.board().intent.limit.load_acquire() <= position + self.mask + 1
    }

    /// Looks at the record at the cursor. False: nothing is there yet.
    fn enter(&mut self) -> Result<bool, Trouble> {
        loop {
            let found = self.look();
            // What was read may be anything, if it was overwritten: ask before it is believed.
            if !self.is_intact(self.cursor) {
                self.lapped()?;
                continue;
            }
            match found? {
                Found::Nothing => return Ok(false),
                Found::Padding(len) => self.cursor += len,
                Found::Record(current) => {
                    self.current = current;
                    return Ok(true);
                }
            }
        }
    }

    /// Reads and checks the header at the cursor, each number once.
    fn look(&self) -> Result<Found, Fault> {
        let offset = self.cursor & self.mask;
        // A1, pairs with R1 in Writer::commit_record and Writer::flush.
        let header = RecordHeader(self.memory.word(offset).load_published());
        if header.0 == 0 {
            return Ok(Found::Nothing);
        }
        let to_end = self.mask + 1 - offset;
        let len = header.body_len();
        let is_array = match header.kind() {
            RECORD_PADDING if len + RECORD_HEADER == to_end => return Ok(Found::Padding(to_end)),
            RECORD_PADDING => return Err(Fault::Padding),
            RECORD_MESSAGE => false,
            RECORD_ARRAY => true,
            _ => return Err(Fault::Kind),
        };
        let (start, size) = if is_array {
            (ARRAY_OFFSET, self.sizes.array(len))
        } else {
            (self.sizes.start(), self.sizes.message(len))
        };
        if size > max_record(self.mask + 1) || size > to_end {
            return Err(Fault::Length);
        }
        if header.sequence() != self.next & SEQUENCE_MASK {
            return Err(Fault::Sequence);
        }
        let (left, len) = if is_array {
            let shape = ArrayShape(self.memory.word(offset + ARRAY_SHAPE).load_relaxed());
            let (element, count) = (shape.each(), shape.count());
            if element == 0 || count == 0 || count > RUN_MAX || element * count != len {
                return Err(Fault::Array);
            }
            (count as u32, element as u32)
        } else {
            (1, len as u32)
        };
        Ok(Found::Record(Current { left, len, offset: offset + start, end: self.cursor + size }))
    }

    /// Copies the message at the front out. Elements of an array may start anywhere.
    #[inline]
    fn copy_out(&mut self) {
        let Current { len, offset, .. } = self.current;
        let len = len as usize;
        let chunks = len.div_ceil(16);
        if self.copy.len() < chunks {
            self.copy.resize(chunks.next_power_of_two(), Chunk([0; 2]));
        }
        let words = self.copy[..chunks].iter_mut().flat_map(|chunk| &mut chunk.0);
        let shift = offset % 8 * 8;
        let mut at = offset - offset % 8;
        if shift == 0 {
            for word in words.take(len.div_ceil(8)) {
                *word = self.memory.word(at).load_relaxed();
                at += 8;
            }
            return;
        }
        let last = (offset + len as u64 - 1) & !7;
        let mut low = self.memory.word(at).load_relaxed();
        for word in words.take(len.div_ceil(8)) {
            at += 8;
            let high = if at <= last { self.memory.word(at).load_relaxed() } else { 0 };
            *word = low.to_le() >> shift | high.to_le() << (64 - shift);
            *word = u64::from_le(*word);
            low = high;
        }
    }

    /// Goes on at a mark. Returns without error if nothing was missed after all.
    #[cold]
    fn lapped(&mut self) -> Result<(), Trouble> {
        let place = self.place_to_go_on()?;
        // A lapped reader is below the newest mark, for that was never overwritten: it always gets
        // on.
        if place.sequence < self.next || place.position <= self.cursor {
            return Err(Fault::Position.into());
        }
        let missed = place.sequence - self.next;
        self.go_to(place);
        if missed == 0 || self.wants_newest {
            return Ok(());
        }
        self.memory.consumer().progress.missed.bump(missed);
        Err(Trouble::Lagged(missed))
    }

    /// The oldest mark that has a quarter of the ring before the writer gets there, so that the reader
    /// is not lapped again at once; the newest, if all are older.
    fn place_to_go_on(&self) -> Result<Boundary, Fault> {
        let (newest, mut place) = broadcast::newest_mark(self.memory.board())?;
        let capacity = self.mask + 1;
        let oldest =
            self.memory.board().intent.limit.load_relaxed().saturating_sub(capacity) + capacity / 4;
        for number in (newest.saturating_sub(MARKS as u64)..newest).rev() {
            match broadcast::mark(self.memory.board(), number)? {
                Some(mark) if mark.position >= oldest && mark.position < place.position => {
                    place = mark;
                }
                _ => break,
            }
        }
        Ok(place)
    }

    /// Steps over all but the last message.
    fn skip(&mut self) -> Result<(), Trouble> {
        let (_, mark) = broadcast::newest_mark(self.memory.board())?;
        if mark.position > self.cursor {
            self.go_to(mark);
        }
        loop {
            // Where the last record found so far is.
            let before = Boundary { position: self.cursor, sequence: self.next };
            let current = self.current;
            if current.left == 0 {
                // Nothing is known yet.
                if !self.enter()? {
                    return Ok(());
                }
                continue;
            }
            self.next += u64::from(current.left);
            self.cursor = current.end;
            self.current.left = 0;
            // The last, or the last that was there when this began: no end of a writer that writes
            // faster than it is walked over.
            let is_followed = self.cursor.saturating_sub(mark.position) <= self.mask;
            if is_followed && self.enter()? {
                continue;
            }
            // It was the last: back to its last message.
            self.cursor = before.position;
            self.next = before.sequence + u64::from(current.left) - 1;
            let skipped = u64::from(current.left) - 1;
            self.current = Current {
                left: 1,
                offset: current.offset + skipped * u64::from(current.len),
                ..current
            };
            return Ok(());
        }
    }
}

enum Found {
    Nothing,
    Padding(u64),
    Record(Current),
}
