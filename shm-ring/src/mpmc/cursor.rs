//! Where the next claim of a participant begins, as far as it knows, and what it knows of its side's hint:
//! the same for senders and receivers. Claims nothing.

use super::memory::SlotWord;
use super::word::Lap;
use super::{Geometry, STEPS_PER_HINT, help, look};

/// A ticket, and how far it may go before the hint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cursor {
    next: u64,
    /// Of the slot of `next`. Each message needs it several times, and it is another only where the hint moves.
    lap: Lap,
    /// A claim from here on would be too far beyond the hint as last seen.
    far: u64,
}

impl Cursor {
    /// At the hint.
    pub(super) fn new<W: SlotWord>(geometry: &Geometry, hint: &W) -> Self {
        let next = look(hint);
        Self { next, lap: geometry.lap(next), far: geometry.far_beyond(next) }
    }

    /// The ticket.
    #[inline(always)]
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The lap of its slot.
    #[inline(always)]
    pub(super) fn lap(&self) -> Lap {
        self.lap
    }

    /// A claim from here on would be too far beyond the hint.
    #[inline(always)]
    pub(super) fn far(&self) -> u64 {
        self.far
    }

    /// Whether a claim here would be too far beyond the hint.
    #[inline(always)]
    pub(super) fn is_far(&self) -> bool {
        self.next >= self.far
    }

    /// Moves the hint, if it is too far behind for a claim here.
    #[inline(always)]
    pub(super) fn keep_hint<W: SlotWord>(&mut self, geometry: &Geometry, hint: &W) {
        if self.is_far() {
            self.move_hint(geometry, hint);
        }
    }

    /// Steps behind an own claim of `len` slots, which begins here, at `first`: with that, nothing is read again
    /// behind a swap. Returns whether the hint was to move, and did.
    #[inline(always)]
    pub(super) fn claimed<W: SlotWord>(
        &mut self,
        first: u64,
        len: u64,
        geometry: &Geometry,
        hint: &W,
    ) -> bool {
        debug_assert!(first == self.next);
        let next = first + len;
        self.next = next;
        // A lap ends nowhere else.
        let moves = geometry.moves_hint(first, next);
        if moves {
            self.lap = geometry.lap(next);
            self.move_hint(geometry, hint);
        }
        moves
    }

    /// Goes on behind that many slots.
    pub(super) fn skip(&mut self, slots: u64, geometry: &Geometry) {
        self.go_to(self.next + slots, geometry);
    }

    /// Goes on behind a claim of somebody else, the `taken`-th in a row; now and then, where the hint says.
    pub(super) fn step_over<W: SlotWord>(
        &mut self,
        run: u64,
        taken: u32,
        geometry: &Geometry,
        hint: &W,
    ) {
        self.skip(run, geometry);
        if taken.is_multiple_of(STEPS_PER_HINT) {
            let hint = self.look(geometry, hint);
            self.go_to(self.next.max(hint), geometry);
        }
    }

    /// Goes on where the hint says. False: that is not ahead.
    pub(super) fn follow_hint<W: SlotWord>(&mut self, geometry: &Geometry, hint: &W) -> bool {
        let hint = self.look(geometry, hint);
        let is_ahead = hint > self.next;
        if is_ahead {
            self.go_to(hint, geometry);
        }
        is_ahead
    }

    fn go_to(&mut self, ticket: u64, geometry: &Geometry) {
        self.next = ticket;
        self.lap = geometry.lap(ticket);
    }

    fn move_hint<W: SlotWord>(&mut self, geometry: &Geometry, hint: &W) {
        self.far = geometry.far_beyond(help(hint, self.next));
    }

    fn look<W: SlotWord>(&mut self, geometry: &Geometry, hint: &W) -> u64 {
        let hint = look(hint);
        self.far = geometry.far_beyond(hint);
        hint
    }
}
