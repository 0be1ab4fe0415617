//! What both ends do, and how rough it is for them, out of a seed: for sessions in a world of their own, and
//! for ends over sockets.

use super::rng::Rng;

/// What the applications do.
#[derive(Clone, Debug)]
pub struct Script {
    /// How many messages, and how long each is.
    pub messages: u64,
    pub len: fn(u64) -> usize,
    /// The receiver closes after so many; `u64::MAX`: the sender does, after the last.
    pub receiver_closes_after: u64,
    /// The sender does so as well, unless it hears first that the receiver has.
    pub both_close: bool,
    /// How many messages the receiver reads before it releases them.
    pub hold: u64,
}

/// The body of the message with that number: its number, and bytes that depend on it.
pub fn body(number: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(number);
    let mut body = number.to_le_bytes().to_vec();
    body.extend((8..len).map(|_| rng.next() as u8));
    body.truncate(len);
    body
}

/// How rough it is.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Bytes that a direction of a connection holds.
    pub pipe: usize,
    /// Reads and writes move at most so many bytes, drawn for each.
    pub piece: usize,
    /// A dial fails once in so many; 0: never.
    pub dial_fails: u64,
    /// A step severs a connection once in so many.
    pub severs: u64,
    /// A step stops one end for a time once in so many.
    pub stalls: u64,
    /// So many times something may be broken; then the weather is fine.
    pub troubles: u64,
}

impl Weather {
    pub const FINE: Self =
        Self { pipe: 1 << 20, piece: 1 << 20, dial_fails: 0, severs: 0, stalls: 0, troubles: 0 };
}

/// Lengths around every edge of the padding, and one message of nothing.
pub fn script(receiver_closes: bool) -> Script {
    Script {
        messages: 7,
        len: |number| [8, 0, 17, 32, 15, 16, 1][number as usize % 7],
        receiver_closes_after: if receiver_closes { 5 } else { u64::MAX },
        both_close: false,
        hold: 1,
    }
}

/// The same, and both close at the end.
pub fn both_close() -> Script {
    Script { receiver_closes_after: 7, both_close: true, ..script(true) }
}

/// What a seed of the rough test does.
pub fn rough(seed: u64) -> (Script, u64, Weather) {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let lens: [fn(u64) -> usize; 4] = [
        |_| 8,
        |number| number as usize * 7 % 300,
        // The longest that a ring of one page takes, among others.
        |number| if number % 5 == 0 { 2032 } else { number as usize % 64 },
        |number| 1000 + number as usize % 1000,
    ];
    let messages = rng.range(1, 120);
    let mut script = Script {
        messages,
        len: lens[rng.range(0, 3) as usize],
        receiver_closes_after: if rng.one_in(4) { rng.range(1, messages) } else { u64::MAX },
        hold: rng.range(1, 3),
        both_close: false,
    };
    let weather = Weather {
        pipe: [20, 300, 5000][rng.range(0, 2) as usize],
        piece: [1, 17, 300, 4000][rng.range(0, 3) as usize].max(if messages > 40 { 17 } else { 1 }),
        dial_fails: rng.range(0, 6),
        severs: [0, 20, 100, 1000][rng.range(0, 3) as usize],
        stalls: [0, 100, 400][rng.range(0, 2) as usize],
        troubles: rng.range(0, 60),
    };
    let capacity = 4096 << rng.range(0, 1);
    script.both_close = rng.one_in(2);
    (script, capacity, weather)
}
