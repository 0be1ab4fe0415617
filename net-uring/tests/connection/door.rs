//! Bad company: silence, garbage, peers that never read or break the protocol. Each costs its own
//! connection and a counter, and nobody else anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_net::frame::{CONTROL_MAX, Header, Kind};
use ringway_net::session::{Direction, Greeting, Name};
use ringway_net::{NetReceiver, NetSender, Options, RecvError, SendError, Side};

use super::support::{FORMAT, PATIENCE, WAITS, expect, options, send, to, wait_until};

const MAX: usize = 100;

fn bound(options: &Options) -> (NetReceiver, SocketAddr) {
    let rx = NetReceiver::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let address = rx.local_addr().unwrap();
    (rx, address)
}

/// A hello that fits those options.
fn hello(direction: Direction, session: u8) -> Greeting {
    let receives = direction == Direction::Receives;
    Greeting {
        direction,
        format: FORMAT,
        session: [session; 16],
        epoch: 1,
        schema: 0x1234,
        position: 0,
        released: 0,
        window: if receives { (64 << 10) - 256 } else { 0 },
        body_max: if receives { 0 } else { (32 << 10) - 16 },
        fresh: true,
        name: Name::new("ticks").unwrap(),
    }
}

/// The answer to a hello.
fn read_welcome(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut welcome = [0; CONTROL_MAX];
    stream.read_exact(&mut welcome).unwrap();
    assert!(Greeting::read(Kind::Welcome, &welcome).unwrap().is_some());
}

/// Whether the other side closes the connection, however.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// As many descriptors as the system lets a process have: 1024 are too few for these tests.
fn allow_descriptors() {
    // SAFETY: live values of the right type.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(8192);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn a_thousand_silent_connections_hurt_nobody() {
    allow_descriptors();
    let mut options = options(0);
    options.timing.handshake_ns = 300_000_000;
    let (mut rx, address) = bound(&options);
    let mut tx = NetSender::open(&to(&options, address)).unwrap();
    wait_until("the handshake", || {
        let _ = rx.try_recv().err();
        tx.flush().unwrap();
        tx.peer().is_some()
    });
    let mut index = 0;
    let mut exchange = |rx: &mut NetReceiver, count: u64| {
        for _ in 0..count {
            send(&mut tx, index, MAX);
            expect(rx, index, MAX);
            index += 1;
        }
    };
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(address).unwrap());
        exchange(&mut rx, 3);
    }
    // Some say a part of a hello, and stop.
    for stream in silent.iter_mut().step_by(10) {
        let _ = stream.write_all(&hello(Direction::Sends, 9).to_bytes(Kind::Hello)[..100]);
    }
    wait_until("all to be sent away", || {
        exchange(&mut rx, 3);
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        let door = rx.stats().door.unwrap();
        assert!(door.accepted <= 1001);
        door.silent + door.displaced == 1000
    });
    // Whether by newcomers or by their time-out is a matter of the machine's speed.
    assert!(silent.iter_mut().all(is_closed));
    let stats = rx.stats();
    assert_eq!((stats.connections, stats.sessions, stats.violations), (1, 1, 0));
}

#[test]
fn a_newcomer_gets_in_among_the_silent() {
    allow_descriptors();
    let (mut rx, address) = bound(&options(0));
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut tx = NetSender::open(&to(&options(0), address)).unwrap();
    let sender = std::thread::spawn(move || {
        send(&mut tx, 0, MAX);
        tx.close(PATIENCE).unwrap();
    });
    expect(&mut rx, 0, MAX);
    wait_until("the sender to close", || {
        let _ = rx.try_recv().err();
        sender.is_finished()
    });
    sender.join().unwrap();
    drop(silent);
}

#[test]
fn a_receiver_that_sleeps_on_a_connection_answers_at_the_door() {
    for wait in WAITS {
        let mut options = Options { wait, ..options(0) };
        // No timer of the session or the door ends a sleep.
        (options.timing.heartbeat_ns, options.timing.handshake_ns) = (u64::MAX, u64::MAX);
        let (mut rx, address) = bound(&options);
        let dial = |session, epoch| {
            let fresh = epoch == 1;
            let hello = Greeting { epoch, fresh, ..hello(Direction::Sends, session) };
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&hello.to_bytes(Kind::Hello)).unwrap();
            stream
        };
        let receiver = std::thread::spawn(move || {
            assert_eq!(*rx.recv_timeout(PATIENCE).unwrap(), [7; 16]);
            rx
        });
        let mut first = dial(1, 1);
        read_welcome(&mut first);
        // The connection stands, and nothing comes over it. Somebody else is told that it is another's.
        let mut answer = [0; 48];
        dial(2, 1).read_exact(&mut answer).unwrap();
        assert_eq!(Header::from_bytes(*answer.first_chunk().unwrap()).kind, Kind::Refuse as u8);
        // Whose it is has lost it, which this end can't see, and goes on with another.
        let mut second = dial(1, 2);
        read_welcome(&mut second);
        let mut message = Header::data(16, 0).to_bytes().to_vec();
        message.extend([7; 16]);
        second.write_all(&message).unwrap();
        let stats = receiver.join().unwrap().stats();
        assert_eq!((stats.connections, stats.resumes, stats.sessions), (2, 1, 1));
    }
}

#[test]
fn garbage_is_sent_away_at_once() {
    let (mut rx, address) = bound(&options(0));
    let mut longer = hello(Direction::Sends, 1).to_bytes(Kind::Hello).to_vec();
    longer[16] ^= 1;
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let zeros = vec![0; 4096];
    let ones = vec![0xff; 4096];
    let data = Header::data(16, 0).to_bytes().to_vec();
    for (count, garbage) in [longer, http, zeros, ones, data].into_iter().enumerate() {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&garbage).unwrap();
        wait_until("the connection to be closed", || {
            assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
            is_closed(&mut stream)
        });
        assert_eq!(rx.stats().door.unwrap().garbage, count as u64 + 1);
    }
    // Another version is answered.
    let mut future = hello(Direction::Sends, 1).to_bytes(Kind::Hello).to_vec();
    future[16 + 8] = 9;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&future).unwrap();
    wait_until("the refusal", || {
        let _ = rx.try_recv().err();
        rx.stats().door.unwrap().refused == 1
    });
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(Header::from_bytes(*answer.first_chunk().unwrap()).kind, Kind::Refuse as u8);
    assert_eq!(rx.stats().connections, 0);
}

#[test]
fn who_breaks_the_protocol_loses_the_connection_and_nothing_else() {
    let mut options = options(0);
    // The session of the one who misbehaved is given up soon, and the channel is free again.
    options.timing.resume_ns = 50_000_000;
    let (mut rx, address) = bound(&options);
    let whole = 16 + 16;
    let bad: [Vec<u8>; 5] = [
        // 4 GiB, of no kind, at another position, beyond the credit, an acknowledgement.
        Header::data(u32::MAX, 0).to_bytes().to_vec(),
        [77; 16].to_vec(),
        Header::data(16, 4096).to_bytes().to_vec(),
        Header::data(60_000, 0).to_bytes().to_vec(),
        Header::control(Kind::Ack, 0).to_bytes().to_vec(),
    ];
    for (session, bad) in bad.iter().enumerate() {
        let mut stream = TcpStream::connect(address).unwrap();
        let greeting = hello(Direction::Sends, session as u8).to_bytes(Kind::Hello);
        stream.write_all(&greeting).unwrap();
        wait_until("the welcome", || {
            // The one before may still be waited for.
            let _ = rx.try_recv().err();
            stream.set_nonblocking(true).unwrap();
            let came = stream.peek(&mut [0; 1]);
            if matches!(came, Ok(0)) || is_refused(&stream) {
                stream = TcpStream::connect(address).unwrap();
                stream.write_all(&greeting).unwrap();
                return false;
            }
            came.is_ok()
        });
        stream.set_nonblocking(false).unwrap();
        read_welcome(&mut stream);
        // One good message before, which arrives.
        let mut message = Header::data(16, 0).to_bytes().to_vec();
        message.extend([session as u8; 16]);
        assert_eq!(message.len(), whole);
        if session != 0 {
            stream.write_all(&message).unwrap();
            assert_eq!(*rx.recv_timeout(PATIENCE).unwrap(), [session as u8; 16]);
        }
        stream.write_all(bad).unwrap();
        let mut ended = None;
        wait_until("the end of the session", || {
            ended = match rx.try_recv() {
                Err(RecvError::Empty) => None,
                Err(error) => Some(error),
                Ok(message) => panic!("{} bytes came of it", message.len()),
            };
            ended.is_some()
        });
        assert!(matches!(ended, Some(RecvError::PeerDied { .. })), "{ended:?}");
        assert_eq!(rx.stats().violations, session as u64 + 1);
    }
    let mut tx = NetSender::open(&to(&options, address)).unwrap();
    let sender = std::thread::spawn(move || {
        send(&mut tx, 0, MAX);
        tx.close(PATIENCE).unwrap();
    });
    expect(&mut rx, 0, MAX);
    wait_until("the sender to close", || {
        let _ = rx.try_recv().err();
        sender.is_finished()
    });
    sender.join().unwrap();
}

/// Whether a refusal has come.
fn is_refused(stream: &TcpStream) -> bool {
    let mut front = [0; 5];
    matches!(stream.peek(&mut front), Ok(5)) && front[4] == Kind::Refuse as u8
}

#[test]
fn a_peer_that_never_reads_fills_one_ring_and_no_more() {
    let options = options(0);
    let mut tx = NetSender::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let mut stream = TcpStream::connect(tx.local_addr().unwrap()).unwrap();
    stream.write_all(&hello(Direction::Receives, 1).to_bytes(Kind::Hello)).unwrap();
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_millis(300) {
        match tx.try_claim(1000) {
            Ok(claim) => {
                claim.commit().unwrap();
                sent += 1;
            }
            Err(SendError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(sent, 63);
    let late = tx.claim_timeout(1000, Duration::from_millis(30)).err();
    assert!(matches!(late, Some(SendError::Timeout { peer: Some(_) })), "{late:?}");
    // It reads after all, and finds everything in order.
    read_welcome(&mut stream);
    let mut all = vec![0; 63 * 1024];
    stream.read_exact(&mut all[..1024]).unwrap();
    tx.flush().unwrap();
    stream.read_exact(&mut all[1024..]).unwrap();
    for (index, frame) in all.chunks(1024).enumerate() {
        let header = Header::from_bytes(*frame.first_chunk().unwrap());
        assert_eq!((header.len, header.seq), (1000, index as u64 * 1024));
    }
    // An acknowledgement of what was never sent costs it the connection.
    stream.write_all(&Header::control(Kind::Ack, 1 << 40).to_bytes()).unwrap();
    wait_until("the connection to be closed", || {
        let _ = tx.try_claim(1000).err();
        is_closed(&mut stream)
    });
    assert_eq!(tx.stats().violations, 1);
}
