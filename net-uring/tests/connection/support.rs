//! What these tests share: options on a free port, messages whose every byte can be checked.

use ringway_net::backend::Chosen;
use ringway_net::session::Format;
use ringway_net::{Backend, NetReceiver, NetSender, Options, Side, Wait};
pub use ringway_testing::{PATIENCE, wait_until};

pub const WAITS: [Wait; 3] = [Wait::Spin, Wait::Adaptive, Wait::Park];

/// The way rkyv's archives look on the machines that run these tests.
pub const FORMAT: Format = Format { endian: 1, pointer: 4, align: 8 };

/// What the end that binds runs on, if this system has it.
pub fn first() -> Backend {
    had(crate::BACKENDS.0)
}

/// What the other end runs on.
pub fn second() -> Backend {
    had(crate::BACKENDS.1)
}

fn had(backend: Backend) -> Backend {
    match Chosen::open(backend) {
        Ok(_) => backend,
        Err(error) => {
            println!("skipped: {error}");
            Backend::Auto
        }
    }
}

/// A channel at a port of loopback's, 0 for any.
pub fn options(port: u16) -> Options {
    let mut options = Options::new("127.0.0.1", port, "ticks", 0x1234, FORMAT);
    options.capacity = 64 << 10;
    options.backend = first();
    options.io = crate::IO;
    options
}

/// The same for the other end of what is bound there.
pub fn to(options: &Options, address: std::net::SocketAddr) -> Options {
    let backend = second();
    Options { port: address.port(), side: Side::Connect, backend, ..options.clone() }
}

/// A receiver that binds, and the sender that connects to it.
pub fn bound_receiver(options: &Options) -> (NetSender, NetReceiver) {
    let rx = NetReceiver::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let tx = NetSender::open(&to(options, rx.local_addr().unwrap())).unwrap();
    (tx, rx)
}

/// A sender that binds, and the receiver that connects to it.
pub fn bound_sender(options: &Options) -> (NetSender, NetReceiver) {
    let tx = NetSender::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let rx = NetReceiver::open(&to(options, tx.local_addr().unwrap())).unwrap();
    (tx, rx)
}

/// How long message `index` is.
pub fn length(index: u64, max: usize) -> usize {
    (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % (max - 8) + 8
}

/// Message `index`: its number, and bytes that follow from it.
pub fn fill(body: &mut [u8], index: u64) {
    let (number, rest) = body.split_at_mut(8);
    number.copy_from_slice(&index.to_le_bytes());
    for (offset, byte) in rest.iter_mut().enumerate() {
        *byte = (index as usize * 7 + offset) as u8;
    }
}

/// The number of a message, whose every byte is checked.
pub fn check(body: &[u8]) -> u64 {
    let (number, rest) = body.split_first_chunk::<8>().expect("a message without a number");
    let index = u64::from_le_bytes(*number);
    for (offset, byte) in rest.iter().enumerate() {
        assert_eq!(*byte, (index as usize * 7 + offset) as u8, "message {index}, byte {offset}");
    }
    index
}

/// Sends message `index`, waiting for room.
pub fn send(tx: &mut NetSender, index: u64, max: usize) {
    let len = length(index, max);
    let mut claim = tx.claim_timeout(len, PATIENCE).unwrap();
    fill(&mut claim, index);
    claim.commit().unwrap();
}

/// Receives a message that must be number `index`.
pub fn expect(rx: &mut NetReceiver, index: u64, max: usize) {
    if let Err(error) = rx.recv_timeout(PATIENCE).map(std::mem::forget) {
        panic!("instead of message {index}: {error}; {:?}, {:?}", rx.trouble(), rx.stats());
    }
    let message = rx.try_recv().unwrap();
    assert_eq!(check(&message), index);
    assert_eq!(message.len(), length(index, max));
}
