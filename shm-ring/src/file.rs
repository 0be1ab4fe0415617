//! Files that begin with a [`FileHeader`]: built without a name, placed whole, validated on opening.
//! `control` and the data segments are such files.
//!
//! A file gets its name only when it is complete, by `linkat`, which fails if the name is taken: of
//! two creators one wins, a crash while building leaves nothing, and nobody ever opens half a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};

use crate::control::CONTROL;
use crate::error::{Error, ErrorKind};
use crate::fork::OwnFile;
use crate::layout::{
    ABI_MAJOR, ABI_MINOR, ENDIAN_TAG, FLAG_DROP, FLAG_UNTIL_LAST, FileHeader, HEADER_LEN,
    KIND_MPMC, KIND_SPSC, MAX_PARTICIPANTS, PAGE, Section,
};
use crate::liveness::{self, Identity};
use crate::mpmc::{SLOTS_MAX, SLOTS_MIN};
use crate::options::{
    Kind, MAX_CAPACITY, MAX_SLOT, MIN_CAPACITY, MIN_SLOT, Overflow, Size, Wait, max_history,
};

/// A header with everything in it that does not depend on the channel, the crc still to come.
pub fn blank_header(magic: [u8; 8], sections: &[Section], who: &Identity) -> FileHeader {
    let mut table = [Section::default(); 4];
    for (entry, section) in table.iter_mut().zip(sections) {
        *entry = *section;
    }
    FileHeader {
        magic,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        header_len: HEADER_LEN as u32,
        endian: ENDIAN_TAG,
        kind: KIND_SPSC,
        wait: 0,
        record_align: 0,
        payload_offset: 0,
        capacity: 0,
        generation: 0,
        schema: 0,
        schema_len: 0,
        schema_crc: 0,
        boot_id: liveness::boot_id(),
        creator_start: who.start,
        creator_pid_ns: who.pid_ns,
        created_ns: who.now_ns,
        creator_pid: who.pid,
        section_count: sections.len() as u32,
        sections: table,
        overflow: 0,
        seats: 0,
        history: 0,
        slot: 0,
        flags: 0,
        reserved: [0; 20],
        crc: 0,
    }
}

/// A nameless file in `dir` of `len` bytes of zeros behind the header. All of its memory is
/// allocated here: there is an error now or never.
pub fn build(dir: &Path, mut header: FileHeader, len: u64) -> Result<OwnFile, Error> {
    let tried = || format!("creating a file of {} in {}", Size(len), dir.display());
    let nameless = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
            .open(dir)
    };
    let file = OwnFile::open(nameless).map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EISDIR) => Error::new(
            ErrorKind::Unsupported,
            tried(),
            "the file system has no nameless files (O_TMPFILE)",
            "Point RINGWAY_DIR at a directory on a tmpfs, such as /dev/shm",
        ),
        _ => Error::io(tried(), error),
    })?;
    allocate(&file, len).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSPC | libc::ENOMEM | libc::EDQUOT) => no_space(tried(), dir, len),
        _ => Error::io(tried(), error),
    })?;
    header.crc = header.expected_crc();
    file.write_all_at(&header.to_bytes(), 0).map_err(|error| Error::io(tried(), error))?;
    Ok(file)
}

/// Gives a built file its name. False: the name is taken.
pub fn place(file: &OwnFile, path: &Path) -> Result<bool, Error> {
    let tried = || format!("placing {}", path.display());
    let from = format!("{}\0", proc_path(file));
    let mut to = path.as_os_str().as_bytes().to_vec();
    to.push(0);
    // SAFETY: both strings end in NUL and live through the call.
    let result = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr().cast(),
            libc::AT_FDCWD,
            to.as_ptr().cast(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EEXIST) => Ok(false),
        Some(libc::ENOENT) if !proc_is_mounted() => {
            Err(no_proc(tried(), "a nameless file gets its name through it"))
        }
        _ => Err(Error::io(tried(), error)),
    }
}

/// Opens a file by name. `None`: there is none.
pub fn open(path: &Path) -> Result<Option<OwnFile>, Error> {
    let opened = OwnFile::open(|| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
    });
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => match error.raw_os_error() {
            // A directory, a symbolic link, a socket.
            Some(libc::EISDIR | libc::ELOOP | libc::ENXIO) => Err(not_regular(path)),
            _ => Err(Error::io(format!("opening {}", path.display()), error)),
        },
    }
}

/// Reads the header of a channel's file and checks all of it against the file. The result can be relied
/// on: every section lies in the file and none overlaps another.
pub fn validate(file: &OwnFile, path: &Path, magic: [u8; 8]) -> Result<FileHeader, Error> {
    let header = read_header(file, path, magic)?;
    let sound = kind_is_sound(&header)
        && Wait::from_code(header.wait).is_some()
        && matches!(header.record_align, 16 | 64)
        && matches!(header.payload_offset, 8 | 16)
        && capacity_is_sound(&header);
    if !sound {
        return Err(damaged(path, "its header holds options that no version of this layout has"));
    }
    Ok(header)
}

/// As [`validate`], but what the header says of a channel is left to the caller.
pub fn read_header(file: &OwnFile, path: &Path, magic: [u8; 8]) -> Result<FileHeader, Error> {
    let tried = || format!("opening {}", path.display());
    let damaged = |found: String| damaged(path, found);
    let meta = file.metadata().map_err(|error| Error::io(tried(), error))?;
    if !meta.is_file() {
        return Err(not_regular(path));
    }
    if meta.len() < PAGE {
        return Err(damaged(format!(
            "it is truncated: {} bytes, at least {PAGE} expected",
            meta.len()
        )));
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io(tried(), error))?;
    let header = FileHeader::from_bytes(&bytes);
    if header.magic != magic {
        return Err(damaged(format!(
            "it is no file of Ringway's: it begins with {:?}",
            header.magic.escape_ascii().to_string()
        )));
    }
    if header.endian != ENDIAN_TAG {
        return Err(damaged("it was made by a machine of the other byte order".into()));
    }
    if header.abi_major != ABI_MAJOR || header.header_len as usize != HEADER_LEN {
        return Err(Error::new(
            ErrorKind::AbiMismatch,
            tried(),
            format!(
                "it has memory layout {}.{}, this program knows {ABI_MAJOR}.{ABI_MINOR}",
                header.abi_major, header.abi_minor
            ),
            "Build both sides with the same major version of Ringway, end the programs that use \
             the channel, and start them again",
        ));
    }
    if header.crc != header.expected_crc() {
        return Err(damaged(format!(
            "its header is damaged: crc {:#010x}, {:#010x} expected",
            header.crc,
            header.expected_crc()
        )));
    }
    if header.boot_id != liveness::boot_id() {
        return Err(Error::new(
            ErrorKind::Stale,
            tried(),
            "it was made before the last reboot",
            removal(path),
        ));
    }
    if !sections_are_sound(&header) {
        return Err(damaged("its header holds sections that no version of this layout has".into()));
    }
    let end = header.used_sections().iter().map(|section| section.offset + section.len).max();
    if end.is_some_and(|end| end > meta.len()) {
        return Err(damaged(format!(
            "it is truncated: {} bytes, {} expected",
            meta.len(),
            end.unwrap_or(0)
        )));
    }
    Ok(header)
}

/// Maps `len` bytes at `offset`, all of them present at once. The pages may be written only if
/// `writable`.
///
/// A mapping keeps the description it was made from open, and so does its copy in a forked child:
/// that child would keep the locks of a parent that died. So mappings are made from a description
/// of their own, which never has locks.
pub fn map(
    file: &OwnFile,
    path: &Path,
    offset: u64,
    len: u64,
    writable: bool,
) -> Result<MmapRaw, Error> {
    let tried = || format!("mapping {len} bytes of {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_CLOEXEC)
        .open(proc_path(file))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !proc_is_mounted() => {
                no_proc(tried(), "an open file is opened again through it")
            }
            _ => Error::io(tried(), error),
        })?;
    let mut options = MmapOptions::new();
    options.offset(offset).len(usize::try_from(len).unwrap_or(usize::MAX)).populate();
    let mapped = if writable { options.map_raw(&file) } else { options.map_raw_read_only(&file) };
    mapped.map_err(|error| Error::io(tried(), error))
}

/// Another name of an open file, which need not have one.
fn proc_path(file: &OwnFile) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn proc_is_mounted() -> bool {
    Path::new("/proc/self/fd").exists()
}

fn no_proc(tried: String, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        tried,
        format!("/proc is not mounted, and {why}"),
        "Mount it: `mount -t proc proc /proc`",
    )
}

/// The error for a file that is not what its name says.
pub fn damaged(path: &Path, found: impl Into<String>) -> Error {
    Error::new(ErrorKind::Damaged, format!("opening {}", path.display()), found, removal(path))
}

/// A segment may go by itself; a channel can't do without its control file, and a new one beside
/// living processes would be another channel.
fn removal(path: &Path) -> String {
    match path.parent() {
        Some(directory) if path.ends_with(CONTROL) => {
            format!("End the programs that use the channel, then: rm -r {}", directory.display())
        }
        _ => format!("If nothing in it is needed: rm -r {}", path.display()),
    }
}

fn not_regular(path: &Path) -> Error {
    damaged(path, "it is not a regular file")
}

/// What belongs to a kind is there, and nothing that belongs to another.
fn kind_is_sound(header: &FileHeader) -> bool {
    match Kind::from_code(header.kind) {
        Some(Kind::Spsc) => {
            (header.seats, header.overflow, header.history) == (0, 0, 0)
                && (header.slot, header.flags) == (0, 0)
        }
        Some(Kind::Mpmc) => {
            header.seats as usize == MAX_PARTICIPANTS
                && (header.overflow, header.history) == (0, 0)
                && header.flags & !(FLAG_DROP | FLAG_UNTIL_LAST) == 0
        }
        Some(Kind::Broadcast) => {
            header.seats as usize == MAX_PARTICIPANTS
                && (header.slot, header.flags) == (0, 0)
                && Overflow::from_code(header.overflow).is_some()
                && matches!(header.record_align, 16 | 64)
                && header.history <= max_history(header.capacity, header.record_align.into())
        }
        None => false,
    }
}

fn capacity_is_sound(header: &FileHeader) -> bool {
    if header.kind != KIND_MPMC {
        return header.capacity.is_power_of_two()
            && (MIN_CAPACITY..=MAX_CAPACITY).contains(&header.capacity);
    }
    let slot = u64::from(header.slot);
    (MIN_SLOT..=MAX_SLOT).contains(&header.slot)
        && header.payload_offset != 0
        && header.slot.is_multiple_of(header.payload_offset.into())
        && header.capacity <= MAX_CAPACITY
        && header.capacity.is_multiple_of(slot)
        && (header.capacity / slot).is_power_of_two()
        && (SLOTS_MIN..=SLOTS_MAX).contains(&(header.capacity / slot))
}

fn sections_are_sound(header: &FileHeader) -> bool {
    let used = header.used_sections();
    header.section_count as usize <= header.sections.len()
        && used.iter().all(|section| {
            section.offset >= PAGE
                && section.offset % PAGE == 0
                && section.len > 0
                && section.offset.checked_add(section.len).is_some()
        })
        && used.iter().enumerate().all(|(index, a)| {
            used[..index]
                .iter()
                .all(|b| a.offset >= b.offset + b.len || b.offset >= a.offset + a.len)
        })
}

fn allocate(file: &File, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))?;
    loop {
        // SAFETY: no pointers; the descriptor is open.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn no_space(tried: String, dir: &Path, needed: u64) -> Error {
    let mut path = dir.as_os_str().as_bytes().to_vec();
    path.push(0);
    // SAFETY: a statvfs of zeros is a valid value of plain integers.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in NUL, `stat` may be written.
    let known = unsafe { libc::statvfs(path.as_ptr().cast(), &raw mut stat) } == 0;
    let found = if known {
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        format!("{} has {free} bytes free, {needed} are needed", dir.display())
    } else {
        format!("{} has too little room, {needed} bytes are needed", dir.display())
    };
    Error::new(
        ErrorKind::NoSpace,
        tried,
        found,
        "Shrink `capacity` (or, with kind=mpmc, `slots` or `slot`), remove channels that nobody uses, or grow the file system \
         (`mount -o remount,size=... /dev/shm`; in Docker `--shm-size`)",
    )
}
