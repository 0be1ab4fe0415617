//! The machine that the search runs: shared memory, who lives, and participants that run the real
//! code of `mpmc` from one access to the next.
//!
//! An operation is re-run from its beginning with the answers that its accesses got so far; it then
//! makes one more, runs on to the next, and is thrown away there. So its state is the handle as the
//! operation began, and those answers. Which states are held for one is told at [`Reduce`].

#[path = "key.rs"]
mod key;
#[path = "operation.rs"]
mod operation;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ringway_shm::memory::Access;
use ringway_shm::mpmc::word::{self, Sent, Taken};
use ringway_shm::mpmc::{Living, Owner, Receiver, Redeliver, Sender, SlotMemory, SlotWord};

use operation::perform;

/// What somebody does, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Sends batches of so many messages; what finds no room at once goes in pieces.
    Sender { batches: Vec<u8> },
    /// As `Sender`, but fills all slots of a claim but the last, if there is more than one.
    Waster { batches: Vec<u8> },
    /// Takes up to `most` messages at once, and gives them back one at a time if `partial`.
    Receiver { most: u64, partial: bool },
}

/// How much of the protocol is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Sound,
    /// Newcomers do not sweep.
    NoSweepOnJoin,
    /// Who sweeps for a dead participant asks once, at the beginning.
    StaleProof,
    /// Nobody sweeps.
    NoSweep,
    /// Who sweeps notes the epoch that it finds afterwards.
    LateEpoch,
    /// Who sweeps calls it done, whatever it passed over because somebody had the number just then.
    PassesOver,
    /// Who sweeps ends senders' claims beforehand, by code of the model's own: as it should be done.
    Copied,
    /// The same, but it looks at the flag before it has the proof of death.
    EarlyFlag,
    /// The same, but it does not look at the flag.
    NoFlag,
    /// A sender settles its word first, and the flag behind it.
    WordFirst,
}

/// Who is there, and what may happen.
#[derive(Clone, Debug)]
pub struct Scene {
    pub slots: u64,
    /// The number of each is its index.
    pub parts: Vec<Part>,
    /// Comes when somebody has died, and takes the number.
    pub newcomer: Option<Part>,
    pub crashes: u8,
    pub redeliver: Redeliver,
    pub trust: Trust,
    pub reduce: Reduce,
}

/// Which states the search does not tell apart, and which steps it does not look between.
///
/// **Merged** are states that can do the same from here on, step for step:
/// - What a running operation has read matters only as far as the code keeps it. Where it keeps nothing
///   but what is in its handle, it says so (`SlotMemory::forget`), and what it read before is left out.
/// - Parties with the same part are alike: a state is the same with two of them exchanged, and with
///   them their numbers in all words, and what they have sent.
/// - How long a receiver's streak is changes only what it asks for in advance; a sender that has sent
///   all does nothing but sweep; that a sender's only message came in order is clear.
///
/// `search::merges` checks this, by looking from each of the merged states.
///
/// **Delayed** are looks of those who sweep for a number that nobody has or can get any more. No word
/// will ever be made to name it: a word that does not name it will not, and one that does is changed
/// once, by whoever repairs it, to one that does not and that no repair of that lap changes again. So a
/// look that comes just before the next write leads to the same writes as one that came any time earlier:
/// of a word that does not name the dead, to none; of one that was repaired meanwhile, to none instead of a
/// swap that fails. Other participants see no looks. Not delayed are looks at the word of a claim of
/// several slots, because more than one write follows from what they saw.
/// `search::reach` checks this: what the memory ever holds, and what is left when everybody has come to
/// rest, is the same with looks delayed and without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Nothing,
    Merged,
    MergedAndDelayed,
}

const TAIL: usize = 0;
const HEAD: usize = 1;
const RETURNS: usize = 2;
const DROPPED: usize = 3;
const SENT: usize = 4;
const MOST_SLOTS: usize = 4;
const TAKEN: usize = SENT + MOST_SLOTS;
const FLAG: usize = TAKEN + MOST_SLOTS;
const WORDS: usize = FLAG + MOST_SLOTS;
const MOST_PARTS: usize = 5;

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    shared: Shared,
    procs: Vec<Proc>,
    crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shared {
    words: [u64; WORDS],
    /// Message in each slot: which, and from whom; 0 before the first.
    payload: [u8; MOST_SLOTS],
    /// Locks of the numbers.
    lives: [bool; MOST_PARTS],
    /// Holders of each number so far, as its entry tells; the entry names its last holder for ever.
    epochs: [u8; MOST_PARTS],
    /// By process and message: delivered at least once.
    delivered: [u8; MOST_PARTS],
    /// Messages committed, by process.
    committed: [u8; MOST_PARTS],
    /// Messages whose receiver died, if those are dropped.
    died: u8,
}

/// A process: its part, which does not change, is in the scene.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proc {
    life: Life,
    number: u8,
    handle: Handle,
    /// Messages sent.
    sent: u8,
    /// The epoch of each number's holder for which this process has swept.
    swept: [u8; MOST_PARTS],
    /// As receiver: the last message of each process that came in order, counted from 1.
    last: [u8; MOST_PARTS],
    op: Option<Op>,
    log: Vec<u64>,
    /// The handle as it is now, in the middle of the operation.
    now: Handle,
    /// Answers that the operation has forgotten, and what it kept of them beside the handle.
    forgotten: usize,
    kept: [u64; 3],
    /// A sweep was refused a proof of death.
    passes_over: bool,
    /// The accesses since then, and the one that comes next.
    since: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Unborn,
    Alive,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Handle {
    None,
    Sends(Sender<Memory>),
    Receives(Receiver<Memory>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Send,
    Receive,
    /// For a dead number, whose epoch was read before: should it pass on meanwhile, that is not the end
    /// of it.
    Sweep(u8, u8),
    Join,
}

/// A memory without bytes: what is in a slot is the machine's affair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    slots: u64,
}

pub struct Cell(usize);

static CELLS: [Cell; WORDS] = {
    let mut cells = [const { Cell(0) }; WORDS];
    let mut at = 0;
    while at < WORDS {
        cells[at] = Cell(at);
        at += 1;
    }
    cells
};

// SAFETY: no slot has any bytes.
unsafe impl SlotMemory for Memory {
    type Word = Cell;
    fn slots(&self) -> u64 {
        self.slots
    }
    fn room(&self) -> u64 {
        0
    }
    fn sent(&self, index: u64) -> &Cell {
        &CELLS[SENT + index as usize]
    }
    fn flag(&self, index: u64) -> &Cell {
        &CELLS[FLAG + index as usize]
    }
    fn taken(&self, index: u64) -> &Cell {
        &CELLS[TAKEN + index as usize]
    }
    fn payload(&self, _index: u64) -> *mut u8 {
        std::ptr::dangling_mut()
    }
    fn tail(&self) -> &Cell {
        &CELLS[TAIL]
    }
    fn head(&self) -> &Cell {
        &CELLS[HEAD]
    }
    fn returns(&self) -> &Cell {
        &CELLS[RETURNS]
    }
    fn dropped(&self) -> &Cell {
        &CELLS[DROPPED]
    }
    fn touch(&self, index: u64, _access: Access) {
        RUN.with_borrow_mut(|run| run.touched = index as usize);
    }
    fn forget(&self, kept: [u64; 3]) {
        forget(kept);
    }
}

impl SlotWord for Cell {
    fn load_relaxed(&self) -> u64 {
        step(Step::Load(self.0))
    }
    fn load_acquire(&self) -> u64 {
        step(Step::Load(self.0))
    }
    fn store_relaxed(&self, value: u64) {
        step(Step::Store(self.0, value));
    }
    fn store_release(&self, value: u64) {
        step(Step::Store(self.0, value));
    }
    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        let found = step(Step::Replace(self.0, old, new));
        if found == old { Ok(()) } else { Err(found) }
    }
}

/// An access.
enum Step {
    Load(usize),
    Store(usize, u64),
    Replace(usize, u64, u64),
    /// The message into the slot touched last.
    Write(u8),
    /// The message out of the slot touched last.
    Read {
        redelivered: bool,
    },
    IsDead(Owner),
    TakeLock,
    FillEntry,
}

impl Step {
    /// Which access it is, by its kind and place.
    fn which(&self) -> u8 {
        match *self {
            Step::Load(at) => at as u8,
            Step::Store(at, _) => 0x20 | at as u8,
            Step::Replace(at, ..) => 0x40 | at as u8,
            Step::Write(_) => 0x60,
            Step::Read { .. } => 0x61,
            Step::IsDead(_) => 0x62,
            Step::TakeLock => 0x63,
            Step::FillEntry => 0x64,
        }
    }
}

/// In an answer: it is a slot's word that names its owner.
const NAMES: u64 = 1 << 63;

/// The operation that is being re-run.
struct Run {
    shared: Option<Shared>,
    log: Vec<u64>,
    at: usize,
    stepped: bool,
    touched: usize,
    number: u8,
    process: u8,
    last: [u8; MOST_PARTS],
    /// How many messages are there with the next flag of this sender.
    commits: Option<u8>,
    word_first: bool,
    /// Whether a process sends more than one message.
    sends_many: [bool; MOST_PARTS],
    forgotten: usize,
    kept: [u64; 3],
    passes_over: bool,
    since: Vec<u8>,
    /// Sweeps for a number that is gone for good, and this is what becomes of its messages.
    gone: Option<(u8, Redeliver)>,
    violation: Option<String>,
}

thread_local! {
    static RUN: RefCell<Run> = const { RefCell::new(Run {
        shared: None,
        log: Vec::new(),
        at: 0,
        stepped: false,
        touched: 0,
        number: 0,
        process: 0,
        last: [0; MOST_PARTS],
        commits: None,
        word_first: false,
        sends_many: [false; MOST_PARTS],
        forgotten: 0,
        kept: [0; 3],
        passes_over: false,
        since: Vec::new(),
        gone: None,
        violation: None,
    }) };
}

/// Thrown when an operation comes to its next access.
struct Later;

fn step(step: Step) -> u64 {
    let answer = RUN.with_borrow_mut(|run| {
        run.since.push(step.which());
        if run.at < run.log.len() {
            run.at += 1;
            let answer = run.log[run.at - 1] & !NAMES;
            run.passes_over |= matches!(step, Step::IsDead(_)) && answer == 0;
            return Some(answer);
        }
        if run.stepped {
            return None;
        }
        let answer = run.perform(&step);
        run.passes_over |= matches!(step, Step::IsDead(_)) && answer == 0;
        run.stepped = !run.is_delayed(&step, answer);
        let at = match step {
            Step::Load(at) | Step::Replace(at, ..) => at,
            _ => TAIL,
        };
        run.log.push(answer | if owner_in(at, answer).is_some() { NAMES } else { 0 });
        run.at += 1;
        Some(answer)
    });
    answer.unwrap_or_else(|| resume_unwind(Box::new(Later)))
}

/// The operation keeps nothing of what it has read but this, and what is in its handle.
fn forget(kept: [u64; 3]) {
    RUN.with_borrow_mut(|run| {
        run.forgotten = run.at;
        run.kept = kept;
        run.since.clear();
    });
}

/// Who has claimed how many slots, if the word at that place says so.
fn owner_in(at: usize, word: u64) -> Option<(Owner, u64)> {
    if at < SENT {
        return None;
    }
    if !(TAKEN..FLAG).contains(&at) {
        return match Sent::read(word) {
            Ok(Sent::Writing { owner, run }) => Some((owner, run)),
            _ => None,
        };
    }
    match Taken::read(word) {
        Ok(Taken::Reading { owner, run }) => Some((owner, run)),
        Ok(Taken::Again { owner, .. }) => Some((owner, 1)),
        _ => None,
    }
}

impl Run {
    fn perform(&mut self, step: &Step) -> u64 {
        let mut shared = self.shared.take().unwrap();
        let answer = match *step {
            Step::Load(at) => shared.words[at],
            Step::Store(at, value) => {
                // Both get the same, one behind the other.
                let at = match at {
                    SENT..TAKEN if self.word_first => at - SENT + FLAG,
                    FLAG.. if self.word_first => at - FLAG + SENT,
                    at => at,
                };
                shared.words[at] = value;
                // In the first of the two.
                if at >= SENT
                    && matches!(Sent::read(value), Ok(Sent::Ready { .. }))
                    && let Some(sent) = self.commits
                {
                    shared.committed[usize::from(self.process)] = sent;
                }
                0
            }
            Step::Replace(at, old, new) => {
                let found = shared.words[at];
                if found == old {
                    shared.words[at] = new;
                }
                found
            }
            Step::Write(message) => {
                if !shared.owns(self.touched, self.number, true) {
                    self.wrong("a message was written into a slot that is not its sender's");
                }
                shared.payload[self.touched] = message;
                0
            }
            Step::Read { redelivered } => {
                self.deliver(&mut shared, redelivered);
                0
            }
            Step::IsDead(owner) => u64::from(!shared.lives[usize::from(owner)]),
            Step::TakeLock => {
                // Somebody else may have been quicker.
                let free = !shared.lives[usize::from(self.number)];
                shared.lives[usize::from(self.number)] = true;
                u64::from(free)
            }
            Step::FillEntry => {
                shared.epochs[usize::from(self.number)] += 1;
                0
            }
        };
        self.shared = Some(shared);
        answer
    }

    /// Whether what comes next may come in the same step, as told at [`Reduce`].
    fn is_delayed(&self, step: &Step, answer: u64) -> bool {
        let Some((gone, redeliver)) = self.gone else { return false };
        match *step {
            Step::Load(at) => match owner_in(at, answer) {
                Some((owner, run)) if owner == Owner::from(gone) => {
                    run == 1 && redeliver == Redeliver::Again
                }
                _ => true,
            },
            Step::IsDead(_) => true,
            _ => false,
        }
    }

    fn deliver(&mut self, shared: &mut Shared, redelivered: bool) {
        if !shared.owns(self.touched, self.number, false) {
            self.wrong("a message was read from a slot that is not its receiver's");
        }
        let message = shared.payload[self.touched];
        let (from, index) = (usize::from(message >> 4), message & 0xf);
        if index == 0 || index > shared.committed[from] {
            self.wrong("a message came that was never committed");
            return;
        }
        let bit = 1 << (index - 1);
        if !redelivered {
            if shared.delivered[from] & bit != 0 {
                self.wrong("a message came twice, unflagged");
            }
            if self.last[from] >= index {
                self.wrong("a sender's messages came out of order");
            }
            if self.sends_many[from] {
                self.last[from] = index;
            }
        }
        shared.delivered[from] |= bit;
    }

    fn wrong(&mut self, what: &str) {
        self.violation.get_or_insert_with(|| {
            format!("{what}; process {}, slot {}", self.process, self.touched)
        });
    }
}

impl Shared {
    /// Whether the number has claimed the slot.
    fn owns(&self, slot: usize, number: u8, sends: bool) -> bool {
        let slots = self.slots();
        let covers = |first: usize, run: u64| (slot + slots - first) % slots < run as usize;
        (0..slots).any(|first| {
            if sends {
                matches!(Sent::read(self.words[SENT + first]),
                    Ok(Sent::Writing { owner, run }) if owner == u16::from(number) && covers(first, run))
            } else {
                match Taken::read(self.words[TAKEN + first]) {
                    Ok(Taken::Reading { owner, run }) => owner == u16::from(number) && covers(first, run),
                    Ok(Taken::Again { owner, .. }) => owner == u16::from(number) && first == slot,
                    _ => false,
                }
            }
        })
    }

    fn slots(&self) -> usize {
        // Unused words of the smaller queue stay zero; both divide the arrays.
        MOST_SLOTS
    }
}

struct Kernel;

impl Living for Kernel {
    fn is_dead(&self, owner: Owner) -> bool {
        step(Step::IsDead(owner)) == 1
    }
}

impl State {
    pub fn first(scene: &Scene) -> Self {
        let mut shared = Shared {
            words: [0; WORDS],
            payload: [0; MOST_SLOTS],
            lives: [false; MOST_PARTS],
            epochs: [0; MOST_PARTS],
            delivered: [0; MOST_PARTS],
            committed: [0; MOST_PARTS],
            died: 0,
        };
        let mut procs: Vec<Proc> = Vec::new();
        for (number, part) in scene.parts.iter().enumerate() {
            shared.lives[number] = true;
            shared.epochs[number] = 1;
            let mut proc = Proc::unborn();
            proc.life = Life::Alive;
            proc.number = number as u8;
            proc.handle = with_new_memory(&shared, || handle(scene, part, number as Owner));
            proc.now = proc.handle.clone();
            procs.push(proc);
        }
        if scene.newcomer.is_some() {
            procs.push(Proc::unborn());
        }
        Self { shared, procs, crashes: 0 }
    }

    /// Everything that may happen next: by the living, in any order, or a death. Whether it is a death
    /// comes first.
    pub fn successors(&self, scene: &Scene) -> Result<Vec<(bool, Self)>, String> {
        let mut next = Vec::new();
        for process in 0..self.procs.len() {
            for op in self.ops(scene, process) {
                next.push((false, self.step(scene, process, op)?));
            }
        }
        if self.crashes < scene.crashes {
            for process in 0..self.procs.len() {
                next.extend(self.crash(scene, process).map(|state| (true, state)));
            }
        }
        Ok(next)
    }

    /// What the process may go on with.
    fn ops(&self, scene: &Scene, process: usize) -> Vec<(Op, u8)> {
        let proc = &self.procs[process];
        let number = proc.number;
        if let Some(op) = proc.op {
            return vec![(op, number)];
        }
        let dead = (0..scene.parts.len())
            .filter(|&number| !self.shared.lives[number] && self.shared.epochs[number] > 0);
        match proc.life {
            Life::Dead => vec![],
            Life::Unborn => dead.map(|number| (Op::Join, number as u8)).collect(),
            Life::Alive => {
                let mut ops = vec![];
                match part(scene, process) {
                    Part::Sender { batches } | Part::Waster { batches } => {
                        if proc.sent < batches.iter().sum() {
                            ops.push((Op::Send, number));
                        }
                    }
                    Part::Receiver { .. } => ops.push((Op::Receive, number)),
                }
                if scene.trust != Trust::NoSweep {
                    ops.extend(
                        dead.filter(|&number| proc.swept[number] < self.shared.epochs[number])
                            .map(|dead| (Op::Sweep(dead as u8, self.shared.epochs[dead]), number)),
                    );
                }
                ops
            }
        }
    }

    /// One access of the process, and what follows from it up to the next.
    fn step(&self, scene: &Scene, process: usize, (op, number): (Op, u8)) -> Result<Self, String> {
        let mut state = self.clone();
        let proc = &mut state.procs[process];
        proc.number = number;
        let mut handle = proc.handle.clone();
        RUN.with_borrow_mut(|run| {
            run.shared = Some(state.shared.clone());
            run.log = std::mem::take(&mut proc.log);
            run.at = 0;
            run.stepped = false;
            run.number = number;
            run.process = process as u8;
            run.last = proc.last;
            run.commits = None;
            run.forgotten = 0;
            run.kept = [0; 3];
            run.passes_over = false;
            run.since.clear();
            run.word_first = scene.trust == Trust::WordFirst;
            run.gone = match op {
                Op::Sweep(dead, _) if self.is_gone(scene, dead) => Some((dead, scene.redeliver)),
                _ => None,
            };
            for sender in 0..self.procs.len() {
                run.sends_many[sender] = to_send(part(scene, sender)) > 1;
            }
        });

        let part = part(scene, process);
        let sent = proc.sent;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            perform(scene, part, op, number, process as u8, sent, &mut handle)
        }));
        let violation = RUN.with_borrow_mut(|run| {
            state.shared = run.shared.take().unwrap();
            let proc = &mut state.procs[process];
            proc.last = run.last;
            match outcome {
                Err(thrown) if thrown.is::<Later>() => {
                    proc.op = Some(op);
                    proc.log = std::mem::take(&mut run.log);
                    proc.now = handle;
                    (proc.forgotten, proc.kept) = (run.forgotten, run.kept);
                    proc.passes_over = run.passes_over;
                    proc.since = run.since.clone();
                }
                Err(thrown) => resume_unwind(thrown),
                Ok(Err(fault)) => {
                    run.violation.get_or_insert(format!("process {process}: {fault}"));
                }
                Ok(Ok(sent)) => {
                    proc.op = None;
                    run.log.clear();
                    (proc.forgotten, proc.kept) = (0, [0; 3]);
                    proc.passes_over = false;
                    proc.since.clear();
                    proc.handle = handle;
                    proc.sent += sent;
                    match &mut proc.handle {
                        Handle::Receives(receiver) => _ = receiver.ends_streak(),
                        Handle::Sends(_) if proc.sent == to_send(part) => {
                            proc.handle = Handle::None;
                        }
                        _ => {}
                    }
                    proc.now = proc.handle.clone();
                    match op {
                        Op::Sweep(dead, epoch) => {
                            let is_late = scene.trust == Trust::LateEpoch;
                            let now = state.shared.epochs[usize::from(dead)];
                            if !run.passes_over || scene.trust == Trust::PassesOver {
                                proc.swept[usize::from(dead)] = if is_late { now } else { epoch };
                            }
                        }
                        Op::Join if proc.handle == Handle::None => *proc = Proc::dead(0),
                        Op::Join => proc.life = Life::Alive,
                        Op::Send | Op::Receive => {}
                    }
                }
            }
            run.violation.take()
        });
        match violation {
            Some(what) => Err(format!("{what}, {op:?}\n{state:#?}")),
            None => Ok(state),
        }
    }

    fn crash(&self, scene: &Scene, process: usize) -> Option<Self> {
        let proc = &self.procs[process];
        let is_joining = proc.life == Life::Unborn && proc.op.is_some();
        if proc.life != Life::Alive && !is_joining {
            return None;
        }
        let receives = |process: usize| matches!(part(scene, process), Part::Receiver { .. });
        // Without any receiver nothing is ever over.
        let others = (0..self.procs.len()).any(|other| {
            other != process && receives(other) && self.procs[other].life == Life::Alive
        });
        if !others {
            return None;
        }
        let mut state = self.clone();
        state.crashes += 1;
        let holds_lock = !is_joining || proc.log.first() == Some(&1);
        if holds_lock {
            state.shared.lives[usize::from(proc.number)] = false;
        }
        if scene.redeliver == Redeliver::Drop && receives(process) {
            state.shared.died += self.held_by(proc.number);
        }
        let proc = &mut state.procs[process];
        *proc = Proc::dead(proc.sent);
        Some(state)
    }

    /// Whether nobody has that number, or ever will.
    fn is_gone(&self, scene: &Scene, number: u8) -> bool {
        let newcomers = &self.procs[scene.parts.len()..];
        let may_take = |newcomer: &Proc| match newcomer.life {
            Life::Unborn => newcomer.op.is_none() || newcomer.number == number,
            Life::Alive => newcomer.number == number,
            Life::Dead => false,
        };
        scene.reduce == Reduce::MergedAndDelayed
            && !self.shared.lives[usize::from(number)]
            && !newcomers.iter().any(may_take)
    }

    /// Whether nobody is in the middle of anything.
    pub fn is_quiet(&self) -> bool {
        self.procs.iter().all(|proc| proc.op.is_none())
    }

    /// Most messages that go with a dead receiver.
    fn held_by(&self, number: u8) -> u8 {
        (0..MOST_SLOTS)
            .map(|slot| match Taken::read(self.shared.words[TAKEN + slot]) {
                Ok(Taken::Reading { owner, run }) if owner == u16::from(number) => run as u8,
                Ok(Taken::Again { owner, .. }) if owner == u16::from(number) => 1,
                _ => 0,
            })
            .sum()
    }

    /// Whether all is said and done: nobody has anything left to send, every slot is free, and every
    /// message that was committed has come, or is counted as lost.
    pub fn is_good_end(&self, scene: &Scene) -> bool {
        let all_sent = (0..self.procs.len()).all(|process| {
            let proc = &self.procs[process];
            match part(scene, process) {
                Part::Sender { batches } | Part::Waster { batches } => {
                    proc.life != Life::Alive
                        || proc.op.is_none() && proc.sent == batches.iter().sum()
                }
                Part::Receiver { .. } => true,
            }
        });
        let all_free = (0..MOST_SLOTS).all(|slot| {
            let (sent, taken) = (self.shared.words[SENT + slot], self.shared.words[TAKEN + slot]);
            let settled = !matches!(Sent::read(sent), Ok(Sent::Writing { .. }) | Err(_));
            settled && taken == Taken::Done.word(word::lap(sent))
        });
        let missing: u32 = (0..self.procs.len())
            .map(|process| {
                let committed = (1_u16 << self.shared.committed[process]) - 1;
                (committed & !u16::from(self.shared.delivered[process])).count_ones()
            })
            .sum();
        let dropped = self.shared.words[DROPPED];
        // A sweeper that was killed in the middle may have counted one too many.
        let told = u64::from(missing) <= dropped
            && dropped <= u64::from(self.shared.died) + u64::from(self.crashes);
        all_sent && all_free && told
    }
}

impl Proc {
    fn unborn() -> Self {
        Self {
            life: Life::Unborn,
            number: 0,
            handle: Handle::None,
            sent: 0,
            swept: [0; MOST_PARTS],
            last: [0; MOST_PARTS],
            op: None,
            log: Vec::new(),
            now: Handle::None,
            forgotten: 0,
            kept: [0; 3],
            passes_over: false,
            since: Vec::new(),
        }
    }

    fn dead(sent: u8) -> Self {
        Self { life: Life::Dead, sent, ..Self::unborn() }
    }
}

fn to_send(part: &Part) -> u8 {
    match part {
        Part::Sender { batches } | Part::Waster { batches } => batches.iter().sum(),
        Part::Receiver { .. } => 0,
    }
}

fn part(scene: &Scene, process: usize) -> &Part {
    scene.parts.get(process).or(scene.newcomer.as_ref()).unwrap()
}

fn handle(scene: &Scene, part: &Part, owner: Owner) -> Handle {
    let memory = Memory { slots: scene.slots };
    match part {
        Part::Sender { .. } | Part::Waster { .. } => Handle::Sends(Sender::new(memory, owner)),
        Part::Receiver { .. } => Handle::Receives(Receiver::new(memory, owner)),
    }
}

/// Builds a handle without counting steps: nobody else is there yet.
fn with_new_memory(shared: &Shared, build: impl Fn() -> Handle) -> Handle {
    let answers = vec![0; 8];
    RUN.with_borrow_mut(|run| {
        run.shared = Some(shared.clone());
        run.log = answers;
        run.at = 0;
    });
    build()
}
