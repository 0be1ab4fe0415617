//! docs/WIRE.md is what the code does: its examples byte for byte, its constants one by one.

use std::collections::BTreeMap;

use ringway_net::frame::{self, HEADER_LEN, Header, Kind, body_max, frame_len};
use ringway_net::session::greeting::{MAJOR, MINOR, NAME_MAX, POSITION_MAX};
use ringway_net::session::{
    self, Direction, Format, Greeting, Name, Refusal, RefuseCode, SessionId, Timing,
};

const WIRE: &str = include_str!("../../docs/WIRE.md");
const SESSION: SessionId = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const MESSAGE: &[u8] = b"ringway, over the wire";

/// The examples by their names.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let (_, section) = WIRE.split_once("## Examples").expect("there are examples");
    let (section, _) = section.split_once("## Versions").expect("and more behind them");
    let mut examples = BTreeMap::<_, Vec<u8>>::new();
    let mut name = "";
    // Every other part is inside of a fence.
    for line in section
        .split("```")
        .skip(1)
        .step_by(2)
        .flat_map(str::lines)
        .skip_while(|line| line.is_empty())
    {
        if let Some(hex) = line.strip_prefix("  ") {
            let bytes = hex.split_whitespace().map(|hex| u8::from_str_radix(hex, 16));
            let bytes: Result<Vec<u8>, _> = bytes.collect();
            examples.entry(name).or_default().extend(bytes.expect("hexadecimal bytes"));
        } else if line != "text" {
            name = line;
        }
    }
    examples
}

fn hello() -> Greeting {
    Greeting {
        direction: Direction::Receives,
        format: Format { endian: 1, pointer: 4, align: 8 },
        session: SESSION,
        epoch: 3,
        schema: 0x0123_4567_89ab_cdef,
        position: 4096,
        released: 1024,
        window: (1 << 20) - session::CONTROL_ROOM,
        body_max: 0,
        fresh: false,
        name: Name::new("ticks").unwrap(),
    }
}

fn welcome() -> Greeting {
    Greeting {
        direction: Direction::Sends,
        position: 1024,
        released: 0,
        window: 0,
        body_max: body_max(1 << 19),
        ..hello()
    }
}

#[test]
fn the_examples_are_what_is_written() {
    let mut data = Header::data(MESSAGE.len() as u32, 4096).to_bytes().to_vec();
    data.extend(MESSAGE);
    data.resize(frame_len(MESSAGE.len() as u32) as usize, 0);
    let mut again = data.clone();
    let header = Header { flags: frame::AGAIN, ..Header::data(MESSAGE.len() as u32, 4144) };
    again[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    let header = Header { flags: frame::GAP, ..Header::data(frame::GAP_BODY, 4192) };
    let mut gap = header.to_bytes().to_vec();
    gap.extend(3_u64.to_le_bytes());
    gap.resize(frame_len(frame::GAP_BODY) as usize, 0);
    let refusal = Refusal { code: RefuseCode::Epoch, mine: 7, yours: 3 };
    let control = |kind, seq| Header::control(kind, seq).to_bytes().to_vec();
    let written = BTreeMap::from([
        ("hello", hello().to_bytes(Kind::Hello).to_vec()),
        ("welcome", welcome().to_bytes(Kind::Welcome).to_vec()),
        ("refuse", refusal.to_bytes().to_vec()),
        ("data", data),
        ("again", again),
        ("gap", gap),
        ("heartbeat", control(Kind::Heartbeat, 4144)),
        ("ack", control(Kind::Ack, 4144)),
        ("fin", control(Kind::Fin, 4144)),
        ("fin-ack", control(Kind::FinAck, 4144)),
        ("bye", control(Kind::Bye, 0)),
    ]);
    let examples = examples();
    assert_eq!(examples.keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>());
    for (name, bytes) in written {
        assert_eq!(examples[name], bytes, "{name}");
    }
    // Each kind has one, under its own name.
    assert!(Kind::ALL.iter().all(|kind| examples.contains_key(kind.to_string().as_str())));
}

#[test]
fn the_examples_are_what_is_read() {
    let examples = examples();
    assert_eq!(Greeting::read(Kind::Hello, &examples["hello"]), Ok(Some(hello())));
    assert_eq!(Greeting::read(Kind::Welcome, &examples["welcome"]), Ok(Some(welcome())));
    for (name, bytes) in examples {
        let header = Header::from_bytes(*bytes.first_chunk::<HEADER_LEN>().unwrap());
        let (kind, len) = header.check(100).expect("a sound header");
        // Data has an example for each of its flags.
        let of = match (name, header.flags) {
            ("again", frame::AGAIN) | ("gap", frame::GAP) => "data",
            (name, flags) => {
                assert_eq!(flags, 0, "{name}");
                name
            }
        };
        assert_eq!((kind.to_string().as_str(), len), (of, bytes.len() as u64));
        assert_eq!(Header::to_bytes(header), bytes[..HEADER_LEN], "{name}");
    }
}

#[test]
fn the_constants_are_those_of_the_code() {
    let timing = Timing::default();
    let constants = [
        ("HEADER_LEN", HEADER_LEN as u64),
        ("ALIGN", frame::ALIGN as u64),
        ("GREETING_BODY", frame::GREETING_BODY.into()),
        ("REFUSE_BODY", frame::REFUSE_BODY.into()),
        ("CONTROL_MAX", frame::CONTROL_MAX as u64),
        ("CONTROL_ROOM", session::CONTROL_ROOM),
        ("NAME_MAX", NAME_MAX as u64),
        ("POSITION_MAX", POSITION_MAX),
        ("MIN_CAPACITY", session::MIN_CAPACITY),
        ("MAX_CAPACITY", session::MAX_CAPACITY),
        ("AGAIN", frame::AGAIN.into()),
        ("GAP", frame::GAP.into()),
        ("GAP_BODY", frame::GAP_BODY.into()),
        ("handshake_ns", timing.handshake_ns),
        ("resume_ns", timing.resume_ns),
        ("takeover_ns", timing.takeover_ns),
        ("retry_min_ns", timing.retry_min_ns),
        ("retry_max_ns", timing.retry_max_ns),
        ("heartbeat_ns", timing.heartbeat_ns),
        ("stalled_ns", timing.stalled_ns),
        ("ack_delay_ns", timing.ack_delay_ns),
    ];
    let (_, section) = WIRE.split_once("## Constants").expect("there are constants");
    let rows = section.lines().take_while(|line| !line.starts_with("## "));
    let rows: Vec<_> = rows.filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), constants.len());
    for (row, (name, value)) in rows.iter().zip(constants) {
        assert!(row.starts_with(&format!("| `{name}` | {value} |")), "{row}");
    }
    assert!(WIRE.contains(&format!("Version **{MAJOR}.{MINOR}**")));
}

#[test]
fn the_kinds_and_refusals_have_their_numbers() {
    for kind in Kind::ALL {
        let row = format!("\n| {} | {kind} |", kind as u8);
        assert!(WIRE.contains(&row), "{row}");
        assert_eq!(Kind::from_byte(kind as u8), Some(kind));
    }
    assert_eq!((Kind::from_byte(0), Kind::from_byte(10)), (None, None));
    let codes = [
        (RefuseCode::Version, "another version"),
        (RefuseCode::Format, "another format"),
        (RefuseCode::Schema, "another type of message"),
        (RefuseCode::Direction, "both send or both receive"),
        (RefuseCode::Name, "no such channel"),
        (RefuseCode::UnknownSession, "unknown session"),
        (RefuseCode::Epoch, "old epoch"),
        (RefuseCode::Busy, "busy"),
        (RefuseCode::Window, "the sender's longest frame is larger than the window"),
        (RefuseCode::Position, "positions contradict each other"),
    ];
    for (code, words) in codes {
        assert!(WIRE.contains(&format!("\n| {} | {words} |", code as u16)), "{words}");
    }
}

#[test]
fn lengths_of_frames() {
    for (len, frame) in [(0, 16), (1, 32), (16, 32), (17, 48), (u32::MAX, (1 << 32) + 16)] {
        assert_eq!(frame_len(len), frame, "{len}");
    }
    for bytes in (16..5000).chain([1 << 31, 1 << 32, 1 << 33, u64::MAX]) {
        let most = body_max(bytes);
        assert!(frame_len(most) <= bytes, "{bytes}");
        let longer = most.checked_add(1).map(frame_len);
        assert!(longer.is_none_or(|longer| longer > bytes || most == u32::MAX - 15), "{bytes}");
    }
}
