//! One verb, many times over, in a function of its own, so that callgrind can count the instructions
//! of that verb and of nothing else (`.ci/instructions`). Measures nothing by itself.
//!
//! ```text
//! ringway-instructions                 prints the verbs, one a line: name, tab, function to count in
//! ringway-instructions VERB MESSAGES   sends and receives that many
//! ```
//!
//! Both ends are here, on one thread: a burst is sent, then received, so that nobody ever waits and
//! every run takes the same way, instruction by instruction. What is counted is the steady state:
//! laps, the publication of heads and the look at them included, waiting and set-up not.

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;

use ringway::{Describe, Receiver, Sender, rkyv};

type Outcome = Result<(), Box<dyn Error>>;

/// Messages between two looks at the other end: small beside the ring, large beside the cost of the
/// call that is counted with it.
const BURST: u64 = 64;

/// Messages of a batch.
const BATCH: u64 = 32;

/// Of each kind of channel. Some laps within a run of a few thousand messages, so that their cost is in
/// the mean.
const RING: &str = "capacity=64KiB";
const BROADCAST: &str = "kind=broadcast&capacity=64KiB";
const MPMC: &str = "kind=mpmc&slots=1024&slot=16";

/// A verb under its name, on a channel of these options; `function` is where its instructions are.
struct Verb {
    name: &'static str,
    function: &'static str,
    options: &'static str,
    run: fn(&str, u64) -> Outcome,
}

const VERBS: [Verb; 14] = [
    verb("claim/commit, 8 B", "counted_claim", RING, claim),
    verb("send, 8 B", "counted_send", RING, send),
    verb("recv, 8 B", "counted_recv", RING, claim),
    verb("send, 48 B typed", "counted_send_typed", RING, typed),
    verb("recv, 48 B typed", "counted_recv_typed", RING, typed),
    verb("send_batch, 8 B", "counted_send_batch", RING, batch),
    verb("recv_batch, 8 B", "counted_recv_batch", RING, batch),
    verb("send, broadcast", "counted_send", BROADCAST, send),
    verb("recv, broadcast", "counted_recv", BROADCAST, send),
    verb("claim/commit, mpmc", "counted_claim", MPMC, claim),
    verb("send, mpmc", "counted_send", MPMC, send),
    verb("recv, mpmc", "counted_recv", MPMC, send),
    verb("send_batch, mpmc", "counted_send_batch", MPMC, batch),
    verb("recv_batch, mpmc", "counted_recv_batch", MPMC, batch),
];

const fn verb(
    name: &'static str,
    function: &'static str,
    options: &'static str,
    run: fn(&str, u64) -> Outcome,
) -> Verb {
    Verb { name, function, options, run }
}

/// Six words, as a tick has.
#[derive(rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Tick {
    sequence: u64,
    instrument: u64,
    bid_price: u64,
    bid_size: u64,
    ask_price: u64,
    ask_size: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [] => {
            VERBS.iter().for_each(|verb| println!("{}\t{}", verb.name, verb.function));
            Ok(())
        }
        [name, messages] => count(name, messages),
        _ => Err("give a verb and a number of messages, or nothing, for the list of verbs".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count(name: &str, messages: &str) -> Outcome {
    let verb = VERBS.iter().find(|verb| verb.name == name);
    let verb = verb.ok_or_else(|| format!("no verb is called \"{name}\""))?;
    let messages: u64 = messages.parse()?;
    let address = format!("shm://instructions-{}?{}", std::process::id(), verb.options);
    (verb.run)(&address, messages / BURST)
}

fn claim(address: &str, bursts: u64) -> Outcome {
    let mut tx = ringway::sender(address)?;
    let mut rx = ringway::receiver(address)?;
    for burst in 0..bursts {
        counted_claim(&mut tx, burst)?;
        counted_recv(&mut rx)?;
    }
    Ok(())
}

fn send(address: &str, bursts: u64) -> Outcome {
    let mut tx = ringway::sender(address)?;
    let mut rx = ringway::receiver(address)?;
    for burst in 0..bursts {
        counted_send(&mut tx, burst)?;
        counted_recv(&mut rx)?;
    }
    Ok(())
}

fn batch(address: &str, bursts: u64) -> Outcome {
    let mut tx = ringway::sender(address)?;
    let mut rx = ringway::receiver(address)?;
    for burst in 0..bursts {
        counted_send_batch(&mut tx, burst)?;
        counted_recv_batch(&mut rx)?;
    }
    Ok(())
}

fn typed(address: &str, bursts: u64) -> Outcome {
    let mut tx = ringway::sender(address)?;
    let mut rx = ringway::receiver(address)?;
    for burst in 0..bursts {
        counted_send_typed(&mut tx, burst)?;
        counted_recv_typed(&mut rx)?;
    }
    Ok(())
}

#[inline(never)]
fn counted_claim(tx: &mut Sender<[u8]>, burst: u64) -> Outcome {
    for index in 0..BURST {
        let mut claim = tx.claim(8)?;
        claim.copy_from_slice(&(burst + index).to_ne_bytes());
        claim.commit()?;
    }
    Ok(())
}

#[inline(never)]
fn counted_send(tx: &mut Sender<[u8]>, burst: u64) -> Outcome {
    for index in 0..BURST {
        tx.send(&(burst + index).to_ne_bytes())?;
    }
    Ok(())
}

#[inline(never)]
fn counted_recv(rx: &mut Receiver<[u8]>) -> Outcome {
    for _ in 0..BURST {
        black_box(rx.recv()?.first_chunk::<8>());
    }
    Ok(())
}

#[inline(never)]
fn counted_send_batch(tx: &mut Sender<[u8]>, burst: u64) -> Outcome {
    for part in 0..BURST / BATCH {
        let batch: [[u8; 8]; BATCH as usize] =
            std::array::from_fn(|index| (burst + part + index as u64).to_ne_bytes());
        tx.send_batch(&batch)?;
    }
    Ok(())
}

#[inline(never)]
fn counted_recv_batch(rx: &mut Receiver<[u8]>) -> Outcome {
    for _ in 0..BURST / BATCH {
        let mut batch = rx.recv_batch(BATCH as usize)?;
        while let Some(message) = batch.next()? {
            black_box(message.first_chunk::<8>());
        }
    }
    Ok(())
}

#[inline(never)]
fn counted_send_typed(tx: &mut Sender<Tick>, burst: u64) -> Outcome {
    for index in 0..BURST {
        let sequence = burst + index;
        tx.send(&Tick {
            sequence,
            instrument: 7,
            bid_price: sequence + 1,
            bid_size: 10,
            ask_price: sequence + 2,
            ask_size: 20,
        })?;
    }
    Ok(())
}

#[inline(never)]
fn counted_recv_typed(rx: &mut Receiver<Tick>) -> Outcome {
    for _ in 0..BURST {
        let tick = rx.recv()?;
        black_box(tick.sequence.to_native() + tick.ask_size.to_native());
    }
    Ok(())
}
