//! Who binds and who connects, by address and by hand; what is said when neither works.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use ringway_net::session::{Death, RefuseCode};
use ringway_net::{
    ErrorKind, NetReceiver, NetSender, NotClosed, Options, RecvError, SendError, Side, Trouble,
};

use super::support::{PATIENCE, bound_receiver, expect, options, send, to, wait_until};

const MAX: usize = 100;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Passes a few messages, each end from a thread of its own.
fn pass(mut tx: NetSender, mut rx: NetReceiver) {
    let sender = std::thread::spawn(move || {
        for index in 0..100 {
            send(&mut tx, index, MAX);
        }
        tx.close(PATIENCE).unwrap();
    });
    for index in 0..100 {
        expect(&mut rx, index, MAX);
    }
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    wait_until("the sender to close", || {
        let _ = rx.try_recv().err();
        sender.is_finished()
    });
    sender.join().unwrap();
}

#[test]
fn one_address_for_both_ends_on_one_host() {
    // Another test may take the port meanwhile; then both ends connect to it, and try another.
    let options = options(free_port());
    let rx = NetReceiver::open(&options).unwrap();
    let tx = NetSender::open(&options).unwrap();
    assert_eq!(rx.local_addr().unwrap().port(), options.port);
    pass(tx, rx);
    let options = self::options(free_port());
    let tx = NetSender::open(&options).unwrap();
    let rx = NetReceiver::open(&options).unwrap();
    assert_eq!(tx.local_addr().unwrap().port(), options.port);
    pass(tx, rx);
}

#[test]
fn port_0_is_told() {
    let (tx, rx) = bound_receiver(&options(0));
    assert_ne!(rx.local_addr().unwrap().port(), 0);
    pass(tx, rx);
    // Without a word about sides: who asks for any port binds.
    let tx = NetSender::open(&options(0)).unwrap();
    let rx = NetReceiver::open(&to(&options(0), tx.local_addr().unwrap())).unwrap();
    pass(tx, rx);
}

#[test]
fn names_and_ipv6() {
    for host in ["localhost", "::1", "[::1]", "::", "0.0.0.0"] {
        let mut options = options(0);
        options.host = host.into();
        let rx = match NetReceiver::open(&options) {
            Ok(rx) => rx,
            Err(error) if host.contains(':') => {
                println!("skipped: no IPv6 here ({error})");
                continue;
            }
            Err(error) => panic!("{host}: {error}"),
        };
        let address = rx.local_addr().unwrap();
        let host = match (host, address) {
            // Over IPv4 to [::], too.
            ("::" | "0.0.0.0", _) => "127.0.0.1".to_owned(),
            (_, SocketAddr::V6(_)) => "::1".to_owned(),
            (_, SocketAddr::V4(_)) => "127.0.0.1".to_owned(),
        };
        let tx = NetSender::open(&Options { host, ..to(&options, address) }).unwrap();
        pass(tx, rx);
    }
}

#[test]
fn an_address_in_use_is_an_error_for_who_must_bind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = NetSender::open(&Options { side: Side::Bind, ..options(port) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let text = error.to_string();
    assert!(text.contains(&format!("binding 127.0.0.1:{port}")), "{text}");
    assert!(text.contains("ss -ltnp"), "{text}");
    let anywhere = Options { host: "0.0.0.0".into(), ..options(port) };
    assert_eq!(NetReceiver::open(&anywhere).unwrap_err().kind(), ErrorKind::InUse);
}

#[test]
fn addresses_that_are_none_are_refused() {
    let nobody = Options { host: "no-such-host.invalid".into(), ..options(7000) };
    let error = NetSender::open(&nobody).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoHost);
    assert!(error.to_string().contains("getent hosts no-such-host.invalid"), "{error}");
    // A host of the documentation's network is not this one.
    let elsewhere = Options { host: "203.0.113.77".into(), side: Side::Bind, ..options(0) };
    let error = NetReceiver::open(&elsewhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoHost);
    assert!(error.to_string().contains("ip addr"), "{error}");
    let error = NetSender::open(&Options { side: Side::Connect, ..options(0) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOption);
    let long = Options { channel: "x".repeat(129), ..options(0) };
    assert_eq!(NetSender::open(&long).unwrap_err().kind(), ErrorKind::BadName);
    let odd = Options { capacity: 100_000, ..options(0) };
    assert_eq!(NetReceiver::open(&odd).unwrap_err().kind(), ErrorKind::BadOption);
    let unknown = Options { port: 0, ..options(0) };
    let mut unknown = Options { side: Side::Bind, ..unknown };
    unknown.tuning.congestion = Some("no-such".parse().unwrap());
    assert!(NetSender::open(&unknown).is_err());
}

#[test]
fn who_connects_may_come_long_before_who_binds() {
    let port = free_port();
    let connects = Options { side: Side::Connect, ..options(port) };
    let mut tx = NetSender::open(&connects).unwrap();
    send(&mut tx, 0, MAX);
    wait_until("a refused attempt", || {
        tx.flush().unwrap();
        tx.stats().failed_attempts > 2
    });
    let refused = matches!(tx.trouble(), Some(Trouble::Connect { errno, .. })
        if errno.0 == libc::ECONNREFUSED);
    assert!(refused, "{:?}", tx.trouble());
    assert_eq!(tx.peer(), None);
    let mut rx = NetReceiver::open(&Options { side: Side::Bind, ..options(port) }).unwrap();
    let sender = std::thread::spawn(move || tx.close(PATIENCE));
    expect(&mut rx, 0, MAX);
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    wait_until("the sender to close", || {
        let _ = rx.try_recv().err();
        sender.is_finished()
    });
    sender.join().unwrap().unwrap();
}

#[test]
fn a_host_that_is_not_to_be_reached_is_no_error_and_is_told() {
    // Nothing answers there, or the network says so at once; either way calls go on.
    let nowhere = Options { host: "203.0.113.77".into(), ..options(9) };
    let mut rx = NetReceiver::open(&nowhere).unwrap();
    assert_eq!(rx.recv_timeout(Duration::from_millis(20)).unwrap_err(), RecvError::Timeout);
    let mut tx = NetSender::open(&Options { linger: Duration::ZERO, ..nowhere }).unwrap();
    send(&mut tx, 0, MAX);
    let error = tx.close(Duration::from_millis(20)).unwrap_err();
    assert_eq!((error.messages, error.why), (1, NotClosed::Timeout));
    assert!(error.to_string().contains("1 messages") && error.to_string().contains("in time"));
}

/// Opens both ends with something different about the connecting sender, and returns what each is
/// told, if it is told anything.
fn mismatched(change: impl FnOnce(&mut Options)) -> (SendError, NetReceiver) {
    let mut rx = NetReceiver::open(&Options { side: Side::Bind, ..options(0) }).unwrap();
    let mut different = to(&options(0), rx.local_addr().unwrap());
    change(&mut different);
    let mut tx = NetSender::open(&different).unwrap();
    let mut error = None;
    wait_until("the refusal", || {
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        error = tx.flush().err();
        error.is_some()
    });
    (error.unwrap(), rx)
}

#[test]
fn ends_that_do_not_fit_are_told_why() {
    let code = |error: SendError| match error {
        SendError::Refused { death: Death::Refused(refusal), .. } => refusal.code,
        error => panic!("{error}"),
    };
    let (error, rx) = mismatched(|options| options.schema += 1);
    assert!(error.to_string().contains("messages differ"), "{error}");
    assert_eq!(code(error), RefuseCode::Schema);
    let door = rx.stats().door.unwrap();
    assert_eq!((door.refused, door.garbage), (1, 0));
    let (error, _rx) = mismatched(|options| options.channel = "tocks".into());
    assert_eq!(code(error), RefuseCode::Name);
    let (error, _rx) = mismatched(|options| options.format.endian = 2);
    assert_eq!(code(error), RefuseCode::Format);
    let (error, _rx) = mismatched(|options| options.capacity = 1 << 20);
    assert!(error.to_string().contains("`capacity`"), "{error}");
    assert_eq!(code(error), RefuseCode::Window);
    // Two senders.
    let mut one = NetSender::open(&Options { side: Side::Bind, ..options(0) }).unwrap();
    let mut other = NetSender::open(&to(&options(0), one.local_addr().unwrap())).unwrap();
    let mut error = None;
    wait_until("the refusal", || {
        one.flush().unwrap();
        error = other.flush().err();
        error.is_some()
    });
    assert_eq!(code(error.unwrap()), RefuseCode::Direction);
}

#[test]
fn a_close_tells_what_does_not_fit() {
    let mut rx = NetReceiver::open(&Options { side: Side::Bind, ..options(0) }).unwrap();
    let mut different = to(&options(0), rx.local_addr().unwrap());
    different.schema += 1;
    let mut tx = NetSender::open(&different).unwrap();
    // With threads, the refusal may be there before the message is; then it is told, and the end tries again.
    while let Err(error) = tx.claim_timeout(8, PATIENCE).and_then(|claim| claim.commit()) {
        assert!(matches!(error, SendError::Refused { .. }), "{error}");
    }
    let closing = std::thread::spawn(move || tx.close(PATIENCE));
    wait_until("the close", || {
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        closing.is_finished()
    });
    let error = closing.join().unwrap().unwrap_err();
    let NotClosed::Refused { death: Death::Refused(refusal) } = error.why else {
        panic!("{error}");
    };
    assert_eq!((error.messages, refusal.code), (1, RefuseCode::Schema));
    let text = error.to_string();
    assert!(text.contains("messages differ") && !text.contains("in time"), "{text}");
}

#[test]
fn a_refused_end_tries_again_and_gets_in_when_it_fits() {
    let (error, rx) = mismatched(|options| options.channel = "tocks".into());
    assert!(matches!(error, SendError::Refused { lost: 0, .. }));
    // The same receiver serves one that fits.
    let tx = NetSender::open(&to(&options(0), rx.local_addr().unwrap())).unwrap();
    pass(tx, rx);
}
