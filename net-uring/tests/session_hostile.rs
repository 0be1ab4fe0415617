//! What a peer may do that the protocol does not allow: it costs that connection, and nothing else.
//! The session goes on with the next one, with every message once and in order.

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
use ringway_net::ErrorKind;
use ringway_net::frame::{self, CONTROL_MAX, FrameError, HEADER_LEN, Header, Kind, frame_len};
use ringway_net::session::greeting::POSITION_MAX;
use ringway_net::session::{
    Action, Death, Direction, End, Format, Greeting, GreetingError, Half, HangUp, Name, Receiving,
    Refusal, RefuseCode, Sending, Session, Side, Timing, Verdict, Violation,
};
use rng::Rng;
use scripts::Script;

const CAPACITY: u64 = 4096;
const WINDOW: u64 = 3840;
const SESSION: [u8; 16] = *b"sixteen bytes...";
const CONNECTOR: Side = Side::Connector { session: SESSION, seed: 1 };

fn script() -> Script {
    Script {
        messages: 1000,
        len: |_| 20,
        receiver_closes_after: u64::MAX,
        both_close: false,
        hold: 1,
    }
}

/// What a well-behaved peer would say in the place of a `direction` end.
fn greeting(direction: Direction, epoch: u64, position: u64, released: u64) -> Greeting {
    let receives = direction == Direction::Receives;
    Greeting {
        direction,
        format: Format { endian: 1, pointer: 4, align: 8 },
        session: SESSION,
        epoch,
        schema: 0x0123_4567_89ab_cdef,
        position,
        released,
        window: if receives { WINDOW } else { 0 },
        body_max: if receives { 0 } else { 2032 },
        fresh: epoch == 1,
        name: Name::new("ticks").unwrap(),
    }
}

/// A binder that sends, connected, with `messages` frames of 48 bytes sent.
fn sender(messages: u64) -> Node<Sending> {
    let mut node = Node::new(config(Side::Binder, CAPACITY));
    let hello = greeting(Direction::Receives, 1, 0, 0);
    assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
    (0..messages).for_each(|_| assert!(node.work(&mut Rng::new(0), &script())));
    drain(&mut node);
    node
}

/// A binder that receives, connected.
fn receiver() -> Node<Receiving> {
    let mut node = Node::new(config(Side::Binder, CAPACITY));
    let hello = greeting(Direction::Sends, 1, 0, 0);
    assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
    drain(&mut node);
    node
}

/// Sends everything, to nobody. How much it was.
fn drain<H: Half>(node: &mut Node<H>) -> usize {
    let len = node.session.poll_transmit(&node.memory, 0).len();
    node.session.handle_sent(len, 0);
    len
}

fn control(kind: Kind, seq: u64) -> [u8; HEADER_LEN] {
    Header::control(kind, seq).to_bytes()
}

/// A whole data frame.
fn data(number: u64, len: usize, position: u64) -> Vec<u8> {
    let mut frame = Header::data(len as u32, position).to_bytes().to_vec();
    frame.extend(scripts::body(number, len));
    frame.resize(frame_len(len as u32) as usize, 0);
    frame
}

fn hung_up<H: Half>(node: &mut Node<H>) -> Option<HangUp> {
    match node.session.poll_action(0) {
        Action::HangUp(why) => Some(why),
        _ => None,
    }
}

fn violation<H: Half>(node: &mut Node<H>) -> Violation {
    match hung_up(node) {
        Some(HangUp::Violation(violation)) => violation,
        other => panic!("no violation: {other:?}"),
    }
}

/// Everything that a receiver got is still there, and the next connection brings the rest.
fn goes_on_receiving(mut node: Node<Receiving>) {
    node.session.handle_disconnected(0);
    let received = node.session.received();
    let hello = greeting(Direction::Sends, 2, 0, 0);
    assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
    let number = received / 48;
    node.feed(&data(number, 20, received), 0);
    while node.count <= number {
        assert!(node.work(&mut Rng::new(0), &script()), "message {}", node.count);
        node.check();
    }
    assert_eq!(hung_up(&mut node), None);
}

/// Nothing that a sender keeps was lost, and the next connection takes it.
fn goes_on_sending(mut node: Node<Sending>, acknowledged: u64) {
    assert_eq!(node.session.acknowledged(), acknowledged);
    node.session.handle_disconnected(0);
    let hello = greeting(Direction::Receives, 2, acknowledged, acknowledged);
    assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
    let rest = (node.session.tail() - acknowledged) as usize;
    assert_eq!(drain(&mut node), CONTROL_MAX + rest);
    node.feed(&control(Kind::Ack, node.session.tail()), 0);
    assert_eq!(hung_up(&mut node), None);
    assert_eq!(node.session.unacknowledged(&node.memory).messages, 0);
}

#[test]
fn garbage_is_no_greeting() {
    for text in [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\0\0", b"SSH-2.0-OpenSSH_9.2\r\n"] {
        assert_eq!(Greeting::read(Kind::Hello, text), Err(GreetingError::Garbage), "{text:?}");
    }
    let mut rng = Rng::new(0);
    for _ in 0..20_000 {
        let len = rng.range(0, 300) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        assert!(!matches!(Greeting::read(Kind::Hello, &bytes), Ok(Some(_))), "{bytes:?}");
    }
}

#[test]
fn a_hello_with_one_byte_wrong_changes_nothing() {
    let sound = greeting(Direction::Receives, 2, 0, 0).to_bytes(Kind::Hello);
    for at in 0..CONTROL_MAX {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff, sound[at] ^ 1, sound[at].wrapping_add(1)] {
            let mut bytes = sound;
            bytes[at] = value;
            for len in [at + 1, CONTROL_MAX] {
                let Ok(Some(hello)) = Greeting::read(Kind::Hello, &bytes[..len]) else { continue };
                let mut node = sender(3);
                let before = (node.session.tail(), node.session.acknowledged());
                match node.session.handle_hello(&hello, &node.memory, 0) {
                    Verdict::Refuse(_) | Verdict::CloseFirst => {}
                    Verdict::Welcome => panic!("byte {at} as {value}: welcomed beside another"),
                }
                assert_eq!((node.session.tail(), node.session.acknowledged()), before);
                goes_on_sending(node, 0);
            }
        }
    }
}

#[test]
fn a_greeting_cut_anywhere_is_waited_for() {
    let greeting = greeting(Direction::Sends, 1, 0, 0);
    let bytes = greeting.to_bytes(Kind::Hello);
    for len in 0..CONTROL_MAX {
        assert_eq!(Greeting::read(Kind::Hello, &bytes[..len]), Ok(None), "{len} bytes");
    }
    assert_eq!(Greeting::read(Kind::Hello, &bytes), Ok(Some(greeting)));
    assert_eq!(Greeting::read(Kind::Welcome, &bytes), Err(GreetingError::Garbage));
}

/// What becomes of a connector that is answered with these bytes.
fn answered(direction: Direction, bytes: &[u8]) -> (Option<End>, Option<HangUp>) {
    fn run<H: Half>(bytes: &[u8]) -> (Option<End>, Option<HangUp>)
    where
        Node<H>: App,
    {
        let mut node = Node::<H>::new(config(CONNECTOR, CAPACITY));
        assert_eq!(node.session.poll_action(0), Action::Dial);
        node.session.handle_dialed(0);
        assert_eq!(drain(&mut node), CONTROL_MAX);
        node.feed(bytes, 0);
        let hung_up = hung_up(&mut node);
        (node.end(), hung_up)
    }
    match direction {
        Direction::Sends => run::<Sending>(bytes),
        Direction::Receives => run::<Receiving>(bytes),
    }
}

#[test]
fn a_future_version_is_told_which() {
    let mut bytes = greeting(Direction::Sends, 1, 0, 0).to_bytes(Kind::Hello);
    bytes[24..28].copy_from_slice(&[9, 0, 4, 0]);
    // Its greeting may be longer; only the front keeps its place.
    bytes[0] = 255;
    let Err(GreetingError::Refuse(refusal)) = Greeting::read(Kind::Hello, &bytes[..28]) else {
        panic!("not refused")
    };
    assert_eq!(refusal.code, RefuseCode::Version);
    for direction in [Direction::Sends, Direction::Receives] {
        let (end, _) = answered(direction, &refusal.to_bytes());
        assert_eq!(end, Some(End::Died(Death::Refused(refusal))));
        let text = end.unwrap().to_string();
        assert!(text.contains("version 1.0") && text.contains("9.4"), "{text}");
    }
}

type Change = (RefuseCode, fn(&mut Greeting), &'static str);

#[test]
fn a_peer_of_another_kind_is_refused_by_either_side() {
    let changes: [Change; 6] = [
        (RefuseCode::Schema, |peer| peer.schema = 0xfeed, "000000000000feed"),
        (RefuseCode::Format, |peer| peer.format.pointer = 8, "64-bit pointers"),
        (RefuseCode::Format, |peer| peer.format.endian = 2, "big-endian"),
        (RefuseCode::Name, |peer| peer.name = Name::new("tocks").unwrap(), "no channel"),
        (RefuseCode::Direction, |peer| peer.direction = Direction::Receives, "both sides receive"),
        (RefuseCode::Window, |peer| peer.body_max = 4080, "`capacity`"),
    ];
    for (code, change, text) in changes {
        let mut peer = greeting(Direction::Sends, 1, 0, 0);
        change(&mut peer);
        let mut binder = Node::<Receiving>::new(config(Side::Binder, CAPACITY));
        let verdict = binder.session.handle_hello(&peer, &binder.memory, 0);
        let Verdict::Refuse(refusal) = verdict else { panic!("{verdict:?}") };
        assert_eq!(refusal.code, code);
        assert!(refusal.to_string().contains(text), "{refusal}");
        assert_eq!(binder.session.counters().refusals, 1);
        let (end, _) = answered(Direction::Sends, &refusal.to_bytes());
        assert_eq!(end, Some(End::Died(Death::Refused(refusal))));
        peer.fresh = false;
        let (end, _) = answered(Direction::Receives, &peer.to_bytes(Kind::Welcome));
        let Some(End::Died(Death::Refused(refusal))) = end else { panic!("{code:?}: {end:?}") };
        assert_eq!(refusal.code, code);
        assert!(refusal.to_string().contains(text), "{refusal}");
    }
}

#[test]
fn a_frame_of_4_gib_is_refused_by_its_header() {
    let mut node = receiver();
    node.feed(&data(0, 20, 0), 0);
    let header = Header::data(u32::MAX, 48).to_bytes();
    node.feed(&header[..15], 0);
    assert_eq!(hung_up(&mut node), None);
    node.feed(&header[15..], 0);
    let error = FrameError::Length { kind: Kind::Data, len: u32::MAX, max: 2032 };
    assert_eq!(violation(&mut node), Violation::Frame(error));
    assert_eq!((node.session.received(), node.session.counters().violations), (48, 1));
    goes_on_receiving(node);
}

#[test]
fn bytes_that_are_no_frame_cost_the_connection() {
    type Wrong = fn(&mut Header);
    let wrongs: [Wrong; 9] = [
        |header| header.kind = 0,
        |header| header.kind = 10,
        // A gap has eight bytes, no more flags than one are there at once, and there are no others.
        |header| header.flags = 2,
        |header| header.flags = 3,
        |header| header.flags = 4,
        |header| header.stream = 1,
        |header| header.seq += 16,
        |header| header.seq -= 48,
        |header| header.len = 2033,
    ];
    for wrong in wrongs {
        let mut node = receiver();
        node.feed(&data(0, 20, 0), 0);
        let mut header = Header::data(20, 48);
        wrong(&mut header);
        node.feed(&header.to_bytes(), 0);
        violation(&mut node);
        // What else comes is not looked at.
        node.feed(&data(1, 20, 48), 0);
        assert_eq!(node.session.received(), 48);
        goes_on_receiving(node);
    }
}

/// What another receiver had, and gaps, are data: they lie in the ring among the messages, whole or not yet,
/// also where they come in pieces.
#[test]
fn flagged_frames_are_received_as_the_others_are() {
    let flagged = |flags: u8, mut frame: Vec<u8>| {
        frame[5] = flags;
        frame
    };
    let frames = [
        data(0, 20, 0),
        flagged(frame::AGAIN, data(1, 20, 48)),
        flagged(frame::GAP, data(2, 8, 96)),
        flagged(frame::GAP, data(3, 8, 128)),
        data(4, 20, 160),
        flagged(frame::AGAIN, data(5, 20, 208)),
    ];
    let stream = frames.concat();
    for cut in 0..stream.len() {
        let mut node = receiver();
        for piece in [&stream[..cut], &stream[cut..]] {
            if !piece.is_empty() {
                node.feed(piece, 0);
            }
        }
        assert_eq!((node.session.received(), node.session.partial()), (256, 0), "cut at {cut}");
        assert_eq!(hung_up(&mut node), None);
    }
}

/// A message's number counts those that were left out: a peer that says there were more than there can be
/// gets nobody's count to wrap.
#[test]
fn gaps_of_more_messages_than_there_can_be_cost_the_connection() {
    let gap = |missed: u64, position: u64| {
        let header = Header { flags: frame::GAP, ..Header::data(frame::GAP_BODY, position) };
        let mut bytes = [&header.to_bytes()[..], &missed.to_le_bytes()].concat();
        bytes.resize(frame_len(frame::GAP_BODY) as usize, 0);
        bytes
    };
    let most = POSITION_MAX - 1;
    for wrong in [u64::MAX, POSITION_MAX] {
        let mut node = receiver();
        node.feed(&data(0, 20, 0), 0);
        node.feed(&gap(wrong, 48), 0);
        assert_eq!(violation(&mut node), Violation::Gap { missed: wrong, before: 0 });
        assert_eq!((node.session.received(), node.session.counters().violations), (48, 1));
        goes_on_receiving(node);
    }
    // Each may be, and all of them may not, also over connections.
    for breaks in [false, true] {
        let mut node = receiver();
        node.feed(&[gap(most - 7, 0), gap(3, 32), gap(4, 64)].concat(), 0);
        assert_eq!((node.session.received(), hung_up(&mut node)), (96, None));
        if breaks {
            node.session.handle_disconnected(0);
            let hello = greeting(Direction::Sends, 2, 0, 0);
            assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
            drain(&mut node);
        }
        node.feed(&gap(1, 96), 0);
        assert_eq!(violation(&mut node), Violation::Gap { missed: 1, before: most });
        assert_eq!(node.session.received(), 96);
    }
}

#[test]
fn a_frame_cut_at_every_byte_comes_again() {
    let frame = data(1, 20, 48);
    for cut in 0..frame.len() {
        let mut node = receiver();
        node.feed(&data(0, 20, 0), 0);
        node.feed(&frame[..cut], 0);
        assert_eq!((node.session.received(), node.session.partial()), (48, cut as u64));
        goes_on_receiving(node);
    }
}

#[test]
fn data_beyond_the_credit_is_refused() {
    let mut node = receiver();
    let mut position = 0;
    while position + 48 <= WINDOW {
        node.feed(&data(position / 48, 20, position), 0);
        position += 48;
    }
    assert_eq!((position, hung_up(&mut node)), (WINDOW, None));
    // A full ring still hears control, however much of it.
    for _ in 0..1000 {
        node.feed(&control(Kind::Heartbeat, position).repeat(16), 0);
        node.check();
    }
    assert_eq!(hung_up(&mut node), None);
    node.feed(&Header::data(20, position).to_bytes(), 0);
    let violation = violation(&mut node);
    assert_eq!(violation, Violation::Credit { end: position + 48, limit: WINDOW });
    while node.work(&mut Rng::new(0), &script()) {}
    assert_eq!(node.released, 80);
    goes_on_receiving(node);
}

#[test]
fn control_between_data_leaves_the_data_in_place() {
    let mut rng = Rng::new(3);
    for _ in 0..300 {
        let mut node = receiver();
        let (mut stream, mut position) = (Vec::new(), 0);
        for number in 0..60 {
            for _ in 0..rng.range(0, 3) {
                stream.extend(control(Kind::Heartbeat, position));
            }
            stream.extend(data(number, 20, position));
            position += 48;
        }
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let most = node.room().min(rest.len()).min(rng.range(1, 2000) as usize);
            let (front, behind) = rest.split_at(most);
            node.feed(front, 0);
            node.check();
            rest = behind;
        }
        // All of it is there, and read only now.
        assert_eq!((node.session.received(), hung_up(&mut node)), (position, None));
        while node.work(&mut rng, &script()) {}
        assert_eq!(node.released, 60);
    }
}

#[test]
fn an_acknowledgement_that_lies_costs_the_connection() {
    // Frames lie at 0, 48, 96; 144 is the tail.
    for (first, then) in [(48, 0), (96, 48), (0, 192), (0, u64::MAX), (0, 16), (48, 64), (0, 47)] {
        let mut node = sender(3);
        node.feed(&control(Kind::Ack, first), 0);
        assert_eq!(hung_up(&mut node), None);
        node.feed(&control(Kind::Ack, then), 0);
        let expected = Violation::Ack { low: first, high: 144, found: then };
        assert_eq!(violation(&mut node), expected);
        goes_on_sending(node, first);
    }
}

/// A message may look like a frame in its middle, and who sent it may have meant it to.
#[test]
fn a_header_inside_a_message_is_no_boundary() {
    let mut node = sender(1);
    let at = node.session.tail();
    let header = node.session.commit(64);
    let forged = Header::data(2000, at + 32).to_bytes();
    node.memory.write(at, &[header, [0; HEADER_LEN], forged].concat());
    drain(&mut node);
    for kind in [Kind::Ack, Kind::Fin] {
        node.feed(&control(kind, at + 32), 0);
        let high = node.session.tail();
        assert_eq!(violation(&mut node), Violation::Ack { low: 0, high, found: at + 32 });
        assert!(!node.session.is_peer_closed());
        node.session.handle_disconnected(0);
        for (position, released) in [(at + 32, 0), (at + 32, at + 32), (high, at + 32)] {
            let hello = greeting(Direction::Receives, node.session.epoch() + 1, position, released);
            match node.session.handle_hello(&hello, &node.memory, 0) {
                Verdict::Refuse(Refusal { code: RefuseCode::Position, .. }) => {}
                verdict => panic!("{position} {released}: {verdict:?}"),
            }
        }
        let hello = greeting(Direction::Receives, node.session.epoch() + 1, high, 0);
        assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
        drain(&mut node);
    }
    node.feed(&control(Kind::Ack, at), 0);
    assert_eq!((hung_up(&mut node), node.session.acknowledged()), (None, at));
}

#[test]
fn a_resume_at_a_position_that_cannot_be_is_refused() {
    for (position, released) in [(192, 0), (144, 192), (48, 0), (96, 64), (64, 48), (96, 47)] {
        let mut node = sender(3);
        node.feed(&control(Kind::Ack, 48), 0);
        node.session.handle_disconnected(0);
        let hello = greeting(Direction::Receives, 2, position, released);
        match node.session.handle_hello(&hello, &node.memory, 0) {
            Verdict::Refuse(Refusal { code: RefuseCode::Position, .. }) => {}
            verdict => panic!("{position} {released}: {verdict:?}"),
        }
        let hello = greeting(Direction::Receives, 2, 96, 48);
        assert_eq!(node.session.handle_hello(&hello, &node.memory, 0), Verdict::Welcome);
        assert_eq!(drain(&mut node), CONTROL_MAX + 48);
    }
    // A sender that has forgotten what was never acknowledged.
    let mut node = receiver();
    node.feed(&data(0, 20, 0), 0);
    node.session.handle_disconnected(0);
    let hello = greeting(Direction::Sends, 2, 48, 0);
    let Verdict::Refuse(refusal) = node.session.handle_hello(&hello, &node.memory, 0) else {
        panic!("welcomed")
    };
    assert_eq!(refusal.code, RefuseCode::Position);
    goes_on_receiving(node);
}

#[test]
fn an_old_epoch_is_refused_and_a_higher_one_closes_first() {
    let mut node = sender(3);
    for epoch in [2, 7] {
        let hello = greeting(Direction::Receives, epoch, 48, 48);
        let verdict = node.session.handle_hello(&hello, &node.memory, 0);
        assert_eq!(verdict, Verdict::CloseFirst);
        assert!(node.session.is_up(), "it was asked, and not told");
        node.session.handle_disconnected(0);
        let verdict = node.session.handle_hello(&hello, &node.memory, 0);
        assert_eq!(verdict, Verdict::Welcome);
        for old in 1..=epoch {
            let hello = greeting(Direction::Receives, old, 48, 48);
            match node.session.handle_hello(&hello, &node.memory, 0) {
                Verdict::Refuse(Refusal { code: RefuseCode::Epoch, mine, yours }) => {
                    assert_eq!((mine, yours), (epoch, old));
                }
                verdict => panic!("{verdict:?}"),
            }
        }
        assert!(node.session.is_up());
        assert_eq!(drain(&mut node), CONTROL_MAX + 96);
    }
}

#[test]
fn strangers_cannot_take_a_session_that_lives() {
    let mut node = sender(3);
    for fresh in [false, true] {
        let mut hello = greeting(Direction::Receives, 9, 0, 0);
        (hello.session, hello.fresh) = ([7; 16], fresh);
        let code = if fresh { RefuseCode::Busy } else { RefuseCode::UnknownSession };
        // However long the peer has been silent.
        match node.session.handle_hello(&hello, &node.memory, 3_600_000 * MS) {
            Verdict::Refuse(refusal) => assert_eq!(refusal.code, code),
            verdict => panic!("{verdict:?}"),
        }
    }
    goes_on_sending(node, 0);
}

#[test]
fn every_frame_out_of_place_is_refused() {
    let frames = |kind: Kind| match kind {
        Kind::Data => data(0, 20, 144),
        Kind::Hello | Kind::Welcome => greeting(Direction::Sends, 1, 0, 0).to_bytes(kind).to_vec(),
        Kind::Refuse => {
            let body = [0; 32];
            [&control(kind, 0)[..], &body].concat()
        }
        kind => control(kind, 144).to_vec(),
    };
    for kind in Kind::ALL {
        let bytes = frames(kind);
        // A sender that is up hears acknowledgements and a fin.
        let mut node = sender(3);
        node.feed(&bytes, 0);
        let fine = matches!(kind, Kind::Ack | Kind::Fin);
        assert_eq!(hung_up(&mut node).is_none(), fine, "{kind} to a sender");
        // A receiver at position 144 hears data, heartbeats and a fin.
        let mut node = receiver();
        (0..3).for_each(|number| node.feed(&data(number, 20, number * 48), 0));
        node.feed(&bytes, 0);
        let fine = matches!(kind, Kind::Data | Kind::Heartbeat | Kind::Fin);
        assert_eq!(hung_up(&mut node).is_none(), fine, "{kind} to a receiver");
        // A connector that waits for its welcome hears nothing else.
        for direction in [Direction::Sends, Direction::Receives] {
            let (end, hung_up) = answered(direction, &bytes);
            match kind {
                Kind::Welcome if direction == Direction::Receives => {
                    assert_eq!((end, hung_up), (None, None));
                }
                Kind::Welcome => assert!(matches!(end, Some(End::Died(Death::Refused(_))))),
                kind => assert!(hung_up.is_some() && end.is_none(), "{kind} before a welcome"),
            }
        }
    }
}

#[test]
fn nothing_follows_a_fin() {
    for bytes in [data(1, 20, 48), control(Kind::Fin, 64).to_vec(), control(Kind::Bye, 0).to_vec()]
    {
        let mut node = receiver();
        node.feed(&data(0, 20, 0), 0);
        node.feed(&control(Kind::Fin, 48), 0);
        assert_eq!(hung_up(&mut node), None);
        node.feed(&bytes, 0);
        violation(&mut node);
    }
    // An answer to a fin that was never sent.
    let mut node = sender(3);
    node.feed(&control(Kind::FinAck, 144), 0);
    assert_eq!(violation(&mut node), Violation::Unexpected(Kind::FinAck));
    // An answer that leaves something out.
    let mut node = sender(3);
    node.session.close();
    assert_eq!(drain(&mut node), HEADER_LEN);
    node.feed(&control(Kind::FinAck, 96), 0);
    let position = Violation::Position { kind: Kind::FinAck, expected: 144, found: 96 };
    assert_eq!(violation(&mut node), position);
    goes_on_sending(node, 0);
}

#[test]
fn a_welcome_for_another_attempt_is_none() {
    for (session, epoch) in [(SESSION, 2), ([0; 16], 1)] {
        let mut welcome = greeting(Direction::Sends, epoch, 0, 0);
        (welcome.session, welcome.fresh) = (session, false);
        let (end, why) = answered(Direction::Receives, &welcome.to_bytes(Kind::Welcome));
        assert_eq!((end, why), (None, Some(HangUp::Violation(Violation::Greeting))));
    }
}

#[test]
fn a_session_that_is_new_is_not_ended_by_a_busy_binder() {
    let mut node = Node::<Sending>::new(config(CONNECTOR, CAPACITY));
    let mut now = 0;
    for attempt in 1..50 {
        loop {
            match node.session.poll_action(now) {
                Action::Dial => break,
                Action::Wait { until_ns: Some(until_ns) } => {
                    assert!(until_ns > now && until_ns - now <= 1000 * MS);
                    now = until_ns;
                }
                action => panic!("{action:?}"),
            }
        }
        node.session.handle_dialed(now);
        assert_eq!(node.session.epoch(), attempt);
        let mut binder = Node::<Receiving>::new(config(Side::Binder, CAPACITY));
        let mut other = greeting(Direction::Sends, 1, 0, 0);
        other.session = [1; 16];
        binder.session.handle_hello(&other, &binder.memory, now);
        let bytes = node.session.poll_transmit(&node.memory, now).control.to_vec();
        let hello = Greeting::read(Kind::Hello, &bytes).unwrap().unwrap();
        let Verdict::Refuse(refusal) = binder.session.handle_hello(&hello, &binder.memory, now)
        else {
            panic!("two peers on one channel")
        };
        node.feed(&refusal.to_bytes(), now);
        assert_eq!(node.session.poll_action(now), Action::HangUp(HangUp::Refused(refusal)));
        node.session.handle_disconnected(now);
        assert_eq!(node.end(), None);
    }
}

/// Whatever bytes come, in whatever pieces: positions stay in order and nothing panics.
#[test]
fn random_frames_do_no_harm() {
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut receiver = receiver();
        let mut sender = sender(20);
        for _ in 0..60 {
            let kind = rng.range(0, 10) as u8;
            let len = [0, 8, 224, 32, rng.range(0, 3000)][rng.range(0, 4) as usize] as u32;
            let seq = [
                receiver.session.received(),
                sender.session.acknowledged() + 48 * rng.range(0, 4),
                rng.next(),
            ][rng.range(0, 2) as usize];
            let header = Header { len, kind, flags: 0, stream: 0, seq };
            let mut bytes = header.to_bytes().to_vec();
            bytes.resize(rng.range(0, 400) as usize, 5);
            let room = receiver.room();
            receiver.feed(&bytes[..bytes.len().min(room)], 0);
            sender.feed(&bytes, 0);
            receiver.check();
            sender.check();
            if rng.one_in(3) {
                // Whatever was received is released; what it says is not looked at here.
                receiver.session.handle_released(receiver.session.received());
            }
            for epoch in [receiver.session.epoch() + 1] {
                if hung_up(&mut receiver).is_some() {
                    receiver.session.handle_disconnected(0);
                    let hello = greeting(Direction::Sends, epoch, 0, 0);
                    receiver.session.handle_hello(&hello, &receiver.memory, 0);
                }
            }
            if hung_up(&mut sender).is_some() {
                sender.session.handle_disconnected(0);
                let at = sender.session.acknowledged();
                let hello = greeting(Direction::Receives, sender.session.epoch() + 1, at, at);
                sender.session.handle_hello(&hello, &sender.memory, 0);
            }
            drain(&mut receiver);
            drain(&mut sender);
        }
        let left = sender.session.unacknowledged(&sender.memory).messages;
        assert_eq!(left, 20 - sender.session.acknowledged() / 48);
    }
}

#[test]
fn a_session_needs_a_name_and_a_ring() {
    for (name, capacity) in [("", 4096), ("ticks", 0), ("ticks", 5000), ("ticks", 1 << 33)] {
        let mut config = config(Side::Binder, capacity);
        config.name = Name::new(name).unwrap();
        let error = Session::<Sending>::new(config).unwrap_err().to_string();
        assert!(error.contains(if name.is_empty() { "name" } else { "`capacity`" }), "{error}");
    }
    assert!(Name::new(&"x".repeat(129)).is_none());
}

#[test]
fn the_least_pause_between_attempts_is_no_longer_than_the_most() {
    let mut config = config(CONNECTOR, CAPACITY);
    (config.timing.retry_min_ns, config.timing.retry_max_ns) = (2 * MS, MS);
    let error = Session::<Sending>::new(config.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOption);
    let text = error.to_string();
    assert!(text.contains("retry_min_ns=2000000"), "{text}");
    assert!(text.contains("retry_max_ns=1000000"), "{text}");
    config.timing.retry_min_ns = MS;
    assert!(Session::<Sending>::new(config).is_ok());
}

#[test]
fn what_is_done_again_is_done_after_a_pause() {
    type Set = fn(&mut Timing, u64);
    let pauses: [(&str, Set); 2] = [
        ("retry_min_ns", |timing, ns| timing.retry_min_ns = ns),
        ("heartbeat_ns", |timing, ns| timing.heartbeat_ns = ns),
    ];
    for (name, set) in pauses {
        for (ns, is_good) in [(0, false), (MS - 1, false), (MS, true), (1000 * MS, true)] {
            let mut config = config(CONNECTOR, CAPACITY);
            set(&mut config.timing, ns);
            match Session::<Sending>::new(config) {
                Ok(_) => assert!(is_good, "{name}={ns}"),
                Err(error) => {
                    assert!(!is_good && error.kind() == ErrorKind::BadOption, "{error}");
                    assert!(error.to_string().contains(&format!("{name}={ns} ")), "{error}");
                }
            }
        }
    }
}
