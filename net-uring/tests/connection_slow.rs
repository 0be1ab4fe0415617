//! Connections that take their time, as every one does that is not to this host.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ringway_net::session::Format;
use ringway_net::{Backend, NetSender, Options, Side};
use ringway_testing::{PATIENCE, wait_until};
use socket2::{Domain, Socket, Type};

/// An open waits no longer for its connection.
const FIRST_DIAL: Duration = Duration::from_millis(1_500);
/// On a machine on which it took longer, which is no fault: so often again.
const TRIES: usize = 20;

/// A listener before which one waits, so that nobody else gets in until that one is taken in.
fn full_door() -> (TcpListener, TcpStream) {
    let door = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    door.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    door.listen(0).unwrap();
    let door = TcpListener::from(door);
    let waits = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    (door, waits)
}

/// Whether somebody of this host is still connecting to that port, as the kernel tells.
fn is_knocking(port: u16) -> bool {
    const SYN_SENT: &str = "02";
    let wanted = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|to| to.ends_with(&wanted)) && fields.next() == Some(SYN_SENT)
    })
}

/// Who opens, sends, and then calls the sender no more: because it waits for an answer on another channel.
#[test]
fn what_is_sent_after_an_open_leaves_without_another_call() {
    for backend in [Backend::Auto, Backend::Epoll] {
        assert!((0..TRIES).any(|_| leaves(backend)), "no open in time");
    }
}

/// Sends after an open that waits for its connection. False: that was not there in time.
fn leaves(backend: Backend) -> bool {
    let (door, waits) = full_door();
    let port = door.local_addr().unwrap().port();
    let opens = std::thread::spawn(move || {
        let format = Format { endian: 1, pointer: 8, align: 8 };
        let options = Options::new("127.0.0.1", port, "requests", 7, format);
        let options = Options { side: Side::Connect, linger: Duration::ZERO, backend, ..options };
        let start = Instant::now();
        let mut tx = NetSender::open(&options).unwrap();
        let opened_in = start.elapsed();
        let mut request = tx.try_claim(1000).unwrap();
        request.fill(b'?');
        request.commit().unwrap();
        (tx, opened_in)
    });
    wait_until("a knock", || is_knocking(port));
    let (taken, _) = door.accept().unwrap();
    drop((taken, waits));
    let (mut hears, _) = door.accept().unwrap();
    let (_tx, opened_in) = opens.join().unwrap();
    if opened_in >= FIRST_DIAL {
        return false;
    }
    hears.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut heard, mut bytes) = (0, [0; 4096]);
    while heard < 1000 {
        let came = hears.read(&mut bytes).expect("the request, of which nothing came");
        assert_ne!(came, 0, "it was closed");
        heard += bytes[..came].iter().filter(|&&byte| byte == b'?').count();
    }
    true
}
