//! Two sessions over byte streams that break, in a world whose every event comes from a seed: each
//! message once and in order, whatever is cut, stalled, delayed or dialed twice; no memory beyond
//! the rings; no way to get stuck.
//!
//! A failure names the cut and the seed. `cargo test -p ringway-net --test simulator -- --nocapture`
//! prints how much was tried.

#[path = "simulator/node.rs"]
mod node;
#[path = "simulator/rng.rs"]
mod rng;
#[path = "simulator/scripts.rs"]
mod scripts;
#[path = "simulator/wire.rs"]
mod wire;
#[path = "simulator/world.rs"]
mod world;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use node::{App, MS, Node, config};
use ringway_net::session::{End, Half, Receiving, Sending, Side};
use rng::Rng;
use scripts::{Script, Weather, both_close, rough, script};
use wire::{Cut, SIDES, Side as By};
use world::World;

const CONNECTOR: Side = Side::Connector { session: *b"a session's name", seed: 7 };

/// Runs one conversation, and says what it was when it fails.
fn told<T>(what: impl Debug, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        eprintln!("failed: {what:?}");
        resume_unwind(panic)
    })
}

trait Ends: Sized {
    fn sender(&self) -> &Node<Sending>;
    fn receiver(&self) -> &Node<Receiving>;
}

impl Ends for World<Sending, Receiving> {
    fn sender(&self) -> &Node<Sending> {
        &self.connector
    }
    fn receiver(&self) -> &Node<Receiving> {
        &self.binder
    }
}

impl Ends for World<Receiving, Sending> {
    fn sender(&self) -> &Node<Sending> {
        &self.binder
    }
    fn receiver(&self) -> &Node<Receiving> {
        &self.connector
    }
}

/// A whole life, from the first dial to the end on both sides, and what must have come of it.
fn converse<C: Half, B: Half>(
    script: &Script,
    capacity: u64,
    weather: &Weather,
    cuts: &[Cut],
    seed: u64,
) -> World<C, B>
where
    Node<C>: App,
    Node<B>: App,
    World<C, B>: Ends,
{
    let [connector, binder] = [CONNECTOR, Side::Binder].map(|side| {
        let mut config = config(side, capacity);
        // In the worst weather ends are stopped for minutes while they try to resume.
        config.timing.resume_ns = 7_200_000 * MS;
        config
    });
    let (connector, binder) = (Node::new(connector), Node::new(binder));
    let mut world = World::new(connector, binder, weather.clone(), cuts, seed);
    world.run(script, World::is_closed);
    let (sender, receiver) = (world.sender(), world.receiver());
    assert_eq!((sender.end(), receiver.end()), (Some(End::Closed), Some(End::Closed)));
    // That they came in order and whole was checked as they were read.
    let lost = sender.session.unacknowledged(&sender.memory);
    assert_eq!(receiver.released + lost.messages, sender.count, "{}", world.describe());
    if script.receiver_closes_after == u64::MAX {
        assert_eq!((receiver.count, lost.messages), (script.messages, 0));
    } else {
        assert_eq!(receiver.released, script.receiver_closes_after);
    }
    let counters = [sender.session.counters(), receiver.session.counters()];
    assert!(counters.iter().all(|counters| counters.violations == 0), "{counters:?}");
    world
}

/// Every byte of the conversation, by either writer, is once the last that arrives.
fn every_byte<C: Half, B: Half>(script: &Script) -> u64
where
    Node<C>: App,
    Node<B>: App,
    World<C, B>: Ends,
{
    let converse = |cuts: &[Cut], weather: &Weather, seed| {
        told((script, cuts, seed), || converse::<C, B>(script, 4096, weather, cuts, seed))
    };
    // Of the last frame, the bye, nobody waits for a repetition; of both byes, where both close.
    let last_words = if script.both_close { 32 } else { 16 };
    let whole = converse(&[], &Weather::FINE, 1);
    assert_eq!(whole.dials, 1);
    let mut cuts = 0;
    for (writer, total) in SIDES.into_iter().zip(whole.first_delivered) {
        assert!(total >= 240 + 16, "{writer:?} said {total} bytes");
        for after in 0..=total {
            for drains in [false, true] {
                let cut = Cut { writer, after, drains };
                let world = converse(&[cut], &Weather::FINE, 1);
                let last = after + last_words >= total;
                assert!(world.dials == 2 || last, "{cut:?}: {} dials", world.dials);
                // The same in small pieces.
                let pieces = Weather { pipe: 64, piece: 24, ..Weather::FINE };
                converse(&[cut], &pieces, after);
                cuts += 2;
            }
        }
    }
    cuts
}

#[test]
fn a_cut_at_every_byte_loses_nothing() {
    let cuts = [
        every_byte::<Sending, Receiving>(&script(false)),
        every_byte::<Sending, Receiving>(&script(true)),
        every_byte::<Receiving, Sending>(&script(false)),
        every_byte::<Receiving, Sending>(&script(true)),
    ];
    println!("cut at every byte: {} conversations {cuts:?}", cuts.iter().sum::<u64>());
}

/// Both close when they are through, at about the same time: their last words cross, and are cut.
fn crossing<C: Half, B: Half>() -> u64
where
    Node<C>: App,
    Node<B>: App,
    World<C, B>: Ends,
{
    let script = both_close();
    let cuts = every_byte::<C, B>(&script);
    // Which of them comes first is by chance: many times each, where the last words are.
    let mut more = 0;
    for seed in 0..100 {
        let whole = converse::<C, B>(&script, 4096, &Weather::FINE, &[], seed);
        for (writer, total) in SIDES.into_iter().zip(whole.first_delivered) {
            for after in (total.saturating_sub(64)..=total).step_by(8) {
                for drains in [false, true] {
                    let cut = Cut { writer, after, drains };
                    let converse = || converse::<C, B>(&script, 4096, &Weather::FINE, &[cut], seed);
                    told((cut, seed), converse);
                    more += 1;
                }
            }
        }
    }
    cuts + more
}

#[test]
fn a_cut_while_both_close_leaves_nobody_waiting() {
    let cuts = [crossing::<Sending, Receiving>(), crossing::<Receiving, Sending>()];
    println!("both close: {} conversations {cuts:?}", cuts.iter().sum::<u64>());
}

/// The connection that repairs the first cut is cut as well, at any of its bytes.
fn two_cuts<C: Half, B: Half>() -> u64
where
    Node<C>: App,
    Node<B>: App,
    World<C, B>: Ends,
{
    let script = script(false);
    let mut cuts = 0;
    let mut rng = Rng::new(0);
    for first in 0..700 {
        for second in (first % 13..700).step_by(13) {
            let pair = [first, second].map(|after| Cut {
                writer: SIDES[rng.range(0, 1) as usize],
                after,
                drains: rng.one_in(2),
            });
            told(pair, || converse::<C, B>(&script, 4096, &Weather::FINE, &pair, first));
            cuts += 1;
        }
    }
    cuts
}

#[test]
fn a_cut_during_the_repair_of_a_cut_loses_nothing() {
    let cuts = [two_cuts::<Sending, Receiving>(), two_cuts::<Receiving, Sending>()];
    println!("two cuts: {} conversations {cuts:?}", cuts.iter().sum::<u64>());
}

/// Seeds of [`rough`]; `RINGWAY_SEEDS=FROM..TO` asks for others.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("RINGWAY_SEEDS") else { return 0..3000 };
    let (from, to) = text.split_once("..").expect("RINGWAY_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn rough_weather_loses_nothing() {
    let (mut dials, mut resumes, mut again, mut steps, mut waiting) = (0, 0, 0, 0, 0);
    let mut hang_ups = 0;
    for seed in seeds() {
        let (script, capacity, weather) = rough(seed);
        let (counters, run) = told((seed, &script, &weather), || match seed % 2 {
            0 => summary(converse::<Sending, Receiving>(&script, capacity, &weather, &[], seed)),
            _ => summary(converse::<Receiving, Sending>(&script, capacity, &weather, &[], seed)),
        });
        dials += run[0];
        steps += run[1];
        waiting = waiting.max(run[2]);
        hang_ups += run[3];
        resumes += counters.resumes;
        again += counters.resent_bytes;
    }
    println!(
        "rough weather: seeds {:?}, {dials} dials, {resumes} resumes, {again} bytes sent again, \
         {hang_ups} hang-ups, at most {waiting} dialed at once, {steps} steps",
        seeds()
    );
    assert!(resumes > 0 && again > 0 && waiting > 1, "the weather was fine");
}

/// A conversation in rough weather, in the middle of which one end is killed and starts anew. 1 if
/// there was a session to be lost.
fn killed<C: Half, B: Half>(seed: u64) -> u64
where
    Node<C>: App<Other = Node<B>>,
    Node<B>: App<Other = Node<C>>,
    World<C, B>: Ends,
{
    let (script, capacity, weather) = rough(seed);
    let mut rng = Rng::new(seed);
    let mut names = 0;
    let mut connector = || {
        names += 1;
        let side = Side::Connector { session: [names; 16], seed };
        Node::<C>::new(config(side, capacity))
    };
    let binder = || Node::<B>::new(config(Side::Binder, capacity));
    let mut world = World::new(connector(), binder(), weather, &[], seed);
    let moment = rng.range(1, 3000);
    world.run(&script, |world| world.steps >= moment || world.is_closed());
    let known;
    if rng.one_in(2) {
        known = world.connector.session.is_established() && !world.is_over(By::Connector);
        let dead = world.restart_binder(binder());
        world.run(&script, |world| world.is_over(By::Connector));
        if known {
            world.connector.survived(&dead, &script);
        }
        if !world.is_closed() {
            world.restart_connector(connector());
        }
    } else {
        known = world.binder.session.is_established() && !world.is_over(By::Binder);
        let dead = world.restart_connector(connector());
        world.run(&script, |world| world.is_over(By::Binder));
        if known {
            world.binder.survived(&dead, &script);
        }
        if !world.is_closed() {
            world.restart_binder(binder());
        }
    }
    // What comes next begins at 0 and is whole, unless the weather kills it, or the survivor had
    // been through with its successor already.
    world.run(&script, |world| {
        let (connector, binder) = (world.is_over(By::Connector), world.is_over(By::Binder));
        binder || (connector && !world.binder.session.is_established())
    });
    let ends = [world.sender().end(), world.receiver().end()];
    if ends == [Some(End::Closed); 2] && script.receiver_closes_after == u64::MAX {
        assert_eq!(world.receiver().count, script.messages);
    }
    known.into()
}

#[test]
fn a_death_is_told_and_what_was_acknowledged_was_had() {
    let mut lost = 0;
    for seed in seeds() {
        lost += told(seed, || match seed % 2 {
            0 => killed::<Sending, Receiving>(seed),
            _ => killed::<Receiving, Sending>(seed),
        });
    }
    println!("deaths: seeds {:?}, {lost} sessions lost", seeds());
    assert!(lost > 0);
}

fn summary<C: Half, B: Half>(world: World<C, B>) -> (ringway_net::session::Counters, [u64; 4])
where
    Node<C>: App,
    Node<B>: App,
    World<C, B>: Ends,
{
    let counters = world.sender().session.counters();
    let waiting = world.most_waiting as u64;
    (counters, [world.dials, world.steps, waiting, world.hang_ups.len() as u64])
}
