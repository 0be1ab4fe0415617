//! The control file of a channel: what the channel is, who holds its roles, which segment is the
//! newest. It outlives producers and consumers.
//!
//! Roles are taken and given back here; what a death leaves behind is repaired in `recover`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;

use crate::error::{Error, ErrorKind};
use crate::fault::{self, Point};
use crate::file;
use crate::fork::OwnFile;
use crate::layout::{
    CONTROL_MAGIC, ConsumerRole, FLAG_DROP, FLAG_UNTIL_LAST, FileHeader, MAX_PARTICIPANTS, PAGE,
    ProducerRole, ROSTER_LEN, RoleRecord, SECTION_CONSUMER, SECTION_PARTICIPANTS, SECTION_PRODUCER,
    SECTION_SCHEMA, Section,
};
use crate::liveness::{self, Holder, Identity};
use crate::mpmc::Redeliver;
use crate::options::{
    DEFAULT_CAPACITY, DEFAULT_RECORD_ALIGN, DEFAULT_SLOT, DEFAULT_SLOTS, Kind, MAX_SCHEMA_LEN,
    Options, Overflow, Size, Until, Wait,
};
use crate::participants::{Participants, Table};
use crate::registry::{self, LockedDirectory, PATIENCE};

/// Name of the control file in a channel's directory.
pub const CONTROL: &str = "control";

/// The two ends of a channel. The discriminant is the byte of `control` whose lock is the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Role {
    /// Sends.
    Producer = 0,
    /// Receives.
    Consumer = 1,
}

impl Role {
    /// The other end.
    pub fn peer(self) -> Self {
        match self {
            Self::Producer => Self::Consumer,
            Self::Consumer => Self::Producer,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// An open control file. Each handle opens its own, because the lock that is the role belongs to
/// the open file description.
#[derive(Debug)]
pub struct Control {
    file: OwnFile,
    directory: PathBuf,
    header: FileHeader,
    producer: MmapRaw,
    consumer: MmapRaw,
    /// On kinds that have one.
    table: Option<Table>,
}

impl Control {
    /// Opens the channel's control file, or creates it from the options, and checks the options
    /// against it. The caller holds the directory's lock. `role` tells which page may be written.
    fn open_or_create(directory: &Path, options: &Options, role: Role) -> Result<Self, Error> {
        let path = directory.join(CONTROL);
        let file = match file::open(&path)? {
            Some(file) => file,
            None => create(directory, options)?,
        };
        let header = file::validate(&file, &path, CONTROL_MAGIC)?;
        check_schema(&file, &path, &header, options)?;
        check_options(&path, &header, options)?;
        Self::map(file, directory, header, Some(role))
    }

    /// Opens the control file as it is, for a look or a removal. `None`: there is none.
    pub fn open(directory: &Path) -> Result<Option<Self>, Error> {
        Self::open_for(directory, None)
    }

    /// `role` tells which page may be written.
    fn open_for(directory: &Path, role: Option<Role>) -> Result<Option<Self>, Error> {
        let path = directory.join(CONTROL);
        let Some(file) = file::open(&path)? else { return Ok(None) };
        let header = file::validate(&file, &path, CONTROL_MAGIC)?;
        Self::map(file, directory, header, role).map(Some)
    }

    fn map(
        file: OwnFile,
        directory: &Path,
        header: FileHeader,
        role: Option<Role>,
    ) -> Result<Self, Error> {
        let path = directory.join(CONTROL);
        let page = |kind, writable| {
            let Some(section) = header.section(kind).filter(|section| section.len == PAGE) else {
                return Err(file::damaged(&path, "it lacks a section"));
            };
            file::map(&file, &path, section.offset, PAGE, writable)
        };
        let producer = page(SECTION_PRODUCER, role == Some(Role::Producer))?;
        let consumer = page(SECTION_CONSUMER, role == Some(Role::Consumer))?;
        let table = match header.seats {
            0 => None,
            _ => {
                let section = header
                    .section(SECTION_PARTICIPANTS)
                    .filter(|section| section.len == ROSTER_LEN)
                    .ok_or_else(|| file::damaged(&path, "it lacks its table of participants"))?;
                // A broadcast's producer takes no entry, and only looks.
                let writable = role == Some(Role::Consumer);
                let map = file::map(&file, &path, section.offset, ROSTER_LEN, writable)?;
                Some(Table::new(map))
            }
        };
        let directory = directory.to_owned();
        Ok(Self { directory, header, producer, consumer, table, file })
    }

    /// Opens or creates the channel and takes the role, or tells who has it. Waits for a holder
    /// that is just leaving. On channels with participants who receives takes none here; those of
    /// kind=mpmc, where nobody has a role, are refused.
    pub fn join(
        options: &Options,
        role: Role,
        who: &Identity,
    ) -> Result<(LockedDirectory, Self), Error> {
        options.check()?;
        if options.kind == Some(Kind::Mpmc) {
            return Err(no_roles(&format!("channel {:?}", options.name)));
        }
        let start = Instant::now();
        loop {
            let directory = registry::lock_or_create(options)?;
            let control = Self::open_or_create(directory.path(), options, role)?;
            if control.kind() == Kind::Mpmc {
                return Err(no_roles(&directory.path().display().to_string()));
            }
            let tried =
                || format!("becoming the {} of {}", role.name(), directory.path().display());
            // Readers of a broadcast have no role, but entries of their own.
            if role == Role::Consumer && control.kind().has_participants() {
                return Ok((directory, control));
            }
            if control.take(role, who).map_err(|error| Error::io(tried(), error))? {
                return Ok((directory, control));
            }
            let holder = control.holder(role);
            if holder.attached {
                return Err(taken(tried(), &holder));
            }
            if start.elapsed() >= PATIENCE {
                return Err(Error::new(
                    ErrorKind::Busy,
                    tried(),
                    format!("{} has left the channel, but not let go of it", holder.describe()),
                    "It may be stopped: continue or end it",
                ));
            }
            // It needs the directory's lock to clear up.
            drop(directory);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Opens or creates a channel whose ends are all participants. The caller takes a place in its
    /// table, under the lock that comes with it.
    pub fn join_table(options: &Options) -> Result<(LockedDirectory, Self), Error> {
        options.check()?;
        let directory = registry::lock_or_create(options)?;
        // Who may write the table writes it as a consumer of a broadcast would.
        let control = Self::open_or_create(directory.path(), options, Role::Consumer)?;
        Ok((directory, control))
    }

    /// As [`Self::join_table`], of the channel that this one is of. Where that is was settled when this one was
    /// opened: neither the working directory nor `RINGWAY_DIR` is asked again.
    pub fn join_table_again(&self) -> Result<(LockedDirectory, Self), Error> {
        let gone = || {
            Error::new(
                ErrorKind::NoDirectory,
                format!("making another handle of {}", self.directory.display()),
                "the channel was removed while this handle had it open; one of the same name is another channel",
                "Drop this handle, and open the channel by its name",
            )
        };
        let directory = registry::relock(&self.directory, PATIENCE)?;
        let directory = directory.filter(|directory| self.is_in(directory)).ok_or_else(gone)?;
        let control = Self::open_for(directory.path(), Some(Role::Consumer))?.ok_or_else(gone)?;
        Ok((directory, control))
    }

    /// Takes the role if it is free.
    fn take(&self, role: Role, who: &Identity) -> io::Result<bool> {
        if !liveness::try_lock(&self.file, role as u64)? {
            return Ok(false);
        }
        if role == Role::Consumer {
            self.note_dead_consumer();
        }
        liveness::join(self.record(role), who);
        Ok(true)
    }

    /// Leaves the role in good order: the peer is told "closed", not "died".
    pub fn leave(&self, role: Role) {
        liveness::leave(self.record(role));
    }

    /// Gives the role back. After `leave` and any clean-up under it.
    pub fn unlock(&self, role: Role) {
        liveness::unlock(&self.file, role as u64);
    }

    /// Whether a living process other than through this handle has the role.
    pub fn is_held(&self, role: Role) -> bool {
        // A failing look proves nothing: then nobody may be called dead.
        liveness::is_locked(&self.file, role as u64).unwrap_or(true)
    }

    /// What is written about the role's holder.
    pub fn holder(&self, role: Role) -> Holder {
        Holder::read(self.record(role))
    }

    /// Whether that directory is still this channel's: somebody may have removed it by hand, and others have
    /// made one of the same name.
    pub fn is_in(&self, directory: &LockedDirectory) -> bool {
        registry::is_same(&self.file, &directory.path().join(CONTROL))
    }

    /// The channel's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The validated header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The table of participants, on kinds that have one.
    pub fn participants(&self) -> Option<Participants<'_>> {
        let table = self.table.as_ref()?;
        Some(Participants { file: &self.file, roster: table.roster() })
    }

    /// The table itself, for views that outlive a borrow.
    pub fn table(&self) -> Option<Table> {
        self.table.clone()
    }

    /// Who gets the messages.
    pub fn kind(&self) -> Kind {
        Kind::from_code(self.header.kind).unwrap_or_default()
    }

    /// What a broadcast does with subscribers that are behind.
    pub fn overflow(&self) -> Overflow {
        Overflow::from_code(self.header.overflow).unwrap_or_default()
    }

    /// How both sides wait.
    pub fn wait(&self) -> Wait {
        Wait::from_code(self.header.wait).unwrap_or_default()
    }

    /// The producer's page.
    #[inline(always)]
    pub fn producer(&self) -> &ProducerRole {
        // SAFETY: `map` checked that the page is there; it is made of atomics, so other processes
        // may write it, and any bytes are valid.
        unsafe { &*self.producer.as_ptr().cast::<ProducerRole>() }
    }

    /// The consumer's page.
    #[inline(always)]
    pub fn consumer(&self) -> &ConsumerRole {
        // SAFETY: as for the producer's page.
        unsafe { &*self.consumer.as_ptr().cast::<ConsumerRole>() }
    }

    fn record(&self, role: Role) -> &RoleRecord {
        match role {
            Role::Producer => &self.producer().record,
            Role::Consumer => &self.consumer().record,
        }
    }

    /// A predecessor that did not leave has died: the producer may not have looked in between.
    fn note_dead_consumer(&self) {
        let before = self.holder(Role::Consumer);
        if before.attached {
            let dead = &self.consumer().dead;
            dead.pid.store_relaxed(before.pid.into());
            // R6, pairs with A6 in the producer's glance.
            dead.epoch.store_release(before.epoch);
        }
    }
}

fn no_roles(channel: &str) -> Error {
    Error::new(
        ErrorKind::OptionMismatch,
        format!("opening {channel} as its only producer or consumer, or as a broadcast's reader"),
        "the channel has kind=mpmc, where nobody has a role",
        "Use `MpmcSender` and `MpmcReceiver`, or another name",
    )
}

fn taken(tried: String, holder: &Holder) -> Error {
    let remedy = if holder.pid == std::process::id() {
        "This process has it open already: use that handle, or drop it first"
    } else {
        "End that process, or use another channel name: a channel has one producer and one consumer"
    };
    Error::new(ErrorKind::RoleTaken, tried, format!("it has one: {}", holder.describe()), remedy)
}

/// Builds and places the control file. The loser of a race takes the winner's.
fn create(directory: &Path, options: &Options) -> Result<OwnFile, Error> {
    let schema = &options.schema;
    let kind = options.kind.unwrap_or_default();
    let capacity = options.capacity.unwrap_or(DEFAULT_CAPACITY);
    options.check_history(capacity)?;
    let slots = options.slots.unwrap_or(DEFAULT_SLOTS);
    let (slot, capacity) = match kind {
        Kind::Mpmc => {
            let slot = options.slot.unwrap_or(DEFAULT_SLOT);
            (slot, slots * u64::from(slot))
        }
        _ => (0, capacity),
    };
    let mut flags = 0;
    if options.redeliver == Some(Redeliver::Drop) {
        flags |= FLAG_DROP;
    }
    if options.until == Some(Until::Last) {
        flags |= FLAG_UNTIL_LAST;
    }
    let schema_len = (schema.text.len() as u64).next_multiple_of(PAGE).max(PAGE);
    let sections = [
        Section { kind: SECTION_SCHEMA, reserved: 0, offset: PAGE, len: schema_len },
        Section { kind: SECTION_PRODUCER, reserved: 0, offset: PAGE + schema_len, len: PAGE },
        Section { kind: SECTION_CONSUMER, reserved: 0, offset: 2 * PAGE + schema_len, len: PAGE },
        Section {
            kind: SECTION_PARTICIPANTS,
            reserved: 0,
            offset: 3 * PAGE + schema_len,
            len: ROSTER_LEN,
        },
    ];
    let (sections, len) = if kind.has_participants() {
        (&sections[..], 3 * PAGE + schema_len + ROSTER_LEN)
    } else {
        (&sections[..3], 3 * PAGE + schema_len)
    };
    let header = FileHeader {
        wait: options.wait.unwrap_or_default().code(),
        record_align: options.record_align.unwrap_or(DEFAULT_RECORD_ALIGN) as u16,
        payload_offset: if schema.payload_align > 8 { 16 } else { 8 },
        kind: kind.code(),
        overflow: options.overflow.unwrap_or_default().code(),
        history: options.history.unwrap_or(0),
        seats: if kind.has_participants() { MAX_PARTICIPANTS as u32 } else { 0 },
        slot,
        flags,
        capacity,
        schema: schema.fingerprint,
        schema_len: schema.text.len() as u32,
        schema_crc: crc32c::crc32c(schema.text.as_bytes()),
        ..file::blank_header(CONTROL_MAGIC, sections, &Identity::of_this_process())
    };
    let path = directory.join(CONTROL);
    let file = file::build(directory, header, len)?;
    std::os::unix::fs::FileExt::write_all_at(&*file, schema.text.as_bytes(), PAGE)
        .map_err(|error| Error::io(format!("writing {}", path.display()), error))?;
    fault::point(Point::ControlBuilt);
    let file = if file::place(&file, &path)? {
        file
    } else {
        file::open(&path)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Busy,
                format!("opening {}", path.display()),
                "it went away as soon as it was there",
                "Try again; if it persists, look which program removes files there",
            )
        })?
    };
    fault::point(Point::ControlPlaced);
    Ok(file)
}

fn check_schema(
    file: &OwnFile,
    path: &Path,
    header: &FileHeader,
    options: &Options,
) -> Result<(), Error> {
    let tried = || format!("opening {}", path.display());
    let theirs = read_schema(file, header).map_err(|found| file::damaged(path, found))?;
    if header.schema == options.schema.fingerprint {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::SchemaMismatch,
        tried(),
        format!(
            "its messages are of another type (lines with `-` are the channel's alone, lines \
             with `+` this program's)\n{}",
            difference(&theirs, &options.schema.text)
        ),
        format!(
            "Build both sides from one definition, or use another name; to start over, end the \
             programs and: rm -r {}",
            parent(path).display()
        ),
    ))
}

fn read_schema(file: &OwnFile, header: &FileHeader) -> Result<String, String> {
    let section = header.section(SECTION_SCHEMA).ok_or("it has no schema")?;
    let len = header.schema_len as usize;
    if len > MAX_SCHEMA_LEN || len as u64 > section.len {
        return Err("its schema is too long".into());
    }
    let mut text = vec![0; len];
    std::os::unix::fs::FileExt::read_exact_at(&**file, &mut text, section.offset)
        .map_err(|error| format!("its schema can't be read: {error}"))?;
    if crc32c::crc32c(&text) != header.schema_crc {
        return Err("its schema is damaged".into());
    }
    String::from_utf8(text).map_err(|_| "its schema is no text".into())
}

/// The lines of both texts, in order, marked with who has them.
fn difference(theirs: &str, ours: &str) -> String {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let mut lines = Vec::new();
    let mut next = 0;
    for line in &theirs {
        if let Some(skipped) = ours[next..].iter().position(|other| other == line) {
            lines.extend(ours[next..next + skipped].iter().map(|line| format!("  + {line}\n")));
            lines.push(format!("    {line}\n"));
            next += skipped + 1;
        } else {
            lines.push(format!("  - {line}\n"));
        }
    }
    lines.extend(ours[next..].iter().map(|line| format!("  + {line}\n")));
    lines.concat().trim_end().to_owned()
}

fn check_options(path: &Path, header: &FileHeader, options: &Options) -> Result<(), Error> {
    let wait = Wait::from_code(header.wait).unwrap_or_default();
    let asked = |name: &str, value: Option<String>| value.map(|value| format!("{name}={value}"));
    let kind = Kind::from_code(header.kind).unwrap_or_default();
    let overflow = Overflow::from_code(header.overflow).unwrap_or_default();
    let is_broadcast = kind == Kind::Broadcast;
    let mut rows = vec![
        (
            options.capacity.is_some_and(|capacity| capacity != header.capacity),
            format!("capacity={}", Size(header.capacity)),
            asked("capacity", options.capacity.map(|capacity| Size(capacity).to_string())),
        ),
        (
            options.record_align.is_some_and(|align| align != u32::from(header.record_align)),
            format!("align={}", header.record_align),
            asked("align", options.record_align.map(|align| align.to_string())),
        ),
        (
            options.wait.is_some_and(|asked| asked != wait),
            format!("wait={wait}"),
            asked("wait", options.wait.map(|wait| wait.to_string())),
        ),
    ];
    // Only where they say something: most channels have one kind of everything.
    if is_broadcast || options.kind.is_some_and(|asked| asked != kind) {
        rows.push((
            options.kind.is_some_and(|asked| asked != kind),
            format!("kind={kind}"),
            asked("kind", options.kind.map(|kind| kind.to_string())),
        ));
    }
    if is_broadcast {
        rows.push((
            options.overflow.is_some_and(|asked| asked != overflow),
            format!("overflow={overflow}"),
            asked("overflow", options.overflow.map(|overflow| overflow.to_string())),
        ));
        rows.push((
            options.history.is_some_and(|asked| asked != header.history),
            format!("history={}", header.history),
            asked("history", options.history.map(|history| history.to_string())),
        ));
    }
    if kind == Kind::Mpmc {
        // A ring's capacity is nothing that an MPMC channel is asked for.
        rows.remove(0);
        let slots = header.capacity / u64::from(header.slot.max(1));
        let redeliver = redeliver_of(header);
        let until = until_of(header);
        rows.push((
            options.slots.is_some_and(|asked| asked != slots),
            format!("slots={slots}"),
            asked("slots", options.slots.map(|slots| slots.to_string())),
        ));
        rows.push((
            options.slot.is_some_and(|asked| asked != header.slot),
            format!("slot={}", header.slot),
            asked("slot", options.slot.map(|slot| slot.to_string())),
        ));
        rows.push((
            options.redeliver.is_some_and(|asked| asked != redeliver),
            format!("redeliver={redeliver}"),
            asked("redeliver", options.redeliver.map(|asked| asked.to_string())),
        ));
        rows.push((
            options.until.is_some_and(|asked| asked != until),
            format!("until={until}"),
            asked("until", options.until.map(|asked| asked.to_string())),
        ));
    }
    if rows.iter().all(|(differs, ..)| !differs) {
        return Ok(());
    }
    let list = |texts: Vec<String>| texts.join("&");
    Err(Error::new(
        ErrorKind::OptionMismatch,
        format!("opening {}", path.display()),
        format!(
            "the channel has {}, this program asks for {}",
            list(rows.iter().map(|(_, has, _)| has.clone()).collect()),
            list(rows.iter().filter_map(|(_, _, asks)| asks.clone()).collect()),
        ),
        "Ask for the same, or leave the option out to take what the channel has (whoever opens it \
         first decides)",
    ))
}

/// What becomes of messages whose receiver dies with them.
pub fn redeliver_of(header: &FileHeader) -> Redeliver {
    if header.flags & FLAG_DROP == 0 { Redeliver::Again } else { Redeliver::Drop }
}

/// When the receivers are told that the channel has ended.
pub fn until_of(header: &FileHeader) -> Until {
    if header.flags & FLAG_UNTIL_LAST == 0 { Until::Never } else { Until::Last }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Whether the name is one that Ringway gives to files in a channel's directory.
pub fn is_own_file(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return false };
    name == CONTROL || (name.len() >= 6 && name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_keeps_what_is_common_in_place() {
        assert_eq!(difference("a\nb\nc", "a\nx\nc\nd"), "    a\n  - b\n  + x\n    c\n  + d");
        assert_eq!(difference("", "a"), "  + a");
    }
}
