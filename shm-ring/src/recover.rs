//! What a death or a departure leaves behind, and who clears it away: predecessors' segments by a
//! new producer, the whole channel by the last to close it.
//!
//! Deletes only what nobody can want any more: segments that are drained. Decides by locks and ring
//! contents, never by time.

use std::fs;
use std::time::Duration;

use crate::broadcast::Hall;
use crate::control::{Control, Role};
use crate::error::{Error, ErrorKind};
use crate::layout::{FINISHED, SIDE_RECEIVES};
use crate::liveness::Holder;
use crate::memory::RingMemory;
use crate::options::{Kind, Options};
use crate::registry::{self, LockedDirectory};
use crate::segment::{self, Segment, Side};
use crate::spsc::Reader;
use crate::subscription::Subscription;

/// Dead or closed producers whose messages may wait for a consumer; a crash loop must not fill the
/// memory.
const MAX_UNDRAINED: usize = 4;

/// How long a closing handle waits to clear the channel away. Whatever it leaves, the next one to
/// close clears.
const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

/// For a new producer, under the directory's lock: deletes the drained segments of its
/// predecessors. Returns the number of the next segment.
pub fn clear_predecessors(directory: &LockedDirectory, control: &Control) -> Result<u32, Error> {
    let readers = Readers::of(control);
    let numbers = registry::segments(directory.path())?;
    let latest = &control.producer().latest.number;
    let mut kept = 0;
    for &number in &numbers {
        if readers.are_through(control, number) {
            // A producer that died before it told its number is known by its file alone. The number
            // must not come again: a consumer that is through with it would pass over it.
            if number > latest.load_relaxed() {
                // R8, pairs with A8 in Listener::open_next.
                latest.store_release(number);
            }
            let path = segment::path_of(directory.path(), number);
            fs::remove_file(&path)
                .map_err(|error| Error::io(format!("removing {}", path.display()), error))?;
        } else {
            kept += 1;
        }
    }
    if kept > MAX_UNDRAINED {
        let consumer = match readers.somebody() {
            Some(reader) => format!("{} does not", reader.describe()),
            None => "no consumer is there to".to_owned(),
        };
        return Err(Error::new(
            ErrorKind::Undrained,
            format!("becoming the producer of {}", directory.path().display()),
            format!(
                "{kept} earlier producers left segments behind, and {consumer} take out what is in \
                 them"
            ),
            format!(
                "Start a consumer, or, if nobody needs the messages, end the programs that use \
                 the channel and: rm -r {}",
                directory.path().display()
            ),
        ));
    }
    let newest = numbers.last().copied().unwrap_or(0);
    newest.max(latest.load_relaxed()).checked_add(1).ok_or_else(|| {
        Error::new(
            ErrorKind::Damaged,
            format!("becoming the producer of {}", directory.path().display()),
            format!("segment number {} is in use, and there is none above it", u32::MAX),
            format!("If no program uses the channel: rm -r {}", directory.path().display()),
        )
    })
}

/// What a handle holds of a channel.
#[derive(Debug)]
pub enum End {
    /// One of its two roles.
    Role(Role),
    /// One of many places to read from.
    Place(Subscription),
}

impl End {
    /// Leaves it in good order.
    pub fn leave(&self, control: &Control) {
        match self {
            Self::Role(role) => control.leave(*role),
            Self::Place(place) => place.leave(control),
        }
    }

    fn unlock(&self, control: &Control) {
        match self {
            Self::Role(role) => control.unlock(*role),
            Self::Place(place) => place.unlock(control),
        }
    }

    /// Whether somebody else has the channel open.
    fn others_are_there(&self, control: &Control) -> bool {
        let is_held = match self {
            Self::Role(role) => control.is_held(role.peer()),
            Self::Place(_) => control.is_held(Role::Producer),
        };
        is_held || control.participants().is_some_and(|others| others.others().next().is_some())
    }
}

/// For a handle that closes, with what it holds still locked and marked as left: removes the channel
/// if nobody else is there and nobody can want its messages. Errors are not told: the files then stay
/// for the next one to close.
pub fn clear_if_last(control: &Control, end: &End) {
    let Ok(Some(directory)) = registry::relock(control.directory(), CLOSING_PATIENCE) else {
        end.unlock(control);
        return;
    };
    let numbers = registry::segments(directory.path());
    let is_over = control.is_in(&directory)
        && !end.others_are_there(control)
        && numbers.is_ok_and(|numbers| {
            // A broadcast's messages are for those who are there.
            control.kind() == Kind::Broadcast
                || numbers.iter().all(|&number| !matches!(drained(control, number), Drained::No))
        });
    // The lock that is the end goes before the directory's: whoever gets that next must find it free.
    end.unlock(control);
    if is_over {
        let _ = directory.remove();
    }
}

/// For an opening that failed with nothing taken, under the directory's lock: removes the channel if nobody has
/// it open and it has no segments, which is how the opening would leave it. The options of what failed are not
/// to stand against the next try.
pub fn abandon(control: &Control, directory: LockedDirectory) {
    let is_open = [Role::Producer, Role::Consumer].into_iter().any(|role| control.is_held(role))
        || control.participants().is_some_and(|others| others.others().next().is_some());
    let numbers = registry::segments(directory.path());
    if !is_open && numbers.is_ok_and(|numbers| numbers.is_empty()) {
        let _ = directory.remove();
    }
}

/// Removes a channel that nobody has open, with every message in it. False: there is none.
///
/// # Errors
/// [`ErrorKind::RoleTaken`] when a process has it open; those of the file system.
pub fn remove(options: &Options) -> Result<bool, Error> {
    options.check()?;
    let Some(directory) = registry::lock_existing(options)? else { return Ok(false) };
    // A damaged control file is no reason to keep the channel, but then nobody can tell who uses it.
    if let Some(control) = Control::open(directory.path())? {
        let roles = [Role::Producer, Role::Consumer].into_iter();
        let holder = roles
            .filter(|role| control.is_held(*role))
            .map(|role| control.holder(role))
            .chain(control.participants().and_then(|others| Some(others.others().next()?.1)))
            .next();
        if let Some(holder) = holder {
            return Err(Error::new(
                ErrorKind::RoleTaken,
                format!("removing {}", directory.path().display()),
                format!("it is in use by {}", holder.describe()),
                "End that process first",
            ));
        }
    }
    directory.remove()?;
    Ok(true)
}

/// Who reads a channel, as a new producer finds it.
enum Readers {
    /// The consumer, if there is one.
    One(Option<Holder>),
    /// Those of a broadcast: their pages, and who they are.
    Many(Vec<(usize, Holder)>),
}

impl Readers {
    fn of(control: &Control) -> Self {
        match control.participants() {
            None => {
                let is_held = control.is_held(Role::Consumer);
                Self::One(is_held.then(|| control.holder(Role::Consumer)))
            }
            Some(participants) => Self::Many(
                participants.others().filter(|(_, other)| other.side == SIDE_RECEIVES).collect(),
            ),
        }
    }

    /// Whether the segment of a predecessor is of no use to anybody any more.
    fn are_through(&self, control: &Control, number: u32) -> bool {
        match self {
            Self::One(consumer) => match drained(control, number) {
                Drained::Told => true,
                // Its death or end is still to be told to the consumer that has it open.
                Drained::Untold => consumer.is_none(),
                Drained::No => false,
            },
            Self::Many(readers) => {
                let mut readers =
                    readers.iter().filter(|(_, reader)| reader.first <= number.into()).peekable();
                if readers.peek().is_none() {
                    return true;
                }
                let Ok(Some(segment)) = Segment::open(control, number, Side::Observer) else {
                    return false;
                };
                let memory = segment.memory();
                // A10, pairs with R10 in Listener::finish.
                readers.all(|(page, _)| memory.seat(*page).end.state.load_acquire() == FINISHED)
            }
        }
    }

    fn somebody(&self) -> Option<&Holder> {
        match self {
            Self::One(consumer) => consumer.as_ref(),
            Self::Many(readers) => readers.first().map(|(_, reader)| reader),
        }
    }
}

enum Drained {
    /// Everything was taken out, and the consumer knows how it ended.
    Told,
    /// Everything was taken out.
    Untold,
    /// Something is left, or it can't be told.
    No,
}

fn drained(control: &Control, number: u32) -> Drained {
    let Ok(Some(segment)) = Segment::open(control, number, Side::Observer) else {
        return Drained::No;
    };
    let memory = segment.memory();
    // A10, pairs with R10 in Listener::finish.
    if memory.consumer().end.state.load_acquire() == FINISHED {
        return Drained::Told;
    }
    match Reader::attach(memory, segment.geometry()).and_then(|reader| reader.is_drained()) {
        Ok(true) => Drained::Untold,
        Ok(false) | Err(_) => Drained::No,
    }
}
