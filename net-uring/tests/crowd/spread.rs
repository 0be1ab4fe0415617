//! One bound sender to many receivers: a work queue, and a broadcast.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use ringway_net::frame::{self, CONTROL_MAX, Header, frame_len};
use ringway_net::session::{Direction, Greeting, Name};
use ringway_net::{
    ErrorKind, Kind, NetReceiver, NetSender, NotClosed, Options, Overflow, PeerChange, RecvError,
    SendError, Side,
};

use super::support::{another, changes, next, one, read, send};
use ringway_testing::peer::PeerProcess;
use ringway_testing::{PATIENCE, wait_until};

/// A bound sender, and its port.
fn bound(options: &Options) -> (NetSender, u16) {
    let tx = NetSender::open(options).unwrap();
    let port = tx.local_addr().unwrap().port();
    (tx, port)
}

/// A receiver that has come.
fn joined(tx: &mut NetSender, port: u16) -> NetReceiver {
    let mut rx = NetReceiver::open(&another(port)).unwrap();
    wait_until("a receiver to come", || {
        tx.flush().unwrap();
        assert!(matches!(rx.try_recv().err(), Some(RecvError::Empty)));
        rx.peer().is_some()
    });
    rx
}

fn broadcast(overflow: Overflow) -> Options {
    Options { kind: Kind::Broadcast, overflow, ..one() }
}

/// Sends, for as long as it takes, calling `each` while there is no room.
fn send_and(tx: &mut NetSender, index: u64, mut each: impl FnMut(&mut NetSender)) {
    let start = Instant::now();
    loop {
        match tx.try_claim(16) {
            Ok(mut claim) => {
                claim.copy_from_slice(&super::support::body(0, index));
                return claim.commit().unwrap();
            }
            Err(SendError::Full { .. }) => each(tx),
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < PATIENCE, "no room for {index}: {:?}", tx.stats());
    }
}

/// What workers say of the messages they have released: how often each, and how often it was flagged.
#[derive(Default)]
struct Done(BTreeMap<u64, (u32, u32)>);

impl Done {
    /// Takes in what a worker has said so far.
    fn hear(&mut self, worker: &mut PeerProcess) {
        while let Some(line) = worker.line_now() {
            let (index, again) = line.split_once(' ').unwrap();
            let entry = self.0.entry(index.parse().unwrap()).or_default();
            entry.0 += 1;
            entry.1 += u32::from(again == "again");
        }
    }

    /// Each was done, and again only if it was flagged.
    fn check(&self, count: u64) {
        assert!(self.0.keys().copied().eq(0..count), "{} of {count}", self.0.len());
        for (index, (times, again)) in &self.0 {
            assert!(*times <= again + 1, "message {index}: {times} times, {again} of them flagged");
        }
    }
}

#[test]
fn each_message_goes_to_one_receiver() {
    let (mut tx, port) = bound(&one());
    let mut receivers: Vec<NetReceiver> = (0..3).map(|_| joined(&mut tx, port)).collect();
    let mut heard = [0_u64; 3];
    let mut seen = vec![0; 3000];
    let mut take = |receivers: &mut Vec<NetReceiver>| {
        for (rx, heard) in receivers.iter_mut().zip(&mut heard) {
            while let Ok(message) = rx.try_recv() {
                assert!(!message.redelivered());
                seen[read(&message).1 as usize] += 1;
                *heard += 1;
            }
        }
        heard.iter().sum::<u64>()
    };
    for index in 0..3000 {
        send_and(&mut tx, index, |_| {
            take(&mut receivers);
        });
    }
    wait_until("all to arrive", || {
        tx.flush().unwrap();
        take(&mut receivers) == 3000
    });
    assert_eq!(seen, [1; 3000]);
    // In turns, while they are equally quick.
    assert!(heard.iter().all(|count| *count > 100), "{heard:?}");
    wait_until("all to be released", || {
        tx.flush().unwrap();
        receivers.iter_mut().for_each(|rx| assert!(rx.try_recv().is_err()));
        tx.unacknowledged().messages == 0
    });
    let stats = tx.stats();
    assert_eq!((stats.messages, stats.released, stats.lost), (3000, 3000, 0));
    let peers = tx.peers();
    assert_eq!((peers.present.len(), changes(&peers)), (3, (3, 0, 0)));
}

#[test]
fn what_a_killed_receiver_had_goes_to_another_flagged() {
    const COUNT: u64 = 20_000;
    let (mut tx, port) = bound(&one());
    let port = port.to_string();
    let mut first = PeerProcess::start("work", &[&port]);
    let mut second = PeerProcess::start("work", &[&port]);
    // Takes, and is busy with it for ever.
    let mut stuck = PeerProcess::start("hoard", &[&port]);
    let mut sent = 0;
    let mut done = Done::default();
    let mut step = |tx: &mut NetSender, first: &mut PeerProcess, second: &mut PeerProcess| {
        if sent < COUNT {
            send_and(tx, sent, |_| {});
            sent += 1;
        } else {
            tx.flush().unwrap();
        }
        done.hear(first);
        done.hear(second);
        (sent, done.0.len() as u64)
    };
    let start = Instant::now();
    while step(&mut tx, &mut first, &mut second).0 < 5000 {
        assert!(start.elapsed() < PATIENCE, "{:?}", tx.stats());
    }
    stuck.expect("holds");
    first.kill();
    stuck.kill();
    while step(&mut tx, &mut first, &mut second).1 < COUNT {
        assert!(start.elapsed() < 2 * PATIENCE, "{:?} {:?}", tx.stats(), tx.peers());
    }
    done.check(COUNT);
    let again: u32 = done.0.values().map(|(_, again)| again).sum();
    assert!(again > 0, "the one that held some was killed");
    let peers = tx.peers();
    assert_eq!((peers.present.len(), changes(&peers)), (1, (3, 0, 2)));
    wait_until("all to be released", || {
        tx.flush().unwrap();
        tx.unacknowledged().messages == 0
    });
    assert_eq!((tx.stats().released, tx.stats().lost), (COUNT, 0));
    // It ends by itself then.
    tx.close(PATIENCE).unwrap();
}

#[test]
fn a_receiver_that_never_releases_holds_its_credit_and_no_more() {
    let (mut tx, port) = bound(&one());
    let mut hoards = joined(&mut tx, port);
    let mut works = joined(&mut tx, port);
    let mut heard = 0;
    for index in 0..5000 {
        send_and(&mut tx, index, |_| {
            while works.try_recv().is_ok_and(|_| true) {
                heard += 1;
            }
        });
        // It looks, and so takes what has come, and gives nothing back.
        if let Ok(message) = hoards.try_recv() {
            std::mem::forget(message);
        }
    }
    // A window of 4 KiB less 256, in frames of 32 bytes.
    let credit = (4096 - 256) / 32;
    wait_until("all the others to be done", || {
        tx.flush().unwrap();
        while works.try_recv().is_ok() {
            heard += 1;
        }
        heard == 5000 - credit && tx.unacknowledged().messages == credit
    });
    // It is the one that a close waits for, and then it is told how much.
    let error = tx.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!((error.messages, error.why), (credit, NotClosed::Timeout));
}

#[test]
fn a_close_that_nobody_came_for_is_a_matter_of_time() {
    let (mut tx, _port) = bound(&one());
    for index in 0..3 {
        send_and(&mut tx, index, |_| {});
    }
    let error = tx.close(Duration::from_millis(1)).unwrap_err();
    assert_eq!((error.messages, error.why), (3, NotClosed::Timeout));
}

#[test]
fn what_a_receiver_leaves_when_it_closes_goes_to_another() {
    let (mut tx, port) = bound(&one());
    let mut first = joined(&mut tx, port);
    for index in 0..50 {
        send(&mut tx, 0, index).unwrap();
    }
    for index in 0..10 {
        assert_eq!(next(&mut first), (0, index));
    }
    let leaving = std::thread::spawn(move || first.close(PATIENCE));
    wait_until("it to leave", || {
        tx.flush().unwrap();
        leaving.is_finished()
    });
    assert!(leaving.join().unwrap());
    let mut second = joined_with_messages(&mut tx, port);
    for index in 10..50 {
        let mut flagged = None;
        wait_until("what it left", || {
            tx.flush().unwrap();
            flagged =
                second.try_recv().ok().map(|message| (read(&message).1, message.redelivered()));
            flagged.is_some()
        });
        assert_eq!(flagged, Some((index, true)));
    }
    send(&mut tx, 0, 50).unwrap();
    let message = second.recv_timeout(PATIENCE).unwrap();
    assert_eq!((read(&message), message.redelivered()), ((0, 50), false));
}

/// A receiver that has come and says what the test says.
fn scripted(tx: &mut NetSender, options: &Options) -> TcpStream {
    let hello = Greeting {
        direction: Direction::Receives,
        format: options.format,
        session: [1; 16],
        epoch: 1,
        schema: options.schema,
        position: 0,
        released: 0,
        window: options.capacity - 256,
        body_max: 0,
        fresh: true,
        name: Name::new(&options.channel).unwrap(),
    };
    let mut stream = TcpStream::connect(tx.local_addr().unwrap()).unwrap();
    stream.write_all(&hello.to_bytes(frame::Kind::Hello)).unwrap();
    stream.set_nonblocking(true).unwrap();
    wait_until("a scripted receiver to come", || {
        tx.flush().unwrap();
        tx.peers().present.len() == 1
    });
    stream
}

#[test]
fn who_releases_a_part_of_a_message_leaves_all_of_it_to_another() {
    // What the part looks like: a message that is longer than any, and one that ends behind the last.
    for len in [600_000, 500_000] {
        let options = Options { capacity: 1 << 20, ..one() };
        let (mut tx, port) = bound(&options);
        let mut hostile = scripted(&mut tx, &options);
        let mut job = [0; 64];
        job[16..32].copy_from_slice(&Header::data(len, 32).to_bytes());
        let mut claim = tx.try_claim(job.len()).unwrap();
        claim.copy_from_slice(&job);
        claim.commit().unwrap();
        send(&mut tx, 0, 1).unwrap();
        let (mut bytes, mut here) = ([0; 4096], 0);
        wait_until("both jobs to come", || {
            tx.flush().unwrap();
            here += hostile.read(&mut bytes[here..]).unwrap_or(0);
            here == CONTROL_MAX + (frame_len(64) + frame_len(16)) as usize
        });
        let mut rx = NetReceiver::open(&Options { port, side: Side::Connect, ..options }).unwrap();
        wait_until("another receiver to come", || {
            tx.flush().unwrap();
            assert!(matches!(rx.try_recv().err(), Some(RecvError::Empty)));
            rx.peer().is_some()
        });
        let words = [(frame::Kind::Fin, 32), (frame::Kind::Bye, 0)];
        let words = words.map(|(kind, seq)| Header::control(kind, seq).to_bytes());
        hostile.write_all(words.as_flattened()).unwrap();
        hostile.shutdown(Shutdown::Write).unwrap();
        for body in [&job[..], &super::support::body(0, 1)] {
            wait_until("what it had", || {
                tx.flush().unwrap();
                let Ok(message) = rx.try_recv() else { return false };
                assert_eq!((&*message, message.redelivered()), (body, true));
                true
            });
        }
        assert_eq!((tx.stats().violations, changes(&tx.peers())), (1, (1, 0, 1)));
    }
}

/// As [`joined`], where something waits for it.
fn joined_with_messages(tx: &mut NetSender, port: u16) -> NetReceiver {
    let mut rx = NetReceiver::open(&another(port)).unwrap();
    wait_until("a receiver to come", || {
        tx.flush().unwrap();
        std::mem::forget(rx.try_recv());
        rx.peer().is_some()
    });
    rx
}

#[test]
fn messages_wait_for_the_first_receiver() {
    let (mut tx, port) = bound(&one());
    let mut sent = 0;
    let full = loop {
        match tx.try_claim(16) {
            Ok(mut claim) => {
                claim.copy_from_slice(&super::support::body(0, sent));
                claim.commit().unwrap();
                sent += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(full, SendError::Full { peer: None });
    let mut rx = joined_with_messages(&mut tx, port);
    for index in 0..sent {
        wait_until("a message", || {
            tx.flush().unwrap();
            rx.try_recv().is_ok_and(|message| read(&message) == (0, index))
        });
    }
}

#[test]
fn everybody_gets_every_message_of_a_broadcast() {
    let (mut tx, port) = bound(&broadcast(Overflow::Block));
    // For nobody: nobody gets it, and nobody is waited for.
    for index in 0..1000 {
        send(&mut tx, 0, index).unwrap();
    }
    assert_eq!(tx.unacknowledged().messages, 0);
    let mut receivers: Vec<NetReceiver> = (0..3).map(|_| joined(&mut tx, port)).collect();
    let mut due = [1000; 3];
    let mut take = |receivers: &mut Vec<NetReceiver>| {
        for (rx, due) in receivers.iter_mut().zip(&mut due) {
            while let Ok(message) = rx.try_recv() {
                assert_eq!(read(&message), (0, *due));
                *due += 1;
            }
        }
        due
    };
    for index in 1000..5000 {
        send_and(&mut tx, index, |_| {
            take(&mut receivers);
        });
    }
    wait_until("all to arrive everywhere", || {
        tx.flush().unwrap();
        take(&mut receivers) == [5000; 3]
    });
    let closing = std::thread::spawn(move || tx.close(PATIENCE));
    for rx in &mut receivers {
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    }
    wait_until("the sender to close", || {
        receivers.iter_mut().for_each(|rx| assert!(rx.try_recv().is_err()));
        closing.is_finished()
    });
    closing.join().unwrap().unwrap();
}

#[test]
fn a_blocking_broadcast_names_the_slow_one_and_goes_on_when_it_is_killed() {
    let (mut tx, port) = bound(&broadcast(Overflow::Block));
    let mut quick = joined(&mut tx, port);
    let mut slow = PeerProcess::start("idle", &[&port.to_string()]);
    wait_until("the slow one to come", || {
        tx.flush().unwrap();
        slow.line_now().is_some()
    });
    let mut peers = tx.peers();
    assert_eq!(changes(&peers), (2, 0, 0));
    let named = peers.present.pop().unwrap();
    let (mut sent, mut heard) = (0, 0);
    let mut take = |rx: &mut NetReceiver| {
        while let Ok(message) = rx.try_recv() {
            assert_eq!(read(&message), (0, heard));
            heard += 1;
        }
        heard
    };
    // The quick one has taken everything, and there is no room.
    let error = loop {
        take(&mut quick);
        match tx.claim_timeout(16, Duration::from_millis(20)) {
            Ok(mut claim) => {
                claim.copy_from_slice(&super::support::body(0, sent));
                claim.commit().unwrap();
                sent += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Timeout { peer: Some(named) });
    assert!(error.to_string().contains(&named.to_string()), "{error}");
    slow.kill();
    let until = sent + 1000;
    while sent < until {
        send_and(&mut tx, sent, |_| {
            take(&mut quick);
        });
        sent += 1;
    }
    assert_eq!(changes(&tx.peers()), (0, 0, 1));
    wait_until("all to arrive", || {
        tx.flush().unwrap();
        take(&mut quick) == sent
    });
}

#[test]
fn an_overwriting_broadcast_waits_for_nobody_and_tells_what_was_missed() {
    const COUNT: u64 = 5000;
    let (mut tx, port) = bound(&broadcast(Overflow::Overwrite));
    let mut quick = joined(&mut tx, port);
    let mut slow = joined(&mut tx, port);
    let (mut heard, mut missed_quick) = (0, 0);
    for index in 0..COUNT {
        // Never without room.
        let mut claim = tx.try_claim(16).unwrap();
        claim.copy_from_slice(&super::support::body(0, index));
        claim.commit().unwrap();
        // It takes what there is at once, so it has room for it; when it may know of it, is another matter.
        loop {
            match quick.try_recv() {
                Ok(message) => {
                    assert_eq!(read(&message).1, heard + missed_quick);
                    heard += 1;
                }
                Err(RecvError::Lagged { missed }) => missed_quick += missed,
                Err(error) => break assert_eq!(error, RecvError::Empty),
            }
        }
    }
    assert!(heard > 0);
    // The slow one gets what its rings held, the gap, and then what is sent next.
    let (mut got, mut missed, mut gaps) = (0, 0, 0);
    wait_until("everything to be told", || {
        tx.flush().unwrap();
        let _ = quick.try_recv().map(std::mem::forget);
        match slow.try_recv() {
            Ok(message) => {
                assert_eq!(read(&message).1, got + missed);
                assert_eq!(message.sequence(), got + missed);
                got += 1;
            }
            Err(RecvError::Lagged { missed: count }) => {
                missed += count;
                gaps += 1;
            }
            Err(error) => assert_eq!(error, RecvError::Empty),
        }
        got + missed == COUNT
    });
    assert!(gaps >= 1 && missed > COUNT / 2 && got >= 100, "{got}, {missed} in {gaps}");
    send(&mut tx, 0, COUNT).unwrap();
    let mut last = None;
    wait_until("one more", || {
        tx.flush().unwrap();
        last = slow.try_recv().ok().map(|message| read(&message).1);
        last.is_some()
    });
    assert_eq!(last, Some(COUNT));
}

#[test]
fn what_was_missed_at_the_end_is_told_before_it() {
    const COUNT: u64 = 5000;
    for closes in [true, false] {
        let options = Options { linger: PATIENCE, ..broadcast(Overflow::Overwrite) };
        let (mut tx, port) = bound(&options);
        let mut slow = joined(&mut tx, port);
        for index in 0..COUNT {
            send(&mut tx, 0, index).unwrap();
        }
        let ending = std::thread::spawn(move || {
            if closes {
                tx.close(PATIENCE).unwrap()
            }
        });
        let (mut got, mut missed) = (0, 0);
        let end = loop {
            match slow.recv_timeout(PATIENCE) {
                Ok(message) => {
                    assert_eq!(read(&message).1, got + missed);
                    got += 1;
                }
                Err(RecvError::Lagged { missed: count }) => missed += count,
                Err(error) => break error,
            }
        };
        assert_eq!((end, got + missed), (RecvError::Disconnected, COUNT), "{missed} missed");
        assert!(missed > COUNT / 2);
        wait_until("the sender to end", || {
            assert!(slow.try_recv().is_err());
            ending.is_finished()
        });
        ending.join().unwrap();
    }
}

#[test]
fn a_stopped_receiver_is_slow_and_not_dead() {
    let (mut tx, port) = bound(&one());
    let mut worker = PeerProcess::start("work", &[&port.to_string()]);
    let mut rx = joined(&mut tx, port);
    // They get the messages in turns, once they are both there.
    wait_until("the worker to come", || {
        tx.flush().unwrap();
        tx.peers().present.len() == 2
    });
    for index in 0..100 {
        send(&mut tx, 0, index).unwrap();
    }
    let mut done = Done::default();
    wait_until("the worker to work", || {
        tx.flush().unwrap();
        done.hear(&mut worker);
        !done.0.is_empty()
    });
    worker.stop();
    for index in 100..200 {
        send(&mut tx, 0, index).unwrap();
    }
    let mut here = 0;
    let start = Instant::now();
    // Well beyond the time after which one without a connection would be given up.
    while start.elapsed() < Duration::from_secs(1) {
        tx.flush().unwrap();
        while let Ok(message) = rx.try_recv() {
            assert!(!message.redelivered(), "it was taken for dead");
            here += 1;
        }
    }
    worker.go_on();
    wait_until("the worker to be done", || {
        tx.flush().unwrap();
        while let Ok(message) = rx.try_recv() {
            assert!(!message.redelivered());
            here += 1;
        }
        done.hear(&mut worker);
        done.0.len() + here == 200
    });
    assert!(done.0.values().all(|times| *times == (1, 0)));
    let peers = tx.peers();
    assert_eq!((peers.present.len(), changes(&peers)), (2, (0, 0, 0)));
    worker.kill();
}

#[test]
fn a_drop_does_not_linger_for_the_dead() {
    // A publisher whose only subscriber is killed with messages that it has not released, and with a queue
    // behind that nobody can be given any more.
    for overflow in [Overflow::Block, Overflow::Overwrite] {
        let mut options = broadcast(overflow);
        options.linger = Duration::from_secs(3600);
        options.timing.resume_ns = 3_600_000_000_000;
        let (mut tx, port) = bound(&options);
        let mut idle = PeerProcess::start("idle", &[&port.to_string()]);
        wait_until("the subscriber to come", || {
            tx.flush().unwrap();
            tx.peers().present.len() == 1
        });
        idle.expect("here");
        for index in 0..100 {
            send(&mut tx, 0, index).unwrap();
        }
        idle.kill();
        let dropped = std::thread::spawn(move || drop(tx));
        wait_until("the drop", || dropped.is_finished());
        dropped.join().unwrap();
    }
}

#[test]
fn what_was_before_a_drop_is_no_time_without_a_connection() {
    const LASTING: Duration = Duration::from_millis(200);
    // One has something and is waited for, or there is more in the queue, which nobody can be given.
    for (options, count) in [(one(), 1), (broadcast(Overflow::Block), u64::MAX)] {
        let mut options = Options { linger: PATIENCE, ..options };
        options.timing.takeover_ns = LASTING.as_nanos() as u64;
        options.timing.resume_ns = 3_600_000_000_000;
        let (mut tx, _) = bound(&options);
        let stream = scripted(&mut tx, &options);
        for index in 0..count {
            let Ok(mut claim) = tx.try_claim(16) else { break };
            claim.copy_from_slice(&super::support::body(0, index));
            claim.commit().unwrap();
        }
        drop(stream);
        wait_until("the break to be seen", || {
            tx.flush().unwrap();
            tx.peers().events.iter().any(|event| event.change == PeerChange::Disconnected)
        });
        // The program is elsewhere, for longer than a peer is waited for.
        std::thread::sleep(2 * LASTING);
        let start = Instant::now();
        drop(tx);
        // By a clock that lags by some milliseconds.
        assert!((LASTING / 2..PATIENCE).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}

#[test]
fn a_receiver_that_is_there_is_not_given_up_however_short_the_time() {
    let mut options = one();
    options.timing.takeover_ns = 0;
    let (mut tx, port) = bound(&options);
    let mut receivers = [joined(&mut tx, port), joined(&mut tx, port)];
    for index in 0..50 {
        send(&mut tx, 0, index).unwrap();
    }
    let mut seen = [0; 50];
    wait_until("all to be released", || {
        tx.flush().unwrap();
        for rx in &mut receivers {
            while let Ok(message) = rx.try_recv() {
                assert!(!message.redelivered(), "{}", read(&message).1);
                seen[read(&message).1 as usize] += 1;
            }
        }
        tx.unacknowledged().messages == 0
    });
    assert_eq!((seen, changes(&tx.peers())), ([1; 50], (2, 0, 0)));
}

#[test]
fn who_may_bind_a_broadcast_is_told() {
    let binds = Options { side: Side::Bind, ..broadcast(Overflow::Block) };
    let error = NetReceiver::open(&binds).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOption);
    assert!(error.to_string().contains("the sender binds"), "{error}");
    let connects = Options { side: Side::Connect, port: 4321, ..broadcast(Overflow::Block) };
    assert!(NetSender::open(&connects).is_err());
    // Nothing need be said.
    let by_address = Options { side: Side::ByAddress, ..broadcast(Overflow::Block) };
    let (mut tx, port) = bound(&by_address);
    let mut rx = NetReceiver::open(&Options { port, ..by_address }).unwrap();
    wait_until("the two ends to meet", || {
        tx.flush().unwrap();
        assert!(rx.try_recv().is_err());
        rx.peer().is_some()
    });
}
