//! The ends of a channel between hosts as a flavor beside those in shared memory, and which of them all
//! an address asks for.
//!
//! Nothing here knows what the bytes mean.

use std::path::PathBuf;

use ringway_net::{NetReceiver, NetSender};
use ringway_shm::{Kind, Read, Stats};

use crate::channel::{Patience, Publish};
use crate::elsewhere;
use crate::error::Error;
use crate::flavor::{ArrayRoom, BatchOutlet, Outlet, Receiving, Room, Sending};
use crate::watch;

/// What an end is opened with.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "lives for as long as an end is being opened")]
pub(crate) enum Medium {
    Shm(ringway_shm::Options, Read),
    /// With the directory in which tools look.
    Net(Box<ringway_net::Options>, Option<PathBuf>),
}

pub(crate) fn sending(medium: &Medium) -> Result<Sending, Error> {
    Ok(match medium {
        Medium::Shm(options, _) => match ringway_shm::sending(options)? {
            ringway_shm::Sending::InPlace(end) => Sending::InPlace(end),
            ringway_shm::Sending::Copied(end) => {
                Sending::Elsewhere(elsewhere::Sending::Copied(end))
            }
            ringway_shm::Sending::Shared(end) => {
                Sending::Elsewhere(elsewhere::Sending::Shared(end))
            }
        },
        Medium::Net(options, directory) => {
            let options = watch::show(options, directory.as_deref(), true);
            let end = Box::new(NetSender::open(&options)?);
            Sending::Elsewhere(elsewhere::Sending::Remote(end))
        }
    })
}

pub(crate) fn receiving(medium: &Medium) -> Result<Receiving, Error> {
    Ok(match medium {
        Medium::Shm(options, read) => match ringway_shm::receiving(options, *read)? {
            ringway_shm::Receiving::InPlace(end) => Receiving::InPlace(end),
            ringway_shm::Receiving::Copied(end) => {
                Receiving::Elsewhere(elsewhere::Receiving::Copied(end))
            }
            ringway_shm::Receiving::Shared(end) => {
                Receiving::Elsewhere(elsewhere::Receiving::Shared(end))
            }
        },
        Medium::Net(options, directory) => {
            let options = watch::show(options, directory.as_deref(), false);
            let end = Box::new(NetReceiver::open(&options)?);
            Receiving::Elsewhere(elsewhere::Receiving::Remote(end))
        }
    })
}

/// The error for an option that was set for a channel between hosts, and that is not for these, or for
/// those of another kind only.
pub(crate) fn only_here(name: &str, option: &str) -> Error {
    let of_kind = match option {
        "overflow" => Some(Kind::Broadcast),
        "until" => Some(Kind::Mpmc),
        _ => None,
    };
    let (found, remedy) = match of_kind {
        Some(kind) => (
            format!("`{option}` is an option of `kind={kind}`, which was not asked for"),
            format!("Add `kind={kind}`, or leave `{option}` out"),
        ),
        None => (
            format!("`{option}` is set, which only channels in shared memory have"),
            "Leave it out, or use `shm://`".to_owned(),
        ),
    };
    Error::Net(ringway_net::Error::new(
        ringway_net::ErrorKind::BadOption,
        format!("opening channel {name:?} between hosts"),
        found,
        remedy,
    ))
}

/// The error for an option that was set for a thread where there is none.
pub(crate) fn only_threads(name: &str, option: &str) -> Error {
    Error::Net(ringway_net::Error::new(
        ringway_net::ErrorKind::BadOption,
        format!("opening channel {name:?} between hosts"),
        format!(
            "`{option}` is set, which is for a thread, and the calls of this end are to move its bytes"
        ),
        "Add `io=thread`, or leave it out",
    ))
}

/// What both media count, as the sender knows it.
pub(crate) fn sent(net: &ringway_net::Stats) -> Stats {
    let mut stats = counted(net);
    stats.producer_parks = net.parks;
    stats
}

/// What both media count, as the receiver knows it.
pub(crate) fn received(net: &ringway_net::Stats) -> Stats {
    let mut stats = counted(net);
    stats.consumer_parks = net.parks;
    stats
}

fn counted(net: &ringway_net::Stats) -> Stats {
    let mut stats = Stats::default();
    stats.sent = net.messages;
    stats.received = net.released;
    stats.bytes = net.bytes;
    stats.depth = net.messages.saturating_sub(net.released + net.lost);
    stats.full_waits = net.full_waits;
    stats
}

impl Outlet for NetSender {
    type Error = ringway_net::SendError;
    type Claim<'a> = ringway_net::Claim<'a>;

    #[inline(always)]
    fn claim_run(&mut self, _likely: usize) -> Result<Option<Self::Claim<'_>>, Self::Error> {
        self.claim_run()
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Self::Claim<'_>, Self::Error> {
        match patience {
            Patience::None => self.try_claim(len),
            Patience::Forever => self.claim(len),
            Patience::Within(timeout) => self.claim_timeout(len, timeout),
            Patience::Until(deadline) => self.claim_timeout(len, Patience::left(deadline)),
        }
    }
}

impl BatchOutlet for NetSender {
    type ArrayClaim<'a> = NoArray;

    /// Each message has a header of its own.
    const HAS_ARRAYS: bool = false;

    fn claim_array(
        &mut self,
        len: usize,
        _count: usize,
        _patience: Patience,
    ) -> Result<NoArray, Self::Error> {
        // `HAS_ARRAYS` says that there is none.
        Err(ringway_net::SendError::TooLarge { len, max: self.max_len() })
    }

    #[inline(always)]
    fn flush(&mut self) -> Result<(), Self::Error> {
        self.flush()
    }

    fn max_len(&self) -> usize {
        self.max_len()
    }

    fn publications(&self) -> u64 {
        self.publications()
    }
}

impl Room for ringway_net::Claim<'_> {
    type Error = ringway_net::SendError;

    #[inline(always)]
    fn finish(self, len: usize, publish: Publish) -> Result<(), Self::Error> {
        match publish {
            Publish::Now => self.commit_len(len),
            Publish::Later => self.queue_len(len),
        }
    }

    fn finish_whole(self, publish: Publish) -> Result<(), Self::Error> {
        let len = self.len();
        self.finish(len, publish)
    }
}

/// Nothing: every message goes by itself.
pub(crate) enum NoArray {}

impl ArrayRoom for NoArray {
    type Error = ringway_net::SendError;

    fn rooms(&mut self, _len: usize) -> impl Iterator<Item = &mut [u8]> {
        std::iter::empty()
    }

    fn finish(self, _count: usize, _publish: Publish) -> Result<(), Self::Error> {
        match self {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::Builder;

    #[test]
    fn an_option_of_another_kind_is_told_with_the_kind() {
        for (option, kind) in [("overflow=overwrite", "broadcast"), ("until=last", "mpmc")] {
            for place in ["tcp://127.0.0.1:0/t", "shm://remote-kind"] {
                let address = format!("{place}?{option}");
                let error = crate::receiver::<[u8]>(&address).unwrap_err().to_string();
                assert!(error.contains(&format!("Add `kind={kind}`")), "{error}");
                assert!(!error.contains("only channels in shared memory"), "{error}");
            }
        }
        let error = Builder::new("tcp://127.0.0.1:0/t?kind=mpmc")
            .unwrap()
            .slots(64)
            .receiver::<[u8]>()
            .unwrap_err();
        assert!(error.to_string().contains("only channels in shared memory"), "{error}");
    }

    /// Down to the sockets: no other address of this host's has a scope for sure.
    #[test]
    fn an_address_with_a_scope_is_a_host() {
        let interfaces = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let loopback = "00000000000000000000000000000001 01 ";
        if !interfaces.lines().any(|line| line.starts_with(loopback)) {
            println!("skipped: this host has no IPv6");
            return;
        }
        let end = |side: &str| {
            let end = Builder::new(&format!("tcp://[::1%1]:0/scope?side={side}")).unwrap();
            end.directory(std::env::temp_dir()).linger(Duration::from_secs(30))
        };
        let mut rx = end("bind").receiver::<[u8]>().unwrap();
        let port = rx.local_addr().unwrap().port();
        let mut tx = end("connect").port(port).sender::<[u8]>().unwrap();
        tx.send(b"hello").unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(30)).as_deref(), Ok(&b"hello"[..]));
    }
}
