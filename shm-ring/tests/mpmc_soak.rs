//! Senders and receivers of one MPMC channel come and go, are killed and stopped at random moments, for
//! as long as it is asked for; then everything is accounted for.
//!
//! `RINGWAY_SOAK_SECONDS` says how long (default 30), `RINGWAY_SOAK_SEED` repeats a sequence of kills (not
//! the moments). What must hold at the end: each message that a sender knew to be committed came; what
//! came twice was flagged the second time; at each receiver each sender's messages came in order,
//! redeliveries apart; nobody waited for more than a bounded time while somebody lived.

#![cfg(not(loom))]

mod common;

use std::time::{Duration, Instant};

use common::peer::{self, PeerProcess, say};
use common::rng::Rng;
use common::scratch::Scratch;
use common::side::Side;
use common::{PATIENCE, body, channel, wait_until};
use ringway_shm::{Kind, MpmcReceiver, MpmcSender, Options, RecvError, Wait};

/// Most messages of one sender's life: a word each of the tally.
const MOST: u64 = 1 << 15;
/// Senders' lives.
const LIVES: u64 = 1 << 12;
/// Senders and receivers at a time.
const EACH: usize = 3;
/// Slots: few, so that everybody is in everybody's way.
const SLOTS: u64 = 64;

/// Not a test: what the other processes of the test do.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    let [role, directory, wait, life, side] = &words[..] else { panic!("{words:?}") };
    let options = options(directory.into(), wait.parse().unwrap());
    let tally = Tally(Side::open(side.as_ref()));
    let life = life.parse().unwrap();
    match role.as_str() {
        "send" => sends(&options, life, &tally),
        "receive" => receives(&options, &tally),
        role => panic!("no role {role:?}"),
    }
}

fn options(directory: std::path::PathBuf, wait: Wait) -> Options {
    Options {
        directory: Some(directory),
        kind: Some(Kind::Mpmc),
        slots: Some(SLOTS),
        slot: Some(128),
        wait: Some(wait),
        ..Options::new("soak", channel::schema())
    }
}

/// What outlives everybody. By life: messages committed at least, and 1 if it is over. By message: how
/// often it came, unflagged in the low half, flagged in the high one.
struct Tally(Side);

const UNEXPECTED: usize = 0;
const STOP: usize = 1;
/// In that word. Senders first: one that waits for room when the last receiver has gone would wait on.
const SENDERS: u64 = 1;
const RECEIVERS: u64 = 2;
const PROGRESS: usize = 2;
const FIRST: usize = 8;

impl Tally {
    const WORDS: usize = FIRST + LIVES as usize * (1 + MOST as usize);

    fn committed(&self, life: u64) -> &ringway_shm::sync::Word {
        self.0.word(FIRST + life as usize)
    }

    fn came(&self, life: u64, index: u64) -> &ringway_shm::sync::Word {
        self.0.word(FIRST + (LIVES + life * MOST + index) as usize)
    }

    /// Whether those of that side are to end.
    fn stops(&self, side: u64) -> bool {
        self.0.word(STOP).load_relaxed() >= side
    }
}

fn sends(options: &Options, life: u64, tally: &Tally) {
    let mut rng = Rng::new(life);
    let mut sender = MpmcSender::open(options).unwrap();
    let room = sender.max_len();
    say("ready");
    let mut next = 0;
    while next < MOST && !tally.stops(SENDERS) {
        let batch = if rng.one_in(3) { rng.range(2, 9).min(MOST - next) } else { 1 };
        if batch > 1 {
            sender.reserve(batch as usize).unwrap();
        }
        for index in next..next + batch {
            // A receiver is always there, sooner or later.
            let len = body::length(index, room);
            let sent = sender.claim_timeout(len, PATIENCE).and_then(|mut claim| {
                body::fill(&mut claim, life, index);
                linger(&mut rng);
                if batch > 1 { claim.queue() } else { claim.commit() }
            });
            if let Err(error) = sent {
                return unexpected(tally, &error.to_string());
            }
        }
        if let Err(error) = sender.flush() {
            return unexpected(tally, &error.to_string());
        }
        next += batch;
        tally.committed(life).store_release(next);
        // In bursts, so that a life is over before its messages are.
        if rng.one_in(16) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn receives(options: &Options, tally: &Tally) {
    let mut rng = Rng::new(std::process::id().into());
    let mut receiver = MpmcReceiver::open(options).unwrap();
    let mut last = vec![0; LIVES as usize];
    say("ready");
    loop {
        let most = if rng.one_in(2) { 1 } else { rng.range(2, 12) as usize };
        let mut batch = match receiver.recv_batch(most, Some(Duration::from_millis(500))) {
            Ok(batch) => batch,
            Err(RecvError::Timeout) if tally.stops(RECEIVERS) => return,
            Err(RecvError::Timeout) => continue,
            Err(error) => return unexpected(tally, &error.to_string()),
        };
        // Now and then it leaves some for the next call.
        for _ in 0..rng.range(1, most as u64) {
            let message = match batch.next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return unexpected(tally, &error.to_string()),
            };
            let (life, index) = match body::read(message.payload) {
                Ok(read) => read,
                Err(what) => return unexpected(tally, &what),
            };
            if !message.redelivered {
                if last[life as usize] > index {
                    return unexpected(tally, "out of order");
                }
                last[life as usize] = index + 1;
            }
            tally.came(life, index).add(if message.redelivered { 1 << 32 } else { 1 });
            linger(&mut rng);
        }
        drop(batch);
        tally.0.word(PROGRESS).add(1);
    }
}

/// Now and then, with a claim in hand: otherwise hardly anybody is killed with one.
fn linger(rng: &mut Rng) {
    if rng.one_in(128) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn unexpected(tally: &Tally, what: &str) {
    eprintln!("process {}: {what}", std::process::id());
    tally.0.word(UNEXPECTED).add(1);
}

#[test]
fn everybody_may_die() {
    let seconds = std::env::var("RINGWAY_SOAK_SECONDS").map_or(30, |text| text.parse().unwrap());
    let seed = std::env::var("RINGWAY_SOAK_SEED")
        .map_or_else(|_| std::process::id().into(), |text| text.parse().unwrap());
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let waits = [Wait::Adaptive, Wait::Park, Wait::Spin];
    for wait in waits {
        soak(&mut rng, wait, Duration::from_secs(seconds) / waits.len() as u32);
    }
}

struct Living {
    peer: PeerProcess,
    /// Of a sender.
    life: u64,
    stopped: bool,
}

fn soak(rng: &mut Rng, wait: Wait, length: Duration) {
    let scratch = Scratch::new();
    let side = scratch.file("tally");
    let tally = Tally(Side::create(&side, Tally::WORDS));
    let options = options(scratch.channels(), wait);
    // Somebody who never dies, so that the channel and its counters stay to the end.
    let mut keeper = MpmcReceiver::open(&options).unwrap();
    let start = |role: &str, life: u64| {
        let directory = scratch.channels();
        let arguments = [
            directory.to_str().unwrap(),
            &wait.to_string(),
            &life.to_string(),
            side.to_str().unwrap(),
        ];
        let mut peer = PeerProcess::start(role, &arguments);
        peer.expect("ready");
        Living { peer, life, stopped: false }
    };
    let mut lives = 0;
    let mut living: Vec<Living> = Vec::new();
    for index in 0..2 * EACH {
        living.push(if index < EACH { start("send", index as u64) } else { start("receive", 0) });
    }
    lives += EACH as u64;
    let (mut kills, mut stops) = (0, 0);
    let end = Instant::now() + length;
    let mut longest = Duration::ZERO;
    while Instant::now() < end && lives < LIVES {
        std::thread::sleep(Duration::from_micros(rng.range(0, 12_000)));
        let drawn = rng.range(0, 2 * EACH as u64 - 1) as usize;
        // One that has sent all it may is replaced at once: where it is slow to kill anybody, all of
        // them might come to that, and nothing would go on.
        let spent = |index: &usize| tally.committed(living[*index].life).load_relaxed() >= MOST;
        let spent = (0..EACH).find(spent);
        let victim = spent.unwrap_or(drawn);
        if spent.is_none() && rng.one_in(3) {
            // At most one at a time, or nobody might be left to go on.
            if living[victim].stopped {
                living[victim].peer.go_on();
                living[victim].stopped = false;
            } else if living.iter().all(|one| !one.stopped) {
                living[victim].peer.signal(libc::SIGSTOP);
                living[victim].stopped = true;
                stops += 1;
            }
            continue;
        }
        // SIGKILL also ends the stopped.
        living[victim].peer.signal(libc::SIGKILL);
        let killed = Instant::now();
        let before = tally.0.word(PROGRESS).load_relaxed();
        living[victim] = if victim < EACH {
            lives += 1;
            start("send", lives - 1)
        } else {
            start("receive", 0)
        };
        kills += 1;
        for one in &mut living {
            if std::mem::take(&mut one.stopped) {
                one.peer.go_on();
            }
        }
        wait_until("the others to go on", || {
            let all_spent =
                (0..EACH).all(|index| tally.committed(living[index].life).load_relaxed() >= MOST);
            all_spent || tally.0.word(PROGRESS).load_relaxed() != before
        });
        longest = longest.max(killed.elapsed());
    }
    for one in &mut living {
        if one.stopped {
            one.peer.go_on();
        }
    }
    let (senders, receivers) = living.split_at_mut(EACH);
    for (side, peers) in [(SENDERS, senders), (RECEIVERS, receivers)] {
        tally.0.word(STOP).store_release(side);
        for one in peers {
            one.peer.wait_exited();
        }
    }
    drop(living);
    // What nobody received is for the keeper.
    let mut left = 0;
    loop {
        match keeper.recv_timeout(Duration::from_millis(300)) {
            Ok(message) => {
                let (life, index) = body::read(&message).unwrap();
                let by = if message.redelivered() { 1 << 32 } else { 1 };
                tally.came(life, index).add(by);
                left += 1;
            }
            Err(RecvError::Timeout) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let stats = keeper.stats();
    let (mut committed, mut lost, mut doubled, mut again) = (0, 0, 0, 0);
    for life in 0..lives {
        let known = tally.committed(life).load_acquire();
        committed += known;
        for index in 0..MOST {
            let came = tally.came(life, index).load_acquire();
            let (fresh, flagged) = (came & 0xffff_ffff, came >> 32);
            lost += u64::from(index < known && came == 0);
            doubled += u64::from(fresh > 1);
            again += flagged;
        }
    }
    println!(
        "{wait}: {kills} kills, {stops} stops, {lives} senders, {committed} messages, {again} redelivered, \
         {} given up, {left} left to the last; {lost} lost, {doubled} doubled; longest from a kill to the \
         next message and a successor: {longest:?}",
        stats.given_up
    );
    assert_eq!(tally.0.word(UNEXPECTED).load_relaxed(), 0);
    assert_eq!((lost, doubled), (0, 0));
    drop(keeper);
    scratch.assert_no_channels();
}
