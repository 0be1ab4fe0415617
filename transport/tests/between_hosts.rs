//! What a program that uses the one API sees of bad hosts, bad peers and a bad network. That the
//! protocol holds is shown in `ringway-net`; here it is about what comes out at the top.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Book, Home, Tick, lack};
use ringway::{
    Backend, Builder, Death, ErrorKind, NotClosed, Receiver, RecvError, SendError, Sender, Side,
};

const LONG: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(1);

/// A receiver at a port of its own, and the channel as the sender opens it.
fn bound() -> (Receiver<Tick>, Builder) {
    let binds = Builder::new("tcp://127.0.0.1:0/between?side=bind").unwrap();
    let rx = binds.receiver::<Tick>().unwrap();
    let port = rx.local_addr().unwrap().port();
    (rx, binds.port(port).side(Side::Connect).linger(LONG))
}

fn address_of<T: ringway::Message + ?Sized>(rx: &Receiver<T>) -> SocketAddr {
    rx.local_addr().unwrap()
}

/// Sends a tick and receives it, calling both ends.
fn pass(tx: &mut Sender<Tick>, rx: &mut Receiver<Tick>, number: u32) {
    tx.send(&Tick::number(number)).unwrap();
    let start = Instant::now();
    loop {
        match rx.recv_timeout(MOMENT) {
            Ok(tick) => return assert_eq!(tick.quantity.to_native(), number),
            Err(error) => assert_eq!(error, RecvError::Timeout),
        }
        assert!(start.elapsed() < LONG, "{:?}", rx.net_stats());
        tx.flush().unwrap();
    }
}

#[test]
fn an_address_in_use_is_told_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let address = format!("tcp://127.0.0.1:{port}/between?side=bind");
    let error = ringway::receiver::<Tick>(&address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken);
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("ss -ltnp"), "{text}");
}

#[test]
fn hosts_and_options_that_make_no_sense_are_refused() {
    let kind = |address: &str| ringway::sender::<Tick>(address).unwrap_err().kind();
    assert_eq!(kind("tcp://127.0.0.1:0/between?side=connect"), ErrorKind::BadOption);
    assert_eq!(kind("tcp://127.0.0.1:0/between?capacity=100000"), ErrorKind::BadOption);
    assert_eq!(kind("tcp://127.0.0.1/between"), ErrorKind::BadOption);
    assert_eq!(
        kind("tcp://127.0.0.1:0/between?io=thread&io_core=99999999999"),
        ErrorKind::BadOption
    );
    let error = ringway::sender::<Tick>("tcp://127.0.0.1:0/between?io_core=0").unwrap_err();
    assert!(error.to_string().contains("`io_core`") && error.to_string().contains("io=thread"));
    let home = Home::new();
    let history = home.channel("tcp://127.0.0.1:0/between?kind=broadcast").history(5);
    let error = history.sender::<Tick>().unwrap_err().to_string();
    assert!(error.contains("`history`") && error.contains("shm://"), "{error}");
}

#[test]
fn each_end_tells_what_moves_its_bytes() {
    let (rx, channel) = bound();
    assert!(matches!(rx.backend(), Some("uring" | "epoll")));
    let epoll = channel.clone().backend(Backend::Epoll).linger(Duration::ZERO);
    assert_eq!(epoll.sender::<Tick>().unwrap().backend(), Some("epoll"));
    let uring = channel.backend(Backend::Uring).linger(Duration::ZERO);
    match lack(&uring) {
        None => {
            assert_eq!(uring.sender::<Tick>().unwrap().backend(), Some("uring"));
            // Nothing is named, so it is io_uring where there is one.
            assert_eq!(rx.backend(), Some("uring"));
        }
        Some(error) => {
            let text = error.to_string();
            for words in ["io_uring_disabled", "os error", "backend=epoll"] {
                assert!(text.contains(words), "{words} is not in {text}");
            }
            assert_eq!(rx.backend(), Some("epoll"));
        }
    }
    let home = Home::new();
    let here = home.channel("shm://between");
    assert_eq!(here.receiver::<Tick>().unwrap().backend(), None);
    assert_eq!(here.sender::<Tick>().unwrap().backend(), None);
}

#[test]
fn sockets_are_as_the_address_says() {
    let linger = Duration::ZERO;
    let sockets = "tcp://127.0.0.1:0/between?side=bind&congestion=reno&recv_buffer=32KiB";
    let binds = Builder::new(sockets).unwrap().linger(linger);
    let mut rx = binds.receiver::<Tick>().unwrap();
    let port = rx.local_addr().unwrap().port();
    let connects = Builder::new("tcp://127.0.0.1:0/between?side=connect&send_buffer=16384");
    let mut tx = connects.unwrap().port(port).linger(linger).sender::<Tick>().unwrap();
    pass(&mut tx, &mut rx, 1);
    let (sends, receives) = (tx.net_stats().unwrap(), rx.net_stats().unwrap());
    let (sends, receives) = (sends.socket.unwrap(), receives.socket.unwrap());
    // The kernel counts its own bookkeeping: twice as much.
    assert_eq!((sends.send_buffer, receives.recv_buffer), (2 * 16384, 2 * 32768));
    assert_eq!(receives.congestion.name(), "reno");
    assert!(["cubic", "reno"].contains(&sends.congestion.name()), "{sends:?}");
    assert!(sends.nodelay && receives.nodelay);

    let refused = |option: &str| {
        let address = format!("tcp://127.0.0.1:0/between?side=bind&{option}");
        ringway::receiver::<Tick>(&address).unwrap_err()
    };
    let error = refused("congestion=no-such");
    assert!(matches!(error.kind(), ErrorKind::BadOption | ErrorKind::Permission), "{error}");
    assert!(error.to_string().contains("reno") && error.to_string().contains("no-such"), "{error}");
    assert_eq!(refused("send_buffer=2GiB").kind(), ErrorKind::BadOption);
}

#[test]
fn a_host_that_nobody_answers_on_is_told_in_the_counters() {
    let home = Home::new();
    let nobody = home.channel("tcp://127.0.0.1:0/between?side=connect&capacity=4KiB");
    let nobody = nobody.linger(Duration::ZERO);
    let mut rx = nobody.receiver::<Tick>().unwrap();
    assert_eq!(rx.recv_timeout(MOMENT).unwrap_err(), RecvError::Timeout);
    let mut tx = nobody.sender::<Tick>().unwrap();
    // What is sent is kept, and then there is no room; who waits says who is missing.
    while tx.try_send(&Tick::number(1)).is_ok() {}
    let error = tx.send_timeout(&Tick::number(1), MOMENT).unwrap_err();
    assert_eq!(error, SendError::Timeout { peer: None, lag: None });
    assert!(error.to_string().contains("no receiver"), "{error}");
    let start = Instant::now();
    let trouble = loop {
        tx.flush().unwrap();
        if let Some(trouble) = tx.net_stats().unwrap().trouble {
            break trouble.to_string();
        }
        assert!(start.elapsed() < LONG, "{:?}", tx.net_stats());
    };
    assert!(
        trouble.contains("connecting to 127.0.0.1:") && trouble.contains("failed"),
        "{trouble}"
    );
    let unconfirmed = tx.stats().sent;
    let error = tx.close(MOMENT).unwrap_err();
    assert_eq!(error.messages, unconfirmed);
}

#[test]
fn ends_of_unequal_types_are_told_by_both() {
    let (mut rx, channel) = bound();
    let mut tx = channel.sender::<Book>().unwrap();
    tx.send(&Book::number(3)).unwrap();
    let start = Instant::now();
    let told = loop {
        // The receiver goes on: another sender may fit.
        match rx.recv_timeout(MOMENT) {
            Err(RecvError::Timeout | RecvError::Refused { .. }) => {}
            result => panic!("{result:?}"),
        }
        if let Err(error) = tx.flush() {
            break error;
        }
        assert!(start.elapsed() < LONG, "{:?}", tx.net_stats());
    };
    assert!(matches!(told, SendError::Refused { death: Death::Refused(_), lost: 1 }), "{told:?}");
    assert!(told.to_string().contains("messages differ: fingerprint"), "{told}");
    drop(tx);
    assert!(rx.net_stats().unwrap().door.unwrap().accepted > 0);
    let mut fits = channel.sender::<Tick>().unwrap();
    pass(&mut fits, &mut rx, 7);
}

#[test]
fn garbage_costs_its_connection_and_nothing_else() {
    let (mut rx, channel) = bound();
    let mut tx = channel.sender::<Tick>().unwrap();
    pass(&mut tx, &mut rx, 0);
    for garbage in [&b"GET / HTTP/1.1\r\nHost: ticks\r\n\r\n"[..], &[0; 400], &[0xff; 400]] {
        let mut stranger = TcpStream::connect(address_of(&rx)).unwrap();
        stranger.write_all(garbage).unwrap();
        stranger.set_read_timeout(Some(MOMENT)).unwrap();
        let start = Instant::now();
        // Until it is sent away, with a word or without.
        while !matches!(stranger.read(&mut [0; 512]), Ok(0)) {
            let reset = stranger.take_error().unwrap().is_some();
            let gone = stranger.write_all(b"?").is_err();
            pass(&mut tx, &mut rx, 1);
            if reset || gone {
                break;
            }
            assert!(start.elapsed() < LONG, "{:?}", rx.net_stats());
        }
    }
    pass(&mut tx, &mut rx, 2);
    let stats = rx.net_stats().unwrap();
    assert_eq!((stats.connections, stats.sessions), (1, 1));
    let door = stats.door.unwrap();
    assert_eq!((door.accepted, door.garbage), (4, 3), "{door:?}");
}

#[test]
fn silent_connections_are_bounded_and_hurt_nobody() {
    let (mut rx, channel) = bound();
    let mut tx = channel.sender::<Tick>().unwrap();
    pass(&mut tx, &mut rx, 0);
    // In lots: a process may have a thousand descriptors or so.
    for _ in 0..10 {
        let lot: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(address_of(&rx)).unwrap()).collect();
        pass(&mut tx, &mut rx, 1);
        drop(lot);
    }
    let start = Instant::now();
    loop {
        pass(&mut tx, &mut rx, 2);
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        let door = rx.net_stats().unwrap().door.unwrap();
        if door.silent + door.displaced == 1000 {
            break;
        }
        assert!(start.elapsed() < LONG, "{door:?}");
        thread::sleep(MOMENT);
    }
    let stats = rx.net_stats().unwrap();
    assert_eq!((stats.connections, stats.sessions, stats.violations), (1, 1, 0));
}

#[test]
fn a_close_tells_what_the_receiver_never_released() {
    let (rx, channel) = bound();
    let mut tx = channel.sender::<Tick>().unwrap();
    for number in 0..10 {
        tx.send(&Tick::number(number)).unwrap();
    }
    // The other end is open, and nobody calls it.
    let error = tx.close(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.messages, 10);
    assert!(error.to_string().contains("10 messages (160 bytes) were not confirmed"), "{error}");
    drop(rx);
}

#[test]
fn a_close_tells_that_the_ends_do_not_fit() {
    let (mut rx, channel) = bound();
    let mut tx = channel.sender::<Book>().unwrap();
    tx.send(&Book::number(3)).unwrap();
    let closing = thread::spawn(move || tx.close(LONG));
    let start = Instant::now();
    while !closing.is_finished() {
        assert!(start.elapsed() < LONG);
        assert!(matches!(rx.recv_timeout(MOMENT).err(), Some(RecvError::Timeout)));
    }
    let error = closing.join().unwrap().unwrap_err();
    assert!(matches!(error.why, NotClosed::Refused { death: Death::Refused(_) }), "{error}");
    assert_eq!(error.messages, 1);
}

#[test]
fn a_close_waits_for_the_receiver() {
    let (mut rx, channel) = bound();
    let mut tx = channel.sender::<Tick>().unwrap();
    for number in 0..10 {
        tx.send(&Tick::number(number)).unwrap();
    }
    let closing = thread::spawn(move || tx.close(LONG));
    for number in 0..10 {
        assert_eq!(rx.recv_timeout(LONG).unwrap().quantity.to_native(), number);
    }
    assert_eq!(rx.recv_timeout(LONG).unwrap_err(), RecvError::Disconnected);
    let start = Instant::now();
    while !closing.is_finished() {
        assert!(start.elapsed() < LONG);
        assert!(matches!(rx.recv_timeout(MOMENT).err(), Some(RecvError::Timeout)));
    }
    closing.join().unwrap().unwrap();
}

#[test]
fn in_shared_memory_a_close_waits_for_nobody() {
    let home = Home::new();
    let channel = home.channel("shm://between");
    let mut tx = channel.sender::<Tick>().unwrap();
    tx.queue(&Tick::number(5)).unwrap();
    tx.close(Duration::ZERO).unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    assert_eq!(rx.recv_timeout(LONG).unwrap().quantity.to_native(), 5);
}

/// Set in a child: to open ends that can't be shown to tools.
const HIDDEN: &str = "RINGWAY_TEST_HIDDEN";

/// An end that tools can't be shown works, also where the warning of that can't be written.
#[test]
fn what_tools_are_not_shown_works_and_is_told_once_if_it_can_be() {
    const NAME: &str = "what_tools_are_not_shown_works_and_is_told_once_if_it_can_be";
    if std::env::var_os(HIDDEN).is_some() {
        for _ in 0..2 {
            let channel = Builder::new("tcp://127.0.0.1:0/hidden?side=bind").unwrap();
            let channel = channel.directory("/nowhere/at/all").backend(Backend::Epoll);
            let rx = channel.receiver::<Tick>().unwrap();
            drop((channel.port(address_of(&rx).port()).side(Side::Connect).sender::<Tick>(), rx));
        }
        return;
    }
    let child = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture"]).env(HIDDEN, "1");
        child
    };
    let heard = child().output().unwrap();
    assert!(heard.status.success(), "{heard:?}");
    let said = String::from_utf8_lossy(&heard.stderr);
    assert_eq!(said.matches("tools are not shown their counters").count(), 1, "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unheard = child().stderr(writer).status().unwrap();
    assert!(unheard.success(), "{unheard}");
}
