//! A relay between the two ends that resets the connection under load, in the middle of whatever is
//! on its way: nothing is lost, nothing comes twice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringway_net::{NetReceiver, NetSender, Options, RecvError, Side};
use socket2::SockRef;

use super::support::{PATIENCE, check, length, options, send, to};

const CUTS: u32 = 100;
const MAX: usize = 3000;

/// The relay, and how it is told to end and tells how often it has cut.
struct Proxy {
    address: SocketAddr,
    end: Sender<()>,
    cuts: Receiver<u32>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Relays to `target` and cuts `CUTS` times, then no more.
    fn start(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = mpsc::channel();
        let (tell, cuts) = mpsc::channel();
        let thread = Some(thread::spawn(move || relay(&listener, target, seed, &ended, &tell)));
        Self { address, end, cuts, thread }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.end.send(());
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || thread::panicking());
    }
}

fn relay(
    listener: &TcpListener,
    target: SocketAddr,
    seed: u64,
    ended: &Receiver<()>,
    tell: &Sender<u32>,
) {
    listener.set_nonblocking(true).unwrap();
    let (mut cuts, mut random) = (0, seed);
    let over = || !matches!(ended.try_recv(), Err(TryRecvError::Empty));
    while !over() {
        let Ok((one, _)) = listener.accept() else {
            thread::sleep(Duration::from_micros(100));
            continue;
        };
        let Ok(other) = TcpStream::connect(target) else { continue };
        for stream in [&one, &other] {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        // Greetings are 240 bytes: some cuts fall into those.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let most = if cuts < CUTS { (random >> 33) as usize % 200_000 + 1 } else { usize::MAX };
        let mut passed = 0;
        let mut pending: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
        let cut = loop {
            if passed >= most {
                break true;
            }
            let mut idle = true;
            let mut gone = false;
            let [there, back] = &mut pending;
            for (from, to, pending) in [(&one, &other, there), (&other, &one, back)] {
                match pump(from, to, pending, most - passed) {
                    Some(count) => {
                        passed += count;
                        idle &= count == 0;
                    }
                    None => gone = true,
                }
            }
            if gone || over() {
                break false;
            }
            if idle {
                thread::sleep(Duration::from_micros(50));
            }
        };
        if cut {
            // A reset in both directions, with whatever is under way.
            for stream in [&one, &other] {
                SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            cuts += 1;
            let _ = tell.send(cuts);
        }
    }
}

/// Moves what is there, at most so much. `None`: one side has gone.
fn pump(
    mut from: &TcpStream,
    mut to: &TcpStream,
    pending: &mut Vec<u8>,
    most: usize,
) -> Option<usize> {
    if pending.is_empty() {
        let mut bytes = [0; 16384];
        match from.read(&mut bytes) {
            Ok(0) => return None,
            Ok(count) => pending.extend(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(0),
            Err(_) => return None,
        }
    }
    let len = pending.len().min(most);
    match to.write(&pending[..len]) {
        Ok(count) => {
            pending.drain(..count);
            Some(count)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// Sends until the relay has cut often enough, and receives all of it.
fn survive(mut tx: NetSender, mut rx: NetReceiver, proxy: &Proxy) {
    let receiver = thread::spawn(move || {
        let mut next = 0;
        loop {
            match rx.recv_timeout(PATIENCE) {
                Ok(message) => {
                    assert_eq!(check(&message), next, "lost or doubled");
                    assert_eq!(message.len(), length(next, MAX));
                    next += 1;
                }
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("after {next} messages: {error}"),
            }
        }
        let stats = rx.stats();
        // The sender has closed: there is nothing to wait for.
        assert!(rx.close(PATIENCE));
        (next, stats)
    });
    let (mut sent, mut cuts) = (0, 0);
    while cuts < CUTS {
        // A batch between two looks at the relay.
        for _ in 0..50 {
            send(&mut tx, sent, MAX);
            sent += 1;
        }
        cuts = proxy.cuts.try_iter().last().unwrap_or(cuts);
    }
    let stats = tx.stats();
    tx.close(PATIENCE).unwrap();
    let (received, _) = receiver.join().unwrap();
    assert_eq!(received, sent);
    assert_eq!((stats.sessions, stats.lost), (1, 0));
    assert!(stats.connections > u64::from(CUTS) / 2, "{stats:?}");
    assert_eq!(stats.resumes + 1, stats.connections);
    println!(
        "{CUTS} cuts: {sent} messages, {} connections, {} bytes sent again",
        stats.connections, stats.resent_bytes
    );
}

#[test]
fn a_hundred_resets_of_a_connecting_sender() {
    let options = options(0);
    let rx = NetReceiver::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let proxy = Proxy::start(rx.local_addr().unwrap(), 1);
    let tx = NetSender::open(&to(&options, proxy.address)).unwrap();
    survive(tx, rx, &proxy);
}

#[test]
fn a_hundred_resets_of_a_connecting_receiver() {
    let options = options(0);
    let tx = NetSender::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let proxy = Proxy::start(tx.local_addr().unwrap(), 2);
    let rx = NetReceiver::open(&to(&options, proxy.address)).unwrap();
    survive(tx, rx, &proxy);
}
