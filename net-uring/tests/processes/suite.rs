//! The ends in processes of their own, killed and stopped in the middle of a stream. `super::IO` says who
//! moves their bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use ringway_net::session::{Death, Format, RefuseCode, Unacknowledged};
use ringway_net::{
    Io, NetReceiver, NetSender, NotClosed, Options, RecvError, SendError, Side, Stats,
};
use ringway_testing::peer::{PeerProcess, hear, role, say};
use ringway_testing::{PATIENCE, wait_until};

/// What the test harness runs in a peer, which then plays its role.
pub fn play() {
    let Some(words) = role() else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["send", port] => send_for_ever(port.parse().unwrap()),
        ["receive", port] => receive_for_ever(port.parse().unwrap(), Side::Connect),
        ["receive-bound", port] => receive_for_ever(port.parse().unwrap(), Side::Bind),
        ["fork", port] => fork_and_die(port.parse().unwrap()),
        ["exit", port] => read_and_exit(port.parse().unwrap(), Side::Connect),
        ["exit-bound", port] => read_and_exit(port.parse().unwrap(), Side::Bind),
        _ => panic!("no role {words:?}"),
    }
}

const RESUME: Duration = Duration::from_secs(20);

fn options(port: u16, side: Side) -> Options {
    let format = Format { endian: 1, pointer: 4, align: 8 };
    let mut options = Options::new("127.0.0.1", port, "ticks", 7, format);
    options.capacity = 64 << 10;
    options.side = side;
    options.io = super::IO;
    options.timing.resume_ns = RESUME.as_nanos() as u64;
    options
}

fn send(tx: &mut NetSender, index: u64) -> Result<(), SendError> {
    let mut claim = tx.claim_timeout(64, PATIENCE)?;
    for word in claim.chunks_exact_mut(8) {
        word.copy_from_slice(&index.to_le_bytes());
    }
    claim.commit()
}

fn number(message: &[u8]) -> u64 {
    let index = u64::from_le_bytes(*message.first_chunk().unwrap());
    assert!(message.len() == 64 && message.chunks_exact(8).all(|word| word == index.to_le_bytes()));
    index
}

/// Sends numbers until it is killed.
fn send_for_ever(port: u16) {
    let mut tx = NetSender::open(&options(port, Side::Connect)).unwrap();
    say("ready");
    for index in 0.. {
        send(&mut tx, index).unwrap();
    }
}

/// Receives numbers, in order, until it is killed; says how far it got every now and then.
fn receive_for_ever(port: u16, side: Side) {
    let mut rx = NetReceiver::open(&options(port, side)).unwrap();
    for index in 0.. {
        assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), index);
        if index % 1000 == 999 {
            say(index + 1);
        }
    }
}

/// Of a fork: whether a call of any kind on the parent's end does nothing, and says that. Those that tell
/// something must neither wait for the parent's thread nor write to what the child has at the numbers of
/// descriptors that are not its own.
fn does_nothing_with(tx: &mut NetSender) -> bool {
    let bells = [(); 16].map(|()| {
        // SAFETY: no pointers.
        unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) }
    });
    let refused = matches!(tx.try_claim(8).err(), Some(SendError::Forked))
        && tx.flush() == Err(SendError::Forked);
    let silent = tx.stats() == Stats::default()
        && tx.unacknowledged() == Unacknowledged::default()
        && (tx.local_addr(), tx.trouble()) == (None, None);
    // Whom it was with is known in a fork, too, where no thread has to be asked.
    let told = tx.peers().present.len();
    let quiet = bells.into_iter().all(|bell| {
        let mut count = 0_u64;
        // SAFETY: eight bytes of a live value.
        bell >= 0 && unsafe { libc::read(bell, (&raw mut count).cast(), 8) } < 0
    });
    refused && silent && quiet && told == usize::from(super::IO == Io::Inline)
}

/// Sends one message, forks a child that lives on and tries to use the end, and is then killed.
fn fork_and_die(port: u16) {
    let mut tx = NetSender::open(&options(port, Side::Connect)).unwrap();
    send(&mut tx, 0).unwrap();
    while tx.unacknowledged().messages > 0 {
        tx.flush().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let (mut news, mut tell) = std::io::pipe().unwrap();
    // SAFETY: the child makes no use of what other threads of the harness may hold.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no pointers. Should it wait for ever, nobody else ends it.
        unsafe { libc::alarm(60) };
        let well = does_nothing_with(&mut tx);
        let closed = tx.close(Duration::ZERO);
        let well = well && closed.is_err_and(|error| error.why == NotClosed::Forked);
        let told = tell.write_all(&[u8::from(well)]).is_ok();
        // SAFETY: no pointers. It outlives its parent, as the test watches; then it ends by itself.
        unsafe {
            if !well || !told {
                libc::_exit(1);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
            for _ in 0..200 {
                libc::usleep(100_000);
                if libc::getppid() == 1 {
                    libc::usleep(500_000);
                    libc::_exit(0);
                }
            }
            libc::_exit(0);
        }
    }
    drop(tell);
    let mut well = [0];
    news.read_exact(&mut well).unwrap();
    assert_eq!(well, [1], "the child used what is its parent's");
    // The child closed its copies and did not end the connection.
    send(&mut tx, 1).unwrap();
    say("sent");
    // Until it is killed.
    hear();
}

/// Reads one message of those that have come, holds it, and is gone when it is told, without a drop: with bytes
/// in the socket that it has looked at, or not even that.
fn read_and_exit(port: u16, side: Side) {
    let mut rx = NetReceiver::open(&options(port, side)).unwrap();
    let message = rx.recv_timeout(PATIENCE).unwrap();
    assert_eq!(number(&message), 0);
    say("holds");
    hear();
    // SAFETY: ends this process, as a crash would, but by itself.
    unsafe { libc::_exit(0) };
}

/// The sender's view of a receiver that exits so: nothing is lost that is not counted.
fn outlive(mut tx: NetSender, first: &mut PeerProcess, second: &[&str]) {
    let mut sent = 0;
    wait_until("the first message to be read", || {
        if sent < 3 {
            send(&mut tx, sent).unwrap();
            sent += 1;
        }
        tx.flush().unwrap();
        first.line_now().is_some_and(|line| line == "holds")
    });
    // More, which it will never take.
    for _ in 0..100 {
        send(&mut tx, sent).unwrap();
        sent += 1;
    }
    first.tell("go");
    first.wait_exited();
    wait_until("the broken connection to be noticed", || {
        tx.flush().unwrap();
        tx.trouble().is_some()
    });
    // It may come back: nothing is told as lost yet.
    assert_eq!((tx.stats().lost, tx.stats().released, tx.stats().violations), (0, 0, 0));
    let mut second = PeerProcess::start(second[0], &second[1..]);
    let lost = loop {
        match send(&mut tx, sent) {
            Ok(()) => sent += 1,
            Err(SendError::PeerDied { lost, .. }) => break lost,
            Err(error) => panic!("{error}"),
        }
    };
    // It had released nothing, whatever it had read, or its host had.
    assert_eq!(lost, sent);
    for index in 0..5000 {
        send(&mut tx, index).unwrap();
    }
    second.expect("1000");
    second.kill();
}

#[test]
fn a_receiver_that_exits_with_unread_bytes_is_a_break_and_then_a_loss() {
    let tx = NetSender::open(&options(0, Side::Bind)).unwrap();
    let port = tx.local_addr().unwrap().port().to_string();
    let mut first = PeerProcess::start("exit", &[&port]);
    outlive(tx, &mut first, &["receive", &port]);
}

#[test]
fn a_bound_receiver_that_exits_with_unread_bytes_is_a_break_and_then_a_loss() {
    // A port that was free a moment ago: both incarnations bind the same.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut first = PeerProcess::start("exit-bound", &[&port.to_string()]);
    let tx = NetSender::open(&options(port, Side::Connect)).unwrap();
    outlive(tx, &mut first, &["receive-bound", &port.to_string()]);
}

#[test]
fn a_drop_does_not_linger_for_the_dead() {
    let mut options = options(0, Side::Bind);
    options.linger = Duration::from_secs(3600);
    options.timing.resume_ns = 3_600_000_000_000;
    let mut tx = NetSender::open(&options).unwrap();
    let mut peer = PeerProcess::start("exit", &[&tx.local_addr().unwrap().port().to_string()]);
    send(&mut tx, 0).unwrap();
    wait_until("the message to be read", || {
        tx.flush().unwrap();
        peer.line_now().is_some()
    });
    peer.kill();
    let dropped = std::thread::spawn(move || drop(tx));
    wait_until("the drop", || dropped.is_finished());
    dropped.join().unwrap();
}

fn bound_receiver() -> (NetReceiver, SocketAddr) {
    let rx = NetReceiver::open(&options(0, Side::Bind)).unwrap();
    let address = rx.local_addr().unwrap();
    (rx, address)
}

#[test]
fn a_killed_sender_is_told_after_what_came_and_another_takes_over() {
    let (mut rx, address) = bound_receiver();
    let port = address.port().to_string();
    let mut first = PeerProcess::start("send", &[&port]);
    first.expect("ready");
    for index in 0..5000 {
        assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), index);
    }
    first.kill();
    let mut second = PeerProcess::start("send", &[&port]);
    second.expect("ready");
    let start = Instant::now();
    let mut next = 5000;
    // What had come whole is received; then who it was is told, as soon as the next one is there.
    let death = loop {
        match rx.recv_timeout(PATIENCE) {
            Ok(message) => {
                assert_eq!(number(&message), next);
                next += 1;
            }
            Err(RecvError::PeerDied { peer, death }) => {
                assert_eq!(peer.address.ip(), address.ip());
                break death;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(death, Death::Replaced);
    assert!(start.elapsed() < RESUME, "another came, and still the deadline was waited for");
    for index in 0..5000 {
        assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), index);
    }
    second.kill();
}

#[test]
fn a_killed_receiver_is_told_with_what_it_had_not_released() {
    let mut tx = NetSender::open(&options(0, Side::Bind)).unwrap();
    let port = tx.local_addr().unwrap().port().to_string();
    let mut first = PeerProcess::start("receive", &[&port]);
    let mut sent = 0;
    while sent < 20_000 {
        send(&mut tx, sent).unwrap();
        sent += 1;
    }
    first.expect("1000");
    first.kill();
    let mut second = PeerProcess::start("receive", &[&port]);
    let (death, lost) = loop {
        match send(&mut tx, sent) {
            Ok(()) => sent += 1,
            Err(SendError::PeerDied { death, lost, .. }) => break (death, lost),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(death, Death::Replaced);
    // Of everything that was sent, each message was either released or is counted.
    let stats = tx.stats();
    assert_eq!((stats.lost, stats.released), (lost, sent - lost));
    assert!(lost > 0 && lost <= 64 * 1024 / 80, "{lost}");
    // The next one gets a new session from its beginning.
    for index in 0..20_000 {
        send(&mut tx, index).unwrap();
    }
    second.expect("1000");
    second.kill();
}

#[test]
fn a_killed_binder_is_told_by_its_successor() {
    // A port that was free a moment ago: both incarnations bind the same.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut first = PeerProcess::start("receive-bound", &[&port.to_string()]);
    let mut tx = NetSender::open(&options(port, Side::Connect)).unwrap();
    let mut sent = 0;
    while sent < 5000 {
        send(&mut tx, sent).unwrap();
        sent += 1;
    }
    first.expect("1000");
    first.kill();
    let start = Instant::now();
    let mut second = PeerProcess::start("receive-bound", &[&port.to_string()]);
    let (death, lost) = loop {
        match send(&mut tx, sent) {
            Ok(()) => sent += 1,
            Err(SendError::PeerDied { death, lost, .. }) => break (death, lost),
            Err(error) => panic!("{error}"),
        }
    };
    let Death::Refused(refusal) = death else { panic!("{death}") };
    assert_eq!(refusal.code, RefuseCode::UnknownSession);
    assert!(start.elapsed() < RESUME);
    assert_eq!(tx.stats().released, sent - lost);
    for index in 0..5000 {
        send(&mut tx, index).unwrap();
    }
    second.expect("1000");
    second.kill();
}

/// 5 s; with `RINGWAY_TEST_STOPPED_SECONDS=60`, what the design asks for.
fn stopped_for() -> Duration {
    let seconds = std::env::var("RINGWAY_TEST_STOPPED_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(5))
}

#[test]
fn a_stopped_receiver_is_slow_and_not_dead() {
    let mut tx = NetSender::open(&options(0, Side::Bind)).unwrap();
    let port = tx.local_addr().unwrap().port().to_string();
    let mut receiver = PeerProcess::start("receive", &[&port]);
    let mut sent = 0;
    while sent < 5000 {
        send(&mut tx, sent).unwrap();
        sent += 1;
    }
    receiver.expect("1000");
    receiver.stop();
    let start = Instant::now();
    while start.elapsed() < stopped_for() {
        match tx.claim_timeout(64, Duration::from_millis(50)) {
            Ok(mut claim) => {
                for word in claim.chunks_exact_mut(8) {
                    word.copy_from_slice(&sent.to_le_bytes());
                }
                claim.commit().unwrap();
                sent += 1;
            }
            Err(SendError::Timeout { peer: Some(_) }) => {}
            Err(error) => panic!("after {:?}: {error}", start.elapsed()),
        }
    }
    let stats = tx.stats();
    assert!(stats.full_waits > 0, "the ring never filled");
    receiver.go_on();
    // Everything arrives once and in order, over the same connection.
    while sent < 30_000 {
        send(&mut tx, sent).unwrap();
        sent += 1;
    }
    for thousand in 2..=20 {
        receiver.expect(&(thousand * 1000).to_string());
    }
    let stats = tx.stats();
    assert_eq!((stats.connections, stats.sessions, stats.lost), (1, 1, 0));
    receiver.kill();
}

#[test]
fn a_stopped_sender_is_slow_and_not_dead() {
    let (mut rx, address) = bound_receiver();
    let mut sender = PeerProcess::start("send", &[&address.port().to_string()]);
    sender.expect("ready");
    let mut next = 0;
    for _ in 0..1000 {
        assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), next);
        next += 1;
    }
    sender.stop();
    let start = Instant::now();
    while start.elapsed() < stopped_for() {
        match rx.recv_timeout(Duration::from_millis(50)) {
            Ok(message) => {
                assert_eq!(number(&message), next);
                next += 1;
            }
            Err(RecvError::Timeout) => {}
            Err(error) => panic!("after {:?}: {error}", start.elapsed()),
        }
    }
    sender.go_on();
    for _ in 0..10_000 {
        assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), next);
        next += 1;
    }
    assert_eq!((rx.stats().connections, rx.stats().sessions), (1, 1));
    sender.kill();
}

#[test]
fn a_fork_neither_uses_nor_keeps_the_connection() {
    let (mut rx, address) = bound_receiver();
    let mut parent = PeerProcess::start("fork", &[&address.port().to_string()]);
    assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), 0);
    // The acknowledgement lets the parent go on.
    assert_eq!(number(&rx.recv_timeout(PATIENCE).unwrap()), 1);
    parent.expect("sent");
    let connected = rx.stats().connections;
    parent.kill();
    // The child still lives; the connection's end is seen nevertheless.
    let start = Instant::now();
    while rx.trouble().is_none() {
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        assert!(start.elapsed() < PATIENCE, "the child keeps the connection open");
    }
    assert_eq!((connected, rx.stats().violations), (1, 0));
}
