//! What processes of this host have open, for tools: channels in shared memory from their own files, ends
//! of channels between hosts from the ledgers in which their processes show them. A look takes no lock that
//! anybody waits for, and changes nothing.
//!
//! A process shows its ends between hosts in one small file (docs/LEDGER.md), made with the first of them.
//! The counters there are written by whoever drives the end's connection when it looks at the network, at
//! most every 10 ms, never for a message. So they are some 60 ms old at the most while somebody is in a call
//! of the end, or has given it a thread; with `io=inline`, while nobody calls, they stand as they stood 10 ms
//! before the last call at the latest. [`Endpoint::shown_ns`] tells when that was.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_net::{Gauge, Io, Kind, Options, Shown, Trouble};
use ringway_shm::ledger::{self, Entry, Note, WORDS};
use ringway_shm::say::Remark;

use crate::error::Error;

pub use ringway_shm::{Listed, ListedEnd};

/// Version of what the words of an entry mean; `docs/LEDGER.md` draws them.
pub const WORDS_VERSION: u64 = 1;

/// A process that has ends of channels between hosts open, or had when it died.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Process {
    /// Its ledger.
    pub path: PathBuf,
    /// In its own pid namespace.
    pub pid: u32,
    /// First bytes of the command's name.
    pub command: String,
    /// When its ledger was made, in nanoseconds since 1970.
    pub since_ns: u64,
    /// Whether it lives: by a lock that the kernel holds for it, and by nothing else.
    pub is_alive: bool,
    /// Ends that it has beside those shown, which are at most 63.
    pub hidden: u64,
    /// Its ends; of one whose entry makes no sense, why.
    pub endpoints: Vec<Result<Endpoint, String>>,
}

/// An end of a channel between hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The channel.
    pub name: String,
    /// It sends; else it receives.
    pub sends: bool,
    /// It binds; else it connects.
    pub binds: bool,
    /// Who gets the messages: `spsc`, `mpmc`, `broadcast`.
    pub kind: &'static str,
    /// Who drives it: `inline`, `thread`.
    pub io: &'static str,
    /// What moves its bytes: `uring`, `epoll`.
    pub backend: &'static str,
    /// How its connection stands.
    pub state: State,
    /// When it was opened, in nanoseconds since 1970.
    pub opened_ns: u64,
    /// When this was written.
    pub shown_ns: u64,
    /// Where it listens, or from where it is connected.
    pub local: Option<SocketAddr>,
    /// The other end, or where it is looked for; of several, none.
    pub peer: Option<SocketAddr>,
    /// The session with it.
    pub session: Option<[u8; 16]>,
    /// How many are on the other side.
    pub peers: u64,
    /// Why there was no connection, when there last was none.
    pub trouble: Option<String>,
    /// The counters, in the order of [`COUNTERS`].
    pub counters: [u64; COUNTERS.len()],
    /// What is here may be of different moments: the process died, or was stopped, while it wrote.
    pub is_torn: bool,
}

/// How an end's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Down,
    /// Messages can flow.
    Up,
    /// There is one, and the peer has said nothing for 5 s.
    Stalled,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Stalled => "stalled",
        })
    }
}

/// The counters of an [`Endpoint`], by name: those of [`crate::NetStats`], which tells what they count.
/// `behind_bytes` are bytes of frames that a sender's peer has not released, or a receiver's program; a
/// sender's `released` is 0, as it takes a walk to know it.
pub const COUNTERS: [&str; 30] = [
    "messages",
    "bytes",
    "released",
    "lost",
    "unsent_bytes",
    "behind_bytes",
    "full_waits",
    "sessions",
    "connections",
    "resumes",
    "failed_attempts",
    "violations",
    "refusals",
    "resent_bytes",
    "control_sent",
    "control_received",
    "sends",
    "receives",
    "empty_receives",
    "wire_bytes_sent",
    "wire_bytes_received",
    "parks",
    "accepted",
    "silent",
    "displaced",
    "garbage",
    "refused",
    "starved",
    "send_buffer",
    "recv_buffer",
];

impl Endpoint {
    /// The counter of that name, one of [`COUNTERS`].
    pub fn counter(&self, name: &str) -> Option<u64> {
        Some(self.counters[COUNTERS.iter().position(|counter| *counter == name)?])
    }
}

/// The processes that show ends of channels between hosts, the dead ones included; and of each ledger that
/// can't be read, why. `directory` is where channels live, `None` the usual place.
///
/// # Errors
/// Those of the file system, about the directory itself.
pub fn processes(directory: Option<&Path>) -> Result<Vec<Result<Process, Error>>, Error> {
    let found = ledger::read_all(directory, WORDS_VERSION)?.into_iter();
    Ok(found.map(|found| Ok(process(found?))).collect())
}

/// A name, and the channel, or why it can't be read.
pub type NamedChannel = (String, Result<Listed, Error>);

/// The channels in shared memory, by name.
///
/// # Errors
/// Those of the file system, about the directory itself.
pub fn channels(directory: Option<&Path>) -> Result<Vec<NamedChannel>, Error> {
    let listed = ringway_shm::channels(directory)?.into_iter();
    Ok(listed.map(|(name, listed)| (name, listed.map_err(Error::from))).collect())
}

/// Removes the ledgers of processes that are dead, and those that make no sense and that no process holds.
/// Returns what was removed, and what could not be.
///
/// # Errors
/// Those of the file system, about the directory itself.
pub fn remove_dead(directory: Option<&Path>) -> Result<Vec<(PathBuf, Option<Error>)>, Error> {
    let paths = ledger::list(directory)?.into_iter();
    let removed = paths.filter_map(|path| match ledger::remove_dead(&path) {
        Ok(true) => Some((path, None)),
        Ok(false) => None,
        Err(error) => Some((path, Some(error.into()))),
    });
    Ok(removed.collect())
}

fn process(found: ledger::Found) -> Process {
    Process {
        path: found.path,
        pid: found.pid,
        command: found.command,
        since_ns: found.created_ns,
        is_alive: found.is_alive,
        hidden: found.hidden,
        endpoints: found.notes.iter().map(read).collect(),
    }
}

/// Has an end that is about to be opened shown to tools. Where that can't be, standard error is told once,
/// and the end works as well.
pub(crate) fn show(options: &Options, directory: Option<&Path>, sends: bool) -> Options {
    static HIDDEN: Remark = Remark::new();
    let gauge = match Cell::open(options, directory, sends) {
        Ok(cell) => Some(Arc::new(cell) as Arc<dyn Gauge>),
        Err(error) => {
            HIDDEN.say(|| {
                format!(
                    "the ends of channels between hosts work, but tools are not shown their counters: \
                     {error}"
                )
            });
            None
        }
    };
    Options { gauge, ..options.clone() }
}

/// Where one end's counters go.
#[derive(Debug)]
struct Cell {
    entry: Entry,
    /// What does not change.
    fixed: [u64; WORDS],
}

// Words of an entry, as docs/LEDGER.md draws them.
const OPENED: usize = 0;
const SHOWN: usize = 1;
const TRAITS: usize = 2;
const LOCAL: usize = 3;
const PEER: usize = 6;
const SESSION: usize = 9;
const PEERS: usize = 11;
const TROUBLE: usize = 12;
const NAME: usize = 13;
const COUNTED: usize = NAME + NAME_BYTES / 8;

const NAME_BYTES: usize = 128;

const _: () = assert!(COUNTED + COUNTERS.len() <= WORDS);

/// Bytes of the word of traits, by index, and what their values mean; 0 is nothing.
const ROLES: (usize, &[&str]) = (0, &["sender", "receiver"]);
const SIDES: (usize, &[&str]) = (1, &["binds", "connects"]);
const KINDS: (usize, &[&str]) = (2, &["spsc", "mpmc", "broadcast"]);
const IOS: (usize, &[&str]) = (3, &["inline", "thread"]);
const BACKENDS: (usize, &[&str]) = (4, &["uring", "epoll"]);
const STATES: (usize, &[&str]) = (5, &["down", "up", "stalled"]);
/// Another byte of it: how long the name is.
const NAME_LEN: usize = 6;
/// Another: whether there is a session.
const HAS_SESSION: usize = 7;

impl Cell {
    fn open(
        options: &Options,
        directory: Option<&Path>,
        sends: bool,
    ) -> Result<Self, ringway_shm::Error> {
        let entry = Entry::open(directory, WORDS_VERSION)?;
        Ok(Self { entry, fixed: fixed(options, sends, now_ns()) })
    }
}

impl Gauge for Cell {
    fn show(&self, shown: &Shown<'_>) {
        self.entry.write(1, &words(&self.fixed, shown, now_ns()));
    }
}

fn fixed(options: &Options, sends: bool, now_ns: u64) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    words[OPENED] = now_ns;
    let kind = match options.kind {
        Kind::Pair => 1,
        Kind::Mpmc => 2,
        Kind::Broadcast => 3,
    };
    let io = match options.io {
        Io::Inline => 1,
        Io::Thread => 2,
    };
    let name = options.channel.as_bytes();
    let name = &name[..name.len().min(NAME_BYTES)];
    words[TRAITS] = at(ROLES.0, if sends { 1 } else { 2 })
        | at(KINDS.0, kind)
        | at(IOS.0, io)
        | at(NAME_LEN, name.len() as u64);
    for (word, part) in words[NAME..].iter_mut().zip(name.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(bytes);
    }
    words
}

fn words(fixed: &[u64; WORDS], shown: &Shown<'_>, now_ns: u64) -> [u64; WORDS] {
    let mut words = *fixed;
    words[SHOWN] = now_ns;
    let state = match (shown.is_up, shown.stats.stalled) {
        (false, _) => 1,
        (true, false) => 2,
        (true, true) => 3,
    };
    words[TRAITS] |= at(SIDES.0, if shown.binds { 1 } else { 2 })
        | at(BACKENDS.0, if shown.backend == "uring" { 1 } else { 2 })
        | at(STATES.0, state)
        | at(HAS_SESSION, shown.session.is_some().into());
    words[LOCAL..PEER].copy_from_slice(&of_address(shown.local));
    words[PEER..SESSION].copy_from_slice(&of_address(shown.peer));
    let session = shown.session.unwrap_or_default();
    words[SESSION..PEERS].copy_from_slice(&halves(session));
    words[PEERS] = shown.peers as u64;
    words[TROUBLE] = match shown.stats.trouble {
        None => 0,
        Some(Trouble::Connect { errno, .. }) => trouble(1, errno.0),
        Some(Trouble::Broken { errno }) => trouble(2, errno.0),
        Some(Trouble::Ended) => trouble(3, 0),
        Some(_) => trouble(4, 0),
    };
    words[COUNTED..][..COUNTERS.len()].copy_from_slice(&counted(shown));
    words
}

fn counted(shown: &Shown<'_>) -> [u64; COUNTERS.len()] {
    let stats = shown.stats;
    let door = stats.door.unwrap_or_default();
    let buffers =
        stats.socket.map_or([0, 0], |facts| [facts.send_buffer as u64, facts.recv_buffer as u64]);
    [
        stats.messages,
        stats.bytes,
        stats.released,
        stats.lost,
        stats.unsent_bytes,
        shown.behind_bytes,
        stats.full_waits,
        stats.sessions,
        stats.connections,
        stats.resumes,
        stats.failed_attempts,
        stats.violations,
        stats.refusals,
        stats.resent_bytes,
        stats.control_sent,
        stats.control_received,
        stats.sends,
        stats.receives,
        stats.empty_receives,
        stats.wire_bytes_sent,
        stats.wire_bytes_received,
        stats.parks,
        door.accepted,
        door.silent,
        door.displaced,
        door.garbage,
        door.refused,
        door.starved,
        buffers[0],
        buffers[1],
    ]
}

/// Reads what [`words`] wrote, or anybody else: every value is possible.
fn read(note: &Note) -> Result<Endpoint, String> {
    let words = &note.words;
    let traits = words[TRAITS].to_le_bytes();
    let slot = note.slot;
    let torn = if note.is_torn { ", and was being written when it was read" } else { "" };
    let nonsense = |what: &str, value: u64| {
        Err(format!(
            "entry {slot} is damaged: {what} {value} is none that this program knows{torn}"
        ))
    };
    macro_rules! of {
        ($what:expr, $table:expr) => {{
            let (byte, names) = $table;
            match names.get(usize::from(traits[byte]).wrapping_sub(1)) {
                Some(name) => *name,
                None => return nonsense($what, traits[byte].into()),
            }
        }};
    }
    let len = usize::from(traits[NAME_LEN]);
    if len == 0 || len > NAME_BYTES {
        return Err(format!(
            "entry {slot} is damaged: its name has {len} bytes, and 1 to {NAME_BYTES} are possible{torn}"
        ));
    }
    let name: Vec<u8> = words[NAME..COUNTED].iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = String::from_utf8_lossy(&name[..len]).escape_debug().to_string();
    let (Ok(local), Ok(peer)) = (address(&words[LOCAL..PEER]), address(&words[PEER..SESSION]))
    else {
        return Err(format!("entry {slot} ({name}) is damaged: an address is none{torn}"));
    };
    let mut session = [0; 16];
    session[..8].copy_from_slice(&words[SESSION].to_le_bytes());
    session[8..].copy_from_slice(&words[SESSION + 1].to_le_bytes());
    let mut counters = [0; COUNTERS.len()];
    counters.copy_from_slice(&words[COUNTED..][..COUNTERS.len()]);
    Ok(Endpoint {
        name,
        sends: of!("role", ROLES) == "sender",
        binds: of!("side", SIDES) == "binds",
        kind: of!("kind", KINDS),
        io: of!("io mode", IOS),
        backend: of!("backend", BACKENDS),
        state: match of!("state", STATES) {
            "up" => State::Up,
            "stalled" => State::Stalled,
            _ => State::Down,
        },
        opened_ns: words[OPENED],
        shown_ns: words[SHOWN],
        local,
        peer,
        session: (traits[HAS_SESSION] != 0).then_some(session),
        peers: words[PEERS],
        trouble: told(words[TROUBLE], peer),
        counters,
        is_torn: note.is_torn,
    })
}

fn at(byte: usize, value: u64) -> u64 {
    value << (8 * byte)
}

fn trouble(kind: u64, errno: i32) -> u64 {
    kind << 32 | u64::from(errno.cast_unsigned())
}

fn told(word: u64, peer: Option<SocketAddr>) -> Option<String> {
    let errno = std::io::Error::from_raw_os_error((word as u32).cast_signed());
    Some(match (word >> 32, peer) {
        (0, _) => return None,
        (1, Some(peer)) => format!("connecting to {peer} failed: {errno}"),
        (1, None) => format!("connecting failed: {errno}"),
        (2, _) => format!("the connection broke: {errno}"),
        (3, _) => "the peer closed the connection in the middle of the session".to_owned(),
        (4, _) => {
            "this end hung up: after the last word of a session, or a greeting that was refused or \
             late, or a breach of the protocol"
                .to_owned()
        }
        (kind, _) => format!("a reason that this program does not know ({kind})"),
    })
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let [low, high] = [0, 8].map(|from| {
        let mut half = [0; 8];
        half.copy_from_slice(&bytes[from..from + 8]);
        u64::from_le_bytes(half)
    });
    [low, high]
}

/// 16 bytes of IPv6, an IPv4 address mapped into it, then port and family: 4, 6, or 0 for none.
fn of_address(address: Option<SocketAddr>) -> [u64; 3] {
    let Some(address) = address else { return [0; 3] };
    let (ip, family) = match address.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 4),
        IpAddr::V6(ip) => (ip, 6),
    };
    let [low, high] = halves(ip.octets());
    [low, high, u64::from(address.port()) | family << 16]
}

fn address(words: &[u64]) -> Result<Option<SocketAddr>, ()> {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&words[0].to_le_bytes());
    octets[8..].copy_from_slice(&words[1].to_le_bytes());
    let ip = Ipv6Addr::from(octets);
    let port = words[2] as u16;
    let ip = match words[2] >> 16 {
        0 => return Ok(None),
        4 => IpAddr::V4(ip.to_ipv4_mapped().ok_or(())?),
        6 => IpAddr::V6(ip),
        _ => return Err(()),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringway_net::backend::Errno;
    use ringway_net::{Io, Options, Shown, Stats, Trouble};
    use ringway_shm::ledger::{Note, WORDS};

    use super::{COUNTERS, State, fixed, read, words};

    /// The bytes of the slot in docs/LEDGER.md, without sequence and number.
    fn example() -> [u64; WORDS] {
        let page = include_str!("../../docs/LEDGER.md");
        let (_, rest) = page.split_once("```text\nslot\n").expect("an example");
        let (block, _) = rest.split_once("```").expect("its end");
        let bytes: Vec<u8> = block
            .split_whitespace()
            .map(|hex| u8::from_str_radix(hex, 16).expect("hexadecimal"))
            .collect();
        assert_eq!(bytes.len(), 512);
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes[16..].chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        }
        words
    }

    fn note(words: [u64; WORDS]) -> Note {
        Note { slot: 0, number: 1, words, is_torn: false }
    }

    fn stats() -> Stats {
        let mut stats = Stats::default();
        let counters = [
            &mut stats.messages,
            &mut stats.bytes,
            &mut stats.released,
            &mut stats.lost,
            &mut stats.unsent_bytes,
            // Where `behind_bytes` is shown, which is not one of them.
            &mut 0,
            &mut stats.full_waits,
            &mut stats.sessions,
            &mut stats.connections,
            &mut stats.resumes,
            &mut stats.failed_attempts,
            &mut stats.violations,
            &mut stats.refusals,
            &mut stats.resent_bytes,
            &mut stats.control_sent,
            &mut stats.control_received,
            &mut stats.sends,
            &mut stats.receives,
            &mut stats.empty_receives,
            &mut stats.wire_bytes_sent,
            &mut stats.wire_bytes_received,
            &mut stats.parks,
        ];
        for (index, counter) in counters.into_iter().enumerate() {
            *counter = 101 + index as u64;
        }
        stats.trouble = Some(Trouble::Broken { errno: Errno(104) });
        stats
    }

    #[test]
    fn the_words_are_those_of_the_page() {
        let format = crate::options::format();
        let mut options = Options::new("10.0.0.2", 7000, "ticks", 7, format);
        options.io = Io::Thread;
        let stats = stats();
        let mut shown = Shown::of(&stats);
        shown.binds = true;
        shown.is_up = true;
        shown.peers = 1;
        shown.peer = Some(([10, 0, 0, 3], 50000).into());
        shown.local = Some(([10, 0, 0, 2], 7000).into());
        shown.session = Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        shown.backend = "uring";
        shown.behind_bytes = 106;
        let written = words(&fixed(&options, true, 1000), &shown, 2000);
        assert_eq!(written, example());

        let end = read(&note(written)).expect("sound words");
        assert_eq!(
            (end.name.as_str(), end.sends, end.binds, end.kind),
            ("ticks", true, true, "spsc")
        );
        assert_eq!((end.io, end.backend, end.state), ("thread", "uring", State::Up));
        assert_eq!((end.opened_ns, end.shown_ns, end.peers), (1000, 2000, 1));
        assert_eq!((end.local, end.peer, end.session), (shown.local, shown.peer, shown.session));
        assert!(end.trouble.is_some_and(|told| told.contains("os error 104")));
        for (index, name) in COUNTERS.iter().enumerate().take(22) {
            assert_eq!(end.counters[index], 101 + index as u64, "{name}");
        }
        assert_eq!(end.counters[22..], [0; 8]);
    }

    #[test]
    fn words_that_make_no_sense_are_told() {
        for (byte, what) in
            [(0, "role"), (1, "side"), (2, "kind"), (3, "io"), (4, "backend"), (5, "state")]
        {
            for value in [0, 4, 255] {
                let mut words = example();
                words[2] = words[2] & !(0xff << (8 * byte)) | value << (8 * byte);
                let told = read(&note(words)).expect_err("refused");
                assert!(told.contains(what) && told.contains(&value.to_string()), "{told}");
            }
        }
        for len in [0, 129, 255] {
            let mut words = example();
            words[2] = words[2] & !(0xff << 48) | len << 48;
            assert!(read(&note(words)).expect_err("refused").contains(&format!("{len} bytes")));
        }
        for family in [1, 5, 7, u64::MAX >> 16] {
            let mut words = example();
            words[5] = family << 16;
            assert!(read(&note(words)).expect_err("refused").contains("address"));
        }
        // One that is not mapped.
        let mut words = example();
        words[3] = 1;
        assert!(read(&note(words)).is_err());
    }

    proptest! {
        #[test]
        fn any_words_are_read_or_refused(
            words in proptest::collection::vec(any::<u64>(), WORDS),
            from in 0..WORDS,
            len in 0..WORDS,
            is_torn in any::<bool>(),
        ) {
            let mut bad = example();
            let end = (from + len).min(WORDS);
            bad[from..end].copy_from_slice(&words[from..end]);
            let told = match read(&Note { slot: 62, number: 1, words: bad, is_torn }) {
                Ok(end) => format!("{} {:?}", end.name, end.trouble),
                Err(why) => why,
            };
            prop_assert!(!told.chars().any(char::is_control), "{:?}", told);
        }
    }
}
