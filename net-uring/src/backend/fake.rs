//! A backend without a kernel, for tests: two ends of a byte stream in memory, whose every turn goes
//! as a script or a seed says. Completions are short, late, refused, cancelled, or in the other
//! order; the stream breaks where it is told to.
//!
//! It is also the watchman of the seam. Bytes that are being sent must not change until they
//! complete, room that is being received into is scribbled on, and what was recalled is left alone:
//! whoever breaks the rules of [`Backend::submit`] fails here and not in the field.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use super::{Backend, Completion, Errno, Kind, Leak, Watch};
use crate::fork::OwnSocket;
use crate::mirror::Span;

/// How one turn goes for one submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// As many bytes as the stream takes or has.
    All,
    /// At most so many; at least 1.
    Short(usize),
    /// Nothing happens this turn.
    Late,
    /// It completes with that error, `EAGAIN` or `EINTR`, say, and no byte moves.
    Fail(i32),
    /// The stream breaks: `ECONNRESET` here, and there once its turn comes. Bytes on their way are
    /// lost.
    Reset,
}

/// One end of the stream.
#[derive(Debug)]
pub struct Fake {
    wire: Rc<RefCell<Wire>>,
    side: usize,
    script: [VecDeque<Step>; 2],
    chance: Option<Chance>,
    submitted: [Option<Submitted>; 2],
    done: VecDeque<Completion>,
    newest_first: bool,
    /// Whether a recall comes too late: the submission then completes as cancelled.
    recalls_late: bool,
    turns: u64,
    parks: u64,
}

#[derive(Debug)]
struct Submitted {
    span: Span,
    /// What a send found there.
    bytes: Vec<u8>,
}

/// Bytes on their way to each side, and whether more can come.
#[derive(Debug)]
struct Wire {
    towards: [VecDeque<u8>; 2],
    ended: [bool; 2],
    broken: bool,
    /// Most bytes on their way in one direction.
    room: usize,
}

/// What is received into is filled with this first.
const SCRIBBLE: u8 = 0xee;

/// Two ends of a stream that holds up to `room` bytes each way.
pub fn pair(room: usize) -> (Fake, Fake) {
    let wire = Rc::new(RefCell::new(Wire {
        towards: Default::default(),
        ended: [false; 2],
        broken: false,
        room,
    }));
    (Fake::new(Rc::clone(&wire), 0), Fake::new(wire, 1))
}

impl Fake {
    fn new(wire: Rc<RefCell<Wire>>, side: usize) -> Self {
        Self {
            wire,
            side,
            script: Default::default(),
            chance: None,
            submitted: [None, None],
            done: VecDeque::new(),
            newest_first: false,
            recalls_late: false,
            turns: 0,
            parks: 0,
        }
    }

    /// How the next turns of that kind go. When the script is used up, chance decides, and without
    /// chance everything works.
    pub fn script(&mut self, kind: Kind, steps: impl IntoIterator<Item = Step>) {
        self.script[kind as usize].extend(steps);
    }

    /// What is left of the script for that kind is forgotten.
    pub fn unscript(&mut self, kind: Kind) {
        self.script[kind as usize].clear();
    }

    /// From now on the seed decides what no script says. It never resets the stream.
    pub fn chance(&mut self, seed: u64) {
        self.chance = Some(Chance(seed));
    }

    /// Whether completions come in the other order than they happened.
    pub fn newest_first(&mut self, on: bool) {
        self.newest_first = on;
    }

    /// Whether every recall comes too late.
    pub fn recalls_late(&mut self, on: bool) {
        self.recalls_late = on;
    }

    /// The stream breaks. `on_their_way`: how many of the bytes that were sent still arrive before
    /// the peer is told.
    pub fn cut(&mut self, on_their_way: usize) {
        let mut wire = self.wire.borrow_mut();
        wire.broken = true;
        wire.towards[self.side].clear();
        wire.towards[1 - self.side].truncate(on_their_way);
    }

    /// Bytes on their way to the peer.
    pub fn in_flight(&self) -> usize {
        self.wire.borrow().towards[1 - self.side].len()
    }

    /// Nothing more will be sent; the peer reads the rest, and then the end.
    pub fn end(&mut self) {
        self.wire.borrow_mut().ended[1 - self.side] = true;
    }

    /// Turns so far.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Times it was parked on.
    pub fn parks(&self) -> u64 {
        self.parks
    }

    fn step(&mut self, kind: Kind) -> Step {
        match self.script[kind as usize].pop_front() {
            Some(step) => step,
            None => self.chance.as_mut().map_or(Step::All, Chance::step),
        }
    }

    fn turn_of(&mut self, kind: Kind) {
        if self.submitted[kind as usize].is_none() {
            return;
        }
        let step = self.step(kind);
        let Some(submitted) = self.submitted[kind as usize].take() else { return };
        if kind == Kind::Send {
            submitted.assert_unchanged();
        }
        let most = match step {
            Step::All => usize::MAX,
            Step::Short(bytes) => bytes.max(1),
            Step::Late => {
                self.submitted[kind as usize] = Some(submitted);
                return;
            }
            Step::Fail(errno) => {
                self.done.push_back(Completion { kind, result: Err(Errno(errno)) });
                return;
            }
            Step::Reset => {
                self.cut(0);
                usize::MAX
            }
        };
        let result = match kind {
            Kind::Send => self.send(&submitted.bytes, most),
            Kind::Recv => self.recv(submitted.span, most),
        };
        match result {
            Some(result) => self.done.push_back(Completion { kind, result }),
            None => self.submitted[kind as usize] = Some(submitted),
        }
    }

    fn send(&mut self, bytes: &[u8], most: usize) -> Option<Result<usize, Errno>> {
        let wire = &mut *self.wire.borrow_mut();
        if wire.broken {
            return Some(Err(Errno(libc::ECONNRESET)));
        }
        let there = &mut wire.towards[1 - self.side];
        let count = bytes.len().min(most).min(wire.room.saturating_sub(there.len()));
        if count == 0 {
            return None;
        }
        there.extend(&bytes[..count]);
        Some(Ok(count))
    }

    fn recv(&mut self, span: Span, most: usize) -> Option<Result<usize, Errno>> {
        let wire = &mut *self.wire.borrow_mut();
        let here = &mut wire.towards[self.side];
        let count = here.len().min(most).min(span.len);
        if count == 0 {
            if wire.broken {
                return Some(Err(Errno(libc::ECONNRESET)));
            }
            return wire.ended[self.side].then_some(Ok(0));
        }
        for (offset, byte) in here.drain(..count).enumerate() {
            // SAFETY: below the span's length, and submitted to be received into.
            unsafe { span.start.add(offset).write(byte) };
        }
        Some(Ok(count))
    }
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    /// Its stream is made by [`pair`]; a socket is only closed.
    fn attach(&mut self, socket: OwnSocket) {
        drop(socket);
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn detach(&mut self) -> Result<Option<OwnSocket>, Leak> {
        self.submitted = [None, None];
        self.done.clear();
        Ok(None)
    }

    unsafe fn submit(&mut self, kind: Kind, span: Span) {
        assert!(!self.is_outstanding(kind), "two submissions of {kind:?} at once");
        assert!(span.len > 0, "an empty submission of {kind:?}");
        let submitted = match kind {
            Kind::Send => Submitted::sending(span),
            Kind::Recv => {
                // SAFETY: submitted to be received into.
                unsafe { span.start.write_bytes(SCRIBBLE, span.len) };
                Submitted { span, bytes: Vec::new() }
            }
        };
        self.submitted[kind as usize] = Some(submitted);
    }

    fn is_outstanding(&self, kind: Kind) -> bool {
        self.submitted[kind as usize].is_some() || self.done.iter().any(|done| done.kind == kind)
    }

    fn recall(&mut self, kind: Kind) -> bool {
        if let Some(submitted) = self.submitted[kind as usize].take() {
            if kind == Kind::Send {
                submitted.assert_unchanged();
            }
            if self.recalls_late {
                self.done.push_back(Completion { kind, result: Err(Errno(libc::ECANCELED)) });
            }
        }
        !self.is_outstanding(kind)
    }

    fn turn(&mut self) {
        self.turns += 1;
        self.turn_of(Kind::Send);
        self.turn_of(Kind::Recv);
    }

    fn complete(&mut self) -> Option<Completion> {
        if self.newest_first { self.done.pop_back() } else { self.done.pop_front() }
    }

    /// Time is the caller's argument everywhere above, so none passes here.
    fn park(&mut self, _timeout: Duration) {
        self.parks += 1;
    }

    fn watch(&mut self, _fd: BorrowedFd<'_>, _what: Watch) {}
}

impl Submitted {
    fn sending(span: Span) -> Self {
        // SAFETY: submitted to be sent from, so it is mapped and nobody writes there.
        let bytes = unsafe { std::slice::from_raw_parts(span.start, span.len) }.to_vec();
        Self { span, bytes }
    }

    fn assert_unchanged(&self) {
        let now = Self::sending(self.span);
        assert!(now.bytes == self.bytes, "bytes were changed while they were being sent");
    }
}

/// splitmix64.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn step(&mut self) -> Step {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        match z % 8 {
            0 => Step::Late,
            1 => Step::Fail(libc::EAGAIN),
            2 => Step::Fail(libc::EINTR),
            3 => Step::Short(1),
            4 | 5 => Step::Short((z >> 8) as usize % 5000),
            _ => Step::All,
        }
    }
}
