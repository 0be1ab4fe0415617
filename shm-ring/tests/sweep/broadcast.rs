//! Verbs of a broadcast: a subscriber comes, gives back, leaves; a producer evicts a dead one, or
//! overwrites. Who survives gets everything, and whoever comes next.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ringway_shm::{
    Consumer, Kind, Options, Overflow, Peer, Producer, Publisher, Read, RecvError, SendError,
    Subscriber,
};

use crate::knife::Knife;
use crate::scene::{Death, PATIENCE, Scene, Survivors, body, take, told_since};
use crate::{LONG, SHORT, Verb};

pub fn verbs() -> Vec<Box<dyn Verb>> {
    vec![
        Box::new(Subscribing::Joins),
        Box::new(Subscribing::Releases),
        Box::new(Subscribing::Leaves),
        Box::new(Evicting),
        Box::new(Overwriting),
    ]
}

fn options(scene: &Scene, overflow: Overflow) -> Options {
    Options { kind: Some(Kind::Broadcast), overflow: Some(overflow), ..scene.options() }
}

fn block(scene: &Scene) -> Options {
    options(scene, Overflow::Block)
}

/// Bytes of a message: some two hundred of them go round the ring more than once.
const LEN: usize = 40;

fn send(producer: &mut Producer, number: usize) {
    let mut claim = producer.claim_timeout(LEN, PATIENCE).unwrap();
    claim.copy_from_slice(&body(number, LEN));
    claim.commit().unwrap();
}

/// What is left of any of these works: a producer, whoever was there, and one who comes now.
fn go_on(scene: &Scene, mut producer: Producer, mut consumer: Consumer, first: usize) {
    for number in first..first + 200 {
        send(&mut producer, number);
        assert!(!take(&mut consumer, number, LEN));
    }
    let mut late = Consumer::open(&block(scene)).unwrap();
    send(&mut producer, first + 200);
    for consumer in [&mut consumer, &mut late] {
        assert!(!take(consumer, first + 200, LEN));
    }
    drop(producer);
    for consumer in [&mut consumer, &mut late] {
        assert_eq!(told_since(None, consumer), RecvError::Disconnected);
    }
}

/// The victim is a subscriber.
enum Subscribing {
    Joins,
    Releases,
    Leaves,
}

/// Messages that are there for the victim.
const SENT: usize = 3;

impl Verb for Subscribing {
    fn name(&self) -> &str {
        match self {
            Self::Joins => "broadcast: join",
            Self::Releases => "broadcast: release",
            Self::Leaves => "broadcast: leave",
        }
    }

    fn stride(&self) -> (u64, u64) {
        if matches!(self, Self::Releases) { SHORT } else { LONG }
    }

    /// A victim that joins finds, in turn, places that nobody used, and that of another.
    fn prepare(&self, scene: &Scene) -> Survivors {
        let producer = Producer::open(&block(scene)).unwrap();
        let other = Consumer::open(&block(scene)).unwrap();
        let consumer = Consumer::open(&block(scene)).unwrap();
        drop(Some(other).filter(|_| scene.number.is_multiple_of(2)));
        Survivors { producer: Some(producer), consumer: Some(consumer), ..Survivors::default() }
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        let open = || Consumer::open(&block(scene)).unwrap();
        match self {
            Self::Joins => {
                knife.begin();
                let consumer = open();
                knife.end();
                drop(consumer);
            }
            Self::Releases => {
                let mut consumer = open();
                knife.begin();
                for _ in 0..SENT {
                    drop(consumer.try_recv());
                }
                // Finds it empty, and tells the producer.
                drop(consumer.try_recv());
                knife.end();
                drop(consumer);
            }
            Self::Leaves => {
                let consumer = open();
                knife.begin();
                drop(consumer);
                knife.end();
            }
        }
    }

    fn meet(&self, _: &Scene, survivors: &mut Survivors) {
        let producer = survivors.producer.as_mut().unwrap();
        (0..SENT).for_each(|number| send(producer, number));
    }

    fn check(&self, _: &Scene, survivors: &mut Survivors, _: &Death) {
        let (producer, consumer) = survivors.both();
        send(producer, SENT);
        (0..=SENT).for_each(|number| assert!(!take(consumer, number, LEN)));
    }

    fn settle(&self, scene: &Scene, survivors: Survivors, _: &Death) {
        let Survivors { producer, consumer, .. } = survivors;
        go_on(scene, producer.unwrap(), consumer.unwrap(), SENT + 1);
    }
}

/// The victim is a producer that finds out that a subscriber is dead.
struct Evicting;

/// Makes an entry in the roster whose lock nobody has: somebody died.
fn leave_a_dead_one(scene: &Scene) {
    const ROSTER: u64 = 16384;
    const PLACE: u64 = 5;
    let control = OpenOptions::new().write(true).open(scene.control()).unwrap();
    let record = ROSTER + 128 + 128 * PLACE;
    for (at, value) in [(record, 1_u64), (record + 8, 1), (record + 64, 2), (ROSTER, 1 << 20)] {
        control.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
}

impl Verb for Evicting {
    fn name(&self) -> &str {
        "broadcast: eviction"
    }

    fn stride(&self) -> (u64, u64) {
        SHORT
    }

    fn prepare(&self, scene: &Scene) -> Survivors {
        let consumer = Consumer::open(&block(scene)).unwrap();
        leave_a_dead_one(scene);
        Survivors { consumer: Some(consumer), ..Survivors::default() }
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        let mut producer = Producer::open(&block(scene)).unwrap();
        let mut sent = 0;
        while let Ok(mut claim) = producer.try_claim(LEN) {
            claim.copy_from_slice(&body(sent, LEN));
            claim.commit().unwrap();
            sent += 1;
        }
        scene.note().store_release(sent as u64);
        // Until it asks who is alive.
        std::thread::sleep(Duration::from_millis(60));
        knife.begin();
        let full = producer.try_claim(LEN).map(drop);
        let stats = producer.stats();
        knife.end();
        assert!(matches!(full, Err(SendError::Full { .. })), "{full:?}");
        assert_eq!(stats.evicted, 1);
    }

    fn meet(&self, _: &Scene, _: &mut Survivors) {}

    fn check(&self, scene: &Scene, survivors: &mut Survivors, _: &Death) {
        let consumer = survivors.consumer.as_mut().unwrap();
        for number in 0..scene.note().load_acquire() as usize {
            assert!(!take(consumer, number, LEN));
        }
    }

    fn settle(&self, scene: &Scene, survivors: Survivors, death: &Death) {
        let mut consumer = survivors.consumer.unwrap();
        let died = RecvError::PeerDied { peer: Peer { pid: death.pid } };
        assert_eq!(told_since(None, &mut consumer), died);
        go_on(scene, Producer::open(&block(scene)).unwrap(), consumer, 0);
    }
}

/// The victim is a producer that waits for nobody; its message takes a new piece of the ring.
struct Overwriting;

/// Messages before it: the ring has gone round.
const BEFORE: usize = 150;

fn publish(publisher: &mut Publisher, number: usize) {
    let mut claim = publisher.claim(LEN).unwrap();
    claim.copy_from_slice(&body(number, LEN));
    claim.commit().unwrap();
}

impl Verb for Overwriting {
    fn name(&self) -> &str {
        "broadcast: overwrite"
    }

    fn stride(&self) -> (u64, u64) {
        // Each survivor waits for the proof of a death.
        (499, u64::MAX)
    }

    fn prepare(&self, _: &Scene) -> Survivors {
        Survivors::default()
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        let mut publisher = Publisher::open(&options(scene, Overflow::Overwrite)).unwrap();
        (0..BEFORE).for_each(|number| publish(&mut publisher, number));
        knife.begin();
        publish(&mut publisher, BEFORE);
        knife.end();
    }

    fn meet(&self, scene: &Scene, survivors: &mut Survivors) {
        let options = options(scene, Overflow::Overwrite);
        survivors.subscriber = Some(Subscriber::open(&options, Read::Every).unwrap());
    }

    fn check(&self, _: &Scene, survivors: &mut Survivors, death: &Death) {
        let subscriber = survivors.subscriber.as_mut().unwrap();
        for number in BEFORE..=BEFORE {
            match subscriber.try_recv() {
                Ok(message) => {
                    assert_eq!(*message, body(number, LEN));
                    assert_eq!(message.sequence(), number as u64);
                }
                Err(news) => {
                    assert!(!death.is_finished, "committed, and lost");
                    // Told early, in place of a message that was not committed.
                    if news != RecvError::Empty {
                        survivors.news = Some(news);
                        return;
                    }
                }
            }
        }
    }

    fn settle(&self, scene: &Scene, survivors: Survivors, death: &Death) {
        let mut subscriber = survivors.subscriber.unwrap();
        let died = RecvError::PeerDied { peer: Peer { pid: death.pid } };
        let news = survivors.news.unwrap_or_else(|| {
            subscriber.recv_timeout(PATIENCE).map(|message| message.to_vec()).unwrap_err()
        });
        assert_eq!(news, died);
        let mut publisher = Publisher::open(&options(scene, Overflow::Overwrite)).unwrap();
        for number in 0..200 {
            publish(&mut publisher, number);
            assert_eq!(*subscriber.recv_timeout(PATIENCE).unwrap(), body(number, LEN));
        }
        drop(publisher);
        let news = subscriber.recv_timeout(PATIENCE).map(drop);
        assert_eq!(news, Err(RecvError::Disconnected));
    }
}
