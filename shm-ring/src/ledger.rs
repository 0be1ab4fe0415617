//! The ledger of a process: one small file in which it shows the tools what it does elsewhere than in
//! channels of shared memory. The crate above says what the words mean; to this file they are words.
//!
//! ```text
//!   page 0    FileHeader   magic LEDGER_MAGIC, its `generation` is the version of the words' meaning
//!   page 1..  Head         whose it is, how many had no room
//!             Slot x 63    a sequence word, a number, 62 words
//! ```
//!
//! Byte 0 of the file is locked for as long as the process lives: that is the proof of life, as with
//! segments, and a ledger whose lock is free is never used again by anybody. A slot has one writer, who
//! stores words and waits for nobody; whoever reads looks at the sequence word before and behind, so what
//! it gets is of one moment, or is called torn.
//!
//! Nothing is promised of a ledger: where none can be made its owner works on without.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, TryLockError, Weak};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;

use crate::error::{Error, ErrorKind};
use crate::file;
use crate::fork::{Birth, OwnFile};
use crate::layout::{FileHeader, PAGE, Section};
use crate::liveness::{self, Identity};
use crate::registry;
use crate::sync::{Word, fence_acquire, fence_release};

/// First bytes of a ledger.
pub const LEDGER_MAGIC: [u8; 8] = *b"RWAYLED\0";
/// `FileHeader::kind` of a ledger.
pub const KIND_LEDGER: u32 = 4;
/// The section kind of head and slots.
pub const SECTION_LEDGER: u32 = 10;
/// Slots of a ledger. A process that shows more things than that shows these, and how many more.
pub const SLOTS: usize = 63;
/// Words of a slot that are the owner's.
pub const WORDS: usize = 62;
/// Bytes of a slot, and of the head.
pub const SLOT_LEN: u64 = 512;

/// A ledger's name in the directory of the channels begins with this; theirs never begin with a dot.
const PREFIX: &str = ".ledger-";
/// Bytes of head and slots.
const LEN: u64 = (SLOTS as u64 + 1) * SLOT_LEN;
/// The byte whose lock is the proof of life.
const LIFE: u64 = 0;
/// Ledgers of the dead that a newcomer leaves for people to look at. A crash loop must not fill the
/// memory.
const DEAD_KEPT: usize = 8;
/// How often a reader looks at a slot that changes under its eyes. A writer needs some 50 ns.
const LOOKS: usize = 1000;
/// How long an opener waits for others that are opening. They need milliseconds, but a child that was
/// forked meanwhile would wait for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the process.
#[repr(C, align(128))]
#[derive(Debug)]
struct Head {
    /// Things that are there now and have no slot.
    hidden: Word,
    /// The command's name, zero padded.
    command: [Word; 2],
    unused: [Word; 61],
}

/// One thing that the process shows.
#[repr(C, align(128))]
#[derive(Debug)]
struct Slot {
    /// Odd while the words change.
    sequence: Word,
    /// 0: nothing is shown here.
    number: Word,
    words: [Word; WORDS],
}

#[repr(C, align(128))]
#[derive(Debug)]
struct Pages {
    head: Head,
    slots: [Slot; SLOTS],
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<Head>() as u64 == SLOT_LEN);
    assert!(size_of::<Slot>() as u64 == SLOT_LEN);
    assert!(offset_of!(Slot, words) == 16);
    assert!(size_of::<Pages>() as u64 == LEN);
    assert!(LEN.is_multiple_of(PAGE));
};

/// The ledgers of this process, by directory.
static OPEN: Mutex<Vec<(PathBuf, Weak<Ledger>)>> = Mutex::new(Vec::new());

/// This process's ledger in one directory. The last [`Entry`] takes it away.
#[derive(Debug)]
struct Ledger {
    path: PathBuf,
    /// Has the lock.
    file: OwnFile,
    map: Mapped,
    /// A bit for each slot that is taken.
    taken: Word,
    birth: Birth,
}

/// A thing that this process shows. Dropping it takes it off the ledger.
#[derive(Debug)]
pub struct Entry {
    ledger: Arc<Ledger>,
    /// None where the ledger is full.
    slot: Option<usize>,
}

impl Entry {
    /// Takes a slot of this process's ledger in the channels' directory (`None`: the usual one), which is
    /// made if this is the first. `version` tells readers what the words mean. Where all slots are taken
    /// the entry counts as one that is not shown. Allocates, and touches the file system.
    ///
    /// # Errors
    /// Where no file can be made: [`Error`] tells what to do about it.
    pub fn open(directory: Option<&Path>, version: u64) -> Result<Self, Error> {
        let root = registry::root(directory, true)?;
        let ledger = Ledger::of_this_process(&root, version)?;
        let slot = ledger.take();
        if slot.is_none() {
            ledger.map.pages().head.hidden.add(1);
        }
        Ok(Self { ledger, slot })
    }

    /// Shows these words, of what is called `number`, which is not 0. Plain stores, no system call. One
    /// thread at a time: of two the readers would get a mixture.
    pub fn write(&self, number: u64, words: &[u64; WORDS]) {
        let Some(slot) = self.slot.filter(|_| !self.ledger.birth.is_foreign()) else { return };
        let slot = &self.ledger.map.pages().slots[slot];
        let sequence = slot.sequence.load_relaxed() | 1;
        slot.sequence.store_relaxed(sequence);
        // R30, pairs with A30 in `read_slot`: who sees one of the words sees that they change.
        fence_release();
        slot.number.store_relaxed(number);
        for (word, value) in slot.words.iter().zip(words) {
            word.store_relaxed(*value);
        }
        // R31, pairs with A31: who sees the even number sees the words.
        slot.sequence.store_release(sequence.wrapping_add(1));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.ledger.birth.is_foreign() {
            return;
        }
        match self.slot {
            Some(slot) => {
                self.write(0, &[0; WORDS]);
                self.ledger.give_back(slot);
            }
            None => self.ledger.map.pages().head.hidden.add(u64::MAX),
        }
    }
}

impl Ledger {
    /// The one that this process has there, or a new one.
    fn of_this_process(root: &Path, version: u64) -> Result<Arc<Self>, Error> {
        let start = Instant::now();
        let mut open = loop {
            match OPEN.try_lock() {
                Ok(open) => break open,
                Err(TryLockError::Poisoned(open)) => break open.into_inner(),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_micros(100));
                }
                // Forked while another thread opened one: nobody will unlock it here.
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!("opening this process's ledger in {}", root.display()),
                        "another thread was just opening it, or did when this process was forked",
                        "Fork before channels are opened, or not from a process with threads",
                    ));
                }
            }
        };
        let known = open.iter().find(|(at, _)| at == root).and_then(|(_, ledger)| ledger.upgrade());
        if let Some(ledger) = known.filter(|ledger| !ledger.birth.is_foreign()) {
            return Ok(ledger);
        }
        clear_away_the_oldest(root);
        let ledger = Arc::new(Self::make(root, version)?);
        open.retain(|(at, ledger)| at != root && ledger.strong_count() > 0);
        open.push((root.to_owned(), Arc::downgrade(&ledger)));
        Ok(ledger)
    }

    fn make(root: &Path, version: u64) -> Result<Self, Error> {
        install_at_exit();
        let birth = Birth::now();
        let who = Identity::of_this_process();
        let sections = [section()];
        let header = FileHeader {
            kind: KIND_LEDGER,
            generation: version,
            capacity: LEN,
            seats: SLOTS as u32,
            slot: SLOT_LEN as u32,
            ..file::blank_header(LEDGER_MAGIC, &sections, &who)
        };
        let file = file::build(root, header, PAGE + LEN)?;
        // Before it has a name: nobody ever finds the ledger of a living process unlocked.
        let locked = liveness::try_lock(&file, LIFE)
            .map_err(|error| Error::io(format!("locking a ledger in {}", root.display()), error))?;
        debug_assert!(locked, "nobody else knows of a nameless file");
        let map = Mapped::new(file::map(&file, root, PAGE, LEN, true)?);
        let (low, high) = who.command.split_at(8);
        for (word, half) in map.pages().head.command.iter().zip([low, high]) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(half);
            word.store_relaxed(u64::from_le_bytes(bytes));
        }
        // A process of another pid namespace may have the same number.
        for number in 0_u32.. {
            let path = root.join(format!("{PREFIX}{}.{number}", who.pid));
            if file::place(&file, &path)? {
                return Ok(Self { path, file, map, taken: Word::new(0), birth });
            }
        }
        unreachable!("a directory has fewer files than there are numbers")
    }

    /// A slot of its own.
    fn take(&self) -> Option<usize> {
        let mut taken = self.taken.load_relaxed();
        loop {
            let free = (!taken).trailing_zeros() as usize;
            if free >= SLOTS {
                return None;
            }
            match self.taken.replace(taken, taken | 1 << free) {
                Ok(()) => return Some(free),
                Err(found) => taken = found,
            }
        }
    }

    /// Takes the file's name away. What fails is left to the next sweep.
    fn unlink(&self) {
        // In a forked child it is the parent's. And under its name there may be somebody else's by now, if
        // this one was removed by hand.
        if !self.birth.is_foreign() && registry::is_same(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn give_back(&self, slot: usize) {
        let mut taken = self.taken.load_relaxed();
        while let Err(found) = self.taken.replace(taken, taken & !(1 << slot)) {
            taken = found;
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// A ledger as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The process, in its own pid namespace.
    pub pid: u32,
    /// Inode of that namespace.
    pub pid_ns: u64,
    /// First bytes of the command's name.
    pub command: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Whether the process lives: by the lock, and by nothing else.
    pub is_alive: bool,
    /// Things that it does and that have no slot.
    pub hidden: u64,
    /// What it shows.
    pub notes: Vec<Note>,
}

/// A slot that is in use.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its index.
    pub slot: usize,
    /// What its owner calls it.
    pub number: u64,
    /// The owner's words.
    pub words: [u64; WORDS],
    /// The words may be of different moments: the process died, or was stopped, while it wrote them.
    pub is_torn: bool,
}

/// All ledgers in the channels' directory, by name; of one that can't be read, why.
///
/// # Errors
/// Those of the file system, about the directory itself.
pub fn read_all(
    directory: Option<&Path>,
    version: u64,
) -> Result<Vec<Result<Found, Error>>, Error> {
    let root = registry::root(directory, false)?;
    Ok(paths(&root)?.into_iter().filter_map(|path| read(&path, version).transpose()).collect())
}

/// Reads one ledger. `None`: there is none (any more).
///
/// # Errors
/// It is damaged, of another version, or made before the last reboot.
pub fn read(path: &Path, version: u64) -> Result<Option<Found>, Error> {
    let Some(file) = file::open(path)? else { return Ok(None) };
    let header = file::read_header(&file, path, LEDGER_MAGIC)?;
    let (slots, bytes) = (header.seats, header.slot);
    if (slots as usize, u64::from(bytes)) != (SLOTS, SLOT_LEN) {
        let found = format!(
            "it says that it has {slots} slots of {bytes} bytes; ledgers of this layout have {SLOTS} of \
             {SLOT_LEN}"
        );
        return Err(file::damaged(path, found));
    }
    if header.used_sections() != [section()] {
        return Err(file::damaged(path, "its slots are not where this layout has them"));
    }
    if header.generation != version {
        return Err(Error::new(
            ErrorKind::AbiMismatch,
            format!("reading {}", path.display()),
            format!(
                "its words are of version {}, this program knows version {version}",
                header.generation
            ),
            "Use the `ringway` of the same release as the program that it looks at",
        ));
    }
    // A failing look proves nothing: then nobody may be called dead.
    let is_alive = liveness::is_locked(&file, LIFE).unwrap_or(true);
    let map = Mapped::new(file::map(&file, path, PAGE, LEN, false)?);
    let Pages { head, slots } = map.pages();
    let command: Vec<u8> = head
        .command
        .iter()
        .flat_map(|word| word.load_relaxed().to_le_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    Ok(Some(Found {
        path: path.to_owned(),
        pid: header.creator_pid,
        pid_ns: header.creator_pid_ns,
        command: String::from_utf8_lossy(&command).escape_debug().to_string(),
        created_ns: header.created_ns,
        is_alive,
        hidden: head.hidden.load_relaxed(),
        notes: slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| read_slot(index, slot))
            .collect(),
    }))
}

/// Removes a ledger whose process is dead, or that nobody can read and nobody holds. False: its process
/// lives, or it is gone.
///
/// # Errors
/// Those of the file system.
pub fn remove_dead(path: &Path) -> Result<bool, Error> {
    let tried = || format!("removing {}", path.display());
    let Some(file) = file::open(path)? else { return Ok(false) };
    // The lock keeps two that remove from taking away what came under the same name meanwhile.
    match liveness::try_lock(&file, LIFE) {
        Ok(true) if registry::is_same(&file, path) => {}
        Ok(_) => return Ok(false),
        Err(error) => return Err(Error::io(tried(), error)),
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(tried(), error)),
    }
}

/// Where ledgers are in the channels' directory, by name, whatever is in them.
///
/// # Errors
/// Those of the file system.
pub fn list(directory: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    paths(&registry::root(directory, false)?)
}

fn section() -> Section {
    Section { kind: SECTION_LEDGER, reserved: 0, offset: PAGE, len: LEN }
}

fn paths(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("listing {}", root.display()), error)),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

/// `None`: nothing is shown there.
fn read_slot(index: usize, slot: &Slot) -> Option<Note> {
    let mut note = Note { slot: index, number: 0, words: [0; WORDS], is_torn: true };
    for _ in 0..LOOKS {
        // A31, pairs with R31 in `Entry::write`.
        let before = slot.sequence.load_acquire();
        note.number = slot.number.load_relaxed();
        for (value, word) in note.words.iter_mut().zip(&slot.words) {
            *value = word.load_relaxed();
        }
        // A30, pairs with R30.
        fence_acquire();
        if before.is_multiple_of(2) && slot.sequence.load_relaxed() == before {
            note.is_torn = false;
            break;
        }
        std::hint::spin_loop();
    }
    (note.number != 0).then_some(note)
}

/// Of the dead processes' ledgers the latest stay. What can't be done here is left to the next.
fn clear_away_the_oldest(root: &Path) {
    let Ok(paths) = paths(root) else { return };
    let age = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut dead: Vec<_> = paths.into_iter().filter(|path| is_dead(path)).collect();
    dead.sort_by_key(age);
    let many = dead.len().saturating_sub(DEAD_KEPT);
    for path in &dead[..many] {
        let _ = remove_dead(path);
    }
}

/// By its lock: a look at a living one's, and no more.
fn is_dead(path: &Path) -> bool {
    let file = file::open(path).ok().flatten();
    file.is_some_and(|file| liveness::is_locked(&file, LIFE).is_ok_and(|locked| !locked))
}

/// Head and slots, mapped.
#[derive(Debug)]
struct Mapped(MmapRaw);

impl Mapped {
    /// `map` has [`LEN`] bytes, as it was asked for.
    fn new(map: MmapRaw) -> Self {
        assert!(map.len() >= size_of::<Pages>(), "mapped as long as that");
        Self(map)
    }

    fn pages(&self) -> &Pages {
        // SAFETY: `new` checked the length, and mappings start on pages; it is made of atomics, so other
        // processes may write it, and any bytes are valid. Only the owner, who mapped it for writing,
        // stores into it.
        unsafe { &*self.0.as_ptr().cast::<Pages>() }
    }
}

/// Takes away the ledgers of a process that exits with things open.
extern "C" fn at_exit() {
    // Other threads may still run, and one of them may be opening one: it stays for the next sweep.
    let Ok(open) = OPEN.try_lock() else { return };
    for ledger in open.iter().filter_map(|(_, ledger)| ledger.upgrade()) {
        ledger.unlink();
        // Not dropped: whoever has it may be dropping it now, and nothing is to come of that any more.
        std::mem::forget(ledger);
    }
}

fn install_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an extern "C" function that lives as long as the program. That it can't be had costs a
        // file, which the next sweep takes.
        unsafe { libc::atexit(at_exit) };
    });
}
