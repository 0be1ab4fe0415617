//! Where a kill happens: a directory of its own, messages that can be told apart, who is left, and a
//! word that the victim leaves for its survivors.

use std::fs;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::time::Duration;

use ringway_shm::sync::Word;
use ringway_shm::{
    Consumer, MpmcReceiver, MpmcSender, Options, Producer, RecvError, Schema, Subscriber,
};

/// Long enough for anything that has to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Removed, with what is in it, when dropped.
pub struct Scene {
    directory: PathBuf,
    note: NonNull<Word>,
    /// Kills before this one.
    pub number: u64,
}

impl Scene {
    pub fn new(number: u64) -> Self {
        let directory = PathBuf::from(format!(
            "/dev/shm/ringway-test-sweep-{}-{number:06}",
            std::process::id()
        ));
        fs::create_dir(&directory).unwrap();
        // SAFETY: a fresh page of its own, shared with children.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        Self { directory, note: NonNull::new(page.cast()).unwrap(), number }
    }

    pub fn options(&self) -> Options {
        Options {
            directory: Some(self.directory.clone()),
            capacity: Some(4096),
            ..Options::new(
                "sweep",
                Schema { fingerprint: 1, text: "bytes\n".into(), payload_align: 8 },
            )
        }
    }

    pub fn control(&self) -> PathBuf {
        self.directory.join("sweep/control")
    }

    pub fn producer(&self) -> Producer {
        Producer::open(&self.options()).unwrap()
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::open(&self.options()).unwrap()
    }

    /// A number that outlives the victim who writes it.
    pub fn note(&self) -> &Word {
        // SAFETY: a page that lives as long as `self`, and holds nothing but atomics.
        unsafe { self.note.as_ref() }
    }

    pub fn assert_empty(&self) {
        let left: Vec<_> = fs::read_dir(&self.directory).unwrap().collect();
        assert!(left.is_empty(), "files are left: {left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        // SAFETY: the page is this scene's alone, and nothing refers to it any more.
        unsafe { libc::munmap(self.note.as_ptr().cast(), 4096) };
    }
}

/// The process that goes on.
#[derive(Default)]
pub struct Survivors {
    pub producer: Option<Producer>,
    pub consumer: Option<Consumer>,
    /// Of a broadcast that overwrites.
    pub subscriber: Option<Subscriber>,
    /// Of an MPMC channel, the two that go on.
    pub queue: Option<(MpmcSender, MpmcReceiver)>,
    /// What the consumer was told of the victim's end, if that was early.
    pub news: Option<RecvError>,
}

impl Survivors {
    /// Where both are there.
    pub fn both(&mut self) -> (&mut Producer, &mut Consumer) {
        (self.producer.as_mut().unwrap(), self.consumer.as_mut().unwrap())
    }
}

/// What is known of a victim.
pub struct Death {
    pub pid: u32,
    /// The verb was over.
    pub is_finished: bool,
    /// In words.
    pub at: String,
}

/// Bytes of message `number`.
pub fn body(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (number * 37 + index * 11 + 1) as u8).collect()
}

pub fn send(producer: &mut Producer, bytes: &[u8]) {
    let mut claim = producer.try_claim(bytes.len()).unwrap();
    claim.copy_from_slice(bytes);
    claim.commit().unwrap();
}

/// Takes message `number`, which must be there. Whether it was flagged.
#[track_caller]
pub fn take(consumer: &mut Consumer, number: usize, len: usize) -> bool {
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!(*message, body(number, len), "message {number}");
    message.redelivered()
}

/// The end of a round: a new producer's message arrives, both close, and that is told.
pub fn go_on(scene: &Scene, mut consumer: Consumer) {
    let mut producer = scene.producer();
    send(&mut producer, b"after");
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!(*message, *b"after");
    assert!(!message.redelivered());
    drop(message);
    drop(producer);
    assert_eq!(told(&mut consumer), RecvError::Disconnected);
}

/// Waits for the news that there is no message, and checks that it comes once.
#[track_caller]
pub fn told(consumer: &mut Consumer) -> RecvError {
    told_since(None, consumer)
}

/// As [`told`], if it was not told before.
#[track_caller]
pub fn told_since(news: Option<RecvError>, consumer: &mut Consumer) -> RecvError {
    let news = news.unwrap_or_else(|| {
        consumer.recv_timeout(PATIENCE).map(|message| message.to_vec()).unwrap_err()
    });
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty, "told more than once");
    news
}
