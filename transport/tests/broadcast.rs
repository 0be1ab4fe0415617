//! What is said of broadcasts alone: who comes late, who is overwritten, who wants the newest.

mod common;

use std::time::Duration;

use common::{Home, Tick, WAITS};
use ringway::{Builder, ErrorKind, Kind, Overflow, Read, RecvError, SendError};

const LONG: Duration = Duration::from_secs(60);

fn number(rx: &mut ringway::Receiver<Tick>) -> Result<u32, RecvError> {
    let tick = rx.recv_timeout(LONG)?;
    assert_eq!(tick.price.to_native(), i64::from(tick.quantity.to_native()) * 3);
    Ok(tick.quantity.to_native())
}

#[test]
fn every_receiver_gets_every_message() {
    for wait in WAITS {
        let home = Home::new();
        let channel = home.channel("shm://ticks?kind=broadcast&capacity=4KiB").wait(wait);
        let receivers: Vec<_> = (0..3).map(|_| channel.receiver::<Tick>().unwrap()).collect();
        let mut tx = channel.sender::<Tick>().unwrap();
        std::thread::scope(|scope| {
            for mut rx in receivers {
                scope.spawn(move || {
                    (0..3000).for_each(|n| assert_eq!(number(&mut rx), Ok(n)));
                    assert_eq!(number(&mut rx), Err(RecvError::Disconnected));
                });
            }
            (0..3000).for_each(|n| tx.send(&Tick::number(n)).unwrap());
            drop(tx);
        });
        assert!(home.is_empty());
    }
}

#[test]
fn the_slowest_is_named_and_how_far_it_is_behind() {
    let home = Home::new();
    let channel = home.channel("shm://ticks?kind=broadcast&overflow=block&capacity=4KiB");
    let _slow = channel.receiver::<Tick>().unwrap();
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut sent = 0;
    while tx.try_send(&Tick::number(sent)).is_ok() {
        sent += 1;
    }
    let error = tx.send_timeout(&Tick::number(0), Duration::from_millis(20)).unwrap_err();
    let SendError::Timeout { lag: Some(lag), peer: Some(peer) } = error else { panic!("{error}") };
    assert_eq!(lag.messages, u64::from(sent));
    assert!(lag.since >= Duration::from_millis(20));
    assert_eq!(peer.to_string(), format!("process {}", std::process::id()));
    assert!(error.to_string().contains(&format!("is {sent} messages behind")), "{error}");
}

/// What was missed, and what was got, add up.
#[test]
fn who_is_overwritten_is_told_how_much() {
    for wait in WAITS {
        let home = Home::new();
        let channel =
            home.channel("shm://ticks?kind=broadcast&overflow=overwrite&capacity=4KiB").wait(wait);
        let mut rx = channel.receiver::<Tick>().unwrap();
        let mut tx = channel.sender::<Tick>().unwrap();
        let mut next = 0;
        for burst in [3, 50, 1000, 7, 4000, 129, 130, 131] {
            let end = tx.stats().sent as u32 + burst;
            for n in tx.stats().sent as u32..end {
                tx.try_send(&Tick::number(n)).unwrap();
            }
            let mut got = 0;
            while next < end {
                match number(&mut rx) {
                    Ok(n) => {
                        assert_eq!(n, next);
                        next += 1;
                        got += 1;
                    }
                    Err(RecvError::Lagged { missed }) => next += missed as u32,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(got > 0);
            assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        }
        assert!(rx.stats().missed > 0);
        drop(tx);
        assert_eq!(number(&mut rx), Err(RecvError::Disconnected));
        drop(rx);
        assert!(home.is_empty());
    }
}

#[test]
fn history_is_for_who_comes_late() {
    for overflow in Overflow::ALL {
        let home = Home::new();
        let channel = home.channel("shm://ticks?kind=broadcast&history=5").overflow(overflow);
        let mut tx = channel.sender::<Tick>().unwrap();
        for n in 0..100 {
            tx.send(&Tick::number(n)).unwrap();
            let mut rx = channel.receiver::<Tick>().unwrap();
            for expected in (n + 1).saturating_sub(5)..=n {
                assert_eq!(number(&mut rx), Ok(expected));
            }
            assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        }
        let batch: Vec<Tick> = (100..150).map(Tick::number).collect();
        tx.send_batch(&batch).unwrap();
        let mut rx = channel.receiver::<Tick>().unwrap();
        (145..150).for_each(|n| assert_eq!(number(&mut rx), Ok(n)));
    }
}

#[test]
fn who_wants_the_newest_gets_that_alone() {
    for overflow in Overflow::ALL {
        let home = Home::new();
        let channel = home.channel("shm://ticks?kind=broadcast&capacity=4KiB").overflow(overflow);
        let mut rx = channel.clone().read(Read::Newest).receiver::<Tick>().unwrap();
        let mut tx = channel.sender::<Tick>().unwrap();
        let mut sent = 0;
        for burst in [1, 2, 50, 3, 60, 1, 1] {
            for _ in 0..burst {
                tx.try_send(&Tick::number(sent)).unwrap();
                sent += 1;
            }
            assert_eq!(number(&mut rx), Ok(sent - 1));
            assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
            // Of many under one header, too.
            let batch: Vec<Tick> = (sent..sent + 10).map(Tick::number).collect();
            tx.try_send_batch(&batch).unwrap();
            sent += 10;
            assert_eq!(number(&mut rx), Ok(sent - 1));
            assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        }
        if overflow == Overflow::Overwrite {
            for _ in 0..3000 {
                tx.try_send(&Tick::number(sent)).unwrap();
                sent += 1;
            }
            assert_eq!(number(&mut rx), Ok(sent - 1));
        }
    }
}

#[test]
fn options_of_one_kind_are_none_of_another() {
    let home = Home::new();
    let spsc = home.channel("shm://ticks");
    let error = spsc.clone().overflow(Overflow::Overwrite).sender::<Tick>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOption);
    let error = spsc.clone().read(Read::Newest).receiver::<Tick>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OptionMismatch);
    assert!(error.to_string().contains("the channel has kind=spsc"), "{error}");
    assert!(home.is_empty());
    let tx = spsc.clone().kind(Kind::Broadcast).sender::<Tick>().unwrap();
    let error = spsc.clone().kind(Kind::Spsc).receiver::<Tick>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OptionMismatch);
    for piece in ["kind=broadcast&overflow=block&history=0", "asks for kind=spsc"] {
        assert!(error.to_string().contains(piece), "{error}");
    }
    drop(tx);
    assert!(home.is_empty());
}

#[test]
fn addresses_say_it_too() {
    let read = |address: &str| Builder::new(address).unwrap();
    assert_eq!(
        read("shm://a?kind=broadcast&overflow=overwrite&history=7&read=newest"),
        read("shm://a")
            .kind(Kind::Broadcast)
            .overflow(Overflow::Overwrite)
            .history(7)
            .read(Read::Newest)
    );
}

/// A record has no more than 2^20 of them, however small they are.
#[test]
fn a_batch_of_more_than_a_record_may_have_is_split() {
    const COUNT: usize = (1 << 20) + 1000;
    for address in [
        "shm://bytes?capacity=16MiB",
        "shm://bytes?capacity=16MiB&kind=broadcast&overflow=block",
        "shm://bytes?capacity=16MiB&kind=broadcast&overflow=overwrite",
    ] {
        let home = Home::new();
        let channel = home.channel(address);
        let mut rx = channel.receiver::<u8>().unwrap();
        let mut tx = channel.sender::<u8>().unwrap();
        let bytes: Vec<u8> = (0..COUNT).map(|n| n as u8).collect();
        assert_eq!(tx.try_send_batch(&bytes).unwrap().messages, COUNT, "{address}");
        for byte in bytes {
            assert_eq!(*rx.try_recv().unwrap(), byte);
        }
    }
}
