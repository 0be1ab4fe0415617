//! Ledgers: the bytes that docs/LEDGER.md promises, whose life they follow, and that no file, whatever is
//! in it, does more to a reader than to be refused in words.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic;

use ringway_shm::ErrorKind;
use ringway_shm::layout::{ENDIAN_TAG, FileHeader, HEADER_LEN};
use ringway_shm::ledger::{self, Entry, LEDGER_MAGIC, SLOT_LEN, SLOTS, WORDS};

const VERSION: u64 = 1;

/// A directory of a test's own, gone with it.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let base = PathBuf::from("/dev/shm");
        let base = if base.is_dir() { base } else { std::env::temp_dir() };
        let path = base.join(format!("ringway-test-ledger-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn entry(&self) -> Entry {
        Entry::open(Some(&self.0), VERSION).unwrap()
    }

    fn read(&self) -> Vec<Result<ledger::Found, ringway_shm::Error>> {
        ledger::read_all(Some(&self.0), VERSION).unwrap()
    }

    fn only(&self) -> ledger::Found {
        let mut found = self.read();
        assert_eq!(found.len(), 1);
        found.pop().unwrap().unwrap()
    }

    fn paths(&self) -> Vec<PathBuf> {
        ledger::list(Some(&self.0)).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn words(from: u64) -> [u64; WORDS] {
    std::array::from_fn(|index| from + index as u64)
}

/// A process that has a ledger, until it is killed or told to go on. What it prints has to be taken.
struct Other(Child, BufReader<ChildStdout>);

impl Other {
    fn start(home: &Home, what: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_process", "--nocapture", "--test-threads=1"])
            .env("RINGWAY_TEST_OTHER", what)
            .env("RINGWAY_DIR", &home.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self(child, out);
        let mut lines = other.1.by_ref().lines();
        assert!(lines.any(|line| line.unwrap().contains("other is ready")), "{what}");
        other
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Closes its standard input, and waits for it.
    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What [`Other`] runs; nothing as a test.
#[test]
fn other_process() {
    let Ok(what) = std::env::var("RINGWAY_TEST_OTHER") else { return };
    let entry = Entry::open(None, VERSION).unwrap();
    entry.write(7, &words(100));
    println!("\nother is ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    if what == "exits with it open" {
        std::process::exit(0);
    }
    drop(entry);
}

#[test]
fn the_file_is_that_of_the_page() {
    let home = Home::new("golden");
    let entry = home.entry();
    entry.write(0x0102_0304_0506_0708, &words(1000));
    let path = home.paths().pop().unwrap();
    let name = format!(".ledger-{}.0", std::process::id());
    assert_eq!(path.file_name().unwrap().to_str(), Some(name.as_str()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 36 << 10);

    // The page's tables, by the offsets that are in them.
    let page = include_str!("../../docs/LEDGER.md");
    let offset = |name: &str| -> usize {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        let row = row.unwrap_or_else(|| panic!("`{name}` is in no table"));
        row.split('|').nth(2).unwrap().trim().parse().unwrap()
    };
    let number = |at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    assert_eq!(bytes[offset("magic")..][..8], *b"RWAYLED\0");
    assert_eq!(number(offset("kind"), 4), 4);
    assert_eq!(number(offset("capacity"), 8), 32768);
    assert_eq!(number(offset("generation"), 8), VERSION);
    assert_eq!(number(offset("creator_pid"), 4), std::process::id().into());
    assert_eq!(number(offset("slot"), 4), 512);
    assert_eq!(number(offset("seats"), 4), 63);
    let section = offset("sections");
    assert_eq!(
        [number(section, 4), number(section + 8, 8), number(section + 16, 8)],
        [10, 4096, 32768]
    );
    assert_eq!(number(offset("hidden"), 8), 0);
    assert!(bytes[offset("command")..][..16].iter().any(|byte| *byte != 0));
    let slot = 4608;
    assert!(page.contains("| 4608 | 63 x 512 | slots |"));
    assert_eq!(number(slot + offset("sequence"), 8), 2);
    assert_eq!(number(slot + offset("number"), 8), 0x0102_0304_0506_0708);
    for index in 0..WORDS {
        assert_eq!(number(slot + 16 + 8 * index, 8), 1000 + index as u64);
    }
    assert!(bytes[slot + 512..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_written_is_read_and_goes_with_the_last_entry() {
    let home = Home::new("life");
    let (one, other) = (home.entry(), home.entry());
    assert!(home.only().notes.is_empty());
    one.write(1, &words(0));
    other.write(2, &words(50));
    one.write(1, &words(10));
    let found = home.only();
    assert!(found.is_alive && found.hidden == 0);
    assert_eq!(found.pid, std::process::id());
    let notes: Vec<_> =
        found.notes.iter().map(|note| (note.slot, note.number, note.words)).collect();
    assert_eq!(notes, [(0, 1, words(10)), (1, 2, words(50))]);
    assert!(!ledger::remove_dead(&found.path).unwrap(), "its process lives");
    drop(one);
    let found = home.only();
    assert_eq!(found.notes.len(), 1);
    assert_eq!(found.notes[0].number, 2);
    // The place is free again.
    let third = home.entry();
    third.write(3, &words(0));
    assert_eq!(home.only().notes[0].number, 3);
    drop((other, third));
    assert!(home.paths().is_empty());
}

#[test]
fn what_has_no_room_is_counted() {
    let home = Home::new("full");
    let mut entries: Vec<Entry> = (0..SLOTS + 3).map(|_| home.entry()).collect();
    for (index, entry) in entries.iter().enumerate() {
        entry.write(1 + index as u64, &words(0));
    }
    let found = home.only();
    assert_eq!((found.notes.len(), found.hidden), (SLOTS, 3));
    entries.pop();
    assert_eq!(home.only().hidden, 2);
    entries.remove(5);
    let entry = home.entry();
    entry.write(99, &words(0));
    let found = home.only();
    assert_eq!((found.notes.len(), found.hidden, found.notes[5].number), (SLOTS, 2, 99));
    drop(entries);
    drop(entry);
    assert!(home.paths().is_empty());
}

#[test]
fn a_killed_process_is_dead_and_its_ledger_is_removed() {
    let home = Home::new("killed");
    let other = Other::start(&home, "is killed");
    let pid = other.pid();
    let found = home.only();
    assert!(found.is_alive);
    assert_eq!((found.pid, found.notes[0].words), (pid, words(100)));
    assert!(!ledger::remove_dead(&found.path).unwrap());
    other.kill();
    let found = home.only();
    assert!(!found.is_alive);
    assert_eq!((found.pid, found.notes[0].words), (pid, words(100)));
    assert!(ledger::remove_dead(&found.path).unwrap());
    assert!(!ledger::remove_dead(&found.path).unwrap());
    assert!(home.paths().is_empty());
}

#[test]
fn an_exit_takes_it_away() {
    let home = Home::new("exit");
    for what in ["drops it", "exits with it open"] {
        let other = Other::start(&home, what);
        assert_eq!(home.paths().len(), 1);
        other.end();
        assert!(home.paths().is_empty(), "{what}");
    }
}

#[test]
fn the_dead_do_not_fill_the_memory() {
    let home = Home::new("sweep");
    for _ in 0..10 {
        Other::start(&home, "is killed").kill();
    }
    assert!((9..=10).contains(&home.paths().len()), "each leaves 8 that it finds, and its own");
    let entry = home.entry();
    let found = home.read();
    assert_eq!(found.len(), 9);
    assert_eq!(found.iter().flatten().filter(|found| found.is_alive).count(), 1);
    drop(entry);
    assert_eq!(home.paths().len(), 8);
}

#[test]
fn a_forked_child_has_no_part_in_it() {
    let home = Home::new("fork");
    let entry = home.entry();
    entry.write(1, &words(0));
    // SAFETY: the child only drops what it has a copy of, and ends without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        entry.write(1, &words(77));
        drop(entry);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, and a live value.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let found = home.only();
    assert!(found.is_alive);
    assert_eq!(found.notes[0].words, words(0));
}

/// A reader beside a writer sees one moment, never a mixture.
#[test]
fn a_reader_sees_one_moment() {
    let home = Home::new("torn");
    let entry = home.entry();
    entry.write(1, &words(0));
    let stop = AtomicFlag::new(false);
    let (mut seen, mut torn) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut from = 0;
            while !stop.load(atomic::Ordering::Relaxed) {
                from += 1;
                entry.write(from, &words(from));
                // Readers need a gap of some length.
                for _ in 0..1000 {
                    std::hint::spin_loop();
                }
            }
        });
        for _ in 0..2000 {
            let note = home.only().notes.remove(0);
            if note.is_torn {
                torn += 1;
                continue;
            }
            seen += 1;
            if note.number > 0 && note.words != words(0) {
                assert_eq!(note.words, words(note.number));
            }
        }
        stop.store(true, atomic::Ordering::Relaxed);
    });
    println!("{seen} moments, {torn} torn");
    assert!(seen > 0);
}

#[allow(clippy::disallowed_types, reason = "a flag between a test's threads")]
type AtomicFlag = atomic::AtomicBool;

/// Puts bytes where a ledger would be, and reads them.
fn read_bytes(path: &Path, bytes: &[u8]) -> Result<Option<ledger::Found>, ringway_shm::Error> {
    fs::write(path, bytes).unwrap();
    ledger::read(path, VERSION)
}

fn change(bytes: &[u8], change: impl FnOnce(&mut FileHeader)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut header = FileHeader::from_bytes(bytes[..HEADER_LEN].try_into().unwrap());
    change(&mut header);
    header.crc = header.expected_crc();
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    bytes
}

#[test]
fn damaged_ledgers_are_refused_in_words() {
    let home = Home::new("hostile");
    let entry = home.entry();
    entry.write(1, &words(0));
    let good = fs::read(home.paths().pop().unwrap()).unwrap();
    let path = home.0.join(".ledger-1.0");
    let told = |bytes: &[u8]| {
        let error = read_bytes(&path, bytes).expect_err("refused");
        (error.kind(), error.to_string())
    };
    let expect = |bytes: &[u8], kind: ErrorKind, words: &str| {
        let (found, text) = told(bytes);
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(words) && text.contains(".ledger-1.0"), "{text}");
    };
    expect(&[], ErrorKind::Damaged, "truncated: 0 bytes");
    expect(&good[..100], ErrorKind::Damaged, "truncated");
    expect(&good[..good.len() - 1], ErrorKind::Damaged, "truncated: 36863 bytes, 36864 expected");
    expect(&vec![0; good.len()], ErrorKind::Damaged, "no file of Ringway's");
    let mut bytes = good.clone();
    bytes[40] ^= 1;
    expect(&bytes, ErrorKind::Damaged, "crc");
    expect(&change(&good, |h| h.magic = *b"RWAYSEG\0"), ErrorKind::Damaged, "no file of Ringway's");
    expect(
        &change(&good, |h| h.endian = ENDIAN_TAG.swap_bytes()),
        ErrorKind::Damaged,
        "byte order",
    );
    expect(&change(&good, |h| h.abi_major += 1), ErrorKind::AbiMismatch, "memory layout");
    expect(&change(&good, |h| h.generation = 2), ErrorKind::AbiMismatch, "version 2");
    expect(&change(&good, |h| h.boot_id[3] ^= 1), ErrorKind::Stale, "reboot");
    expect(&change(&good, |h| h.seats = u32::MAX), ErrorKind::Damaged, "4294967295 slots");
    expect(&change(&good, |h| h.seats = 64), ErrorKind::Damaged, "64 slots of 512");
    expect(&change(&good, |h| h.slot = 0), ErrorKind::Damaged, "63 slots of 0");
    expect(&change(&good, |h| h.section_count = 0), ErrorKind::Damaged, "slots are not where");
    expect(&change(&good, |h| h.section_count = 9), ErrorKind::Damaged, "sections");
    expect(&change(&good, |h| h.sections[0].offset = 8192), ErrorKind::Damaged, "truncated");
    expect(&change(&good, |h| h.sections[0].len = u64::MAX), ErrorKind::Damaged, "sections");
    expect(&change(&good, |h| h.sections[0].len = 4096), ErrorKind::Damaged, "slots are not where");
    // Words are the caller's business: all that is said of them is whether they are whole.
    let mut bytes = change(&good, |_| {});
    bytes[4608] = 3;
    let found = read_bytes(&path, &bytes).unwrap().unwrap();
    assert!(found.notes[0].is_torn && !found.is_alive);
    // What cannot be read, and nobody holds, is removed as well. A directory is nobody's ledger.
    assert!(ledger::remove_dead(&path).unwrap());
    fs::create_dir(&path).unwrap();
    assert!(ledger::read(&path, VERSION).is_err() && ledger::remove_dead(&path).is_err());
    // One that is bad does not hide the others.
    let found = home.read();
    assert_eq!((found.len(), found.iter().flatten().count()), (2, 1));
}

/// Anything in the file: read, or refused.
#[test]
fn no_bytes_hurt_a_reader() {
    let home = Home::new("bytes");
    let entry = home.entry();
    entry.write(1, &words(0));
    let good = fs::read(home.paths().pop().unwrap()).unwrap();
    let path = home.0.join(".ledger-1.0");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=random(8) {
            let at = if random(2) == 0 { random(HEADER_LEN) } else { random(bytes.len()) };
            bytes[at] = random(256) as u8;
        }
        if round % 4 == 0 {
            bytes.truncate(random(bytes.len()));
        }
        if round % 2 == 0 && bytes.len() >= HEADER_LEN {
            bytes = change(&bytes, |_| {});
        }
        match read_bytes(&path, &bytes) {
            Ok(Some(found)) => assert!(found.notes.len() <= SLOTS),
            Ok(None) => panic!("it is there"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    const { assert!(SLOT_LEN == 512) };
    assert_eq!(LEDGER_MAGIC, *b"RWAYLED\0");
}
