//! A process is killed after its 1st, 2nd, 3rd ... instruction in a verb, and after each kill the
//! survivor checks everything that was promised: what was committed before arrives whole, the verb's
//! own messages arrive whole or not at all, the death is told once and by its pid, what comes again
//! is flagged, a successor works, and nothing is left when all have closed.
//!
//! Whole, this takes half an hour, so by default it goes in strides. `RINGWAY_SWEEP_STRIDE=1` sweeps every
//! instruction; `RINGWAY_SWEEP_VERB=<name>` sweeps one verb alone, and with `RINGWAY_SWEEP_CALLS=20..40`
//! only what lies behind its 20th to 39th system call, for those that take long. Where ptrace is denied,
//! it is skipped, and says so.

#![cfg(all(not(loom), target_arch = "x86_64"))]

#[path = "sweep/broadcast.rs"]
mod broadcast;
#[path = "sweep/knife.rs"]
mod knife;
#[path = "sweep/last.rs"]
mod last;
#[path = "sweep/path.rs"]
mod path;
#[path = "sweep/queues.rs"]
mod queues;
#[path = "sweep/receiving.rs"]
mod receiving;
#[path = "sweep/scene.rs"]
mod scene;
#[path = "sweep/sending.rs"]
mod sending;

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use knife::{Knife, Reached, Registers, Start, Victim};
use path::Path;
use scene::{Death, Scene, Survivors};

/// Names the verb to sweep: in the children of the test, and by hand.
const VERB: &str = "RINGWAY_SWEEP_VERB";
/// Every how many instructions to kill.
const STRIDE: &str = "RINGWAY_SWEEP_STRIDE";
/// After which system calls, as a half-open range.
const CALLS: &str = "RINGWAY_SWEEP_CALLS";

/// Until this long after a survivor opened its handle, it does not ask whether its peer lives. In
/// that time the next kills go on.
const SETTLING: Duration = Duration::from_millis(60);

/// Verbs that move messages: a few thousand instructions, when they are not optimised.
const SHORT: (u64, u64) = (151, u64::MAX);
/// Verbs that open and close: a hundred times as many, and a hundred system calls among them.
const LONG: (u64, u64) = (499, 1000);

/// One verb: who does it to whom, and what must hold when he is killed in it.
trait Verb {
    fn name(&self) -> &str;
    /// If nobody asks for another stride: every how many instructions to kill, and up to how many
    /// after each system call.
    fn stride(&self) -> (u64, u64);
    /// In the survivor, before the victim is there.
    fn prepare(&self, scene: &Scene) -> Survivors;
    /// In the victim. Between [`Knife::begin`] and [`Knife::end`] is what is swept.
    fn act(&self, scene: &Scene, knife: &Knife);
    /// In the survivor, while the victim stands at the beginning.
    fn meet(&self, scene: &Scene, survivors: &mut Survivors);
    /// At once after the kill.
    fn check(&self, scene: &Scene, survivors: &mut Survivors, death: &Death);
    /// Later, when the survivors' next look at their peer is due. Closes everything.
    fn settle(&self, scene: &Scene, survivors: Survivors, death: &Death);
}

#[test]
fn sweep() {
    let verbs = verbs();
    if let Ok(wanted) = std::env::var(VERB) {
        let verb = verbs.iter().find(|verb| verb.name() == wanted);
        let verb = verb.unwrap_or_else(|| panic!("no verb {wanted:?}"));
        return sweep_one(&**verb);
    }
    // A process per verb, because the victims are forks, and a fork wants a process without other
    // threads; two at a time.
    let start = Instant::now();
    let mut waiting: VecDeque<String> = verbs.iter().map(|verb| verb.name().to_owned()).collect();
    let mut running: VecDeque<Child> = VecDeque::new();
    let mut total = [0; 3];
    while !waiting.is_empty() || !running.is_empty() {
        if running.len() < 2
            && let Some(name) = waiting.pop_front()
        {
            running.push_back(in_its_own_process("sweep", &name));
            continue;
        }
        let output = running.pop_front().unwrap().wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with(RESULT)).unwrap_or_default();
        assert!(
            output.status.success() && !line.is_empty(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        eprintln!("{line}");
        let numbers = line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
        total.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    let [kills, steps, violations] = total;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("in all: {}, {seconds:.1} s", sum_up(kills, steps, violations));
    assert_eq!(violations, 0);
}

/// A place that a victim ran to is the one where steps lead, in each register.
#[test]
fn a_victim_that_runs_comes_to_where_steps_lead() {
    if std::env::var_os(VERB).is_none() {
        // In a process of its own, as above.
        let output = in_its_own_process("a_victim_that_runs_comes_to_where_steps_lead", "none");
        let output = output.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        eprint!("{errors}");
        return;
    }
    let mut path = Path::default();
    let mut stops = [0; 2];
    let mut places = 0;
    loop {
        let ways = [come_to(places, &mut Path::default()), come_to(places, &mut path)];
        let [Some(by_steps), Some(by_running)] = ways else {
            return eprintln!("not checked, ptrace is not permitted here");
        };
        assert!(
            by_steps.is_like(&by_running),
            "after {places} instructions: {by_steps:?}, {by_running:?}"
        );
        stops = [stops[0] + by_steps.stops, stops[1] + by_running.stops];
        if by_steps.reached != Reached::Point {
            break;
        }
        // Every place would take a minute. No loop there is as long.
        places += if cfg!(debug_assertions) { 41 } else { 3 };
    }
    eprintln!("{places} places, {} steps to them, {} when victims run", stops[0], stops[1]);
    assert!(places > 200, "that was no long way");
}

/// Where a victim came to.
#[derive(Debug)]
struct Place {
    reached: Reached,
    registers: Registers,
    /// Its number.
    pid: u64,
    /// How often it stopped until then.
    stops: u64,
}

impl Place {
    /// Whether it is the other's place: all that may differ is a victim's number, which `raise` has left there.
    fn is_like(&self, other: &Self) -> bool {
        let mut pairs = self.registers.iter().zip(&other.registers);
        self.reached == other.reached
            && pairs.all(|(a, b)| a == b || (*a == self.pid && *b == other.pid))
    }
}

/// After so many instructions of the long way.
#[inline(never)]
fn come_to(steps: u64, path: &mut Path) -> Option<Place> {
    let Start::Ready(mut victim) = Victim::start(go_a_long_way_anew) else { return None };
    let reached = victim.run(0, steps, path);
    let registers = victim.registers();
    let (death, stops) = victim.kill(String::new());
    Some(Place { reached, registers, pid: death.pid.into(), stops })
}

/// With nothing of the caller's in registers.
fn go_a_long_way_anew(knife: &Knife) {
    // SAFETY: calls a function that does not unwind, with its argument where C has it; what it may change
    // is either told, or saved and restored here.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "push rbp",
            "xor ebx, ebx",
            "xor ebp, ebp",
            "call {go}",
            "pop rbp",
            "pop rbx",
            go = sym go_a_long_way,
            inout("rdi") knife => _,
            inout("r12") 0_u64 => _,
            inout("r13") 0_u64 => _,
            inout("r14") 0_u64 => _,
            inout("r15") 0_u64 => _,
            clobber_abi("C"),
        );
    }
}

/// Without system calls, but with loops, calls and string instructions.
extern "C" fn go_a_long_way(knife: &Knife) {
    let mut words = [7_u64; 6];
    let mut copy = [0_u64; 6];
    knife.begin();
    for round in 0..6 {
        let mut at = 1;
        while at < words.len() {
            words[at] = mix(words[at - 1] ^ round);
            at += 1;
        }
        // SAFETY: fewer bytes than the array has, from one to another; all three registers are given.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rsi") words.as_ptr() => _,
                inout("rdi") copy.as_mut_ptr() => _,
                inout("rcx") 5 * round => _,
                options(nostack, preserves_flags)
            );
        }
        words[0] = mix(copy[3]);
    }
    knife.end();
}

#[inline(never)]
fn mix(word: u64) -> u64 {
    std::hint::black_box(word) << 3 ^ word >> 5
}

fn verbs() -> Vec<Box<dyn Verb>> {
    let two = sending::verbs().into_iter().chain(receiving::verbs()).chain(last::verbs());
    two.chain(broadcast::verbs()).chain(queues::verbs()).collect()
}

/// In front of what a child reports; the first numbers behind it are those that are summed up.
const RESULT: &str = "swept: ";

fn sum_up(kills: u64, steps: u64, violations: u64) -> String {
    format!("{kills} kills, {steps} steps, {violations} violations")
}

/// A test of this file, in a process of its own.
fn in_its_own_process(test: &str, verb: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VERB, verb)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Something whose survivors wait for their next look at the peer.
struct Pending {
    scene: Scene,
    survivors: Survivors,
    death: Death,
    since: Instant,
}

fn sweep_one(verb: &dyn Verb) {
    let (stride, reach) = match std::env::var(STRIDE) {
        Ok(text) => {
            let stride = text.parse().ok().filter(|stride| *stride > 0);
            (stride.unwrap_or_else(|| panic!("{STRIDE}={text} is no stride")), u64::MAX)
        }
        Err(_) => verb.stride(),
    };
    let mut sweep = Sweep::new(verb);
    let Range { start, end } = calls_to_sweep();
    let mut calls = start;
    let mut steps = 0;
    // Kill points are counted from the last system call, which can be reached without stepping.
    while calls < end {
        match sweep.kill_at(calls, steps) {
            Some(Reached::Point) if steps + stride <= reach => steps += stride,
            Some(Reached::Point | Reached::Call) => {
                (calls, steps) = (calls + 1, 0);
                sweep.paths = Default::default();
            }
            Some(Reached::End) => break,
            // Once more, and every instruction of it, because nothing is known of the way now.
            Some(Reached::Elsewhere) => sweep.strays += 1,
            None => {
                println!("\n{RESULT}nothing, ptrace is not permitted here ({})", verb.name());
                return;
            }
        }
    }
    sweep.settle(Duration::ZERO);
    let Sweep { steps, kills, violations, strays, .. } = sweep;
    let numbers = sum_up(kills, steps, violations);
    println!(
        "\n{RESULT}{numbers} ({}, system calls {start} to {calls}, one kill per {stride} instructions, \
         {strays} elsewhere)",
        verb.name()
    );
    assert_eq!(violations, 0);
}

fn calls_to_sweep() -> Range<u64> {
    let Ok(text) = std::env::var(CALLS) else { return 0..u64::MAX };
    let range = text.split_once("..").and_then(|(start, end)| {
        Some(start.parse().ok()?..if end.is_empty() { u64::MAX } else { end.parse().ok()? })
    });
    range.unwrap_or_else(|| panic!("{CALLS}={text} is no range such as 20..40"))
}

struct Sweep<'a> {
    verb: &'a dyn Verb,
    pending: VecDeque<Pending>,
    /// Since the last system call, in scenes of even and of odd number, which some verbs make different.
    paths: [Path; 2],
    steps: u64,
    kills: u64,
    /// Kills that were not where they were wanted.
    strays: u64,
    violations: u64,
}

impl<'a> Sweep<'a> {
    fn new(verb: &'a dyn Verb) -> Self {
        let (pending, paths) = Default::default();
        Self { verb, pending, paths, steps: 0, kills: 0, strays: 0, violations: 0 }
    }

    /// One victim, killed so many instructions after so many system calls, or where it came to
    /// before that. `None`: ptrace is denied.
    fn kill_at(&mut self, calls: u64, steps: u64) -> Option<Reached> {
        let scene = Scene::new(self.kills);
        let (mut victim, mut survivors) = self.start(&scene)?;
        self.verb.meet(&scene, &mut survivors);
        let path = &mut self.paths[self.kills as usize % 2];
        let reached = victim.run(calls, steps, path);
        if reached == Reached::Elsewhere {
            path.clear();
        }
        let at = format!("{steps} instructions after {calls} system calls ({reached:?})");
        let (death, steps) = victim.kill(at);
        self.kills += 1;
        self.steps += steps;
        let verb = self.verb;
        if self.watch(&death, || verb.check(&scene, &mut survivors, &death)) {
            self.pending.push_back(Pending { scene, survivors, death, since: Instant::now() });
        }
        // Some at a time: each holds a few descriptors, which every victim has to close.
        self.settle(if self.pending.len() < 50 { SETTLING } else { Duration::ZERO });
        Some(reached)
    }

    fn start(&self, scene: &Scene) -> Option<(Victim, Survivors)> {
        let survivors = self.verb.prepare(scene);
        match Victim::start(|knife| self.verb.act(scene, knife)) {
            Start::Ready(victim) => Some((victim, survivors)),
            Start::Denied => None,
        }
    }

    /// Settles those that have waited for as long, and, if there is no time to wait, all of them.
    fn settle(&mut self, age: Duration) {
        while let Some(next) = self.pending.front() {
            let waited = next.since.elapsed();
            if age > waited {
                break;
            }
            std::thread::sleep(SETTLING.saturating_sub(waited));
            let Some(Pending { scene, survivors, death, .. }) = self.pending.pop_front() else {
                break;
            };
            let verb = self.verb;
            self.watch(&death, || {
                verb.settle(&scene, survivors, &death);
                scene.assert_empty();
            });
        }
    }

    /// Counts a panic as a violation; its text has gone to stderr.
    fn watch(&mut self, death: &Death, check: impl FnOnce()) -> bool {
        let is_fine = catch_unwind(AssertUnwindSafe(check)).is_ok();
        if !is_fine {
            eprintln!("violation: {} was killed {}", self.verb.name(), death.at);
            self.violations += 1;
            assert!(self.violations < 10, "enough");
        }
        is_fine
    }
}
