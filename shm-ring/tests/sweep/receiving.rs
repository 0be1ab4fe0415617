//! Verbs of a consumer; the producer survives.

use std::time::Duration;

use ringway_shm::{Consumer, Peer, Producer, RecvError, SendError};

use crate::knife::Knife;
use crate::scene::{Death, PATIENCE, Scene, Survivors, body, go_on, take};
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

/// How the messages are sent.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// One by one.
    Single,
    /// As elements of records, so many in each.
    Arrays(usize),
}

struct Receiving {
    name: &'static str,
    handle: Handle,
    form: Form,
    /// Lengths of all messages, numbered from 0.
    lens: &'static [usize],
    /// How many were received before.
    taken: usize,
    /// How many the verb receives.
    takes: usize,
    verb: fn(&Receiving, &Scene, Option<Consumer>) -> Option<Consumer>,
}

pub fn verbs() -> Vec<Box<dyn Verb>> {
    let base = Receiving {
        name: "",
        handle: Handle::Stays,
        form: Form::Single,
        lens: &[30, 0, 100, 8, 8],
        taken: 1,
        takes: 1,
        verb: |_, _, consumer| consumer,
    };
    let list = [
        Receiving { name: "recv+release", verb: receive, ..base },
        // More than an eighth of the ring: the release tells the producer.
        Receiving { name: "recv of much", lens: &[5, 600, 600, 5], verb: receive, ..base },
        Receiving {
            name: "recv over the wrap",
            lens: &[2000, 1500, 700, 5],
            taken: 2,
            verb: receive,
            ..base
        },
        Receiving {
            name: "recv in an array",
            form: Form::Arrays(5),
            lens: &[24; 5],
            taken: 2,
            verb: receive,
            ..base
        },
        Receiving { name: "batch+drop", takes: 3, verb: receive_batch, ..base },
        Receiving {
            name: "batch in an array",
            form: Form::Arrays(6),
            lens: &[24; 6],
            takes: 3,
            verb: receive_batch,
            ..base
        },
        // The second is known by the first.
        Receiving {
            name: "batch in arrays alike",
            form: Form::Arrays(3),
            lens: &[24; 9],
            taken: 3,
            takes: 5,
            verb: receive_batch,
            ..base
        },
        Receiving {
            name: "Consumer::open",
            handle: Handle::Opened,
            taken: 0,
            takes: 0,
            verb: |_, scene, _| Some(scene.consumer()),
            ..base
        },
        Receiving {
            name: "Consumer drop",
            handle: Handle::Closed,
            takes: 0,
            verb: |_, _, consumer| {
                drop(consumer);
                None
            },
            ..base
        },
    ];
    list.into_iter().map(|verb| Box::new(verb) as Box<dyn Verb>).collect()
}

fn receive(verb: &Receiving, scene: &Scene, consumer: Option<Consumer>) -> Option<Consumer> {
    let mut consumer = consumer?;
    let message = consumer.try_recv().unwrap();
    scene.note().store_relaxed(verb.taken as u64 + 1);
    drop(message);
    Some(consumer)
}

fn receive_batch(verb: &Receiving, scene: &Scene, consumer: Option<Consumer>) -> Option<Consumer> {
    let mut consumer = consumer?;
    let mut batch = consumer.try_recv_batch(verb.takes).unwrap();
    while let Some(message) = batch.next().unwrap() {
        scene.note().store_relaxed(message.sequence + 1);
    }
    drop(batch);
    Some(consumer)
}

impl Verb for Receiving {
    fn name(&self) -> &str {
        self.name
    }

    fn stride(&self) -> (u64, u64) {
        if self.handle == Handle::Stays { SHORT } else { LONG }
    }

    fn prepare(&self, scene: &Scene) -> Survivors {
        let mut producer = scene.producer();
        if let Form::Arrays(count) = self.form {
            let len = self.lens[0];
            for first in (0..self.lens.len()).step_by(count) {
                let mut claim = producer.try_claim_array(len, count).unwrap();
                for (number, element) in (first..).zip(claim.bytes().chunks_exact_mut(len)) {
                    element.copy_from_slice(&body(number, len));
                }
                claim.commit(count).unwrap();
            }
        } else {
            self.send_from(&mut producer, 0);
        }
        Survivors { producer: Some(producer), ..Survivors::default() }
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        let mut consumer = (self.handle != Handle::Opened).then(|| scene.consumer());
        if let Some(consumer) = &mut consumer {
            for number in 0..self.taken {
                take(consumer, number, self.lens[number]);
            }
            // Found empty, the ring's head is told, and the rest finds room.
            if self.sent_at_first() == self.taken {
                assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
            }
        }
        knife.begin();
        let consumer = (self.verb)(self, scene, consumer);
        knife.end();
        drop(consumer);
    }

    fn meet(&self, _: &Scene, survivors: &mut Survivors) {
        if let Some(producer) = &mut survivors.producer
            && self.form == Form::Single
        {
            self.send_from(producer, self.sent_at_first());
        }
    }

    /// The successor comes, in turn, at once, and after the producer has found out by itself.
    fn check(&self, scene: &Scene, survivors: &mut Survivors, death: &Death) {
        if scene.number.is_multiple_of(2) {
            survivors.consumer = Some(self.succeed(scene, death));
        }
    }

    fn settle(&self, scene: &Scene, survivors: Survivors, death: &Death) {
        let mut producer = survivors.producer.unwrap();
        let (filler, early) = fill(&mut producer);
        let died = SendError::PeerDied { peer: Peer { pid: death.pid } };
        let news = told(early, &mut producer);
        match self.handle {
            Handle::Stays => assert_eq!(news, Some(died)),
            // It may not have come far enough to be known.
            Handle::Opened => {
                assert!(news == Some(died) || news.is_none() && !death.is_finished, "{news:?}")
            }
            // That it left is news only as long as nobody has come in its place.
            Handle::Closed => assert!(
                match news {
                    None => survivors.consumer.is_some(),
                    Some(news) =>
                        news == SendError::Disconnected || news == died && !death.is_finished,
                },
                "{news:?}"
            ),
        }
        let mut consumer = survivors.consumer.unwrap_or_else(|| self.succeed(scene, death));
        for _ in 0..filler {
            let message = consumer.recv_timeout(PATIENCE).unwrap();
            assert!(*message == *FILLER && !message.redelivered());
        }
        drop(producer);
        assert_eq!(crate::scene::told(&mut consumer), RecvError::Disconnected);
        go_on(scene, consumer);
    }
}

const FILLER: &[u8] = b"filler";

/// Fills the ring. How many messages it took, and what the producer was told in place of "full".
fn fill(producer: &mut Producer) -> (usize, Option<SendError>) {
    let mut sent = 0;
    loop {
        match producer.try_claim(FILLER.len()) {
            Ok(mut claim) => {
                claim.copy_from_slice(FILLER);
                claim.commit().unwrap();
                sent += 1;
            }
            Err(SendError::Full { .. }) => return (sent, None),
            Err(news) => return (sent, Some(news)),
        }
    }
}

impl Receiving {
    /// How many messages go in before the victim has taken any: all, unless they need more than one
    /// lap.
    fn sent_at_first(&self) -> usize {
        let whole = self.lens.iter().map(|len| len + 80).sum::<usize>() < 4096;
        if whole || self.form != Form::Single { self.lens.len() } else { self.taken }
    }

    fn send_from(&self, producer: &mut Producer, first: usize) {
        let last = if first == 0 { self.sent_at_first() } else { self.lens.len() };
        for number in first..last {
            crate::scene::send(producer, &body(number, self.lens[number]));
        }
    }

    /// A new consumer gets everything that was not released, and knows what may come again.
    fn succeed(&self, scene: &Scene, death: &Death) -> Consumer {
        let mut consumer = scene.consumer();
        let shown = scene.note().load_relaxed();
        let mut next = self.taken;
        let message = consumer.recv_timeout(PATIENCE).unwrap();
        if *message != body(next, self.lens[next]) {
            next += self.takes;
            assert_eq!(*message, body(next, self.lens[next]), "neither the first nor the next");
        }
        assert!(next == self.taken + self.takes || !death.is_finished, "released, and came again");
        let first = next;
        let mut is_flagged = message.redelivered();
        drop(message);
        loop {
            // At least what was shown; at most what the verb could have come to, and the first, for
            // nobody knows of one alone whether it was shown.
            assert!(is_flagged || next as u64 >= shown, "message {next} came again unflagged");
            let may_be = next == first || next < self.taken + self.takes;
            assert!(may_be || !is_flagged, "message {next} is flagged");
            next += 1;
            if next == self.lens.len() {
                return consumer;
            }
            is_flagged = take(&mut consumer, next, self.lens[next]);
        }
    }
}

/// What a producer out of room is told, if anything and not told `early`: once.
fn told(early: Option<SendError>, producer: &mut Producer) -> Option<SendError> {
    let mut next = || match producer.claim_timeout(2000, Duration::from_millis(1)).map(drop) {
        Err(SendError::Timeout { .. }) => None,
        Err(news) => Some(news),
        Ok(()) => panic!("a full ring has room"),
    };
    let news = early.or_else(&mut next);
    if news.is_some() {
        assert_eq!(next(), None, "told more than once");
    }
    news
}
