//! What fork() does to handles: the child gets copies of file descriptors whose locks belong to the
//! parent. A child handler closes those descriptors, without unlocking (an unlock would release the
//! parent's lock), and marks every handle as not this process's own: by a count that all verbs may look
//! at, and by replacing the data that the quickest verbs look at anyway (`home`).
//!
//! Nothing here knows what a descriptor is for.

use std::cell::UnsafeCell;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::{Once, OnceLock};

use crossbeam_utils::CachePadded;

use crate::sync::Word32;

/// Forks since the program started, as this process sees it. Every verb reads it, so it shares its
/// line with nothing that is ever written.
static FORKS: CachePadded<Word32> = CachePadded::new(Word32::new(0));

/// In which process a handle was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth(u32);

impl Birth {
    /// Now, here.
    pub fn now() -> Self {
        Self(FORKS.load_relaxed())
    }

    /// Whether this process is a fork of the one it happened in.
    #[inline(always)]
    pub fn is_foreign(self) -> bool {
        FORKS.load_relaxed() != self.0
    }
}

/// A file that a forked child closes at once. In such a child, dropping it does nothing.
#[derive(Debug)]
pub struct OwnFile {
    file: ManuallyDrop<File>,
    slot: &'static Word32,
    birth: Birth,
}

impl OwnFile {
    /// Opens a file and takes it in charge. No fork can come between the two: its child would keep
    /// a copy, and with it the locks that are taken later.
    pub fn open(open: impl FnOnce() -> io::Result<File>) -> io::Result<Self> {
        install_handlers();
        let _no_fork = Taking::lock();
        let file = ManuallyDrop::new(above_standard(open()?)?);
        let slot = take_slot(file.as_raw_fd());
        Ok(Self { file, slot, birth: Birth::now() })
    }
}

/// The same file by a number above those of the standard streams, which a program may have closed: somebody's
/// message to them would be written over what is in the file.
fn above_standard(file: File) -> io::Result<File> {
    if file.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(file);
    }
    // SAFETY: no pointers; the descriptor is open.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: open just now, and nobody else's.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.birth.is_foreign() {
            return;
        }
        // First out of the table: a fork in between leaks a descriptor into the child, which is
        // harmless once unlocked; the other way round it would close somebody else's number.
        self.slot.store_relaxed(FREE);
        // SAFETY: `file` is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

/// Something that a child overwrites: where it is, and how.
pub struct Home {
    /// Where.
    pub at: NonNull<()>,
    /// How. To be called with `at`, while it is there and nobody looks at it.
    pub leave: unsafe fn(NonNull<()>),
}

/// From now on a child's handler leaves it.
pub fn enlist(home: Home) {
    install_handlers();
    Taking::lock().homes().push(home);
}

/// From now on no handler knows of what is there.
pub fn strike(at: NonNull<()>) {
    Taking::lock().homes().retain(|home| home.at != at);
}

/// A slot holds a descriptor + 1.
const FREE: u32 = 0;
const CHUNK: usize = 64;

/// Descriptors to close in a child.
struct Chunk {
    slots: [Word32; CHUNK],
    next: OnceLock<Box<Chunk>>,
}

impl Chunk {
    const fn new() -> Self {
        Self { slots: [const { Word32::new(FREE) }; CHUNK], next: OnceLock::new() }
    }
}

static TABLE: Chunk = Chunk::new();

/// Held while the table or the homes change, and by the handlers across a fork. A pthread mutex,
/// because the handlers lock and unlock in different functions.
static TAKING: Taking = Taking {
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    homes: UnsafeCell::new(Vec::new()),
};

struct Taking {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// Under the mutex.
    homes: UnsafeCell<Vec<Home>>,
}

// SAFETY: a mutex is made to be used by several threads, and the other cell is reached by who holds it.
unsafe impl Sync for Taking {}

impl Taking {
    fn lock() -> TakingGuard {
        before_fork();
        TakingGuard
    }
}

struct TakingGuard;

impl TakingGuard {
    fn homes(&mut self) -> &mut Vec<Home> {
        // SAFETY: this guard says that the mutex is held, and is borrowed.
        unsafe { &mut *TAKING.homes.get() }
    }
}

impl Drop for TakingGuard {
    fn drop(&mut self) {
        after_fork();
    }
}

extern "C" fn before_fork() {
    // SAFETY: an initialised mutex of static life, which no thread locks twice: no lock is taken
    // and no fork made while it is held.
    unsafe {
        libc::pthread_mutex_lock(TAKING.mutex.get());
    }
}

extern "C" fn after_fork() {
    // SAFETY: locked by this thread, or by the thread of which this one is the copy.
    unsafe {
        libc::pthread_mutex_unlock(TAKING.mutex.get());
    }
}

/// With `TAKING` held.
fn take_slot(fd: i32) -> &'static Word32 {
    let mut chunk = &TABLE;
    loop {
        if let Some(slot) = chunk.slots.iter().find(|slot| slot.load_relaxed() == FREE) {
            slot.store_relaxed(fd.cast_unsigned() + 1);
            return slot;
        }
        chunk = chunk.next.get_or_init(|| Box::new(Chunk::new()));
    }
}

fn install_handlers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are extern "C" functions that live for ever and do only what is
        // allowed around a fork of a multi-threaded process: loads, stores, close, and a mutex that
        // is locked before and unlocked after. A failure (ENOMEM) leaves the handles usable; only a
        // fork would go unnoticed.
        unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child));
        }
    });
}

extern "C" fn in_child() {
    FORKS.store_relaxed(FORKS.load_relaxed().wrapping_add(1));
    let mut chunk = Some(&TABLE);
    while let Some(Chunk { slots, next }) = chunk {
        for slot in slots {
            let fd = slot.load_relaxed();
            if fd != FREE {
                slot.store_relaxed(FREE);
                // SAFETY: the table holds open descriptors of files that only OwnFile closes, and
                // in this process OwnFile no longer does.
                drop(unsafe { File::from_raw_fd((fd - 1).cast_signed()) });
            }
        }
        chunk = next.get().map(|next| &**next);
    }
    // SAFETY: the mutex was taken before the fork; a child has one thread, which is here.
    for home in unsafe { &*TAKING.homes.get() } {
        // SAFETY: what is listed lives; this thread, which has forked, is in no call of the ring's, so it
        // holds no reference to it (`home`). A call of another thread was interrupted for ever: its handle
        // is out of reach here.
        unsafe { (home.leave)(home.at) };
    }
    after_fork();
}
