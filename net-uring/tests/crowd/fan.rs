//! Many senders to one bound receiver.

use std::collections::HashMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use ringway_net::session::{Death, HangUp, RefuseCode};
use ringway_net::{
    Backend, ErrorKind, Io, Kind, NetReceiver, NetSender, Options, PeerChange, RecvError, Side,
    Trouble,
};

use super::support::{another, changes, drain, has_descriptors, next, one, send};
use ringway_testing::peer::PeerProcess;
use ringway_testing::{PATIENCE, wait_until};

/// A bound receiver, and its port.
fn bound(options: &Options) -> (NetReceiver, u16) {
    let rx = NetReceiver::open(options).unwrap();
    let port = rx.local_addr().unwrap().port();
    (rx, port)
}

#[test]
fn all_arrive_each_senders_in_order_and_everybody_is_told_of() {
    let (mut rx, port) = bound(&one());
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    let senders: Vec<_> = (0..8)
        .map(|who| {
            std::thread::spawn(move || {
                let mut tx = NetSender::open(&another(port)).unwrap();
                for index in 0..2000 {
                    send(&mut tx, who, index).unwrap();
                }
                tx.close(PATIENCE).unwrap();
            })
        })
        .collect();
    let mut due = [0; 8];
    while due.iter().sum::<u64>() < 8 * 2000 {
        let (who, index) = next(&mut rx);
        assert_eq!(index, due[who as usize], "sender {who}");
        due[who as usize] += 1;
    }
    // Their ends are events, and nobody is told that the channel has ended.
    let (mut joined, mut left) = (0, 0);
    wait_until("all to leave", || {
        assert!(matches!(rx.try_recv().err(), Some(RecvError::Empty)));
        let peers = rx.peers();
        let (came, went, lost) = changes(&peers);
        (joined, left) = (joined + came, left + went);
        assert_eq!((lost, peers.forgotten), (0, 0));
        left == 8 && peers.present.is_empty()
    });
    assert_eq!(joined, 8);
    wait_until("all to have closed", || {
        assert!(matches!(rx.try_recv().err(), Some(RecvError::Empty)));
        senders.iter().all(std::thread::JoinHandle::is_finished)
    });
    for sender in senders {
        sender.join().unwrap();
    }
    let stats = rx.stats();
    assert_eq!((stats.messages, stats.connections, stats.violations), (16_000, 8, 0));
}

#[test]
fn a_close_does_not_wait_for_senders_that_have_closed_and_left() {
    let mut options = one();
    options.timing.resume_ns = 3_600_000_000_000;
    let (mut rx, port) = bound(&options);
    let mut senders: Vec<_> = (0..3).map(|_| NetSender::open(&another(port)).unwrap()).collect();
    for tx in &mut senders {
        wait_until("the handshake", || {
            assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
            tx.flush().unwrap();
            tx.peer().is_some()
        });
    }
    // Nobody reads what two of them leave behind.
    for (who, mut tx) in (0..).zip(senders).skip(1) {
        send(&mut tx, who, 0).unwrap();
    }
    assert!(rx.close(PATIENCE));
}

#[test]
fn of_a_thousand_one_floods_and_starves_nobody() {
    const QUIET: usize = 999;
    if !has_descriptors(2 * QUIET as u64) {
        println!("skipped: a process may not have {} descriptors here", 2 * QUIET);
        return;
    }
    let (mut rx, port) = bound(&one());
    let port = port.to_string();
    let mut quiet = PeerProcess::start("crowd", &[&port, &QUIET.to_string()]);
    // All have come, and been heard once.
    let mut heard = 0;
    while heard < QUIET {
        assert_eq!(next(&mut rx).1, 0);
        heard += 1;
    }
    while rx.peers().present.len() < QUIET {
        let _ = rx.try_recv().err();
    }
    quiet.expect("here");
    let mut flood = PeerProcess::start("flood", &[&port, "5000"]);
    let mut flooded = 0;
    while flooded < 10_000 {
        assert_eq!(next(&mut rx), (5000, flooded));
        flooded += 1;
    }
    flood.expect("floods");
    // Each of the others says one more word, while nobody reads: it waits in this host's buffers.
    quiet.tell("go on");
    quiet.expect("sent");
    // A turn is what the ring holds at most, here: 4 KiB in frames of 32 bytes.
    let turn = 4096 / 32;
    let (mut heard, mut run, mut longest) = (0, 0, 0);
    let mut turns = 0;
    while heard < QUIET {
        match next(&mut rx) {
            (5000, index) => {
                assert_eq!(index, flooded);
                flooded += 1;
                run += 1;
                longest = longest.max(run);
            }
            (_, index) => {
                assert_eq!(index, 1);
                heard += 1;
                turns += u64::from(run > 0);
                run = 0;
            }
        }
    }
    // What the flooder had ready when the first of them was seen, and then a turn for everybody's.
    assert!(longest <= 3 * turn, "{longest} messages of the flooder's in a row");
    assert!(turns < QUIET as u64, "{turns}");
    flood.kill();
    quiet.tell("close");
    let mut said = None;
    let start = Instant::now();
    while said.is_none() {
        drain(&mut rx, |who, _| assert_eq!(who, 5000));
        said = quiet.line_now();
        assert!(start.elapsed() < PATIENCE, "{:?}", rx.stats());
    }
    assert_eq!(said.as_deref(), Some("closed"));
    let stats = rx.stats();
    assert_eq!((stats.connections, stats.violations), (QUIET as u64 + 1, 0));
}

#[test]
fn a_killed_sender_is_an_event_and_the_others_go_on() {
    let (mut rx, port) = bound(&one());
    let port = port.to_string();
    let mut first = PeerProcess::start("flood", &[&port, "1"]);
    let mut second = PeerProcess::start("flood", &[&port, "2"]);
    let mut due = HashMap::from([(1, 0), (2, 0)]);
    let mut take = |rx: &mut NetReceiver| {
        let (who, index) = next(rx);
        let due = due.get_mut(&who).unwrap();
        assert_eq!(index, *due, "sender {who}");
        *due += 1;
        (who, index)
    };
    // Whichever of them comes first.
    let (mut of_first, mut of_second) = (0, 0);
    while of_first < 5000 || of_second < 10_000 {
        match take(&mut rx) {
            (1, index) => of_first = index,
            (_, index) => of_second = index,
        }
    }
    first.kill();
    let (mut lost, start) = (0, Instant::now());
    while lost == 0 {
        take(&mut rx);
        lost += changes(&rx.peers()).2;
        assert!(start.elapsed() < PATIENCE, "{:?}", rx.stats());
    }
    assert_eq!(rx.peers().present.len(), 1);
    for _ in 0..10_000 {
        assert_eq!(take(&mut rx).0, 2);
    }
    second.kill();
}

/// What has become of the one peer, when that is so much.
fn told(rx: &mut NetReceiver, count: usize) -> Vec<PeerChange> {
    let mut told = Vec::new();
    wait_until("events of a peer", || {
        while rx.try_recv().is_ok() {}
        told.extend(rx.peers().events.into_iter().map(|event| event.change));
        told.len() >= count
    });
    told
}

#[test]
fn a_killed_sender_is_disconnected_at_once_and_lost_at_the_deadline() {
    // Nobody waits for this deadline, or for its peer to be replaced.
    let mut options = one();
    options.timing.resume_ns = 3_600_000_000_000;
    options.timing.takeover_ns = 3_600_000_000_000;
    let (mut rx, port) = bound(&options);
    let mut sender = PeerProcess::start("flood", &[&port.to_string(), "1"]);
    assert_eq!(told(&mut rx, 1), [PeerChange::Joined]);
    sender.expect("floods");
    sender.kill();
    assert_eq!(told(&mut rx, 1), [PeerChange::Disconnected]);
    // It may come back still.
    assert_eq!(rx.peers().present.len(), 1);
    drop(rx);

    let mut options = one();
    options.timing.resume_ns = 300_000_000;
    let (mut rx, port) = bound(&options);
    let mut sender = PeerProcess::start("flood", &[&port.to_string(), "1"]);
    sender.expect("floods");
    sender.kill();
    let death = Death::ResumeDeadline;
    assert_eq!(
        told(&mut rx, 3),
        [PeerChange::Joined, PeerChange::Disconnected, PeerChange::Lost { death }]
    );
    assert!(rx.peers().present.is_empty());
}

#[test]
fn a_sender_that_comes_back_is_told_of_as_well() {
    let (mut rx, port) = bound(&one());
    // Between the two is one who passes on bytes, until told otherwise.
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tx = NetSender::open(&another(door.local_addr().unwrap().port())).unwrap();
    let between = move |door: &TcpListener| {
        let (here, _) = door.accept().unwrap();
        let there = TcpStream::connect(("127.0.0.1", port)).unwrap();
        for (from, to) in [(&here, &there), (&there, &here)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
        [here, there]
    };
    tx.flush().unwrap();
    let streams = between(&door);
    let exchange = |tx: &mut NetSender, rx: &mut NetReceiver, index| {
        send(tx, 1, index).unwrap();
        wait_until("a message", || {
            tx.flush().unwrap();
            rx.try_recv().is_ok_and(|message| super::support::read(&message) == (1, index))
        });
    };
    exchange(&mut tx, &mut rx, 0);
    assert_eq!(told(&mut rx, 1), [PeerChange::Joined]);
    for stream in streams {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(told(&mut rx, 1), [PeerChange::Disconnected]);
    let again = std::thread::spawn(move || (between(&door), door));
    exchange(&mut tx, &mut rx, 1);
    assert_eq!(told(&mut rx, 1), [PeerChange::Reconnected]);
    let (streams, _) = again.join().unwrap();
    // The sender may not have heard that its first connection stood.
    assert_eq!(rx.stats().resumes, 1);
    for stream in streams {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn until_last_tells_the_end_when_the_last_has_left() {
    let (mut rx, port) = bound(&Options { until_last: true, ..one() });
    for round in 0..3 {
        // Nobody is there yet: that is no end.
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        let mut senders: Vec<NetSender> =
            (0..3).map(|_| NetSender::open(&another(port)).unwrap()).collect();
        for (who, tx) in senders.iter_mut().enumerate() {
            send(tx, who as u64, round).unwrap();
        }
        // They leave one by one, in this thread: what they have said is with this host then.
        let leaving = std::thread::spawn(move || drop(senders));
        let mut heard = 0;
        let end = loop {
            match rx.recv_timeout(PATIENCE) {
                Ok(_) => heard += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(end, RecvError::Disconnected);
        assert!((1..=3).contains(&heard), "{heard}");
        leaving.join().unwrap();
        // Those who came late are heard in an end of their own.
        while heard < 3 {
            match rx.recv_timeout(PATIENCE) {
                Ok(_) => heard += 1,
                Err(error) => assert_eq!(error, RecvError::Disconnected),
            }
        }
        wait_until("the channel to be empty", || {
            let _ = rx.try_recv().err();
            rx.peers().present.is_empty()
        });
        while rx.try_recv().is_err_and(|error| error == RecvError::Disconnected) {}
    }
}

#[test]
fn no_more_than_allowed_are_there_at_once() {
    let (mut rx, port) = bound(&Options { peers_max: 2, ..one() });
    let open = || NetSender::open(&another(port)).unwrap();
    let (mut first, mut second, mut third) = (open(), open(), open());
    send(&mut first, 1, 0).unwrap();
    assert_eq!(next(&mut rx), (1, 0));
    send(&mut second, 2, 0).unwrap();
    assert_eq!(next(&mut rx), (2, 0));
    send(&mut third, 3, 0).unwrap();
    wait_until("the third to be told", || {
        let _ = rx.try_recv().err();
        third.flush().unwrap();
        matches!(third.trouble(), Some(Trouble::HangUp(HangUp::Refused(refusal)))
            if refusal.code == RefuseCode::Busy)
    });
    drop(first);
    // It tries again, and its message has not been lost.
    wait_until("the third to get in", || {
        third.flush().unwrap();
        rx.try_recv().is_ok_and(|message| super::support::read(&message) == (3, 0))
    });
    assert_eq!(rx.peers().present.len(), 2);
}

/// Until the next message, of a sender whom somebody else has to call.
fn next_of(tx: &mut NetSender, rx: &mut NetReceiver) -> (u64, u64) {
    let mut next = None;
    wait_until("a message", || {
        tx.flush().unwrap();
        next = rx.try_recv().ok().map(|message| super::support::read(&message));
        next.is_some()
    });
    next.unwrap()
}

#[test]
fn who_has_left_without_a_word_more_has_left_its_place() {
    let mut options = Options { peers_max: 1, ..one() };
    options.timing.resume_ns = 3_600_000_000_000;
    // By the time of a take-over; or sooner, as somebody else wants the place.
    for takeover_ns in [1_000_000, 3_600_000_000_000] {
        options.timing.takeover_ns = takeover_ns;
        let (mut rx, port) = bound(&options);
        for who in 0..5 {
            let mut tx = NetSender::open(&another(port)).unwrap();
            send(&mut tx, who, 0).unwrap();
            assert_eq!(next_of(&mut tx, &mut rx), (who, 0));
            // It waits until this host has its last words, and for no answer.
            drop(tx);
        }
        assert_eq!(told(&mut rx, 10), [PeerChange::Joined, PeerChange::Left].repeat(5));
    }
}

#[test]
fn a_killed_sender_makes_room_for_who_comes() {
    let mut options = Options { peers_max: 2, ..one() };
    options.timing.resume_ns = 3_600_000_000_000;
    let (mut rx, port) = bound(&options);
    let mut stays = NetSender::open(&another(port)).unwrap();
    send(&mut stays, 1, 0).unwrap();
    assert_eq!(next_of(&mut stays, &mut rx), (1, 0));
    let mut killed = PeerProcess::start("flood", &[&port.to_string(), "2"]);
    killed.expect("floods");
    killed.kill();
    // It could come back for an hour, and somebody else is there who could not.
    let mut tx = NetSender::open(&another(port)).unwrap();
    send(&mut tx, 3, 0).unwrap();
    let mut of_killed = 0;
    let next = loop {
        match next_of(&mut tx, &mut rx) {
            (2, index) => assert_eq!(index, of_killed),
            next => break next,
        }
        of_killed += 1;
    };
    assert_eq!(next, (3, 0));
    let death = Death::Replaced;
    let mut changes = told(&mut rx, 5);
    let lost = changes.iter().position(|change| *change == PeerChange::Lost { death });
    changes.remove(lost.expect("it is told"));
    let joined = changes.iter().filter(|change| **change == PeerChange::Joined).count();
    assert_eq!((joined, changes.len()), (3, 4), "{changes:?}");
    // Who has a connection stays, however many knock.
    send(&mut stays, 1, 1).unwrap();
    assert_eq!(next_of(&mut stays, &mut rx), (1, 1));
}

#[test]
fn strangers_and_the_silent_cost_nobody_anything() {
    use std::io::Write;
    let (mut rx, port) = bound(&one());
    let mut tx = NetSender::open(&another(port)).unwrap();
    let strangers: Vec<TcpStream> = (0..50)
        .map(|index: u8| {
            let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
            if index.is_multiple_of(2) {
                stranger.write_all(&[index; 400]).unwrap();
            }
            stranger
        })
        .collect();
    for index in 0..100 {
        send(&mut tx, 1, index).unwrap();
        assert_eq!(next(&mut rx), (1, index));
    }
    wait_until("the garbage to be thrown out", || {
        let _ = rx.try_recv().err();
        rx.stats().door.is_some_and(|door| door.garbage == 25)
    });
    assert_eq!(rx.peers().present.len(), 1);
    drop(strangers);
}

#[test]
fn what_the_bound_end_of_many_can_not_have_is_told() {
    let refused = |options: Options, words: &str| {
        let error = NetReceiver::open(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOption);
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(Options { io: Io::Thread, ..one() }, "`io=thread`");
    refused(Options { backend: Backend::Uring, ..one() }, "`backend=uring`");
    refused(Options { side: Side::ByAddress, port: 4321, ..one() }, "side=connect");
    refused(Options { capacity: 5000, ..one() }, "capacity");
    // Of two, nobody is asked which end it is.
    let pair = Options { kind: Kind::Pair, side: Side::ByAddress, ..one() };
    assert!(NetReceiver::open(&pair).is_ok());
}

#[test]
fn a_drop_and_a_close_tell_the_senders() {
    let (mut rx, port) = bound(&one());
    let mut senders: Vec<NetSender> =
        (0..3).map(|_| NetSender::open(&another(port)).unwrap()).collect();
    for (who, tx) in senders.iter_mut().enumerate() {
        send(tx, who as u64, 0).unwrap();
        assert_eq!(next(&mut rx).1, 0);
    }
    let closing = std::thread::spawn(move || rx.close(PATIENCE));
    for tx in &mut senders {
        let mut told = None;
        wait_until("the end of the receiver", || {
            told = tx.flush().err();
            told.is_some()
        });
        assert!(told.unwrap().to_string().contains("closed"));
    }
    drop(senders);
    assert!(closing.join().unwrap());
}
