//! What channels there are, who has them open and what they have done: a look by somebody who takes no
//! part. Takes no lock and writes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::broadcast::Hall;
use crate::control::{CONTROL, Control, Role};
use crate::counters::Stats;
use crate::error::Error;
use crate::layout::SIDE_SENDS;
use crate::liveness::Holder;
use crate::memory::{RingMemory, sent_by};
use crate::options::Kind;
use crate::queue;
use crate::registry;
use crate::segment::{Segment, Side};

/// A channel as it was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Who gets the messages.
    pub kind: Kind,
    /// Bytes of ring, or of slots.
    pub capacity: u64,
    /// Who has it open, by their locks.
    pub ends: Vec<ListedEnd>,
    /// Counters of the newest segment. `None`: nobody has sent yet, or all of it is cleared away.
    pub stats: Option<Stats>,
    /// Segments that are there: those of producers before the newest are kept until they are drained.
    pub segments: usize,
}

/// A process that has a channel open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListedEnd {
    /// It sends; else it receives.
    pub sends: bool,
    /// In its own pid namespace.
    pub pid: u32,
    /// The process in words: number, command, since when.
    pub who: String,
}

/// A name, and the channel, or why it can't be read.
pub type Named = (String, Result<Listed, Error>);

/// The channels in the directory (`None`: the usual one), by name.
///
/// # Errors
/// Those of the file system, about the directory itself.
pub fn channels(directory: Option<&Path>) -> Result<Vec<Named>, Error> {
    let root = registry::root(directory, false)?;
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("listing {}", root.display()), error)),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.join(CONTROL).symlink_metadata().is_ok())
        .collect();
    paths.sort();
    let listed = paths.into_iter().filter_map(|path| {
        let name = path.file_name()?.to_string_lossy().escape_debug().to_string();
        Some((name, look(&path).transpose()?))
    });
    Ok(listed.collect())
}

/// `None`: it went away meanwhile.
fn look(path: &Path) -> Result<Option<Listed>, Error> {
    let Some(control) = Control::open(path)? else { return Ok(None) };
    let numbers = match registry::segments(path) {
        Ok(numbers) => numbers,
        // The last one has closed it.
        Err(_) if !path.exists() => return Ok(None),
        Err(error) => return Err(error),
    };
    let end =
        |sends: bool, holder: Holder| ListedEnd { sends, pid: holder.pid, who: holder.describe() };
    let roles = [Role::Producer, Role::Consumer].into_iter();
    let mut ends: Vec<ListedEnd> = roles
        .filter(|role| control.is_held(*role))
        .map(|role| end(role == Role::Producer, control.holder(role)))
        .collect();
    if let Some(participants) = control.participants() {
        let others = participants.others();
        ends.extend(others.map(|(_, holder)| end(holder.side == SIDE_SENDS, holder)));
    }
    let stats = match control.kind() {
        Kind::Mpmc => queue::open(&control)?.map(|memory| Stats::of_queue(memory.page())),
        kind => match numbers.last() {
            None => None,
            Some(&number) => Segment::open(&control, number, Side::Observer)?
                .map(|segment| of_segment(&control, &segment, kind)),
        },
    };
    Ok(Some(Listed {
        kind: control.kind(),
        capacity: control.header().capacity,
        ends,
        stats,
        segments: numbers.len(),
    }))
}

fn of_segment(control: &Control, segment: &Segment, kind: Kind) -> Stats {
    let memory = segment.memory();
    let stats = Stats::read(&memory);
    let (Kind::Broadcast, Some(participants)) = (kind, control.participants()) else {
        return stats;
    };
    // The slowest of those who read this segment: each has a page of it.
    let number = segment.header().generation;
    let readers = participants
        .others()
        .filter(|(_, other)| other.side != SIDE_SENDS && other.first <= number)
        .map(|(seat, _)| memory.seat(seat).progress.received.load_acquire());
    let sent = sent_by(memory.producer());
    Stats::of_broadcast(&memory, readers.min().map(|received| received.min(sent)))
}
