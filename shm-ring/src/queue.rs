//! The memory of an MPMC channel: one segment for the life of the channel, mapped for writing by all
//! who take part. Creates, opens and maps it, and hands out the view that the queue runs on.
//!
//! What is in the slots is the business of `mpmc`; who takes part that of `party`.

use std::ops::Deref;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::control::Control;
use crate::error::{Error, ErrorKind};
use crate::fault::{self, Point};
use crate::file;
use crate::home::{Homed, Homing};
use crate::layout::{
    FileHeader, MAX_PARTICIPANTS, PAGE, QUEUE_LEN, QueuePage, SECTION_QUEUE, SECTION_SENT,
    SECTION_SLOTS, SECTION_TAKEN, SEGMENT_MAGIC, SeatCounters, Section,
};
use crate::liveness::Identity;
use crate::memory::Access;
use crate::mpmc::SlotMemory;
use crate::prefetch::ask_for;
use crate::runahead;
use crate::segment;
use crate::sync::Word;

/// The number of the segment.
const NUMBER: u32 = 1;

const LINE: usize = crate::layout::LINE as usize;

/// Bytes of a slot that are asked for in advance: of longer messages the processor sees by itself where
/// they go on.
const PREFETCHED: usize = 4 * LINE;

/// A mapped queue.
#[derive(Clone, Debug)]
pub struct QueueMemory {
    page: NonNull<QueuePage>,
    taken: NonNull<Word>,
    sent: NonNull<Word>,
    slots: NonNull<u8>,
    count: u64,
    /// Bytes of a slot.
    size: usize,
    lines: Lines,
    /// Where a message starts in its slot.
    payload_offset: usize,
    /// What is behind that.
    room: usize,
    /// What the pointers point into.
    _mapping: Arc<MmapRaw>,
}

// SAFETY: the pointers go into a mapping that the Arc keeps; shared words are atomics, payload bytes
// are handed from one participant to the other by the queue's protocol, and nothing belongs to a thread.
unsafe impl Send for QueueMemory {}
// SAFETY: as for Send; `&QueueMemory` gives out atomics and raw pointers only.
unsafe impl Sync for QueueMemory {}

/// What the length of each message is compared with: in a forked child none fits, so that nothing there is quick.
#[derive(Debug)]
pub struct LenBound {
    /// Messages are shorter than this, in bytes.
    pub below: u64,
}

impl LenBound {
    pub fn homed(memory: &QueueMemory) -> Homed<Self> {
        Homed::new(Self { below: memory.room() + 1 })
    }
}

impl Homing for LenBound {
    const GONE: Self = Self { below: 0 };
}

/// A participant's counters. Found once: each message is counted, and from the number of a place to its counters
/// is a way of its own.
#[derive(Debug)]
pub struct OwnCounters {
    at: NonNull<SeatCounters>,
    /// What that points into.
    _mapping: Arc<MmapRaw>,
}

// SAFETY: as for QueueMemory; counters are atomics.
unsafe impl Send for OwnCounters {}
// SAFETY: as above.
unsafe impl Sync for OwnCounters {}

impl Deref for OwnCounters {
    type Target = SeatCounters;

    #[inline(always)]
    fn deref(&self) -> &SeatCounters {
        // SAFETY: within the page that `QueueMemory::page` tells of, in a mapping that is kept.
        unsafe { self.at.as_ref() }
    }
}

/// Opens the channel's queue, or builds it if the first to come has not, or died before it had. The
/// caller holds the directory's lock.
pub fn open_or_create(control: &Control, who: &Identity) -> Result<QueueMemory, Error> {
    if let Some(memory) = open(control)? {
        return Ok(memory);
    }
    let header = control.header();
    let slots = header.capacity / u64::from(header.slot.max(1));
    let sections = sections(slots, header.capacity);
    let len = sections[3].offset + sections[3].len;
    let header = FileHeader {
        kind: header.kind,
        capacity: header.capacity,
        slot: header.slot,
        flags: header.flags,
        seats: header.seats,
        generation: NUMBER.into(),
        wait: header.wait,
        record_align: header.record_align,
        payload_offset: header.payload_offset,
        schema: header.schema,
        ..file::blank_header(SEGMENT_MAGIC, &sections, who)
    };
    let path = segment::path_of(control.directory(), NUMBER);
    let file = file::build(control.directory(), header, len)?;
    fault::point(Point::SegmentBuilt);
    // If somebody else places one in spite of the lock, that one counts.
    file::place(&file, &path)?;
    fault::point(Point::SegmentPlaced);
    open(control)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Busy,
            format!("opening {}", path.display()),
            "it went away as soon as it was there",
            "Try again; if it persists, look which program removes files there",
        )
    })
}

/// Opens the channel's queue. `None`: there is none yet.
pub fn open(control: &Control) -> Result<Option<QueueMemory>, Error> {
    let path = segment::path_of(control.directory(), NUMBER);
    let Some(file) = file::open(&path)? else { return Ok(None) };
    let header = file::validate(&file, &path, SEGMENT_MAGIC)?;
    let expected = control.header();
    let alike = |header: &FileHeader| {
        let FileHeader { kind, capacity, slot, flags, wait, payload_offset, schema, .. } = *header;
        (kind, capacity, slot, flags, wait, payload_offset, schema)
    };
    if header.generation != u64::from(NUMBER) || alike(&header) != alike(expected) {
        return Err(file::damaged(&path, "it belongs to another channel"));
    }
    QueueMemory::map(&file, &path, &header).map(Some)
}

fn sections(slots: u64, bytes: u64) -> [Section; 4] {
    let words = (slots * 8).next_multiple_of(PAGE);
    let taken = PAGE + QUEUE_LEN;
    let section = |kind, offset, len| Section { kind, reserved: 0, offset, len };
    [
        section(SECTION_QUEUE, PAGE, QUEUE_LEN),
        section(SECTION_TAKEN, taken, words),
        section(SECTION_SENT, taken + words, words),
        section(SECTION_SLOTS, taken + 2 * words, bytes.next_multiple_of(PAGE)),
    ]
}

impl QueueMemory {
    fn map(file: &crate::fork::OwnFile, path: &Path, header: &FileHeader) -> Result<Self, Error> {
        let damaged = || {
            file::damaged(path, "its sections are not where this version of the layout has them")
        };
        let count = header.capacity / u64::from(header.slot.max(1));
        let [page, taken, sent, slots] = sections(count, header.capacity);
        if header.used_sections() != [page, taken, sent, slots] {
            return Err(damaged());
        }
        let map = file::map(file, path, 0, slots.offset + slots.len, true)?;
        let at = |section: Section| {
            NonNull::new(map.as_mut_ptr().wrapping_add(section.offset as usize)).ok_or_else(damaged)
        };
        Ok(Self {
            page: at(page)?.cast(),
            taken: at(taken)?.cast(),
            sent: at(sent)?.cast(),
            slots: at(slots)?,
            count,
            size: header.slot as usize,
            lines: Lines::of(header.slot as usize),
            payload_offset: header.payload_offset.into(),
            room: header.slot as usize - usize::from(header.payload_offset),
            _mapping: Arc::new(map),
        })
    }

    /// What the participant in that place counts in.
    pub fn counters(&self, place: usize) -> OwnCounters {
        let counters = &self.page().seats[place % MAX_PARTICIPANTS].counters;
        OwnCounters { at: counters.into(), _mapping: self._mapping.clone() }
    }

    /// Everything but slots and their words.
    #[inline(always)]
    pub fn page(&self) -> &QueuePage {
        // SAFETY: `map` checked that the section is there, at a page's beginning, and large enough; it
        // is made of atomics, so other processes may write it, and any bytes are valid.
        unsafe { self.page.as_ref() }
    }

    /// Bytes from a message to the one in the slot behind it.
    #[inline(always)]
    pub fn step(&self) -> usize {
        self.size
    }

    /// A word of each slot.
    ///
    /// # Safety
    /// Of each slot below `count` there is a word, 8-aligned, so many steps behind `at`.
    #[inline(always)]
    unsafe fn words<'a>(&'a self, at: NonNull<u8>, step: usize) -> impl Fn(u64) -> &'a Word {
        let count = self.count;
        move |index| {
            debug_assert!(index < count);
            // SAFETY: callers mask indices by the count - 1, or have them of `Geometry::pieces`, which keeps them
            // within the slots; a Word is an atomic, so other processes may write it.
            unsafe { at.add(index as usize * step).cast::<Word>().as_ref() }
        }
    }

    #[inline(always)]
    fn slot(&self, index: u64) -> *mut u8 {
        debug_assert!(index < self.count);
        self.slots.as_ptr().wrapping_add(index as usize * self.size)
    }
}

// SAFETY: `map` checked that twice `count` words and as many slots of `size` bytes lie inside the mapping,
// which the Arc keeps in place; `count` was validated as a power of two. A slot is a multiple of 8
// bytes, its payload begins behind its flag and ends with it: `file::validate` saw to both.
unsafe impl SlotMemory for QueueMemory {
    type Word = Word;

    #[inline(always)]
    fn slots(&self) -> u64 {
        self.count
    }

    #[inline(always)]
    fn room(&self) -> u64 {
        self.room as u64
    }

    #[inline(always)]
    fn flag(&self, index: u64) -> &Word {
        // SAFETY: callers mask indices by the count - 1, so that the slot is inside; its first bytes are
        // its flag, 8-aligned; a Word is an atomic, so other processes may write it.
        unsafe { &*self.slot(index).cast::<Word>() }
    }

    #[inline(always)]
    fn taken(&self, index: u64) -> &Word {
        debug_assert!(index < self.count);
        // SAFETY: as for `flag`, in an array of `count` words.
        unsafe { self.taken.add(index as usize).as_ref() }
    }

    #[inline(always)]
    fn sent(&self, index: u64) -> &Word {
        debug_assert!(index < self.count);
        // SAFETY: as for `taken`.
        unsafe { self.sent.add(index as usize).as_ref() }
    }

    #[inline(always)]
    fn payloads(&self, index: u64, ahead: u64, count: u64) -> impl Iterator<Item = *mut u8> {
        let (size, lines) = (self.size, self.lines);
        let (mut slot, mut ahead) = (self.slot(index), self.slot(ahead));
        let (first, end) = (self.slot(0), self.slot(0).wrapping_add(self.count as usize * size));
        let after = move |slot: *mut u8| match slot.wrapping_add(size) {
            next if next == end => first,
            next => next,
        };
        let offset = self.payload_offset;
        (0..count).map(move |_| {
            lines.ask_for(ahead, Access::Write);
            let payload = slot.wrapping_add(offset);
            (slot, ahead) = (after(slot), after(ahead));
            payload
        })
    }

    #[inline(always)]
    fn flags_at<'a>(&'a self) -> impl Fn(u64) -> &'a Word {
        // SAFETY: as for `flag`; a slot is `size` bytes long.
        unsafe { self.words(self.slots, self.size) }
    }

    #[inline(always)]
    fn sent_at<'a>(&'a self) -> impl Fn(u64) -> &'a Word {
        // SAFETY: as for `sent`.
        unsafe { self.words(self.sent.cast(), size_of::<Word>()) }
    }

    #[inline(always)]
    fn taken_at<'a>(&'a self) -> impl Fn(u64) -> &'a Word {
        // SAFETY: as for `taken`.
        unsafe { self.words(self.taken.cast(), size_of::<Word>()) }
    }

    #[inline(always)]
    fn payload(&self, index: u64) -> *mut u8 {
        self.slot(index).wrapping_add(self.payload_offset)
    }

    #[inline(always)]
    fn tail(&self) -> &Word {
        &self.page().tail.word
    }

    #[inline(always)]
    fn head(&self) -> &Word {
        &self.page().head.word
    }

    #[inline(always)]
    fn returns(&self) -> &Word {
        &self.page().news.returns
    }

    #[inline(always)]
    fn dropped(&self) -> &Word {
        &self.page().news.dropped
    }

    #[inline(always)]
    fn prefetch(&self, index: u64, access: Access) {
        self.lines.ask_for(self.slot(index), access);
    }

    // Beyond the end of the slots nothing comes of it, and beyond that of the receivers' words it takes a few lines of
    // the senders', once a lap each: to go round would cost each message.
    #[inline(always)]
    fn prefetch_ahead<const SLOTS: u64>(&self, payload: *const u8, access: Access) {
        let slot = payload.wrapping_sub(self.payload_offset);
        self.lines.ask_for(slot.wrapping_add(SLOTS as usize * self.size), access);
    }

    #[inline(always)]
    fn prefetch_taken_ahead<const SLOTS: u64>(&self, taken: &Word) {
        ask_for(std::ptr::from_ref(taken).wrapping_add(SLOTS as usize).cast(), Access::Write);
    }

    #[inline(always)]
    fn prefetch_run(&self, index: u64, count: u64, bytes: u64, access: Access) {
        let count = count.min(self.count - index) as usize;
        let (first, used) = (self.slot(index), self.payload_offset + bytes as usize);
        if self.size < used + LINE {
            // No line between them is without a part of a message.
            return ask_for_all(first, count * self.size, access);
        }
        for slot in 0..count {
            ask_for_all(first.wrapping_add(slot * self.size), used.min(PREFETCHED), access);
        }
    }

    #[inline(always)]
    fn look_again(&self, index: u64, bytes: u64) -> u64 {
        let end = self.payload(index).wrapping_add(bytes as usize);
        runahead::look(self.flag(index), end.wrapping_sub(1))
    }

    #[inline(always)]
    fn prefetch_taken_run(&self, index: u64, count: u64, access: Access) {
        let count = count.min(self.count - index) as usize;
        let first = self.taken.as_ptr().wrapping_add(index as usize);
        ask_for_all(first.cast(), count * size_of::<Word>(), access);
    }
}

/// Most lines that are asked for at once: a page.
const MOST_LINES: usize = 64;

/// Asks for the lines of so many bytes.
#[inline(always)]
fn ask_for_all(first: *const u8, len: usize, access: Access) {
    let before = first as usize % LINE;
    for line in 0..(before + len).div_ceil(LINE).min(MOST_LINES) {
        ask_for(first.wrapping_sub(before).wrapping_add(line * LINE), access);
    }
}

/// The lines of a slot that are asked for in advance.
#[derive(Clone, Copy, Debug)]
struct Lines {
    /// Where in the slot the last word is that is asked for; 0: slots lie within lines.
    last: usize,
}

impl Lines {
    fn of(size: usize) -> Self {
        let last =
            if LINE.is_multiple_of(size) { 0 } else { size.min(PREFETCHED) - size_of::<Word>() };
        Self { last }
    }

    #[inline(always)]
    fn ask_for(self, slot: *const u8, access: Access) {
        ask_for(slot, access);
        // The same line again, where slots lie within lines: cheaper than a branch.
        ask_for(slot.wrapping_add(self.last), access);
        if self.last >= 2 * LINE {
            // Those that may be between, as `PREFETCHED` is four lines. A loop here would take the registers of
            // what is around it.
            ask_for(slot.wrapping_add(LINE), access);
            ask_for(slot.wrapping_add(2 * LINE), access);
        }
    }
}
