//! How sessions end and what is told then; and what is no end: a silent peer, a stopped one.

#[path = "simulator/node.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod node;
#[path = "simulator/rng.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod rng;
#[path = "simulator/scripts.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod scripts;

use node::{App, MS, Node, config};
use ringway_net::frame::{CONTROL_MAX, HEADER_LEN, Kind};
use ringway_net::session::{
    Action, Death, End, Greeting, Half, HangUp, Receiving, Refusal, RefuseCode, Sending, Side,
    Unacknowledged, Verdict,
};
use rng::Rng;
use scripts::Script;

const CAPACITY: u64 = 4096;
const CONNECTOR: Side = Side::Connector { session: [3; 16], seed: 1 };

fn script() -> Script {
    Script {
        messages: 1000,
        len: |_| 20,
        receiver_closes_after: u64::MAX,
        both_close: false,
        hold: 1,
    }
}

fn pair() -> (Node<Sending>, Node<Receiving>) {
    let connector = Node::new(config(CONNECTOR, CAPACITY));
    (connector, Node::new(config(Side::Binder, CAPACITY)))
}

fn work<H: Half>(node: &mut Node<H>, times: u64)
where
    Node<H>: App,
{
    (0..times).for_each(|_| assert!(node.work(&mut Rng::new(1), &script())));
}

/// What a node has to say.
fn take<H: Half>(node: &mut Node<H>, now: u64) -> Vec<u8> {
    let transmit = node.session.poll_transmit(&node.memory, now);
    let (control, data) = (transmit.control.to_vec(), transmit.data.clone());
    let bytes = [control, node.memory.read(data.start, data.end)].concat();
    node.session.handle_sent(bytes.len(), now);
    bytes
}

fn dial<C: Half, B: Half>(connector: &mut Node<C>, binder: &mut Node<B>, now: u64) -> Verdict
where
    Node<C>: App,
    Node<B>: App,
{
    assert_eq!(connector.session.poll_action(now), Action::Dial);
    connector.session.handle_dialed(now);
    let said = take(connector, now);
    let hello = Greeting::read(Kind::Hello, &said).unwrap().unwrap();
    let verdict = binder.session.handle_hello(&hello, &binder.memory, now);
    if verdict == Verdict::Welcome {
        // What the first connection carries behind the hello.
        binder.feed(&said[CONTROL_MAX..], now);
        let welcome = take(binder, now);
        connector.feed(&welcome, now);
        assert!(connector.session.is_up() && binder.session.is_up());
    }
    verdict
}

/// Everything that either wants to say is said.
fn talk<C: Half, B: Half>(connector: &mut Node<C>, binder: &mut Node<B>, now: u64)
where
    Node<C>: App,
    Node<B>: App,
{
    loop {
        let (from, back) = (take(connector, now), take(binder, now));
        if from.is_empty() && back.is_empty() {
            return;
        }
        binder.feed(&from, now);
        connector.feed(&back, now);
    }
}

fn cut<C: Half, B: Half>(connector: &mut Node<C>, binder: &mut Node<B>, now: u64) {
    connector.session.handle_disconnected(now);
    binder.session.handle_disconnected(now);
}

/// Three of five acknowledged.
fn three_of_five() -> (Node<Sending>, Node<Receiving>) {
    let (mut sender, mut receiver) = pair();
    work(&mut sender, 5);
    assert_eq!(dial(&mut sender, &mut receiver, 0), Verdict::Welcome);
    talk(&mut sender, &mut receiver, 0);
    work(&mut receiver, 3);
    talk(&mut sender, &mut receiver, 5 * MS);
    assert_eq!(sender.session.acknowledged(), 0, "the delay has only begun");
    talk(&mut sender, &mut receiver, 6 * MS);
    assert_eq!(sender.session.acknowledged(), 144);
    (sender, receiver)
}

fn two() -> Unacknowledged {
    Unacknowledged { messages: 2, bytes: 40 }
}

#[test]
fn a_binder_that_was_restarted_ends_the_session_with_a_count() {
    let (mut sender, mut receiver) = three_of_five();
    cut(&mut sender, &mut receiver, 6 * MS);
    let mut successor = Node::<Receiving>::new(config(Side::Binder, CAPACITY));
    let Verdict::Refuse(refusal) = dial(&mut sender, &mut successor, 6 * MS) else {
        panic!("welcomed")
    };
    assert_eq!(refusal.code, RefuseCode::UnknownSession);
    sender.feed(&refusal.to_bytes(), 6 * MS);
    assert_eq!(sender.session.poll_action(6 * MS), Action::HangUp(HangUp::Ended));
    sender.session.handle_disconnected(6 * MS);
    assert_eq!(sender.session.poll_action(6 * MS), Action::Done);
    assert_eq!(sender.end(), Some(End::Died(Death::Refused(refusal))));
    assert_eq!(sender.session.unacknowledged(&sender.memory), two());
    // What the receiver had is still its own to read.
    work(&mut receiver, 2);
    // A new session starts empty, and the binder is none the worse.
    let side = Side::Connector { session: [4; 16], seed: 1 };
    let mut sender = Node::<Sending>::new(config(side, CAPACITY));
    assert_eq!(dial(&mut sender, &mut successor, 7 * MS), Verdict::Welcome);
    work(&mut sender, 1);
    talk(&mut sender, &mut successor, 7 * MS);
    work(&mut successor, 1);
}

#[test]
fn a_connection_that_is_not_resumed_in_time_ends_both() {
    let (mut sender, mut receiver) = three_of_five();
    let now = 6 * MS;
    cut(&mut sender, &mut receiver, now);
    let deadline = now + sender.session.config().timing.resume_ns;
    let until = Action::Wait { until_ns: Some(deadline) };
    assert_eq!(receiver.session.poll_action(now), until);
    assert_eq!(receiver.session.poll_action(deadline - 1), until);
    assert_eq!(receiver.session.poll_action(deadline), Action::Done);
    assert_eq!(receiver.end(), Some(End::Died(Death::ResumeDeadline)));
    work(&mut receiver, 2);
    let mut dials = 0;
    let mut at = now;
    loop {
        match sender.session.poll_action(at) {
            Action::Dial => {
                dials += 1;
                sender.session.handle_disconnected(at);
            }
            Action::Wait { until_ns } => at = until_ns.expect("it is to try again"),
            Action::Done => break,
            action => panic!("{action:?}"),
        }
    }
    assert_eq!(at, deadline);
    // At once, then doubling to a second: some ten before that, and one or two a second then.
    assert!((35..80).contains(&dials), "{dials} attempts in 30 s");
    assert_eq!(sender.end(), Some(End::Died(Death::ResumeDeadline)));
    assert_eq!(sender.session.unacknowledged(&sender.memory), two());
}

#[test]
fn a_deadline_does_not_wait_for_an_attempt_that_hangs() {
    let (mut sender, mut receiver) = three_of_five();
    cut(&mut sender, &mut receiver, 6 * MS);
    let deadline = 6 * MS + sender.session.config().timing.resume_ns;
    let mut now = 6 * MS;
    // Somebody accepts, and says nothing: a stopped process, whose kernel still listens.
    while sender.end().is_none() {
        match sender.session.poll_action(now) {
            Action::Dial => sender.session.handle_dialed(now),
            Action::HangUp(HangUp::Handshake | HangUp::Ended) => {
                sender.session.handle_disconnected(now);
            }
            Action::Wait { until_ns } => now = until_ns.expect("there is a deadline"),
            action => panic!("{action:?}"),
        }
    }
    assert_eq!(now, deadline);
}

#[test]
fn a_dial_whose_success_is_seen_late_leaves_time_for_the_answer() {
    let (mut sender, _) = pair();
    let patience = sender.session.config().timing.handshake_ns;
    assert_eq!(sender.session.poll_action(0), Action::Dial);
    let seen = 10 * patience;
    sender.session.handle_dialed(seen);
    take(&mut sender, seen);
    assert!(matches!(sender.session.poll_action(seen + patience - 1), Action::Wait { .. }));
    let late = sender.session.poll_action(seen + patience);
    assert_eq!(late, Action::HangUp(HangUp::Handshake));
}

#[test]
fn silence_is_not_death() {
    let (mut sender, mut receiver) = three_of_five();
    let start = 10 * MS;
    for second in 0..600 {
        let now = start + second * 1000 * MS;
        assert!(matches!(sender.session.poll_action(now), Action::Wait { .. }), "{second} s");
        assert_eq!(sender.session.is_stalled(now), second >= 5, "{second} s");
        // It goes on saying that it lives, once a second, and nobody reads it.
        assert_eq!(take(&mut sender, now).len(), if second == 0 { 0 } else { HEADER_LEN });
    }
    // The receiver wakes up, and nothing has happened.
    let now = start + 600 * 1000 * MS;
    work(&mut receiver, 2);
    receiver.session.acknowledge_now();
    let ack = take(&mut receiver, now);
    sender.feed(&ack, now);
    assert!(!sender.session.is_stalled(now));
    assert_eq!(sender.session.unacknowledged(&sender.memory), Unacknowledged::default());
}

#[test]
fn a_full_ring_is_said_once_and_waits() {
    let (mut sender, mut receiver) = pair();
    assert_eq!(dial(&mut sender, &mut receiver, 0), Verdict::Welcome);
    let mut sent = 0;
    while sender.work(&mut Rng::new(1), &script()) {
        sent += 1;
        talk(&mut sender, &mut receiver, 0);
    }
    // The ring's 4096 bytes take 85 frames of 48, of which the receiver takes 80.
    assert_eq!((sent, receiver.session.received()), (85, 80 * 48));
    assert!(take(&mut sender, 0).is_empty());
    // An eighth of the window is acknowledged at once: 10 frames.
    work(&mut receiver, 9);
    assert!(take(&mut receiver, 0).is_empty());
    work(&mut receiver, 1);
    talk(&mut sender, &mut receiver, 0);
    assert_eq!(sender.session.acknowledged(), 480);
    assert_eq!(receiver.session.received(), 85 * 48);
}

#[test]
fn what_is_released_behind_a_hello_is_acknowledged_when_it_is_welcomed() {
    let mut receiver = Node::<Receiving>::new(config(CONNECTOR, CAPACITY));
    let mut sender = Node::<Sending>::new(config(Side::Binder, CAPACITY));
    assert_eq!(dial(&mut receiver, &mut sender, 0), Verdict::Welcome);
    while sender.work(&mut Rng::new(1), &script()) {
        talk(&mut receiver, &mut sender, 0);
    }
    cut(&mut receiver, &mut sender, MS);
    assert_eq!(receiver.session.poll_action(MS), Action::Dial);
    receiver.session.handle_dialed(MS);
    let hello = Greeting::read(Kind::Hello, &take(&mut receiver, MS)).unwrap().unwrap();
    assert_eq!(hello.released, 0);
    // The application reads on while the welcome is on its way.
    work(&mut receiver, 20);
    let verdict = sender.session.handle_hello(&hello, &sender.memory, MS);
    assert_eq!(verdict, Verdict::Welcome);
    talk(&mut receiver, &mut sender, MS);
    assert_eq!(sender.session.acknowledged(), 20 * 48);
    assert_eq!(receiver.session.received(), 85 * 48);
}

#[test]
fn close_tells_what_was_not_acknowledged() {
    let (mut sender, mut receiver) = three_of_five();
    sender.session.close();
    talk(&mut sender, &mut receiver, 7 * MS);
    assert!(receiver.session.is_peer_closed() && !sender.session.is_peer_closed());
    assert_eq!(sender.end(), None, "the receiver has not released everything");
    assert_eq!(sender.session.unacknowledged(&sender.memory), two());
    work(&mut receiver, 2);
    assert_eq!(receiver.end(), None, "it has yet to say so");
    talk(&mut sender, &mut receiver, 8 * MS);
    for end in [sender.end(), receiver.end()] {
        assert_eq!(end, Some(End::Closed));
    }
    assert_eq!(sender.session.unacknowledged(&sender.memory), Unacknowledged::default());
    // Both shut down; one that does not is waited for no longer than for a greeting.
    let Action::Shutdown { until_ns } = sender.session.poll_action(8 * MS) else {
        panic!("no shutdown")
    };
    assert_eq!(sender.session.poll_action(until_ns), Action::HangUp(HangUp::Ended));
    cut(&mut sender, &mut receiver, 9 * MS);
    assert_eq!(receiver.session.poll_action(9 * MS), Action::Done);
}

#[test]
fn a_receiver_that_closes_leaves_the_rest_unacknowledged() {
    let (mut sender, mut receiver) = three_of_five();
    receiver.session.close();
    // What it still reads for itself is not acknowledged any more.
    let fin = take(&mut receiver, 7 * MS);
    work(&mut receiver, 2);
    sender.feed(&fin, 7 * MS);
    assert!(sender.session.is_peer_closed());
    talk(&mut sender, &mut receiver, 7 * MS);
    assert_eq!((sender.end(), receiver.end()), (Some(End::Closed), Some(End::Closed)));
    assert_eq!(sender.session.unacknowledged(&sender.memory), two());
}

#[test]
fn both_close_at_once() {
    for all_released in [false, true] {
        let (mut sender, mut receiver) = three_of_five();
        if all_released {
            work(&mut receiver, 2);
        }
        sender.session.close();
        receiver.session.close();
        talk(&mut sender, &mut receiver, 7 * MS);
        assert_eq!((sender.end(), receiver.end()), (Some(End::Closed), Some(End::Closed)));
        let left = if all_released { 0 } else { 2 };
        assert_eq!(sender.session.unacknowledged(&sender.memory).messages, left);
    }
}

#[test]
fn a_peer_that_forgot_a_closed_session_does_not_make_it_a_death() {
    // The receiver knows that it has everything; the sender that everything was released.
    let (mut sender, mut receiver) = three_of_five();
    work(&mut receiver, 2);
    sender.session.close();
    let fin = take(&mut sender, 7 * MS);
    receiver.feed(&fin, 7 * MS);
    talk(&mut sender, &mut receiver, 9 * MS);
    assert_eq!(sender.end(), Some(End::Closed));

    let (mut sender, mut receiver) = three_of_five();
    work(&mut receiver, 2);
    receiver.session.acknowledge_now();
    talk(&mut sender, &mut receiver, 7 * MS);
    sender.session.close();
    cut(&mut sender, &mut receiver, 7 * MS);
    let mut successor = Node::<Receiving>::new(config(Side::Binder, CAPACITY));
    let Verdict::Refuse(refusal) = dial(&mut sender, &mut successor, 7 * MS) else { panic!() };
    sender.feed(&refusal.to_bytes(), 7 * MS);
    assert_eq!(sender.end(), Some(End::Closed));
}

#[test]
fn another_peer_may_take_over_what_is_broken_for_a_while() {
    let (mut sender, mut receiver) = three_of_five();
    let now = 6 * MS;
    cut(&mut sender, &mut receiver, now);
    let takeover = now + receiver.session.config().timing.takeover_ns;
    for at in [now, takeover - 1, takeover] {
        let side = Side::Connector { session: [9; 16], seed: 2 };
        let mut other = Node::<Sending>::new(config(side, CAPACITY));
        let Verdict::Refuse(refusal) = dial(&mut other, &mut receiver, at) else {
            panic!("welcomed to a session that is not its own")
        };
        assert_eq!(refusal.code, RefuseCode::Busy);
        let replaced = (at == takeover).then_some(End::Died(Death::Replaced));
        assert_eq!(receiver.end(), replaced);
    }
    work(&mut receiver, 2);
    let Verdict::Refuse(refusal) = dial(&mut sender, &mut receiver, takeover) else { panic!() };
    assert_eq!(refusal.code, RefuseCode::UnknownSession);
}

#[test]
fn a_welcome_that_is_lost_makes_no_session_unknown() {
    let (mut sender, mut receiver) = pair();
    work(&mut sender, 1);
    sender.session.poll_action(0);
    sender.session.handle_dialed(0);
    let hello = Greeting::read(Kind::Hello, &take(&mut sender, 0)).unwrap().unwrap();
    assert!(hello.fresh);
    let verdict = receiver.session.handle_hello(&hello, &receiver.memory, 0);
    assert_eq!(verdict, Verdict::Welcome);
    assert_eq!(take(&mut receiver, 0).len(), CONTROL_MAX);
    cut(&mut sender, &mut receiver, 0);
    assert!(receiver.session.is_established() && !sender.session.is_established());
    assert_eq!(dial(&mut sender, &mut receiver, 0), Verdict::Welcome);
    // And a binder that was restarted in between makes no difference either.
    let (mut sender, _) = pair();
    sender.session.poll_action(0);
    sender.session.handle_dialed(0);
    sender.session.handle_disconnected(0);
    let mut successor = Node::<Receiving>::new(config(Side::Binder, CAPACITY));
    assert_eq!(dial(&mut sender, &mut successor, 0), Verdict::Welcome);
    assert_eq!(sender.session.epoch(), 2);
}

#[test]
fn only_the_first_hello_is_followed_by_data() {
    let (mut sender, mut receiver) = pair();
    work(&mut sender, 85);
    sender.session.poll_action(0);
    sender.session.handle_dialed(0);
    // Half a ring: the longest frame, and no more than whole frames of it.
    let first = take(&mut sender, 0);
    assert_eq!(first.len(), CONTROL_MAX + 2048 / 48 * 48);
    assert!(take(&mut sender, 0).is_empty());
    sender.session.handle_disconnected(0);
    sender.session.poll_action(0);
    sender.session.handle_dialed(0);
    assert_eq!(take(&mut sender, 0).len(), CONTROL_MAX);
    sender.session.handle_disconnected(0);
    // The binder sees the first only now, when its connection is long gone, and takes all of it.
    let (hello, early) = first.split_at(CONTROL_MAX);
    let hello = Greeting::read(Kind::Hello, hello).unwrap().unwrap();
    let verdict = receiver.session.handle_hello(&hello, &receiver.memory, 0);
    assert_eq!(verdict, Verdict::Welcome);
    receiver.feed(early, 0);
    receiver.session.handle_disconnected(0);
    assert_eq!(dial(&mut sender, &mut receiver, 10 * MS), Verdict::Welcome);
    talk(&mut sender, &mut receiver, 10 * MS);
    assert_eq!(sender.session.counters().resent_bytes, 0);
    work(&mut receiver, 80);
    talk(&mut sender, &mut receiver, 10 * MS);
    work(&mut receiver, 5);
}

#[test]
fn a_session_that_nobody_knows_of_closes_at_once() {
    let (mut sender, mut receiver) = pair();
    sender.session.close();
    receiver.session.close();
    assert_eq!((sender.end(), receiver.end()), (Some(End::Closed), Some(End::Closed)));
    // Nor does it wait for who may never answer a dial.
    let (mut sender, _) = pair();
    assert_eq!(sender.session.poll_action(0), Action::Dial);
    sender.session.close();
    assert_eq!(sender.session.poll_action(0), Action::HangUp(HangUp::Ended));
    sender.session.handle_disconnected(0);
    assert_eq!((sender.end(), sender.session.poll_action(0)), (Some(End::Closed), Action::Done));
    // Or is gone before it has answered a hello.
    let (mut sender, _) = pair();
    assert_eq!(sender.session.poll_action(0), Action::Dial);
    sender.session.handle_dialed(0);
    sender.session.close();
    assert_eq!(sender.end(), None);
    sender.session.handle_disconnected(0);
    assert_eq!((sender.end(), sender.session.poll_action(0)), (Some(End::Closed), Action::Done));
    // But not with messages that may still be fetched.
    let (mut sender, mut receiver) = pair();
    work(&mut sender, 1);
    sender.session.close();
    assert_eq!(sender.end(), None);
    assert_eq!(dial(&mut sender, &mut receiver, 0), Verdict::Welcome);
    talk(&mut sender, &mut receiver, 0);
    work(&mut receiver, 1);
    receiver.session.handle_released(receiver.session.received());
    talk(&mut sender, &mut receiver, 0);
    assert_eq!((sender.end(), receiver.end()), (Some(End::Closed), Some(End::Closed)));
}

#[test]
fn a_refusal_says_what_to_do_in_words() {
    let words = [
        (RefuseCode::UnknownSession, "restarted"),
        (RefuseCode::Epoch, "cloned"),
        (RefuseCode::Busy, "another peer"),
        (RefuseCode::Position, "contradict"),
    ];
    for (code, word) in words {
        let refusal = Refusal { code, mine: 5, yours: 6 };
        let text = End::Died(Death::Refused(refusal)).to_string();
        assert!(text.starts_with("refused: ") && text.contains(word), "{text}");
    }
}
