//! Files that are not what their names say.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use ringway_shm::layout::{ABI_MAJOR, ABI_MINOR, FileHeader, HEADER_LEN, PAGE, Section};
use ringway_shm::{Consumer, Error, ErrorKind, Options, Producer, RecvError, Schema};

use crate::scratch::{
    CAPACITY, CONTROL_LEN, SCHEMA, SEGMENT_LEN, Scratch, assert_error, send, with_header,
};

/// A channel that a producer left with three messages in it, and its files as they were then.
struct Left {
    scratch: Scratch,
    control: Vec<u8>,
    segment: Vec<u8>,
}

/// The two files of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Which {
    Control,
    Segment,
}

const BOTH: [Which; 2] = [Which::Control, Which::Segment];

impl Left {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut producer = scratch.producer();
        for text in ["one", "two", "three"] {
            send(&mut producer, text.as_bytes());
        }
        drop(producer);
        let (control, segment) =
            (fs::read(scratch.control()).unwrap(), fs::read(scratch.segment(1)).unwrap());
        assert_eq!((control.len(), segment.len()), (CONTROL_LEN, SEGMENT_LEN));
        Self { scratch, control, segment }
    }

    fn bytes(&self, which: Which) -> &[u8] {
        match which {
            Which::Control => &self.control,
            Which::Segment => &self.segment,
        }
    }

    fn path(&self, which: Which) -> PathBuf {
        match which {
            Which::Control => self.scratch.control(),
            Which::Segment => self.scratch.segment(1),
        }
    }

    /// Everything as it was, but for one file.
    fn put(&self, which: Which, bytes: &[u8]) {
        let _ = fs::remove_dir_all(self.scratch.channel());
        fs::create_dir(self.scratch.channel()).unwrap();
        for other in BOTH {
            fs::write(self.path(other), if other == which { bytes } else { self.bytes(other) })
                .unwrap();
        }
    }

    fn open(&self) -> Result<Consumer, Error> {
        Consumer::open(&self.scratch.options())
    }

    /// As [`Self::put`], then both roles look at it. A producer reads no message, so a segment is
    /// the consumer's business alone: the producer goes on with the next.
    #[track_caller]
    fn assert_refused(&self, which: Which, bytes: &[u8], kind: ErrorKind, pieces: &[&str]) {
        self.put(which, bytes);
        let path = self.path(which).display().to_string();
        let pieces = [pieces, &[path.as_str()]].concat();
        assert_error(self.open(), kind, &pieces);
        let producer = Producer::open(&self.scratch.options());
        match which {
            Which::Control => assert_error(producer, kind, &pieces),
            Which::Segment => drop(producer.unwrap()),
        }
    }

    /// As [`Self::put`], then the consumer either gets what was sent, or an error.
    #[track_caller]
    fn assert_refused_or_equal(&self, which: Which, bytes: &[u8], what: &str) -> bool {
        self.put(which, bytes);
        let opened = self.open();
        let producer = Producer::open(&self.scratch.options()).map(drop);
        match opened {
            Ok(mut consumer) => {
                for text in ["one", "two"] {
                    let message = consumer.try_recv().unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(*message, *text.as_bytes(), "{what}");
                }
                assert!(producer.is_ok(), "{what}: {producer:?}");
                true
            }
            Err(error) => {
                assert!(
                    !matches!(error.kind(), ErrorKind::Io | ErrorKind::Busy),
                    "{what}: {error}"
                );
                false
            }
        }
    }
}

#[test]
fn a_channel_left_behind_is_sound() {
    let left = Left::new();
    left.put(Which::Control, &left.control);
    let mut consumer = left.open().unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(*consumer.try_recv().unwrap(), *text.as_bytes());
    }
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Disconnected);
    drop(consumer);
    assert!(left.scratch.is_empty());
}

#[test]
fn truncated() {
    let left = Left::new();
    // A control file goes with its whole channel.
    let rm = |which| {
        let path = left.path(which);
        let gone = if which == Which::Control { path.parent().unwrap() } else { &path };
        format!("rm -r {}", gone.display())
    };
    for which in BOTH {
        let whole = left.bytes(which).len();
        let pages = (0..whole).step_by(PAGE as usize);
        let odd = [1, 7, 8, 255, 256, 257, 4095, 4097, 6000, 8191, 8193, whole - 1];
        for len in pages.chain(odd) {
            left.assert_refused(
                which,
                &left.bytes(which)[..len],
                ErrorKind::Damaged,
                &["it is truncated", &format!("{len} bytes"), &rm(which)],
            );
        }
    }
}

#[test]
fn half_written() {
    let left = Left::new();
    for which in BOTH {
        for cut in 0..HEADER_LEN {
            let mut bytes = left.bytes(which).to_vec();
            bytes[cut..].fill(0);
            if bytes[..HEADER_LEN] != left.bytes(which)[..HEADER_LEN] {
                left.assert_refused(which, &bytes, ErrorKind::Damaged, &["rm "]);
            }
        }
    }
}

#[test]
fn foreign() {
    let left = Left::new();
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let other = |which| left.bytes(if which == Which::Control { BOTH[1] } else { BOTH[0] });
    for which in BOTH {
        for bytes in [&b"some text\n".repeat(5000), &program[..64 << 10], other(which)] {
            left.assert_refused(
                which,
                bytes,
                ErrorKind::Damaged,
                &["it is no file of Ringway's: it begins with", "rm -r "],
            );
        }
    }
}

#[test]
fn older_and_newer_layouts() {
    let left = Left::new();
    for which in BOTH {
        for major in [0, ABI_MAJOR + 1, u16::MAX] {
            let bytes = with_header(left.bytes(which), |header| header.abi_major = major);
            left.assert_refused(
                which,
                &bytes,
                ErrorKind::AbiMismatch,
                &[
                    &format!("memory layout {major}.{ABI_MINOR}"),
                    &format!("this program knows {ABI_MAJOR}.{ABI_MINOR}"),
                    "Build both sides with the same major version",
                ],
            );
        }
        let longer = with_header(left.bytes(which), |header| header.header_len = 512);
        left.assert_refused(which, &longer, ErrorKind::AbiMismatch, &["Build both sides"]);
        // What a newer minor version adds may be ignored.
        let minor = with_header(left.bytes(which), |header| header.abi_minor = ABI_MINOR + 1);
        assert!(left.assert_refused_or_equal(which, &minor, "newer minor version"));
    }
}

#[test]
fn from_another_machine_or_another_boot() {
    let left = Left::new();
    for which in BOTH {
        let swapped = with_header(left.bytes(which), |header| {
            header.endian = header.endian.swap_bytes();
        });
        left.assert_refused(which, &swapped, ErrorKind::Damaged, &["other byte order", "rm "]);
        let stale = with_header(left.bytes(which), |header| header.boot_id[15] ^= 1);
        left.assert_refused(which, &stale, ErrorKind::Stale, &["before the last reboot", "rm "]);
    }
}

/// The crc covers all of the header.
#[test]
fn every_bit_of_a_header_flipped() {
    let left = Left::new();
    for which in BOTH {
        for bit in 0..8 * HEADER_LEN {
            let mut bytes = left.bytes(which).to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let kind = match bit / 8 {
                8..10 | 12..16 => ErrorKind::AbiMismatch,
                _ => ErrorKind::Damaged,
            };
            left.put(which, &bytes);
            let remedy = if kind == ErrorKind::AbiMismatch { "Build both sides" } else { "rm " };
            assert_error(left.open(), kind, &[remedy]);
        }
    }
}

/// With the crc made right, the checks behind it have to do the work.
#[test]
fn every_bit_of_a_header_flipped_on_purpose() {
    let left = Left::new();
    for which in BOTH {
        let mut equal = 0;
        for bit in 0..8 * (HEADER_LEN - 4) {
            let mut flipped = left.bytes(which).to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let bytes = with_header(&flipped, |_| ());
            let is_equal =
                left.assert_refused_or_equal(which, &bytes, &format!("bit {bit} of {which:?}"));
            equal += usize::from(is_equal);
            let free = match bit / 8 {
                // abi_minor; who made it, and when.
                10..12 | 80..108 => true,
                // A control file has no generation, a segment no schema text.
                40..48 => which == Which::Control,
                56..64 => which == Which::Segment,
                // `reserved` of the three sections, the section beyond the third, `reserved`.
                116..120 | 140..144 | 164..168 | 184..208 | 232..252 => true,
                _ => false,
            };
            assert_eq!(is_equal, free, "bit {bit} of {which:?}");
        }
        assert!(equal > 0);
    }
}

#[test]
fn sections_that_overlap_or_lie_outside() {
    type Change = fn(&mut FileHeader);
    const REFUSED: &[(&str, Change)] = &[
        ("at the header", |h| h.sections[0].offset = 0),
        ("off a page", |h| h.sections[1].offset += 8),
        ("empty", |h| h.sections[2].len = 0),
        ("on top of each other", |h| h.sections[1].offset = h.sections[0].offset),
        ("one into the next", |h| h.sections[0].len += 1),
        ("around another", |h| {
            h.sections[2] = Section { offset: PAGE, len: 4 * PAGE, ..h.sections[2] }
        }),
        ("one page beyond the end", |h| h.sections[2].offset += PAGE),
        ("far beyond the end", |h| h.sections[2].offset = 1 << 62),
        ("longer than the file", |h| h.sections[2].len = 1 << 40),
        ("beyond what can be counted", |h| h.sections[2].offset = u64::MAX - PAGE + 1),
        ("as long as can be counted", |h| h.sections[2].len = u64::MAX),
        ("one without a kind", |h| h.sections[1].kind = 0),
        ("one of an unknown kind", |h| h.sections[1].kind = 99),
        ("two of a kind", |h| h.sections[1].kind = h.sections[2].kind),
        ("swapped", |h| {
            (h.sections[0].offset, h.sections[2].offset) =
                (h.sections[2].offset, h.sections[0].offset);
        }),
        ("none in use", |h| h.section_count = 0),
        ("the last not in use", |h| h.section_count = 2),
        ("one more in use, which is empty", |h| h.section_count = 4),
        ("more than there are", |h| h.section_count = 5),
        ("very many more", |h| h.section_count = u32::MAX),
    ];
    const IGNORED: &[(&str, Change)] = &[
        ("unused, of a known kind", |h| {
            h.sections[3] = Section { kind: h.sections[0].kind, offset: 1, len: PAGE, reserved: 0 };
        }),
        ("unused, beyond what can be counted", |h| {
            h.sections[3] = Section { kind: 9, offset: u64::MAX, len: u64::MAX, reserved: 0 };
        }),
    ];
    let left = Left::new();
    for which in BOTH {
        for (what, change) in REFUSED {
            // The control file's parts may lie anywhere, so there the swap is no mistake.
            if which == Which::Control && *what == "swapped" {
                continue;
            }
            eprintln!("{which:?}: a section {what}");
            let bytes = with_header(left.bytes(which), change);
            left.assert_refused(which, &bytes, ErrorKind::Damaged, &["rm "]);
        }
        for (what, change) in IGNORED {
            let bytes = with_header(left.bytes(which), change);
            assert!(left.assert_refused_or_equal(which, &bytes, what), "{which:?}: {what}");
        }
    }
}

/// Options that are possible, but are not those of this channel.
#[test]
fn a_segment_of_another_channel() {
    type Change = fn(&mut FileHeader);
    let changes: [Change; 6] = [
        |header| header.generation = 2,
        |header| header.schema = 8,
        |header| header.capacity *= 2,
        |header| header.wait = 0,
        |header| header.record_align = 16,
        |header| header.payload_offset = 16,
    ];
    let left = Left::new();
    for change in changes {
        let mut bytes = with_header(&left.segment, change);
        // Long enough for the doubled capacity.
        bytes.resize(SEGMENT_LEN + CAPACITY, 0);
        left.assert_refused(
            Which::Segment,
            &bytes,
            ErrorKind::Damaged,
            &["another channel or another generation", "rm "],
        );
    }
}

#[test]
fn no_regular_file() {
    type Put = fn(&Path);
    let puts: [(&str, Put); 4] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a symbolic link", |path| symlink("/etc/passwd", path).unwrap()),
        ("a fifo", make_fifo),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ];
    let left = Left::new();
    for which in BOTH {
        for (what, put) in puts {
            left.put(which, &[]);
            fs::remove_file(left.path(which)).unwrap();
            put(&left.path(which));
            eprintln!("{which:?} is {what}");
            let path = left.path(which).display().to_string();
            let pieces = ["it is not a regular file", "rm -r ", &path];
            assert_error(left.open(), ErrorKind::Damaged, &pieces);
            let producer = Producer::open(&left.scratch.options());
            match which {
                Which::Control => assert_error(producer, ErrorKind::Damaged, &pieces),
                Which::Segment => drop(producer.unwrap()),
            }
        }
    }
}

fn make_fifo(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the string ends in NUL and lives through the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn a_channel_that_is_no_directory() {
    let scratch = Scratch::new();
    fs::write(scratch.channel(), "").unwrap();
    let open = || Consumer::open(&scratch.options());
    assert_error(open(), ErrorKind::NoDirectory, &["RINGWAY_DIR"]);
    fs::remove_file(scratch.channel()).unwrap();
    symlink("/tmp", scratch.channel()).unwrap();
    assert_error(open(), ErrorKind::NoDirectory, &["RINGWAY_DIR"]);
}

/// A file with the highest number that a file can have, whoever made it.
#[test]
fn no_number_left() {
    let left = Left::new();
    left.put(Which::Control, &left.control);
    fs::write(left.scratch.channel().join(u32::MAX.to_string()), "").unwrap();
    assert_error(
        Producer::open(&left.scratch.options()),
        ErrorKind::Damaged,
        &["4294967295", "rm -r "],
    );
    // It is nobody's number, so it is nobody's business.
    fs::remove_file(left.scratch.channel().join(u32::MAX.to_string())).unwrap();
    fs::write(left.scratch.channel().join("99999999999"), "").unwrap();
    drop(left.scratch.producer());
}

#[test]
fn another_type() {
    let left = Left::new();
    let options = |fingerprint, text: &str| Options {
        schema: Schema { fingerprint, text: text.into(), payload_align: 8 },
        ..left.scratch.options()
    };
    left.put(Which::Control, &left.control);
    let theirs = options(8, "a: u64\nb: f64\nc: u8\n");
    for opened in [Consumer::open(&theirs).map(drop), Producer::open(&theirs).map(drop)] {
        assert_error(
            opened,
            ErrorKind::SchemaMismatch,
            &[
                "    a: u64\n",
                "  - b: f32\n",
                "  + b: f64\n",
                "  + c: u8",
                "Build both sides from one definition",
                "rm -r ",
            ],
        );
    }
    // The fingerprint decides; the text is for people.
    drop(Consumer::open(&options(7, "anything")).unwrap());
}

#[test]
fn a_damaged_schema_text() {
    let left = Left::new();
    for at in 0..b"a: u64\nb: f32\n".len() {
        let mut bytes = left.control.clone();
        bytes[SCHEMA + at] ^= 0x80;
        let pieces =
            ["its schema is damaged", "End the programs that use the channel, then: rm -r "];
        left.assert_refused(Which::Control, &bytes, ErrorKind::Damaged, &pieces);
    }
    let no_text = |len: usize, fill: u8| {
        let mut bytes = left.control.clone();
        bytes[SCHEMA..SCHEMA + len].fill(fill);
        with_header(&bytes, |header| {
            header.schema_len = len as u32;
            header.schema_crc = crc32c::crc32c(&bytes[SCHEMA..SCHEMA + len]);
        })
    };
    left.assert_refused(Which::Control, &no_text(4, 0xff), ErrorKind::Damaged, &["is no text"]);
    left.assert_refused(Which::Control, &no_text(4097, b'x'), ErrorKind::Damaged, &["too long"]);
    assert!(left.assert_refused_or_equal(Which::Control, &no_text(4096, b'x'), "a full page"));
}
