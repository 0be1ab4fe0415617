//! One end here, many there: what a program that uses the one API sees of it. What the processes of others
//! can do to it is shown in `ringway-net`.

mod common;

use std::time::{Duration, Instant};

use common::{Home, Tick};
use ringway::{Builder, ErrorKind, Message, PeerChange, Receiver, RecvError, Sender, Side};

const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// The channel as the end that binds opens it, and as the others do.
fn sides(home: &Home, address: &str) -> (Builder, Builder) {
    let channel = home.channel(address);
    (channel.clone().side(Side::Bind), channel.side(Side::Connect))
}

/// The next tick, for which nobody else has to be called.
fn tick(rx: &mut Receiver<Tick>) -> u32 {
    rx.recv_timeout(LONG).unwrap().quantity.to_native()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "waited for {what}");
        std::thread::sleep(MOMENT);
    }
}

#[test]
fn many_senders_to_one_receiver() {
    let home = Home::new();
    let (one, many) = sides(&home, "tcp://127.0.0.1:0/fan?kind=mpmc&until=last&capacity=64KiB");
    let mut rx = one.receiver::<Tick>().unwrap();
    let mut senders: Vec<Sender<Tick>> =
        (0..3).map(|_| many.clone().io(ringway::Io::Thread).sender().unwrap()).collect();
    for (index, tx) in senders.iter_mut().enumerate() {
        tx.send(&Tick::number(index as u32)).unwrap();
    }
    let mut heard: Vec<u32> = (0..3).map(|_| tick(&mut rx)).collect();
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2]);
    assert!(rx.peer().is_some());
    let peers = rx.peers().unwrap();
    assert_eq!((peers.present.len(), peers.events.len(), peers.forgotten), (3, 3, 0));
    assert!(peers.events.iter().all(|event| event.change == PeerChange::Joined));
    let gone = senders.pop().unwrap();
    let closing = std::thread::spawn(move || gone.close(LONG));
    until("one to leave", || {
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        let peers = rx.peers().unwrap();
        assert!(peers.events.iter().all(|event| event.change == PeerChange::Left));
        peers.present.len() == 2
    });
    // The others are as they were.
    senders[0].send(&Tick::number(7)).unwrap();
    assert_eq!(tick(&mut rx), 7);
    drop(senders);
    assert_eq!(rx.recv_timeout(LONG).unwrap_err(), RecvError::Disconnected);
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    assert_eq!(rx.stats().received, 4);
    until("the close", || {
        let _ = rx.try_recv().err();
        closing.is_finished()
    });
    closing.join().unwrap().unwrap();
}

/// Receivers that have come to a bound sender.
fn receivers(tx: &mut Sender<Tick>, many: &Builder, count: usize) -> Vec<Receiver<Tick>> {
    let many = many.clone().io(ringway::Io::Thread);
    let receivers = (0..count).map(|_| many.receiver().unwrap()).collect();
    until("the receivers to come", || {
        tx.flush().unwrap();
        tx.peers().unwrap().present.len() == count
    });
    receivers
}

#[test]
fn one_sender_to_many_workers() {
    let home = Home::new();
    let (one, many) = sides(&home, "tcp://127.0.0.1:0/queue?kind=mpmc&capacity=64KiB");
    let mut tx = one.sender::<Tick>().unwrap();
    let mut workers = receivers(&mut tx, &many, 2);
    for number in 0..100 {
        tx.send(&Tick::number(number)).unwrap();
    }
    // One takes some, releases a few of them, and goes: what it left is for the other, flagged.
    let mut first = workers.remove(0);
    let mut done: Vec<u32> = (0..10).map(|_| tick(&mut first)).collect();
    drop(first);
    let mut again = 0;
    while done.len() < 100 {
        tx.flush().unwrap();
        match workers[0].recv_timeout(MOMENT) {
            Ok(tick) => {
                again += u32::from(tick.redelivered());
                done.push(tick.quantity.to_native());
            }
            Err(error) => assert_eq!(error, RecvError::Timeout),
        }
    }
    done.sort_unstable();
    assert!(done.into_iter().eq(0..100));
    assert!(again > 0);
    let peers = tx.peers().unwrap();
    assert_eq!(peers.present.len(), 1);
    assert!(peers.events.iter().any(|event| event.change == PeerChange::Left));
    tx.close(LONG).unwrap();
}

#[test]
fn one_sender_to_all() {
    let home = Home::new();
    // Nobody need say who binds: of a broadcast it is the sender.
    let channel = home.channel("tcp://127.0.0.1:0/all?kind=broadcast&capacity=64KiB");
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut receivers = receivers(&mut tx, &channel, 3);
    for number in 0..100 {
        tx.send(&Tick::number(number)).unwrap();
    }
    for rx in &mut receivers {
        assert!((0..100).all(|number| tick(rx) == number));
    }
    tx.close(LONG).unwrap();
    for rx in &mut receivers {
        assert_eq!(rx.recv_timeout(LONG).unwrap_err(), RecvError::Disconnected);
    }
}

#[test]
fn who_is_slow_is_told_what_it_missed() {
    let home = Home::new();
    let address = "tcp://127.0.0.1:0/all?kind=broadcast&overflow=overwrite&capacity=4KiB";
    let channel = home.channel(address);
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = receivers(&mut tx, &channel, 1).remove(0);
    // Never without room, though nobody reads.
    for number in 0..1000 {
        tx.try_send(&Tick::number(number)).unwrap();
    }
    let (mut due, mut missed) = (0, 0);
    while due < 1000 {
        tx.flush().unwrap();
        match rx.recv_timeout(MOMENT) {
            Ok(tick) => {
                assert_eq!(tick.quantity.to_native(), due);
                due += 1;
            }
            Err(RecvError::Lagged { missed: count }) => {
                missed += count;
                due += u32::try_from(count).unwrap();
            }
            Err(error) => assert_eq!(error, RecvError::Timeout),
        }
    }
    assert!(missed > 500, "{missed}");
}

#[test]
fn who_is_one_of_many_must_be_said() {
    let told = |error: ringway::Error, words: &str| {
        assert_eq!(error.kind(), ErrorKind::BadOption);
        assert!(error.to_string().contains(words), "{error}");
    };
    let open = |address: &str| ringway::receiver::<Tick>(address).unwrap_err();
    told(open("tcp://127.0.0.1:4321/fan?kind=mpmc"), "side=bind");
    told(open("tcp://127.0.0.1:0/fan?kind=mpmc&io=thread"), "io=thread");
    told(open("tcp://127.0.0.1:0/fan?kind=mpmc&capacity=1000"), "capacity");
    told(open("tcp://127.0.0.1:0/fan?until=last"), "`until`");
}

#[test]
fn ends_in_shared_memory_have_no_list_of_peers() {
    let home = Home::new();
    let channel = home.channel("shm://fan");
    assert_eq!(peers_of::<Tick>(&channel), (None, None));
}

fn peers_of<T: Message + ?Sized>(
    channel: &Builder,
) -> (Option<ringway::Peers>, Option<ringway::Peers>) {
    let mut rx = channel.receiver::<T>().unwrap();
    let mut tx = channel.sender::<T>().unwrap();
    (rx.peers(), tx.peers())
}
