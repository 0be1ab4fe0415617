//! The participants of a channel that has more than two ends: a table in `control`, with an entry
//! and a lock for each. Who may join, who is there, who died.
//!
//! An entry's lock is the proof: its byte of `control` is locked by the open file description of the
//! participant's handle, so the kernel gives it up when the process dies, and at no other time. What
//! an entry means to the ring (a cursor, claims in slots) is the business of the kind's algorithm;
//! it passes a `sweep`, which runs before an entry changes hands, so that nothing of the last holder
//! can be taken for the next one's. Nothing here is done on a timer, and nothing is written for
//! somebody else.

use std::io;
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::error::{Error, ErrorKind, Peer};
use crate::fork::OwnFile;
use crate::layout::{MAX_PARTICIPANTS, PARTICIPANT_LOCKS, Roster, SIDE_SENDS};
use crate::liveness::{self, Holder, Identity};
use crate::registry::LockedDirectory;

/// An entry of the table that this handle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Index of the entry.
    pub id: usize,
    /// Counts the holders of the entry; with `id`, it names this one for ever.
    pub epoch: u64,
}

/// What a participant comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// One of `SIDE_*`.
    pub side: u64,
    /// Number of the first segment that it reads; 0 for those who only send.
    pub first: u64,
}

/// The table, mapped. Whether it may be written is up to who mapped it.
#[derive(Clone, Debug)]
pub struct Table(Arc<MmapRaw>);

impl Table {
    /// `map` is of at least `ROSTER_LEN` bytes, and starts with the roster.
    pub fn new(map: MmapRaw) -> Self {
        assert!(map.len() >= size_of::<Roster>(), "the section's length was validated");
        Self(Arc::new(map))
    }

    /// The words.
    #[inline(always)]
    pub fn roster(&self) -> &Roster {
        // SAFETY: `new` checked that the mapping holds one, and mappings start on pages; it is made
        // of atomics, so other processes may write it, and any bytes are valid.
        unsafe { &*self.0.as_ptr().cast::<Roster>() }
    }
}

/// The table beside the file whose locks stand for its entries.
#[derive(Clone, Copy, Debug)]
pub struct Participants<'a> {
    /// Of this handle alone: locks belong to the open file description.
    pub file: &'a OwnFile,
    /// Mapped for writing if this handle is to join.
    pub roster: &'a Roster,
}

impl Participants<'_> {
    /// Takes an entry, under the directory's lock, and fills it in. Entries that were left cleanly,
    /// or never used, come first, those of the dead last. `sweep` gets the entry's index before
    /// anybody can take it for the newcomer's, and returns what the newcomer comes for; it is told
    /// whether the entry was in use before.
    pub fn join(
        &self,
        directory: &LockedDirectory,
        who: &Identity,
        mut sweep: impl FnMut(usize, bool) -> Result<Purpose, Error>,
    ) -> Result<Seat, Error> {
        let tried = || format!("becoming a participant of {}", directory.path().display());
        let Some(id) = self.take_free().map_err(|error| Error::io(tried(), error))? else {
            return Err(self.full(tried(), directory));
        };
        let record = &self.roster.records[id];
        crate::fault::point(crate::fault::Point::SeatTaken);
        let purpose = match sweep(id, record.epoch.load_relaxed() != 0) {
            Ok(purpose) => purpose,
            Err(error) => {
                liveness::unlock(self.file, lock_of(id));
                return Err(error);
            }
        };
        crate::fault::point(crate::fault::Point::SeatSwept);
        record.side.store_relaxed(purpose.side);
        record.first.store_relaxed(purpose.first);
        let epoch = liveness::join(record, who);
        // R12, pairs with A12 in those who watch. Under the directory's lock: no join hides another.
        let joins = &self.roster.changes.joins;
        joins.store_release(joins.load_relaxed().wrapping_add(1));
        crate::fault::point(crate::fault::Point::SeatFilled);
        Ok(Seat { id, epoch })
    }

    /// Notes that this participant leaves cleanly. [`Self::unlock`] follows, after any clean-up.
    pub fn leave(&self, seat: Seat) {
        liveness::leave(&self.roster.records[seat.id]);
    }

    /// Gives the entry back.
    pub fn unlock(&self, seat: Seat) {
        liveness::unlock(self.file, lock_of(seat.id));
    }

    /// Whether somebody other than through this handle holds the entry. One system call.
    pub fn is_held(&self, id: usize) -> bool {
        // A failing look proves nothing: then nobody may be called dead.
        liveness::is_locked(self.file, lock_of(id)).unwrap_or(true)
    }

    /// The holder of the entry, if it died without leaving: it is in the record, and its lock is
    /// free. One system call. Not for one's own entry.
    pub fn dead(&self, id: usize) -> Option<(u64, Peer)> {
        let record = &self.roster.records[id];
        let (epoch, pid) = liveness::attached(record)?;
        if self.is_held(id) {
            return None;
        }
        // The lock is free, but the record may be from before a clean leave just now.
        (liveness::attached(record) == Some((epoch, pid))).then_some((epoch, Peer { pid }))
    }

    /// The living, other than through this handle: index and what is written about them. One system
    /// call for each that has not left.
    pub fn others(&self) -> impl Iterator<Item = (usize, Holder)> {
        (0..MAX_PARTICIPANTS).filter_map(|id| {
            liveness::attached(&self.roster.records[id])?;
            self.is_held(id).then(|| (id, Holder::read(&self.roster.records[id])))
        })
    }

    /// Locks an entry.
    fn take_free(&self) -> io::Result<Option<usize>> {
        for of_the_dead in [false, true] {
            for (id, record) in self.roster.records.iter().enumerate() {
                if liveness::attached(record).is_some() == of_the_dead
                    && liveness::try_lock(self.file, lock_of(id))?
                {
                    return Ok(Some(id));
                }
            }
        }
        Ok(None)
    }

    fn full(&self, tried: String, directory: &LockedDirectory) -> Error {
        const SHOWN: usize = 8;
        let holders: Vec<String> = self
            .others()
            .map(|(_, holder)| {
                let sends = if holder.side == SIDE_SENDS { "sends" } else { "receives" };
                format!("{} {sends}", holder.describe())
            })
            .collect();
        let more = match holders.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Error::new(
            ErrorKind::RoleTaken,
            tried,
            format!(
                "all {MAX_PARTICIPANTS} places are taken: {}{more}",
                holders[..holders.len().min(SHOWN)].join("; ")
            ),
            format!(
                "End one of them (`fuser -v {}/control` lists all), or split the channel in two",
                directory.path().display()
            ),
        )
    }
}

fn lock_of(id: usize) -> u64 {
    PARTICIPANT_LOCKS + id as u64
}
