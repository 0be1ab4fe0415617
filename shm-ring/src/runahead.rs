//! A look at a word that another core is about to write, and at that moment only a request for the lines
//! behind it. All but the look itself are hints; waiting is `wait`'s.
//!
//! Who polls a record's header holds its line, and the writer takes it away to write. The next look then waits as long
//! as a line takes from core to core, and the rest of the record, if asked for behind that, as long
//! again. It must not be asked for before: the writer would have to take those lines back, too, and with a request in
//! each poll a round trip of 64 bytes took 1.15 times as long as without any.
//!
//! So the request has to be made while the look is under way, and not if it finds its line at once. No
//! instruction tells the two apart, but the processor does: it runs ahead into what it expects to come next, for as
//! long as the word is not there, and drops it when that turns out to be wrong. What it expects behind a return is
//! what comes behind the call. Here that is the request, behind some idle arithmetic, and the return goes elsewhere,
//! to a place that is computed from the word: looks that find their line return before the arithmetic is done.
//! With it round trips of 64, 128, 256 and 512 bytes take 0.84 to 0.96, 0.75 to 0.88, 0.68 to 0.83 and 0.78 of what they
//! take without, in a loop that is not in the tree; `ringway-bench pingpong --size 64,256 --systems ringway-shm-raw`
//! measures the same.

use crate::layout::LINE;
use crate::sync::Word;

/// Most lines that are asked for: those of 512 bytes. With the 17 of 1 KiB round trips took 1.12 times as long as without,
/// and with a part of a record's lines up to 1.6 times: the rest then comes behind them.
const MOST: u64 = 9;

/// The word, as [`Word::load_relaxed`] reads it: orders nothing. While it is on its way from another core, asks for the
/// lines behind its own up to the one of `last`, if they are not too many to be worth it. On x86-64; elsewhere, and
/// where returns are checked against a shadow stack, it is the look alone.
#[inline(always)]
pub(crate) fn look(word: &Word, last: *const u8) -> u64 {
    let line = |of: usize| of as u64 / LINE;
    let lines = line(last.addr()).wrapping_sub(line(std::ptr::from_ref(word).addr()));
    let is_worth_it = (1..=MOST).contains(&lines);
    #[cfg(all(target_arch = "x86_64", not(any(miri, tsan))))]
    if is_worth_it && !has_shadow_stack() {
        return look_and_ask(word, last);
    }
    let _ = is_worth_it;
    word.load_relaxed()
}

#[cfg(all(target_arch = "x86_64", not(any(miri, tsan))))]
fn look_and_ask(word: &Word, last: *const u8) -> u64 {
    let value;
    // SAFETY: reads an aligned, live word with one instruction, as a Relaxed load does; prefetches have no effect that
    // a program sees, and never fault. The call's return address is the only thing on the stack, which asm
    // without `nostack` may use; the return takes it away, and goes to label 4. Nothing between the call and label 2 is
    // ever executed for good, and if it were, it would spin. No shadow stack is there to object. Nothing unwinds from here;
    // a profiler that looks in between finds one word more on the stack than it was told.
    unsafe {
        std::arch::asm!(
            "call 2f",
            // Where the processor runs ahead to. 40 multiplications take 120 cycles: the other lines come no later than
            // the word's own, which the writer has to get first. With 4 they were done before a look that found its
            // line. Where lines were quick, 10 to 40 made no difference; where they were slow, 40 and 60 were best, and
            // with 130 little was left of it.
            "xor {line:e}, {line:e}",
            ".rept {delay}",
            "imul {line}, {line}",
            ".endr",
            "add {line}, {word}",
            // No branches: none of them would be learnt.
            ".rept {most}",
            "add {line}, {size}",
            "cmp {line}, {last}",
            "cmova {line}, {last}",
            "prefetcht0 [{line}]",
            ".endr",
            "3:",
            "pause",
            "lfence",
            "jmp 3b",
            // The look.
            "2:",
            "mov {value}, [{word}]",
            "lea {back}, [rip + 4f]",
            "add {back}, {value}",
            "sub {back}, {value}",
            "mov [rsp], {back}",
            "ret",
            "4:",
            delay = const 40,
            most = const MOST,
            size = const LINE,
            word = in(reg) std::ptr::from_ref(word),
            last = in(reg) last,
            line = out(reg) _,
            back = out(reg) _,
            value = out(reg) value,
        );
    }
    value
}

/// Whether this thread's returns are checked.
#[cfg(all(target_arch = "x86_64", not(any(miri, tsan))))]
#[inline(always)]
fn has_shadow_stack() -> bool {
    let pointer: u64;
    // SAFETY: reads a register of the thread's; where there is none, it is a nop.
    unsafe {
        std::arch::asm!(
            "xor {pointer:e}, {pointer:e}",
            "rdsspq {pointer}",
            pointer = out(reg) pointer,
            options(nomem, nostack)
        );
    }
    pointer != 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Words of some lines.
    fn ring() -> Vec<Word> {
        (0..(MOST + 4) * LINE / 8).map(Word::new).collect()
    }

    #[test]
    fn it_shows_the_word_however_far_the_last_byte_is() {
        let ring = ring();
        for at in 0..8 {
            for last in at * 8..ring.len() * 8 {
                let last = ring.as_ptr().cast::<u8>().wrapping_add(last);
                assert_eq!(look(&ring[at], last), at as u64);
            }
        }
        // Before the word: nothing is asked for.
        assert_eq!(look(&ring[0], ring.as_ptr().cast::<u8>().wrapping_sub(1)), 0);
    }

    /// Every bit is part of the way back, and goes out of it again.
    #[test]
    fn it_shows_whatever_is_there() {
        let ring = ring();
        let last = ring.as_ptr().cast::<u8>().wrapping_add(LINE as usize);
        for value in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX, 0x5555_5555_5555_5555]) {
            ring[0].store_relaxed(value);
            assert_eq!(look(&ring[0], last), value);
        }
    }

    #[test]
    fn it_sees_what_another_thread_writes() {
        const TRIPS: u64 = 20_000;
        let ring = ring();
        let (there, back) = (&ring[0], &ring[LINE as usize / 4]);
        let behind =
            |word: &Word| std::ptr::from_ref(word).cast::<u8>().wrapping_add(LINE as usize);
        there.store_relaxed(0);
        back.store_relaxed(0);
        let wait_for = |word: &Word, value: u64| {
            while look(word, behind(word)) != value {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for trip in 1..=TRIPS {
                    wait_for(there, trip);
                    back.store_release(trip);
                }
            });
            for trip in 1..=TRIPS {
                there.store_release(trip);
                wait_for(back, trip);
            }
        });
    }
}
