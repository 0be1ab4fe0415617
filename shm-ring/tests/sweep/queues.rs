//! Participants of an MPMC channel: those who send, receive, release, join, leave and sweep. One sender
//! and one receiver go on.

use std::collections::BTreeMap;

use ringway_shm::{Kind, MpmcReceiver, MpmcSender, Options, RecvError};

use crate::knife::Knife;
use crate::scene::{Death, Scene, Survivors};
use crate::{LONG, SETTLING, SHORT, Verb};

/// Messages that the survivor sends before the victim acts.
const BEFORE: u8 = 5;
/// The first of the victim's own.
const OWN: u8 = 100;
/// What the survivor sends afterwards.
const AFTER: u8 = 200;

/// What the victim does, and what it is in the middle of when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Send,
    SendThree,
    SendArray,
    Abort,
    Receive,
    ReceiveThree,
    /// Takes three, looks at two.
    ReceivePart,
    OpenSender,
    OpenReceiver,
    /// With two messages queued in three reserved slots.
    DropSender,
    /// With four messages claimed, of which it has looked at one.
    DropReceiver,
    /// For one who died with a message, and one who died with a claim.
    Sweep,
}

pub fn verbs() -> Vec<Box<dyn Verb>> {
    use Act::*;
    let all = [
        Send,
        SendThree,
        SendArray,
        Abort,
        Receive,
        ReceiveThree,
        ReceivePart,
        OpenSender,
        OpenReceiver,
        DropSender,
        DropReceiver,
        Sweep,
    ];
    all.into_iter().map(|act| Box::new(act) as Box<dyn Verb>).collect()
}

fn options(scene: &Scene) -> Options {
    Options {
        kind: Some(Kind::Mpmc),
        capacity: None,
        slots: Some(16),
        slot: Some(64),
        ..scene.options()
    }
}

fn send(sender: &mut MpmcSender, number: u8) {
    let mut claim = sender.try_claim(40).unwrap();
    claim.fill(number);
    claim.commit().unwrap();
}

fn queue(sender: &mut MpmcSender, reserved: usize, numbers: std::ops::Range<u8>) {
    sender.reserve(reserved).unwrap();
    for number in numbers {
        let mut claim = sender.try_claim(40).unwrap();
        claim.fill(number);
        claim.queue().unwrap();
    }
}

impl Act {
    /// Messages of its own that the verb publishes, all or none.
    fn own(self) -> u8 {
        match self {
            Self::Send => 1,
            Self::DropSender => 2,
            Self::SendThree | Self::SendArray => 3,
            _ => 0,
        }
    }

    /// Messages that the victim shows itself, in the verb or before.
    fn shows(self) -> u8 {
        match self {
            Self::Receive | Self::DropReceiver => 1,
            Self::ReceivePart => 2,
            Self::ReceiveThree => 3,
            _ => 0,
        }
    }

    /// Messages that it claims.
    fn claims(self) -> u8 {
        match self {
            Self::Receive => 1,
            Self::ReceiveThree | Self::ReceivePart => 3,
            Self::DropReceiver => 4,
            // What its predecessor had.
            Self::Sweep => 1,
            _ => 0,
        }
    }
}

impl Verb for Act {
    fn name(&self) -> &str {
        match self {
            Self::Send => "Mpmc send",
            Self::SendThree => "Mpmc flush of three",
            Self::SendArray => "Mpmc array of three",
            Self::Abort => "Mpmc claim dropped",
            Self::Receive => "Mpmc recv and release",
            Self::ReceiveThree => "Mpmc batch of three",
            Self::ReceivePart => "Mpmc batch, released in part",
            Self::OpenSender => "MpmcSender::open",
            Self::OpenReceiver => "MpmcReceiver::open",
            Self::DropSender => "MpmcSender drop",
            Self::DropReceiver => "MpmcReceiver drop",
            Self::Sweep => "Mpmc sweep",
        }
    }

    fn stride(&self) -> (u64, u64) {
        match self {
            Self::OpenSender | Self::OpenReceiver | Self::DropSender | Self::DropReceiver => LONG,
            Self::Sweep => (3 * LONG.0, u64::MAX),
            _ => SHORT,
        }
    }

    fn prepare(&self, scene: &Scene) -> Survivors {
        let mut sender = MpmcSender::open(&options(scene)).unwrap();
        let receiver = MpmcReceiver::open(&options(scene)).unwrap();
        for number in 0..BEFORE {
            send(&mut sender, number);
        }
        if *self == Self::Sweep {
            leave_claims(scene);
        }
        Survivors { queue: Some((sender, receiver)), ..Survivors::default() }
    }

    fn act(&self, scene: &Scene, knife: &Knife) {
        let options = options(scene);
        let sender = || MpmcSender::open(&options).unwrap();
        let receiver = || MpmcReceiver::open(&options).unwrap();
        match self {
            Self::Send => {
                let mut sender = sender();
                knife.begin();
                send(&mut sender, OWN);
                knife.end();
            }
            Self::SendThree => {
                let mut sender = sender();
                knife.begin();
                queue(&mut sender, 3, OWN..OWN + 3);
                sender.flush().unwrap();
                knife.end();
            }
            Self::SendArray => {
                let mut sender = sender();
                knife.begin();
                let mut claim = sender.try_claim_array(40, 3).unwrap();
                for (number, room) in (OWN..).zip(claim.rooms()) {
                    room.fill(number);
                }
                claim.queue(3).unwrap();
                sender.flush().unwrap();
                knife.end();
            }
            Self::Abort => {
                let mut sender = sender();
                knife.begin();
                drop(sender.try_claim(8).unwrap());
                knife.end();
            }
            Self::Receive => {
                let mut receiver = receiver();
                knife.begin();
                let message = receiver.try_recv().unwrap();
                scene.note().store_relaxed(1);
                drop(message);
                knife.end();
            }
            Self::ReceiveThree | Self::ReceivePart => {
                let mut receiver = receiver();
                knife.begin();
                let mut batch = receiver.try_recv_batch(3).unwrap();
                for shown in 1..=self.shows() {
                    assert!(batch.next().unwrap().is_some());
                    scene.note().store_relaxed(shown.into());
                }
                drop(batch);
                knife.end();
            }
            Self::OpenSender => {
                knife.begin();
                let sender = sender();
                knife.end();
                drop(sender);
            }
            Self::OpenReceiver => {
                knife.begin();
                let receiver = receiver();
                knife.end();
                drop(receiver);
            }
            Self::DropSender => {
                let mut sender = sender();
                queue(&mut sender, 3, OWN..OWN + 2);
                knife.begin();
                drop(sender);
                knife.end();
            }
            Self::DropReceiver => {
                let mut receiver = receiver();
                let mut batch = receiver.try_recv_batch(4).unwrap();
                assert!(batch.next().unwrap().is_some());
                scene.note().store_relaxed(1);
                drop(batch);
                knife.begin();
                drop(receiver);
                knife.end();
            }
            Self::Sweep => {
                let mut sender = sender();
                for number in 0..8 {
                    send(&mut sender, OWN + 50 + number);
                }
                // Its next look for the dead is due at once when it finds no room.
                std::thread::sleep(SETTLING);
                knife.begin();
                assert!(sender.try_claim(1).is_err());
                knife.end();
            }
        }
    }

    fn meet(&self, _: &Scene, _: &mut Survivors) {}

    fn check(&self, _: &Scene, _: &mut Survivors, _: &Death) {}

    /// The survivor's next look for the dead is due by now.
    fn settle(&self, scene: &Scene, survivors: Survivors, death: &Death) {
        let (mut sender, mut receiver) = survivors.queue.unwrap();
        let mut got: BTreeMap<u8, bool> = BTreeMap::new();
        let mut last = None;
        let mut take_all = |receiver: &mut MpmcReceiver| loop {
            match receiver.try_recv() {
                Ok(message) => {
                    assert!(message.len() == 40 && message.iter().all(|byte| *byte == message[0]));
                    let (number, redelivered) = (message[0], message.redelivered());
                    let before = got.insert(number, redelivered);
                    assert_eq!(before, None, "message {number} came twice");
                    if !redelivered {
                        assert!(last < Some(number), "message {number} is out of order");
                        last = Some(number);
                    }
                }
                Err(RecvError::Empty) => return,
                Err(error) => panic!("{error}"),
            }
        };
        take_all(&mut receiver);
        send(&mut sender, AFTER);
        take_all(&mut receiver);
        assert_eq!(got.remove(&AFTER), Some(false));

        let own: Vec<u8> =
            (OWN..OWN + self.own()).filter(|number| got.remove(number).is_some()).collect();
        let all = own.len() == usize::from(self.own());
        assert!(all || own.is_empty() && !death.is_finished, "of its own came {own:?}");
        if *self == Self::Sweep {
            for number in 0..8 {
                assert_eq!(got.remove(&(OWN + 50 + number)), Some(false));
            }
        }

        let shown = scene.note().load_relaxed() as u8;
        for number in 0..BEFORE {
            match got.remove(&number) {
                Some(redelivered) => {
                    assert!(
                        redelivered || number >= shown,
                        "{number} was shown, and came unflagged"
                    );
                    assert!(!redelivered || number < self.claims(), "{number} is flagged");
                    assert!(number >= self.shows() || !death.is_finished, "{number} was released");
                }
                None => assert!(number < shown, "message {number} is lost"),
            }
        }
        assert!(got.is_empty(), "{got:?}");
        // Everything was taken out, and whatever died has been seen to: the last one clears up.
        drop(receiver);
        drop(sender);
    }
}

/// Two processes that die: one with a message, one with three slots claimed and one of them filled.
fn leave_claims(scene: &Scene) {
    let options = options(scene);
    for receives in [true, false] {
        // SAFETY: as for a victim; the child ends by `_exit`, so that nothing of the parent's is undone.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let fine = std::panic::catch_unwind(|| {
                if receives {
                    let mut receiver = MpmcReceiver::open(&options).unwrap();
                    std::mem::forget(receiver.try_recv().unwrap());
                    std::mem::forget(receiver);
                } else {
                    let mut sender = MpmcSender::open(&options).unwrap();
                    queue(&mut sender, 3, OWN..OWN + 1);
                    std::mem::forget(sender);
                }
            });
            // SAFETY: does not return.
            unsafe { libc::_exit(i32::from(fine.is_err())) };
        }
        let mut status = 0;
        // SAFETY: `status` may be written; the child is this process's own.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
    }
}
