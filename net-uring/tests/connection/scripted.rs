//! Both ends over a scripted backend: short, late, interrupted, cancelled and reordered completions,
//! and streams that break at any byte. One thread, no sockets.

use ringway_net::backend::fake::Step;
use ringway_net::backend::{Backend, Kind};
use ringway_net::connection::testing::{
    FakeReceiver, FakeSender, ends, join, script_receiver, script_sender,
};
use ringway_net::session::Death;
use ringway_net::{NotClosed, Options, RecvError, SendError, Wait};

use super::support::{PATIENCE, check, fill, length, options};

const MAX: usize = 1500;

/// What the two ends have passed so far.
#[derive(Default)]
struct Passed {
    sent: u64,
    received: u64,
}

impl Passed {
    /// One call on each end.
    fn step(&mut self, tx: &mut FakeSender, rx: &mut FakeReceiver, most: u64) {
        let len = length(self.sent, MAX);
        match tx.try_claim(len) {
            Ok(mut claim) if self.sent < most => {
                fill(&mut claim, self.sent);
                claim.commit().unwrap();
                self.sent += 1;
            }
            Ok(_) => tx.flush().unwrap(),
            Err(SendError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match rx.try_recv() {
            Ok(message) => {
                assert_eq!(check(&message), self.received, "lost or doubled");
                assert_eq!(message.len(), length(self.received, MAX));
                self.received += 1;
            }
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Until all have arrived.
    fn run(&mut self, tx: &mut FakeSender, rx: &mut FakeReceiver, most: u64) {
        let mut steps = 0_u64;
        while self.received < most {
            self.step(tx, rx, most);
            steps += 1;
            assert!(steps < most * 100_000, "{} of {most} arrived", self.received);
        }
    }
}

fn scripted_options() -> Options {
    let mut options = options(0);
    options.capacity = 16 << 10;
    options.wait = Wait::Spin;
    // Time passes while tests run, slowly on a slow machine; none of it is their business.
    options.timing.handshake_ns = PATIENCE.as_nanos() as u64;
    options.timing.retry_max_ns = 1_000_000;
    options.linger = std::time::Duration::ZERO;
    options
}

/// Joins the two ends again; the dialer may rest a moment between two attempts.
fn join_again(tx: &mut FakeSender, rx: &mut FakeReceiver, room: usize) {
    let start = std::time::Instant::now();
    while !join(tx, rx, room) {
        assert!(start.elapsed() < PATIENCE, "no connection came about");
    }
}

#[test]
fn completions_of_every_kind() {
    for seed in 0..40 {
        let (mut tx, mut rx) = ends(&scripted_options()).unwrap();
        join_again(&mut tx, &mut rx, 100 + seed as usize * 300);
        script_sender(&mut tx).chance(seed);
        script_receiver(&mut rx).chance(!seed);
        script_sender(&mut tx).newest_first(seed % 2 == 0);
        script_receiver(&mut rx).newest_first(seed % 3 == 0);
        Passed::default().run(&mut tx, &mut rx, 500);
        assert_eq!((tx.stats().connections, rx.stats().violations), (1, 0));
    }
}

#[test]
fn recalls_that_come_too_late() {
    // What was recalled completes later, as cancelled: nothing is sent twice, nothing overtakes.
    let (mut tx, mut rx) = ends(&scripted_options()).unwrap();
    join_again(&mut tx, &mut rx, 4096);
    script_sender(&mut tx).recalls_late(true);
    script_receiver(&mut rx).recalls_late(true);
    for seed in 0..20 {
        script_sender(&mut tx).chance(seed);
        script_receiver(&mut rx).chance(seed + 100);
    }
    Passed::default().run(&mut tx, &mut rx, 1000);
}

#[test]
fn an_interrupted_and_refused_send_is_sent_again() {
    let (mut tx, mut rx) = ends(&scripted_options()).unwrap();
    join_again(&mut tx, &mut rx, 4096);
    // The greetings first.
    let mut passed = Passed::default();
    passed.run(&mut tx, &mut rx, 1);
    let again = [Step::Fail(libc::EINTR), Step::Fail(libc::EAGAIN), Step::Late, Step::Short(1)];
    script_sender(&mut tx).script(Kind::Send, again.into_iter().cycle().take(400));
    script_receiver(&mut rx).script(Kind::Recv, again.into_iter().cycle().take(400));
    passed.run(&mut tx, &mut rx, 300);
}

#[test]
fn breaks_anywhere_lose_and_double_nothing() {
    let mut cuts = 0;
    for seed in 0..30_u64 {
        let (mut tx, mut rx) = ends(&scripted_options()).unwrap();
        let mut passed = Passed::default();
        let most = 400;
        while passed.received < most {
            join_again(&mut tx, &mut rx, 3000);
            script_sender(&mut tx).chance(seed ^ cuts);
            script_receiver(&mut rx).chance(!seed ^ cuts);
            // So many calls, then a break that lets some bytes through, the first of them mid-frame.
            let calls = 5 + (seed * 7 + cuts * 13) % 90;
            for _ in 0..calls {
                passed.step(&mut tx, &mut rx, most);
            }
            if passed.received < most {
                script_sender(&mut tx).cut((seed * 31 + cuts * 17) as usize % 700);
                cuts += 1;
                // What is under way arrives, and then each end notices for itself.
                for _ in 0..20 {
                    passed.step(&mut tx, &mut rx, passed.sent);
                }
            }
        }
        let stats = tx.stats();
        assert_eq!((stats.sessions, stats.lost), (1, 0), "seed {seed}");
        assert_eq!(rx.stats().violations + stats.violations, 0, "seed {seed}");
    }
    assert!(cuts > 300, "{cuts}");
    println!("{cuts} breaks");
}

#[test]
fn a_reset_in_the_middle_of_a_send() {
    for byte in 0..200 {
        let (mut tx, mut rx) = ends(&scripted_options()).unwrap();
        join_again(&mut tx, &mut rx, 4096);
        let mut passed = Passed::default();
        passed.run(&mut tx, &mut rx, 3);
        script_sender(&mut tx).script(Kind::Send, [Step::Short(byte + 1), Step::Reset]);
        for _ in 0..10 {
            passed.step(&mut tx, &mut rx, 10);
        }
        join_again(&mut tx, &mut rx, 4096);
        passed.run(&mut tx, &mut rx, 20);
        assert_eq!((tx.stats().resumes, tx.stats().lost), (1, 0));
    }
}

#[test]
fn a_close_tells_that_the_receiver_was_lost_before() {
    let mut options = scripted_options();
    options.timing.resume_ns = 1;
    let (mut tx, mut rx) = ends(&options).unwrap();
    join_again(&mut tx, &mut rx, 4096);
    let mut passed = Passed::default();
    passed.run(&mut tx, &mut rx, 3);
    script_sender(&mut tx).script(Kind::Send, [Step::Reset]);
    tx.try_claim(100).unwrap().commit().unwrap();
    let left = tx.unacknowledged();
    let error = tx.close(PATIENCE).unwrap_err();
    assert_eq!((error.messages, error.bytes), (left.messages, left.bytes));
    assert_eq!(error.why, NotClosed::PeerDied { death: Death::ResumeDeadline });
    assert!(error.to_string().contains("not resumed in time; open the channel again"), "{error}");
}

#[test]
fn nothing_is_outstanding_between_two_calls() {
    let (mut tx, mut rx) = ends(&scripted_options()).unwrap();
    join_again(&mut tx, &mut rx, 500);
    let mut passed = Passed::default();
    for _ in 0..500 {
        passed.step(&mut tx, &mut rx, 100);
        for kind in [Kind::Send, Kind::Recv] {
            assert!(!script_sender(&mut tx).is_outstanding(kind));
            assert!(!script_receiver(&mut rx).is_outstanding(kind));
        }
    }
    assert_eq!(passed.received, 100);
}
