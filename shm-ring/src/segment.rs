//! Data segments: one file per incarnation of the producer, with a page that the producer writes,
//! the ring, and a page that the consumer writes.
//!
//! Creates, opens and maps them, and hands out the view that the ring runs on. What is in the ring
//! is the business of `spsc`, which segments exist that of `registry`.

use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use memmap2::MmapRaw;

use crate::broadcast::{Gate, Hall, Posted};
use crate::control::Control;
use crate::error::{Error, ErrorKind, Fault};
use crate::fault::{self, Point};
use crate::file;
use crate::fork::OwnFile;
use crate::layout::{
    BELL_BARRIER, BOARD_AT, Board, ConsumerPage, FileHeader, PAGE, ProducerPage, Roster,
    SECTION_CONSUMER, SECTION_PRODUCER, SECTION_RING, SEGMENT_MAGIC, Section,
};
use crate::liveness::{self, Identity};
use crate::memory::{Access, Boundary, RingMemory, released_by};
use crate::options::Overflow;
use crate::overwrite::Leash;
use crate::participants::Table;
use crate::prefetch::{ask_for, ask_to_write};
use crate::runahead;
use crate::spsc::Geometry;
use crate::sync::{Word, Word32};

/// The byte of the file whose lock the producer holds while it lives.
const PRODUCER_LOCK: u64 = 0;

/// An open, mapped segment.
#[derive(Debug)]
pub struct Segment {
    file: OwnFile,
    header: FileHeader,
    memory: SegmentMemory,
}

/// Which pages the holder of a mapping may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Writes the producer's page and the ring.
    Producer,
    /// Writes the consumer's page of that index: 0, or that of a participant.
    Consumer(usize),
    /// Writes nothing.
    Observer,
}

impl Segment {
    /// Builds segment `number` of the channel, takes its lock, and places it.
    pub fn create(control: &Control, number: u32, who: &Identity) -> Result<Self, Error> {
        let capacity = control.header().capacity;
        let pages = consumer_pages(control.header());
        let sections = [
            Section { kind: SECTION_PRODUCER, reserved: 0, offset: PAGE, len: PAGE },
            Section { kind: SECTION_RING, reserved: 0, offset: 2 * PAGE, len: capacity },
            Section {
                kind: SECTION_CONSUMER,
                reserved: 0,
                offset: 2 * PAGE + capacity,
                len: pages * PAGE,
            },
        ];
        let header = FileHeader {
            capacity,
            generation: number.into(),
            wait: control.header().wait,
            record_align: control.header().record_align,
            payload_offset: control.header().payload_offset,
            schema: control.header().schema,
            kind: control.header().kind,
            overflow: control.header().overflow,
            seats: control.header().seats,
            history: control.header().history,
            ..file::blank_header(SEGMENT_MAGIC, &sections, who)
        };
        let path = path_of(control.directory(), number);
        let file = file::build(control.directory(), header, (2 + pages) * PAGE + capacity)?;
        let locked = liveness::try_lock(&file, PRODUCER_LOCK)
            .map_err(|error| Error::io(format!("locking {}", path.display()), error))?;
        debug_assert!(locked, "nobody else knows of a nameless file");
        fault::point(Point::SegmentBuilt);
        let mut memory = SegmentMemory::map(&file, &path, &header, Side::Producer)?;
        memory.audience = Audience::of(control, geometry_of(&header)).map(Arc::new);
        if !file::place(&file, &path)? {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("placing {}", path.display()),
                "the name is taken, although this process alone may create segments here",
                format!("Look who made it, then: rm {}", path.display()),
            ));
        }
        fault::point(Point::SegmentPlaced);
        Ok(Self { file, header, memory })
    }

    /// Opens and validates segment `number`. `None`: there is none (any more).
    pub fn open(control: &Control, number: u32, side: Side) -> Result<Option<Self>, Error> {
        let path = path_of(control.directory(), number);
        let Some(file) = file::open(&path)? else { return Ok(None) };
        let header = file::validate(&file, &path, SEGMENT_MAGIC)?;
        let expected = control.header();
        if header.generation != u64::from(number)
            || header.schema != expected.schema
            || header.capacity != expected.capacity
            || header.wait != expected.wait
            || header.record_align != expected.record_align
            || header.payload_offset != expected.payload_offset
            || (header.kind, header.overflow) != (expected.kind, expected.overflow)
            || (header.seats, header.history) != (expected.seats, expected.history)
        {
            return Err(file::damaged(
                &path,
                "it belongs to another channel or another generation",
            ));
        }
        let memory = SegmentMemory::map(&file, &path, &header, side)?;
        Ok(Some(Self { file, header, memory }))
    }

    /// The validated header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// How its records are laid out.
    pub fn geometry(&self) -> Geometry {
        geometry_of(&self.header)
    }

    /// The view that a ring runs on; keeps the mapping alive.
    pub fn memory(&self) -> SegmentMemory {
        self.memory.clone()
    }

    /// Whether its producer lives. Costs one system call; not for the producer itself.
    pub fn producer_is_alive(&self) -> bool {
        // A failing look proves nothing, and nothing is ever repaired without proof.
        liveness::is_locked(&self.file, PRODUCER_LOCK).unwrap_or(true)
    }

    /// Gives up the producer's lock.
    pub fn unlock(&self) {
        liveness::unlock(&self.file, PRODUCER_LOCK);
    }
}

fn geometry_of(header: &FileHeader) -> Geometry {
    Geometry {
        record_align: header.record_align.into(),
        payload_offset: header.payload_offset.into(),
    }
}

/// One for the consumer, or one for each participant that there may be.
fn consumer_pages(header: &FileHeader) -> u64 {
    u64::from(header.seats).max(1)
}

/// Where segment `number` lies.
pub fn path_of(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:06}"))
}

/// The error for a segment whose header is sound and whose contents are not.
pub fn corrupt(directory: &Path, number: u32, fault: Fault) -> Error {
    let path = path_of(directory, number);
    Error::new(
        ErrorKind::Damaged,
        format!("reading {}", path.display()),
        format!("its contents make no sense: {fault}"),
        "It is given up; open the channel again to go on with the next segment",
    )
}

/// A mapped ring with its two pages. The producer's is just before the ring, so that one register leads to
/// both.
#[derive(Clone, Debug)]
pub struct SegmentMemory {
    ring: NonNull<u8>,
    capacity: u64,
    /// The reader's; for others the first of all readers' pages, which follow each other.
    consumer: NonNull<ConsumerPage>,
    /// How many readers' pages are mapped.
    pages: usize,
    /// What a producer looks at after each publication.
    watched: NonNull<Word32>,
    /// Of a broadcast's producer: what it knows of its readers.
    audience: Option<Arc<Audience>>,
    /// What the pointers point into; nothing keeps `NOTHING`.
    _mappings: Option<Arc<[MmapRaw; 2]>>,
}

/// Whom a producer watches for sleepers, by a look at one word after each publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nobody: nobody ever sleeps.
    Nobody,
    /// The one consumer, who may sleep, and whose barriers reach this process.
    Consumer,
    /// More than one word can tell.
    Everybody,
}

/// The state of a bell that never needs ringing, and of one that always may. On lines of their own: they are looked
/// at with every message.
static QUIET: CachePadded<Word32> = CachePadded::new(Word32::new(BELL_BARRIER));
static LOUD: CachePadded<Word32> = CachePadded::new(Word32::new(0));

/// A producer's page of zeros, a ring of 64 zero bytes, and a consumer's page of zeros on the rest of its page.
#[repr(C, align(4096))]
struct Nothing([Word; 1024]);

static NOTHING: Nothing = Nothing([const { Word::new(0) }; 1024]);

// SAFETY: the pointers go into mappings that the Arc keeps; shared words are atomics, payload bytes
// are handed from one side to the other by the ring's protocol, and nothing belongs to a thread.
unsafe impl Send for SegmentMemory {}
// SAFETY: as for Send; `&SegmentMemory` gives out atomics and raw pointers only.
unsafe impl Sync for SegmentMemory {}

impl SegmentMemory {
    fn map(file: &OwnFile, path: &Path, header: &FileHeader, side: Side) -> Result<Self, Error> {
        let damaged = || {
            file::damaged(path, "its sections are not where this version of the layout has them")
        };
        let section = |kind| header.section(kind).ok_or_else(damaged);
        let (producer, ring, consumer) =
            (section(SECTION_PRODUCER)?, section(SECTION_RING)?, section(SECTION_CONSUMER)?);
        let as_built = producer.offset == PAGE
            && producer.len == PAGE
            && ring.offset == 2 * PAGE
            && ring.len == header.capacity
            && consumer.offset == 2 * PAGE + header.capacity
            && consumer.len == consumer_pages(header) * PAGE;
        if !as_built {
            return Err(damaged());
        }
        let left = file::map(file, path, 0, consumer.offset, side == Side::Producer)?;
        let (right, pages) = match side {
            Side::Consumer(page) => {
                let page = page as u64 * PAGE;
                if page >= consumer.len {
                    return Err(damaged());
                }
                (file::map(file, path, consumer.offset + page, PAGE, true)?, 1)
            }
            Side::Producer | Side::Observer => {
                let pages = consumer_pages(header) as usize;
                (file::map(file, path, consumer.offset, consumer.len, false)?, pages)
            }
        };
        let at = |base: &MmapRaw, offset: u64| {
            NonNull::new(base.as_mut_ptr().wrapping_add(offset as usize)).ok_or_else(damaged)
        };
        Ok(Self {
            ring: at(&left, ring.offset)?,
            capacity: header.capacity,
            consumer: at(&right, 0)?.cast(),
            pages,
            watched: NonNull::from(&*LOUD),
            audience: None,
            _mappings: Some(Arc::new([left, right])),
        })
    }

    /// Says what [`Self::watched`] is from now on.
    pub fn watch(&mut self, whom: Watch) {
        self.watched = match whom {
            Watch::Nobody => NonNull::from(&*QUIET),
            Watch::Consumer => NonNull::from(&self.consumer().bell.state),
            Watch::Everybody => NonNull::from(&*LOUD),
        };
    }

    /// What a producer is to look at after each publication, by [`wait::is_quiet`](crate::wait::is_quiet).
    #[inline(always)]
    pub fn watched(&self) -> &Word32 {
        // SAFETY: in a static, or on the consumer's page, as for that.
        unsafe { self.watched.as_ref() }
    }

    /// An empty ring that nobody writes.
    pub fn idle() -> Self {
        let nothing = NonNull::from(&NOTHING).cast::<Word>();
        let at =
            |word: usize| nothing.map_addr(|addr| addr.saturating_add(word * size_of::<Word>()));
        Self {
            ring: at(512).cast(),
            capacity: 64,
            consumer: at(768).cast(),
            pages: 1,
            watched: NonNull::from(&*LOUD),
            audience: None,
            _mappings: None,
        }
    }
}

// SAFETY: `map` checked that the ring's `capacity` bytes and both pages lie inside the mappings,
// which the Arc keeps in place; they start on page boundaries, so alignment follows from offsets.
// In `idle` they are inside of a static that is made of atomics, in the same order.
unsafe impl RingMemory for SegmentMemory {
    #[inline(always)]
    fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline(always)]
    fn word(&self, offset: u64) -> &Word {
        debug_assert!(offset.is_multiple_of(8) && offset < self.capacity);
        // SAFETY: inside the ring and 8-aligned: the writer's offsets are of records that `try_claim`
        // granted, or will, which end below `Writer::free_to` and so below the capacity, or are masked by it; the
        // reader's are masked, or within a record that `look` checked, and before `Head::stop`. A Word is
        // an atomic, so other processes may write it.
        unsafe { &*self.ring.as_ptr().add(offset as usize).cast::<Word>() }
    }

    #[inline(always)]
    unsafe fn word_from(&self, ring: *mut u8, offset: u64) -> &Word {
        debug_assert!(ring == self.ring.as_ptr());
        debug_assert!(offset.is_multiple_of(8) && offset < self.capacity);
        // SAFETY: as in `word`, since it is the same pointer.
        unsafe { &*ring.add(offset as usize).cast::<Word>() }
    }

    #[inline(always)]
    unsafe fn producer_from(&self, ring: *mut u8) -> &ProducerPage {
        debug_assert!(ring == self.ring.as_ptr());
        // SAFETY: as in `producer`, since it is the same pointer.
        unsafe { &*ring.sub(PAGE as usize).cast::<ProducerPage>() }
    }

    #[inline(always)]
    fn payload(&self, offset: u64) -> *mut u8 {
        self.ring.as_ptr().wrapping_add(offset as usize)
    }

    #[inline(always)]
    fn prefetch_write<const AHEAD: usize>(&self, offset: u64) {
        ask_to_write::<AHEAD>(self.ring.as_ptr(), offset);
    }

    #[inline(always)]
    fn prefetch_read(&self, offset: u64) {
        ask_for(self.payload(offset), Access::Read);
    }

    #[inline(always)]
    fn look_again(&self, offset: u64, last: u64) -> u64 {
        runahead::look(self.word(offset), self.payload(last))
    }

    #[inline]
    fn released(&self, published: Boundary) -> Result<u64, Fault> {
        match self.audience.as_deref() {
            None => released_by(self.consumer()),
            Some(Audience::Blocking { gate, .. }) => gate.look(self, published),
            Some(Audience::Overwritten { leash, .. }) => {
                Ok(leash.lengthen(self.board(), self.capacity, published))
            }
        }
    }

    #[inline(always)]
    fn producer(&self) -> &ProducerPage {
        // SAFETY: a whole page of the mapping, which ends where the ring begins; made of atomics, so any
        // bytes are valid.
        unsafe { &*self.producer_page().cast::<ProducerPage>() }
    }

    #[inline(always)]
    fn consumer(&self) -> &ConsumerPage {
        // SAFETY: as for the producer's page.
        unsafe { self.consumer.as_ref() }
    }
}

/// What a broadcast's producer knows of its readers.
#[derive(Debug)]
pub enum Audience {
    /// Waits for all of them.
    Blocking {
        /// The least of their cursors.
        gate: Gate,
        /// Who they are.
        table: Table,
    },
    /// Waits for none.
    Overwritten {
        /// What may be written.
        leash: Leash,
        /// Who they are.
        table: Table,
    },
}

impl Audience {
    fn of(control: &Control, geometry: Geometry) -> Option<Self> {
        let (header, table) = (control.header(), control.table()?);
        Some(match control.overflow() {
            Overflow::Block => Self::Blocking { gate: Gate::new(geometry, header.history), table },
            Overflow::Overwrite => Self::Overwritten { leash: Leash::new(header.capacity), table },
        })
    }
}

impl SegmentMemory {
    #[inline(always)]
    fn producer_page(&self) -> *mut u8 {
        self.ring.as_ptr().wrapping_sub(PAGE as usize)
    }

    /// What it knows of its readers; `None` for all but a broadcast's producer.
    #[inline]
    pub fn audience(&self) -> Option<&Audience> {
        self.audience.as_deref()
    }

    /// The gate of a broadcast that waits, as its producer has it.
    #[inline]
    pub fn gate(&self) -> Option<&Gate> {
        match self.audience() {
            Some(Audience::Blocking { gate, .. }) => Some(gate),
            _ => None,
        }
    }
}

impl Posted for SegmentMemory {
    fn board(&self) -> &Board {
        // SAFETY: inside the producer's page, which is mapped whole; a const assert in `layout` says
        // that it ends there; made of atomics, so any bytes are valid.
        unsafe { &*self.producer_page().add(BOARD_AT as usize).cast::<Board>() }
    }
}

impl Hall for SegmentMemory {
    #[inline(always)]
    fn roster(&self) -> &Roster {
        match self.audience() {
            Some(Audience::Blocking { table, .. } | Audience::Overwritten { table, .. }) => {
                table.roster()
            }
            None => unreachable!("only a broadcast's producer looks at its readers"),
        }
    }

    #[inline(always)]
    fn seat(&self, id: usize) -> &ConsumerPage {
        assert!(id < self.pages, "the roster has as many entries as there are pages");
        // SAFETY: `map` mapped so many pages there; as for `consumer`.
        unsafe { &*self.consumer.as_ptr().cast::<u8>().add(id * PAGE as usize).cast() }
    }
}
