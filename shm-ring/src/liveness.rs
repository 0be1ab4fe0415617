//! Who is alive, from the kernel: a lock that dies with its process, and the names of processes.
//!
//! A role is held by an open-file-description lock on one byte of a file. Such a lock goes away
//! when the process ends, however it ends, and at no other time: a stopped process keeps it, and,
//! other than with POSIX record locks, other code that opens and closes the same file does not
//! lose it. Nothing here repairs anything.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fork::OwnFile;
use crate::layout::{ATTACHED, DETACHED, RoleRecord};

/// Tries to take the lock on byte `at`. False: somebody else has it.
pub fn try_lock(file: &OwnFile, at: u64) -> io::Result<bool> {
    match lock_command(file, at, libc::F_OFD_SETLK, libc::F_WRLCK) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives the lock on byte `at` back, for every copy of the descriptor.
pub fn unlock(file: &OwnFile, at: u64) {
    // Nothing to do about a failure: closing the descriptor unlocks as well.
    let _ = lock_command(file, at, libc::F_OFD_SETLK, libc::F_UNLCK);
}

/// Whether another open file description holds the lock on byte `at`.
pub fn is_locked(file: &OwnFile, at: u64) -> io::Result<bool> {
    let answer = lock_command(file, at, libc::F_OFD_GETLK, libc::F_WRLCK)?;
    Ok(answer.l_type != libc::F_UNLCK as libc::c_short)
}

fn lock_command(
    file: &OwnFile,
    at: u64,
    command: libc::c_int,
    kind: libc::c_int,
) -> io::Result<libc::flock> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at as libc::off_t,
        l_len: 1,
        // Must be 0 for open-file-description locks.
        l_pid: 0,
    };
    loop {
        // SAFETY: the descriptor is open, `lock` is a live flock that the call may write.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
        if result != -1 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// This process, as others may want to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In its own pid namespace.
    pub pid: u32,
    /// Clock ticks since boot.
    pub start: u64,
    /// Inode of the pid namespace, 0 if /proc does not tell.
    pub pid_ns: u64,
    /// CLOCK_REALTIME now, in nanoseconds.
    pub now_ns: u64,
    /// First bytes of the command's name.
    pub command: [u8; 16],
}

impl Identity {
    /// Asks /proc. What it does not tell stays 0: identity is for messages, never for decisions.
    pub fn of_this_process() -> Self {
        let mut command = [0; 16];
        if let Ok(name) = fs::read("/proc/self/comm") {
            let name = name.trim_ascii_end();
            let len = name.len().min(command.len());
            command[..len].copy_from_slice(&name[..len]);
        }
        Self {
            pid: std::process::id(),
            start: fs::read_to_string("/proc/self/stat")
                .ok()
                .as_deref()
                .and_then(start_time)
                .unwrap_or(0),
            pid_ns: fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino()),
            now_ns: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
            command,
        }
    }
}

/// The kernel's id of this boot, zeros if /proc does not tell.
pub fn boot_id() -> [u8; 16] {
    let mut id = [0; 16];
    if let Ok(text) = fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        let digits: Vec<u8> =
            text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
    }
    id
}

/// Field 22 of /proc/pid/stat. The second field is the command in parentheses and may hold blanks
/// and parentheses itself, so counting starts behind the last one.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Writes the holder into a role's record. The caller holds the role's lock.
pub fn join(record: &RoleRecord, who: &Identity) -> u64 {
    let epoch = record.epoch.load_relaxed().wrapping_add(1);
    record.pid.store_relaxed(who.pid.into());
    record.start.store_relaxed(who.start);
    record.pid_ns.store_relaxed(who.pid_ns);
    record.since_ns.store_relaxed(who.now_ns);
    let (low, high) = who.command.split_at(8);
    for (word, half) in record.command.iter().zip([low, high]) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(half);
        word.store_relaxed(u64::from_le_bytes(bytes));
    }
    record.state.store_relaxed(ATTACHED);
    // R4, pairs with A4 in Holder::read: whoever sees the epoch sees whose it is.
    record.epoch.store_release(epoch);
    epoch
}

/// Notes that the holder leaves cleanly. The caller holds the role's lock and unlocks next.
pub fn leave(record: &RoleRecord) {
    // R5, pairs with A5 in Holder::read.
    record.state.store_release(DETACHED);
}

/// Epoch and pid of the holder that joined last and has not left cleanly. Allocates nothing.
pub fn attached(record: &RoleRecord) -> Option<(u64, u32)> {
    // A4, pairs with R4 in join; A5, pairs with R5 in leave.
    let epoch = record.epoch.load_acquire();
    let state = record.state.load_acquire();
    let pid = u32::try_from(record.pid.load_relaxed()).unwrap_or(0);
    (state == ATTACHED && epoch > 0).then_some((epoch, pid))
}

/// What a role's record says. True only as far as the role's lock confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Counts holders; 0: there never was one.
    pub epoch: u64,
    /// Joined, and did not leave cleanly.
    pub attached: bool,
    /// In its own pid namespace.
    pub pid: u32,
    /// Inode of that namespace.
    pub pid_ns: u64,
    /// CLOCK_REALTIME at joining, in nanoseconds.
    pub since_ns: u64,
    /// The command's name.
    pub command: String,
    /// What it does, if it is one of a table of participants.
    pub side: u64,
    /// The first segment that it reads, if it is one of those.
    pub first: u64,
}

impl Holder {
    /// Reads the record.
    pub fn read(record: &RoleRecord) -> Self {
        // A4, pairs with R4 in join; A5, pairs with R5 in leave.
        let epoch = record.epoch.load_acquire();
        let state = record.state.load_acquire();
        let command: Vec<u8> = record
            .command
            .iter()
            .flat_map(|word| word.load_relaxed().to_le_bytes())
            .take_while(|byte| *byte != 0)
            .collect();
        Self {
            epoch,
            attached: state == ATTACHED,
            pid: u32::try_from(record.pid.load_relaxed()).unwrap_or(0),
            pid_ns: record.pid_ns.load_relaxed(),
            since_ns: record.since_ns.load_relaxed(),
            command: String::from_utf8_lossy(&command).escape_debug().to_string(),
            side: record.side.load_relaxed(),
            first: record.first.load_relaxed(),
        }
    }

    /// "process 77 (`feed`), since 2026-11-20 11:14:56 UTC".
    pub fn describe(&self) -> String {
        let foreign = match Identity::of_this_process().pid_ns {
            own if own == self.pid_ns || own == 0 => "",
            _ => " of another pid namespace",
        };
        format!("process {}{foreign} (`{}`), since {}", self.pid, self.command, utc(self.since_ns))
    }
}

/// Nanoseconds since 1970 as a date and time of day.
fn utc(ns: u64) -> String {
    let seconds = libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX);
    // SAFETY: a tm of zeros is a valid value of plain integers and a null pointer.
    let mut date: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are live for the call; gmtime_r keeps neither.
    if unsafe { libc::gmtime_r(&raw const seconds, &raw mut date) }.is_null() {
        return format!("{ns} ns after 1970");
    }
    let libc::tm { tm_year, tm_mon, tm_mday, tm_hour, tm_min, tm_sec, .. } = date;
    format!(
        "{:04}-{:02}-{tm_mday:02} {tm_hour:02}:{tm_min:02}:{tm_sec:02} UTC",
        tm_year + 1900,
        tm_mon + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_odd_command_names() {
        let tail = (3..=22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time(&format!("77 (a) b (c)) {tail}")), Some(22));
        assert_eq!(start_time("77 (a"), None);
        assert_eq!(start_time("77 (a) S 1"), None);
    }

    #[test]
    fn dates_are_civil() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399_000_000_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_173_296_000_000_000), "2026-11-20 11:14:56 UTC");
    }

    #[test]
    fn this_process_is_somebody() {
        let who = Identity::of_this_process();
        assert_eq!(who.pid, std::process::id());
        assert!(who.start > 0 && who.now_ns > 0);
    }
}
