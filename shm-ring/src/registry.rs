//! Names and directories: where a channel lives, which segments it has, and the lock under which
//! its files are made and removed. There is no daemon; the directory is the registry.
//!
//! What is in the files is the business of `control` and `segment`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::control::{CONTROL, is_own_file};
use crate::error::{Error, ErrorKind};
use crate::fork::OwnFile;
use crate::options::Options;
use crate::say::Remark;

/// How long an opener waits for others that are just opening or closing the same channel. They
/// need milliseconds, unless they are stopped.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A channel's directory, locked against everyone else who opens, closes or removes the channel.
/// Dropping it gives the lock back.
#[derive(Debug)]
pub struct LockedDirectory {
    path: PathBuf,
    file: OwnFile,
}

/// Locks the directory of the channel, which is created if need be.
pub fn lock_or_create(options: &Options) -> Result<LockedDirectory, Error> {
    let root = root(options.directory.as_deref(), true)?;
    lock(&root.join(&options.name), true, PATIENCE)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Busy,
            format!("opening {}", root.join(&options.name).display()),
            "it is removed as soon as it is there",
            "Look which program removes it",
        )
    })
}

/// Locks the directory of the channel. `None`: there is none.
pub fn lock_existing(options: &Options) -> Result<Option<LockedDirectory>, Error> {
    let root = root(options.directory.as_deref(), false)?;
    lock(&root.join(&options.name), false, PATIENCE)
}

/// Locks a directory that was open before. `None`: it was removed meanwhile.
pub fn relock(path: &Path, patience: Duration) -> Result<Option<LockedDirectory>, Error> {
    lock(path, false, patience)
}

impl LockedDirectory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the channel's files and the directory.
    pub fn remove(self) -> Result<(), Error> {
        let tried = |path: &Path| format!("removing {}", path.display());
        let mut entries = entries(&self.path)?;
        // What is left by a removal that is cut short is a channel still.
        entries.sort_by_key(|entry| entry.file_name() == CONTROL);
        for entry in entries {
            if is_own_file(&entry) {
                fs::remove_file(entry.path())
                    .or_else(ignore_missing)
                    .map_err(|error| Error::io(tried(&entry.path()), error))?;
            }
        }
        fs::remove_dir(&self.path)
            .or_else(ignore_missing)
            .map_err(|error| Error::io(tried(&self.path), error))
    }
}

impl Drop for LockedDirectory {
    fn drop(&mut self) {
        // By hand, and not only by closing: a fork just now may have copied the descriptor.
        // SAFETY: no pointers; the descriptor is open.
        unsafe {
            libc::flock(self.file.as_raw_fd(), libc::LOCK_UN);
        }
    }
}

/// Numbers of the segments in the directory, ascending.
pub fn segments(directory: &Path) -> Result<Vec<u32>, Error> {
    let mut numbers: Vec<u32> = entries(directory)?
        .iter()
        .filter(|entry| is_own_file(entry))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    fs::read_dir(directory)
        .and_then(Iterator::collect)
        .map_err(|error| Error::io(format!("listing {}", directory.display()), error))
}

/// The directory that holds the channels.
pub fn root(given: Option<&Path>, create: bool) -> Result<PathBuf, Error> {
    let from_environment =
        std::env::var_os("RINGWAY_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = given.map(Path::to_owned).or(from_environment) {
        // Handles find later segments, and close, by path: a change of the working directory must
        // not move it.
        let path = std::path::absolute(&path).unwrap_or(path);
        let tried = || format!("using {} for channels", path.display());
        let meta = fs::metadata(&path).map_err(|error| {
            Error::new(
                ErrorKind::NoDirectory,
                tried(),
                error.to_string(),
                format!("Create it: mkdir -m 700 {}", path.display()),
            )
        })?;
        if !meta.is_dir() {
            return Err(Error::new(
                ErrorKind::NoDirectory,
                tried(),
                "it is not a directory",
                "Name a directory, best on a tmpfs",
            ));
        }
        warn_unless_tmpfs(&path);
        return Ok(path);
    }
    // SAFETY: geteuid takes nothing and never fails.
    let uid = unsafe { libc::geteuid() };
    let path = PathBuf::from(format!("/dev/shm/ringway-{uid}"));
    let tried = || format!("using {} for channels", path.display());
    if create {
        make_private(&path).map_err(|error| Error::io(tried(), error))?;
    }
    let meta = match fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => return Ok(path),
        Err(error) => return Err(Error::io(tried(), error)),
    };
    // /dev/shm is everybody's: a directory of that name may be somebody's trap.
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::Permission,
            tried(),
            format!(
                "it is not a private directory of user {uid} (owner {}, mode {:o})",
                meta.uid(),
                meta.mode() & 0o7777
            ),
            format!("chmod 700 {0} if it is yours, or point RINGWAY_DIR elsewhere", path.display()),
        ));
    }
    Ok(path)
}

fn lock(path: &Path, create: bool, patience: Duration) -> Result<Option<LockedDirectory>, Error> {
    let tried = || format!("locking {}", path.display());
    let start = Instant::now();
    loop {
        if create {
            make_private(path).map_err(|error| Error::io(tried(), error))?;
        }
        let opened = OwnFile::open(|| {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(path)
        });
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if create && start.elapsed() < patience {
                    continue;
                }
                return Ok(None);
            }
            Err(error) => return Err(Error::io(tried(), error)),
        };
        loop {
            // SAFETY: no pointers; the descriptor is open.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                break;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EWOULDBLOCK) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Some(libc::EWOULDBLOCK) => {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        tried(),
                        format!(
                            "another process has kept the lock for {patience:?}; it may be stopped"
                        ),
                        format!("Look who: fuser -v {}", path.display()),
                    ));
                }
                Some(libc::EINTR) => {}
                _ => return Err(Error::io(tried(), error)),
            }
        }
        // The last user may have removed the directory while this one waited for its lock: then
        // the lock is on something without a name, and worth nothing.
        if is_same(&file, path) {
            return Ok(Some(LockedDirectory { path: path.to_owned(), file }));
        }
    }
}

/// Whether an open file is still the one of that name.
pub fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Says once per process that channels on a disk's file system wait for that disk.
fn warn_unless_tmpfs(path: &Path) {
    static SLOW: Remark = Remark::new();
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.push(0);
    // SAFETY: a statfs of zeros is a valid value of plain integers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` ends in NUL, `stat` may be written.
    let known = unsafe { libc::statfs(name.as_ptr().cast(), &raw mut stat) } == 0;
    if known && stat.f_type != libc::TMPFS_MAGIC {
        SLOW.say(|| {
            format!(
                "{} is not on a tmpfs: the kernel will write the rings to its disk, and senders will stall \
                 on that",
                path.display()
            )
        });
    }
}
