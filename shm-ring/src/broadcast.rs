//! Broadcast: the SPSC ring with several readers, each with a page of its own. What one writer has to
//! know of all of them, and how one comes in while messages flow.
//!
//! The ring itself, its records and their publication, is `spsc`, unchanged: a reader is a
//! `spsc::Reader` on its own page, the writer a `spsc::Writer` whose memory answers "how far was the
//! ring given back?" with the least of all readers. So one subscriber costs what a consumer costs:
//! the readers are looked at only when the room known of is used up.
//!
//! Nobody tells the writer of each message where its tail is; readers find messages by their headers.
//! A newcomer starts at a **mark**: the boundary that the writer published at its last look at the
//! readers, before it looked. It walks from there. The gate never passes the newest mark, so from
//! there on nothing is overwritten before the writer looks again, and then it sees the newcomer:
//!
//! ```text
//!   writer                              newcomer
//!     mark = published      (M1)          entry in the roster, cursor = an old mark
//!     fence                 (Scan)        fence                               (Join)
//!     who is in the roster? (A12)         cursor = newest mark                (M1)
//!     gate = least cursor   (A2)          walk to where it wants to start
//! ```
//!
//! Either the writer sees the newcomer, or the newcomer sees that mark. `history` holds the mark, and
//! with it the gate, back by so many messages, as long as there is room for them.
//!
//! No waiting, no system calls, no files here; who is dead is for `participants` to say, and the
//! sender's handle passes it on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Fault, Lag, Peer};
use crate::layout::{
    ARRAY_SHAPE, ATTACHED, ArrayShape, BELL_BARRIER, Board, ConsumerPage, FINISHED, MARKS,
    MAX_PARTICIPANTS, Mark, RECORD_ARRAY, RECORD_HEADER, RECORD_MESSAGE, RECORD_PADDING, RUN_MAX,
    RecordHeader, RoleRecord, Roster, SEQUENCE_MASK, SIDE_RECEIVES,
};
use crate::memory::{Boundary, RingMemory};
use crate::spsc::Geometry;
use crate::spsc::sizes::Sizes;
use crate::sync::{Dekker, compiler_fence, fence_acquire, fence_release, fence_store_load};
use crate::wait;

/// Positions are multiples of it, in some rings of more: who has no geometry can ask for no more.
const POSITION_UNIT: u64 = RECORD_HEADER;

/// No ring lives to see it; with it, no sum of positions can overflow.
const LIMIT: u64 = 1 << 63;

/// A ring whose writer tells its readers more than is in it.
pub trait Posted: RingMemory {
    /// Where it does.
    fn board(&self) -> &Board;
}

/// A ring with several readers, as its writer sees it.
pub trait Hall: Posted {
    /// Who takes part.
    fn roster(&self) -> &Roster;
    /// The page of one of them.
    fn seat(&self, id: usize) -> &ConsumerPage;
}

/// Tells where one may start to read: nothing before the mark is promised any more. For the writer.
pub fn publish_mark(board: &Board, mark: Boundary) {
    let number = board.newest.number.load_relaxed().wrapping_add(1);
    // Who sees a part of what follows sees, after a fence, that all older marks are there.
    fence_release();
    let slot = slot(board, number);
    slot.position.store_relaxed(mark.position);
    crate::fault::point(crate::fault::Point::MidMark);
    slot.sequence.store_relaxed(mark.sequence);
    // M1, pairs with the load in newest_mark.
    board.newest.number.store_release(number);
}

/// The newest mark and its number.
pub fn newest_mark(board: &Board) -> Result<(u64, Boundary), Fault> {
    loop {
        // M1, pairs with the store in publish_mark.
        let number = board.newest.number.load_acquire();
        // Else the writer has gone round all slots meanwhile.
        if let Some(mark) = mark(board, number)? {
            return Ok((number, mark));
        }
    }
}

/// Mark `number`, if it is still there.
pub fn mark(board: &Board, number: u64) -> Result<Option<Boundary>, Fault> {
    if number == 0 {
        return Ok(Some(Boundary::default()));
    }
    let slot = slot(board, number);
    let position = slot.position.load_relaxed();
    let sequence = slot.sequence.load_relaxed();
    fence_acquire();
    let newest = board.newest.number.load_relaxed();
    // The next mark goes into the slot of the one that is `MARKS` older, maybe just now.
    if newest.wrapping_sub(number) >= MARKS as u64 - 1 {
        return if newest < number { Err(Fault::Position) } else { Ok(None) };
    }
    if position & (POSITION_UNIT - 1) != 0 || position >= LIMIT || sequence >= LIMIT {
        return Err(Fault::Position);
    }
    Ok(Some(Boundary { position, sequence }))
}

fn slot(board: &Board, number: u64) -> &Mark {
    &board.marks[number as usize % MARKS]
}

/// First half of coming in, before the entry in the roster is filled in: the page of whoever had it
/// before becomes the newcomer's.
pub fn sweep(page: &ConsumerPage, board: &Board) -> Result<(), Fault> {
    // Down first: while it is, no cursor is wrong, only late. Release, as the cursor's stores below:
    // the writer that sees those sees this.
    page.progress.attached.store_release(0);
    let (_, start) = newest_mark(board)?;
    page.end.poisoned.store_relaxed(0);
    page.end.state.store_relaxed(0);
    page.progress.lent.store_relaxed(0);
    for count in [&page.progress.missed, &page.progress.parks, &page.progress.wakes] {
        count.store_relaxed(0);
    }
    take_place(page, start);
    Ok(())
}

/// Second half, with the entry filled in: from the returned boundary on, nothing is overwritten
/// before this reader gives it back.
pub fn settle(page: &ConsumerPage, board: &Board) -> Result<Boundary, Fault> {
    // Pairs with the fence in Gate::look.
    fence_store_load(Dekker::Join);
    let (_, start) = newest_mark(board)?;
    take_place(page, start);
    Ok(start)
}

fn take_place(page: &ConsumerPage, start: Boundary) {
    page.progress.received.store_release(start.sequence);
    // R2, pairs with A2 in Gate::look.
    page.gate.head.store_release(start.position);
}

/// Who is behind, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Who.
    pub peer: Peer,
    /// How far.
    pub lag: Lag,
}

/// What the writer knows of its readers. Looked at when it is out of room, so a lock costs nothing
/// that anybody would notice; no other thread ever wants it but one that looks at the counters.
#[derive(Debug)]
pub struct Gate {
    geometry: Geometry,
    /// Messages to keep.
    history: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    members: Members,
    /// What was answered last; never goes back.
    gate: u64,
    /// Where those start who join: the mark.
    entry: Boundary,
    /// Whether the last answer was held back by the history, and nobody else.
    is_held_by_history: bool,
    /// Participant whose cursor is the gate.
    slowest: Option<Member>,
    /// Where it was, and since when.
    slow_at: u64,
    slow_since: Option<Instant>,
}

/// Participants that read, as of the last look at the roster.
#[derive(Debug)]
struct Members {
    list: Vec<Member>,
    joins: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    id: usize,
    epoch: u64,
}

impl Members {
    fn new() -> Self {
        Self { list: Vec::with_capacity(MAX_PARTICIPANTS), joins: None }
    }

    /// Looks who is there, if somebody has come. Returns whether somebody has.
    #[inline]
    fn follow(&mut self, roster: &Roster) -> bool {
        let is_news = self.is_news(roster);
        if is_news {
            self.read(roster);
        }
        is_news
    }

    /// Those who left or were given up, whose bells stay as they were.
    fn forget_the_gone(&mut self, hall: &impl Hall) {
        self.list.retain(|&Member { id, epoch }| {
            reads(&hall.roster().records[id]) == Some(epoch)
                && hall.board().expelled[id].load_relaxed() < epoch
        });
    }

    #[inline(always)]
    fn is_news(&self, roster: &Roster) -> bool {
        // A12, pairs with R12 in Participants::join: whose join is counted, their entry is there.
        self.joins != Some(roster.changes.joins.load_acquire())
    }

    #[cold]
    fn read(&mut self, roster: &Roster) {
        // A12, again: before the entries.
        self.joins = Some(roster.changes.joins.load_acquire());
        self.list.clear();
        for (id, record) in roster.records.iter().enumerate() {
            if let Some(epoch) = reads(record) {
                self.list.push(Member { id, epoch });
            }
        }
    }
}

/// Whether the entry is of one who reads and has not left: its epoch.
#[inline]
fn reads(record: &RoleRecord) -> Option<u64> {
    // A4, pairs with R4 in liveness::join; A5, pairs with R5 in liveness::leave.
    let epoch = record.epoch.load_acquire();
    let is_attached = record.state.load_acquire() == ATTACHED;
    (is_attached && epoch > 0 && record.side.load_relaxed() == SIDE_RECEIVES).then_some(epoch)
}

/// Over the record at `from`, and padding before it, in a ring that the caller writes, or where
/// nothing is overwritten meanwhile. `None`: there is no record.
fn step(
    memory: &impl RingMemory,
    geometry: Geometry,
    from: Boundary,
) -> Result<Option<Boundary>, Fault> {
    let capacity = memory.capacity();
    let sizes = Sizes::of(geometry);
    let Boundary { mut position, sequence } = from;
    loop {
        let offset = position & (capacity - 1);
        // A1, pairs with R1 in Writer::commit_record and Writer::flush.
        let header = RecordHeader(memory.word(offset).load_published());
        let to_end = capacity - offset;
        let size = match header.kind() {
            _ if header.0 == 0 && position == from.position => return Ok(None),
            RECORD_PADDING if offset != 0 && position == from.position => {
                position += to_end;
                continue;
            }
            RECORD_MESSAGE => sizes.message(header.body_len()),
            RECORD_ARRAY => sizes.array(header.body_len()),
            _ => return Err(Fault::Kind),
        };
        if size > to_end {
            return Err(Fault::Length);
        }
        let count = if header.kind() == RECORD_MESSAGE {
            1
        } else {
            // Within the ring, as all of the record is.
            ArrayShape(memory.word(offset + ARRAY_SHAPE).load_relaxed()).count()
        };
        if count == 0 || count > RUN_MAX {
            return Err(Fault::Array);
        }
        if header.sequence() != sequence & SEQUENCE_MASK {
            return Err(Fault::Sequence);
        }
        return Ok(Some(Boundary {
            position: position + size,
            sequence: sequence.wrapping_add(count),
        }));
    }
}

/// For one who has settled: goes on to the first message of the latest `history`, or, without one, to
/// the end, and takes its place there. Its cursor holds the gate meanwhile, so this comes to an end,
/// and what it walks over is not overwritten.
pub fn walk(
    memory: &impl RingMemory,
    geometry: Geometry,
    start: Boundary,
    history: u64,
) -> Result<Boundary, Fault> {
    let end = walk_until(memory, geometry, start, u64::MAX)?;
    let wanted = end.sequence.saturating_sub(history).max(start.sequence);
    let place = walk_until(memory, geometry, start, wanted)?;
    // It may be inside an array: the number decides, as after a crash.
    take_place(memory.consumer(), Boundary { sequence: wanted, ..place });
    Ok(place)
}

/// To the last record that begins at or before message `wanted`, or to the end.
fn walk_until(
    memory: &impl RingMemory,
    geometry: Geometry,
    start: Boundary,
    wanted: u64,
) -> Result<Boundary, Fault> {
    let mut place = start;
    while let Some(next) = step(memory, geometry, place)? {
        if next.sequence > wanted {
            break;
        }
        if next.position - start.position > memory.capacity() {
            return Err(Fault::Position);
        }
        place = next;
    }
    Ok(place)
}

impl Gate {
    /// For a writer of a fresh segment.
    pub fn new(geometry: Geometry, history: u64) -> Self {
        let state = State {
            members: Members::new(),
            gate: 0,
            entry: Boundary::default(),
            is_held_by_history: false,
            slowest: None,
            slow_at: 0,
            slow_since: None,
        };
        Self { geometry, history, state: Mutex::new(state) }
    }

    /// The answer to [`RingMemory::released`].
    pub fn look(&self, hall: &impl Hall, published: Boundary) -> Result<u64, Fault> {
        let mut state = self.lock();
        let state = &mut *state;
        let before = state.entry;
        let wanted = published.sequence.saturating_sub(self.history);
        if self.history == 0 {
            state.entry = published;
        }
        while state.entry.position < published.position {
            let next = step(hall, self.geometry, state.entry)?.ok_or(Fault::Kind)?;
            if next.sequence > wanted {
                break;
            }
            state.entry = next;
        }
        self.tell(hall, state, before);
        self.scan(hall, state, published);
        Ok(state.gate)
    }

    /// Gives up a part of the history, if that alone is in the way. To be called when a claim found no
    /// room, and the claim then tried again; false when there is nothing more to give.
    pub fn make_way(&self, hall: &impl Hall, published: Boundary) -> Result<bool, Fault> {
        let mut state = self.lock();
        let state = &mut *state;
        if !state.is_held_by_history {
            return Ok(false);
        }
        let before = state.entry;
        // In eighths, so that a small message does not cost all of it.
        let target = before.position + hall.capacity() / 8;
        while state.entry.position < target.min(published.position) {
            state.entry = step(hall, self.geometry, state.entry)?.ok_or(Fault::Kind)?;
        }
        self.tell(hall, state, before);
        self.scan(hall, state, published);
        Ok(state.entry != before)
    }

    /// Tells where those start who join, if that is another place than before.
    fn tell(&self, hall: &impl Hall, state: &State, before: Boundary) {
        if state.entry != before {
            publish_mark(hall.board(), state.entry);
        }
    }

    fn scan(&self, hall: &impl Hall, state: &mut State, published: Boundary) {
        // Pairs with the fence in settle.
        fence_store_load(Dekker::Scan);
        let roster = hall.roster();
        state.members.follow(roster);
        let (mut least, mut slowest) = (state.entry.position, None);
        let (gate, sizes) = (state.gate, Sizes::of(self.geometry));
        state.members.list.retain_mut(|member| {
            let Some(epoch) = reads(&roster.records[member.id]) else { return false };
            member.epoch = epoch;
            let page = hall.seat(member.id);
            let expelled = &hall.board().expelled[member.id];
            // It will release nothing any more in this segment; a newcomer's sweep undoes it.
            let has_given_up =
                page.end.poisoned.load_relaxed() != 0 || page.end.state.load_acquire() == FINISHED;
            if has_given_up || expelled.load_relaxed() == epoch {
                return true;
            }
            // A2, pairs with R2 in Reader::publish_head and in take_place.
            let head = page.gate.head.load_acquire();
            let went_back = head < gate && page.progress.attached.load_acquire() == 1;
            if went_back || head > published.position || !sizes.is_position(head) {
                // Its cursor alone is wrong: the others go on, and it is told.
                expelled.store_release(epoch);
                return true;
            }
            if head < least {
                (least, slowest) = (head, Some(*member));
            }
            true
        });
        state.is_held_by_history = slowest.is_none() && least < published.position;
        // One who is just coming in may show a mark that is older than the gate. It moves on to the
        // newest, and until then the gate stays.
        state.gate = gate.max(least);
        if state.slowest != slowest || state.slow_at != least {
            state.slow_since = None;
        }
        (state.slowest, state.slow_at) = (slowest, least);
    }

    /// Who is in the way, since when. The time counts from the first call that finds it there.
    pub fn laggard(&self, hall: &impl Hall, published: Boundary) -> Option<Laggard> {
        let mut state = self.lock();
        let member = state.slowest?;
        let since = state.slow_since.get_or_insert_with(Instant::now).elapsed();
        let pid = u32::try_from(hall.roster().records[member.id].pid.load_relaxed()).unwrap_or(0);
        let received = hall.seat(member.id).progress.received.load_relaxed();
        let messages = published.sequence.saturating_sub(received);
        Some(Laggard { peer: Peer { pid }, lag: Lag { messages, since } })
    }

    /// The page whose owner's cursor is the gate: it has to move before there is room.
    pub fn slowest<'a>(&self, hall: &'a impl Hall) -> Option<&'a ConsumerPage> {
        let member = self.lock().slowest?;
        Some(hall.seat(member.id))
    }

    /// Gives up those whom `dead` calls dead, by their epochs. Returns how many.
    pub fn evict(&self, hall: &impl Hall, mut dead: impl FnMut(usize) -> Option<u64>) -> u64 {
        let mut state = self.lock();
        let mut count = 0;
        state.members.list.retain(|member| {
            let expelled = &hall.board().expelled[member.id];
            let Some(epoch) = dead(member.id) else { return true };
            if expelled.load_relaxed() != epoch {
                expelled.store_release(epoch);
                count += 1;
            }
            // A newcomer with that entry is one of those who join.
            false
        });
        hall.board().newest.evicted.bump(count);
        count
    }

    /// Fewest messages that any of the readers has received; `None` without any.
    pub fn received(&self, hall: &impl Hall) -> Option<u64> {
        let mut state = self.lock();
        state.members.follow(hall.roster());
        let reads = |member: &&Member| {
            let expelled = hall.board().expelled[member.id].load_relaxed();
            reads(&hall.roster().records[member.id]).is_some_and(|epoch| epoch != expelled)
        };
        let members = state.members.list.iter().filter(reads);
        members.map(|member| hall.seat(member.id).progress.received.load_acquire()).min()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The doorbell of one who publishes for many: one look at the flag of each, one wake for all.
#[derive(Debug)]
pub struct Crier {
    members: Members,
    /// The sleep of each that was woken last.
    woken: [u32; MAX_PARTICIPANTS],
    /// Whether other processes' barriers reach this one.
    registered: bool,
}

impl Crier {
    /// One that has woken nobody yet. `sleepy`: whether anybody on this channel ever sleeps.
    pub fn new(sleepy: bool) -> Self {
        Self {
            members: Members::new(),
            woken: [0; MAX_PARTICIPANTS],
            registered: wait::register(sleepy),
        }
    }

    /// Wakes all who sleep. To be called after every publication on a channel where somebody may.
    /// Returns whether a wake was given.
    #[inline(always)]
    pub fn ring(&mut self, hall: &impl Hall) -> bool {
        if self.registered && self.is_quiet(hall) {
            return false;
        }
        self.ring_closely(hall)
    }

    /// Whether there certainly is nobody to wake, if barriers reach this process.
    #[inline(always)]
    fn is_quiet(&self, hall: &impl Hall) -> bool {
        // The sleepers' barriers are the fence.
        compiler_fence();
        let is_quiet = |member: &Member| wait::is_quiet(&hall.seat(member.id).bell.state);
        // Who comes after this look is one that Crier::ring_closely would not have seen either.
        !self.members.is_news(hall.roster()) && self.members.list.iter().all(is_quiet)
    }

    #[cold]
    #[inline(never)]
    fn ring_closely(&mut self, hall: &impl Hall) -> bool {
        let runs_barriers =
            |member: &Member| wait::state_of(&hall.seat(member.id).bell) & BELL_BARRIER != 0;
        if self.registered && self.members.list.iter().all(runs_barriers) {
            // The sleepers' barriers are the fence.
            compiler_fence();
        } else {
            // Pairs with the fence in announce.
            fence_store_load(Dekker::Waker);
        }
        if self.members.follow(hall.roster()) {
            // Whether the new ones run barriers was not known above.
            fence_store_load(Dekker::Waker);
        }
        self.members.forget_the_gone(hall);
        let mut anybody = false;
        for member in &self.members.list {
            let state = wait::state_of(&hall.seat(member.id).bell);
            anybody |= wait::is_new(state, &mut self.woken[member.id]);
        }
        if anybody {
            wait::wake_all(&hall.producer().bell);
        }
        anybody
    }
}
