//! What `connection` shows, with a thread at each end that moves its bytes; and what only that has.

#[path = "connection/suite.rs"]
mod suite;

/// Of the end that binds, and of the other.
const BACKENDS: (ringway_net::Backend, ringway_net::Backend) =
    (ringway_net::Backend::Uring, ringway_net::Backend::Epoll);

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Thread;

mod own {
    use std::fs;
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use ringway_net::{
        Backend, ErrorKind, Io, NetReceiver, NetSender, NotClosed, Options, RecvError, Reins,
        SendError, Side, Wait,
    };

    use super::suite::support::{
        PATIENCE, WAITS, bound_receiver, bound_sender, expect, options, send, to, wait_until,
    };

    const MAX: usize = 1000;

    /// The threads of this process with that name: on which cores each may run.
    fn threads(name: &str) -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let status = tasks.filter_map(|task| {
            // A thread may end meanwhile.
            let text = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |key: &str| {
                let line = text.lines().find(|line| line.starts_with(key))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            };
            (field("Name")? == name).then(|| field("Cpus_allowed_list"))?
        });
        status.collect()
    }

    /// Waits for one, and tells on which cores it may run. A thread gives itself its name when it
    /// comes to run, which may be after the handle is there.
    fn the_only(name: &str) -> String {
        wait_until("the thread to have its name", || !threads(name).is_empty());
        let [cores] = threads(name).try_into().expect("one thread");
        cores
    }

    /// None is left. A thread that was joined may be listed for a moment.
    fn gone(name: &str) {
        wait_until("the threads to be gone", || threads(name).is_empty());
    }

    /// A core that this process may use.
    fn core() -> usize {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
        let list = line.split_once(':').unwrap().1.trim();
        let last = list.rsplit([',', '-']).next().unwrap();
        last.parse().unwrap()
    }

    #[test]
    fn a_thread_has_its_name_and_its_core_and_ends_with_the_handle() {
        let reins = Reins { name: Some("rw-named".into()), core: Some(core()) };
        let mut options = Options { side: Side::Bind, thread: reins, ..options(0) };
        let tx = NetSender::open(&options).unwrap();
        assert_eq!(the_only("rw-named"), core().to_string());
        drop(tx);
        gone("rw-named");
        options.thread = Reins::default();
        options.channel = "unnamed".into();
        let rx = NetReceiver::open(&options).unwrap();
        the_only("rw-unnamed");
        drop(rx);
        gone("rw-unnamed");
    }

    #[test]
    fn a_core_that_is_not_there_is_told() {
        for core in [1023, 1 << 20] {
            let thread = Reins { name: None, core: Some(core) };
            let error = NetSender::open(&Options { thread, ..options(0) }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadOption);
            let text = error.to_string();
            assert!(
                text.contains(&format!("io_core={core}")) && text.contains("taskset"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_that_no_thread_can_have_is_told() {
        let named = Reins { name: Some("rw\0named".into()), core: None };
        let by_channel = Options { channel: "tic\0ks".into(), ..options(0) };
        for (options, name) in [
            (Options { thread: named, ..options(0) }, "\"rw\\0named\""),
            (by_channel, "\"rw-tic\\0ks\""),
        ] {
            let error = NetSender::open(&options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadOption);
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("`io_name`"), "{text}");
        }
    }

    /// A wire to a port, which can be cut.
    struct Wire {
        address: SocketAddr,
        ends: Arc<Mutex<Vec<TcpStream>>>,
    }

    impl Wire {
        fn to(target: SocketAddr) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let ends = Arc::new(Mutex::new(Vec::new()));
            let kept = Arc::clone(&ends);
            // Ends with the process, as do its connections when both ends are gone.
            std::thread::spawn(move || {
                while let Ok((one, _)) = listener.accept() {
                    let Ok(other) = TcpStream::connect(target) else { continue };
                    for (from, to) in [(&one, &other), (&other, &one)] {
                        from.set_nodelay(true).unwrap();
                        let (mut from, mut to) =
                            (from.try_clone().unwrap(), to.try_clone().unwrap());
                        std::thread::spawn(move || {
                            let _ = std::io::copy(&mut from, &mut to);
                            let _ = to.shutdown(Shutdown::Write);
                        });
                    }
                    kept.lock().unwrap().extend([one, other]);
                }
            });
            Self { address, ends }
        }

        fn cut(&self) {
            for end in self.ends.lock().unwrap().drain(..) {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Nobody calls either end, and still all moves: what was sent, its acknowledgement, and the
    /// connection, which is cut.
    #[test]
    fn all_goes_on_while_the_callers_are_elsewhere() {
        for wait in WAITS {
            let options = Options { wait, side: Side::Bind, ..options(0) };
            let mut rx = NetReceiver::open(&options).unwrap();
            let wire = Wire::to(rx.local_addr().unwrap());
            let mut tx = NetSender::open(&to(&options, wire.address)).unwrap();
            for index in 0..20 {
                send(&mut tx, index, MAX);
            }
            // They came without a call of the receiver's, and were released without one of the
            // sender's.
            wait_until("bytes to come", || rx.stats().wire_bytes_received >= tx.stats().bytes);
            for index in 0..20 {
                expect(&mut rx, index, MAX);
            }
            wait_until("acknowledgements", || tx.unacknowledged().messages == 0);
            let before = tx.stats().connections;
            wire.cut();
            wait_until("the connection to be mended", || tx.stats().connections > before);
            assert_eq!((tx.stats().sessions, rx.stats().sessions), (1, 1), "wait={wait:?}");
            send(&mut tx, 20, MAX);
            expect(&mut rx, 20, MAX);
        }
    }

    #[test]
    fn heartbeats_flow_though_nobody_calls() {
        let mut options = options(0);
        options.timing.heartbeat_ns = 50_000_000;
        options.wait = Wait::Park;
        let (tx, rx) = bound_receiver(&options);
        wait_until("the two ends to meet", || tx.peer().is_some() && rx.peer().is_some());
        let heard = (tx.stats().control_received, rx.stats().control_received);
        wait_until("ten heartbeats each", || {
            tx.stats().control_received >= heard.0 + 10
                && rx.stats().control_received >= heard.1 + 10
        });
    }

    #[test]
    fn a_close_tells_what_was_not_acknowledged_and_takes_its_time() {
        let (mut tx, rx) = bound_receiver(&options(0));
        for index in 0..10 {
            send(&mut tx, index, MAX);
        }
        let (start, allowed) = (Instant::now(), Duration::from_millis(100));
        let error = tx.close(allowed).unwrap_err();
        assert_eq!((error.messages, error.why), (10, NotClosed::Timeout));
        assert!(start.elapsed() >= allowed);
        drop(rx);
    }

    #[test]
    fn a_call_that_waits_ends_when_the_other_end_goes() {
        for wait in WAITS {
            let options = Options { wait, ..options(0) };
            let (tx, mut rx) = bound_receiver(&options);
            let waiting = std::thread::spawn(move || rx.recv_timeout(PATIENCE).map(|_| ()));
            drop(tx);
            assert_eq!(waiting.join().unwrap(), Err(RecvError::Disconnected));
            let (mut tx, rx) = bound_sender(&options);
            let waiting = std::thread::spawn(move || {
                loop {
                    if let Err(error) = tx.claim_timeout(MAX, PATIENCE).map(|claim| claim.commit())
                    {
                        return error;
                    }
                }
            });
            wait_until("messages", || rx.stats().receives > 0);
            drop(rx);
            let error = waiting.join().unwrap();
            assert!(matches!(error, SendError::Disconnected { .. }), "{error}");
        }
    }

    #[test]
    fn a_thousand_ends_come_and_go_under_load() {
        for round in 0..500 {
            let mut options = Options { wait: WAITS[round % 3], ..options(0) };
            options.channel = "come-and-go".into();
            let (mut tx, mut rx) = bound_receiver(&Options { linger: Duration::ZERO, ..options });
            for index in 0..round as u64 % 7 {
                send(&mut tx, index, MAX);
            }
            if round % 2 == 0 {
                let _ = rx.try_recv().err();
                drop(rx);
                drop(tx);
            } else {
                // On another thread.
                std::thread::spawn(move || drop((tx, rx))).join().unwrap();
            }
        }
        gone("rw-come-and-go");
    }

    #[test]
    fn one_inline_end_and_one_with_a_thread() {
        for (here, there) in [(super::IO, Io::Inline), (Io::Inline, super::IO)] {
            let options = Options { io: here, side: Side::Bind, ..options(0) };
            let mut rx = NetReceiver::open(&options).unwrap();
            let backend = Backend::Auto;
            let there = Options { io: there, backend, ..to(&options, rx.local_addr().unwrap()) };
            let mut tx = NetSender::open(&there).unwrap();
            let sender = std::thread::spawn(move || {
                for index in 0..5000 {
                    send(&mut tx, index, MAX);
                }
                tx.close(PATIENCE)
            });
            for index in 0..5000 {
                expect(&mut rx, index, MAX);
            }
            assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
            wait_until("the sender to close", || {
                let _ = rx.try_recv().err();
                sender.is_finished()
            });
            sender.join().unwrap().unwrap();
        }
    }
}
