//! The handshake on both sides: a binder that is greeted by anybody, in any state, and a connector
//! that is answered with anything. Whatever is said, what is in the ring stays, and whoever was
//! connected properly can resume.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::input::Input;
use ringway_fuzz::net::{self, End, Feed, Receiver, Sender};
use ringway_fuzz::seeds;
use ringway_net::frame::Kind;
use ringway_net::session::{Action, Direction, Greeting, Half, Verdict};

/// The bytes of a greeting, with some of them changed.
fn changed(greeting: &Greeting, kind: Kind, input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = greeting.to_bytes(kind).to_vec();
    for _ in 0..input.byte() % 4 {
        let at = usize::from(input.byte()) % bytes.len();
        let new = input.slice(8);
        let end = bytes.len().min(at + new.len());
        bytes[at..end].copy_from_slice(&new[..end - at]);
    }
    bytes
}

fn binder<H: Half>(end: &mut End<H>, other: Direction, input: &mut Input<'_>)
where
    End<H>: Feed,
{
    for step in 0..8 {
        let now_ns = u64::from(input.short()) << 20;
        let position = u64::from(input.byte()) * 16;
        let hello = net::greeting(other, u64::from(input.byte()), position);
        let bytes = changed(&hello, Kind::Hello, input);
        let Ok(Some(hello)) = Greeting::read(Kind::Hello, &bytes) else { continue };
        let up = end.session.is_up();
        let epoch = end.session.epoch();
        match end.session.handle_hello(&hello, &end.ring, now_ns) {
            Verdict::Welcome => {
                assert!(!up && end.session.is_up() && end.session.epoch() > epoch, "step {step}");
                end.take(usize::MAX);
            }
            Verdict::CloseFirst => {
                assert!(up && end.session.is_up());
                end.session.handle_disconnected(now_ns);
                assert_ne!(
                    end.session.handle_hello(&hello, &end.ring, now_ns),
                    Verdict::CloseFirst
                );
                end.take(usize::MAX);
            }
            Verdict::Refuse(refusal) => {
                assert!(refusal.to_string().len() < 300);
                assert_eq!((end.session.is_up(), end.session.epoch()), (up, epoch));
            }
        }
        if input.byte() & 1 == 0 {
            end.session.handle_disconnected(now_ns);
        }
        end.check();
    }
}

fn connector<H: Half>(end: &mut End<H>, other: Direction, input: &mut Input<'_>)
where
    End<H>: Feed,
{
    for _ in 0..8 {
        let now_ns = u64::from(input.short()) << 24;
        if end.session.poll_action(now_ns) == Action::Dial {
            end.session.handle_dialed(now_ns);
            end.take(usize::MAX);
            let position = u64::from(input.byte()) * 16;
            let mut welcome = net::greeting(other, end.session.epoch(), position);
            welcome.fresh = false;
            let bytes = changed(&welcome, Kind::Welcome, input);
            end.feed(&bytes);
            end.feed(input.slice(40));
        }
        end.check();
        if let Action::HangUp(_) = end.session.poll_action(now_ns) {
            end.session.handle_disconnected(now_ns);
        }
        if input.byte() & 1 == 0 {
            end.session.handle_disconnected(now_ns);
        }
    }
}

fuzz_target!(
    init: seeds::write((0..4).map(|which| {
        // Greetings as they should be, one after the other, with the time going by.
        let steps = (1..6).flat_map(|epoch| [epoch, 0, 0, epoch, 0, 0]);
        [which].into_iter().chain(steps).collect()
    })),
    |data: &[u8]| {
        let mut input = Input(data);
        match input.byte() % 4 {
            0 => binder(&mut Sender::binder(), Direction::Receives, &mut input),
            1 => binder(&mut Receiver::binder(), Direction::Sends, &mut input),
            2 => connector(&mut Sender::connector(), Direction::Receives, &mut input),
            _ => connector(&mut Receiver::connector(), Direction::Sends, &mut input),
        }
    }
);
