//! The subscribing process: receives until the stream ends and tells what came. Counting never
//! lives here, see `tally`.

use std::io::{Stdout, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway::{Received, Receiver, RecvError};

use super::channel;
use super::clock::now_ns;
use super::leash::Leash;
use super::message::Message;
use super::news::{Line, News, PROGRESS_EVERY_NS};
use super::tally::Tally;

/// What the parent passes on.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    address: String,
}

/// How long a wait for a message may last before the parent's wish is looked at again.
const SLICE: Duration = Duration::from_millis(50);

/// How long, once the parent let go, nothing may come before the stream counts as over.
const SILENCE_MAX_NS: u64 = 1_000_000_000;

/// Receives until the publisher closes the stream or dies. The parent's letting go means that
/// there is nothing to wait for: what is in the ring is still drained.
pub(crate) fn run(options: &Options) -> ExitCode {
    let leash = Leash::hold();
    let mut line = Line::new(stdout());
    let mut tally = Tally::new();
    let problem = subscribe(options, &leash, &mut line, &mut tally).err();
    line.tell(&News::Received(tally.snapshot(now_ns())));
    line.tell(&News::Subscribed { latencies: tally.latencies() });
    let code = match problem {
        None => ExitCode::SUCCESS,
        Some(problem) => {
            line.tell(&News::Failed { problem });
            ExitCode::FAILURE
        }
    };
    if line.is_lost() {
        channel::remove_orphaned(&options.address);
    }
    code
}

/// The channel is closed when this returns: the receiver is dropped.
fn subscribe(
    options: &Options,
    leash: &Leash,
    line: &mut Line<Stdout>,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut receiver =
        ringway::receiver::<Message>(&options.address).map_err(|error| error.to_string())?;
    line.tell(&News::Ready { listens: receiver.local_addr() });
    match drain(&mut receiver, leash, line, tally) {
        Err(RecvError::Disconnected) => Ok(()),
        Err(error) => Err(format!("cannot receive: {error}")),
        Ok(()) => Err("the stream stopped without an end".into()),
    }
}

/// Receives until an error tells that the stream is over. Without one: nothing comes any more,
/// and the parent let go.
fn drain(
    receiver: &mut Receiver<Message>,
    leash: &Leash,
    line: &mut Line<Stdout>,
    tally: &mut Tally,
) -> Result<(), RecvError> {
    let mut heard_ns = now_ns();
    let mut news_ns = heard_ns + PROGRESS_EVERY_NS;
    loop {
        if let Some(now_ns) = take(tally, receiver.try_recv())? {
            heard_ns = now_ns;
            // To tell takes time in which messages wait, so it's done when none does; a stream
            // that never pauses is interrupted, but half as often.
            if now_ns < news_ns + PROGRESS_EVERY_NS {
                continue;
            }
        }
        let now_ns = now_ns();
        if now_ns >= news_ns {
            line.tell(&News::Received(tally.snapshot(now_ns)));
            news_ns = now_ns + PROGRESS_EVERY_NS;
        }
        if let Some(now_ns) = take(tally, receiver.recv_timeout(SLICE))? {
            heard_ns = now_ns;
        } else if leash.pulled() && now_ns >= heard_ns.saturating_add(SILENCE_MAX_NS) {
            return Ok(());
        }
    }
}

/// Counts what came; the time at which it did, or `None` if nothing was there.
fn take(
    tally: &mut Tally,
    received: Result<Received<'_, Message>, RecvError>,
) -> Result<Option<u64>, RecvError> {
    let now_ns = now_ns();
    match received {
        Ok(message) => {
            let (sequence, sent_ns) = (message.sequence.to_native(), message.sent_ns.to_native());
            let bytes = message.as_bytes().len() as u64;
            tally.take(sequence, sent_ns, bytes, message.is_intact(), now_ns);
        }
        // Its bytes aren't even a message.
        Err(RecvError::Invalid { .. }) => tally.take(0, 0, 0, false, now_ns),
        Err(RecvError::Empty | RecvError::Timeout) => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(Some(now_ns))
}
