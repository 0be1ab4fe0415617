//! The memory ABI: every struct, magic number and bit field that two processes must agree on.
//!
//! Nothing here computes or decides; `segment` and `control` validate, `spsc` moves messages.
//! `docs/SEGMENT.md` draws what is declared here, and `tests/golden.rs` pins the bytes: change all
//! three in one commit, and raise [`ABI_MAJOR`] or [`ABI_MINOR`].
//!
//! Hot words sit on lines of their own, 128 bytes apart, because the adjacent-line prefetcher pulls
//! pairs of 64-byte lines. `repr(align(128))` spells that out: `CachePadded` changes its size with
//! the target, and an ABI must not.

use crate::sync::{Word, Word32};

/// First bytes of a data segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"RWAYSEG\0";
/// First bytes of a channel's control file.
pub const CONTROL_MAGIC: [u8; 8] = *b"RWAYCTL\0";
/// Raised when an older reader would misread the memory.
pub const ABI_MAJOR: u16 = 6;
/// Raised when something is added that an older reader may ignore.
pub const ABI_MINOR: u16 = 0;
/// Reads back as another number on a machine of the other byte order.
pub const ENDIAN_TAG: u32 = 0x0102_0304;
/// The unit of mapping and of write permission: what one side writes shares no page with what the
/// other side writes.
pub const PAGE: u64 = 4096;
/// Bytes that caches hand around together, where hints and the packing of records go by them.
pub const LINE: u64 = 64;

/// [`FileHeader::kind`]: one producer, one consumer, variable-length records.
pub const KIND_SPSC: u32 = 1;
/// [`FileHeader::kind`]: one producer, every subscriber gets every message.
pub const KIND_BROADCAST: u32 = 2;
/// [`FileHeader::kind`]: any number of senders and receivers, fixed slots.
pub const KIND_MPMC: u32 = 3;

/// Section kinds in [`FileHeader::sections`].
pub const SECTION_PRODUCER: u32 = 1;
/// The page that the consumer writes.
pub const SECTION_CONSUMER: u32 = 2;
/// The ring's bytes.
pub const SECTION_RING: u32 = 3;
/// The schema, as text.
pub const SECTION_SCHEMA: u32 = 4;
/// The table of participants ([`Roster`]), on channels whose ends are more than two.
pub const SECTION_PARTICIPANTS: u32 = 5;
/// The pages of an MPMC queue that everybody writes ([`QueuePage`]).
pub const SECTION_QUEUE: u32 = 6;
/// The receivers' words of an MPMC queue.
pub const SECTION_TAKEN: u32 = 7;
/// The slots of an MPMC queue.
pub const SECTION_SLOTS: u32 = 8;
/// The senders' words of an MPMC queue.
pub const SECTION_SENT: u32 = 9;

/// Participants of one channel at most: a writer that has to look at all of them still does so in
/// about a microsecond, and each costs a page of every segment. Models have few.
pub const MAX_PARTICIPANTS: usize = if cfg!(loom) { 2 } else { 64 };

/// Where a part of the file lies. `kind` 0 is an unused entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// One of `SECTION_*`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes from the start of the file, a multiple of [`PAGE`] for mutable sections.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// ```text
/// offset  bytes  the first page of `control` and of every segment; written once, before the file
///                gets its name
///      0      8  magic           SEGMENT_MAGIC or CONTROL_MAGIC
///      8      2  abi_major       differs: refused
///     10      2  abi_minor       newer: accepted
///     12      4  header_len      sizeof(FileHeader)
///     16      4  endian          ENDIAN_TAG
///     20      4  kind            KIND_*
///     24      4  wait            Wait as a number; 0 spin: nobody on this channel ever sleeps
///     28      2  record_align    16 or 64
///     30      2  payload_offset  8 or 16: where a message starts in its record
///     32      8  capacity        bytes of ring, a power of two
///     40      8  generation      the segment's number; 0 in `control`
///     48      8  schema          fingerprint
///     56      4  schema_len      bytes of text in SECTION_SCHEMA (control)
///     60      4  schema_crc      crc32c of that text
///     64     16  boot_id         of the kernel that the file was made under
///     80      8  creator_start   start time of the creator, clock ticks since boot
///     88      8  creator_pid_ns  inode of its pid namespace
///     96      8  created_ns      CLOCK_REALTIME
///    104      4  creator_pid
///    108      4  section_count
///    112     96  sections        4 x Section
///    208      4  overflow        broadcast: Overflow as a number; 0 elsewhere
///    212      4  seats           entries of the table of participants, 0 where there is none
///    216      8  history         broadcast: messages kept for those who come late
///    224      4  slot            mpmc: bytes of a slot; 0 elsewhere
///    228      4  flags           mpmc: FLAG_*; 0 elsewhere
///    232     20  reserved        zero
///    252      4  crc             crc32c of the 252 bytes before it
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "drawn above")]
pub struct FileHeader {
    pub magic: [u8; 8],
    pub abi_major: u16,
    pub abi_minor: u16,
    pub header_len: u32,
    pub endian: u32,
    pub kind: u32,
    pub wait: u32,
    pub record_align: u16,
    pub payload_offset: u16,
    pub capacity: u64,
    pub generation: u64,
    pub schema: u64,
    pub schema_len: u32,
    pub schema_crc: u32,
    pub boot_id: [u8; 16],
    pub creator_start: u64,
    pub creator_pid_ns: u64,
    pub created_ns: u64,
    pub creator_pid: u32,
    pub section_count: u32,
    pub sections: [Section; 4],
    pub overflow: u32,
    pub seats: u32,
    pub history: u64,
    pub slot: u32,
    pub flags: u32,
    pub reserved: [u8; 20],
    pub crc: u32,
}

/// Bytes of a [`FileHeader`].
pub const HEADER_LEN: usize = 256;

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<Section>() == 24);
    assert!(size_of::<FileHeader>() == HEADER_LEN);
    assert!(offset_of!(FileHeader, wait) == 24);
    assert!(offset_of!(FileHeader, capacity) == 32);
    assert!(offset_of!(FileHeader, schema) == 48);
    assert!(offset_of!(FileHeader, boot_id) == 64);
    assert!(offset_of!(FileHeader, created_ns) == 96);
    assert!(offset_of!(FileHeader, sections) == 112);
    assert!(offset_of!(FileHeader, overflow) == 208);
    assert!(offset_of!(FileHeader, seats) == 212);
    assert!(offset_of!(FileHeader, history) == 216);
    assert!(offset_of!(FileHeader, slot) == 224);
    assert!(offset_of!(FileHeader, flags) == 228);
    assert!(offset_of!(FileHeader, reserved) == 232);
    assert!(offset_of!(FileHeader, crc) == 252);
};

impl FileHeader {
    /// The header as it lies in the file.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        // SAFETY: FileHeader is repr(C), made of integers and byte arrays, and the asserts above
        // leave no padding between its fields.
        unsafe { std::mem::transmute::<Self, [u8; HEADER_LEN]>(*self) }
    }

    /// Reads a header; nothing is checked, every byte pattern is a value.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        // SAFETY: as in `to_bytes`; integers take every bit pattern, and transmute copies, so the
        // source needs no alignment.
        unsafe { std::mem::transmute::<[u8; HEADER_LEN], Self>(*bytes) }
    }

    /// What `crc` has to be.
    pub fn expected_crc(&self) -> u32 {
        crc32c::crc32c(&self.to_bytes()[..HEADER_LEN - 4])
    }

    /// The entries of the table that are in use.
    pub fn used_sections(&self) -> &[Section] {
        let count = self.sections.len().min(self.section_count as usize);
        &self.sections[..count]
    }

    /// The section of that kind, if the table lists it.
    pub fn section(&self, kind: u32) -> Option<Section> {
        self.used_sections().iter().copied().find(|section| section.kind == kind)
    }
}

/// The producer's page of a segment. Only the producer writes it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ProducerPage {
    /// Read by the consumer when it finds the ring empty, written twice in a segment's life.
    pub end: End,
    /// Doorbell line: read by the consumer at each head publication, seldom written.
    pub bell: Bell,
    /// Written per message, read by tools only.
    pub counters: ProducerCounters,
}

/// The consumer's page of a segment. Only the consumer writes it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ConsumerPage {
    /// The line that a producer out of room reads.
    pub gate: Gate,
    /// Doorbell line: read by the producer at each publication, seldom written.
    pub bell: Bell,
    /// Written per release; read by successors and tools, never by the producer.
    pub progress: Progress,
    /// Read by the producer when it finds the ring full, and by a later producer.
    pub end: End,
}

/// What the producer of a broadcast tells its subscribers, in its page of the segment, from
/// [`BOARD_AT`] on. All zero on other kinds.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Board {
    /// Line that a reader of an overwriting ring reads with each message, seldom written.
    pub intent: Intent,
    /// Which marks there are.
    pub newest: Newest,
    /// For each participant, the epoch of the last one that the producer gave up: it died, or its
    /// cursor made no sense.
    pub expelled: [Word; MAX_PARTICIPANTS],
    /// Boundaries between records; number n is in slot n mod [`MARKS`].
    pub marks: [Mark; MARKS],
}

/// How far an overwriting producer may have written.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Intent {
    /// Nothing at or above it was written; what lies a capacity below it, and lower, may have been
    /// overwritten. 0: nothing was yet.
    pub limit: Word,
}

/// The line that tells which marks there are.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Newest {
    /// Number of the newest mark, 0 before the first: then the start of the segment is the mark.
    pub number: Word,
    /// Subscribers that the producer gave up because they died.
    pub evicted: Word,
}

/// A place where somebody may start to read.
#[repr(C)]
#[derive(Debug)]
pub struct Mark {
    /// Position of a record, or of the end of the last one.
    pub position: Word,
    /// Number of the first message there.
    pub sequence: Word,
}

/// Marks at a time.
pub const MARKS: usize = if cfg!(loom) { 4 } else { 128 };

/// Where a [`Board`] is in the producer's page.
pub const BOARD_AT: u64 = 1024;

/// How this side of the segment ended.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct End {
    /// 0 while in use, [`CLOSED`] after a clean close by the producer, [`FINISHED`] once the
    /// consumer has taken everything out and told its caller.
    pub state: Word,
    /// 0, or the `Fault` that this side found in the other side's memory.
    pub poisoned: Word,
}

/// [`End::state`] of a producer that closed.
pub const CLOSED: u64 = 1;
/// [`End::state`] of a consumer that is through with the segment.
pub const FINISHED: u64 = 2;

/// One direction of sleeping and waking; `wait` tells the protocol.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Bell {
    /// [`BELL_BARRIER`] or 0; while the owner of this page sleeps also [`BELL_ASLEEP`], and from
    /// [`BELL_NUMBER_SHIFT`] on the sleep's number. One word, so that a waker has one compare.
    pub state: Word32,
    /// Counts the wakes that the owner of this page gave; the other side sleeps on it.
    pub rung: Word32,
    /// Counts the sleeps of the owner of this page. Nobody else looks.
    pub sleeps: Word32,
}

/// [`Bell::state`]: its owner sleeps, or is about to.
pub const BELL_ASLEEP: u32 = 1;
/// [`Bell::state`]: its owner runs a membarrier before it sleeps, so that whoever wakes it needs no fence of
/// its own.
pub const BELL_BARRIER: u32 = 2;
/// [`Bell::state`]: bits below a sleep's number.
pub const BELL_NUMBER_SHIFT: u32 = 2;

/// How far the producer may write.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Gate {
    /// Position up to which everything was released for reuse: of the oldest record not wholly
    /// released, or of one before it.
    pub head: Word,
}

/// Where exactly the consumer is.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Progress {
    /// Messages released. With the sequences in the records from [`Gate::head`] on, which may lag
    /// behind it, this alone decides what a successor gets.
    pub received: Word,
    /// Messages below this number may have been handed out, by a batch that may still be held or
    /// by a consumer that died; beside it at most the one that `received` names next.
    pub lent: Word,
    /// 1 while a consumer reads this segment, 0 after it left cleanly. A newcomer that finds 1
    /// follows a dead one, whose unreleased messages come again.
    pub attached: Word,
    /// Times the consumer went to sleep.
    pub parks: Word,
    /// Times the consumer woke a sleeping producer.
    pub wakes: Word,
    /// Messages that were overwritten before this subscriber had read them.
    pub missed: Word,
}

/// What the producer did.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ProducerCounters {
    /// The [`RecordHeader`] of the next message, as if that had no bytes. Its number counts the messages
    /// that were published or queued, from 0 in each segment, modulo 2^24.
    pub next: Word,
    /// Bytes of ring that went into them, headers and padding included.
    pub position: Word,
    /// Times a claim found no room even after a look at the gate.
    pub full_waits: Word,
    /// Times the producer went to sleep.
    pub parks: Word,
    /// Times the producer woke a sleeping consumer.
    pub wakes: Word,
    /// Most bytes ever in the ring, as seen when the gate was read.
    pub depth_max: Word,
    /// All of that number, as it was fewer than 2^24 messages ago.
    pub sent_before: Word,
}

/// The producer's page of `control`.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ProducerRole {
    /// Who produces, or did last.
    pub record: RoleRecord,
    /// Number of the newest segment; consumers without one sleep on it.
    pub latest: Latest,
}

/// The consumer's page of `control`.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct ConsumerRole {
    /// Who consumes, or did last.
    pub record: RoleRecord,
    /// The last consumer that was found dead by its successor.
    pub dead: DeadRecord,
}

/// Who holds a role. Trust it only beside a look at the role's lock.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct RoleRecord {
    /// Counts the holders; written last when one joins.
    pub epoch: Word,
    /// [`ATTACHED`] or [`DETACHED`]; 0 before the first holder.
    pub state: Word,
    /// In the holder's own pid namespace.
    pub pid: Word,
    /// Start time, clock ticks since boot: tells a reused pid apart.
    pub start: Word,
    /// Inode of the pid namespace.
    pub pid_ns: Word,
    /// CLOCK_REALTIME at joining, in nanoseconds.
    pub since_ns: Word,
    /// The command's name, zero padded.
    pub command: [Word; 2],
    /// In a [`Roster`]: [`SIDE_SENDS`] or [`SIDE_RECEIVES`]; 0 elsewhere.
    pub side: Word,
    /// In a [`Roster`], of one who receives: number of the first segment that it reads.
    pub first: Word,
}

/// [`RoleRecord::side`] of a participant that sends.
pub const SIDE_SENDS: u64 = 1;
/// [`RoleRecord::side`] of a participant that receives.
pub const SIDE_RECEIVES: u64 = 2;

/// [`RoleRecord::state`]: the holder joined and has not left cleanly.
pub const ATTACHED: u64 = 1;
/// [`RoleRecord::state`]: the holder left cleanly.
pub const DETACHED: u64 = 2;

/// The participants of a channel, in a section of `control`. An entry is written by its holder alone,
/// who has the lock of byte [`PARTICIPANT_LOCKS`] + its index.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Roster {
    /// Changes whenever somebody has come.
    pub changes: Changes,
    /// Who holds which entry, or did last.
    pub records: [RoleRecord; MAX_PARTICIPANTS],
}

/// The line of a [`Roster`] that others watch.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Changes {
    /// Counts those who joined; written under the directory's lock. Who leaves does not count: that
    /// is in the entry, which those who know of it look at.
    pub joins: Word,
}

/// The byte of `control` whose lock is entry 0 of the roster.
pub const PARTICIPANT_LOCKS: u64 = 64;

/// Bytes of a [`Roster`]'s section: whole pages.
pub const ROSTER_LEN: u64 = 3 * PAGE;

/// The last holder whose death a successor noticed.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct DeadRecord {
    /// Its epoch; written last.
    pub epoch: Word,
    /// Its pid.
    pub pid: Word,
}

/// A number that sleepers wait on.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Latest {
    /// Number of the newest segment, 0 before the first.
    pub number: Word32,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<ProducerPage>() == 384);
    assert!(offset_of!(ProducerPage, bell) == 128);
    assert!(offset_of!(ProducerPage, counters) == 256);
    assert!(size_of::<ConsumerPage>() == 512);
    assert!(offset_of!(ConsumerPage, bell) == 128);
    assert!(offset_of!(ConsumerPage, progress) == 256);
    assert!(offset_of!(ConsumerPage, end) == 384);
    assert!(size_of::<ProducerRole>() == 256);
    assert!(offset_of!(ProducerRole, latest) == 128);
    assert!(size_of::<ConsumerRole>() == 256);
    assert!(size_of::<RoleRecord>() == 128);
    assert!(offset_of!(RoleRecord, side) == 64);
    assert!(offset_of!(RoleRecord, first) == 72);
    assert!(offset_of!(Roster, records) == 128);
    assert!(size_of::<Roster>() == 128 + 128 * MAX_PARTICIPANTS);
    assert!(size_of::<Roster>() as u64 <= ROSTER_LEN);
    assert!(offset_of!(ConsumerRole, dead) == 128);
    assert!(size_of::<ConsumerPage>() as u64 <= PAGE);
    assert!(size_of::<ProducerPage>() as u64 <= BOARD_AT);
    assert!(size_of::<Mark>() == 16);
    assert!(offset_of!(Board, newest) == 128);
    assert!(offset_of!(Board, expelled) == 256);
    assert!(offset_of!(Board, marks) == 768);
    assert!(size_of::<Board>() as u64 + BOARD_AT <= PAGE);
};

/// [`FileHeader::flags`] of an MPMC channel: messages die with their receivers.
pub const FLAG_DROP: u32 = 1;
/// [`FileHeader::flags`] of an MPMC channel: it ends when the last sender has left.
pub const FLAG_UNTIL_LAST: u32 = 2;

/// What everybody of an MPMC channel writes, but for the slots and their words.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct QueuePage {
    /// Where senders begin to look; written every 16 tickets.
    pub tail: Line,
    /// Where receivers begin to look; written every 16 tickets.
    pub head: Line,
    /// Seldom written, looked at by those who find nothing.
    pub news: News,
    /// Senders that sleep because the queue is full.
    pub senders: Sleepers,
    /// Receivers that sleep because it is empty.
    pub receivers: Sleepers,
    /// By participant.
    pub seats: [SeatPage; MAX_PARTICIPANTS],
}

/// A word on a line of its own.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Line {
    /// The word.
    pub word: Word,
}

/// What is news to those who wait.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct News {
    /// Counts the sweeps that may have left messages to deliver again.
    pub returns: Word,
    /// Messages that died with their receivers.
    pub dropped: Word,
    /// Claims of dead senders that were given up.
    pub given_up: Word,
    /// Messages of receivers that died or left, which came back.
    pub returned: Word,
    /// Counts the senders that came.
    pub arrivals: Word,
    /// Counts the senders that left.
    pub departures: Word,
}

/// Who sleeps on one side.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Sleepers {
    /// A bit for each participant; its sweep clears it.
    pub bits: Word,
    /// 1: somebody who sleeps here can't run a membarrier, so that wakers need fences of their own.
    pub fences: Word32,
}

/// What belongs to one participant of an MPMC channel.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct SeatPage {
    /// Counts the wakes it was given; it sleeps on it.
    pub rung: Rung,
    /// Written by the participant alone. Goes on where the last holder of the seat stopped.
    pub counters: SeatCounters,
}

/// A futex on a line of its own.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Rung {
    /// Its word.
    pub count: Word32,
}

/// What a participant did.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct SeatCounters {
    /// Messages published.
    pub sent: Word,
    /// Bytes of them.
    pub bytes: Word,
    /// Messages released.
    pub received: Word,
    /// Those of them that another receiver may have had before.
    pub redelivered: Word,
    /// Times it found no room.
    pub full_waits: Word,
    /// Times it went to sleep, as a sender and as a receiver.
    pub parks: [Word; 2],
    /// Times it woke somebody, as a sender and as a receiver.
    pub wakes: [Word; 2],
}

/// Bytes of a [`QueuePage`]'s section: whole pages.
pub const QUEUE_LEN: u64 = 5 * PAGE;

#[cfg(not(loom))]
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(offset_of!(QueuePage, head) == 128);
    assert!(offset_of!(QueuePage, news) == 256);
    assert!(offset_of!(QueuePage, senders) == 384);
    assert!(offset_of!(QueuePage, receivers) == 512);
    assert!(offset_of!(QueuePage, seats) == 640);
    assert!(offset_of!(SeatPage, counters) == 128);
    assert!(size_of::<SeatPage>() == 256);
    assert!(size_of::<QueuePage>() as u64 <= QUEUE_LEN);
};

/// Bytes of a record's header, one word. A message starts `payload_offset` bytes into its record.
pub const RECORD_HEADER: u64 = 8;

/// Where the elements of an array record start, whatever `payload_offset` is.
pub const ARRAY_OFFSET: u64 = 16;

/// Where its [`ArrayShape`] is: behind the header.
pub const ARRAY_SHAPE: u64 = RECORD_HEADER;

/// Most elements of an array record, and most messages that are released at once: few enough that
/// sequence numbers of 24 bits tell them apart.
pub const RUN_MAX: u64 = 1 << 20;

/// The header of a record: `len` in bits 0..32, kind in 32..40, in 40..64 the low bits of the
/// sequence number of its first message. Zero: not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader(pub u64);

/// One message.
pub const RECORD_MESSAGE: u8 = 1;
/// Nothing: the reader skips to the start of the ring. Carries the number of the message there.
pub const RECORD_PADDING: u8 = 2;
/// `count` messages of one length, which start at [`ARRAY_OFFSET`].
pub const RECORD_ARRAY: u8 = 3;

/// Bits of a sequence number in a record's header.
pub const SEQUENCE_MASK: u64 = 0xff_ffff;

impl RecordHeader {
    /// `len` counts the bytes of the message, of all elements, or of the padding behind its header.
    #[inline(always)]
    pub const fn new(len: u32, kind: u8, sequence: u64) -> Self {
        Self(len as u64 | (kind as u64) << 32 | sequence << 40)
    }

    /// Of the message with that number, as if it had no bytes.
    #[inline(always)]
    pub const fn upcoming(sequence: u64) -> Self {
        Self::new(0, RECORD_MESSAGE, sequence)
    }

    /// What an [`Self::upcoming`] one becomes when it is known what comes.
    #[inline(always)]
    pub const fn of(self, len: u32, kind: u8) -> Self {
        Self(self.0.wrapping_add(Self::new(len, kind - RECORD_MESSAGE, 0).0))
    }

    /// Its number in full: the first one with those bits from `before` on.
    #[inline(always)]
    pub const fn count_from(self, before: u64) -> u64 {
        before.wrapping_add((self.0 >> 40).wrapping_sub(before) & SEQUENCE_MASK)
    }

    /// The same, so many messages later.
    #[inline(always)]
    pub const fn later(self, messages: u64) -> Self {
        Self(self.0.wrapping_add(messages << 40))
    }

    /// Bytes of the message, of all elements, or of the padding behind its header.
    #[inline(always)]
    pub fn body_len(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// One of `RECORD_*` in a sound ring.
    #[inline(always)]
    pub fn kind(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// The sequence number of its first message, modulo 2^24.
    #[inline(always)]
    pub fn sequence(self) -> u64 {
        self.0 >> 40
    }
}

/// The second word of an array record: bytes of an element in bits 0..32, how many there are in 32..64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayShape(pub u64);

impl ArrayShape {
    /// Of `count` messages of `len` bytes.
    #[inline(always)]
    pub const fn new(len: u64, count: u64) -> Self {
        Self(len | count << 32)
    }

    /// Bytes of each message.
    #[inline(always)]
    pub fn each(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// How many there are.
    #[inline(always)]
    pub fn count(self) -> u64 {
        self.0 >> 32
    }
}
