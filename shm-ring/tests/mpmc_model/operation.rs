//! What participants do, by the real code of `mpmc`: one operation each, from its beginning. How its
//! accesses are answered, and what a state makes of the outcome, is the machine's affair.

use ringway_shm::mpmc::word::{self, Sent};
use ringway_shm::mpmc::{
    ClaimError, Living, Owner, Receiver, Sender, SlotMemory, SlotWord, TakeError, sweep,
};

use super::{Handle, Kernel, Memory, Op, Part, RUN, Scene, Step, Trust, forget, handle, step};

/// The operation, from its beginning. Returns how many messages were committed.
pub(super) fn perform(
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
        (Op::Sweep(dead, _), _) => {
            let memory = Memory { slots: scene.slots };
            let dead = Owner::from(dead);
            if matches!(scene.trust, Trust::Copied | Trust::EarlyFlag | Trust::NoFlag) {
                (0..scene.slots).for_each(|slot| end_claim(&memory, slot, dead, scene.trust));
            }
            let done = if scene.trust == Trust::StaleProof {
                let proof = Kernel.is_dead(dead);
                sweep(&memory, dead, scene.redeliver, &|_| proof)
            } else {
                sweep(&memory, dead, scene.redeliver, &Kernel)
            };
            done.fault.map_or(Ok(0), |fault| Err(fault.to_string()))
        }
        (Op::Join, _) => {
            if step(Step::TakeLock) == 0 {
                // The process ends, its number is another's.
                return Ok(0);
            }
            if !matches!(scene.trust, Trust::NoSweepOnJoin | Trust::NoSweep) {
                let memory = Memory { slots: scene.slots };
                let done = sweep(&memory, number.into(), scene.redeliver, &|_| true);
                if let Some(fault) = done.fault {
                    return Err(fault.to_string());
                }
            }
            *own = handle(scene, part, number.into());
            step(Step::FillEntry);
            Ok(0)
        }
        (op, _) => unreachable!("{op:?}"),
    }
}

/// What `sweep` does about a sender's claim of one slot, or that with a fault.
fn end_claim(memory: &Memory, slot: u64, dead: Owner, trust: Trust) {
    forget([4, slot, 0]);
    let (own_word, flag) = (memory.sent(slot), memory.flag(slot));
    let found = own_word.load_acquire();
    if !matches!(Sent::read(found), Ok(Sent::Writing { owner, run: 1 }) if owner == dead) {
        return;
    }
    let lap = word::lap(found);
    let early = (trust == Trust::EarlyFlag).then(|| flag.load_acquire());
    if !Kernel.is_dead(dead) {
        return;
    }
    let flagged = match trust {
        Trust::NoFlag => Sent::Nothing.word(lap.before()),
        _ => early.unwrap_or_else(|| flag.load_acquire()),
    };
    if own_word.load_acquire() != found {
        return;
    }
    if word::is_ready(flagged, lap) {
        let _ = own_word.replace(found, flagged);
        return;
    }
    if word::is_settled(flagged, lap.before()) {
        let _ = flag.replace(flagged, Sent::Nothing.word(lap));
    }
    let _ = own_word.replace(found, Sent::Nothing.word(lap));
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
    if count == 1 {
        // As a message by itself goes.
        forget([6, 1, 0]);
        let _ = sender.payload();
        step(Step::Write(process << 4 | (sent + 1)));
        forget([7, 0, 0]);
        RUN.with_borrow_mut(|run| run.commits = Some(sent + 1));
        sender.publish_one(0);
        return Ok(1);
    }
    if matches!(part, Part::Waster { .. }) && count > 1 {
        count -= 1;
    }
    for index in 1..=count as u8 {
        forget([6, index.into(), 0]);
        let _ = sender.payload();
        step(Step::Write(process << 4 | (sent + index)));
        sender.fill(0);
    }
    forget([7, 0, 0]);
    RUN.with_borrow_mut(|run| run.commits = Some(sent + count as u8));
    sender.publish();
    Ok(count as u8)
}

fn receive(receiver: &mut Receiver<Memory>, part: &Part) -> Result<(), String> {
    let Part::Receiver { most, partial } = part else { unreachable!() };
    if receiver.held() == 0 {
        receiver.notice_returns();
        forget([8, 0, 0]);
        match receiver.try_take(*most) {
            Ok(()) => {}
            Err(TakeError::Empty(_)) => return Ok(()),
            Err(TakeError::Corrupt(fault)) => return Err(fault.to_string()),
        }
    }
    forget([9, 0, 0]);
    while let Some(message) = receiver.message().map_err(|fault| fault.to_string())? {
        step(Step::Read { redelivered: message.redelivered });
        receiver.advance();
        forget([if *partial { 10 } else { 9 }, 0, 0]);
        if *partial {
            break;
        }
    }
    forget([10, 0, 0]);
    receiver.release();
    Ok(())
}
