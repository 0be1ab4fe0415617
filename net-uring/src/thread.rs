//! The link that a thread drives (`io=thread`): messages leave, acknowledgements flow and connections
//! are mended while the caller is elsewhere, and a send costs the caller a write into the ring.
//!
//! ```text
//!   caller                         line                        thread
//!   writes a frame, gives its end ──▶ given ──▶ takes it over, sends what has piled up
//!   has room up to             ◀── shown ◀── what was acknowledged
//! ```
//!
//! The ring is the session's own: nothing is copied on the way to the thread. Bytes change hands with
//! the positions of [`Line`]; everything else, counters, peers, the end of a session, is looked up in
//! the connection itself, which the thread lets go of for a moment when the caller demands it. So there
//! is no queue of commands, and nothing that the thread must be trusted to answer.
//!
//! A thread that has nothing to do waits as its options say, and yields its core at each look: there may
//! be fewer cores than threads that look. It ends when the end is closed or dropped, within one turn
//! over the socket, and what is left to do is done by the caller: a close is the same for all links.

mod bell;
mod caller;
mod line;

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::connection::{Inbox, Peer, SLICE, SPIN_FOR};
use crate::error::{Error, ErrorKind};
use crate::fork::Birth;
use crate::gauge::Tally;
use crate::link::{Inline, Link};
use crate::mirror::View;
use crate::options::{Options, Wait};
use bell::Bell;

pub use line::{Demand, Line, Outcome};

/// Looks between two at the clock.
const LOOKS_PER_CLOCK: u32 = 16;

/// See the module.
#[derive(Debug)]
pub struct Threaded<H: Inbox, B: Backend> {
    /// None when the thread was joined, and then `rest` has what it had.
    shared: Option<Arc<Shared<H, B>>>,
    thread: Option<JoinHandle<()>>,
    rest: Option<Inline<H, B>>,
    /// The thread ended by a panic.
    failed: bool,
    birth: Birth,
    view: View,
    wait: Wait,
    backend: &'static str,
    tally: Option<Arc<Tally>>,
    /// The thread's last sleep that it was woken from.
    rung: u64,
    /// Of a sender: up to where frames were acknowledged. Of a receiver: at whose release the thread
    /// has something to tell.
    mark: u64,
}

/// What both threads know of.
#[derive(Debug)]
struct Shared<H: Inbox, B: Backend> {
    line: Line,
    bell: Bell,
    link: Mutex<Inline<H, B>>,
    /// Who the other end is, for a caller that does not want to disturb.
    peer: Mutex<Option<Peer>>,
    pillow: Mutex<()>,
    woken: Condvar,
    wait: Wait,
}

impl<H: Inbox, B: Backend> Threaded<H, B>
where
    Inline<H, B>: Send + 'static,
{
    /// Starts the thread, named and pinned.
    ///
    /// # Errors
    /// Lack of descriptors or threads; a name that no thread can have, a core that is not to be had.
    pub fn start(link: Inline<H, B>, options: &Options) -> Result<Self, Error> {
        let reins = &options.thread;
        let name = reins.name.clone().unwrap_or_else(|| format!("rw-{}", options.channel));
        if name.contains('\0') {
            return Err(not_named(&name));
        }
        let mut link = link;
        let bell = Bell::new().map_err(|error| Error::io("opening an eventfd", error))?;
        link.connection.watch_bell(bell.news());
        let view = link.connection.ring.view();
        let (birth, backend, tally) = (link.birth(), link.backend(), link.tally());
        let shared = Arc::new(Shared {
            line: Line::default(),
            bell,
            link: Mutex::new(link),
            peer: Mutex::new(None),
            pillow: Mutex::new(()),
            woken: Condvar::new(),
            wait: options.wait,
        });
        let (ready, pinned) = sync_channel(1);
        let (theirs, core) = (Arc::clone(&shared), reins.core);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || begin(&theirs, core, &ready))
            .map_err(|error| Error::io("starting a thread for io=thread", error))?;
        let threaded = Self {
            shared: Some(shared),
            thread: Some(thread),
            rest: None,
            failed: false,
            birth,
            view,
            wait: options.wait,
            backend,
            tally,
            rung: 0,
            mark: 0,
        };
        match (pinned.recv(), reins.core) {
            (Ok(Err(error)), Some(core)) => Err(not_pinned(core, &error)),
            _ => Ok(threaded),
        }
    }
}

impl<H: Inbox, B: Backend> Drop for Threaded<H, B> {
    fn drop(&mut self) {
        if self.birth.is_foreign() {
            // The thread is the parent's, and so is all that it has.
            std::mem::forget((self.shared.take(), self.thread.take()));
            return;
        }
        self.join();
    }
}

fn not_named(name: &str) -> Error {
    Error::new(
        ErrorKind::BadOption,
        format!("naming the thread of io=thread {name:?}"),
        "the system takes no name with a zero byte in it",
        "Give it another one by `io_name`; without that it is called after the channel",
    )
}

fn not_pinned(core: usize, error: &io::Error) -> Error {
    Error::new(
        ErrorKind::BadOption,
        format!("pinning the thread of io=thread to core {core} (io_core={core})"),
        error.to_string(),
        "Name one of the cores that `taskset -cp $$` lists: others do not exist, or this process's \
         cpuset or container does not have them",
    )
}

fn begin<H: Inbox, B: Backend>(
    shared: &Shared<H, B>,
    core: Option<usize>,
    ready: &SyncSender<io::Result<()>>,
) {
    /// Tells the caller if the thread ends by a panic.
    struct Alarm<'a, H: Inbox, B: Backend>(&'a Shared<H, B>);
    impl<H: Inbox, B: Backend> Drop for Alarm<'_, H, B> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.line.fail();
                self.0.wake_caller();
            }
        }
    }
    let pinned = core.map_or(Ok(()), pin);
    let failed = pinned.is_err();
    if ready.send(pinned).is_err() || failed {
        return;
    }
    let _alarm = Alarm(shared);
    shared.run();
}

/// Keeps the calling thread on one core.
fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a plain array of bits, of which none is set.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the core is within the set, which is a live value of the size told; 0 is this thread.
    let result = unsafe {
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cores)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl<H: Inbox, B: Backend> Shared<H, B> {
    /// The thread, until it is told to end.
    fn run(&self) {
        let mut link = self.link();
        let mut peer = None;
        loop {
            self.drive(&mut link, &mut peer);
            drop(link);
            loop {
                match self.line.demanded() {
                    Demand::Nothing => break,
                    Demand::Hold => std::thread::yield_now(),
                    Demand::End => return,
                }
            }
            link = self.link();
        }
    }

    /// Moves bytes until the caller demands something.
    fn drive(&self, link: &mut Inline<H, B>, peer: &mut Option<Peer>) {
        let mut idle = Idle::default();
        while self.line.demanded() == Demand::Nothing {
            if self.turn(link, peer) {
                idle = Idle::default();
                continue;
            }
            // Others want the core, too, whoever they are.
            std::thread::yield_now();
            if idle.is_tired(self.wait) {
                self.sleep(link, peer);
            }
        }
    }

    /// One look at the line and the network. Whether anything moved.
    fn turn(&self, link: &mut Inline<H, B>, peer: &mut Option<Peer>) -> bool {
        let connection = &mut link.connection;
        let took = connection.take_over(self.line.given());
        let came = connection.step();
        connection.tend_sometimes();
        self.show(link, peer) | took | came
    }

    /// Shows the caller how far it has come, and with whom: who has a message may ask from whom. Whether
    /// that is news.
    fn show(&self, link: &Inline<H, B>, peer: &mut Option<Peer>) -> bool {
        let now = link.peer();
        if now != *peer {
            *peer = now;
            *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        let (shown, is_over) = link.connection.outcome();
        let news = shown != self.line.shown();
        if self.line.show(shown, is_over) {
            self.wake_caller();
        }
        news
    }

    fn sleep(&self, link: &mut Inline<H, B>, peer: &mut Option<Peer>) {
        link.connection.tend();
        H::before_sleep(&mut link.connection.session);
        // Until there is no more, so that the next news is an edge.
        while self.turn(link, peer) {
            if self.line.demanded() != Demand::Nothing {
                return;
            }
        }
        self.line.doze();
        // The last look: what is given or demanded from now on rings the bell.
        let idle = !link.connection.take_over(self.line.given());
        if idle && self.line.demanded() == Demand::Nothing {
            link.connection.park(SLICE);
        }
        self.line.wake();
        self.bell.hush();
    }

    fn wake_caller(&self) {
        drop(self.pillow.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_all();
    }

    /// What the thread works on. A panic of the thread is told by the line.
    fn link(&self) -> MutexGuard<'_, Inline<H, B>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long there has been nothing to do.
#[derive(Debug, Default)]
struct Idle {
    looks: u32,
    since: Option<Instant>,
}

impl Idle {
    /// Whether it is time to sleep.
    fn is_tired(&mut self, wait: Wait) -> bool {
        self.looks += 1;
        match wait {
            Wait::Spin => false,
            Wait::Park => true,
            Wait::Adaptive if self.looks % LOOKS_PER_CLOCK == 1 => {
                let now = Instant::now();
                now - *self.since.get_or_insert(now) >= SPIN_FOR
            }
            Wait::Adaptive => false,
        }
    }
}

/// How long the caller sleeps before it looks again, by itself.
fn slice(deadline: Option<Instant>) -> Duration {
    deadline.map_or(SLICE, |at| at.saturating_duration_since(Instant::now()).min(SLICE))
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::time::Duration;

    use super::Threaded;
    use crate::backend::{Backend, Completion, Kind, Leak, Watch};
    use crate::connection::testing;
    use crate::fork::OwnSocket;
    use crate::mirror::Span;
    use crate::options::{Options, Wait};
    use crate::receiver::{NetReceiver, RecvError};
    use crate::sender::{NetSender, NotClosed, SendError};
    use crate::session::{Format, Receiving, Sending};

    /// Never has a socket, and panics when its thread would sleep.
    #[derive(Debug)]
    struct Defect;

    impl Backend for Defect {
        fn name(&self) -> &'static str {
            "defect"
        }
        fn attach(&mut self, _socket: OwnSocket) {}
        fn socket(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn detach(&mut self) -> Result<Option<OwnSocket>, Leak> {
            Ok(None)
        }
        unsafe fn submit(&mut self, _kind: Kind, _span: Span) {}
        fn is_outstanding(&self, _kind: Kind) -> bool {
            false
        }
        fn recall(&mut self, _kind: Kind) -> bool {
            true
        }
        fn turn(&mut self) {}
        fn complete(&mut self) -> Option<Completion> {
            None
        }
        fn park(&mut self, _timeout: Duration) {
            panic!("a defect, for a test");
        }
        fn watch(&mut self, _fd: BorrowedFd<'_>, _what: Watch) {}
    }

    #[test]
    fn a_thread_that_panics_is_told_by_the_next_call_and_hangs_nobody() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        options.wait = Wait::Park;
        options.linger = Duration::ZERO;
        let link = testing::end::<Sending, _>(&options, Defect).expect("an end");
        let link = Threaded::start(link, &options).expect("a thread");
        let mut tx = NetSender::with(link, &options);
        // Until the ring is full or the defect known, whichever comes first; then it is known.
        let told = loop {
            match tx.claim(1000).and_then(crate::sender::Claim::commit) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!((told, tx.flush()), (SendError::Broken, Err(SendError::Broken)));
        assert!(tx.stats().messages > 0);
        assert_eq!(tx.close(Duration::ZERO).unwrap_err().why, NotClosed::Broken);
        let link = testing::end::<Receiving, _>(&options, Defect).expect("an end");
        let link = Threaded::start(link, &options).expect("a thread");
        let mut rx = NetReceiver::with(link, &options);
        assert_eq!(rx.recv().err(), Some(RecvError::Broken));
        assert_eq!(rx.try_recv().err(), Some(RecvError::Broken));
    }
}
