//! Ledgers with anything in them: what a tool gets is what can be shown, or a refusal in words.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ringway::watch;
use ringway_fuzz::input::Input;
use ringway_fuzz::seeds;
use ringway_shm::layout::{FileHeader, HEADER_LEN};
use ringway_shm::ledger::{Entry, WORDS, list};

/// Where ledgers lie here, and a sound one as bytes.
fn template() -> &'static (PathBuf, Vec<u8>) {
    static TEMPLATE: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let root = std::env::var_os("RINGWAY_FUZZ_DIR").expect("RINGWAY_FUZZ_DIR is set");
        let home = PathBuf::from(root).join(format!("ledger-{}", std::process::id()));
        fs::create_dir_all(&home).expect("a directory can be made");
        let entry = Entry::open(Some(&home), watch::WORDS_VERSION).expect("a ledger can be made");
        let mut words = [0; WORDS];
        // Traits: a sender that binds, of a pair, by a thread over epoll, up, with a name of 5 bytes.
        words[2] = 0x0105_0202_0201_0101;
        words[13] = u64::from_le_bytes(*b"ticks\0\0\0");
        entry.write(1, &words);
        let path = list(Some(&home)).expect("a list").pop().expect("a ledger");
        let bytes = fs::read(path).expect("its bytes");
        drop(entry);
        (home, bytes)
    })
}

/// Positions in the head, and in the first slot, come first: most of the rest is zeros.
fn changed(data: &[u8], good: &[u8]) -> Vec<u8> {
    let mut input = Input(data);
    let flags = input.byte();
    let mut bytes = good.to_vec();
    while !input.is_empty() {
        let at = usize::from(input.short());
        let value = input.word();
        let at = match flags & 3 {
            0 => at % HEADER_LEN,
            1 => 4096 + at % 1024,
            _ => at % bytes.len(),
        };
        let len = bytes.len();
        let end = (at + 8).min(len);
        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
    }
    if flags & 4 != 0 {
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&bytes[..HEADER_LEN]);
        let mut header = FileHeader::from_bytes(&header);
        header.crc = header.expected_crc();
        bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    }
    if flags & 8 != 0 {
        bytes.truncate(usize::from(flags) * 200);
    }
    bytes
}

fuzz_target!(
    init: seeds::write((0..16).map(|flags| vec![flags, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8])),
    |data: &[u8]| {
        let (home, good) = template();
        let path = home.join(".ledger-1.0");
        fs::write(&path, changed(data, good)).expect("it can be written");
        let found = watch::processes(Some(home)).expect("the directory is there");
        assert_eq!(found.len(), 1);
        for process in found {
            match process {
                Ok(process) => {
                    assert!(process.endpoints.len() <= 63 && !process.is_alive);
                    for end in process.endpoints {
                        let told = match end {
                            Ok(end) => format!("{} {:?} {:?}", end.name, end.local, end.trouble),
                            Err(why) => why,
                        };
                        assert!(!told.chars().any(char::is_control), "{told:?}");
                    }
                }
                Err(error) => assert!(error.to_string().len() > 20),
            }
        }
        assert_eq!(watch::remove_dead(Some(home)).expect("it can be looked at").len(), 1);
    }
);
