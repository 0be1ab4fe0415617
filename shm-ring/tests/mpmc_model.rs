//! Every interleaving of a few participants of a small MPMC queue, with a crash before any access to
//! shared memory, deaths proven and swept by anybody, and newcomers that take the numbers of the dead.
//!
//! What runs is the real code of `mpmc`, on a memory that counts each access as one step
//! (`mpmc_model/machine.rs`, `operation.rs`, `key.rs`). The search (`mpmc_model/search.rs`) visits every state once and then asks
//! of each whether everything can still come to a good end. A library would have the search, but not
//! that question ("from every state there is a way"), and it would want the algorithm written anew.
//!
//! Sequentially consistent; orderings are the business of `loom.rs`. By default each scene is searched
//! up to a number of states that takes seconds, whole if it has no more. `RINGWAY_MODEL_STATES=50000000`
//! searches further: with `--release`, 10 M states take a minute or two and some GiB.

#![cfg(not(loom))]

#[path = "mpmc_model/machine.rs"]
mod machine;
#[path = "mpmc_model/search.rs"]
mod search;

use std::time::Instant;

use machine::{Part, Reduce, Scene, Trust};
use ringway_shm::mpmc::Redeliver;
use search::Outcome;

/// States per scene, if nobody says otherwise.
const STATES: usize = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

fn base() -> Scene {
    Scene {
        slots: 2,
        parts: vec![
            Part::Sender { batches: vec![1] },
            Part::Sender { batches: vec![1] },
            Part::Receiver { most: 1, partial: false },
            Part::Receiver { most: 1, partial: false },
        ],
        newcomer: None,
        crashes: 0,
        redeliver: Redeliver::Again,
        trust: Trust::Sound,
        reduce: Reduce::MergedAndDelayed,
    }
}

/// Searches a scene that must hold.
fn holds(name: &str, scene: Scene) {
    let (limit, shallow) = match std::env::var("RINGWAY_MODEL_STATES") {
        Ok(text) => (text.parse().unwrap(), u32::MAX),
        Err(_) => (STATES, 2),
    };
    let begun = Instant::now();
    let outcome = search::search(&scene, limit, shallow);
    eprintln!("{name}: {outcome}, {:.0?}", begun.elapsed());
    assert!(outcome.violation.is_none(), "{name}: {outcome}");
    assert_eq!(outcome.stuck, 0, "{name}: {outcome}");
}

/// Searches a scene with a part of the protocol taken away: the search has to notice.
fn breaks(name: &str, scene: Scene) {
    let outcome: Outcome = search::search(&scene, 4_000_000, 2);
    let text = outcome.to_string();
    eprintln!("{name}: {}", text.lines().next().unwrap());
    assert!(outcome.violation.is_some() || outcome.stuck > 0, "{name}: nobody noticed");
}

#[test]
fn nobody_dies() {
    let scene = base();
    holds(
        "2 senders, 2 receivers, 2 slots",
        Scene {
            parts: vec![
                Part::Sender { batches: vec![1, 1] },
                Part::Sender { batches: vec![1] },
                Part::Receiver { most: 1, partial: false },
                Part::Receiver { most: 1, partial: false },
            ],
            ..scene
        },
    );
}

#[test]
fn one_dies() {
    holds("2 senders, 2 receivers, 1 crash", Scene { crashes: 1, ..base() });
    holds(
        "2 senders, 1 receiver, 1 crash, the ring goes round",
        Scene {
            crashes: 1,
            parts: vec![
                Part::Sender { batches: vec![1, 1] },
                Part::Sender { batches: vec![1] },
                Part::Receiver { most: 1, partial: false },
            ],
            ..base()
        },
    );
}

#[test]
fn messages_of_the_dead_are_dropped_if_that_was_asked_for() {
    holds(
        "drop",
        Scene {
            crashes: 1,
            redeliver: Redeliver::Drop,
            parts: vec![
                Part::Sender { batches: vec![1, 1] },
                Part::Receiver { most: 2, partial: false },
                Part::Receiver { most: 1, partial: false },
            ],
            slots: 4,
            ..base()
        },
    );
}

#[test]
fn runs() {
    holds(
        "runs of 2 in 4 slots, 1 crash",
        Scene {
            slots: 4,
            crashes: 1,
            parts: vec![
                Part::Sender { batches: vec![2, 2] },
                Part::Sender { batches: vec![1] },
                Part::Receiver { most: 2, partial: false },
            ],
            ..base()
        },
    );
    holds(
        "runs, released in part, 1 crash",
        Scene {
            slots: 4,
            crashes: 1,
            parts: vec![
                Part::Sender { batches: vec![2, 1] },
                Part::Receiver { most: 2, partial: true },
                Part::Receiver { most: 2, partial: false },
            ],
            ..base()
        },
    );
    holds(
        "runs that are filled in part, 1 crash",
        Scene {
            slots: 4,
            crashes: 1,
            parts: vec![
                Part::Waster { batches: vec![2, 2] },
                Part::Sender { batches: vec![2] },
                Part::Receiver { most: 2, partial: false },
            ],
            ..base()
        },
    );
}

#[test]
fn numbers_of_the_dead_are_taken() {
    for newcomer in [Part::Sender { batches: vec![1] }, Part::Receiver { most: 1, partial: false }]
    {
        holds(
            "a newcomer takes a dead one's number",
            Scene {
                crashes: 1,
                newcomer: Some(newcomer.clone()),
                parts: vec![
                    Part::Sender { batches: vec![1] },
                    Part::Sender { batches: vec![1] },
                    Part::Receiver { most: 1, partial: false },
                ],
                ..base()
            },
        );
        holds(
            "two die, a newcomer takes a number and may be the second",
            Scene {
                crashes: 2,
                newcomer: Some(newcomer),
                parts: vec![
                    Part::Sender { batches: vec![1] },
                    Part::Receiver { most: 1, partial: false },
                    Part::Receiver { most: 1, partial: false },
                ],
                ..base()
            },
        );
    }
}

/// States that are merged can do the same.
#[test]
fn what_is_merged_is_alike() {
    let limit = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
    let small = Scene {
        crashes: 1,
        parts: vec![
            Part::Sender { batches: vec![1] },
            Part::Sender { batches: vec![1] },
            Part::Receiver { most: 1, partial: false },
        ],
        ..base()
    };
    let two_receivers = Scene {
        parts: vec![
            Part::Sender { batches: vec![2] },
            Part::Receiver { most: 2, partial: true },
            Part::Receiver { most: 2, partial: true },
        ],
        slots: 4,
        ..small.clone()
    };
    let newcomer = Scene {
        newcomer: Some(Part::Sender { batches: vec![1] }),
        parts: vec![Part::Sender { batches: vec![1] }, Part::Receiver { most: 1, partial: false }],
        ..small.clone()
    };
    let dropped = Scene { redeliver: Redeliver::Drop, ..two_receivers.clone() };
    for (name, scene) in [
        ("two senders", small),
        ("two receivers", two_receivers),
        ("a newcomer", newcomer),
        ("dropped", dropped),
    ] {
        let (states, classes) =
            search::merges(&scene, limit).unwrap_or_else(|why| panic!("{name}: {why}"));
        eprintln!("{name}: {states} states make {classes}");
        assert!(classes < states, "{name}");
    }
}

/// Looks that are delayed change nothing of what anybody else finds, and nothing of what comes of it.
#[test]
fn what_is_delayed_is_not_missed() {
    let receiver = Part::Receiver { most: 1, partial: false };
    let sender = Part::Sender { batches: vec![1] };
    let scene = |parts: &[&Part]| Scene {
        crashes: 1,
        parts: parts.iter().map(|part| (*part).clone()).collect(),
        ..base()
    };
    let newcomer = |newcomer: &Part| Scene {
        crashes: 2,
        newcomer: Some(newcomer.clone()),
        ..scene(&[&sender, &receiver])
    };
    let partial = Part::Receiver { most: 2, partial: true };
    let run = Part::Sender { batches: vec![2] };
    let idle = Part::Sender { batches: vec![] };
    for (name, scene) in [
        ("two senders", scene(&[&sender, &sender, &receiver])),
        ("two receivers", scene(&[&sender, &receiver, &receiver])),
        ("a run", Scene { slots: 4, ..scene(&[&run, &idle, &partial]) }),
        ("a sender comes", newcomer(&sender)),
        ("a receiver comes", newcomer(&receiver)),
        (
            "dropped",
            Scene { redeliver: Redeliver::Drop, ..scene(&[&sender, &receiver, &receiver]) },
        ),
    ] {
        let found = |reduce| {
            let scene = Scene { reduce, ..scene.clone() };
            search::reach(&scene, 1_000_000).unwrap_or_else(|why| panic!("{name}: {why}"))
        };
        let (all, states) = found(Reduce::Merged);
        let (delayed, fewer) = found(Reduce::MergedAndDelayed);
        let (memories, quiet) = (all.memories.len(), all.quiet.len());
        eprintln!(
            "{name}: {states} states, {fewer} with looks delayed; in both {memories} memories, {quiet} quiet"
        );
        assert!(fewer < states, "{name}: nothing was delayed");
        assert!(all == delayed, "{name}: that makes a difference");
    }
}

/// What the search is worth: each trap that the protocol avoids is found when it does not.
#[test]
fn the_search_finds_what_is_taken_away() {
    let reuse = |trust| Scene {
        crashes: 1,
        newcomer: Some(Part::Sender { batches: vec![1] }),
        parts: vec![Part::Sender { batches: vec![1] }, Part::Receiver { most: 1, partial: false }],
        trust,
        ..base()
    };
    holds("the same, sound", reuse(Trust::Sound));
    breaks("a number is used without a sweep", reuse(Trust::NoSweepOnJoin));
    breaks("a proof of death from before the look", reuse(Trust::StaleProof));
    breaks("nobody sweeps", Scene { newcomer: None, ..reuse(Trust::NoSweep) });
    let twice = |trust| Scene { crashes: 2, ..reuse(trust) };
    holds("two deaths, sound", twice(Trust::Sound));
    breaks("a claim is passed over for good", twice(Trust::PassesOver));
    breaks("an epoch from after the sweep", twice(Trust::LateEpoch));

    let alone = |trust| Scene {
        newcomer: None,
        parts: vec![
            Part::Sender { batches: vec![1, 1] },
            Part::Receiver { most: 1, partial: false },
        ],
        ..reuse(trust)
    };
    holds("one sender, sound", alone(Trust::Sound));
    breaks("the flag behind the word", alone(Trust::WordFirst));
    // Somebody else has to sweep while the receiver looks.
    let idle = Part::Sender { batches: vec![] };
    let parts = |sender: &Part| {
        vec![sender.clone(), idle.clone(), Part::Receiver { most: 1, partial: false }]
    };
    let beside = |trust| Scene {
        newcomer: None,
        parts: parts(&Part::Sender { batches: vec![1] }),
        ..reuse(trust)
    };
    holds("claims are ended by a copy", beside(Trust::Copied));
    breaks("no look at the flag", beside(Trust::NoFlag));
    if cfg!(debug_assertions) {
        return eprintln!("the rest takes minutes without --release");
    }
    // Before the proof means before the death only where a number passes on during a sweep.
    let anew = |trust| Scene {
        newcomer: Some(Part::Sender { batches: vec![1, 1] }),
        parts: parts(&idle),
        ..twice(trust)
    };
    holds("claims are ended by a copy, twice", anew(Trust::Copied));
    breaks("a look at the flag from before the proof", anew(Trust::EarlyFlag));
}
