//! Addresses, `shm://NAME?key=value&...` and `tcp://HOST:PORT/NAME?...`: their parts, the rules of names, and how they print.
//!
//! Which options exist is the affair of `options`, the wording of refusals that of `error`. Nothing
//! here touches a file or a segment: an address is text until somebody opens it.

mod error;
mod nearest;
mod options;
mod shown;
mod size;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

pub use error::{AddressError, AddressProblem};
pub use options::AddressOptions;
pub use size::SizeError;

use nearest::nearest;
use options::parse_options;

/// The longest name of a channel, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The longest name of a host, in bytes: that of DNS.
const HOST_BYTES_MAX: usize = 253;

/// Where a channel is, and what was asked of it: `shm://NAME?key=value&...` on one host,
/// `tcp://HOST:PORT/NAME?key=value&...` between two.
///
/// A name is 1 to 128 of `A-Z a-z 0-9 . _ -` and doesn't start with a dot. There is no
/// percent-encoding, because nothing that is allowed would need it. Options may come in any order,
/// each once; upper and lower case are told apart everywhere:
///
/// | option | value | meaning |
/// |---|---|---|
/// | `capacity` | a size: `65536`, `64KiB`, `4MiB` | bytes of the ring |
/// | `wait` | `spin`, `adaptive`, `park` | how a call that finds nothing waits |
/// | `align` | `16`, `64` | shm: bytes that records are aligned to |
/// | `side` | `bind`, `connect` | tcp: what this end does, if the address shall not decide |
/// | `backend` | `auto`, `uring`, `epoll` | tcp: what moves the bytes; `auto` is io_uring where it is to be had |
/// | `io` | `inline`, `thread` | tcp: the caller's own calls move the bytes, or a thread does |
/// | `io_core` | a number | tcp, `io=thread`: the core that the thread stays on |
/// | `congestion` | a name: `cubic`, `bbr` | tcp: the sockets' congestion control |
/// | `send_buffer`, `recv_buffer` | sizes | tcp: bytes of the kernel's buffers, which it then leaves as they are |
/// | `hold_cpu_latency` | `on`, `off` | keep the cores awake while the channel is open |
/// | `kind` | `spsc`, `broadcast`, `mpmc` | who gets a message: the one receiver, every one, or any one |
/// | `overflow` | `block`, `overwrite` | broadcast: wait for who is a whole ring behind, or overwrite |
/// | `history` | a number | broadcast: so many of the latest messages are for who comes late |
/// | `read` | `every`, `newest` | broadcast, receivers: every message, or the newest only |
/// | `slots` | a number | mpmc: how many messages it holds |
/// | `slot` | a size | mpmc: bytes of a slot, which a message takes |
/// | `redeliver` | `again`, `drop` | mpmc: a message whose receiver dies goes to another, or is dropped |
/// | `until` | `never`, `last` | mpmc, receivers: whether it ends when the last sender has left |
///
/// A host is a name of `A-Z a-z 0-9 . _ -`, or an address in digits; one of IPv6 stands in brackets, with its
/// scope if it has one: `tcp://[fe80::1%eth0]:7000/ticks`.
///
/// Both ends of a `tcp://` channel use one address. The end on whose host it is binds, the other one
/// connects; if both are on that host, the first to come binds. `0.0.0.0`, `[::]` and port 0 always
/// bind. `side` is for hosts that do not know their own address (behind NAT, in some containers).
///
/// A size is a whole number of bytes, or one followed by `KiB`, `MiB`, `GiB` or `TiB`. The decimal
/// units and short forms are refused: a ring's capacity is a power of two, where `4MB` is never
/// what was meant, and `4M` means something else to every tool.
///
/// ```
/// use ringway::{Address, Wait};
///
/// let address: Address = "shm://ticks?capacity=4MiB&wait=spin".parse()?;
/// assert_eq!(address.name(), "ticks");
/// assert_eq!(address.options().capacity, Some(4 << 20));
/// assert_eq!(address.options().wait, Some(Wait::Spin));
/// assert_eq!(address.options().align, None);
/// assert_eq!(address.to_string(), "shm://ticks?capacity=4MiB&wait=spin");
/// # Ok::<(), ringway::AddressError>(())
/// ```
///
/// Every refusal says what was found and what to type:
///
/// ```
/// # use ringway::Address;
/// let error = "shm://ticks?capcity=4MiB".parse::<Address>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "address \"shm://ticks?capcity=4MiB\": \"capcity\" is no option of shm (did you mean \
///      capacity?): type one of capacity, wait, align, hold_cpu_latency, kind, \
///      overflow, history, read, slots, slot, redeliver, until"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    scheme: Scheme,
    host: Option<Host>,
    name: String,
    options: AddressOptions,
    /// The options as they were written, so that an address prints as it was typed.
    written: Vec<(String, String)>,
}

impl Address {
    /// What kind of channel it is.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Of `tcp://`: the host and port.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The channel's name; keeps to the rules above, so it is safe as the name of a file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values of the options; `None` for each that the address leaves out.
    pub fn options(&self) -> AddressOptions {
        self.options
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).map_err(|problem| AddressError::new(text, problem))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        f.write_str(&self.name)?;
        let mut separator = '?';
        for (key, value) in &self.written {
            write!(f, "{separator}{key}={value}")?;
            separator = '&';
        }
        Ok(())
    }
}

/// A host and a port, as an address names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name, or an address in digits; that of IPv6 in brackets, with its scope if it has one.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The part of an address before `://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// Shared memory on this host.
    Shm,
    /// Between hosts.
    Tcp,
}

impl Scheme {
    const ALL: [Self; 2] = [Self::Shm, Self::Tcp];

    const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn parse(text: &str) -> Result<Address, AddressProblem> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(without_scheme(text));
    };
    let scheme = parse_scheme(scheme)?;
    let (host, rest) = match scheme {
        Scheme::Shm => (None, rest),
        Scheme::Tcp => {
            let (host, rest) = parse_host(scheme, rest)?;
            (Some(host), rest)
        }
    };
    // All before the name, to begin a remedy with.
    let (start, _) = text.split_at(text.len() - rest.len());
    if let Some(at) = rest.find('%') {
        return Err(AddressProblem::Percent { at: start.len() + at });
    }
    let (name, query) = match rest.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (rest, None),
    };
    check_name(start, name)?;
    let read = |query| parse_options(scheme, query);
    let (options, written) = query.map_or_else(|| Ok(Default::default()), read)?;
    Ok(Address { scheme, host, name: name.to_owned(), options, written })
}

/// Reads `HOST:PORT/`. What follows it is given back.
fn parse_host(scheme: Scheme, rest: &str) -> Result<(Host, &str), AddressProblem> {
    let no_host = || AddressProblem::NoHost { scheme };
    let (before_options, _) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, _) = before_options.split_once('/').ok_or_else(no_host)?;
    // A colon within brackets is none before a port.
    let (host, port) =
        place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).ok_or_else(no_host)?;
    if host.is_empty() {
        return Err(no_host());
    }
    if !is_host(host) {
        return Err(AddressProblem::BadHost { found: host.to_owned(), scheme });
    }
    // A sign would be read, too.
    match port.parse::<u16>() {
        // Without a sign or zeros in front: an address prints as it was typed.
        Ok(number) if number.to_string() == port => {
            Ok((Host { host: host.to_owned(), port: number }, &rest[place.len() + 1..]))
        }
        _ => Err(AddressProblem::BadPort { found: port.to_owned() }),
    }
}

/// Whether it may be one, as far as text shows: a name or an IPv4 address, or in brackets one of IPv6.
/// Nothing that is not to be printed as it is gets through.
fn is_host(host: &str) -> bool {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(in_names);
    let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) else {
        return is_name(host) && host.len() <= HOST_BYTES_MAX;
    };
    match inside.split_once('%') {
        // Of no host but a neighbour, behind the interface of that name or number.
        Some((address, scope)) => {
            address.parse::<Ipv6Addr>().is_ok() && is_name(scope) && scope.len() <= HOST_BYTES_MAX
        }
        None => inside.parse::<Ipv6Addr>().is_ok(),
    }
}

fn parse_scheme(found: &str) -> Result<Scheme, AddressProblem> {
    let known = Scheme::ALL.into_iter().find(|scheme| scheme.name() == found);
    known.ok_or_else(|| {
        let valid = Scheme::ALL.map(Scheme::name);
        AddressProblem::UnknownScheme {
            found: found.to_owned(),
            nearest: nearest(found, &valid),
            valid: valid.to_vec(),
        }
    })
}

/// `start` is what the address has before the name.
fn check_name(start: &str, name: &str) -> Result<(), AddressProblem> {
    let remedy = || format!("{start}{}", legal_name(name));
    if name.is_empty() {
        return Err(AddressProblem::NoName { remedy: remedy() });
    }
    if let Some((at, found)) = name.char_indices().find(|(_, c)| !in_names(*c)) {
        return Err(AddressProblem::NameCharacter { found, at, remedy: remedy() });
    }
    if name.starts_with('.') {
        let found = name.to_owned();
        return Err(AddressProblem::NameDot { found, remedy: remedy() });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(AddressProblem::NameTooLong { bytes: name.len() });
    }
    Ok(())
}

fn in_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// What `shm:ticks`, `/ticks`, `ticks?wait=spin` or `10.0.0.2:7000/ticks` was likely meant to be. Who names
/// a host is never told to open a channel on this one: that would succeed, and wait for ever.
fn without_scheme(text: &str) -> AddressProblem {
    let (place, _) = text.split_once('?').unwrap_or((text, ""));
    if let Some(name) = place.strip_prefix("shm:") {
        return AddressProblem::NoScheme { remedy: format!("shm://{}", legal_name(name)) };
    }
    let remote = ["tcp:", "tcp/"].iter().find_map(|start| place.strip_prefix(start));
    let at_host = remote.unwrap_or(place).trim_start_matches('/');
    let (host, name) = at_host.split_once('/').unwrap_or((at_host, ""));
    let remedy = format!("tcp://{host}/{}", legal_name(name));
    if remedy.parse::<Address>().is_ok() {
        return AddressProblem::NoScheme { remedy };
    }
    if remote.is_some() || host.contains(':') || host.parse::<IpAddr>().is_ok() {
        return AddressProblem::NoHost { scheme: Scheme::Tcp };
    }
    AddressProblem::NoScheme { remedy: format!("shm://{}", legal_name(place)) }
}

/// The nearest legal name to what was typed, for the last words of an error.
fn legal_name(found: &str) -> String {
    let legal: String = found
        .chars()
        .map(|c| if in_names(c) { c } else { '-' })
        .skip_while(|c| matches!(c, '.' | '-'))
        .take(NAME_BYTES_MAX)
        .collect();
    let legal = legal.trim_end_matches('-');
    if legal.is_empty() { "ticks".to_owned() } else { legal.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(address: &str) -> String {
        address.parse::<Address>().expect_err("refused").to_string()
    }

    /// The error of `address`, whose own text is told first.
    fn problem_of(address: &str) -> String {
        let text = text_of(address);
        let start = format!("address {address:?}: ");
        text.strip_prefix(&start).unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    #[test]
    fn parts_of_an_address() {
        let text = "shm://md.ticks_1-x?wait=park&capacity=64KiB&hold_cpu_latency=on&kind=spsc";
        let address: Address = text.parse().expect("legal");
        assert_eq!(address.scheme(), Scheme::Shm);
        assert_eq!(address.name(), "md.ticks_1-x");
        let expected = AddressOptions {
            capacity: Some(65536),
            wait: Some(ringway_shm::Wait::Park),
            align: None,
            hold_cpu_latency: Some(true),
            kind: Some(ringway_shm::Kind::Spsc),
            ..AddressOptions::default()
        };
        assert_eq!(address.options(), expected);
        assert_eq!(address.to_string(), text);
    }

    #[test]
    fn a_name_alone_is_enough() {
        for name in ["t", "a..b", "-", "_.", &"n".repeat(NAME_BYTES_MAX)] {
            let address: Address = format!("shm://{name}").parse().expect("legal");
            assert_eq!(address.name(), name);
            assert_eq!(address.options(), AddressOptions::default());
        }
    }

    #[test]
    fn no_scheme() {
        for (address, legal) in [
            ("ticks", "ticks"),
            ("shm:ticks", "ticks"),
            ("shm:/ticks", "ticks"),
            ("/dev/shm/ticks", "dev-shm-ticks"),
            ("ticks?wait=spin", "ticks"),
            ("", "ticks"),
        ] {
            assert_eq!(problem_of(address), format!("it has no scheme: type shm://{legal}"));
        }
        for (address, remedy) in [
            ("10.0.0.2:7000/ticks", "tcp://10.0.0.2:7000/ticks"),
            ("tcp:10.0.0.2:7000/ticks?wait=spin", "tcp://10.0.0.2:7000/ticks"),
            ("tcp:/feed:7000/md/ticks", "tcp://feed:7000/md-ticks"),
            ("tcp//[fe80::1%eth0]:7000", "tcp://[fe80::1%eth0]:7000/ticks"),
            ("host:7000", "tcp://host:7000/ticks"),
            ("shm:host:7000", "shm://host-7000"),
        ] {
            assert_eq!(problem_of(address), format!("it has no scheme: type {remedy}"));
        }
        for address in [
            "tcp:ticks",
            "host:port",
            "10.0.0.2/ticks",
            "10.0.0.2:70000/ticks",
            "fd00::2:7000/ticks",
        ] {
            assert!(problem_of(address).starts_with("it names no host and port: "), "{address}");
        }
    }

    #[test]
    fn unknown_scheme() {
        assert_eq!(problem_of("http://ticks"), "\"http\" is no scheme: type one of shm, tcp");
        let guessed = " is no scheme (did you mean shm?): type one of shm, tcp";
        assert_eq!(problem_of("smh://ticks"), format!("\"smh\"{guessed}"));
        assert_eq!(problem_of("SHM://ticks"), format!("\"SHM\"{guessed}"));
        assert!(problem_of("://ticks").starts_with("\"\" is no scheme: "));
    }

    #[test]
    fn between_hosts() {
        for (text, host, port, name) in [
            ("tcp://10.0.0.2:7000/ticks", "10.0.0.2", 7000, "ticks"),
            ("tcp://[fd00::2]:0/md.ticks?wait=spin", "[fd00::2]", 0, "md.ticks"),
            ("tcp://feed.example:65535/t?side=bind", "feed.example", 65535, "t"),
            ("tcp://[fe80::1%eth0.5]:7000/t", "[fe80::1%eth0.5]", 7000, "t"),
            ("tcp://[::ffff:10.0.0.2]:7000/t", "[::ffff:10.0.0.2]", 7000, "t"),
        ] {
            let address: Address = text.parse().expect("legal");
            assert_eq!((address.scheme(), address.name()), (Scheme::Tcp, name));
            assert_eq!(address.host(), Some(&Host { host: host.to_owned(), port }));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "tcp://ticks",
            "tcp://host/ticks",
            "tcp://:7000/ticks",
            "tcp://",
            "tcp://[fd00::2]/t",
            "tcp://ticks?at=host:1/t",
        ] {
            assert!(problem_of(text).starts_with("it names no host and port: "), "{text}");
        }
        let long = "h".repeat(HOST_BYTES_MAX + 1);
        for host in [
            "a:b",
            "fd00::2",
            "[]",
            "[fd00::2",
            "[host]",
            "[a\u{1b}]",
            "[10.0.0.2]",
            "[fe80::1%]",
            "[fe80::1%a b]",
            "[%eth0]",
            "fe80::1%eth0",
            "my%2Fhost",
            "a b",
            "\u{202e}",
            &long,
        ] {
            let expected = format!(
                "{} is no host: type a name (1 to 253 of A-Z a-z 0-9 . _ -), an IPv4 address, or an IPv6 \
                 address in brackets, tcp://[fd00::2]:7000/ticks, say",
                shown::Shown(host)
            );
            let text = text_of(&format!("tcp://{host}:1/t"));
            assert!(text.ends_with(&format!(": {expected}")), "{text}");
        }
        for port in ["", "x", "65536", "-1", "+1", "00", "07000", "70 00"] {
            let expected = format!("{port:?} is no port: type a number from 0 to 65535, 7000, say");
            assert_eq!(problem_of(&format!("tcp://host:{port}/ticks")), expected);
        }
        assert_eq!(
            problem_of("tcp://host:1/"),
            "it names no channel: type tcp://host:1/ticks, say, if your channel is called ticks"
        );
        assert!(problem_of("tcp://host:1/a/b").starts_with("found '/' at byte 1 of the name"));
    }

    #[test]
    fn no_name() {
        for address in ["shm://", "shm://?wait=spin"] {
            assert_eq!(
                problem_of(address),
                "it names no channel: type shm://ticks, say, if your channel is called ticks"
            );
        }
    }

    #[test]
    fn characters_that_names_do_not_have() {
        for (name, found, at, legal) in [
            ("md/ticks", "'/'", 2, "md-ticks"),
            ("../../etc", "'/'", 2, "etc"),
            ("my ticks ", "' '", 2, "my-ticks"),
            ("tick\u{1b}s", "'\\u{1b}'", 4, "tick-s"),
            ("täglich", "'ä'", 1, "t-glich"),
            ("a\0", "'\\0'", 1, "a"),
            ("host:7000", "':'", 4, "host-7000"),
            ("ticks#1", "'#'", 5, "ticks-1"),
            ("ticks&wait=spin", "'&'", 5, "ticks-wait-spin"),
            ("/", "'/'", 0, "ticks"),
        ] {
            let expected = format!(
                "found {found} at byte {at} of the name, where only A-Z a-z 0-9 . _ - are allowed: \
                 type shm://{legal}"
            );
            assert_eq!(problem_of(&format!("shm://{name}")), expected);
            assert!(format!("shm://{legal}").parse::<Address>().is_ok());
        }
    }

    #[test]
    fn names_that_start_with_a_dot() {
        for (name, legal) in [(".", "ticks"), ("..", "ticks"), (".hidden", "hidden")] {
            let expected = format!(
                "the name {name:?} starts with a dot, which no name may: type shm://{legal}"
            );
            assert_eq!(problem_of(&format!("shm://{name}")), expected);
        }
    }

    #[test]
    fn long_names_are_refused_and_cut_in_the_error() {
        let text = text_of(&format!("shm://{}", "n".repeat(300)));
        let shown = "n".repeat(90);
        let expected = format!(
            "address \"shm://{shown}\"... (306 bytes): its name has 300 bytes, and 128 are allowed: \
             type a shorter name"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn percent_encoding() {
        for (address, at) in [("shm://my%20ticks", 8), ("shm://ticks?wait=%73pin", 17)] {
            let expected = format!(
                "found '%' at byte {at}, but percent-encoding is not supported: type the character \
                 itself (a name takes A-Z a-z 0-9 . _ - and nothing else)"
            );
            assert_eq!(problem_of(address), expected);
        }
    }

    /// Whole addresses, and options with their values.
    #[test]
    fn what_an_error_tells_to_type_is_accepted() {
        for address in [
            "",
            "/dev/shm/ticks",
            "10.0.0.2:7000/ticks",
            "tcp:10.0.0.2:7000/../etc",
            "tcp:ticks",
            "shm://",
            "shm://md/ticks",
            "shm://..",
            "tcp://",
            "tcp://a b:1/t",
            "tcp://host:1/",
            "tcp://host:1/a/b",
            "tcp://[fe80::1%eth0]:1/.a",
            "shm://q?capacity",
            "shm://q?align=32",
            "shm://q?history=all",
            "shm://q?kind=mpmc&slots",
            "shm://q?kind=mpmc&slot",
            "shm://q?slots=+64",
            "tcp://host:1/t?io_core",
            "tcp://host:1/t?wait=long",
            "tcp://host:1/t?send_buffer",
            "tcp://host:1/t?congestion=No",
        ] {
            let problem = problem_of(address);
            let (_, remedy) = problem.split_once("type ").expect("a remedy");
            let words = remedy.split([' ', ')']).map(|word| word.trim_end_matches(','));
            let mut typed = 0;
            for word in words.filter(|word| *word != "tcp://HOST:PORT/NAME") {
                let text = match word {
                    _ if word.contains("://") => word.to_owned(),
                    _ if word.contains('=') => {
                        format!("{}?{word}", address.split('?').next().expect("a name"))
                    }
                    _ => continue,
                };
                typed += 1;
                assert!(text.parse::<Address>().is_ok(), "{address:?}: {problem}");
            }
            assert!(typed > 0, "{address:?}: {problem}");
        }
    }

    #[test]
    fn option_errors_carry_the_address() {
        let error = "shm://ticks?wait=fast".parse::<Address>().expect_err("refused");
        assert_eq!(error.address(), "shm://ticks?wait=fast");
        assert!(matches!(error.problem(), AddressProblem::BadValue { option: "wait", .. }));
        assert!(problem_of("shm://ticks?").starts_with("an option is missing"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = text.parse::<Address>();
        }

        #[test]
        fn what_is_nearly_an_address_is_read_or_refused_in_few_words(
            text in "(shm|smh|)(:|://|)[ -~\u{0}-\u{ff}/.%]{0,400}(\\?|)((capacity|wait|align|)=?[a-zKMi0-9%&]{0,30}&?){0,3}",
        ) {
            match text.parse::<Address>() {
                Ok(address) => prop_assert_eq!(address.to_string(), text),
                Err(error) => {
                    let words = error.to_string();
                    prop_assert!(!words.chars().any(char::is_control), "{}", words);
                    // Each of at most 3 pieces is cut at 96 characters, all of which may be escaped.
                    prop_assert!(words.len() < 3 * 10 * 96 + 500, "{}", words);
                }
            }
        }

        #[test]
        fn what_is_printed_between_hosts_is_read_again(
            host in "([a-z][a-z0-9.-]{0,30}|10\\.0\\.0\\.[1-9]|\\[fd00::[1-9]\\]|\\[fe80::1%[a-z0-9._-]{1,15}\\])",
            port in any::<u16>(),
            name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}",
            options in Just(vec![
                vec!["capacity=65536", "capacity=64KiB", "capacity=1TiB"],
                vec!["wait=spin", "wait=adaptive", "wait=park"],
                vec!["side=bind", "side=connect"],
                vec!["backend=auto", "backend=uring", "backend=epoll"],
                vec!["io=inline", "io=thread"],
                vec!["io_core=0", "io_core=7"],
                vec!["congestion=cubic", "congestion=bbr", "congestion=dctcp"],
                vec!["send_buffer=4MiB", "send_buffer=65536"],
                vec!["recv_buffer=1", "recv_buffer=64KiB"],
                vec!["hold_cpu_latency=on", "hold_cpu_latency=off"],
                vec!["kind=spsc", "kind=mpmc", "kind=broadcast"],
            ]).prop_flat_map(|keys| {
                let each: Vec<_> = keys.into_iter().map(proptest::sample::select).collect();
                each.prop_shuffle()
            }),
            count in 0..=11usize,
        ) {
            let query = options[..count].join("&");
            let mark = if query.is_empty() { "" } else { "?" };
            let text = format!("tcp://{host}:{port}/{name}{mark}{query}");
            let address: Address = text.parse().expect("legal");
            prop_assert_eq!(&address.to_string(), &text);
            let backend = query.split('&').find_map(|option| option.strip_prefix("backend="));
            let read = address.options().backend.map(|backend| backend.to_string());
            prop_assert_eq!(read.as_deref(), backend);
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }

        #[test]
        fn what_is_printed_is_read_again(
            name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}",
            options in Just(vec![
                vec!["capacity=65536", "capacity=64KiB", "capacity=1TiB"],
                vec!["wait=spin", "wait=adaptive", "wait=park"],
                vec!["align=16", "align=64"],
                vec!["hold_cpu_latency=on", "hold_cpu_latency=off"],
                vec!["kind=spsc", "kind=broadcast"],
                vec!["overflow=block", "overflow=overwrite"],
                vec!["history=0", "history=17"],
                vec!["read=every", "read=newest"],
            ]).prop_flat_map(|keys| {
                let each: Vec<_> = keys.into_iter().map(proptest::sample::select).collect();
                each.prop_shuffle()
            }),
            count in 0..=8usize,
        ) {
            let query = options[..count].join("&");
            let mark = if query.is_empty() { "" } else { "?" };
            let text = format!("shm://{name}{mark}{query}");
            let address: Address = text.parse().expect("legal");
            prop_assert_eq!(&address.to_string(), &text);
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }
}
