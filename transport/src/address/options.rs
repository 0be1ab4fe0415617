//! The options of an address: the one table of those that exist, and the reading of their values.
//!
//! The table is where errors get their lists from, so nothing else may name an option. Whether a
//! value makes sense (is that capacity a power of two?) is the business of the crate that uses it.

use ringway_net::{Backend, Congestion, Io, Side};
use ringway_shm::{Kind, Overflow, Read, Redeliver, Until, Wait};

use super::Scheme;
use super::error::AddressProblem;
use super::nearest::nearest;
use super::size::parse_size;

/// The values of an address's options; `None` where the address doesn't say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// Bytes of the ring; any number that was written, sensible or not.
    pub capacity: Option<u64>,
    /// How a call that finds nothing to do waits.
    pub wait: Option<Wait>,
    /// Bytes that records are aligned to: 16 or 64.
    pub align: Option<u32>,
    /// Of `tcp://`: which end binds.
    pub side: Option<Side>,
    /// Of `tcp://`: what moves the bytes.
    pub backend: Option<Backend>,
    /// Of `tcp://`: the sockets' congestion control; any name, whether the system has it or not.
    pub congestion: Option<Congestion>,
    /// Of `tcp://`: bytes of the kernel's send buffer; any number that was written, sensible or not.
    pub send_buffer: Option<u64>,
    /// Of `tcp://`: bytes of the kernel's receive buffer, likewise.
    pub recv_buffer: Option<u64>,
    /// Who gets the messages.
    pub kind: Option<Kind>,
    /// What becomes of a broadcast's receiver that is behind by a whole ring.
    pub overflow: Option<Overflow>,
    /// How many of a broadcast's latest messages are for receivers that come late.
    pub history: Option<u64>,
    /// What a broadcast's receiver wants.
    pub read: Option<Read>,
    /// Messages that an MPMC channel holds; any number that was written, sensible or not.
    pub slots: Option<u64>,
    /// Bytes of an MPMC channel's slot; any number that was written, sensible or not.
    pub slot: Option<u64>,
    /// What becomes of a message whose receiver dies with it.
    pub redeliver: Option<Redeliver>,
    /// When an MPMC channel's receivers are told that it has ended.
    pub until: Option<Until>,
    /// Of `tcp://`: who moves the bytes.
    pub io: Option<Io>,
    /// Of `io=thread`: the core that the thread stays on.
    pub io_core: Option<u64>,
    /// Whether the cores are kept from sleeping deeply while a handle is open.
    pub hold_cpu_latency: Option<bool>,
}

/// What an option takes, and where it goes.
enum Form {
    /// An example, and where it goes.
    Size(&'static str, fn(&mut AddressOptions, u64)),
    /// What it is, an example, and where it goes.
    Count(&'static str, &'static str, fn(&mut AddressOptions, u64)),
    Word(&'static [Word]),
    Congestion(fn(&mut AddressOptions, Congestion)),
}

type Word = (&'static str, fn(&mut AddressOptions));

/// All options of `shm://`.
const SHM: &[(&str, Form)] = &[
    CAPACITY,
    WAIT,
    (
        "align",
        Form::Word(&[
            ("16", |options| options.align = Some(16)),
            ("64", |options| options.align = Some(64)),
        ]),
    ),
    HOLD_CPU_LATENCY,
    KIND,
    OVERFLOW,
    (
        "history",
        Form::Count("a number of messages", "100", |options, messages| {
            options.history = Some(messages)
        }),
    ),
    (
        "read",
        Form::Word(&[
            ("every", |options| options.read = Some(Read::Every)),
            ("newest", |options| options.read = Some(Read::Newest)),
        ]),
    ),
    (
        "slots",
        Form::Count("a number of messages", "4096", |options, slots| options.slots = Some(slots)),
    ),
    ("slot", Form::Size("256", |options, bytes| options.slot = Some(bytes))),
    (
        "redeliver",
        Form::Word(&[
            (Redeliver::Again.name(), |options| options.redeliver = Some(Redeliver::Again)),
            (Redeliver::Drop.name(), |options| options.redeliver = Some(Redeliver::Drop)),
        ]),
    ),
    UNTIL,
];

/// All options of `tcp://`.
const TCP: &[(&str, Form)] = &[
    CAPACITY,
    WAIT,
    (
        "side",
        Form::Word(&[
            ("bind", |options| options.side = Some(Side::Bind)),
            ("connect", |options| options.side = Some(Side::Connect)),
        ]),
    ),
    (
        "backend",
        Form::Word(&[
            (Backend::Auto.name(), |options| options.backend = Some(Backend::Auto)),
            (Backend::Uring.name(), |options| options.backend = Some(Backend::Uring)),
            (Backend::Epoll.name(), |options| options.backend = Some(Backend::Epoll)),
        ]),
    ),
    (
        "io",
        Form::Word(&[
            (Io::Inline.name(), |options| options.io = Some(Io::Inline)),
            (Io::Thread.name(), |options| options.io = Some(Io::Thread)),
        ]),
    ),
    (
        "io_core",
        Form::Count("the number of a core", "0", |options, core| options.io_core = Some(core)),
    ),
    ("congestion", Form::Congestion(|options, name| options.congestion = Some(name))),
    ("send_buffer", Form::Size("64KiB", |options, bytes| options.send_buffer = Some(bytes))),
    ("recv_buffer", Form::Size("64KiB", |options, bytes| options.recv_buffer = Some(bytes))),
    HOLD_CPU_LATENCY,
    KIND,
    OVERFLOW,
    UNTIL,
];

const CAPACITY: (&str, Form) =
    ("capacity", Form::Size("64KiB", |options, bytes| options.capacity = Some(bytes)));

const WAIT: (&str, Form) = (
    "wait",
    Form::Word(&[
        (Wait::Spin.name(), |options| options.wait = Some(Wait::Spin)),
        (Wait::Adaptive.name(), |options| options.wait = Some(Wait::Adaptive)),
        (Wait::Park.name(), |options| options.wait = Some(Wait::Park)),
    ]),
);

const HOLD_CPU_LATENCY: (&str, Form) = (
    "hold_cpu_latency",
    Form::Word(&[
        ("on", |options| options.hold_cpu_latency = Some(true)),
        ("off", |options| options.hold_cpu_latency = Some(false)),
    ]),
);

const KIND: (&str, Form) = (
    "kind",
    Form::Word(&[
        (Kind::Spsc.name(), |options| options.kind = Some(Kind::Spsc)),
        (Kind::Broadcast.name(), |options| options.kind = Some(Kind::Broadcast)),
        (Kind::Mpmc.name(), |options| options.kind = Some(Kind::Mpmc)),
    ]),
);

const OVERFLOW: (&str, Form) = (
    "overflow",
    Form::Word(&[
        (Overflow::Block.name(), |options| options.overflow = Some(Overflow::Block)),
        (Overflow::Overwrite.name(), |options| options.overflow = Some(Overflow::Overwrite)),
    ]),
);

const UNTIL: (&str, Form) = (
    "until",
    Form::Word(&[
        (Until::Never.name(), |options| options.until = Some(Until::Never)),
        (Until::Last.name(), |options| options.until = Some(Until::Last)),
    ]),
);

/// All options of a scheme.
fn table(scheme: Scheme) -> &'static [(&'static str, Form)] {
    match scheme {
        Scheme::Shm => SHM,
        Scheme::Tcp => TCP,
    }
}

/// Reads all that stands after the `?` of an address, as values and as text.
pub(super) fn parse_options(
    scheme: Scheme,
    query: &str,
) -> Result<(AddressOptions, Vec<(String, String)>), AddressProblem> {
    let mut written: Vec<(String, String)> = Vec::new();
    let mut options = AddressOptions::default();
    for option in query.split('&') {
        if option.is_empty() {
            return Err(AddressProblem::EmptyOption);
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        let Some((known, form)) = table(scheme).iter().find(|(known, _)| *known == key) else {
            return Err(unknown_option(scheme, key));
        };
        let Some(value) = value else {
            return Err(AddressProblem::NoValue { option: known, example: form.example() });
        };
        if let Some((_, first)) = written.iter().find(|(earlier, _)| earlier == key) {
            let (first, second) = (first.clone(), value.to_owned());
            return Err(AddressProblem::OptionTwice { option: known, first, second });
        }
        form.read(known, value, &mut options)?;
        written.push((key.to_owned(), value.to_owned()));
    }
    Ok((options, written))
}

impl Form {
    fn read(
        &self,
        option: &'static str,
        value: &str,
        options: &mut AddressOptions,
    ) -> Result<(), AddressProblem> {
        match self {
            Self::Size(_, set) => match parse_size(value) {
                Ok(bytes) => set(options, bytes),
                Err(error) => return Err(AddressProblem::BadSize { option, error }),
            },
            Self::Count(what, example, set) => match value.parse() {
                // A sign would be read, too.
                Ok(count) if !value.starts_with('+') => set(options, count),
                _ => {
                    let found = value.to_owned();
                    return Err(AddressProblem::BadCount { option, what, example, found });
                }
            },
            Self::Congestion(set) => match value.parse() {
                Ok(name) => set(options, name),
                Err(_) => {
                    let found = value.to_owned();
                    return Err(AddressProblem::BadCongestion { option, found });
                }
            },
            Self::Word(words) => match words.iter().find(|(word, _)| *word == value) {
                Some((_, set)) => set(options),
                None => {
                    let valid: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                    return Err(bad_value(option, value, &valid));
                }
            },
        }
        Ok(())
    }

    fn example(&self) -> &'static str {
        match self {
            Self::Size(example, _) | Self::Count(_, example, _) => example,
            Self::Congestion(_) => "cubic",
            Self::Word(words) => words.first().map_or("", |(word, _)| word),
        }
    }
}

fn unknown_option(scheme: Scheme, found: &str) -> AddressProblem {
    let valid: Vec<_> = table(scheme).iter().map(|(known, _)| *known).collect();
    AddressProblem::UnknownOption {
        found: found.to_owned(),
        scheme,
        nearest: nearest(found, &valid),
        valid,
    }
}

fn bad_value(option: &'static str, found: &str, valid: &[&'static str]) -> AddressProblem {
    AddressProblem::BadValue {
        option,
        found: found.to_owned(),
        nearest: nearest(found, valid),
        valid: valid.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(query: &str) -> String {
        parse_options(Scheme::Shm, query).expect_err("refused").to_string()
    }

    #[test]
    fn options_of_tcp() {
        let read = |query: &str| parse_options(Scheme::Tcp, query).expect("legal").0;
        let none = AddressOptions::default();
        assert_eq!(read("side=bind"), AddressOptions { side: Some(Side::Bind), ..none });
        assert_eq!(read("side=connect"), AddressOptions { side: Some(Side::Connect), ..none });
        for backend in Backend::ALL {
            let query = format!("backend={backend}");
            assert_eq!(read(&query), AddressOptions { backend: Some(backend), ..none });
        }
        let sockets = AddressOptions {
            congestion: Some("bbr".parse().expect("a name")),
            send_buffer: Some(4 << 20),
            recv_buffer: Some(65536),
            ..none
        };
        assert_eq!(read("congestion=bbr&send_buffer=4MiB&recv_buffer=65536"), sockets);
        for name in ["", "Reno", "a b", "sixteen-letters-", "r\u{f6}no"] {
            let query = format!("congestion={name}");
            let refused = parse_options(Scheme::Tcp, &query).expect_err("refused").to_string();
            let expected = format!(
                "congestion is the name of a congestion control (1 to 15 of a-z 0-9 _ -), and {name:?} \
                 is none: type congestion=cubic, say"
            );
            assert_eq!(refused, expected);
        }
        let refused = parse_options(Scheme::Tcp, "backend=urnig").expect_err("refused");
        assert_eq!(
            refused.to_string(),
            "backend can't be \"urnig\" (did you mean uring?): type one of backend=auto, \
             backend=uring, backend=epoll"
        );
        assert!(text_of("backend=uring").starts_with("\"backend\" is no option of shm"));
        let both = AddressOptions {
            capacity: Some(65536),
            wait: Some(Wait::Spin),
            kind: Some(Kind::Spsc),
            io: Some(Io::Inline),
            ..none
        };
        assert_eq!(read("capacity=64KiB&wait=spin&io=inline&kind=spsc"), both);
        let thread = AddressOptions { io: Some(Io::Thread), io_core: Some(1), ..none };
        assert_eq!(read("io=thread&io_core=1"), thread);
        let text = parse_options(Scheme::Tcp, "io_core=one").expect_err("refused").to_string();
        assert_eq!(
            text,
            "io_core is the number of a core, and \"one\" is none: type io_core=0, say"
        );
        let text = parse_options(Scheme::Tcp, "align=16").expect_err("refused").to_string();
        assert_eq!(
            text,
            "\"align\" is no option of tcp: type one of capacity, wait, side, backend, io, io_core, \
             congestion, send_buffer, recv_buffer, hold_cpu_latency, kind, overflow, until"
        );
    }

    #[test]
    fn every_option_sets_its_value() {
        let read = |query: &str| parse_options(Scheme::Shm, query).expect("legal").0;
        let none = AddressOptions::default();
        assert_eq!(read("capacity=64KiB"), AddressOptions { capacity: Some(65536), ..none });
        for wait in Wait::ALL {
            assert_eq!(read(&format!("wait={wait}")), AddressOptions { wait: Some(wait), ..none });
        }
        assert_eq!(read("align=16"), AddressOptions { align: Some(16), ..none });
        assert_eq!(read("align=64"), AddressOptions { align: Some(64), ..none });
        assert_eq!(read("kind=mpmc"), AddressOptions { kind: Some(Kind::Mpmc), ..none });
        assert_eq!(read("slots=64"), AddressOptions { slots: Some(64), ..none });
        assert_eq!(read("slot=1KiB"), AddressOptions { slot: Some(1024), ..none });
        for redeliver in Redeliver::ALL {
            let query = format!("redeliver={redeliver}");
            assert_eq!(read(&query), AddressOptions { redeliver: Some(redeliver), ..none });
        }
        for until in Until::ALL {
            assert_eq!(
                read(&format!("until={until}")),
                AddressOptions { until: Some(until), ..none }
            );
        }
        let hold = |on| AddressOptions { hold_cpu_latency: Some(on), ..none };
        assert_eq!(read("hold_cpu_latency=on"), hold(true));
        assert_eq!(read("hold_cpu_latency=off"), hold(false));
        assert_eq!(read("kind=spsc"), AddressOptions { kind: Some(Kind::Spsc), ..none });
        let broadcast = AddressOptions {
            kind: Some(Kind::Broadcast),
            overflow: Some(Overflow::Overwrite),
            history: Some(100),
            read: Some(Read::Newest),
            ..none
        };
        assert_eq!(read("kind=broadcast&overflow=overwrite&history=100&read=newest"), broadcast);
    }

    #[test]
    fn unknown_option() {
        assert_eq!(
            text_of("algin=64"),
            "\"algin\" is no option of shm (did you mean align?): type one of capacity, wait, \
             align, hold_cpu_latency, kind, overflow, history, read, slots, slot, redeliver, until"
        );
        assert!(text_of("depth=4").starts_with("\"depth\" is no option of shm: type one of"));
        assert!(text_of("=4").starts_with("\"\" is no option of shm: type one of"));
        // Known or not comes before the value's absence.
        assert!(text_of("Wait").contains("did you mean wait?"));
    }

    #[test]
    fn missing_value() {
        assert_eq!(text_of("capacity"), "the option capacity has no value: type capacity=64KiB");
        assert_eq!(text_of("wait"), "the option wait has no value: type wait=spin");
        // Accepted where a channel is opened, too: a power of two.
        assert_eq!(text_of("slots"), "the option slots has no value: type slots=4096");
    }

    #[test]
    fn option_twice() {
        assert_eq!(
            text_of("wait=spin&align=64&wait=park"),
            "the option wait is given twice, as \"spin\" and as \"park\": keep one"
        );
    }

    #[test]
    fn empty_option() {
        for query in ["", "&", "wait=spin&", "&wait=spin", "wait=spin&&align=16"] {
            assert_eq!(
                text_of(query),
                "an option is missing after '?' or '&': type key=value there, or remove the sign"
            );
        }
    }

    #[test]
    fn bad_word() {
        assert_eq!(
            text_of("wait=spni"),
            "wait can't be \"spni\" (did you mean spin?): type one of wait=spin, wait=adaptive, \
             wait=park"
        );
        assert_eq!(text_of("align=32"), "align can't be \"32\": type one of align=16, align=64");
        assert_eq!(
            text_of("kind="),
            "kind can't be \"\": type one of kind=spsc, kind=broadcast, kind=mpmc"
        );
        assert!(text_of("wait=a=b").starts_with("wait can't be \"a=b\": "));
        assert!(text_of("wait=\n").starts_with("wait can't be \"\\n\": "));
    }

    #[test]
    fn bad_count() {
        for value in ["", "many", "-1", "+5", "1.5", "99999999999999999999"] {
            let expected = format!(
                "history is a number of messages, and {value:?} is none: type history=100, say"
            );
            assert_eq!(text_of(&format!("history={value}")), expected);
        }
    }

    #[test]
    fn bad_size() {
        assert_eq!(
            text_of("capacity=4MB"),
            "capacity is a size, and the unit \"MB\" is not KiB, MiB, GiB or TiB (powers of 1024): \
             type 4MiB"
        );
        assert!(text_of("capacity=big").contains("\"big\" is no size"));
    }
}
