//! By what the search tells states apart: fingerprints of states, the least of those that come of
//! exchanging parties that are alike. What a state is, and what it becomes, is the machine's affair.

use std::hash::{Hash, Hasher};

use super::{Handle, Life, MOST_PARTS, NAMES, Op, Proc, Reduce, Scene, Shared, State, owner_in};

impl State {
    /// By what the search tells states apart.
    pub fn key(&self, scene: &Scene) -> u128 {
        if scene.reduce == Reduce::Nothing {
            return fingerprint(|hasher| self.hash(hasher));
        }
        let keys = scene
            .exchanges()
            .map(|places| fingerprint(|hasher| self.hash_exchanged(&places, hasher)));
        keys.min().unwrap()
    }

    /// What all share, whatever the numbers of those that are alike.
    pub fn memory(&self, scene: &Scene) -> u128 {
        let keys =
            scene.exchanges().map(|places| fingerprint(|hasher| self.hash_memory(&places, hasher)));
        keys.min().unwrap()
    }

    /// Hashes what all share with each number in another's place.
    fn hash_memory(&self, places: &[u8; MOST_PARTS], hasher: &mut impl Hasher) {
        let Shared { words, payload, lives, epochs, delivered, committed, died } = &self.shared;
        for (at, &found) in words.iter().enumerate() {
            let names = owner_in(at, found).is_some();
            hasher.write_u64(if names { exchanged(found, places) } else { found });
        }
        for &message in payload {
            let from = usize::from(message >> 4);
            hasher.write_u8(if message == 0 { 0 } else { places[from] << 4 | message & 0xf });
        }
        for old in from(places) {
            (lives[old], epochs[old], delivered[old], committed[old]).hash(hasher);
        }
        (died, self.crashes).hash(hasher);
    }

    /// Hashes the state with each number in another's place.
    fn hash_exchanged(&self, places: &[u8; MOST_PARTS], hasher: &mut impl Hasher) {
        self.hash_memory(places, hasher);
        let from = from(places);
        for proc in from.iter().filter_map(|&old| self.procs.get(old)) {
            let Proc { life, number, handle: _, sent, swept, last, op, log, now, .. } = proc;
            let has_number = *life == Life::Alive || op.is_some();
            let number = if has_number { places[usize::from(*number)] } else { 0 };
            (life, number, sent, proc.kept, proc.passes_over).hash(hasher);
            for old in from {
                (swept[old], last[old]).hash(hasher);
            }
            match op {
                Some(Op::Sweep(dead, epoch)) => Some(Op::Sweep(places[usize::from(*dead)], *epoch)),
                op => *op,
            }
            .hash(hasher);
            match now {
                Handle::None => hasher.write_u8(0),
                Handle::Sends(sender) => sender.of_owner(number.into()).hash(hasher),
                Handle::Receives(receiver) => receiver.of_owner(number.into()).hash(hasher),
            }
            for &answer in &log[proc.forgotten..] {
                let names = answer & NAMES != 0;
                hasher.write_u64(if names { exchanged(answer, places) } else { answer });
            }
            proc.since.hash(hasher);
        }
    }
}

impl Scene {
    /// Every way to exchange parties with the same part: by number, whose place it takes. A newcomer is
    /// nobody's like, and has the number of a process that is.
    fn exchanges(&self) -> impl Iterator<Item = [u8; MOST_PARTS]> {
        let mut all = vec![[0, 1, 2, 3, 4]];
        for a in 0..self.parts.len() {
            for b in 0..a {
                if self.parts[a] == self.parts[b] {
                    for at in 0..all.len() {
                        let mut places = all[at];
                        places.swap(a, b);
                        if !all.contains(&places) {
                            all.push(places);
                        }
                    }
                }
            }
        }
        all.into_iter()
    }
}

/// The word with its owner's number exchanged.
fn exchanged(word: u64, places: &[u8; MOST_PARTS]) -> u64 {
    let owner = usize::from((word >> 4) as u16 & 0xfff);
    word & !(0xfff << 4) | u64::from(places[owner]) << 4
}

/// Which number comes into each place.
fn from(places: &[u8; MOST_PARTS]) -> [usize; MOST_PARTS] {
    let mut from = [0; MOST_PARTS];
    for (old, &new) in places.iter().enumerate() {
        from[usize::from(new)] = old;
    }
    from
}

/// 128 bits: among 10^8 states a collision is as likely as one in 10^22.
fn fingerprint(hash: impl FnOnce(&mut Fingerprint)) -> u128 {
    let mut hasher = Fingerprint { low: 0x9e37_79b9_7f4a_7c15, high: 0xc2b2_ae3d_27d4_eb4f };
    hash(&mut hasher);
    u128::from(hasher.high) << 64 | u128::from(hasher.low)
}

struct Fingerprint {
    low: u64,
    high: u64,
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.low = mix(self.low ^ word, 0xff51_afd7_ed55_8ccd);
        self.high = mix(self.high.wrapping_add(word), 0xc4ce_b9fe_1a85_ec53);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.low
    }
}

fn mix(word: u64, by: u64) -> u64 {
    let word = (word ^ word >> 29).wrapping_mul(by);
    word ^ word >> 32
}
