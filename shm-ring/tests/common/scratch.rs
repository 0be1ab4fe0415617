//! A directory on tmpfs for one test, gone when the test is over, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The directory. Channels and the tests' own files live in separate parts, so that "no file is
/// left of the channel" is simply "the first part is empty".
pub struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// A new, empty one.
    pub fn new() -> Self {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        let root =
            PathBuf::from(format!("/dev/shm/ringway-test-{}-{}", std::process::id(), *count));
        // From a killed run of a process that had the same id.
        let _ = fs::remove_dir_all(&root);
        let scratch = Self { root };
        fs::create_dir_all(scratch.channels()).unwrap();
        scratch
    }

    /// For `Options::directory`.
    pub fn channels(&self) -> PathBuf {
        self.root.join("channels")
    }

    /// For a file of the test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Fails if anything is left of any channel.
    pub fn assert_no_channels(&self) {
        let left = walk(&self.channels());
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}
