//! A producer and subscribers that are killed, stopped and started again at random, for as long as
//! `RINGWAY_SOAK_SECONDS` says (default 30, shared by the flavors). Every message is checked, byte by
//! byte, and that none is lost, doubled or out of order in the life of a subscriber: a violation ends
//! it with a word about it. `RINGWAY_SOAK_SEED` repeats the choices of a run.

#![cfg(not(loom))]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::peer::{self, PeerProcess, say};
use common::rng::Rng;
use common::scratch::Scratch;
use common::side::Side;
use common::{PATIENCE, body, channel};
use ringway_shm::{
    Overflow, Read, Receiving, RecvError, SendError, Sending, Wait, receiving, sending,
};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    match words[0].as_str() {
        PUBLISHER => publish(&words[1..]),
        SUBSCRIBER => subscribe(&words[1..]),
        role => panic!("no role {role:?}"),
    }
}

const PUBLISHER: &str = "publisher";
const SUBSCRIBER: &str = "subscriber";

/// Subscribers at a time.
const SUBSCRIBERS: usize = 4;

/// Words of the side file: whether to end, and what the living and the dead have counted. Each place
/// counts for itself; the test adds up.
const STOP: usize = 0;
const SENT: usize = 1;
const PLACES: usize = 8;
const PER_PLACE: usize = 8;
const RECEIVED: usize = 0;
const MISSED: usize = 1;
const GAPS: usize = 2;
const ENDS: usize = 3;
const WORDS: usize = PLACES + PER_PLACE * SUBSCRIBERS;

#[test]
fn blocking() {
    soak(Overflow::Block);
}

#[test]
fn overwriting() {
    soak(Overflow::Overwrite);
}

/// A place among the living.
struct Place {
    peer: PeerProcess,
    is_stopped: bool,
    lives: u64,
}

fn soak(overflow: Overflow) {
    let seconds = std::env::var("RINGWAY_SOAK_SECONDS").map_or(30, |text| text.parse().unwrap());
    let seed = std::env::var("RINGWAY_SOAK_SEED").map_or_else(
        |_| Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()),
        |text| text.parse().unwrap(),
    );
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let scratch = Scratch::new();
    let wait = Wait::ALL[rng.range(0, 2) as usize];
    let options = channel::broadcast(&scratch, "soak", wait, overflow);
    let path = scratch.file("side");
    let side = Side::create(&path, WORDS);
    let start = |place: usize, life: u64, seed: u64| {
        let numbers = [place as u64, life, seed].map(|number| number.to_string());
        let role = if place == 0 { PUBLISHER } else { SUBSCRIBER };
        let arguments = [
            &channel::encode(&options),
            path.to_str().unwrap(),
            &numbers[0],
            &numbers[1],
            &numbers[2],
        ];
        PeerProcess::start(role, &arguments)
    };
    let mut places: Vec<Place> = (0..=SUBSCRIBERS)
        .map(|place| Place { peer: start(place, 1, rng.next()), is_stopped: false, lives: 1 })
        .collect();
    let (mut kills, mut stops) = (0_u64, 0_u64);
    let end = Instant::now() + Duration::from_secs(seconds) / 2;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(rng.range(1, 40)));
        let at = rng.range(0, SUBSCRIBERS as u64) as usize;
        let place = &mut places[at];
        match rng.range(0, 2) {
            // The producer dies less often, so that a life of it is worth something.
            0 if at != 0 || rng.one_in(4) => {
                place.peer.kill();
                let last = place.peer.next_line();
                assert_eq!(last, None, "place {at}; seed {seed}");
                place.lives += 1;
                *place = Place {
                    peer: start(at, place.lives, rng.next()),
                    is_stopped: false,
                    lives: place.lives,
                };
                kills += 1;
            }
            1 if !place.is_stopped => {
                place.peer.stop();
                place.is_stopped = true;
                stops += 1;
            }
            _ if place.is_stopped => {
                place.peer.go_on();
                place.is_stopped = false;
            }
            _ => {}
        }
    }
    side.word(STOP).store_release(1);
    for place in places.iter_mut().filter(|place| place.is_stopped) {
        place.peer.go_on();
    }
    for (at, place) in places.iter_mut().enumerate() {
        while let Some(line) = place.peer.next_line() {
            assert_eq!(line, "done", "place {at}; seed {seed}");
        }
        place.peer.wait_exited();
    }
    let sum = |word: usize| -> u64 {
        (0..SUBSCRIBERS).map(|at| side.word(PLACES + PER_PLACE * at + word).load_acquire()).sum()
    };
    let lives: Vec<u64> = places.iter().map(|place| place.lives).collect();
    println!(
        "{overflow}, {wait}, {} s: {} messages sent, {} received, {} missed in {} gaps, {} ends of \
         producers told; {kills} kills, {stops} stops, lives {lives:?}; violations: 0",
        seconds / 2,
        side.word(SENT).load_acquire(),
        sum(RECEIVED),
        sum(MISSED),
        sum(GAPS),
        sum(ENDS),
    );
    assert!(sum(RECEIVED) > 0);
    assert!(overflow == Overflow::Overwrite || sum(MISSED) == 0);
    // Whoever was killed last may have been the last to be there.
    let _ = ringway_shm::remove(&options);
    scratch.assert_no_channels();
}

/// Sends until told to stop; incarnation and index in every message, which is the sequence as well.
fn publish(arguments: &[String]) {
    let [options, side, _, life, seed] = arguments else { panic!("{arguments:?}") };
    let (side, mut rng) = (Side::open(Path::new(side)), Rng::new(seed.parse().unwrap()));
    let incarnation = life.parse().unwrap();
    let options = channel::decode(options);
    let mut end = open(|| sending(&options));
    let mut index = 0;
    while side.word(STOP).load_acquire() == 0 {
        let len = body::length(rng.next(), if rng.one_in(20) { 1500 } else { 100 });
        let publish = !rng.one_in(3);
        let sent = match &mut end {
            Sending::InPlace(end) => {
                end.claim_timeout(len, Duration::from_millis(50)).and_then(|mut claim| {
                    body::fill(&mut claim, incarnation, index);
                    if publish { claim.commit() } else { claim.queue() }
                })
            }
            Sending::Copied(end) => end.claim(len).and_then(|mut claim| {
                body::fill(&mut claim, incarnation, index);
                if publish { claim.commit() } else { claim.queue() }
            }),
            Sending::Shared(_) => panic!("not a broadcast's"),
        };
        match sent {
            Ok(()) => {
                index += 1;
                side.word(SENT).bump(1);
            }
            Err(SendError::Timeout { .. }) => {}
            Err(error) => return say(format!("violation: {error}")),
        }
        if rng.one_in(1000) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(end);
    say("done");
}

/// Opens an end, waiting for those who are in the way: four segments of producers that died may be
/// read still by subscribers that are stopped.
fn open<T>(open: impl Fn() -> Result<T, ringway_shm::Error>) -> T {
    let start = Instant::now();
    loop {
        match open() {
            Ok(end) => return end,
            Err(error) if start.elapsed() > PATIENCE => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn subscribe(arguments: &[String]) {
    let [options, side, place, _, seed] = arguments else { panic!("{arguments:?}") };
    let (side, mut rng) = (Side::open(Path::new(side)), Rng::new(seed.parse().unwrap()));
    let place: usize = place.parse().unwrap();
    let count = |word: usize, by: u64| side.word(PLACES + PER_PLACE * (place - 1) + word).bump(by);
    let options = channel::decode(options);
    let stopped = || side.word(STOP).load_acquire() == 1;
    loop {
        let mut end = open(|| receiving(&options, Read::Every));
        // Leaves in good order after so many, and comes again.
        let mut left = rng.range(1, 200_000);
        let mut seen = Seen::default();
        while left > 0 {
            match take(&mut end) {
                Ok(message) => {
                    if let Err(violation) = seen.check(message) {
                        return say(format!("violation: {violation}"));
                    }
                    count(RECEIVED, 1);
                    left -= 1;
                }
                Err(RecvError::Lagged { missed }) => {
                    if options.overflow != Some(Overflow::Overwrite) {
                        return say(format!("violation: {missed} missed"));
                    }
                    seen.skip(missed);
                    count(MISSED, missed);
                    count(GAPS, 1);
                }
                Err(RecvError::Disconnected | RecvError::PeerDied { .. }) => {
                    seen.end();
                    count(ENDS, 1);
                }
                Err(RecvError::Timeout) if stopped() => break,
                Err(RecvError::Timeout) => {}
                Err(error) => return say(format!("violation: {error}")),
            }
            if rng.one_in(5000) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if stopped() {
            break;
        }
    }
    say("done");
}

/// Incarnation, index, sequence, or what is wrong with the message.
type Found = Result<(u64, u64, u64), String>;

fn take(end: &mut Receiving) -> Result<Found, RecvError> {
    let timeout = Duration::from_millis(100);
    let found = |bytes: &[u8], sequence| {
        body::read(bytes).map(|(incarnation, index)| (incarnation, index, sequence))
    };
    Ok(match end {
        Receiving::InPlace(end) => {
            let message = end.recv_timeout(timeout)?;
            if message.redelivered() {
                return Ok(Err("redelivered".into()));
            }
            found(&message, message.sequence())
        }
        Receiving::Copied(end) => {
            let message = end.recv_timeout(timeout)?;
            found(&message, message.sequence())
        }
        Receiving::Shared(_) => panic!("not a broadcast's"),
    })
}

/// What a subscriber has seen of the incarnation that it reads.
#[derive(Default)]
struct Seen {
    incarnation: Option<u64>,
    /// The last incarnation whose end was told.
    ended: u64,
    /// Index of the next message; any, for the first of an end.
    next: Option<u64>,
    /// Missed before the first message.
    skipped: u64,
}

impl Seen {
    fn check(&mut self, found: Found) -> Result<(), String> {
        let (incarnation, index, sequence) = found?;
        if index != sequence {
            return Err(format!("message {index} has sequence {sequence}"));
        }
        if incarnation <= self.ended || self.incarnation.is_some_and(|now| now != incarnation) {
            return Err(format!("{incarnation} after {} and {:?}", self.ended, self.incarnation));
        }
        if self.next.is_some_and(|next| next != index) {
            return Err(format!("message {index} of {incarnation}, {:?} expected", self.next));
        }
        self.incarnation = Some(incarnation);
        self.next = Some(index + 1);
        Ok(())
    }

    fn skip(&mut self, missed: u64) {
        // Without a message before, the number of the first is not known, but that of the gap is:
        // only those who are there from the start of an incarnation know better.
        self.next = self.next.map(|next| next + missed);
        self.skipped += missed;
    }

    fn end(&mut self) {
        self.ended = self.incarnation.take().unwrap_or(self.ended);
        // Whoever is there when an incarnation begins gets it from its first message on.
        self.next = Some(0);
    }
}
