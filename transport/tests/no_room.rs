//! What a send of a typed message says when there is no room for it, and that it goes through when there is: of types
//! that lie in line, of those with parts out of line, and of those too long to be encoded anywhere else first.

mod common;

use std::time::Duration;

use common::{Book, Home, Tick};
use ringway::{Describe, Message, Receiver, SendError, Sender, rkyv};

/// Longer than what is encoded on the stack.
#[derive(rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Page {
    number: u64,
    words: [u64; 63],
}

/// Owns nothing that it would have to free, and has a part out of line all the same.
#[derive(rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Lent {
    number: u32,
    #[rkyv(with = rkyv::with::InlineAsBox)]
    #[describe(opaque = "text")]
    text: &'static str,
}

/// Channels with room for a few hundred ticks at most, none of which loses anything.
const CHANNELS: [&str; 3] = [
    "shm://full?capacity=4KiB",
    "shm://full?kind=broadcast&capacity=4KiB",
    "shm://full?kind=mpmc&slots=4&slot=1KiB",
];

/// Sends until there is no room, and again when there is, three times, and so also where a message does not fit into
/// what is left before the end of a ring.
fn fills_and_goes_on<T: Message>(message: impl Fn(usize) -> T, check: impl Fn(&T::View, usize)) {
    for address in CHANNELS {
        let home = Home::new();
        let channel = home.channel(address);
        let mut rx: Receiver<T> = channel.receiver().unwrap();
        let mut tx: Sender<T> = channel.sender().unwrap();
        let (mut sent, mut received) = (0, 0);
        for _ in 0..3 {
            let error = loop {
                match tx.try_send(&message(sent)) {
                    Ok(()) => sent += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, SendError::Full { .. }), "{address}: {error}");
            assert!(sent > received, "{address}: nothing fits");
            let error = tx.send_timeout(&message(sent), Duration::from_millis(1)).unwrap_err();
            assert!(matches!(error, SendError::Timeout { .. }), "{address}: {error}");
            while received < sent {
                check(&rx.try_recv().unwrap(), received);
                received += 1;
            }
            tx.send(&message(sent)).unwrap();
            sent += 1;
        }
    }
}

#[test]
fn messages_in_line_wait_for_room() {
    fills_and_goes_on(
        |n| Tick::number(n as u32),
        |view, n| assert_eq!(view.quantity.to_native(), n as u32),
    );
}

#[test]
fn messages_with_parts_out_of_line_wait_for_room() {
    fills_and_goes_on(|n| Book::number(n % 7), |view, n| Book::check(view, n % 7));
}

#[test]
fn long_messages_wait_for_room() {
    fills_and_goes_on(
        |n| Page { number: n as u64, words: [!(n as u64); 63] },
        |view, n| {
            assert_eq!(view.number.to_native(), n as u64);
            assert!(view.words.iter().all(|word| word.to_native() == !(n as u64)));
        },
    );
}

#[test]
fn what_can_never_fit_is_too_large() {
    fn is_refused<T: Message>(address: &str, message: &T) {
        let home = Home::new();
        let channel = home.channel(address);
        let _rx: Receiver<T> = channel.receiver().unwrap();
        let mut tx: Sender<T> = channel.sender().unwrap();
        for result in [tx.try_send(message), tx.send(message), tx.try_queue(message)] {
            assert!(matches!(result, Err(SendError::TooLarge { .. })), "{address}: {result:?}");
        }
    }
    is_refused("shm://narrow?kind=mpmc&slots=4&slot=16", &Tick::number(1));
    is_refused("shm://narrow?kind=mpmc&slots=4&slot=16", &Book::number(4));
    is_refused("shm://narrow?kind=mpmc&slots=4&slot=16", &Page { number: 1, words: [0; 63] });
    let long = Book { product: "x".repeat(4096), ..Book::number(1) };
    is_refused("shm://narrow?capacity=4KiB", &long);
    is_refused("shm://narrow?kind=broadcast&capacity=4KiB", &long);
}

#[test]
fn messages_longer_than_was_guessed_go_through() {
    const TEXTS: [&str; 3] =
        ["", "short", "longer than anything that would fit into the room for the rest"];
    fills_and_goes_on(
        |n| Lent { number: n as u32, text: TEXTS[n % 3] },
        |view, n| {
            assert_eq!(view.number.to_native(), n as u32);
            assert_eq!(*view.text, *TEXTS[n % 3]);
        },
    );
}
