//! What a death or a departure leaves behind, and who clears it away: predecessors' segments by a
//! new producer, the whole channel by the last to close it.
//!
//! Deletes only what nobody can want any more: segments that are drained. Decides by locks and ring
//! contents, never by time.

use std::fs;
use std::time::Duration;

use crate::control::{Control, Role};
use crate::error::{Error, ErrorKind};
use crate::layout::FINISHED;
use crate::memory::RingMemory;
use crate::options::Options;
use crate::registry::{self, LockedDirectory};
use crate::segment::{self, Segment, Side};
use crate::spsc::Reader;

/// Dead or closed producers whose messages may wait for a consumer; a crash loop must not fill the
/// memory.
const MAX_UNDRAINED: usize = 4;

/// How long a closing handle waits to clear the channel away. Whatever it leaves, the next one to
/// close clears.
const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

/// For a new producer, under the directory's lock: deletes the drained segments of its
/// predecessors. Returns the number of the next segment.
pub fn clear_predecessors(directory: &LockedDirectory, control: &Control) -> Result<u32, Error> {
    let consumer_is_attached = control.is_held(Role::Consumer);
    let numbers = registry::segments(directory.path())?;
    let latest = &control.producer().latest.number;
    let mut kept = 0;
    for &number in &numbers {
        let is_over = match drained(control, number) {
            Drained::Told => true,
            // Its death or end is still to be told to the consumer that has it open.
            Drained::Untold => !consumer_is_attached,
            Drained::No => false,
        };
        if is_over {
            // A producer that died before it told its number is known by its file alone. The number
            // must not come again: a consumer that is through with it would pass over it.
            if number > latest.load_relaxed() {
                // R8, pairs with A8 in Consumer::open_next.
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
        let consumer = if consumer_is_attached {
            format!("{} does not", control.holder(Role::Consumer).describe())
        } else {
            "no consumer is there to".to_owned()
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

/// For a handle that closes, with its role still held and marked as left: removes the channel if
/// the other role is free and every message was taken out. Errors are not told: the files then stay
/// for the next one to close.
pub fn clear_if_last(control: &Control, role: Role) {
    let Ok(Some(directory)) = registry::relock(control.directory(), CLOSING_PATIENCE) else {
        control.unlock(role);
        return;
    };
    let numbers = registry::segments(directory.path());
    let is_over = !control.is_held(role.peer())
        && numbers.is_ok_and(|numbers| {
            numbers.iter().all(|&number| !matches!(drained(control, number), Drained::No))
        });
    // The role goes before the lock: whoever gets the lock next must find it free.
    control.unlock(role);
    if is_over {
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
        for role in [Role::Producer, Role::Consumer] {
            if control.is_held(role) {
                return Err(Error::new(
                    ErrorKind::RoleTaken,
                    format!("removing {}", directory.path().display()),
                    format!("it is in use by {}", control.holder(role).describe()),
                    "End that process first",
                ));
            }
        }
    }
    directory.remove()?;
    Ok(true)
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
    // A10, pairs with R10 in Consumer::finish.
    if memory.consumer().end.state.load_acquire() == FINISHED {
        return Drained::Told;
    }
    match Reader::attach(memory, segment.geometry()).and_then(|reader| reader.is_drained()) {
        Ok(true) => Drained::Untold,
        Ok(false) | Err(_) => Drained::No,
    }
}
