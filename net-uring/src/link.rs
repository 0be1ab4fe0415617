//! What is between an end's verbs and the network: the verbs write into a ring, or read in one, and a
//! link does the rest. Which one an end has, its options say; what a message is made of, and how the
//! verbs behave, is the same for all of them and stands in `sender` and `receiver`.
//!
//! ```text
//!   inline   the caller's own calls drive the connection
//!   thread   a thread drives it, the caller only hands positions over
//!   fan      many connections of senders, read in turns
//!   spread   many connections of receivers, given to in turns or all alike
//! ```
//!
//! Not trait objects: a call is a predicted branch in front of code that is inlined.

pub(crate) mod inline;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Chosen;
use crate::connection::{Peer, Trouble};
use crate::crowd::Peers;
use crate::crowd::fan::Fan;
use crate::crowd::spread::Spread;
use crate::error::{Error, ErrorKind};
use crate::fork::Birth;
use crate::gauge::Tally;
use crate::mirror::View;
use crate::options::{Io, Kind, Options, Side};
use crate::session::{End, Receiving, Sending, Unacknowledged};
use crate::socket::in_digits;
use crate::stats::Stats;
use crate::thread::Threaded;

pub use inline::Inline;

/// How a session ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// How. `None`: the peer went without its last words, having said that it closes.
    pub end: Option<End>,
    /// There was a handshake.
    pub established: bool,
    /// With whom.
    pub peer: Option<Peer>,
}

impl Ending {
    /// Of an end with many others on the other side: all of them have left.
    pub(crate) const ALL_LEFT: Self =
        Self { end: Some(End::Closed), established: true, peer: None };
}

/// Where the next message is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Blank {
    /// The ring.
    pub view: View,
    /// Most bytes of a message.
    pub body_max: usize,
}

/// Where to write from now on, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Front {
    /// The ring.
    pub view: View,
    /// The tail at which to ask again, above that of now. Until then, only a publication can tell that the
    /// session is over, and [`Outgoing::is_over_by_itself`].
    pub until: u64,
}

/// What is read, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Desk {
    /// The ring.
    pub view: View,
    /// Position of the next frame to hand out.
    pub taken: u64,
    /// Everything below was given back.
    pub released: u64,
    /// Everything below may be read: whole frames, checked.
    pub received: u64,
    /// Number of the next message in its session.
    pub messages: u64,
}

impl Desk {
    /// At the beginning of a session.
    pub fn new(view: View) -> Self {
        Self { view, taken: 0, released: 0, received: 0, messages: 0 }
    }

    /// Whether everything that may be read was.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.taken >= self.received
    }
}

/// What both kinds of links tell.
pub trait Link {
    /// Where it was made.
    fn birth(&self) -> Birth;
    /// Whether it can't go on, whatever the peer does.
    fn is_broken(&self) -> bool {
        false
    }
    /// The other end, if there was a handshake; of many, the one that the last call was about.
    fn peer(&self) -> Option<Peer>;
    /// Who is there, and who has come and gone.
    fn peers(&mut self) -> Peers {
        let mut peers = Peers::default();
        peers.present.extend(self.peer());
        peers
    }
    /// Where it listens, or from where it is connected.
    fn local_addr(&self) -> Option<SocketAddr>;
    /// Why there was no connection, when there last was none.
    fn trouble(&self) -> Option<Trouble>;
    /// Which backend moves the bytes.
    fn backend(&self) -> &'static str;
    /// Of connections. What the end counts itself is 0.
    fn stats(&self) -> Stats;
    /// Where the end leaves what it counts itself, if that is shown to anybody.
    fn tally(&self) -> Option<Arc<Tally>>;
    /// Closes in good order, for at most `timeout`. How the session ended, now or before; `None`: it has not.
    fn close(&mut self, timeout: Duration) -> Option<Ending>;
    /// As [`Self::close`], but is content when the peer's host has everything.
    fn leave(&mut self, linger: Duration);
}

/// What carries a sender's frames away. `tail` is where the frames end that were written; a position
/// is only good until [`Self::start_over`].
pub trait Outgoing: Link {
    /// Where to write.
    fn blank(&self) -> Blank;
    /// Where to write from `tail` on. May begin at the front of the ring again, if there is nothing left in
    /// it: what is written behind `tail` is to be written anew. Where it always goes round, as it was.
    fn front(&mut self, _tail: u64) -> Front {
        Front { view: self.blank().view, until: u64::MAX }
    }
    /// Every frame below `tail` is written: sends what can be sent without waiting. Up to where frames
    /// were acknowledged, as known.
    fn publish(&mut self, tail: u64) -> u64;
    /// Up to where frames were acknowledged, without a look at the network.
    fn free(&mut self) -> u64;
    /// One look at the network, for a caller that has no room. As [`Self::publish`].
    fn look(&mut self) -> u64;
    /// Waits until everything below `until` is acknowledged, or the session is over, or `timeout` is.
    fn wait(&mut self, until: u64, timeout: Option<Duration>) -> u64;
    /// Whether nothing will be acknowledged any more.
    fn is_over(&self) -> bool;
    /// The same, of a link that may learn of it while nobody calls.
    #[inline(always)]
    fn is_over_by_itself(&self) -> bool {
        false
    }
    /// Begins a new session at position 0, and tells how the last one ended.
    fn start_over(&mut self, tail: u64) -> Ending;
    /// Frames below `tail` that were never acknowledged.
    fn unacknowledged(&self, tail: u64) -> Unacknowledged;
    /// Bytes of frames below `tail` that the kernel has not taken.
    fn unsent(&self, tail: u64) -> u64;
}

/// What brings a receiver's frames.
pub trait Incoming: Link {
    /// What there is to read at the start: nothing.
    fn desk(&self) -> Desk;
    /// Everything that was taken is released.
    fn release(&mut self, desk: &Desk);
    /// One look at the network, for a caller that has read everything.
    fn look(&mut self, desk: &mut Desk);
    /// Waits until there is something to read, or the session is over, or `timeout` is.
    fn wait(&mut self, desk: &mut Desk, timeout: Option<Duration>);
    /// Whether everything was read, and nothing will come.
    fn is_over(&mut self, desk: &mut Desk) -> bool;
    /// A new session may begin, at position 0. Tells how the last one ended.
    fn acknowledge_end(&mut self, desk: &mut Desk) -> Ending;
}

/// The link of a sending end.
#[derive(Debug)]
pub enum Out {
    /// Driven by the caller.
    Inline(Inline<Sending, Chosen>),
    /// Driven by a thread.
    Thread(Threaded<Sending, Chosen>),
    /// To many receivers.
    Spread(Box<Spread>),
}

/// The link of a receiving end.
#[derive(Debug)]
pub enum In {
    /// Driven by the caller.
    Inline(Inline<Receiving, Chosen>),
    /// Driven by a thread.
    Thread(Threaded<Receiving, Chosen>),
    /// Of many senders.
    Fan(Box<Fan>),
}

macro_rules! open {
    ($link:ident) => {
        impl $link {
            /// As the options say.
            ///
            /// # Errors
            /// [`Error`], whose text names the remedy.
            pub fn open(options: &Options) -> Result<Self, Error> {
                let side = side(options, Self::BROADCAST)?;
                let options = &Options { side, ..options.clone() };
                if options.kind != Kind::Pair && side == Side::Bind {
                    return Self::open_to_many(options);
                }
                let mut link = Inline::open(options)?;
                Ok(match options.io {
                    Io::Inline => {
                        link.see_first_dial();
                        Self::Inline(link)
                    }
                    Io::Thread => Self::Thread(Threaded::start(link, options)?),
                })
            }
        }

        impl Link for $link {
            fn birth(&self) -> Birth {
                of!($link, self, link => link.birth())
            }

            fn is_broken(&self) -> bool {
                of!($link, self, link => link.is_broken())
            }

            fn peer(&self) -> Option<Peer> {
                of!($link, self, link => link.peer())
            }

            fn peers(&mut self) -> Peers {
                of!($link, self, link => link.peers())
            }

            fn local_addr(&self) -> Option<SocketAddr> {
                of!($link, self, link => link.local_addr())
            }

            fn trouble(&self) -> Option<Trouble> {
                of!($link, self, link => link.trouble())
            }

            fn backend(&self) -> &'static str {
                of!($link, self, link => link.backend())
            }

            fn stats(&self) -> Stats {
                of!($link, self, link => link.stats())
            }

            fn tally(&self) -> Option<Arc<Tally>> {
                of!($link, self, link => link.tally())
            }

            fn close(&mut self, timeout: Duration) -> Option<Ending> {
                of!($link, self, link => link.close(timeout))
            }

            fn leave(&mut self, linger: Duration) {
                of!($link, self, link => link.leave(linger));
            }
        }
    };
}

/// The same for each of them.
macro_rules! of {
    (Out, $self:expr, $link:ident => $call:expr) => {
        match $self {
            Out::Inline($link) => $call,
            Out::Thread($link) => $call,
            Out::Spread($link) => $call,
        }
    };
    (In, $self:expr, $link:ident => $call:expr) => {
        match $self {
            In::Inline($link) => $call,
            In::Thread($link) => $call,
            In::Fan($link) => $call,
        }
    };
}

impl Out {
    /// Of a broadcast it is the sender that binds.
    const BROADCAST: Side = Side::Bind;

    fn open_to_many(options: &Options) -> Result<Self, Error> {
        Ok(Self::Spread(Box::new(Spread::open(options)?)))
    }
}

impl In {
    const BROADCAST: Side = Side::Connect;

    fn open_to_many(options: &Options) -> Result<Self, Error> {
        Ok(Self::Fan(Box::new(Fan::open(options)?)))
    }
}

/// Whether this end of a channel with many ends on one side is the one, and with which side it opens. Two
/// ends of one kind on one host would both try to be it, or both not, so the address alone does not decide.
fn side(options: &Options, broadcast: Side) -> Result<Side, Error> {
    let anywhere = in_digits(&options.host).is_some_and(|ip| ip.is_unspecified());
    let refused = |found: &str, remedy: &str| {
        let tried = format!("opening channel {:?}, of kind={}", options.channel, options.kind);
        Err(Error::new(ErrorKind::BadOption, tried, found, remedy))
    };
    match (options.kind, options.side) {
        (Kind::Pair, side) => Ok(side),
        (Kind::Broadcast, Side::ByAddress) => Ok(broadcast),
        (Kind::Broadcast, side) if side == broadcast => Ok(side),
        (Kind::Broadcast, _) => refused(
            "of a broadcast between hosts the sender binds, and the receivers connect",
            "Leave `side` out",
        ),
        (Kind::Mpmc, Side::ByAddress) if options.port == 0 || anywhere => Ok(Side::Bind),
        (Kind::Mpmc, Side::ByAddress) => refused(
            "it has one end on one side and many on the other, and nothing says which this is",
            "Add `side=bind` at the one, and `side=connect` at each of the many",
        ),
        (Kind::Mpmc, side) => Ok(side),
    }
}

open!(Out);
open!(In);

impl Outgoing for Out {
    fn blank(&self) -> Blank {
        of!(Out, self, link => link.blank())
    }

    fn front(&mut self, tail: u64) -> Front {
        of!(Out, self, link => link.front(tail))
    }

    #[inline(always)]
    fn publish(&mut self, tail: u64) -> u64 {
        of!(Out, self, link => link.publish(tail))
    }

    #[inline(always)]
    fn free(&mut self) -> u64 {
        of!(Out, self, link => link.free())
    }

    fn look(&mut self) -> u64 {
        of!(Out, self, link => link.look())
    }

    fn wait(&mut self, until: u64, timeout: Option<Duration>) -> u64 {
        of!(Out, self, link => link.wait(until, timeout))
    }

    #[inline(always)]
    fn is_over(&self) -> bool {
        of!(Out, self, link => link.is_over())
    }

    #[inline(always)]
    fn is_over_by_itself(&self) -> bool {
        of!(Out, self, link => link.is_over_by_itself())
    }

    fn start_over(&mut self, tail: u64) -> Ending {
        of!(Out, self, link => link.start_over(tail))
    }

    fn unacknowledged(&self, tail: u64) -> Unacknowledged {
        of!(Out, self, link => link.unacknowledged(tail))
    }

    fn unsent(&self, tail: u64) -> u64 {
        of!(Out, self, link => link.unsent(tail))
    }
}

impl Incoming for In {
    fn desk(&self) -> Desk {
        of!(In, self, link => link.desk())
    }

    #[inline(always)]
    fn release(&mut self, desk: &Desk) {
        of!(In, self, link => link.release(desk));
    }

    #[inline(always)]
    fn look(&mut self, desk: &mut Desk) {
        of!(In, self, link => link.look(desk));
    }

    fn wait(&mut self, desk: &mut Desk, timeout: Option<Duration>) {
        of!(In, self, link => link.wait(desk, timeout));
    }

    fn is_over(&mut self, desk: &mut Desk) -> bool {
        of!(In, self, link => link.is_over(desk))
    }

    fn acknowledge_end(&mut self, desk: &mut Desk) -> Ending {
        of!(In, self, link => link.acknowledge_end(desk))
    }
}

#[cfg(test)]
mod tests {
    use super::side;
    use crate::options::{Kind, Options, Side};
    use crate::session::Format;

    #[test]
    fn who_names_every_address_of_this_host_is_the_one_that_binds() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let side_at = |host, port| {
            let options = Options::new(host, port, "ticks", 7, format);
            side(&Options { kind: Kind::Mpmc, ..options }, Side::Bind).ok()
        };
        for anywhere in ["0.0.0.0", "::", "[::]"] {
            assert_eq!(side_at(anywhere, 7000), Some(Side::Bind), "{anywhere}");
        }
        for one in ["127.0.0.1", "::1", "[::1]", "localhost", "[::"] {
            assert_eq!((side_at(one, 7000), side_at(one, 0)), (None, Some(Side::Bind)), "{one}");
        }
    }
}
