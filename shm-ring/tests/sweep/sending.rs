//! Verbs of a producer; the consumer survives.

use ringway_shm::{ArrayClaim, Consumer, Peer, Producer, RecvError};

use crate::knife::Knife;
use crate::scene::{Death, PATIENCE, Scene, Survivors, body, go_on, send, take, told, told_since};
use crate::{LONG, SHORT, Verb};

/// How the handle stands to the verb.
#[derive(Clone, Copy, PartialEq)]
enum Handle {
    /// Open before and after.
    Stays,
    /// The verb opens it.
    Opened,
    /// The verb closes it.
    Closed,
}

/// Gets the scene, the messages that are the verb's own, and the handle; gives the handle back.
type Act = fn(&Scene, &[Vec<u8>], Option<Producer>) -> Option<Producer>;

struct Sending {
    name: &'static str,
    handle: Handle,
    /// Lengths of the messages sent before, numbered from 0.
    before: &'static [usize],
    /// How many of those the survivor takes before.
    taken: usize,
    /// Lengths of those that the verb sends, which go on with the numbers.
    own: &'static [usize],
    verb: Act,
}

pub fn verbs() -> Vec<Box<dyn Verb>> {
    let base = Sending {
        name: "",
        handle: Handle::Stays,
        before: &[5, 100, 0],
        taken: 0,
        own: &[],
        verb: |_, _, producer| producer,
    };
    let list = [
        Sending { name: "claim+commit", own: &[40], verb: commit, ..base },
        Sending { name: "flush of three", own: &[40, 0, 200], verb: queue_and_flush, ..base },
        Sending { name: "array of three", own: &[24, 24, 24], verb: array, ..base },
        Sending { name: "array at once", own: &[24, 24, 24], verb: array_at_once, ..base },
        // 2048, 1024 and 64 bytes of records: 960 are left before the end of the ring.
        Sending {
            name: "commit that wraps",
            before: &[2000, 1000, 3],
            taken: 2,
            own: &[1500],
            verb: commit,
            ..base
        },
        Sending {
            name: "flush that wraps",
            before: &[2000, 1000, 3],
            taken: 2,
            own: &[700, 600, 0],
            verb: queue_and_flush,
            ..base
        },
        Sending { name: "Producer::open", handle: Handle::Opened, before: &[], verb: open, ..base },
        Sending {
            name: "Producer drop",
            handle: Handle::Closed,
            own: &[7, 8],
            verb: |_, _, producer| {
                drop(producer);
                None
            },
            ..base
        },
    ];
    list.into_iter().map(|verb| Box::new(verb) as Box<dyn Verb>).collect()
}

fn commit(_: &Scene, own: &[Vec<u8>], producer: Option<Producer>) -> Option<Producer> {
    let mut producer = producer?;
    send(&mut producer, &own[0]);
    Some(producer)
}

fn queue(producer: &mut Producer, own: &[Vec<u8>]) {
    for bytes in own {
        let mut claim = producer.try_claim(bytes.len()).unwrap();
        claim.copy_from_slice(bytes);
        claim.queue().unwrap();
    }
}

fn queue_and_flush(_: &Scene, own: &[Vec<u8>], producer: Option<Producer>) -> Option<Producer> {
    let mut producer = producer?;
    queue(&mut producer, own);
    producer.flush().unwrap();
    Some(producer)
}

fn array(_: &Scene, own: &[Vec<u8>], producer: Option<Producer>) -> Option<Producer> {
    let mut producer = producer?;
    let mut claim = producer.try_claim_array(own[0].len(), own.len()).unwrap();
    write(&mut claim, own);
    claim.queue(own.len()).unwrap();
    producer.flush().unwrap();
    Some(producer)
}

fn array_at_once(_: &Scene, own: &[Vec<u8>], producer: Option<Producer>) -> Option<Producer> {
    let mut producer = producer?;
    let mut claim = producer.claim_array_at_once(own[0].len(), own.len()).unwrap();
    write(&mut claim, own);
    claim.commit(own.len()).unwrap();
    Some(producer)
}

fn write(claim: &mut ArrayClaim<'_>, own: &[Vec<u8>]) {
    for (element, bytes) in claim.bytes().chunks_exact_mut(own[0].len()).zip(own) {
        element.copy_from_slice(bytes);
    }
}

fn open(scene: &Scene, _: &[Vec<u8>], _: Option<Producer>) -> Option<Producer> {
    Some(scene.producer())
}

impl Verb for Sending {
    fn name(&self) -> &str {
        self.name
    }

    fn stride(&self) -> (u64, u64) {
        if self.handle == Handle::Stays { SHORT } else { LONG }
    }

    /// A victim that opens finds, in turn, nothing at all, or a waiting consumer and a predecessor
    /// whose segment can go.
    fn prepare(&self, scene: &Scene) -> Survivors {
        if self.handle != Handle::Opened || scene.number.is_multiple_of(2) {
            return Survivors::default();
        }
        let mut consumer = scene.consumer();
        send(&mut scene.producer(), b"of a predecessor");
        assert_eq!(*consumer.try_recv().unwrap(), *b"of a predecessor");
        assert_eq!(told(&mut consumer), RecvError::Disconnected);
        Survivors { consumer: Some(consumer), ..Survivors::default() }
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        // Made here, so as not to be stepped through.
        let own: Vec<Vec<u8>> = self.own_bodies().collect();
        let mut producer = (self.handle != Handle::Opened).then(|| scene.producer());
        if let Some(producer) = &mut producer {
            // What is taken has to be out of the way before the rest finds room.
            for (number, &len) in self.before.iter().enumerate() {
                let mut claim = producer.claim(len).unwrap();
                claim.copy_from_slice(&body(number, len));
                claim.commit().unwrap();
            }
            if self.handle == Handle::Closed {
                queue(producer, &own);
            }
        }
        knife.begin();
        let producer = (self.verb)(scene, &own, producer);
        knife.end();
        drop(producer);
    }

    /// The consumer comes, in turn, before and after the verb.
    fn meet(&self, scene: &Scene, survivors: &mut Survivors) {
        if self.taken > 0 || self.handle != Handle::Opened && scene.number.is_multiple_of(2) {
            let mut consumer = scene.consumer();
            for number in 0..self.taken {
                assert!(!take(&mut consumer, number, self.before[number]));
            }
            survivors.consumer = Some(consumer);
        }
    }

    fn check(&self, scene: &Scene, survivors: &mut Survivors, death: &Death) {
        let consumer = survivors.consumer.get_or_insert_with(|| scene.consumer());
        for number in self.taken..self.before.len() {
            assert!(!take(consumer, number, self.before[number]));
        }
        if self.handle != Handle::Opened {
            survivors.news = self.take_own(consumer, death);
        }
    }

    fn settle(&self, scene: &Scene, survivors: Survivors, death: &Death) {
        let mut consumer = survivors.consumer.unwrap();
        let news = survivors.news;
        let died = RecvError::PeerDied { peer: Peer { pid: death.pid } };
        match self.handle {
            Handle::Stays => assert_eq!(told_since(news, &mut consumer), died),
            Handle::Closed => {
                let news = told_since(news, &mut consumer);
                assert!(
                    news == RecvError::Disconnected || news == died && !death.is_finished,
                    "{news:?}"
                );
            }
            // If it had not come far, nobody knows that it was ever there; and if it had placed its
            // segment and no more, that is known with the next producer.
            Handle::Opened => {
                let mut next = scene.producer();
                send(&mut next, b"next");
                match consumer.recv_timeout(PATIENCE).map(|message| message.to_vec()) {
                    Ok(message) => assert!(message == *b"next" && !death.is_finished),
                    Err(news) => {
                        assert_eq!(news, died);
                        assert_eq!(*consumer.recv_timeout(PATIENCE).unwrap(), *b"next");
                    }
                }
                drop(next);
                assert_eq!(told(&mut consumer), RecvError::Disconnected);
            }
        }
        go_on(scene, consumer);
    }
}

impl Sending {
    fn own_bodies(&self) -> impl Iterator<Item = Vec<u8>> {
        self.own.iter().enumerate().map(|(index, &len)| body(self.before.len() + index, len))
    }

    /// Takes what the verb sent, all or nothing, and what is told in its place.
    fn take_own(&self, consumer: &mut Consumer, death: &Death) -> Option<RecvError> {
        for (index, bytes) in self.own_bodies().enumerate() {
            match consumer.try_recv() {
                Ok(message) => {
                    assert_eq!(*message, bytes);
                    assert!(!message.redelivered());
                }
                Err(news) => {
                    assert_eq!(index, 0, "a part of the verb's messages came");
                    assert!(!death.is_finished, "committed, and lost");
                    return (news != RecvError::Empty).then_some(news);
                }
            }
        }
        None
    }
}
