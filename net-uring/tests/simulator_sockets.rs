//! The simulator's scripts over real sockets: the same seeds, messages, endings and troubles, on epoll, on
//! io_uring and with threads, against the same oracle. Between the ends is a relay that cuts after a byte
//! that the seed names, in the middle of greetings, frames and last words, by a reset or by an end behind
//! which what is on its way still arrives, and that passes on in pieces.
//!
//! What does not apply: stops for minutes, as time is the system's; so a seed repeats what is done, and not
//! what the scheduler makes of it.
//!
//! `RINGWAY_SEEDS=FROM..TO` asks for other seeds than the first few.

#[path = "simulator_sockets/relay.rs"]
mod relay;
#[path = "simulator/rng.rs"]
mod rng;
#[path = "simulator/scripts.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod scripts;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use relay::Relay;
use ringway_net::backend::Chosen;
use ringway_net::session::Format;
use ringway_net::{
    Backend, Io, NetReceiver, NetSender, Options, RecvError, SendError, Side, Stats, Wait,
};
use rng::Rng;
use scripts::{Script, Weather, body, rough, script};

/// Far beyond what the slowest machine needs: only a hang runs into it.
const PATIENCE: Duration = Duration::from_secs(30);

fn seeds(count: u64) -> Range<u64> {
    let Ok(text) = std::env::var("RINGWAY_SEEDS") else { return 0..count };
    let (from, to) = text.split_once("..").expect("RINGWAY_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn options(capacity: u64, backend: Backend, io: Io) -> Options {
    let format = Format { endian: 1, pointer: 4, align: 8 };
    let mut options = Options::new("127.0.0.1", 0, "ticks", 0x0123_4567_89ab_cdef, format);
    options.capacity = capacity;
    options.backend = backend;
    options.io = io;
    // Whoever is to hear the last words again is waited for, however slow this machine is.
    options.timing.takeover_ns = 3_600_000_000_000;
    // A real back-off takes real time.
    options.timing.retry_max_ns = 20_000_000;
    options
}

/// The two ends' threads: who is through tells so, and goes on until the other is. Last words that a cut took
/// away are asked for again, and whoever was told of the end must still be there to say them.
struct Other {
    through: Sender<()>,
    is_through: Receiver<()>,
}

impl Other {
    fn pair() -> [Self; 2] {
        let [(here, there), (other, another)] = [channel(), channel()];
        [Self { through: here, is_through: another }, Self { through: other, is_through: there }]
    }

    fn wait(self, mut meanwhile: impl FnMut()) {
        drop(self.through);
        while self.is_through.try_recv() == Err(TryRecvError::Empty) {
            meanwhile();
            thread::yield_now();
        }
    }
}

/// The sender's part. What it counted.
fn send_all(mut tx: NetSender, script: &Script, receiver: Other) -> Stats {
    let to_the_end = script.receiver_closes_after == u64::MAX;
    let mut ended = None;
    for number in 0..script.messages {
        let len = (script.len)(number);
        match tx.claim_timeout(len, PATIENCE) {
            Ok(mut claim) => {
                claim.copy_from_slice(&body(number, len));
                claim.commit().expect("this process was not forked");
            }
            Err(error) => {
                ended = Some(error);
                break;
            }
        }
    }
    if to_the_end {
        assert_eq!(ended, None, "{:?}", tx.trouble());
        let messages = tx.stats().messages;
        tx.close(PATIENCE).unwrap_or_else(|error| panic!("of {messages}: {error}"));
        let mut stats = Stats::default();
        (stats.messages, stats.released) = (messages, messages);
        return stats;
    }
    let start = Instant::now();
    while ended.is_none() {
        ended = tx.flush().err();
        assert!(start.elapsed() < PATIENCE, "the receiver has closed: {:?}", tx.stats());
        thread::yield_now();
    }
    let stats = tx.stats();
    assert_eq!(ended, Some(SendError::Disconnected { lost: stats.lost }), "{:?}", tx.trouble());
    receiver.wait(|| {
        let _ = tx.flush();
    });
    stats
}

/// The receiver's part. What it counted.
fn receive_all(mut rx: NetReceiver, script: &Script, sender: Other) -> Stats {
    let most = script.receiver_closes_after.min(script.messages + 1);
    let mut count = 0;
    while count < most {
        let limit = script.hold.min(most - count) as usize;
        let mut batch = match rx.recv_batch(limit, Some(PATIENCE)) {
            Ok(batch) => batch,
            Err(RecvError::Disconnected) => break,
            Err(error) => panic!("after {count} messages: {error}"),
        };
        while let Some(message) = batch.next().expect("this process was not forked") {
            let len = (script.len)(count);
            assert_eq!(message.sequence, count, "lost or doubled");
            assert_eq!(message.payload, body(count, len), "message {count}");
            count += 1;
        }
    }
    let stats = rx.stats();
    assert_eq!((stats.messages, stats.violations), (count, 0));
    if script.receiver_closes_after == u64::MAX {
        assert_eq!(count, script.messages);
        sender.wait(|| assert_eq!(rx.try_recv().err(), Some(RecvError::Empty)));
    } else {
        assert_eq!(count, script.receiver_closes_after);
        assert!(rx.close(PATIENCE), "the sender did not answer");
    }
    stats
}

/// One conversation, and what must have come of it. Connections, resumes, cuts.
fn converse(
    (script, capacity, weather): &(Script, u64, Weather),
    seed: u64,
    backends: [Backend; 2],
    io: Io,
) -> [u64; 3] {
    let [binds, connects] = backends.map(|backend| {
        let mut options = options(*capacity, backend, io);
        options.wait = [Wait::Spin, Wait::Adaptive, Wait::Park][seed as usize % 3];
        options
    });
    let binds = Options { side: Side::Bind, ..binds };
    let to = |port| Options { side: Side::Connect, port, ..connects };
    let open = "an end is opened";
    let (tx, rx, relay);
    if seed.is_multiple_of(2) {
        rx = NetReceiver::open(&binds).expect(open);
        relay = Relay::start(rx.local_addr().expect("it is bound"), weather, seed);
        tx = NetSender::open(&to(relay.port())).expect(open);
    } else {
        tx = NetSender::open(&binds).expect(open);
        relay = Relay::start(tx.local_addr().expect("it is bound"), weather, seed);
        rx = NetReceiver::open(&to(relay.port())).expect(open);
    }
    let [here, there] = Other::pair();
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(move || send_all(tx, script, here));
        let received = receive_all(rx, script, there);
        (sender.join().expect("the sender's checks"), received)
    });
    assert_eq!(sent.released + sent.lost, sent.messages);
    assert_eq!(sent.released, received.messages, "acknowledged is what the application had");
    [received.connections, received.resumes, relay.end()]
}

/// Runs all seeds, and says which it was when one fails.
fn run(what: &str, backends: [Backend; 2], io: Io, count: u64) {
    for backend in backends {
        if let Err(error) = Chosen::open(backend) {
            println!("skipped, {what}: {error}");
            return;
        }
    }
    let (mut sum, start) = ([0; 3], Instant::now());
    for seed in seeds(count) {
        // A part of the seeds has the script whose lengths are around every edge, and cuts in its 700
        // bytes one after the other.
        let world = match seed % 3 {
            0 => {
                let weather = Weather { severs: 20, piece: 24, troubles: 3, ..Weather::FINE };
                (script(seed % 4 == 3), 4096, weather)
            }
            _ => rough(seed),
        };
        let told = catch_unwind(AssertUnwindSafe(|| converse(&world, seed, backends, io)));
        let counted = told.unwrap_or_else(|panic| {
            eprintln!("failed, {what}: seed {seed}, {world:?}");
            resume_unwind(panic)
        });
        for (sum, count) in sum.iter_mut().zip(counted) {
            *sum += count;
        }
    }
    let [connections, resumes, cuts] = sum;
    println!(
        "{what}: seeds {:?}, {connections} connections, {resumes} resumes, {cuts} cuts, {:?}",
        seeds(count),
        start.elapsed()
    );
    assert!(seeds(count).count() < 20 || resumes > 0 && cuts > 0, "the weather was fine");
}

#[test]
fn scripts_over_epoll() {
    run("epoll", [Backend::Epoll; 2], Io::Inline, 150);
}

#[test]
fn scripts_over_uring() {
    run("uring", [Backend::Uring; 2], Io::Inline, 150);
}

#[test]
fn scripts_between_uring_and_epoll() {
    run("uring and epoll", [Backend::Uring, Backend::Epoll], Io::Inline, 60);
}

#[test]
fn scripts_with_threads() {
    run("threads", [Backend::Epoll, Backend::Uring], Io::Thread, 60);
}

#[test]
fn a_seed_repeats_what_is_done() {
    let plan = |seed| relay::plan(&mut Rng::new(seed), &rough(seed).2);
    assert_eq!(plan(7), plan(7));
    assert!((0..50).any(|seed| plan(seed) != plan(seed + 1)));
}
