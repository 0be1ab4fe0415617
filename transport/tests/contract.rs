//! The contract of the API: what every medium and every way to wait has to keep. A new flavor joins
//! by a line in `flavors!`.

mod common;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Book, Home, Tick, lack};
use ringway::{Builder, Error, Message, Received, Receiver, RecvError, SendError, Sender};

/// Runs each contract on each flavor, as tests of their own.
macro_rules! flavors {
    (
        every { $($every:ident)* }
        waiting { $($waiting:ident)* }
        keeping { $($keeping:ident)* }
    ) => {
        flavors!(@ spsc_spin "shm://contract?wait=spin&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ spsc_adaptive "shm://contract?wait=adaptive&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ spsc_park "shm://contract?wait=park&capacity=64KiB&align=64",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_thread_spin "tcp://127.0.0.1:0/contract?io=thread&wait=spin&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_thread_adaptive "tcp://127.0.0.1:0/contract?io=thread&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ broadcast_block_spin
            "shm://contract?kind=broadcast&wait=spin&capacity=64KiB",
            $($every)* $($waiting)*);
        flavors!(@ broadcast_block_adaptive
            "shm://contract?kind=broadcast&overflow=block&capacity=64KiB&align=64",
            $($every)* $($waiting)*);
        flavors!(@ broadcast_block_park
            "shm://contract?kind=broadcast&wait=park&capacity=64KiB&history=1",
            $($every)* $($waiting)*);
        flavors!(@ broadcast_overwrite_spin
            "shm://contract?kind=broadcast&overflow=overwrite&wait=spin&capacity=64KiB",
            $($every)*);
        flavors!(@ broadcast_overwrite_adaptive
            "shm://contract?kind=broadcast&overflow=overwrite&capacity=64KiB",
            $($every)*);
        flavors!(@ broadcast_overwrite_park
            "shm://contract?kind=broadcast&overflow=overwrite&wait=park&capacity=64KiB&align=64",
            $($every)*);
        flavors!(@ mpmc_spin "shm://contract?kind=mpmc&until=last&wait=spin&slot=4KiB&slots=1024",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ mpmc_adaptive "shm://contract?kind=mpmc&until=last&slot=4KiB&slots=1024",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ mpmc_park "shm://contract?kind=mpmc&until=last&wait=park&slot=4KiB&slots=1024",
            $($every)* $($waiting)* $($keeping)*);
        // Between hosts whichever end comes first binds, unless one may have many on the other side. What
        // moves the bytes is each end's own affair: behind an arrow is what is the sender's alone, and the
        // receiver's.
        flavors!(@ tcp_spin "tcp://127.0.0.1:0/contract?wait=spin&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_uring_spin "tcp://127.0.0.1:0/contract?backend=uring&wait=spin&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_uring_adaptive "tcp://127.0.0.1:0/contract?backend=uring&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_uring_park "tcp://localhost:0/contract?backend=uring&wait=park&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_epoll_spin "tcp://127.0.0.1:0/contract?backend=epoll&wait=spin&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_epoll_adaptive "tcp://127.0.0.1:0/contract?backend=epoll&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_epoll_park "tcp://localhost:0/contract?backend=epoll&wait=park&capacity=64KiB",
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_uring_to_epoll "tcp://127.0.0.1:0/contract?backend=uring&capacity=64KiB"
            => [] [.backend(ringway::Backend::Epoll)], $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_epoll_to_uring "tcp://127.0.0.1:0/contract?backend=epoll&wait=park&capacity=64KiB"
            => [] [.backend(ringway::Backend::Uring)], $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_queue "tcp://127.0.0.1:0/contract?kind=mpmc&capacity=64KiB"
            => [.side(ringway::Side::Bind)] [.side(ringway::Side::Connect).io(ringway::Io::Thread)],
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_fan_adaptive "tcp://127.0.0.1:0/contract?kind=mpmc&until=last&capacity=64KiB"
            => [.side(ringway::Side::Connect)] [.side(ringway::Side::Bind)],
            $($every)* $($waiting)* $($keeping)*);
        flavors!(@ tcp_fan_park "tcp://127.0.0.1:0/contract?kind=mpmc&until=last&wait=park&capacity=64KiB"
            => [.side(ringway::Side::Connect).io(ringway::Io::Thread)] [.side(ringway::Side::Bind)],
            $($every)* $($waiting)* $($keeping)*);
    };
    (@ $flavor:ident $address:literal $(=> [$($sends:tt)*] [$($receives:tt)*])?,
        $($contract:ident)*) => {
        mod $flavor {
            fn ends(channel: ringway::Builder) -> super::Channel {
                let sending = channel.clone()$($($sends)*)?;
                super::Channel { sending, receiving: channel$($($receives)*)? }
            }

            $(
                #[test]
                fn $contract() {
                    let home = super::Home::new();
                    let channel = ends(home.channel($address));
                    if $address.contains("backend=") && !channel.is_possible() {
                        return;
                    }
                    super::$contract(&channel);
                    assert!(home.is_empty(), "something of the channel was left behind");
                }
            )*
        }
    };
}

flavors! {
    every {
        messages_arrive_in_order
        either_end_may_come_first
        bytes_arrive_as_written
        a_claim_may_be_aborted
        queued_messages_wait_for_the_flush
        dropping_the_sender_flushes
        a_batch_is_one_publication
        batches_of_unequal_messages_arrive
        too_large_is_refused
        receiving_times_out
        batches_are_received_up_to_the_limit
        a_batch_of_none_waits_for_none
        copies_outlive_the_ring
        wide_messages_are_aligned
        a_batch_stops_at_what_is_too_large
        nested_messages_arrive
        the_end_is_told_once
        forgetting_a_guard_loses_nothing
        handles_may_move_between_threads
    }
    // Senders that wait for who has not read yet.
    waiting {
        a_batch_larger_than_the_ring_is_split
        a_full_ring_names_the_receiver
        no_time_is_a_time_out
        empty_messages_arrive
        two_at_once_pass_everything
    }
    // Channels that keep messages for who is not there.
    keeping {
        a_full_ring_says_that_nobody_reads
    }
}

/// How each end of a channel opens it.
#[derive(Clone)]
struct Channel {
    sending: Builder,
    receiving: Builder,
}

impl Channel {
    /// Of a channel between hosts: whether this system has what moves its bytes; what it lacks is told.
    fn is_possible(&self) -> bool {
        let lacks = [&self.sending, &self.receiving].into_iter().find_map(lack);
        lacks.inspect(|error| println!("skipped: {error}")).is_none()
    }

    fn sender<T: Message + ?Sized>(&self) -> Result<Sender<T>, Error> {
        self.sending.sender()
    }

    fn receiver<T: Message + ?Sized>(&self) -> Result<Receiver<T>, Error> {
        self.receiving.receiver()
    }

    fn remove(&self) -> Result<bool, Error> {
        self.sending.remove()
    }
}

const LONG: Duration = Duration::from_secs(60);
/// Between two calls of an end that has nothing to do.
const MOMENT: Duration = Duration::from_millis(1);

/// Between hosts an end's bytes move inside its own calls. So where one thread holds both ends, and
/// where a sender has nothing more to say, these call the one that nobody else calls; in shared
/// memory nobody has to, and they call nothing.
fn is_remote<T: Message + ?Sized>(tx: &Sender<T>) -> bool {
    tx.net_stats().is_some()
}

/// The next message, which was sent, by a call that waits for it.
fn take<'a, T: Message + ?Sized>(tx: &mut Sender<T>, rx: &'a mut Receiver<T>) -> Received<'a, T> {
    arrived(tx, rx);
    rx.recv().unwrap()
}

/// The next message, which was sent, by a call that does not wait.
fn take_now<'a, T: Message + ?Sized>(
    tx: &mut Sender<T>,
    rx: &'a mut Receiver<T>,
) -> Received<'a, T> {
    arrived(tx, rx);
    rx.try_recv().unwrap()
}

/// A message is there, or will be without the sender.
fn arrived<T: Message + ?Sized>(tx: &mut Sender<T>, rx: &mut Receiver<T>) {
    let start = Instant::now();
    // A guard that is forgotten leaves its message where it is.
    while is_remote(tx)
        && let Err(error) = rx.recv_timeout(MOMENT).map(std::mem::forget)
    {
        assert!(error == RecvError::Timeout && start.elapsed() < LONG, "{error}");
        tx.flush().unwrap();
    }
}

/// Calls the sender until somebody says that all of it has come.
fn drive<T: Message + ?Sized>(tx: &mut Sender<T>, all_has_come: &mpsc::Receiver<()>) {
    while is_remote(tx) && all_has_come.recv_timeout(MOMENT) == Err(RecvTimeoutError::Timeout) {
        tx.flush().unwrap();
    }
}

/// Waits until the sender knows that so many messages were released.
fn settle<T: Message + ?Sized>(tx: &mut Sender<T>, rx: &mut Receiver<T>, released: u64) {
    let start = Instant::now();
    while is_remote(tx) && tx.stats().received < released {
        assert!(start.elapsed() < LONG, "{:?}", tx.stats());
        tx.flush().unwrap();
        assert!(matches!(rx.try_recv().err(), Some(RecvError::Empty)));
    }
}

/// Waits until the sender knows the receiver.
fn meet(tx: &mut Sender<[u8]>, rx: &mut Receiver<[u8]>) {
    let start = Instant::now();
    while is_remote(tx) && tx.peer().is_none() {
        assert!(start.elapsed() < LONG, "{:?}", tx.net_stats());
        tx.flush().unwrap();
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    }
}

fn messages_arrive_in_order(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    for n in 0..2000 {
        tx.send(&Tick::number(n)).unwrap();
        let tick = take(&mut tx, &mut rx);
        assert_eq!(tick.quantity.to_native(), n);
        assert_eq!(tick.price.to_native(), i64::from(n) * 3);
        assert_eq!(tick.sequence(), u64::from(n));
        assert!(!tick.redelivered());
    }
    settle(&mut tx, &mut rx, 2000);
    let stats = tx.stats();
    assert_eq!((stats.sent, stats.received), (2000, 2000));
}

fn either_end_may_come_first(channel: &Channel) {
    let mut rx = channel.receiver::<Tick>().unwrap();
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    assert_eq!(rx.peer(), None);
    let sender = channel.clone();
    let (done, all_has_come) = mpsc::channel();
    let sent = thread::spawn(move || {
        let mut tx = sender.sender::<Tick>().unwrap();
        tx.send(&Tick::number(7)).unwrap();
        drive(&mut tx, &all_has_come);
        tx
    });
    assert_eq!(rx.recv_timeout(LONG).unwrap().quantity.to_native(), 7);
    assert!(rx.peer().is_some());
    drop(done);
    drop(sent.join().unwrap());
}

fn bytes_arrive_as_written(channel: &Channel) {
    let mut tx = channel.sender::<[u8]>().unwrap();
    let mut rx = channel.receiver::<[u8]>().unwrap();
    for len in (0..3000).step_by(17) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + len) as u8).collect();
        let mut claim = tx.claim(len).unwrap();
        claim.copy_from_slice(&bytes);
        claim.commit().unwrap();
        tx.send(&bytes).unwrap();
        assert_eq!(*take(&mut tx, &mut rx), *bytes);
        let received = take(&mut tx, &mut rx);
        assert_eq!(*received, *bytes);
        assert_eq!(received.as_ptr() as usize % 8, 0);
    }
}

fn a_claim_may_be_aborted(channel: &Channel) {
    let mut tx = channel.sender::<[u8]>().unwrap();
    let mut rx = channel.receiver::<[u8]>().unwrap();
    let mut claim = tx.claim(100).unwrap();
    claim.fill(9);
    drop(claim);
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    let mut claim = tx.try_claim(100).unwrap();
    claim.fill(1);
    claim.commit_len(3).unwrap();
    assert_eq!(*take(&mut tx, &mut rx), [1, 1, 1]);
    assert_eq!(tx.stats().sent, 1);
}

fn queued_messages_wait_for_the_flush(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    for n in 0..5 {
        tx.queue(&Tick::number(n)).unwrap();
    }
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    tx.flush().unwrap();
    for n in 0..5 {
        assert_eq!(take_now(&mut tx, &mut rx).quantity.to_native(), n);
    }
    // A send publishes what was queued before it.
    tx.try_queue(&Tick::number(5)).unwrap();
    tx.try_send(&Tick::number(6)).unwrap();
    for n in 5..7 {
        assert_eq!(take_now(&mut tx, &mut rx).quantity.to_native(), n);
    }
}

fn dropping_the_sender_flushes(channel: &Channel) {
    let mut rx = channel.receiver::<Tick>().unwrap();
    let mut tx = channel.sender::<Tick>().unwrap();
    tx.queue(&Tick::number(3)).unwrap();
    drop(tx);
    assert_eq!(rx.recv().unwrap().quantity.to_native(), 3);
    assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
}

fn a_batch_is_one_publication(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    let ticks: Vec<Tick> = (0..32).map(Tick::number).collect();
    for round in 1..=50 {
        let sent = tx.send_batch(&ticks).unwrap();
        assert_eq!((sent.messages, sent.publications), (32, 1));
        for n in 0..32 {
            assert_eq!(take_now(&mut tx, &mut rx).quantity.to_native(), n);
        }
        settle(&mut tx, &mut rx, round * 32);
    }
    assert_eq!(tx.send_batch::<Tick>(&[]).unwrap().messages, 0);
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
}

fn a_batch_larger_than_the_ring_is_split(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    let ticks: Vec<Tick> = (0..20_000).map(Tick::number).collect();
    let (done, all_has_come) = mpsc::channel();
    let sender = thread::spawn(move || {
        let sent = tx.send_batch(&ticks).unwrap();
        assert_eq!(sent.messages, 20_000);
        assert!(sent.publications > 1);
        drive(&mut tx, &all_has_come);
        (tx, ticks)
    });
    for n in 0..20_000 {
        assert_eq!(rx.recv_timeout(LONG).unwrap().quantity.to_native(), n);
    }
    drop(done);
    let (mut tx, ticks) = sender.join().unwrap();
    settle(&mut tx, &mut rx, 20_000);
    // The ring is empty now: without waiting, as much goes as it holds.
    let error = tx.try_send_batch(&ticks).unwrap_err();
    assert!(error.sent > 0 && matches!(error.error, SendError::Full { .. }), "{error}");
    for n in 0..error.sent {
        assert_eq!(take(&mut tx, &mut rx).quantity.to_native() as usize, n);
    }
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
}

fn batches_of_unequal_messages_arrive(channel: &Channel) {
    let mut tx = channel.sender::<[u8]>().unwrap();
    let mut rx = channel.receiver::<[u8]>().unwrap();
    let lens = [0, 1, 1, 1, 5, 5, 0, 300, 300, 2];
    let messages: Vec<Vec<u8>> =
        lens.iter().enumerate().map(|(i, &len)| vec![i as u8; len]).collect();
    for _ in 0..100 {
        assert_eq!(tx.send_batch(&messages).unwrap().messages, lens.len());
        for message in &messages {
            assert_eq!(*take_now(&mut tx, &mut rx), **message);
        }
    }
    let books: Vec<Book> = (0..30).map(Book::number).collect();
    drop((tx, rx));
    let mut tx = channel.sender::<Book>().unwrap();
    let mut rx = channel.receiver::<Book>().unwrap();
    assert_eq!(tx.send_batch(&books).unwrap().publications, 1);
    for n in 0..30 {
        Book::check(&take_now(&mut tx, &mut rx), n);
    }
}

fn a_full_ring_says_that_nobody_reads(channel: &Channel) {
    let mut tx = channel.sender::<[u8]>().unwrap();
    let mut sent = 0;
    let error = loop {
        match tx.try_send(&[7; 1000]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Full { peer: None, lag: None });
    assert!(error.to_string().contains("no receiver"), "{error}");
    let mut rx = channel.receiver::<[u8]>().unwrap();
    for _ in 0..sent {
        assert_eq!(take(&mut tx, &mut rx).len(), 1000);
    }
}

fn a_full_ring_names_the_receiver(channel: &Channel) {
    let mut rx = channel.receiver::<[u8]>().unwrap();
    let mut tx = channel.sender::<[u8]>().unwrap();
    meet(&mut tx, &mut rx);
    let bytes = vec![7; 1000];
    let mut sent: u64 = 0;
    let error = loop {
        match tx.try_send(&bytes) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SendError::Full { peer: Some(_), .. }), "{error}");
    let error = tx.send_timeout(&bytes, Duration::from_millis(5)).unwrap_err();
    assert!(error.to_string().contains(&tx.peer().unwrap().to_string()), "{error}");
    assert!(matches!(error, SendError::Timeout { peer: Some(_), .. }));
    assert_eq!(tx.stats().full_waits, 2, "one for each refusal");
    for _ in 0..sent {
        assert_eq!(take(&mut tx, &mut rx).len(), 1000);
    }
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    settle(&mut tx, &mut rx, sent);
    tx.try_send(&bytes).unwrap();
    assert_eq!(take(&mut tx, &mut rx).len(), 1000);
}

fn too_large_is_refused(channel: &Channel) {
    let mut rx = channel.receiver::<[u8]>().unwrap();
    let mut tx = channel.sender::<[u8]>().unwrap();
    let max = tx.max_len();
    let bytes = vec![1; max + 1];
    let expected = SendError::TooLarge { len: max + 1, max };
    assert_eq!(tx.try_send(&bytes).unwrap_err(), expected);
    assert_eq!(tx.send(&bytes).unwrap_err(), expected);
    assert_eq!(tx.claim(max + 1).unwrap_err(), expected);
    tx.send(&bytes[1..]).unwrap();
    assert_eq!(take(&mut tx, &mut rx).len(), max);
}

fn receiving_times_out(channel: &Channel) {
    let mut rx = channel.receiver::<Tick>().unwrap();
    let wait = Duration::from_millis(20);
    let start = Instant::now();
    assert_eq!(rx.recv_timeout(wait).unwrap_err(), RecvError::Timeout);
    assert!(start.elapsed() >= wait);
    let _tx = channel.sender::<Tick>().unwrap();
    assert_eq!(rx.recv_timeout(wait).unwrap_err(), RecvError::Timeout);
    assert_eq!(rx.recv_timeout(Duration::ZERO).unwrap_err(), RecvError::Timeout);
    assert!(start.elapsed() >= 2 * wait);
}

fn batches_are_received_up_to_the_limit(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    assert!(matches!(rx.try_recv_batch(4).err(), Some(RecvError::Empty)));
    for n in 0..10 {
        tx.send(&Tick::number(n)).unwrap();
    }
    let (mut next, mut counts) = (0, Vec::new());
    while next < 10 {
        arrived(&mut tx, &mut rx);
        let mut batch = rx.recv_batch(4).unwrap();
        let mut count = 0;
        while let Some(tick) = batch.next().unwrap() {
            assert_eq!(tick.quantity.to_native(), next);
            next += 1;
            count += 1;
        }
        counts.push(count);
    }
    // Between hosts a part may come before the rest.
    let in_parts = is_remote(&tx) && counts.iter().all(|count| (1..=4).contains(count));
    assert!(in_parts || counts == [4, 4, 2], "{counts:?}");
    settle(&mut tx, &mut rx, 10);
    assert_eq!(tx.stats().received, 10);
    let timeout = rx.recv_batch_timeout(4, Duration::from_millis(1)).err();
    assert!(matches!(timeout, Some(RecvError::Timeout)));
}

fn a_batch_of_none_waits_for_none(channel: &Channel) {
    #[track_caller]
    fn takes_none(rx: &mut Receiver<Tick>) {
        let is_empty = |batch: Result<ringway::Batch<'_, Tick>, RecvError>| {
            let mut batch = batch.unwrap();
            batch.next().unwrap().is_none() && batch.next_run().unwrap().is_none()
        };
        assert!(is_empty(rx.try_recv_batch(0)));
        assert!(is_empty(rx.recv_batch_timeout(0, MOMENT)));
        assert!(is_empty(rx.recv_batch(0)));
    }
    let mut rx = channel.receiver::<Tick>().unwrap();
    takes_none(&mut rx);
    let mut tx = channel.sender::<Tick>().unwrap();
    takes_none(&mut rx);
    tx.send(&Tick::number(1)).unwrap();
    arrived(&mut tx, &mut rx);
    takes_none(&mut rx);
    assert_eq!(take(&mut tx, &mut rx).quantity.to_native(), 1);
    drop(tx);
    // Nor does it take the end away.
    takes_none(&mut rx);
    assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
}

/// Batches and copies lie at other addresses than single messages; what needs 16 bytes gets them.
fn wide_messages_are_aligned(channel: &Channel) {
    let mut tx = channel.sender::<Vec<u128>>().unwrap();
    let mut rx = channel.receiver::<Vec<u128>>().unwrap();
    for len in 0..50_u128 {
        let message: Vec<u128> = (0..len).collect();
        tx.send(&message).unwrap();
        tx.send_batch(&[message.clone(), message]).unwrap();
        for _ in 0..2 {
            let received = take(&mut tx, &mut rx);
            assert!(received.iter().map(|item| item.to_native()).eq(0..len));
        }
        arrived(&mut tx, &mut rx);
        let copied = rx.recv_copy().unwrap();
        assert!(copied.iter().map(|item| item.to_native()).eq(0..len));
    }
}

/// A batch goes up to the message that can't be sent, and says which that is.
fn a_batch_stops_at_what_is_too_large(channel: &Channel) {
    let mut tx = channel.sender::<[u8]>().unwrap();
    let mut rx = channel.receiver::<[u8]>().unwrap();
    let large = vec![1; tx.max_len() + 1];
    let batch: [&[u8]; 5] = [b"a", b"b", b"c", &large, b"d"];
    let error = tx.send_batch(&batch).unwrap_err();
    assert_eq!((error.sent, error.error), (3, tx.try_send(&large).unwrap_err()));
    for expected in [b"a", b"b", b"c"] {
        assert_eq!(*take_now(&mut tx, &mut rx), *expected);
    }
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
}

/// Time-outs of zero are time-outs, also where the ring has room for nothing.
fn no_time_is_a_time_out(channel: &Channel) {
    let mut rx = channel.receiver::<[u8]>().unwrap();
    let mut tx = channel.sender::<[u8]>().unwrap();
    let mut sent = 0;
    while tx.try_send(&[0; 100]).is_ok() {
        sent += 1;
    }
    // Between hosts the first full ring may only wait for the connection: on, until nothing leaves any more.
    let error = loop {
        match tx.send_timeout(&[0; 100], Duration::ZERO) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SendError::Timeout { .. }), "{error}");
    let error = loop {
        match tx.send_batch_timeout(&[[0; 100]; 3], Duration::ZERO) {
            Ok(batch) => sent += batch.messages,
            Err(error) => break error,
        }
    };
    sent += error.sent;
    assert!(matches!(error.error, SendError::Timeout { .. }), "{error}");
    // A sender that goes waits until all has left.
    for _ in 0..if is_remote(&tx) { sent } else { 0 } {
        take(&mut tx, &mut rx);
    }
    drop((tx, rx));
    // Where what was sent waits for another receiver, nobody wants it any more.
    channel.remove().unwrap();
}

fn copies_outlive_the_ring(channel: &Channel) {
    let mut tx = channel.sender::<Book>().unwrap();
    let mut rx = channel.receiver::<Book>().unwrap();
    for n in 0..100 {
        tx.send(&Book::number(n)).unwrap();
        arrived(&mut tx, &mut rx);
        let copy = rx.recv_copy().unwrap();
        // Its room is free already; between hosts the sender learns it later.
        assert!(is_remote(&tx) || tx.stats().received == n as u64 + 1);
        Book::check(&copy, n);
        settle(&mut tx, &mut rx, n as u64 + 1);
    }
    assert!(matches!(rx.try_recv_copy().err(), Some(RecvError::Empty)));
    let timeout = rx.recv_copy_timeout(Duration::from_millis(1)).err();
    assert!(matches!(timeout, Some(RecvError::Timeout)));
}

fn empty_messages_arrive(channel: &Channel) {
    let mut tx = channel.sender::<()>().unwrap();
    let mut rx = channel.receiver::<()>().unwrap();
    let mut sent = 0;
    while tx.try_send(&()).is_ok() {
        sent += 1;
    }
    assert!(sent > 500);
    for n in 0..sent {
        assert_eq!(take(&mut tx, &mut rx).sequence(), n);
    }
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    assert_eq!(tx.send_batch(&[(), ()]).unwrap().messages, 2);
    assert_eq!(take(&mut tx, &mut rx).as_bytes(), b"");
    assert_eq!(take(&mut tx, &mut rx).as_bytes(), b"");
}

fn nested_messages_arrive(channel: &Channel) {
    let mut tx = channel.sender::<Book>().unwrap();
    let mut rx = channel.receiver::<Book>().unwrap();
    for n in 0..1500 {
        tx.send(&Book::number(n)).unwrap();
        Book::check(&take(&mut tx, &mut rx), n);
    }
}

fn the_end_is_told_once(channel: &Channel) {
    let mut rx = channel.receiver::<Tick>().unwrap();
    for round in 0..3 {
        let mut tx = channel.sender::<Tick>().unwrap();
        tx.send(&Tick::number(round)).unwrap();
        drop(tx);
        assert_eq!(rx.recv().unwrap().quantity.to_native(), round);
        assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected);
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    }
}

fn forgetting_a_guard_loses_nothing(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    tx.send(&Tick::number(1)).unwrap();
    tx.send(&Tick::number(2)).unwrap();
    std::mem::forget(take(&mut tx, &mut rx));
    assert_eq!(take(&mut tx, &mut rx).quantity.to_native(), 1);
    assert_eq!(take(&mut tx, &mut rx).quantity.to_native(), 2);
}

fn handles_may_move_between_threads(channel: &Channel) {
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    for n in 0..10 {
        (tx, rx) = thread::spawn(move || {
            tx.send(&Tick::number(n)).unwrap();
            assert_eq!(take(&mut tx, &mut rx).quantity.to_native(), n);
            (tx, rx)
        })
        .join()
        .unwrap();
    }
}

fn two_at_once_pass_everything(channel: &Channel) {
    const COUNT: u32 = 30_000;
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    let sender = thread::spawn(move || {
        for n in 0..COUNT {
            tx.send(&Tick::number(n)).unwrap();
        }
    });
    for n in 0..COUNT {
        let tick = rx.recv_timeout(LONG).unwrap();
        assert_eq!((tick.quantity.to_native(), tick.price.to_native()), (n, i64::from(n) * 3));
    }
    sender.join().unwrap();
    assert_eq!(rx.recv_timeout(LONG).unwrap_err(), RecvError::Disconnected);
}
