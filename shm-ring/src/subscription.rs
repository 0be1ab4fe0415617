//! How a reader comes into a broadcast channel, and how it leaves: its entry among the participants,
//! and its page in the segment that is being written.
//!
//! How a ring lets a newcomer in while messages flow is told in `broadcast`; entries and locks are
//! the business of `participants`. The handles that read are `consumer` and `subscriber`.

use crate::broadcast::{self, Posted};
use crate::control::Control;
use crate::error::{Error, ErrorKind};
use crate::layout::SIDE_RECEIVES;
use crate::liveness::Identity;
use crate::memory::{Boundary, RingMemory};
use crate::options::Kind;
use crate::participants::{Participants, Purpose, Seat};
use crate::registry::LockedDirectory;
use crate::segment::{self, Segment, Side};

/// A reader's entry, and the last segment that is none of its business.
#[derive(Debug)]
pub struct Subscription {
    seat: Seat,
    /// Every segment above it is to be read from its start.
    before: u32,
}

/// The segment that a reader came into while it was written.
#[derive(Debug)]
pub struct Entrance {
    /// Its number.
    pub number: u32,
    /// Mapped for this reader.
    pub segment: Segment,
    /// From here on nothing is overwritten until the reader gives it back, or, if the producer
    /// overwrites, until the ring has gone round.
    pub start: Boundary,
}

impl Subscription {
    /// Joins, under the directory's lock: no segment comes or goes meanwhile.
    pub fn begin(
        directory: &LockedDirectory,
        control: &Control,
        who: &Identity,
    ) -> Result<(Self, Option<Entrance>), Error> {
        let participants = table_of(control);
        let latest = control.producer().latest.number.load_acquire();
        let corrupt = |fault| segment::corrupt(control.directory(), latest, fault);
        let mut found = None;
        let seat = participants.join(directory, who, |id, _| {
            found = Segment::open(control, latest, Side::Consumer(id))?
                .filter(|segment| segment.producer_is_alive());
            if let Some(segment) = &found {
                let memory = segment.memory();
                broadcast::sweep(memory.consumer(), memory.board()).map_err(corrupt)?;
            }
            let first = if found.is_some() { latest } else { latest.saturating_add(1) };
            Ok(Purpose { side: SIDE_RECEIVES, first: first.into() })
        })?;
        let subscription = Self { seat, before: latest };
        let entrance = match found {
            None => None,
            Some(segment) => {
                let memory = segment.memory();
                match broadcast::settle(memory.consumer(), memory.board()) {
                    Ok(start) => Some(Entrance { number: latest, segment, start }),
                    Err(fault) => {
                        subscription.leave(control);
                        subscription.unlock(control);
                        return Err(corrupt(fault));
                    }
                }
            }
        };
        crate::fault::point(crate::fault::Point::Settled);
        Ok((subscription, entrance))
    }

    /// Index of its page in every segment.
    pub fn page(&self) -> usize {
        self.seat.id
    }

    /// Number of the last segment that is none of its business, or that it came into.
    pub fn before(&self) -> u32 {
        self.before
    }

    /// Whether the producer of that memory has given this reader up.
    pub fn is_expelled(&self, memory: &impl Posted) -> bool {
        memory.board().expelled[self.seat.id].load_relaxed() == self.seat.epoch
    }

    /// Leaves in good order: nobody waits for it any more.
    pub fn leave(&self, control: &Control) {
        table_of(control).leave(self.seat);
    }

    /// Gives the entry back, after any clean-up.
    pub fn unlock(&self, control: &Control) {
        table_of(control).unlock(self.seat);
    }
}

/// The error for a handle that lends messages where they lie, on a channel that overwrites them.
pub fn in_place_on_overwrite(control: &Control) -> Error {
    Error::new(
        ErrorKind::OptionMismatch,
        format!("opening {} to read or write in place", control.directory().display()),
        "the channel has kind=broadcast&overflow=overwrite, whose messages are overwritten while \
         they are read",
        "Use `Publisher` and `Subscriber`, which copy, or another name for a channel with \
         overflow=block",
    )
}

/// The error for a handle that copies messages, on a channel of another kind.
pub fn copied_on_another_kind(control: &Control) -> Error {
    let kind = match control.kind() {
        Kind::Broadcast => format!("kind=broadcast&overflow={}", control.overflow()),
        kind => format!("kind={kind}"),
    };
    Error::new(
        ErrorKind::OptionMismatch,
        format!("opening {} to copy messages", control.directory().display()),
        format!("the channel has {kind}"),
        "Use `Producer` and `Consumer`, or another name for a channel with \
         kind=broadcast&overflow=overwrite",
    )
}

fn table_of(control: &Control) -> Participants<'_> {
    control.participants().unwrap_or_else(|| unreachable!("broadcast channels have the table"))
}
