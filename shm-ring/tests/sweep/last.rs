//! The last one to close a channel, who also removes it. Nobody survives; whoever comes next finds
//! the channel as it was, or nothing, or something in between that is no obstacle.

use ringway_shm::{Consumer, ErrorKind, Options, RecvError};

use crate::knife::Knife;
use crate::scene::{Death, PATIENCE, Scene, Survivors, go_on, send};
use crate::{LONG, Verb};

enum Last {
    Producer,
    Consumer,
}

pub fn verbs() -> Vec<Box<dyn Verb>> {
    vec![Box::new(Last::Producer), Box::new(Last::Consumer)]
}

impl Verb for Last {
    fn name(&self) -> &str {
        match self {
            Self::Producer => "last Producer drop",
            Self::Consumer => "last Consumer drop",
        }
    }

    fn stride(&self) -> (u64, u64) {
        LONG
    }

    fn prepare(&self, scene: &Scene) -> Survivors {
        if matches!(self, Self::Consumer) {
            for text in [b"one", b"two"] {
                send(&mut scene.producer(), text);
            }
        }
        Survivors::default()
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        match self {
            Self::Producer => {
                let producer = scene.producer();
                knife.begin();
                drop(producer);
            }
            Self::Consumer => {
                let mut consumer = scene.consumer();
                for text in [b"one", b"two"] {
                    assert_eq!(*consumer.recv_timeout(PATIENCE).unwrap(), *text);
                    assert_eq!(
                        consumer.recv_timeout(PATIENCE).map(drop).unwrap_err(),
                        RecvError::Disconnected
                    );
                }
                knife.begin();
                drop(consumer);
            }
        }
        knife.end();
    }

    fn meet(&self, _: &Scene, _: &mut Survivors) {}

    fn check(&self, scene: &Scene, _: &mut Survivors, death: &Death) {
        if death.is_finished {
            scene.assert_empty();
        }
    }

    fn settle(&self, scene: &Scene, _: Survivors, death: &Death) {
        // Somebody may want a channel of that name with other options. They are refused only by a
        // channel that is still there.
        if scene.number.is_multiple_of(2) {
            let other = Options { capacity: Some(8192), ..scene.options() };
            match Consumer::open(&other) {
                Ok(consumer) => drop(consumer),
                Err(error) => assert_eq!(error.kind(), ErrorKind::OptionMismatch, "{error}"),
            }
        }
        let mut consumer = scene.consumer();
        let mut producer = scene.producer();
        send(&mut producer, b"next");
        // The end of the victim, if it was a producer, is news only to those who come after.
        let mut ends = 0;
        loop {
            match consumer.recv_timeout(PATIENCE).map(|message| message.to_vec()) {
                Ok(message) => {
                    assert_eq!(message, *b"next");
                    break;
                }
                Err(RecvError::Disconnected) => {}
                Err(RecvError::PeerDied { peer }) => assert_eq!(peer.pid, death.pid),
                Err(error) => panic!("{error}"),
            }
            ends += 1;
            assert!(ends <= 1 && matches!(self, Self::Producer), "told more than once");
        }
        drop(producer);
        assert_eq!(consumer.recv_timeout(PATIENCE).map(drop).unwrap_err(), RecvError::Disconnected);
        go_on(scene, consumer);
    }
}
