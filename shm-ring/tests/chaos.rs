//! Either side is killed at a random moment and comes again under the same name, two hundred times.
//! Nothing that was committed is lost, nothing comes twice without being flagged, nothing is left.
//!
//! The seed is printed; `RINGWAY_CHAOS_SEED` repeats one, as far as the scheduler lets it.

#![cfg(not(loom))]

mod common;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::peer::{self, PeerProcess, say};
use common::rng::Rng;
use common::scratch::Scratch;
use common::side::Side;
use common::{body, channel, wait_until};
use ringway_shm::sync::Word;
use ringway_shm::{Consumer, ErrorKind, Options, Producer, RecvError, SendError, Wait};

/// Not a test: what the other processes of the test do.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    let [role, options, life, seed, board, log] = &words[..] else { panic!("{words:?}") };
    let options = channel::decode(options);
    let life = life.parse().unwrap();
    let rng = Rng::new(seed.parse().unwrap());
    let board = Board(Side::open(Path::new(board)));
    board.word(life, Note::Pid).store_release(std::process::id().into());
    match role.as_str() {
        PRODUCER => produce(&options, life, rng, board),
        CONSUMER => consume(&options, life, rng, board, Log(Side::open(Path::new(log)))),
        role => panic!("no role {role:?}"),
    }
}

/// Kills on each of the channels.
const KILLS: u64 = 50;

#[test]
fn kill_and_restart_two_hundred_times() {
    let seed = match std::env::var("RINGWAY_CHAOS_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
    };
    println!("RINGWAY_CHAOS_SEED={seed}");
    let mut rng = Rng::new(seed);
    for (capacity, align, wait) in [
        (4096, 16, Wait::Park),
        (8192, 64, Wait::Adaptive),
        (16384, 16, Wait::Park),
        (4096, 64, Wait::Spin),
    ] {
        let scratch = Scratch::new();
        let options = Options {
            capacity: Some(capacity),
            record_align: Some(align),
            ..channel::options(&scratch, "chaos", wait)
        };
        let mut chaos = Chaos::new(&scratch, options, Rng::new(rng.next()));
        chaos.run();
        scratch.assert_no_channels();
        println!("{capacity} bytes, align {align}, {wait}: {}", chaos.verdict());
    }
}

const PRODUCER: &str = "producer";
const CONSUMER: &str = "consumer";

// -------------------------------------------------------------------------------------- the chaos

struct Chaos {
    rng: Rng,
    options: Options,
    board_path: PathBuf,
    log_path: PathBuf,
    board: Board,
    log: Log,
    /// Number of the newest life of either side.
    newest: u64,
    producers: Vec<u64>,
}

/// One side, from start to end.
struct Life {
    peer: PeerProcess,
    role: &'static str,
    number: u64,
    /// It may kill itself at any time.
    doomed: bool,
    opened: bool,
}

impl Chaos {
    fn new(scratch: &Scratch, options: Options, rng: Rng) -> Self {
        let (board_path, log_path) = (scratch.file("board"), scratch.file("log"));
        Self {
            rng,
            options,
            board: Board(Side::create(&board_path, Board::WORDS)),
            log: Log(Side::create(&log_path, Log::WORDS)),
            board_path,
            log_path,
            newest: 0,
            producers: Vec::new(),
        }
    }

    fn run(&mut self) {
        let mut producer = self.start(PRODUCER, None);
        let mut consumer = self.start(CONSUMER, None);
        let mut kills = 0;
        while kills < KILLS {
            let (side, other) = if self.rng.one_in(2) {
                (&mut producer, &consumer)
            } else {
                (&mut consumer, &producer)
            };
            // One may wait for this side only if both work: it may need the other to go on.
            let calm = !side.doomed && !other.doomed;
            if calm && !side.opened && self.rng.one_in(2) {
                side.peer.expect("open");
                side.opened = true;
            }
            // A death is told after some 50 ms: some lives are long enough for that, some are not.
            let most = if self.rng.one_in(2) { 5_000 } else { 200_000 };
            sleep(Duration::from_micros(self.rng.range(0, most)));
            if calm && self.rng.one_in(6) {
                self.board.word(side.number, Note::Leave).store_release(1);
                side.peer.wait_exited();
            } else {
                self.board.word(side.number, Note::Doomed).store_release(1);
                side.peer.kill();
                kills += 1;
            }
            let fault = self.rng.one_in(4).then(|| self.fault(side.role));
            *side = self.start(side.role, fault);
        }
        for side in [&mut producer, &mut consumer] {
            if side.doomed {
                side.peer.kill();
                *side = self.start(side.role, None);
            }
        }
        self.board.last().store_release(producer.number);
        self.board.word(producer.number, Note::Leave).store_release(1);
        producer.peer.wait_exited();
        consumer.peer.wait_exited();
    }

    fn start(&mut self, role: &'static str, fault: Option<String>) -> Life {
        self.newest += 1;
        if role == PRODUCER {
            self.producers.push(self.newest);
        }
        let doomed = fault.is_some();
        self.board.word(self.newest, Note::Doomed).store_release(doomed.into());
        let arguments = [
            &channel::encode(&self.options),
            &self.newest.to_string(),
            &self.rng.next().to_string(),
            self.board_path.to_str().unwrap(),
            self.log_path.to_str().unwrap(),
        ];
        let peer = PeerProcess::start_with_fault(role, &arguments, fault.as_deref());
        Life { peer, role, number: self.newest, doomed, opened: false }
    }

    /// A place for a life to end that a random moment seldom hits.
    fn fault(&mut self, role: &str) -> String {
        let (point, most) = match (role, self.rng.range(0, 7)) {
            (CONSUMER, _) => ("MidRelease", 300),
            (_, 0) => ("SegmentBuilt", 1),
            (_, 1) => ("SegmentPlaced", 1),
            (_, 2..=4) => ("MidWrap", 100),
            (_, _) => ("MidBatch", 300),
        };
        format!("{point}:{}", self.rng.range(1, most))
    }

    /// Compares what was sent with what was received. Returns how much there was of it.
    fn verdict(&self) -> String {
        let mut check = Check::default();
        for entry in self.log.entries() {
            check.next(entry);
        }
        assert_eq!(self.log.entries().last(), Some(Entry::Closed));
        let mut lost = 0;
        for &life in &self.producers {
            let received = check.next.get(&life).copied().unwrap_or(0);
            let done = self.board.word(life, Note::Done).load_acquire();
            let intent = self.board.word(life, Note::Intent).load_acquire();
            assert!(
                done <= received && received <= intent,
                "producer {life} committed {done} to {intent} messages, {received} came"
            );
            lost += intent - received;
        }
        format!(
            "{} lives, {} messages, {} of them more than once, {lost} never committed, {} deaths \
             told",
            self.newest,
            check.next.values().sum::<u64>(),
            check.again,
            check.died.len()
        )
    }
}

/// What the consumers' log may look like.
#[derive(Default)]
struct Check {
    /// Of each producer: the index that was not received yet.
    next: HashMap<u64, u64>,
    /// Of each producer: the index from which on messages may come again.
    held: HashMap<u64, u64>,
    /// The producer whose messages come.
    producer: u64,
    /// What came last in this life of a consumer.
    previous: Option<(u64, u64)>,
    died: HashSet<u64>,
    again: u64,
}

impl Check {
    fn next(&mut self, entry: Entry) {
        match entry {
            Entry::Start => self.previous = None,
            Entry::Message { producer, index, flagged } => {
                assert!(producer >= self.producer, "{entry:?} after {}'s", self.producer);
                assert!(!self.died.contains(&producer), "{entry:?} after its death was told");
                self.producer = producer;
                if let Some((before, last)) = self.previous
                    && before == producer
                {
                    assert_eq!(index, last + 1, "{entry:?}");
                }
                self.previous = Some((producer, index));
                let next = self.next.entry(producer).or_default();
                if index == *next {
                    *next += 1;
                } else {
                    let held = self.held.get(&producer).copied().unwrap_or(0);
                    assert!(index < *next, "{entry:?} when {next} was to come");
                    assert!(index >= held, "{entry:?} was released");
                    assert!(flagged, "{entry:?} comes again");
                    self.again += 1;
                }
            }
            Entry::Released { producer, index } => {
                self.held.insert(producer, index + 1);
            }
            Entry::Died { producer } => {
                assert!(self.died.insert(producer), "{entry:?} was told before");
            }
            Entry::Closed => {}
        }
    }
}

// ----------------------------------------------------------------------------------- the producer

/// Messages after which a producer only waits for its end, so that the log has a size.
const MOST: u64 = 10_000;

struct Sender {
    producer: Producer,
    life: u64,
    next: u64,
    rng: Rng,
    board: Board,
}

fn produce(options: &Options, life: u64, rng: Rng, board: Board) {
    let mut producer = None;
    wait_until("predecessors to be drained", || match Producer::open(options) {
        Ok(opened) => {
            producer = Some(opened);
            true
        }
        Err(error) if error.kind() == ErrorKind::Undrained => false,
        Err(error) => panic!("{error}"),
    });
    let mut sender = Sender { producer: producer.unwrap(), life, next: 0, rng, board };
    say("open");
    while sender.board.word(life, Note::Leave).load_acquire() == 0 {
        match sender.rng.range(0, 9) {
            _ if sender.next >= MOST => sleep(Duration::from_millis(1)),
            0..=3 => sender.commit(),
            4..=6 => sender.batch(),
            7..=8 => sender.array(),
            _ => sleep(Duration::from_micros(sender.rng.range(0, 1500))),
        }
    }
    sender.commit();
}

impl Sender {
    fn commit(&mut self) {
        self.one(false);
        self.done();
    }

    fn batch(&mut self) {
        for _ in 0..self.rng.range(1, 12) {
            self.one(true);
        }
        // A commit publishes as well.
        if self.rng.one_in(2) {
            self.one(false);
        } else {
            self.producer.flush().unwrap();
        }
        self.done();
    }

    fn array(&mut self) {
        let len = self.rng.range(body::MIN as u64, 100) as usize;
        let most = ((self.producer.max_len() - 16) / len).min(20);
        let count = self.rng.range(1, most as u64);
        let used = self.rng.range(1, count);
        self.intend(used);
        loop {
            match self.producer.claim_array(len, count as usize) {
                Ok(mut claim) => {
                    for (index, bytes) in (self.next..).zip(claim.bytes().chunks_mut(len)) {
                        body::fill(bytes, self.life, index);
                    }
                    claim.queue(used as usize).unwrap();
                    break;
                }
                Err(error) => self.check(error),
            }
        }
        self.next += used;
        if self.rng.one_in(2) {
            self.producer.flush().unwrap();
            self.done();
        }
    }

    fn one(&mut self, queue: bool) {
        let most = if self.rng.one_in(8) { self.producer.max_len() } else { 200 };
        let len = self.rng.range(body::MIN as u64, most as u64) as usize;
        self.intend(1);
        let impatient = self.rng.one_in(4);
        loop {
            let claim = if impatient {
                self.producer.claim_timeout(len, Duration::from_micros(300))
            } else {
                self.producer.claim(len)
            };
            match claim {
                Ok(mut claim) => {
                    body::fill(&mut claim, self.life, self.next);
                    if queue { claim.queue() } else { claim.commit() }.unwrap();
                    break;
                }
                Err(SendError::Timeout { .. }) if impatient => {}
                Err(error) => self.check(error),
            }
        }
        self.next += 1;
    }

    /// Before anything of it can become visible.
    fn intend(&self, count: u64) {
        self.board.word(self.life, Note::Intent).store_release(self.next + count);
    }

    /// When everything so far is published.
    fn done(&self) {
        self.board.word(self.life, Note::Done).store_release(self.next);
    }

    fn check(&self, error: SendError) {
        match error {
            SendError::Disconnected => {}
            SendError::PeerDied { peer } => drop(self.board.dead(peer.pid)),
            error => panic!("{error}"),
        }
    }
}

// ----------------------------------------------------------------------------------- the consumer

fn consume(options: &Options, life: u64, mut rng: Rng, board: Board, log: Log) {
    let mut consumer = Consumer::open(options).unwrap_or_else(|error| panic!("{error}"));
    log.push(Entry::Start);
    say("open");
    let timeout = Duration::from_millis(10);
    let mut producer = 0;
    while board.word(life, Note::Leave).load_acquire() == 0 {
        let received = if rng.one_in(2) {
            consumer.recv_timeout(timeout).map(|message| {
                hold(&mut rng);
                let last = log.message(&message, message.redelivered());
                hold(&mut rng);
                drop(message);
                last
            })
        } else {
            let limit = rng.range(1, 20) as usize;
            consumer.recv_batch(limit, Some(timeout)).map(|mut batch| {
                let mut last = None;
                for _ in 0..rng.range(1, 20) {
                    if let Some(message) = batch.next().unwrap() {
                        hold(&mut rng);
                        last = Some(log.message(message.payload, message.redelivered));
                    }
                }
                hold(&mut rng);
                last.unwrap()
            })
        };
        match received {
            Ok((from, index)) => {
                log.push(Entry::Released { producer: from, index });
                producer = from;
            }
            Err(RecvError::Timeout) => {}
            Err(RecvError::PeerDied { peer }) => {
                log.push(Entry::Died { producer: board.dead(peer.pid) });
            }
            Err(RecvError::Disconnected) => {
                log.push(Entry::Closed);
                if producer == board.last().load_acquire() {
                    return;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sometimes keeps what was received for long enough to fill the ring, and to be killed with it
/// before or after it is in the log.
fn hold(rng: &mut Rng) {
    if rng.one_in(40) {
        sleep(Duration::from_micros(rng.range(0, 5000)));
    }
}

// -------------------------------------------------------------------- what outlives every process

/// Notes of and for each life, in a mapped file.
struct Board(Side);

/// One of the words of a life.
#[derive(Clone, Copy)]
enum Note {
    Pid,
    /// It is about to be killed, or may kill itself.
    Doomed,
    /// It is to leave in good order.
    Leave,
    /// Of a producer: messages of which a consumer may see some.
    Intent,
    /// Of a producer: messages that were published.
    Done,
}

impl Board {
    const PER_LIFE: usize = 8;
    /// Several times as many as there are kills.
    const LIVES: usize = 1024;
    const WORDS: usize = Self::PER_LIFE * Self::LIVES;

    fn word(&self, life: u64, note: Note) -> &Word {
        self.0.word(life as usize * Self::PER_LIFE + note as usize)
    }

    /// The life of the last producer, 0 while more are to come.
    fn last(&self) -> &Word {
        // Lives are counted from 1.
        self.word(0, Note::Pid)
    }

    /// The life of a process that is said to be dead; none may say so of a living one.
    fn dead(&self, pid: u32) -> u64 {
        let life = (1..Self::LIVES as u64)
            .rev()
            .find(|life| self.word(*life, Note::Pid).load_acquire() == u64::from(pid));
        let life = life.unwrap_or_else(|| panic!("no life of process {pid}"));
        assert_eq!(self.word(life, Note::Doomed).load_acquire(), 1, "{pid} is said to be dead");
        life
    }
}

/// What consumers saw, in order. A word per entry, so that a kill leaves no half of one.
struct Log(Side);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// A consumer came.
    Start,
    /// It saw a message, which is not released yet.
    Message { producer: u64, index: u64, flagged: bool },
    /// It released everything up to this message.
    Released { producer: u64, index: u64 },
    /// It was told that a producer died.
    Died { producer: u64 },
    /// It was told that a producer closed.
    Closed,
}

impl Log {
    const WORDS: usize = 1 << 23;
    /// The word that counts the entries; the others are entries.
    const COUNT: usize = 0;

    fn push(&self, entry: Entry) {
        let (kind, producer, index) = match entry {
            Entry::Start => (0, 0, 0),
            Entry::Message { producer, index, flagged } => {
                (1 + u64::from(flagged), producer, index)
            }
            Entry::Released { producer, index } => (3, producer, index),
            Entry::Died { producer } => (4, producer, 0),
            Entry::Closed => (5, 0, 0),
        };
        let count = self.0.word(Self::COUNT).load_acquire() + 1;
        self.0.word(count as usize).store_release(kind | producer << 8 | index << 32);
        self.0.word(Self::COUNT).store_release(count);
    }

    /// Notes a message and returns whose and which it is.
    fn message(&self, bytes: &[u8], flagged: bool) -> (u64, u64) {
        let (producer, index) = body::read(bytes).unwrap();
        self.push(Entry::Message { producer, index, flagged });
        (producer, index)
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> {
        (1..=self.0.word(Self::COUNT).load_acquire() as usize).map(|at| {
            let word = self.0.word(at).load_acquire();
            let (producer, index) = (word >> 8 & 0xff_ffff, word >> 32);
            match word & 0xff {
                0 => Entry::Start,
                kind @ (1 | 2) => Entry::Message { producer, index, flagged: kind == 2 },
                3 => Entry::Released { producer, index },
                4 => Entry::Died { producer },
                _ => Entry::Closed,
            }
        })
    }
}
