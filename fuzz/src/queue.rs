//! The MPMC queue on heap memory whose words change under everybody: whatever lies there, a sender gets
//! a slot of the queue, or none, a receiver a message that fits its slot, or none, or either is told
//! that a slot or a hint makes no sense. The memory itself panics when anybody reaches beyond it.
//!
//! Inputs that leave only words that nobody writes have to end well, too: when all who were there are
//! dead and swept for, newcomers pass messages.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::input::Input;
use ringway_fuzz::seeds;
use ringway_shm::Fault;
use ringway_shm::mpmc::memory::BoxedMemory;
use ringway_shm::mpmc::word::{Lap, Sent, Taken};
use ringway_shm::mpmc::{
    ClaimError, Owner, Receiver, Redeliver, Sender, SlotMemory, TakeError, sweep,
};
use ringway_shm::sync::Word;

const ROOM: u64 = 24;
/// Of each side. The numbers of senders are even, those of receivers odd.
const PARTIES: usize = 3;

struct Queue {
    memory: BoxedMemory,
    shift: u32,
    senders: [Sender<BoxedMemory>; PARTIES],
    receivers: [Receiver<BoxedMemory>; PARTIES],
    /// Whether words were written that somebody might have written.
    is_forged: bool,
}

fn sender_of(memory: &BoxedMemory, which: usize) -> Sender<BoxedMemory> {
    Sender::new(memory.clone(), 2 * which as Owner)
}

fn receiver_of(memory: &BoxedMemory, which: usize) -> Receiver<BoxedMemory> {
    Receiver::new(memory.clone(), 2 * which as Owner + 1)
}

fn expect_known(fault: Fault) {
    assert!(matches!(fault, Fault::Slot | Fault::Hint), "{fault:?}");
}

impl Queue {
    fn new(shape: u8) -> Self {
        let shift = 1 + u32::from(shape % 4);
        let memory = BoxedMemory::new(1 << shift, ROOM);
        if shape & 0x80 != 0 {
            // Near the end of all tickets, where arithmetic has to go round.
            let far = u64::MAX - 5 * (u64::from(shape) & 0x7c);
            memory.tail().store_relaxed(far);
            memory.head().store_relaxed(far);
        }
        Self {
            shift,
            senders: std::array::from_fn(|which| sender_of(&memory, which)),
            receivers: std::array::from_fn(|which| receiver_of(&memory, which)),
            is_forged: shape & 0x80 != 0,
            memory,
        }
    }

    /// One step, chosen by the input.
    fn step(&mut self, input: &mut Input<'_>) {
        let (what, which) = (input.byte(), usize::from(input.byte()));
        let who = which % PARTIES;
        match what % 12 {
            0 => self.scribble(which, input),
            1 => self.forge(which, input),
            2 => {
                self.is_forged = true;
                let hints = [self.memory.tail(), self.memory.head(), self.memory.returns()];
                hints[who].store_relaxed(input.word());
            }
            3..=5 => self.send(who, input),
            6..=8 => self.receive(who, input),
            9 => {
                self.receivers[who].give_back();
            }
            10 => {
                // Dies with whatever it has; its number goes to a newcomer.
                self.sweep(2 * who as Owner, input.byte());
                self.senders[who] = sender_of(&self.memory, who);
            }
            _ => {
                self.sweep(2 * who as Owner + 1, input.byte());
                self.receivers[who] = receiver_of(&self.memory, who);
            }
        }
    }

    /// A word that nobody writes.
    fn scribble(&self, which: usize, input: &mut Input<'_>) {
        let index = which as u64 & (self.memory.slots() - 1);
        let garbage = input.word() << 4 | 7;
        self.word(which, index).store_relaxed(garbage);
    }

    /// One of the slot's words, as the input has it.
    fn word(&self, which: usize, index: u64) -> &Word {
        match which & 0x50 {
            0 => self.memory.sent(index),
            0x10 => self.memory.flag(index),
            _ => self.memory.taken(index),
        }
    }

    /// A word that somebody might have written, of a lap that is near.
    fn forge(&mut self, which: usize, input: &mut Input<'_>) {
        self.is_forged = true;
        let index = which as u64 & (self.memory.slots() - 1);
        let hint = if which & 0x20 == 0 { self.memory.tail() } else { self.memory.head() };
        let near = hint.load_relaxed().wrapping_add(u64::from(input.byte() % 8) << self.shift);
        let lap = Lap::of(near.wrapping_sub(3 << self.shift), self.shift);
        let (kind, count) = (input.byte(), u64::from(input.byte()));
        let owner = Owner::from(kind >> 2) % (2 * PARTIES as Owner + 2);
        let run = count.max(1);
        if which & 0x40 == 0 {
            let state = match kind % 3 {
                0 => Sent::Nothing,
                1 => Sent::Writing { owner, run },
                _ => Sent::Ready { len: count },
            };
            self.word(which, index).store_relaxed(state.word(lap));
        } else {
            let state = match kind % 4 {
                0 => Taken::Done,
                1 => Taken::Reading { owner, run },
                2 => Taken::Returned { attempt: count },
                _ => Taken::Again { owner, attempt: count },
            };
            self.memory.taken(index).store_relaxed(state.word(lap));
        }
    }

    fn send(&mut self, who: usize, input: &mut Input<'_>) {
        let sender = &mut self.senders[who];
        let (most, how) = (u64::from(input.byte() % 9) + 1, input.byte());
        if sender.claimed() == 0 {
            match sender.try_claim(most) {
                Ok(()) => assert!((1..=most.min(sender.run_max())).contains(&sender.claimed())),
                Err(ClaimError::Full(_)) => return,
                Err(ClaimError::Corrupt(fault)) => return expect_known(fault),
            }
        }
        for _ in 0..how % 5 {
            if sender.filled() == sender.claimed() {
                break;
            }
            // SAFETY: a slot that is claimed and not filled has that many bytes, and no two participants
            // run at once.
            unsafe { sender.payload().write_bytes(how, ROOM as usize) };
            sender.fill(u64::from(how) % (ROOM + 1));
        }
        match how >> 6 {
            // Goes on later.
            0 => {}
            1 => sender.abort(),
            _ => {
                sender.publish();
            }
        }
    }

    fn receive(&mut self, who: usize, input: &mut Input<'_>) {
        let receiver = &mut self.receivers[who];
        let (most, how) = (u64::from(input.byte() % 9) + 1, input.byte());
        if receiver.held() == 0 {
            receiver.notice_returns();
            match receiver.try_take(most) {
                Ok(()) => assert!((1..=most).contains(&receiver.held())),
                Err(TakeError::Empty(_)) => return,
                Err(TakeError::Corrupt(fault)) => return expect_known(fault),
            }
        }
        for _ in 0..how % 5 {
            match receiver.message() {
                Ok(Some(message)) => {
                    assert!(message.len as u64 <= ROOM);
                    // SAFETY: a slot's bytes, of which there are at least so many; nobody writes now.
                    let bytes = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
                    std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum ^ byte));
                }
                Ok(None) => break,
                Err(fault) => expect_known(fault),
            }
            receiver.advance();
        }
        if how & 0x80 == 0 {
            receiver.release();
        }
    }

    fn sweep(&self, dead: Owner, how: u8) {
        let redeliver = if how & 1 == 0 { Redeliver::Again } else { Redeliver::Drop };
        if let Some(fault) = sweep(&self.memory, dead, redeliver, &|_: Owner| true).fault {
            expect_known(fault);
        }
    }

    /// Every word, to find out what happened.
    fn words(&self) -> String {
        let hints = [self.memory.tail(), self.memory.head()].map(|hint| hint.load_relaxed());
        let slots = (0..self.memory.slots()).map(|index| {
            let memory = &self.memory;
            let words = [memory.sent(index), memory.flag(index), memory.taken(index)];
            let [sent, flag, taken] = words.map(|word| word.load_relaxed());
            let (sent_lap, taken_lap) = (sent >> 24, taken >> 24);
            let (sent, taken) = (Sent::read(sent), Taken::read(taken));
            let (flag_lap, flag) = (flag >> 24, Sent::read(flag));
            format!("{index}: {sent_lap} {sent:?}, {flag_lap} {flag:?}, {taken_lap} {taken:?}\n")
        });
        format!("tail and head {hints:?}\n{}", slots.collect::<String>())
    }

    /// Everybody dies; whoever comes then can use the queue.
    fn end(self) {
        if self.is_forged {
            return;
        }
        for owner in 0..2 * PARTIES as Owner {
            self.sweep(owner, 0);
        }
        let mut sender = sender_of(&self.memory, 0);
        let mut receiver = receiver_of(&self.memory, 0);
        // One side may be many laps behind the other, and be told of each slot on the way.
        let enough = 4 * self.memory.slots();
        let mut in_a_row = 0;
        for number in 0..1 << 16 {
            match sender.try_claim(1) {
                Ok(()) => {
                    // SAFETY: claimed and not filled.
                    unsafe { sender.payload().write(number as u8) };
                    sender.fill(1);
                    sender.publish();
                }
                Err(ClaimError::Full(_)) => {}
                Err(ClaimError::Corrupt(fault)) => expect_known(fault),
            }
            receiver.doubt();
            let came = match receiver.try_take(1) {
                Ok(()) => {
                    let came = receiver.message().is_ok_and(|message| message.is_some());
                    receiver.advance();
                    receiver.release();
                    came
                }
                Err(TakeError::Empty(_)) => false,
                Err(TakeError::Corrupt(fault)) => {
                    expect_known(fault);
                    false
                }
            };
            in_a_row = if came { in_a_row + 1 } else { 0 };
            if in_a_row == enough {
                return;
            }
        }
        panic!("messages do not come through\n{}", self.words());
    }
}

/// Steps that send and receive, with nothing wrong.
fn sound() -> Vec<u8> {
    let round = [3, 0, 2, 0xc2, 4, 1, 0, 0xc1, 6, 0, 3, 2, 7, 2, 0, 1, 3, 2, 1, 0x42, 10, 1, 0];
    round.repeat(6)
}

fuzz_target!(
    init: {
        let shapes = [0, 1, 2, 3, 0x84, 0xff].map(|shape| [&[shape][..], &sound()].concat());
        let scribbled = (0..4).map(|shape| {
            let words = (0..4).flat_map(|at| [0, at, 9, 0, 0, 0, 0, 0, 0, 0, 0, at | 0x40, 9, 9, 0, at | 0x10]);
            [&[shape][..], &sound(), &words.collect::<Vec<u8>>(), &sound()].concat()
        });
        let forged = (0..4).map(|kind| [&[2][..], &sound(), &[1, 3, 3, kind, 2], &sound()].concat());
        seeds::write(shapes.into_iter().chain(scribbled).chain(forged).chain([vec![]]));
    },
    |data: &[u8]| {
        let mut input = Input(data);
        let mut queue = Queue::new(input.byte());
        while !input.is_empty() {
            queue.step(&mut input);
        }
        queue.end();
    }
);
