//! The machine that the search runs: shared memory, who lives, and participants that run the real
//! code of `mpmc` from one access to the next.
//!
//! An operation is re-run from its beginning with the answers that its accesses got so far; it then
//! makes one more, runs on to the next, and is thrown away there. So its state is the handle as the
//! operation began, and those answers.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ringway_shm::mpmc::word::{Sent, Taken};
use ringway_shm::mpmc::{
    Access, ClaimError, Living, Owner, Receiver, Redeliver, Sender, SlotMemory, SlotWord,
    TakeError, sweep,
};

/// What somebody does, again and again.
#[derive(Clone, Debug)]
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
    Sweep(u8),
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
        violation: None,
    }) };
}

/// Thrown when an operation comes to its next access.
struct Later;

fn step(step: Step) -> u64 {
    let answer = RUN.with_borrow_mut(|run| {
        if run.at < run.log.len() {
            run.at += 1;
            return Some(run.log[run.at - 1]);
        }
        if run.stepped {
            return None;
        }
        run.stepped = true;
        let answer = run.perform(step);
        run.log.push(answer);
        run.at += 1;
        Some(answer)
    });
    answer.unwrap_or_else(|| resume_unwind(Box::new(Later)))
}

impl Run {
    fn perform(&mut self, step: Step) -> u64 {
        let mut shared = self.shared.take().unwrap();
        let answer = match step {
            Step::Load(at) => shared.words[at],
            Step::Store(at, value) => {
                shared.words[at] = value;
                if at >= FLAG
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
            self.last[from] = index;
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
                            .map(|dead| (Op::Sweep(dead as u8), number)),
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
                }
                Err(thrown) => resume_unwind(thrown),
                Ok(Err(fault)) => {
                    run.violation.get_or_insert(format!("process {process}: {fault}"));
                }
                Ok(Ok(sent)) => {
                    proc.op = None;
                    run.log.clear();
                    proc.handle = handle;
                    proc.sent += sent;
                    match op {
                        Op::Sweep(dead) => {
                            proc.swept[usize::from(dead)] = state.shared.epochs[usize::from(dead)];
                        }
                        Op::Join if proc.handle == Handle::None => proc.life = Life::Dead,
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
        *proc = Proc { life: Life::Dead, sent: proc.sent, ..Proc::unborn() };
        Some(state)
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
            settled && taken == Taken::Done.word(ringway_shm::mpmc::word::lap(sent))
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
        }
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

/// The operation, from its beginning. Returns how many messages were committed.
fn perform(
    scene: &Scene,
    part: &Part,
    op: Op,
    number: u8,
    process: u8,
    sent: u8,
    own: &mut Handle,
) -> Result<u8, String> {
    match (op, &mut *own) {
        (Op::Send, Handle::Sends(sender)) => send(sender, part, process, sent),
        (Op::Receive, Handle::Receives(receiver)) => receive(receiver, part).map(|()| 0),
        (Op::Sweep(dead), _) => {
            let memory = Memory { slots: scene.slots };
            let dead = Owner::from(dead);
            let outcome = if scene.trust == Trust::StaleProof {
                let proof = Kernel.is_dead(dead);
                sweep(&memory, dead, scene.redeliver, &|_| proof)
            } else {
                sweep(&memory, dead, scene.redeliver, &Kernel)
            };
            outcome.map(|_| 0).map_err(|fault| fault.to_string())
        }
        (Op::Join, _) => {
            if step(Step::TakeLock) == 0 {
                // The process ends, its number is another's.
                return Ok(0);
            }
            if !matches!(scene.trust, Trust::NoSweepOnJoin | Trust::NoSweep) {
                let memory = Memory { slots: scene.slots };
                sweep(&memory, number.into(), scene.redeliver, &|_| true)
                    .map_err(|fault| fault.to_string())?;
            }
            *own = handle(scene, part, number.into());
            step(Step::FillEntry);
            Ok(0)
        }
        (op, _) => unreachable!("{op:?}"),
    }
}

fn send(sender: &mut Sender<Memory>, part: &Part, process: u8, sent: u8) -> Result<u8, String> {
    let (Part::Sender { batches } | Part::Waster { batches }) = part else { unreachable!() };
    // The rest of the batch that this message belongs to.
    let mut left = 0;
    for size in batches {
        left += size;
        if left > sent {
            break;
        }
    }
    match sender.try_claim((left - sent).into()) {
        Ok(()) => {}
        Err(ClaimError::Full(_)) => return Ok(0),
        Err(ClaimError::Corrupt(fault)) => return Err(fault.to_string()),
    }
    let mut count = sender.claimed();
    if matches!(part, Part::Waster { .. }) && count > 1 {
        count -= 1;
    }
    for index in 1..=count as u8 {
        let _ = sender.payload();
        step(Step::Write(process << 4 | (sent + index)));
        sender.fill(0);
    }
    RUN.with_borrow_mut(|run| run.commits = Some(sent + count as u8));
    sender.publish();
    Ok(count as u8)
}

fn receive(receiver: &mut Receiver<Memory>, part: &Part) -> Result<(), String> {
    let Part::Receiver { most, partial } = part else { unreachable!() };
    if receiver.held() == 0 {
        receiver.notice_returns();
        match receiver.try_take(*most) {
            Ok(()) => {}
            Err(TakeError::Empty(_)) => return Ok(()),
            Err(TakeError::Corrupt(fault)) => return Err(fault.to_string()),
        }
    }
    while let Some(message) = receiver.message().map_err(|fault| fault.to_string())? {
        step(Step::Read { redelivered: message.redelivered });
        receiver.advance();
        if *partial {
            break;
        }
    }
    receiver.release();
    Ok(())
}
