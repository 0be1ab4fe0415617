//! What is io_uring's own: who owns memory and when, threads, and systems that deny it.

#[path = "uring/child.rs"]
mod child;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use child::{deny, role, run, run_unheard};
use ringway_net::backend::uring::in_flight_and_overflows;
use ringway_net::backend::{Backend as _, Completion, Errno, Kind, Uring, Watch};
use ringway_net::fork::OwnSocket;
use ringway_net::mirror::Span;
use ringway_net::session::Format;
use ringway_net::{
    Backend, Error, ErrorKind, NetReceiver, NetSender, Options, RecvError, SendError, Side, Wait,
};

/// Far beyond what the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A backend, or why this system has none.
fn uring() -> Option<Uring> {
    Uring::new().inspect_err(|errno| println!("skipped: no io_uring here ({errno})")).ok()
}

fn options(backend: Backend) -> Options {
    let format = Format { endian: 1, pointer: 4, align: 8 };
    let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
    options.capacity = 64 << 10;
    options.backend = backend;
    options
}

/// Both ends of a channel, the sender connecting.
fn ends(options: &Options) -> Result<(NetSender, NetReceiver), Error> {
    let rx = NetReceiver::open(&Options { side: Side::Bind, ..options.clone() })?;
    let port = rx.local_addr().unwrap().port();
    let tx = NetSender::open(&Options { side: Side::Connect, port, ..options.clone() })?;
    Ok((tx, rx))
}

/// Gives a backend a real connection, whose other end is returned.
fn connect(backend: &mut Uring) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    backend.attach(OwnSocket::open(|| std::io::Result::Ok(OwnedFd::from(stream))).unwrap());
    other
}

fn span(memory: &mut [u8]) -> Span {
    Span { start: memory.as_mut_ptr(), len: memory.len() }
}

/// Sends number `index` and receives it, each end parking.
fn pass(tx: &mut NetSender, rx: &mut NetReceiver, index: u64) {
    let mut claim = tx.claim_timeout(8, PATIENCE).unwrap();
    claim.copy_from_slice(&index.to_le_bytes());
    claim.commit().unwrap();
    assert_eq!(*rx.recv_timeout(PATIENCE).unwrap(), index.to_le_bytes());
}

/// A park and a turn, and that the kernel holds nothing afterwards.
fn park(backend: &mut Uring, timeout: Duration) -> Option<Completion> {
    backend.park(timeout);
    assert_eq!(in_flight_and_overflows(), (0, 0));
    backend.turn();
    backend.complete()
}

#[test]
fn a_park_receives_what_ends_it() {
    let Some(mut backend) = uring() else { return };
    let mut other = connect(&mut backend);
    let mut room = vec![0; 100];
    // SAFETY: the room lives to the end, and is looked at only in between; so in all tests here.
    unsafe { backend.submit(Kind::Recv, span(&mut room)) };
    other.write_all(b"hello").unwrap();
    backend.park(PATIENCE);
    // Without a turn: the sleep itself received.
    assert_eq!(backend.complete(), Some(Completion { kind: Kind::Recv, result: Ok(5) }));
    assert_eq!(&room[..5], b"hello");
}

#[test]
fn a_park_leaves_nothing_with_the_kernel() {
    let Some(mut backend) = uring() else { return };
    let mut other = connect(&mut backend);
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    backend.watch(door.as_fd(), Watch::Bell);
    // A socket whose buffers are full, so that the send waits as well.
    let mut out = vec![7; 64 << 20];
    let mut sent = 0;
    let mut room = vec![0; 100];
    let full = |backend: &mut Uring, out: &mut [u8], sent: &mut usize| {
        loop {
            // SAFETY: `out` lives to the end and stays as it is.
            unsafe { backend.submit(Kind::Send, span(&mut out[*sent..])) };
            backend.turn();
            match backend.complete() {
                Some(Completion { result, .. }) => *sent += result.unwrap(),
                None => return,
            }
        }
    };
    full(&mut backend, &mut out, &mut sent);
    // SAFETY: as above.
    unsafe { backend.submit(Kind::Recv, span(&mut room)) };
    let mut micros = [0, 1, 50, 1000, 10_000].into_iter().peekable();
    while let Some(limit) = micros.peek() {
        match park(&mut backend, Duration::from_micros(*limit)) {
            None => {
                assert!(backend.is_outstanding(Kind::Send) && backend.is_outstanding(Kind::Recv));
                micros.next();
            }
            // The other side's buffer has grown.
            Some(Completion { kind, result }) => {
                assert_eq!(kind, Kind::Send);
                sent += result.unwrap();
                full(&mut backend, &mut out, &mut sent);
            }
        }
    }
    // What the park had posted and took back is received by somebody else.
    assert!(backend.recall(Kind::Recv));
    let before = room.clone();
    other.write_all(b"late").unwrap();
    if let Some(Completion { kind, result }) = park(&mut backend, Duration::from_millis(1)) {
        assert_eq!(kind, Kind::Send);
        sent += result.unwrap();
    }
    assert_eq!(room, before);
    // A knock ends a park that has all three posted.
    let _knock = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    let mut elsewhere = vec![0; 100];
    // SAFETY: as above.
    unsafe { backend.submit(Kind::Recv, span(&mut elsewhere)) };
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE);
        match park(&mut backend, PATIENCE) {
            Some(Completion { kind: Kind::Recv, result }) => {
                assert_eq!(result, Ok(4));
                break;
            }
            Some(Completion { kind: Kind::Send, result }) => sent += result.unwrap(),
            None => {}
        }
    }
    assert!(room == before && elsewhere.starts_with(b"late"));
    // And the send goes on where it was when there is room again.
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        all.len()
    });
    let total = out.len();
    let start = Instant::now();
    while sent < total {
        assert!(start.elapsed() < PATIENCE);
        if !backend.is_outstanding(Kind::Send) {
            // SAFETY: as above.
            unsafe { backend.submit(Kind::Send, span(&mut out[sent..])) };
        }
        if let Some(Completion { kind, result }) = park(&mut backend, Duration::from_millis(50)) {
            assert_eq!(kind, Kind::Send);
            sent += result.unwrap();
        }
    }
    drop(backend.detach().unwrap());
    assert_eq!(reader.join().unwrap(), total);
}

#[test]
fn a_door_costs_a_park_nothing_while_there_is_a_connection() {
    let Some(mut backend) = uring() else { return };
    let mut other = connect(&mut backend);
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    backend.watch(door.as_fd(), Watch::Door);
    let _knock = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    let mut room = vec![0; 100];
    // SAFETY: as above.
    unsafe { backend.submit(Kind::Recv, span(&mut room)) };
    // It is not asked for: whoever knocks waits for the end of the park.
    let (start, limit) = (Instant::now(), Duration::from_millis(20));
    assert_eq!(park(&mut backend, limit), None);
    assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
    other.write_all(b"hello").unwrap();
    backend.park(PATIENCE);
    assert_eq!(backend.complete(), Some(Completion { kind: Kind::Recv, result: Ok(5) }));
    // Without a connection it ends the park at once.
    drop(backend.detach().unwrap());
    let start = Instant::now();
    assert_eq!(park(&mut backend, PATIENCE), None);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn a_dial_ends_a_park_whatever_comes_of_it() {
    let Some(mut backend) = uring() else { return };
    let tuning = ringway_net::socket::Tuning::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    backend.attach(ringway_net::socket::connect(address, &tuning).unwrap());
    let start = Instant::now();
    while !ringway_net::socket::connected(&backend.socket().unwrap()).unwrap() {
        backend.park(PATIENCE);
        assert!(start.elapsed() < PATIENCE);
    }
    drop(backend.detach().unwrap());
    drop(listener);
    // Refused: at once, or when it is asked about.
    if let Ok(socket) = ringway_net::socket::connect(address, &tuning) {
        backend.attach(socket);
        let refusal = loop {
            match ringway_net::socket::connected(&backend.socket().unwrap()) {
                Ok(true) => panic!("connected with nobody"),
                Ok(false) => backend.park(PATIENCE),
                Err(error) => break error,
            }
            assert!(start.elapsed() < PATIENCE);
        };
        assert_eq!(refusal.raw_os_error(), Some(libc::ECONNREFUSED));
    }
}

#[test]
fn a_thousand_detaches_under_load() {
    let Some(mut backend) = uring() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever connects is sent bytes for as long as it takes them, and is read from.
    let server = thread::spawn(move || {
        for _ in 0..1000 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut bytes = [1_u8; 4096];
            loop {
                let wrote = stream.write(&bytes);
                let read = stream.read(&mut bytes);
                let over = |result: &std::io::Result<usize>| match result {
                    Ok(0) => true,
                    Ok(_) => false,
                    Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
                };
                if over(&wrote) || over(&read) {
                    break;
                }
                bytes.fill(1);
            }
        }
    });
    const MARK: u8 = 0xa5;
    // Memory of earlier rounds: nobody may touch it any more.
    let mut old: Vec<Vec<u8>> = Vec::new();
    let (mut received, mut sent) = (0, 0);
    for round in 0..1000_u64 {
        backend.attach(ringway_net::socket::connect(address, &Default::default()).unwrap());
        while !ringway_net::socket::connected(&backend.socket().unwrap()).unwrap() {
            backend.park(PATIENCE);
        }
        let mut room = vec![0; 3000];
        let mut out = vec![2; 100_000];
        for step in 0..=round % 7 {
            if !backend.is_outstanding(Kind::Recv) {
                // SAFETY: kept until after the detach.
                unsafe { backend.submit(Kind::Recv, span(&mut room)) };
            }
            if !backend.is_outstanding(Kind::Send) {
                // SAFETY: likewise, and not written to.
                unsafe { backend.submit(Kind::Send, span(&mut out)) };
            }
            if step % 2 == 1 {
                backend.turn();
            }
            backend.park(Duration::from_micros(round % 5 * 20));
            assert_eq!(in_flight_and_overflows(), (0, 0));
            while let Some(Completion { kind, result }) = backend.complete() {
                match (kind, result) {
                    (Kind::Recv, Ok(bytes)) => received += bytes,
                    (Kind::Send, Ok(bytes)) => sent += bytes,
                    // The server saw the last connection's end before it took this one.
                    (_, Err(errno)) => panic!("{errno}"),
                }
            }
        }
        drop(backend.detach().unwrap());
        assert!(!backend.is_outstanding(Kind::Recv) && !backend.is_outstanding(Kind::Send));
        room.fill(MARK);
        old.push(room);
    }
    server.join().unwrap();
    assert!(old.iter().flatten().all(|byte| *byte == MARK), "memory was written to after a detach");
    assert!(received > 0 && sent > 0);
    println!("1000 detaches; {received} bytes had come, {sent} had gone");
}

#[test]
fn a_thousand_teardowns_under_load() {
    if uring().is_none() {
        return;
    }
    for round in 0..1000_u32 {
        let mut options = options(Backend::Uring);
        options.wait = [Wait::Park, Wait::Adaptive, Wait::Spin][(round % 3) as usize];
        options.capacity = 16 << 10;
        options.linger = Duration::from_millis(u64::from(round % 4));
        let (mut tx, mut rx) = ends(&options).unwrap();
        let (stop, stopped) = mpsc::channel::<()>();
        let sender = thread::spawn(move || {
            let total = u64::from(round % 500) + 200;
            let mut index = 0_u64;
            while index < total {
                match tx.claim_timeout(1000, Duration::from_millis(1)) {
                    Ok(mut claim) => {
                        claim[..8].copy_from_slice(&index.to_le_bytes());
                        claim.commit().unwrap();
                        index += 1;
                    }
                    Err(SendError::Timeout { .. }) if stopped.try_recv().is_err() => {}
                    // Told that it was enough, or the receiver is gone.
                    Err(_) => break,
                }
            }
            tx
        });
        for index in 0..u64::from(round * 7 % 200) {
            match rx.recv_timeout(PATIENCE) {
                Ok(message) => assert_eq!(message[..8], index.to_le_bytes()),
                Err(error) => panic!("round {round}, message {index}: {error}"),
            }
        }
        stop.send(()).unwrap();
        // In the middle of the stream, in either order, and each on another thread at times.
        match round % 3 {
            0 => drop((rx, sender.join().unwrap())),
            1 => {
                thread::spawn(move || drop(rx)).join().unwrap();
                drop(sender.join().unwrap());
            }
            _ => drop((sender.join().unwrap(), rx)),
        }
    }
    assert_eq!(in_flight_and_overflows(), (0, 0));
}

#[test]
fn an_endpoint_may_move_between_threads() {
    if uring().is_none() {
        return;
    }
    let mut options = options(Backend::Uring);
    options.wait = Wait::Park;
    let (mut tx, mut rx) = ends(&options).unwrap();
    assert_eq!((tx.backend(), rx.backend()), ("uring", "uring"));
    let deeds: [fn(&mut NetSender, &mut NetReceiver, u64); 2] = [pass, |tx, rx, index| {
        // Slept in vain here before it is received elsewhere.
        let short = Duration::from_millis(1);
        assert_eq!(rx.recv_timeout(short).unwrap_err(), RecvError::Timeout);
        pass(tx, rx, index);
    }];
    for index in 0..40 {
        let deed = deeds[(index % 2) as usize];
        (tx, rx) = thread::spawn(move || {
            deed(&mut tx, &mut rx, index);
            (tx, rx)
        })
        .join()
        .unwrap();
        // The threads that had rings are gone. This one has had none since the start.
        deed(&mut tx, &mut rx, index);
    }
    // Dropped elsewhere, in the middle of a stream.
    thread::spawn(move || drop((tx, rx))).join().unwrap();
}

#[test]
fn a_backend_moves_with_what_was_submitted() {
    let Some(mut backend) = uring() else { return };
    let mut other = connect(&mut backend);
    let mut room = vec![0; 100];
    // SAFETY: the room lives to the end.
    unsafe { backend.submit(Kind::Recv, span(&mut room)) };
    assert_eq!(park(&mut backend, Duration::from_millis(1)), None);
    for index in 0..20 {
        backend = thread::spawn(move || {
            assert_eq!(park(&mut backend, Duration::from_millis(1)), None);
            assert!(backend.is_outstanding(Kind::Recv), "thread {index}");
            backend
        })
        .join()
        .unwrap();
    }
    other.write_all(b"x").unwrap();
    let came = thread::spawn(move || park(&mut backend, PATIENCE)).join().unwrap();
    assert_eq!(came, Some(Completion { kind: Kind::Recv, result: Ok(1) }));
    assert_eq!(room[0], b'x');
}

/// Calls that io_uring is made of.
const CALLS: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Sends and receives over epoll, and says so.
fn passes_over_epoll(options: &Options) {
    let (mut tx, mut rx) = ends(options).unwrap();
    assert_eq!((tx.backend(), rx.backend()), ("epoll", "epoll"));
    for index in 0..100 {
        pass(&mut tx, &mut rx, index);
    }
}

/// How often standard error has it.
fn said(output: &std::process::Output, words: &str) -> usize {
    String::from_utf8_lossy(&output.stderr).matches(words).count()
}

#[test]
fn where_it_is_denied_auto_falls_back_and_uring_says_why() {
    const NAME: &str = "where_it_is_denied_auto_falls_back_and_uring_says_why";
    let denials = [
        ("EPERM", libc::EPERM, &CALLS[..], ErrorKind::Permission, "--security-opt seccomp="),
        ("ENOSYS", libc::ENOSYS, &CALLS[..], ErrorKind::Unsupported, "CONFIG_IO_URING"),
        ("EINVAL", libc::EINVAL, &CALLS[..1], ErrorKind::Unsupported, "6.1"),
        ("enter", libc::EPERM, &CALLS[1..2], ErrorKind::Permission, "--security-opt seccomp="),
    ];
    let Some(role) = role() else {
        for (role, errno, ..) in denials {
            let output = run(NAME, role);
            assert_eq!(said(&output, "connections use epoll"), 1, "{role}: {output:?}");
            assert_eq!(said(&output, &format!("os error {errno}")), 1, "{role}: {output:?}");
        }
        // And does so where nobody can be told.
        run_unheard(NAME, denials[0].0);
        return;
    };
    let (_, errno, calls, kind, remedy) = denials.into_iter().find(|it| it.0 == role).unwrap();
    deny(calls, errno);
    // Explicitly asked for, it is an error.
    let error = NetReceiver::open(&options(Backend::Uring)).unwrap_err();
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let value = match &disabled {
        Ok(value) => format!("/proc/sys/kernel/io_uring_disabled is {}", value.trim()),
        Err(_) => "/proc/sys/kernel/io_uring_disabled does not exist".to_owned(),
    };
    let text = error.to_string();
    assert!(text.contains(&value) && text.contains(&format!("os error {errno}")), "{text}");
    // Where the administrator has turned it off as well, that is what there is to say.
    if disabled.is_ok_and(|value| value.trim() == "0") {
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(remedy), "{text}");
    }
    assert!(text.contains("backend=epoll"), "{text}");
    // Left open, it is epoll; said once, however many endpoints there are.
    passes_over_epoll(&options(Backend::Auto));
    passes_over_epoll(&options(Backend::Auto));
}

#[test]
fn auto_does_not_hide_other_trouble() {
    const NAME: &str = "auto_does_not_hide_other_trouble";
    if role().is_none() {
        run(NAME, "ENOMEM");
        return;
    }
    deny(&CALLS[..1], libc::ENOMEM);
    for backend in [Backend::Auto, Backend::Uring] {
        let error = NetReceiver::open(&options(backend)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("ulimit -l"), "{error}");
    }
    passes_over_epoll(&options(Backend::Epoll));
}

#[test]
fn what_is_open_when_it_is_denied_goes_on() {
    const NAME: &str = "what_is_open_when_it_is_denied_goes_on";
    if uring().is_none() {
        return;
    }
    if role().is_none() {
        let output = run(NAME, "later");
        assert_eq!(said(&output, "has no io_uring to sleep in"), 1, "{output:?}");
        run_unheard(NAME, "later");
        return;
    }
    let mut options = options(Backend::Uring);
    options.wait = Wait::Park;
    let (mut tx, mut rx) = ends(&options).unwrap();
    let short = Duration::from_millis(1);
    for index in 0..200 {
        if index == 100 {
            deny(&CALLS, libc::EPERM);
        }
        pass(&mut tx, &mut rx, index);
        assert_eq!(rx.recv_timeout(short).unwrap_err(), RecvError::Timeout);
    }
    // A full ring, with an acknowledgement to wait for.
    let full = loop {
        match tx.claim_timeout(1000, short) {
            Ok(claim) => claim.commit().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SendError::Timeout { .. }), "{full}");
    drop((tx, rx));
}

#[test]
fn little_locked_memory_is_enough() {
    const NAME: &str = "little_locked_memory_is_enough";
    if uring().is_none() {
        return;
    }
    if role().is_none() {
        run(NAME, "memlock");
        return;
    }
    let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
    // SAFETY: a live value; no pointers. Root has no limits: from here on it is nobody.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit), 0);
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgid(65534), 0);
            assert_eq!(libc::setuid(65534), 0);
        }
    }
    let mut options = options(Backend::Uring);
    options.wait = Wait::Park;
    let mut pairs = Vec::new();
    // More than fits, should rings count as locked memory.
    for _ in 0..50 {
        match ends(&options) {
            Ok(pair) => pairs.push(pair),
            // The sysctl may be 1, which is for the unprivileged.
            Err(error) if error.kind() == ErrorKind::Permission => {
                println!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    for (index, (tx, rx)) in pairs.iter_mut().enumerate() {
        pass(tx, rx, index as u64);
    }
}

#[test]
fn a_forked_child_has_no_ring() {
    const NAME: &str = "a_forked_child_has_no_ring";
    if uring().is_none() {
        return;
    }
    if role().is_none() {
        run(NAME, "fork");
        return;
    }
    let mut options = options(Backend::Uring);
    options.wait = Wait::Park;
    let (mut tx, mut rx) = ends(&options).unwrap();
    pass(&mut tx, &mut rx, 0);
    assert_eq!(child::rings(), 1, "one for the thread");
    // SAFETY: this process's other threads are the harness's, which hold nothing that the child
    // uses.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let none = child::rings() == 0;
        let forked = matches!(rx.try_recv().err(), Some(RecvError::Forked));
        drop((tx, rx));
        // SAFETY: no pointers.
        unsafe { libc::_exit(i32::from(!(none && forked))) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, and a live value.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    for index in 1..100 {
        pass(&mut tx, &mut rx, index);
    }
    // Gone with its thread.
    thread::spawn(move || pass(&mut tx, &mut rx, 100)).join().unwrap();
    assert_eq!(child::rings(), 1);
}

#[test]
fn a_signal_shortens_a_park_and_leaves_nothing() {
    extern "C" fn nothing(_: libc::c_int) {}
    let Some(mut backend) = uring() else { return };
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, and no SA_RESTART: system calls return EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
    }
    let mut other = connect(&mut backend);
    let mut room = vec![0; 100];
    // SAFETY: the room lives to the end.
    unsafe { backend.submit(Kind::Recv, span(&mut room)) };
    // SAFETY: asks for a number.
    let me = unsafe { libc::pthread_self() };
    let pest = thread::spawn(move || {
        for _ in 0..50 {
            // SAFETY: the thread joins this one before it ends.
            unsafe { libc::pthread_kill(me, libc::SIGUSR2) };
            thread::sleep(Duration::from_millis(1));
        }
        other.write_all(b"after all").unwrap();
        other
    });
    let start = Instant::now();
    let came = loop {
        if let Some(came) = park(&mut backend, PATIENCE) {
            break came;
        }
        assert!(start.elapsed() < PATIENCE);
    };
    assert_eq!(came, Completion { kind: Kind::Recv, result: Ok(9) });
    drop(pest.join().unwrap());
    // A reset ends a park, too.
    let mut out = vec![0; 10];
    let other = connect(&mut backend);
    // SAFETY: lives to the end.
    unsafe { backend.submit(Kind::Send, span(&mut out)) };
    assert_eq!(park(&mut backend, PATIENCE).map(|it| it.result), Some(Ok(10)));
    drop(other);
    // SAFETY: lives to the end.
    unsafe { backend.submit(Kind::Recv, span(&mut room)) };
    let came = park(&mut backend, PATIENCE);
    assert_eq!(came.map(|it| it.result), Some(Err(Errno(libc::ECONNRESET))));
}
