//! Which lines either side asks for before it uses them. A line that the other side had last takes hundreds of
//! instructions to come; asked for in time, many come at once. Hints only: nothing here can be wrong, but
//! late or in the way.

use super::sizes::is_within_line;
use crate::layout::{LINE, RECORD_HEADER};
use crate::memory::RingMemory;

/// How far ahead lines are asked for, in bytes. Who writes a record of up to [`NEAR`] bytes asks so far ahead for as
/// many lines as it fills; for its own it asks again, unless it is short. On a Sapphire Rapids, with 2048, 4096 and 8192
/// (and [`READER_DISTANCE`]), a message of 64 bytes took 4.04, 3.70 and 3.74 ns in a ring of 1 MiB, 3.56, 3.56 and 4.7 in
/// one of 4 MiB, 4.15, 2.94 and 2.8 to 5 in one of 16 MiB; in batches of 32 in one of 64 KiB 5.9, 6.2 and 6.3. In a loop
/// that is not in the tree; `ringway-bench stream --size 64 --capacity 1MiB --systems ringway-shm-raw` measures the same.
/// On a Cascade Lake 256 to 4096 made no difference beyond 7 %.
const DISTANCE: usize = 4096;

/// Messages of up to so many bytes are near each other, so that lines are asked for ahead when room is claimed. Of
/// longer ones only their own: with those ahead of 1 KiB as well a round trip took 822 to 870 ns, without 790 to 815, and
/// a message of a stream 46 to 49 either way, but once 59 without. Measured as above.
const NEAR: u64 = 512;

/// How far ahead a reader asks for lines in a stream of short messages, in bytes. Its instructions for one message are
/// too many for the processor to find the loads of the next lines among them by itself, and lines of a ring that is
/// larger than the writer's own cache come from further away. Measured as above, of 64 bytes with 1024, 2048, 4096 and
/// 8192: in a ring of 4 MiB 6.0, 5.0 to 5.2, 3.6 and 3.6 ns, in one of 1 MiB 4.2, 4.2, 4.0 and 4.0. Only in a stream: who
/// has found the ring empty would take lines from a writer that is about to write them.
const READER_DISTANCE: u64 = 8192;

/// A smaller share of the ring, as further ahead of a reader is where the writer may be: in one of 64 KiB, 8 bytes took
/// 2.05 ns with 2048, 2.15 with 4096 and 2.33 with 8192; in one of 256 KiB the same with all three.
const READER_SHARE: u64 = 32;

/// In rings of less a reader asks for nothing ahead.
const READER_CAPACITY: u64 = 32 << 10;

/// How many arrays ahead a reader in a stream asks for their lines. On a Sapphire Rapids, with 1 and with 3, arrays of 32
/// messages of 8 bytes: in a ring of 64 KiB 651 to 656 and 872 to 900 million messages a second, of 1 MiB 1,560 to 1,609
/// and 1,716 to 1,736, of 4 MiB 990 to 1,009 and 1,206 to 1,232; of 64 bytes in one of 32 KiB 140 and 130 to 138, of 1 MiB
/// 270 to 279 and 280 to 286. Where the cores are of two complexes of an EPYC, medians differ by 5 % at most
/// (`ringway-bench stream --size 8,64 --systems ringway-shm-typed-batch`).
const ARRAYS_AHEAD: u64 = 3;

/// Behind long records, if a quarter of the ring is not less: a loop that is not in the tree sent batches of
/// 2 KiB through a ring of 4 MiB at 1.2 times the rate that they had with half of it.
const LONG_DISTANCE: u64 = 4096;

/// Most lines that either side asks for at once: a page. With 256 a round trip of 64 KiB took 0.86 instead of
/// 0.97 of what it took without, in the same loop, but a stream of them in 4 MiB went at 0.90 instead of 0.98.
const MOST: u64 = 64;

/// Messages of up to so many bytes are short: one line ahead is enough.
const SHORT: u64 = 2 * LINE - RECORD_HEADER;

/// Records of more bytes are long: lines behind them are asked for when they were published. Measured as above, of 1 KiB: long, a
/// round trip takes 830 to 844 ns, and not long 795 to 851, and a message of a stream in a ring of 4 MiB 65 and 48.
const MIDDLING: u64 = 1536;

/// [`Ahead::long_at`]: there is none.
const NOWHERE: u64 = u64::MAX;

/// Whether so many bytes are a short message. Of the message, whose length is mostly a constant, where the size of its
/// record is not.
#[inline(always)]
pub(super) fn is_short(len: u64) -> bool {
    len <= SHORT
}

/// How far ahead a reader asks from now on that has had messages for an eighth of a lap without a gap, of so many bytes
/// each, in a ring of that capacity. It asks for nothing round the ring's end.
pub(super) fn for_reader(len: u64, capacity: u64) -> u64 {
    if is_short(len) && capacity >= READER_CAPACITY {
        READER_DISTANCE.min(capacity / READER_SHARE)
    } else {
        0
    }
}

/// What was asked for, and what is still to be.
#[derive(Debug)]
pub(super) struct Ahead {
    /// [`LONG_DISTANCE`], or less.
    long_distance: u64,
    /// capacity - 1.
    mask: u64,
    /// Ring offset of the first long record that was committed and not published yet, or [`NOWHERE`].
    long_at: u64,
}

impl Ahead {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            long_distance: LONG_DISTANCE.min(capacity / 4),
            mask: capacity - 1,
            long_at: NOWHERE,
        }
    }

    /// A record of `size` bytes is about to be written at `at`. Asks for two lines: its last one, so that
    /// it comes from the reader's cache at the same time as its first and not after it, and one ahead, if messages
    /// are near each other. The last one is not asked for any sooner: who polls the record before it draws that line away
    /// again. Of a message within a line it is at most the terminator's, which may be there already: asked for all the
    /// same, it is drawn away from a writer that has it, and a round trip of 48 bytes took 376 to 393 ns instead of 222 to
    /// 228, in a loop that is not in the tree; where it is not there, because sizes change from message to message, round
    /// trips take 1.02 to 1.06 times as long as if it were asked for.
    #[inline(always)]
    pub(super) fn claimed(memory: &impl RingMemory, at: u64, size: u64, len: u64) {
        if !is_within_line(len) {
            memory.prefetch_write::<0>(at.wrapping_add(size));
        }
        if len <= NEAR {
            memory.prefetch_write::<DISTANCE>(at);
        }
    }

    /// Unless that is enough, as for a message that [is short](is_short): the same record has several lines. Its own
    /// may have been asked for before, and a reader whose processor asks ahead by itself may have taken them back;
    /// written without, they come one after the other. With both, messages of 256 and 512 bytes take round trips of 543
    /// and 610 ns and 14.2 and 25.2 in a stream, with those ahead alone 594, 1,050, 15.3 and 27.5, with their own alone 552,
    /// 620, 18.4 and 31.7. Returns whether it is long, so that its commit is to be told, too.
    pub(super) fn claimed_more(
        &self,
        memory: &impl RingMemory,
        at: u64,
        size: u64,
        len: u64,
    ) -> bool {
        self.ask(memory, at + LINE, (size / LINE).min(MOST));
        if len <= NEAR {
            self.ask(memory, at + DISTANCE as u64 + LINE, (size / LINE).saturating_sub(1));
        }
        size > MIDDLING
    }

    /// A record was written, and is published now or with its batch.
    pub(super) fn committed(&mut self, at: u64, size: u64) {
        if size > MIDDLING && self.long_at == NOWHERE {
            self.long_at = at;
        }
    }

    /// All that was committed was published, and the next record goes to `front`. Behind a long record asks for
    /// as many lines as were written since; before, they would have been in the way of its own, and of the
    /// reader.
    #[inline(always)]
    pub(super) fn published(&mut self, memory: &impl RingMemory, front: u64) {
        if self.long_at != NOWHERE {
            let size = front.wrapping_sub(self.long_at) & self.mask;
            let from = self.long_at + self.long_distance.max(size);
            self.ask(memory, from, (size / LINE).min(MOST));
            self.long_at = NOWHERE;
        }
    }

    fn ask(&self, memory: &impl RingMemory, from: u64, lines: u64) {
        for line in 0..lines {
            memory.prefetch_write::<0>((from + line * LINE) & self.mask);
        }
    }
}

/// A reader in a stream begins an array of `size` bytes, which ends at `end`: asks for as many lines as it has, so many
/// arrays further on ([`ARRAYS_AHEAD`]).
#[inline(always)]
pub(super) fn entered_array(memory: &impl RingMemory, end: u64, size: u64) {
    let from = end + (ARRAYS_AHEAD - 1) * size;
    for line in 0..(size / LINE).min(MOST) {
        memory.prefetch_read(from + line * LINE);
    }
}
