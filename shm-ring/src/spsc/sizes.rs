//! How many bytes of the ring a record takes, and what positions are multiples of: the one place that both sides
//! have it from. Nothing here touches the ring.

use super::Geometry;
use crate::layout::{ARRAY_OFFSET, LINE, RECORD_HEADER};

/// Least bytes of a record.
pub(crate) const RECORD_MIN: u64 = 16;

/// A message of up to so many bytes fits into a line with its header, and where all records have 16, 32 or 64, none is
/// in two lines. A longer one is in two or more anyway, and what counts is how many lines a stream fills: with 64 bytes
/// nine in eight messages and not five in four.
const WITHIN_LINE: u64 = LINE - RECORD_HEADER;

/// [`Geometry::record_align`] of rings whose long records are packed.
const PACKED: u64 = 16;

/// In so many free bytes fits every message that is no longer than what they leave behind [`Sizes::start`]. In fewer it
/// depends on the message, as short ones are rounded up further.
pub(crate) const RUN_MIN: u64 = LINE + RECORD_HEADER;

/// Whether a message of so many bytes fits into a line with its header. Of the message, whose length is mostly a constant.
#[inline(always)]
pub(super) const fn is_within_line(len: u64) -> bool {
    len <= WITHIN_LINE
}

/// The sizes of a ring's records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Of records with up to [`WITHIN_LINE`] bytes in them.
    short: Rounding,
    /// Of the others. Its unit is what all positions are multiples of.
    long: Rounding,
    /// Where a message starts in its record.
    start: u64,
}

/// What makes a record's size of the bytes in it.
#[derive(Clone, Copy, Debug)]
struct Rounding {
    /// What is added to a message's length,
    more: u64,
    /// and then rounded down to: minus the unit, as a mask.
    mask: u64,
}

impl Rounding {
    const fn to(unit: u64, start: u64) -> Self {
        Self { more: start + unit - 1, mask: unit.wrapping_neg() }
    }
}

impl Sizes {
    pub(crate) const fn of(geometry: Geometry) -> Self {
        let Geometry { record_align, payload_offset: start } = geometry;
        // Messages that need more than 8 have what they need in their place in the record, too.
        let packs = record_align == PACKED && start == RECORD_HEADER;
        let long = if packs { RECORD_HEADER } else { record_align };
        Self { short: Rounding::to(record_align, start), long: Rounding::to(long, start), start }
    }

    /// Bytes of the record of a message of `len` bytes. No checks: `len` is far below 2^64.
    #[inline(always)]
    pub(crate) const fn message(&self, len: u64) -> u64 {
        let Rounding { more, mask } = self.rounding(len);
        len.wrapping_add(more) & mask
    }

    /// Bytes of the record of an array of `len` bytes.
    #[inline(always)]
    pub(crate) const fn array(&self, len: u64) -> u64 {
        let Rounding { mask, .. } = self.rounding(len);
        len.wrapping_add(ARRAY_OFFSET + !mask) & mask
    }

    /// Where a message starts in its record.
    #[inline(always)]
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// What positions are multiples of, minus it: as a mask, rounds down to that.
    #[inline(always)]
    pub(crate) const fn mask(&self) -> u64 {
        self.long.mask
    }

    /// Whether a record may begin there.
    pub(crate) const fn is_position(&self, position: u64) -> bool {
        position & !self.long.mask == 0
    }

    #[inline(always)]
    const fn rounding(&self, len: u64) -> Rounding {
        if is_within_line(len) { self.short } else { self.long }
    }
}
