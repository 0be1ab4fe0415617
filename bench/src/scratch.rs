//! A private directory for named channels, on tmpfs, gone when the run is: at its end, on a failure,
//! on Ctrl-C, and, should this program be killed, at the start of the next run.

use crate::clock::now_ns;
use crate::plan::Fault;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::thread;
use std::time::Duration;

const PREFIX: &str = "ringway-bench-";

/// Far more than there are runs that start at the same moment, each of which may take one try away.
const TRIES: u32 = 100;

/// The directory. Locked as long as its run lives, so that others can tell it from a leftover.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes it under `RINGWAY_DIR`, or else `/dev/shm`, and removes leftovers of killed runs. From
    /// here on, a signal to end removes it too; call before other threads are started.
    pub(crate) fn create() -> Result<Scratch, Fault> {
        let parent = std::env::var_os("RINGWAY_DIR").unwrap_or_else(|| "/dev/shm".into());
        let parent = Path::new(&parent);
        remove_leftovers(parent);
        let scratch = Scratch::make(parent)?;
        scratch.remove_on_signal()?;
        Ok(scratch)
    }

    /// Until it is locked, another run that starts may take it for a leftover: then another one is made.
    fn make(parent: &Path) -> Result<Scratch, Fault> {
        let mut tries = 1;
        loop {
            // The pid alone would do, were there not pid namespaces that share a /dev/shm.
            let path = parent.join(format!("{PREFIX}{}-{}", std::process::id(), now_ns()));
            match make_locked(&path) {
                Ok(lock) => return Ok(Scratch { path, _lock: lock }),
                Err(_) if tries < TRIES => tries += 1,
                Err(e) => {
                    return Err(Fault::new(format!(
                        "can't make {}: {e}; set RINGWAY_DIR to a directory on tmpfs that you can write to",
                        path.display()
                    )));
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn remove_on_signal(&self) -> Result<(), Fault> {
        // SAFETY: a sigset_t is plain bits, and sigemptyset sets them all.
        let mut ends: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `ends` is a live sigset_t, the signals exist, and no old mask is asked for.
        let blocked = unsafe {
            libc::sigemptyset(&mut ends);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&mut ends, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &ends, ptr::null_mut())
        };
        if blocked != 0 {
            let e = io::Error::from_raw_os_error(blocked);
            return Err(Fault::new(format!("can't wait for signals: {e}")));
        }
        let path = self.path.clone();
        thread::spawn(move || {
            let mut signal = 0;
            // SAFETY: both are live; the set's signals are blocked in every thread.
            if unsafe { libc::sigwait(&ends, &mut signal) } == 0 {
                // The processes of the pair die with us. Until then one may be making a channel there
                // while we remove; it does not make many.
                for _ in 0..100 {
                    if fs::remove_dir_all(&path).is_ok() || !path.exists() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                std::process::exit(128 + signal);
            }
        });
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is a leftover that the next run removes.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A new directory whose lock is held, and which was not removed before it was.
fn make_locked(path: &Path) -> io::Result<File> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    let locked = File::open(path).and_then(|directory| {
        if !try_lock(&directory) {
            return Err(io::Error::last_os_error());
        }
        // Who had the lock before may have removed it, and let go of the lock since. From here on nobody does.
        fs::symlink_metadata(path)?;
        Ok(directory)
    });
    locked.inspect_err(|_| {
        // Empty; gone already if another run took it for a leftover.
        let _ = fs::remove_dir(path);
    })
}

/// Ours by owner and name, and no living run holds the lock. Best effort: another run may be first.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    // SAFETY: no arguments, can't fail.
    let me = unsafe { libc::geteuid() };
    for entry in entries.flatten() {
        let named = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let owned = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == me);
        if !(named(&entry.file_name()) && owned) {
            continue;
        }
        // Held until it is removed: a run that has just made the directory and locks it next is not to find it free.
        if let Ok(directory) = File::open(entry.path())
            && try_lock(&directory)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn try_lock(directory: &File) -> bool {
    // SAFETY: takes a descriptor that `directory` keeps open, and numbers.
    unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_start_together_leave_each_others_directories_alone() {
        let parent = Path::new("/dev/shm").join(format!("bench-scratch-{}", std::process::id()));
        fs::create_dir(&parent).expect("a new directory");
        let run = || {
            (0..500).all(|_| {
                remove_leftovers(&parent);
                Scratch::make(&parent).is_ok_and(|scratch| scratch.path().exists())
            })
        };
        let runs = thread::scope(|scope| [(); 4].map(|()| scope.spawn(run)).map(|run| run.join()));
        let left = fs::read_dir(&parent).expect("it is there").count();
        fs::remove_dir_all(&parent).expect("ours to remove");
        assert!(runs.into_iter().all(|run| run.is_ok_and(|fine| fine)));
        assert_eq!(left, 0);
    }
}
