//! What one operation costs, in CPU time, on one core: `cargo bench -p ringway-bench`. With both ends
//! on one thread no cache line moves between cores, so these are the costs of the code alone; what
//! crossing costs is the business of `ringway-bench`.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ringway::{Describe, Message, Receiver, Sender, rkyv};
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Messages between two readings of the clock, where one side of the way is timed alone. They all
/// fit into the ring, and a clock reading shared by so many does not show.
const BURST: u64 = 1024;

/// Messages of a batch.
const BATCH: usize = 32;

/// Six words, as a tick has.
#[derive(rkyv::Archive, rkyv::Serialize, Describe, Clone, Copy)]
#[rkyv(crate = ringway::rkyv)]
struct Tick {
    sequence: u64,
    instrument: u64,
    bid_price: u64,
    bid_size: u64,
    ask_price: u64,
    ask_size: u64,
}

const TICK: Tick =
    Tick { sequence: 1, instrument: 7, bid_price: 99, bid_size: 10, ask_price: 101, ask_size: 20 };

/// A directory on tmpfs for one benchmark's channel; it goes, with the channel, however that ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let shm = PathBuf::from("/dev/shm");
        let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
        let path = parent.join(format!("ringway-operations-{}-{name}", std::process::id()));
        // Of a killed run that had the same id.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a new directory");
        Scratch(path)
    }

    fn channel(&self) -> ringway::Builder {
        let channel = ringway::Builder::new("shm://operation").expect("a plain address");
        channel.directory(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Both ends of a channel.
struct Pair<T: Message + ?Sized> {
    tx: Sender<T>,
    rx: Receiver<T>,
    _scratch: Scratch,
}

impl<T: Message + ?Sized> Pair<T> {
    fn open(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let tx = scratch.channel().sender().expect("the sending end");
        let rx = scratch.channel().receiver().expect("the receiving end");
        Pair { tx, rx, _scratch: scratch }
    }

    /// Time that `send` takes for `count` messages, which are received meanwhile, untimed.
    fn sending(&mut self, count: u64, mut send: impl FnMut(&mut Sender<T>)) -> Duration {
        let mut spent = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            let burst = left.min(BURST);
            let start = Instant::now();
            for _ in 0..burst {
                send(&mut self.tx);
            }
            spent += start.elapsed();
            while self.rx.try_recv().is_ok() {}
            left -= burst;
        }
        spent
    }

    /// Time that `receive` takes for `count` messages, which are sent before, untimed.
    fn receiving(
        &mut self,
        count: u64,
        mut send: impl FnMut(&mut Sender<T>),
        mut receive: impl FnMut(&mut Receiver<T>),
    ) -> Duration {
        let mut spent = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            let burst = left.min(BURST);
            for _ in 0..burst {
                send(&mut self.tx);
            }
            let start = Instant::now();
            for _ in 0..burst {
                receive(&mut self.rx);
            }
            spent += start.elapsed();
            left -= burst;
        }
        spent
    }
}

/// The length is a constant in the code, as it is in a program that knows its messages.
fn claim_commit<const N: usize>(tx: &mut Sender<[u8]>, bytes: &[u8; N]) {
    let mut claim = tx.claim(N).expect("room");
    claim[..N].copy_from_slice(bytes);
    claim.commit().expect("committed");
}

/// One message sent and received.
fn pair(c: &mut Criterion) {
    let mut group = c.benchmark_group("send and recv");
    let mut ends = Pair::<Tick>::open("pair-typed");
    group.bench_function("48 B typed", |b| {
        b.iter(|| {
            ends.tx.send(black_box(&TICK)).expect("sent");
            black_box(ends.rx.recv().expect("received").sequence.to_native())
        });
    });
    pair_of_bytes::<8>(&mut group);
    pair_of_bytes::<64>(&mut group);
    group.finish();
}

fn pair_of_bytes<const N: usize>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut ends = Pair::<[u8]>::open(&format!("pair-{N}"));
    group.bench_function(format!("{N} B"), |b| {
        b.iter(|| {
            claim_commit(&mut ends.tx, black_box(&[7; N]));
            black_box(ends.rx.recv().expect("received")[0])
        });
    });
}

/// Each side of it alone.
fn sides(c: &mut Criterion) {
    sides_of_bytes::<8>(c);
    sides_of_bytes::<64>(c);
    let mut ends = Pair::<Tick>::open("send-typed");
    c.bench_function("send/48 B typed", |b| {
        b.iter_custom(|count| ends.sending(count, |tx| tx.send(black_box(&TICK)).expect("sent")));
    });
    let mut ends = Pair::<Tick>::open("recv-typed");
    c.bench_function("recv and release/48 B typed", |b| {
        b.iter_custom(|count| {
            ends.receiving(
                count,
                |tx| tx.send(&TICK).expect("sent"),
                |rx| {
                    black_box(rx.recv().expect("received").sequence.to_native());
                },
            )
        });
    });
}

fn sides_of_bytes<const N: usize>(c: &mut Criterion) {
    let mut ends = Pair::<[u8]>::open(&format!("claim-{N}"));
    c.bench_function(&format!("claim and commit/{N} B"), |b| {
        b.iter_custom(|count| ends.sending(count, |tx| claim_commit(tx, black_box(&[7; N]))));
    });
    let mut ends = Pair::<[u8]>::open(&format!("recv-{N}"));
    c.bench_function(&format!("recv and release/{N} B"), |b| {
        b.iter_custom(|count| {
            ends.receiving(
                count,
                |tx| claim_commit(tx, &[7; N]),
                |rx| {
                    black_box(rx.recv().expect("received")[0]);
                },
            )
        });
    });
}

/// Thirty-two messages under one publication, sent and received.
fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("32 messages");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut ends = Pair::<[u8]>::open("queue");
    group.bench_function("queue, flush and recv/8 B", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                ends.tx.queue(black_box(&[7; 8])).expect("queued");
            }
            ends.tx.flush().expect("flushed");
            for _ in 0..BATCH {
                black_box(ends.rx.recv().expect("received")[0]);
            }
        });
    });
    let mut ends = Pair::<Tick>::open("batch");
    let ticks = [TICK; BATCH];
    group.bench_function("send_batch and recv_batch/48 B typed", |b| {
        b.iter(|| {
            ends.tx.send_batch(black_box(&ticks)).expect("sent");
            let mut batch = ends.rx.recv_batch(BATCH).expect("received");
            while let Some(tick) = batch.next().expect("a sound message") {
                black_box(tick.sequence.to_native());
            }
        });
    });
    group.finish();
}

/// What a poll costs that finds nothing.
fn empty(c: &mut Criterion) {
    let mut ends = Pair::<[u8]>::open("empty");
    c.bench_function("try_recv/empty", |b| b.iter(|| black_box(ends.rx.try_recv().is_err())));
}

/// Set-up and end of a handle, system calls included.
fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("open and close");
    let scratch = Scratch::new("create");
    group.bench_function("both ends, creating the channel", |b| {
        b.iter(|| {
            let tx = scratch.channel().sender::<Tick>().expect("the sending end");
            (tx, scratch.channel().receiver::<Tick>().expect("the receiving end"))
        });
    });
    let scratch = Scratch::new("attach");
    let mut tx = scratch.channel().sender::<Tick>().expect("the sending end");
    tx.send(&TICK).expect("sent");
    group.bench_function("a receiver, attaching", |b| {
        b.iter(|| {
            let mut rx = scratch.channel().receiver::<Tick>().expect("the receiving end");
            // To look for a message is what attaches to the sender's segment.
            black_box(rx.try_recv_batch(1).is_ok());
        });
    });
    group.finish();
}

/// All of it in half a minute. Longer makes no difference to medians of single nanoseconds.
fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_200))
}

criterion_group! {
    name = operations;
    config = short();
    targets = pair, sides, batches, empty, opening
}
criterion_main!(operations);
