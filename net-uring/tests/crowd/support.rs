//! Senders and receivers that are processes, and what they say.

use std::time::Duration;

use ringway_net::session::Format;
use ringway_net::{Kind, NetReceiver, NetSender, Options, PeerChange, RecvError, SendError, Side};

use ringway_testing::PATIENCE;
use ringway_testing::peer::{hear, say};

/// A channel's end that has many on the other side.
pub fn one() -> Options {
    let format = Format { endian: 1, pointer: 4, align: 8 };
    let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
    options.capacity = 4 << 10;
    options.kind = Kind::Mpmc;
    options.side = Side::Bind;
    // A process that was killed does not come back: nobody need wait for it for long.
    options.timing.resume_ns = 500_000_000;
    options.timing.takeover_ns = 100_000_000;
    options
}

/// One of the many.
pub fn another(port: u16) -> Options {
    Options { port, side: Side::Connect, ..one() }
}

/// Message `index` of sender `who`.
pub fn body(who: u64, index: u64) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&who.to_le_bytes());
    body[8..].copy_from_slice(&index.to_le_bytes());
    body
}

/// Who sent it, and which it is.
pub fn read(body: &[u8]) -> (u64, u64) {
    let word = |from: usize| u64::from_le_bytes(*body[from..].first_chunk().unwrap());
    assert_eq!(body.len(), 16);
    (word(0), word(8))
}

pub fn send(tx: &mut NetSender, who: u64, index: u64) -> Result<(), SendError> {
    let mut claim = tx.claim_timeout(16, PATIENCE)?;
    claim.copy_from_slice(&body(who, index));
    claim.commit()
}

/// Receives the next message.
pub fn next(rx: &mut NetReceiver) -> (u64, u64) {
    match rx.recv_timeout(PATIENCE) {
        Ok(message) => read(&message),
        Err(error) => panic!("{error}"),
    }
}

/// Descriptors that the tests of a thousand need: raises the limit, if it may. False: it may not.
pub fn has_descriptors(count: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live value to write to and to read from.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_cur.max(count.min(limit.rlim_max));
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    limit.rlim_cur >= count
}

/// What has become of peers since it was last asked: joined, left, lost.
pub fn changes(peers: &ringway_net::Peers) -> (usize, usize, usize) {
    let count =
        |is: fn(&PeerChange) -> bool| peers.events.iter().filter(|event| is(&event.change)).count();
    (
        count(|change| matches!(change, PeerChange::Joined)),
        count(|change| matches!(change, PeerChange::Left)),
        count(|change| matches!(change, PeerChange::Lost { .. })),
    )
}

pub fn play(words: &[&str]) {
    match *words {
        ["flood", port, who] => flood(port.parse().unwrap(), who.parse().unwrap()),
        ["crowd", port, count] => crowd(port.parse().unwrap(), count.parse().unwrap()),
        ["work", port] => work(port.parse().unwrap()),
        ["hoard", port] => hoard(port.parse().unwrap(), 20),
        ["idle", port] => hoard(port.parse().unwrap(), 0),
        _ => panic!("no role {words:?}"),
    }
}

/// Sends without end.
fn flood(port: u16, who: u64) {
    let mut tx = NetSender::open(&another(port)).unwrap();
    for index in 0.. {
        send(&mut tx, who, index).unwrap();
        if index == 0 {
            say("floods");
        }
    }
}

/// Receives without end, and says of each message what it is.
fn work(port: u16) {
    let mut rx = NetReceiver::open(&another(port)).unwrap();
    // Until it is killed, or the sender is through.
    while let Ok(message) = rx.recv_timeout(PATIENCE) {
        let (index, again) = (read(&message).1, message.redelivered());
        drop(message);
        say(format!("{index} {}", if again { "again" } else { "once" }));
    }
}

/// Takes so many messages, gives none of them back, and says so.
fn hoard(port: u16, count: usize) {
    let mut rx = NetReceiver::open(&another(port)).unwrap();
    while rx.peer().is_none() {
        // What comes already is not taken yet.
        std::mem::forget(rx.try_recv());
    }
    if count == 0 {
        say("here");
        hear();
    }
    let mut batch = rx.recv_batch(count, Some(PATIENCE)).unwrap();
    while batch.next().unwrap().is_some() {}
    say("holds");
    hear();
}

/// Many senders: each sends one message when it has come, and one more when the test says so.
fn crowd(port: u16, count: u64) {
    assert!(has_descriptors(3 * count));
    let options = Options { backend: ringway_net::Backend::Epoll, ..another(port) };
    let mut senders: Vec<NetSender> =
        (0..count).map(|_| NetSender::open(&options).unwrap()).collect();
    let round = |senders: &mut Vec<NetSender>, index| {
        for (who, tx) in senders.iter_mut().enumerate() {
            send(tx, who as u64, index).unwrap();
        }
        // Until all of it is with the other host.
        while senders.iter().any(|tx| tx.stats().connections == 0) {
            for tx in &mut *senders {
                tx.flush().unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    round(&mut senders, 0);
    say("here");
    hear();
    round(&mut senders, 1);
    say("sent");
    hear();
    for tx in senders {
        tx.close(PATIENCE).unwrap();
    }
    say("closed");
}

/// Calls a receiver until there is nothing for a moment.
pub fn drain(rx: &mut NetReceiver, mut each: impl FnMut(u64, u64)) {
    loop {
        match rx.recv_timeout(Duration::from_millis(20)) {
            Ok(message) => {
                let (who, index) = read(&message);
                each(who, index);
            }
            Err(RecvError::Timeout) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
