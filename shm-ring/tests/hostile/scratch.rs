//! A private directory for one channel, its files as bytes, and short forms of what every test here
//! does with them. No test here.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringway_shm::layout::{FileHeader, HEADER_LEN};
use ringway_shm::sync::Word;
use ringway_shm::{Consumer, Error, ErrorKind, Options, Producer, Schema, Wait};

pub const CAPACITY: usize = 4096;
pub const PRODUCER_PAGE: usize = 4096;
pub const RING: usize = 8192;
pub const CONSUMER_PAGE: usize = RING + CAPACITY;
pub const SEGMENT_LEN: usize = CONSUMER_PAGE + 4096;
pub const SCHEMA: usize = 4096;
pub const PRODUCER_ROLE: usize = 8192;
pub const CONSUMER_ROLE: usize = 12288;
pub const CONTROL_LEN: usize = 16384;

/// Removed however the test ends.
pub struct Scratch {
    pub directory: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static COUNT: Word = Word::new(0);
        static COUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one_at_a_time = COUNTING.lock();
        COUNT.bump(1);
        let directory = PathBuf::from(format!(
            "/dev/shm/ringway-test-hostile-{}-{}",
            std::process::id(),
            COUNT.load_relaxed()
        ));
        fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    pub fn options(&self) -> Options {
        options_in(&self.directory)
    }

    pub fn channel(&self) -> PathBuf {
        self.directory.join("hostile")
    }

    pub fn control(&self) -> PathBuf {
        self.channel().join("control")
    }

    pub fn segment(&self, number: u32) -> PathBuf {
        self.channel().join(format!("{number:06}"))
    }

    pub fn producer(&self) -> Producer {
        Producer::open(&self.options()).unwrap()
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::open(&self.options()).unwrap()
    }

    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.directory).unwrap().count() == 0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn options_in(directory: &Path) -> Options {
    Options {
        directory: Some(directory.to_owned()),
        capacity: Some(CAPACITY as u64),
        wait: Some(Wait::Park),
        record_align: Some(64),
        ..Options::new(
            "hostile",
            Schema { fingerprint: 7, text: "a: u64\nb: f32\n".into(), payload_align: 8 },
        )
    }
}

pub fn send(producer: &mut Producer, bytes: &[u8]) {
    let mut claim = producer.try_claim(bytes.len()).unwrap();
    claim.copy_from_slice(bytes);
    claim.commit().unwrap();
}

/// Checks the kind, and that the text has all of the pieces.
#[track_caller]
pub fn assert_error<T>(result: Result<T, Error>, kind: ErrorKind, pieces: &[&str]) {
    let Err(error) = result else { panic!("no error, {kind:?} expected") };
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for piece in pieces {
        assert!(text.contains(piece), "{piece:?} is not in: {text}");
    }
}

/// Overwrites bytes of a file that may be mapped.
pub fn poke(path: &Path, at: usize, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

/// The file's bytes with another header, whose crc is right.
pub fn with_header(file: &[u8], change: impl FnOnce(&mut FileHeader)) -> Vec<u8> {
    let bytes: &[u8; HEADER_LEN] = file[..HEADER_LEN].try_into().unwrap();
    let mut header = FileHeader::from_bytes(bytes);
    change(&mut header);
    header.crc = header.expected_crc();
    [&header.to_bytes(), &file[HEADER_LEN..]].concat()
}
