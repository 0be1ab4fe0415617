//! Batches that turn out to be otherwise than they looked at first. What all batches do is in `contract`.

mod common;

use common::{Book, Home};
use ringway::{Receiver, Sender};

/// Slots that are given up stay in the way until a receiver comes by. So a batch whose messages have parts out of
/// line, which shows with the first one, gives no more up than it takes then.
#[test]
fn a_batch_with_parts_out_of_line_fits_into_twice_its_slots() {
    let home = Home::new();
    let channel = home.channel("shm://books?kind=mpmc&slots=64&slot=2KiB");
    let mut tx: Sender<Book> = channel.sender().unwrap();
    let books: Vec<Book> = (0..32).map(Book::number).collect();
    let sent = tx.try_send_batch(&books).unwrap();
    assert_eq!((sent.messages, sent.publications), (32, 1));
    let mut rx: Receiver<Book> = channel.receiver().unwrap();
    for n in 0..32 {
        Book::check(&rx.try_recv().unwrap(), n);
    }
}
