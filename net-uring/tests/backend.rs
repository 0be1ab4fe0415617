//! The seam and the backends behind it, without any protocol on top.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ringway_net::backend::fake::{self, Step};
use ringway_net::backend::{Backend, Chosen, Completion, Errno, Kind, Watch};
use ringway_net::fork::OwnSocket;
use ringway_net::mirror::Span;

/// Far beyond what the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Memory to send from and receive into.
struct Memory(Box<[u8]>);

impl Memory {
    fn new(len: usize) -> Self {
        Self((0..len).map(|index| (index * 31 + 7) as u8).collect())
    }

    fn span(&mut self) -> Span {
        Span { start: self.0.as_mut_ptr(), len: self.0.len() }
    }
}

/// Each of the backends that this system has.
fn each(test: impl Fn(Chosen)) {
    for which in [ringway_net::Backend::Epoll, ringway_net::Backend::Uring] {
        match Chosen::open(which) {
            Ok(backend) => {
                assert_eq!(backend.name(), which.name());
                test(backend);
            }
            Err(error) => println!("skipped: {which}: {error}"),
        }
    }
}

/// Gives a backend a real connection, whose other end is returned.
fn connect(backend: &mut Chosen) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    backend.attach(OwnSocket::open(|| std::io::Result::Ok(OwnedFd::from(stream))).unwrap());
    other
}

/// Turns and parks until something completes.
fn completion(backend: &mut impl Backend) -> Completion {
    let start = Instant::now();
    loop {
        backend.turn();
        if let Some(completion) = backend.complete() {
            return completion;
        }
        assert!(start.elapsed() < PATIENCE, "nothing completed");
        backend.park(Duration::from_millis(50));
    }
}

fn submit(backend: &mut impl Backend, kind: Kind, memory: &mut Memory) {
    // SAFETY: the tests keep the memory until the end, and touch it only in between.
    unsafe { backend.submit(kind, memory.span()) };
}

#[test]
fn bytes_go_both_ways() {
    each(|mut backend| {
        let mut other = connect(&mut backend);
        let (mut out, mut room) = (Memory::new(1000), Memory::new(300));
        let expected = out.0.to_vec();
        submit(&mut backend, Kind::Send, &mut out);
        submit(&mut backend, Kind::Recv, &mut room);
        assert_eq!(completion(&mut backend), Completion { kind: Kind::Send, result: Ok(1000) });
        let mut came = vec![0; 1000];
        other.read_exact(&mut came).unwrap();
        assert_eq!(came, expected);
        assert!(backend.is_outstanding(Kind::Recv) && !backend.is_outstanding(Kind::Send));
        other.write_all(b"hello").unwrap();
        assert_eq!(completion(&mut backend), Completion { kind: Kind::Recv, result: Ok(5) });
        assert_eq!(&room.0[..5], b"hello");
        // More than there is room for comes in two.
        other.write_all(&expected[..400]).unwrap();
        let mut seen: Vec<u8> = Vec::new();
        while seen.len() < 400 {
            submit(&mut backend, Kind::Recv, &mut room);
            let count = completion(&mut backend).result.unwrap();
            seen.extend(&room.0[..count]);
        }
        assert_eq!(seen, expected[..400]);
        other.shutdown(Shutdown::Write).unwrap();
        submit(&mut backend, Kind::Recv, &mut room);
        assert_eq!(completion(&mut backend), Completion { kind: Kind::Recv, result: Ok(0) });
    });
}

#[test]
fn what_the_kernel_does_not_take_stays() {
    each(|mut backend| {
        let mut other = connect(&mut backend);
        let mut out = Memory::new(64 << 20);
        let expected = out.0.to_vec();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            other.read_to_end(&mut all).unwrap();
            all
        });
        let span = out.span();
        let (mut sent, mut pieces) = (0, 0);
        while sent < span.len {
            let rest = Span { start: span.start.wrapping_add(sent), len: span.len - sent };
            // SAFETY: inside `out`, which lives to the end.
            unsafe { backend.submit(Kind::Send, rest) };
            let Completion { kind: Kind::Send, result: Ok(count) } = completion(&mut backend)
            else {
                panic!("a send that failed");
            };
            assert!(count > 0);
            (sent, pieces) = (sent + count, pieces + 1);
        }
        assert!(pieces > 1, "64 MiB at once: nothing was held back");
        drop(backend.detach().unwrap());
        assert!(reader.join().unwrap() == expected);
    });
}

#[test]
fn a_recall_gives_the_span_back() {
    each(|mut backend| {
        let mut other = connect(&mut backend);
        let mut room = Memory::new(100);
        let before = room.0.clone();
        submit(&mut backend, Kind::Recv, &mut room);
        backend.turn();
        assert!(backend.recall(Kind::Recv));
        assert!(!backend.is_outstanding(Kind::Recv));
        other.write_all(b"not for that room").unwrap();
        backend.park(PATIENCE);
        backend.turn();
        assert_eq!(backend.complete(), None);
        assert_eq!(room.0, before);
        // Nothing was lost by it.
        submit(&mut backend, Kind::Recv, &mut room);
        assert_eq!(completion(&mut backend).result, Ok(17));
    });
}

#[test]
fn what_completed_cannot_be_recalled() {
    each(|mut backend| {
        let mut other = connect(&mut backend);
        let mut room = Memory::new(100);
        other.write_all(b"early").unwrap();
        backend.park(PATIENCE);
        submit(&mut backend, Kind::Recv, &mut room);
        backend.turn();
        assert!(!backend.recall(Kind::Recv));
        assert_eq!(backend.complete(), Some(Completion { kind: Kind::Recv, result: Ok(5) }));
    });
}

#[test]
fn a_park_ends_when_there_is_news() {
    each(|mut backend| {
        let mut other = connect(&mut backend);
        let mut room = Memory::new(100);
        submit(&mut backend, Kind::Recv, &mut room);
        let start = Instant::now();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.write_all(b"x").unwrap();
            other
        });
        assert_eq!(completion(&mut backend).result, Ok(1));
        assert!(start.elapsed() < PATIENCE);
        drop(writer.join().unwrap());
        // And by itself when there is none: time-outs below a millisecond included.
        let start = Instant::now();
        backend.park(Duration::from_micros(300));
        backend.park(Duration::from_millis(3));
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn a_watched_descriptor_ends_a_park() {
    each(|mut backend| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        backend.watch(listener.as_fd(), Watch::Door);
        let address: SocketAddr = listener.local_addr().unwrap();
        let caller = std::thread::spawn(move || TcpStream::connect(address).unwrap());
        let start = Instant::now();
        backend.park(PATIENCE);
        assert!(start.elapsed() < PATIENCE);
        drop(caller.join().unwrap());
    });
}

#[test]
fn a_bell_ends_a_park_though_there_is_a_connection() {
    each(|mut backend| {
        let _other = connect(&mut backend);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Of a door that is watched as well: it has nothing to say.
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        backend.watch(door.as_fd(), Watch::Door);
        backend.watch(listener.as_fd(), Watch::Bell);
        let mut room = Memory::new(100);
        submit(&mut backend, Kind::Recv, &mut room);
        backend.turn();
        // What the first edge of a new connection may be.
        backend.park(Duration::from_millis(1));
        let address: SocketAddr = listener.local_addr().unwrap();
        let caller = std::thread::spawn(move || TcpStream::connect(address).unwrap());
        let start = Instant::now();
        backend.park(PATIENCE);
        assert!(start.elapsed() < PATIENCE);
        assert!(backend.is_outstanding(Kind::Recv));
        drop(caller.join().unwrap());
    });
}

#[test]
fn a_signal_shortens_a_park_and_no_more() {
    each(|mut backend| {
        extern "C" fn nothing(_: libc::c_int) {}
        let handler: extern "C" fn(libc::c_int) = nothing;
        // SAFETY: the handler does nothing, and no SA_RESTART: system calls return EINTR.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        }
        let mut other = connect(&mut backend);
        let mut room = Memory::new(100);
        submit(&mut backend, Kind::Recv, &mut room);
        // SAFETY: asks for a number.
        let me = unsafe { libc::pthread_self() };
        let pest = std::thread::spawn(move || {
            for _ in 0..50 {
                // SAFETY: the thread joins this one before it ends.
                unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
            other.write_all(b"after all").unwrap();
            other
        });
        assert_eq!(completion(&mut backend), Completion { kind: Kind::Recv, result: Ok(9) });
        drop(pest.join().unwrap());
    });
}

#[test]
fn a_reset_is_told() {
    each(|mut backend| {
        let other = connect(&mut backend);
        let (mut out, mut room) = (Memory::new(100), Memory::new(100));
        submit(&mut backend, Kind::Send, &mut out);
        assert_eq!(completion(&mut backend).result, Ok(100));
        // With an unread byte, close is a reset.
        drop(other);
        submit(&mut backend, Kind::Recv, &mut room);
        assert_eq!(completion(&mut backend).result, Err(Errno(libc::ECONNRESET)));
        submit(&mut backend, Kind::Send, &mut out);
        assert_eq!(completion(&mut backend).result, Err(Errno(libc::EPIPE)));
    });
}

#[test]
fn another_socket_starts_afresh() {
    each(|mut backend| {
        let mut other = connect(&mut backend);
        let mut room = Memory::new(100);
        other.write_all(b"stale").unwrap();
        backend.park(PATIENCE);
        submit(&mut backend, Kind::Recv, &mut room);
        backend.turn();
        drop(backend.detach().unwrap());
        assert!(!backend.is_outstanding(Kind::Recv) && backend.socket().is_none());
        // Without a socket nothing is taken and nothing happens.
        submit(&mut backend, Kind::Recv, &mut room);
        backend.turn();
        assert!(!backend.is_outstanding(Kind::Recv) && backend.complete().is_none());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        backend.attach(OwnSocket::open(|| std::io::Result::Ok(OwnedFd::from(stream))).unwrap());
        second.write_all(b"new").unwrap();
        submit(&mut backend, Kind::Recv, &mut room);
        assert_eq!(completion(&mut backend).result, Ok(3));
        assert_eq!(&room.0[..3], b"new");
    });
}

/// Passes `bytes` from one end of a scripted stream to the other and returns what arrived.
fn through(mut from: fake::Fake, mut to: fake::Fake, bytes: usize) -> Vec<u8> {
    let (mut out, mut room) = (Memory::new(bytes), Memory::new(777));
    let span = out.span();
    let (mut sent, mut all) = (0, Vec::new());
    let start = Instant::now();
    while all.len() < bytes {
        assert!(start.elapsed() < PATIENCE, "{} of {bytes} bytes came through", all.len());
        if sent < bytes && !from.is_outstanding(Kind::Send) {
            let rest = Span { start: span.start.wrapping_add(sent), len: bytes - sent };
            // SAFETY: inside `out`, which lives to the end.
            unsafe { from.submit(Kind::Send, rest) };
        }
        if !to.is_outstanding(Kind::Recv) {
            submit(&mut to, Kind::Recv, &mut room);
        }
        from.turn();
        to.turn();
        while let Some(Completion { result, .. }) = from.complete() {
            match result {
                Ok(count) => sent += count,
                Err(errno) => assert!(errno.is_later(), "{errno}"),
            }
        }
        while let Some(Completion { result, .. }) = to.complete() {
            match result {
                Ok(count) => all.extend(&room.0[..count]),
                Err(errno) => assert!(errno.is_later(), "{errno}"),
            }
        }
    }
    all
}

#[test]
fn the_fake_loses_and_doubles_nothing() {
    let (mut from, mut to) = fake::pair(3000);
    from.script(Kind::Send, [Step::Short(3), Step::Late, Step::Fail(libc::EINTR), Step::Late]);
    to.script(Kind::Recv, [Step::Late, Step::Short(1), Step::Fail(libc::EAGAIN), Step::Short(2)]);
    assert_eq!(through(from, to, 20_000), *Memory::new(20_000).0);
    for seed in 0..50 {
        let (mut from, mut to) = fake::pair(1 + seed as usize * 100);
        from.chance(seed);
        to.chance(!seed);
        assert_eq!(through(from, to, 10_000), *Memory::new(10_000).0, "seed {seed}");
    }
}

#[test]
fn the_fake_orders_cancels_and_breaks_as_told() {
    let (mut one, mut other) = fake::pair(1000);
    let (mut out, mut room) = (Memory::new(10), Memory::new(10));
    // Both complete in one turn, the receive first.
    submit(&mut other, Kind::Send, &mut out);
    other.turn();
    assert_eq!(other.complete().map(|done| done.result), Some(Ok(10)));
    one.newest_first(true);
    submit(&mut one, Kind::Send, &mut out);
    submit(&mut one, Kind::Recv, &mut room);
    one.turn();
    assert_eq!(one.complete(), Some(Completion { kind: Kind::Recv, result: Ok(10) }));
    assert_eq!(one.complete(), Some(Completion { kind: Kind::Send, result: Ok(10) }));
    // A recall that comes too late.
    submit(&mut one, Kind::Recv, &mut room);
    one.recalls_late(true);
    assert!(!one.recall(Kind::Recv));
    let cancelled = Completion { kind: Kind::Recv, result: Err(Errno(libc::ECANCELED)) };
    assert_eq!(one.complete(), Some(cancelled));
    // A break, with three of the bytes on their way still arriving.
    submit(&mut one, Kind::Send, &mut out);
    one.turn();
    assert_eq!((one.complete().unwrap().result, one.in_flight()), (Ok(10), 20));
    one.cut(3);
    submit(&mut other, Kind::Recv, &mut room);
    other.turn();
    assert_eq!(other.complete().unwrap().result, Ok(3));
    submit(&mut other, Kind::Recv, &mut room);
    other.turn();
    assert_eq!(other.complete().unwrap().result, Err(Errno(libc::ECONNRESET)));
}

#[test]
#[should_panic(expected = "changed while they were being sent")]
fn the_fake_sees_who_writes_to_what_is_sent() {
    let (mut one, _other) = fake::pair(1000);
    let mut out = Memory::new(10);
    one.script(Kind::Send, [Step::Late]);
    submit(&mut one, Kind::Send, &mut out);
    one.turn();
    out.0[3] ^= 1;
    one.turn();
}
