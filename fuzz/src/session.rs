//! A session that is up, fed arbitrary bytes in arbitrary pieces while it works: positions stay in
//! order and inside the ring, what was received whole stays as it came, a violation costs the
//! connection only, and the next connection resumes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::input::Input;
use ringway_fuzz::net::{self, End, Feed, Receiver, Sender};
use ringway_fuzz::seeds;
use ringway_net::frame::{Header, Kind, frame_len};
use ringway_net::session::{Action, Direction, Half, Receiving, Sending, Verdict};

fn welcome<H: Half>(end: &mut End<H>, other: Direction)
where
    End<H>: Feed,
{
    let epoch = end.session.epoch() + 1;
    let (position, released) = end.peer_position();
    let mut hello = net::greeting(other, epoch, position);
    hello.released = released;
    hello.fresh = epoch == 1;
    let verdict = end.session.handle_hello(&hello, &end.ring, 0);
    assert_eq!(verdict, Verdict::Welcome, "an honest peer is not welcome");
    end.take(usize::MAX);
}

/// A frame whose header the input chose, near enough to a good one to get far.
fn frame(input: &mut Input<'_>, stream: u64) -> Vec<u8> {
    let kind = input.byte() % 11;
    let seq = match input.byte() % 4 {
        0 | 1 => stream,
        2 => stream.wrapping_add(u64::from(input.byte()) * 16).wrapping_sub(256),
        _ => input.word(),
    };
    let len = match (Kind::from_byte(kind), input.byte() % 8) {
        (_, 0) => input.word() as u32,
        (Some(kind), _) => kind.body_len().unwrap_or(u32::from(input.byte())),
        (None, _) => 0,
    };
    let header = Header { len, kind, flags: 0, stream: 0, seq };
    let mut bytes = header.to_bytes().to_vec();
    bytes.resize(frame_len(len).min(400) as usize, input.byte());
    bytes
}

trait Works: Feed {
    fn work(&mut self, input: &mut Input<'_>);
    /// Where a peer's next frame is expected to be.
    fn stream(&self) -> u64;
}

impl Works for End<Sending> {
    fn work(&mut self, input: &mut Input<'_>) {
        let len = usize::from(input.byte()) * 4;
        if self.session.check_room(len).is_ok() {
            self.put(len);
        }
    }

    fn stream(&self) -> u64 {
        self.session.acknowledged()
    }
}

impl Works for End<Receiving> {
    /// Releases some of the frames, which are sound, or the walk would lead astray.
    fn work(&mut self, input: &mut Input<'_>) {
        let mut at = self.session.released();
        for _ in 0..input.byte() % 8 {
            if at == self.session.received() {
                break;
            }
            at += frame_len(self.sound(at).len);
        }
        self.session.handle_released(at);
    }

    fn stream(&self) -> u64 {
        self.session.received()
    }
}

fn run<H: Half>(mut end: End<H>, other: Direction, input: &mut Input<'_>)
where
    End<H>: Works,
{
    welcome(&mut end, other);
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => end.feed(input.slice(64)),
            1..=3 => {
                let bytes = frame(input, end.stream());
                let (front, back) = bytes.split_at(usize::from(input.byte()).min(bytes.len()));
                end.feed(front);
                end.feed(back);
            }
            4 => {
                // Several at once, so that control stands between data.
                let mut stream = end.stream();
                let mut bytes = Vec::new();
                for _ in 0..input.byte() % 6 {
                    let frame = frame(input, stream);
                    if frame[4] == Kind::Data as u8 {
                        stream += frame.len() as u64;
                    }
                    bytes.extend(frame);
                }
                end.feed(&bytes);
            }
            5 => end.work(input),
            6 => {
                end.take(usize::from(input.short()));
            }
            _ if input.byte() == 0 => end.session.close(),
            _ => end.session.handle_disconnected(0),
        }
        end.check();
        if let Action::HangUp(_) = end.session.poll_action(0) {
            end.session.handle_disconnected(0);
        }
        if end.session.end().is_some() {
            return;
        }
        if !end.session.is_up() {
            welcome(&mut end, other);
        }
    }
}

fuzz_target!(
    init: {
        // Data, data and a heartbeat, work, more of it.
        let receive = [2, 1, 0, 1, 40, 7, 200, 4, 3, 1, 0, 1, 9, 1, 6, 0, 1, 1, 0, 1, 7, 1, 5, 3];
        let send = [5, 9, 5, 12, 6, 255, 255, 2, 5, 2, 17, 1, 99, 5, 9, 6, 0, 1];
        let repeated = |which: u8, steps: &[u8]| [&[which][..], &steps.repeat(6)].concat();
        seeds::write([repeated(0, &receive), repeated(1, &send), vec![0, 7, 0], vec![1, 7, 0]]);
    },
    |data: &[u8]| {
        let mut input = Input(data);
        match input.byte() & 1 {
            0 => run(Receiver::binder(), Direction::Sends, &mut input),
            _ => run(Sender::binder(), Direction::Receives, &mut input),
        }
    }
);
