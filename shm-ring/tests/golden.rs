//! The memory ABI, byte by byte: what a header looks like, what lies in the ring after each kind of
//! publication, and where every counter is. All of it is read back from the files of a real
//! channel, at offsets that are written out here and not taken from the library.
//!
//! Whoever has to change a byte here changes `docs/SEGMENT.md` and the ABI version in `layout` in
//! the same commit.

#![cfg(not(loom))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringway_shm::layout::{FileHeader, SEGMENT_MAGIC, Section};
use ringway_shm::{
    Consumer, Fault, Kind, MpmcReceiver, MpmcSender, Options, Overflow, Producer, Publisher,
    RecvError, Redeliver, Schema, SendError, Until, Wait,
};

const CAPACITY: usize = 4096;
/// Where the parts of a segment of that capacity lie.
const PRODUCER_PAGE: usize = 4096;
const RING: usize = 8192;
const CONSUMER_PAGE: usize = RING + CAPACITY;
const SEGMENT_LEN: usize = CONSUMER_PAGE + 4096;
/// Where the parts of a control file with a schema of up to a page lie.
const SCHEMA: usize = 4096;
const PRODUCER_ROLE: usize = 8192;
const CONSUMER_ROLE: usize = 12288;
const CONTROL_LEN: usize = 16384;

/// Set in a child: the directory in which it becomes a consumer, and dies.
const CHILD: &str = "RINGWAY_GOLDEN_DIR";

#[test]
fn a_header_is_256_bytes_of_known_meaning() {
    let section = |kind, offset, len| Section { kind, reserved: 0, offset, len };
    let mut header = FileHeader {
        magic: SEGMENT_MAGIC,
        abi_major: 1,
        abi_minor: 1,
        header_len: 256,
        endian: 0x0102_0304,
        kind: 1,
        wait: 2,
        record_align: 64,
        payload_offset: 8,
        capacity: 0x10_0000,
        generation: 0x2122_2324_2526_2728,
        schema: 0x3132_3334_3536_3738,
        schema_len: 0x4142_4344,
        schema_crc: 0x5152_5354,
        boot_id: *b"0123456789abcdef",
        creator_start: 0x6162_6364_6566_6768,
        creator_pid_ns: 0x7172_7374_7576_7778,
        created_ns: 0x0182_8384_8586_8788,
        creator_pid: 0x1192_9394,
        section_count: 3,
        sections: [
            section(1, 0x1000, 0x1000),
            section(3, 0x2000, 0x10_0000),
            section(2, 0x10_2000, 0x1000),
            Section::default(),
        ],
        overflow: 0xa1a2_a3a4,
        seats: 0xb1b2_b3b4,
        history: 0xc1c2_c3c4_c5c6_c7c8,
        slot: 0xd1d2_d3d4,
        flags: 0xe1e2_e3e4,
        reserved: [0; 20],
        crc: 0,
    };
    header.crc = header.expected_crc();

    #[rustfmt::skip]
    let golden: [u8; 256] = [
        // 0: magic "RWAYSEG\0"
        0x52, 0x57, 0x41, 0x59, 0x53, 0x45, 0x47, 0x00,
        // 8: abi_major, abi_minor, header_len
        0x01, 0x00, 0x01, 0x00, 0x00, 0x01, 0x00, 0x00,
        // 16: endian, kind
        0x04, 0x03, 0x02, 0x01, 0x01, 0x00, 0x00, 0x00,
        // 24: wait, record_align, payload_offset
        0x02, 0x00, 0x00, 0x00, 0x40, 0x00, 0x08, 0x00,
        // 32: capacity
        0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00,
        // 40: generation
        0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        // 48: schema
        0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
        // 56: schema_len, schema_crc
        0x44, 0x43, 0x42, 0x41, 0x54, 0x53, 0x52, 0x51,
        // 64: boot_id
        0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
        0x38, 0x39, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66,
        // 80: creator_start
        0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0x61,
        // 88: creator_pid_ns
        0x78, 0x77, 0x76, 0x75, 0x74, 0x73, 0x72, 0x71,
        // 96: created_ns
        0x88, 0x87, 0x86, 0x85, 0x84, 0x83, 0x82, 0x01,
        // 104: creator_pid, section_count
        0x94, 0x93, 0x92, 0x11, 0x03, 0x00, 0x00, 0x00,
        // 112: sections[0]: kind, reserved, offset, len
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        // 136: sections[1]
        0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00,
        // 160: sections[2]
        0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x20, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        // 184: sections[3], unused
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        // 208: overflow, seats, history
        0xa4, 0xa3, 0xa2, 0xa1, 0xb4, 0xb3, 0xb2, 0xb1,
        0xc8, 0xc7, 0xc6, 0xc5, 0xc4, 0xc3, 0xc2, 0xc1,
        // 224: slot, flags
        0xd4, 0xd3, 0xd2, 0xd1, 0xe4, 0xe3, 0xe2, 0xe1,
        // 232: reserved
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
        // 252: crc32c of the above
        0x85, 0xd0, 0x3c, 0x1b,
    ];
    assert_eq!(header.to_bytes(), golden);
    assert_eq!(FileHeader::from_bytes(&golden), header);
}

#[test]
fn the_headers_of_a_channel() {
    let scratch = Scratch::new();
    let producer = scratch.producer();

    let control = scratch.control();
    assert_eq!(control.len(), CONTROL_LEN);
    assert_eq!(&control[..8], b"RWAYCTL\0");
    assert_eq!(word(&control, 32), CAPACITY as u64);
    assert_eq!(word(&control, 40), 0, "control has no generation");
    assert_eq!(word(&control, 48), 0x1234, "the fingerprint");
    assert_eq!(half(&control, 56), 9, "schema_len");
    assert_eq!(half(&control, 60), crc32c(b"a: u64\nb\n"), "schema_crc");
    assert_eq!(&control[SCHEMA..SCHEMA + 9], b"a: u64\nb\n");
    assert_eq!(half(&control, 108), 3, "section_count");
    let table = [(4, SCHEMA), (1, PRODUCER_ROLE), (2, CONSUMER_ROLE), (0, 0)];
    assert_sections(&control, table.map(|(kind, at)| (kind, at, if kind == 0 { 0 } else { 4096 })));
    assert_eq!(half(&control, 252), crc32c(&control[..252]));

    let segment = scratch.segment(1);
    assert_eq!(segment.len(), SEGMENT_LEN);
    assert_eq!(&segment[..8], b"RWAYSEG\0");
    assert_eq!(&segment[8..20], [6, 0, 0, 0, 0, 1, 0, 0, 4, 3, 2, 1]);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SEGMENT.md");
    assert!(std::fs::read_to_string(page).unwrap().contains("Version **6.0**."), "{page}");
    assert_eq!(half(&segment, 20), 1, "kind: SPSC");
    assert_eq!(half(&segment, 24), 2, "wait: park");
    assert_eq!(half(&segment, 28), 64 | 8 << 16, "record_align, payload_offset");
    assert_eq!(word(&segment, 40), 1, "the generation is the file's number");
    assert_eq!(&segment[64..80], boot_id());
    assert_eq!(word(&segment, 80), start_time(), "creator_start");
    assert_eq!(word(&segment, 88), pid_namespace(), "creator_pid_ns");
    assert_eq!(half(&segment, 104), std::process::id(), "creator_pid");
    assert_eq!(half(&segment, 108), 3, "section_count");
    assert_sections(
        &segment,
        [(1, PRODUCER_PAGE, 4096), (3, RING, CAPACITY), (2, CONSUMER_PAGE, 4096), (0, 0, 0)],
    );
    assert_eq!(half(&segment, 252), crc32c(&segment[..252]));
    drop(producer);
    scratch.assert_gone();
}

#[test]
fn one_message() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    send(&mut producer, b"hello");
    let mut golden = Ring::zeroed();
    //                   length 5   kind sequence 0
    golden.put(0, &[5, 0, 0, 0, 1, 0, 0, 0]);
    golden.put(8, b"hello");
    // The terminator is a zero word, at the next multiple of the record alignment: nothing to see.
    golden.assert_is(&scratch);

    send(&mut producer, b"");
    golden.put(64, &[0, 0, 0, 0, 1, 1, 0, 0]);
    golden.assert_is(&scratch);
}

#[test]
fn records_of_16_bytes_alignment() {
    let scratch = Scratch::new();
    let mut producer =
        Producer::open(&Options { record_align: Some(16), ..scratch.options() }).unwrap();
    send(&mut producer, b"hello");
    send(&mut producer, b"nine more");
    send(&mut producer, b"you");
    let mut golden = Ring::zeroed();
    golden.put(0, &[5, 0, 0, 0, 1, 0, 0, 0]);
    golden.put(8, b"hello");
    golden.put(16, &[9, 0, 0, 0, 1, 1, 0, 0]);
    golden.put(24, b"nine more");
    golden.put(48, &[3, 0, 0, 0, 1, 2, 0, 0]);
    golden.put(56, b"you");
    golden.assert_is(&scratch);
}

/// Up to a line with their header they are packed by 16 bytes, longer ones by 8, and so are arrays.
#[test]
fn long_records_of_16_bytes_alignment() {
    let scratch = Scratch::new();
    let mut producer =
        Producer::open(&Options { record_align: Some(16), ..scratch.options() }).unwrap();
    send(&mut producer, &[0x11; 49]);
    send(&mut producer, &[0x22; 57]);
    send(&mut producer, &[0x33; 64]);
    let mut claim = producer.try_claim_array(19, 3).unwrap();
    claim.bytes().fill(0x44);
    claim.commit(3).unwrap();
    let mut claim = producer.try_claim_array(19, 2).unwrap();
    claim.bytes().fill(0x55);
    claim.commit(2).unwrap();
    send(&mut producer, b"end");
    let mut golden = Ring::zeroed();
    golden.put(0, &[49, 0, 0, 0, 1, 0, 0, 0]);
    golden.put(8, &[0x11; 49]);
    golden.put(64, &[57, 0, 0, 0, 1, 1, 0, 0]);
    golden.put(72, &[0x22; 57]);
    golden.put(136, &[64, 0, 0, 0, 1, 2, 0, 0]);
    golden.put(144, &[0x33; 64]);
    // 16 + 57 bytes, to the next multiple of 8.
    golden.put(208, &[57, 0, 0, 0, 3, 3, 0, 0, 19, 0, 0, 0, 3, 0, 0, 0]);
    golden.put(224, &[0x44; 57]);
    // 16 + 38, to the next multiple of 16 bytes from where it begins.
    golden.put(288, &[38, 0, 0, 0, 3, 6, 0, 0, 19, 0, 0, 0, 2, 0, 0, 0]);
    golden.put(304, &[0x55; 38]);
    golden.put(352, &[3, 0, 0, 0, 1, 8, 0, 0]);
    golden.put(360, b"end");
    golden.assert_is(&scratch);
}

/// Of the 8 bytes that may be left before the end of the ring.
#[test]
fn the_least_padding() {
    let scratch = Scratch::new();
    let options = Options { record_align: Some(16), ..scratch.options() };
    let mut producer = Producer::open(&options).unwrap();
    let mut consumer = Consumer::open(&options).unwrap();
    send(&mut producer, &[0x11; 64]);
    consumer.try_recv().unwrap();
    let (records, last) = ((CAPACITY - 72) / 16, CAPACITY - 8);
    for _ in 0..records {
        send(&mut producer, b"");
        consumer.try_recv().unwrap();
    }
    send(&mut producer, b"y");
    let sequence = records as u64 + 1;
    let at = |offset| word(&scratch.segment(1), RING + offset);
    // No bytes behind its header, kind 2, the sequence of the message at the start.
    assert_eq!(at(last), 2 << 32 | sequence << 40);
    assert_eq!(at(0), 1 | 1 << 32 | sequence << 40);
    assert_eq!(*consumer.try_recv().unwrap(), *b"y");
}

#[test]
fn messages_that_need_16_bytes_alignment() {
    let scratch = Scratch::new();
    let mut options = scratch.options();
    options.schema.payload_align = 16;
    let mut producer = Producer::open(&options).unwrap();
    assert_eq!(half(&scratch.segment(1), 28), 64 | 16 << 16, "record_align, payload_offset");
    send(&mut producer, b"hello");
    let mut golden = Ring::zeroed();
    golden.put(0, &[5, 0, 0, 0, 1, 0, 0, 0]);
    golden.put(16, b"hello");
    golden.assert_is(&scratch);
}

#[test]
fn a_message_that_wraps() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    let mut consumer = scratch.consumer();
    // 2048 and 1024 bytes with header and rounding: 1024 are left before the end of the ring.
    for (len, fill) in [(2000, 0x11), (1000, 0x22)] {
        send(&mut producer, &vec![fill; len]);
        consumer.try_recv().unwrap();
    }
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    send(&mut producer, &[0x33; 1500]);

    let mut golden = Ring::zeroed();
    // 1500 bytes, kind 1, sequence 2.
    golden.put(0, &[0xdc, 5, 0, 0, 1, 2, 0, 0]);
    golden.put(8, &[0x33; 1500]);
    // The rest of the first record is as it was, but for the new terminator.
    golden.put(1508, &[0x11; 2008 - 1508]);
    golden.put(1536, &[0; 8]);
    golden.put(2048, &[0xe8, 3, 0, 0, 1, 1, 0, 0]);
    golden.put(2056, &[0x22; 1000]);
    // Padding: 1016 bytes behind its header, kind 2, the sequence of the message at the start.
    golden.put(3072, &[0xf8, 3, 0, 0, 2, 2, 0, 0]);
    golden.assert_is(&scratch);

    assert_eq!(*consumer.try_recv().unwrap(), [0x33; 1500]);
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    assert_eq!(word(&scratch.segment(1), CONSUMER_PAGE), 4096 + 1536, "head behind the wrap");
}

#[test]
fn a_batch() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    for fill in [b'a', b'b', b'c'] {
        let mut claim = producer.try_claim(3).unwrap();
        claim.fill(fill);
        claim.queue().unwrap();
    }
    let mut golden = Ring::zeroed();
    // The header of the first record is withheld; all else is there.
    golden.put(8, b"aaa");
    golden.put(64, &[3, 0, 0, 0, 1, 1, 0, 0]);
    golden.put(72, b"bbb");
    golden.put(128, &[3, 0, 0, 0, 1, 2, 0, 0]);
    golden.put(136, b"ccc");
    golden.assert_is(&scratch);

    producer.flush().unwrap();
    golden.put(0, &[3, 0, 0, 0, 1, 0, 0, 0]);
    golden.assert_is(&scratch);
}

#[test]
fn an_array_record() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    send(&mut producer, b"x");
    let mut claim = producer.try_claim_array(8, 5).unwrap();
    claim.bytes()[..24].copy_from_slice(b"element0element1element2");
    claim.queue(3).unwrap();
    let mut golden = Ring::zeroed();
    golden.put(0, &[1, 0, 0, 0, 1, 0, 0, 0]);
    golden.put(8, b"x");
    // The header is withheld. Element length, count, the elements.
    golden.put(72, &[8, 0, 0, 0, 3, 0, 0, 0]);
    golden.put(80, b"element0element1element2");
    golden.assert_is(&scratch);

    send(&mut producer, b"y");
    // 3 * 8 bytes, kind 3, the sequence of the first element.
    golden.put(64, &[24, 0, 0, 0, 3, 1, 0, 0]);
    golden.put(128, &[1, 0, 0, 0, 1, 4, 0, 0]);
    golden.put(136, b"y");
    golden.assert_is(&scratch);
}

#[test]
fn the_words_of_the_producers_page() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    let at = |offset| word(&scratch.segment(1), PRODUCER_PAGE + offset);
    send(&mut producer, &[0; 700]);
    send(&mut producer, &[0; 701]);
    send(&mut producer, &[0; 702]);
    assert_eq!(at(256), 1 << 32 | 3 << 40, "next: kind 1, number 3");
    assert_eq!(at(304), 2, "sent_before, as at the last claim that was not quick");
    assert_eq!(at(264), 0, "position before the producer ever looked");

    assert_eq!(at(296), 0, "depth_max before the producer ever looked");
    assert!(matches!(producer.try_claim(2000), Err(SendError::Full { .. })));
    assert_eq!(at(272), 1, "full_waits");
    assert_eq!(at(296), 3 * 768, "depth_max");
    assert_eq!(at(264), 3 * 768, "position");
    assert_eq!(at(304), 3, "sent_before");

    let state = || half(&scratch.segment(1), PRODUCER_PAGE + 128);
    let sleeps = || half(&scratch.segment(1), PRODUCER_PAGE + 136);
    let awake = 2 * has_membarrier();
    assert_eq!((state(), sleeps(), at(280)), (awake, 0, 0), "state, sleeps, parks");
    let error = producer.claim_timeout(2000, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error}");
    assert_eq!(state(), awake);
    assert!(sleeps() > 0 && at(280) > 0, "the flag went up and down, parks");
    let rung = || half(&scratch.segment(1), PRODUCER_PAGE + 132);
    assert_eq!((rung(), at(288)), (0, 0), "rung, wakes");
    let mut consumer = scratch.consumer();
    for _ in 0..3 {
        consumer.try_recv().unwrap();
    }
    // The consumer's flag goes up in its sleep, which here is one of another thread. Each sleep ends
    // by itself after a while, so it may take more than one to be woken from it.
    for _ in 0..1000 {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| consumer.recv().map(|message| message.len()));
            wait_until(|| half(&scratch.segment(1), CONSUMER_PAGE + 128) % 2 == 1);
            send(&mut producer, b"wake up");
            assert_eq!(sleeper.join().unwrap(), Ok(7));
        });
        if rung() > 0 {
            break;
        }
    }
    assert_eq!((rung(), at(288)), (1, 1), "rung, wakes");

    assert_eq!((at(0), at(8)), (0, 0), "state and poisoned while in use");
    drop(producer);
    assert_eq!((at(0), at(8)), (1, 0), "closed");
}

#[test]
fn the_words_of_the_consumers_page() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    let mut consumer = scratch.consumer();
    let at = |offset| word(&scratch.segment(1), CONSUMER_PAGE + offset);
    assert_eq!(at(272), 1, "attached");

    send(&mut producer, b"one");
    send(&mut producer, b"two");
    send(&mut producer, b"three");
    drop(consumer.try_recv().unwrap());
    assert_eq!(at(256), 1, "received, at once");
    assert_eq!(at(0), 0, "the gate's head, later");
    {
        let mut batch = consumer.try_recv_batch(7).unwrap();
        assert_eq!(at(264), 0, "lent before anything is shown");
        assert!(batch.next().unwrap().is_some());
        assert_eq!(at(264), 2, "lent");
        assert!(batch.next().unwrap().is_some() && batch.next().unwrap().is_none());
        assert_eq!(at(264), 3, "lent");
        assert_eq!(at(256), 1, "nothing is released before the batch is dropped");
    }
    assert_eq!((at(256), at(264)), (3, 0), "all given back");
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    assert_eq!(at(0), 192, "an empty ring publishes the head");

    let state = || half(&scratch.segment(1), CONSUMER_PAGE + 128);
    let sleeps = || half(&scratch.segment(1), CONSUMER_PAGE + 136);
    let awake = 2 * has_membarrier();
    assert_eq!((state(), sleeps(), at(280)), (awake, 0, 0), "state, sleeps, parks");
    assert_eq!(consumer.recv_timeout(Duration::from_millis(1)).unwrap_err(), RecvError::Timeout);
    assert_eq!(state(), awake);
    assert!(sleeps() > 0 && at(280) > 0, "the flag went up and down, parks");
    let rung = || half(&scratch.segment(1), CONSUMER_PAGE + 132);
    assert_eq!((rung(), at(288)), (0, 0), "rung, wakes");
    for _ in 0..1000 {
        send(&mut producer, &[0; 1900]);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| producer.claim(2000).unwrap().commit().unwrap());
            wait_until(|| half(&scratch.segment(1), PRODUCER_PAGE + 128) % 2 == 1);
            drop(consumer.try_recv().unwrap());
            sleeper.join().unwrap();
        });
        assert_eq!(consumer.try_recv().unwrap().len(), 2000);
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
        if rung() > 0 {
            break;
        }
    }
    assert_eq!((rung(), at(288)), (1, 1), "rung, wakes");

    drop(producer);
    assert_eq!((at(384), at(392)), (0, 0), "state and poisoned while in use");
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Disconnected);
    assert_eq!((at(384), at(392)), (2, 0), "finished");
    assert_eq!(at(272), 0, "attached");
}

#[test]
fn the_words_that_tell_of_nonsense() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    let mut consumer = scratch.consumer();
    scratch.poke(RING, &[1, 0, 0, 0, 77, 0, 0, 0]);
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Corrupt(Fault::Kind));
    assert_eq!(word(&scratch.segment(1), CONSUMER_PAGE + 392), 1, "poisoned: Fault::Kind");
    send(&mut producer, &[0; 2000]);
    assert_eq!(producer.try_claim(2032).unwrap_err(), SendError::Corrupt(Fault::Poisoned));
    assert_eq!(word(&scratch.segment(1), PRODUCER_PAGE + 8), 8, "poisoned: Fault::Poisoned");
}

#[test]
fn the_words_that_tell_of_a_nonsensical_gate() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    scratch.poke(CONSUMER_PAGE, &[1, 0, 0, 0, 0, 0, 0, 0]);
    send(&mut producer, &[0; 2000]);
    assert_eq!(producer.try_claim(2032).unwrap_err(), SendError::Corrupt(Fault::Gate));
    assert_eq!(word(&scratch.segment(1), PRODUCER_PAGE + 8), 6, "poisoned: Fault::Gate");
}

#[test]
fn the_words_of_the_control_file() {
    let scratch = Scratch::new();
    let at = |offset| word(&scratch.control(), offset);
    let holder = |page| [0, 8, 16, 24, 32].map(|offset| at(page + offset));
    let me = [u64::from(std::process::id()), start_time(), pid_namespace()];

    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_that_dies_as_a_consumer", "--nocapture"])
        .env(CHILD, &scratch.directory)
        .output()
        .unwrap();
    assert!(!killed.status.success(), "{killed:?}");
    let [epoch, state, pid, _, pid_ns] = holder(CONSUMER_ROLE);
    assert_eq!((epoch, state), (1, 1), "the record still says that it is attached");
    assert_eq!(pid_ns, pid_namespace());
    assert_eq!((at(CONSUMER_ROLE + 128), at(CONSUMER_ROLE + 136)), (0, 0), "nobody looked yet");

    let consumer = scratch.consumer();
    assert_eq!(holder(CONSUMER_ROLE), [2, 1, me[0], me[1], me[2]]);
    assert_eq!((at(CONSUMER_ROLE + 128), at(CONSUMER_ROLE + 136)), (1, pid), "the dead one");

    assert_eq!(half(&scratch.control(), PRODUCER_ROLE + 128), 0, "latest");
    let mut producer = scratch.producer();
    assert_eq!(holder(PRODUCER_ROLE), [1, 1, me[0], me[1], me[2]]);
    assert_eq!(half(&scratch.control(), PRODUCER_ROLE + 128), 1, "latest");
    let created = word(&scratch.segment(1), 96);
    let since = at(PRODUCER_ROLE + 40);
    assert_eq!(since, created, "since_ns, one look at the clock for role and segment");
    let command = fs::read("/proc/self/comm").unwrap();
    let command = command.trim_ascii_end();
    let start = PRODUCER_ROLE + 48;
    assert_eq!(&scratch.control()[start..start + command.len()], command);

    send(&mut producer, b"keeps the channel");
    drop(producer);
    drop(consumer);
    assert_eq!(holder(PRODUCER_ROLE)[1], 2, "detached");
    assert_eq!(holder(CONSUMER_ROLE)[1], 2, "detached");
    drop(scratch.producer());
    assert_eq!(holder(PRODUCER_ROLE)[0], 2, "the second holder");
    assert_eq!(half(&scratch.control(), PRODUCER_ROLE + 128), 2, "latest");
}

/// Not a test of its own: the part of the child in the one above.
/// A queue of four slots, at several points of its life.
#[test]
fn the_words_of_a_queue() {
    const QUEUE: usize = 4096;
    const SEAT: usize = QUEUE + 640;
    const TAKEN: usize = 24576;
    const SENT: usize = 28672;
    const SLOTS: usize = 32768;
    let scratch = Scratch::new();
    let options = Options {
        kind: Some(Kind::Mpmc),
        capacity: None,
        record_align: None,
        slots: Some(4),
        slot: Some(72),
        redeliver: Some(Redeliver::Drop),
        until: Some(Until::Last),
        ..scratch.options()
    };
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let file = scratch.segment(1);
    assert_eq!(file.len(), SLOTS + 4096);
    assert_eq!((half(&file, 20), word(&file, 32)), (3, 288));
    assert_eq!((half(&file, 212), half(&file, 224), half(&file, 228)), (64, 72, 3));
    let parts = [(6, QUEUE, 20480), (7, TAKEN, 4096), (9, SENT, 4096), (8, SLOTS, 4096)];
    assert_sections(&file, parts);
    assert!(file[SEAT..].iter().all(|&byte| byte == 0));
    // Senders so far; nobody sleeps.
    assert_eq!((word(&file, QUEUE + 256 + 32), word(&file, QUEUE + 256 + 40)), (1, 0));
    assert_eq!((word(&file, QUEUE + 384), word(&file, QUEUE + 512)), (0, 0));

    let mut claim = sender.try_claim(5).unwrap();
    claim.copy_from_slice(b"hello");
    let file = scratch.segment(1);
    // Lap 1, one slot, participant 0, writing; nothing for receivers to look at yet.
    assert_eq!((word(&file, SENT), word(&file, SLOTS)), (1 << 24 | 1 << 16 | 1, 0));
    assert_eq!(&file[SLOTS + 8..SLOTS + 13], b"hello");
    claim.commit().unwrap();
    // Lap 1, 5 bytes, ready.
    let file = scratch.segment(1);
    let ready = 1 << 24 | 5 << 4 | 2;
    assert_eq!((word(&file, SENT), word(&file, SLOTS)), (ready, ready));

    sender.reserve(2).unwrap();
    // Two slots; the word of the second says nothing yet.
    let file = scratch.segment(1);
    assert_eq!((word(&file, SENT + 8), word(&file, SENT + 16)), (1 << 24 | 2 << 16 | 1, 0));
    sender.try_claim(1).unwrap().queue().unwrap();
    sender.flush().unwrap();
    let file = scratch.segment(1);
    // One message, the other given up.
    for (words, apart) in [(SENT, 8), (SLOTS, 72)] {
        let found = (word(&file, words + apart), word(&file, words + 2 * apart));
        assert_eq!(found, (1 << 24 | 1 << 4 | 2, 1 << 24));
    }
    // The hint of the senders.
    assert!((2..=3).contains(&word(&file, QUEUE)));

    let batch = receiver.try_recv_batch(2).unwrap();
    let file = scratch.segment(1);
    // Lap 1, two slots, participant 1, reading.
    let reading = 1 << 24 | 2 << 16 | 1 << 4 | 1;
    assert_eq!((word(&file, TAKEN), word(&file, TAKEN + 8)), (reading, 0));
    drop(batch);
    // Not looked at: still this receiver's.
    assert_eq!(word(&scratch.segment(1), TAKEN), reading);
    drop(receiver.try_recv().unwrap());
    let file = scratch.segment(1);
    // Lap 1, done; the rest is a claim of its own.
    let rest = 1 << 24 | 1 << 16 | 1 << 4 | 1;
    assert_eq!((word(&file, TAKEN), word(&file, TAKEN + 8)), (1 << 24, rest));
    drop(receiver);
    let file = scratch.segment(1);
    // Returned for the first time.
    assert_eq!(word(&file, TAKEN + 8), 1 << 24 | 1 << 16 | 2);
    // Each who came swept, and one gave something back.
    assert_eq!(word(&file, QUEUE + 256), 3);
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let message = receiver.try_recv().unwrap();
    assert!(message.redelivered());
    assert_eq!(word(&scratch.segment(1), TAKEN + 8), 1 << 24 | 1 << 16 | 1 << 4 | 3);
    drop(message);
    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    let file = scratch.segment(1);
    assert_eq!(word(&file, TAKEN + 16), 1 << 24);
    // Counters of participants 0 and 1: sent and bytes; received and redelivered.
    assert_eq!((word(&file, SEAT + 128), word(&file, SEAT + 136)), (2, 6));
    assert_eq!((word(&file, SEAT + 256 + 144), word(&file, SEAT + 256 + 152)), (2, 1));
    drop(receiver);
    drop(sender);
    scratch.assert_gone();
}

#[test]
fn a_child_that_dies_as_a_consumer() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let _consumer = Consumer::open(&options_in(Path::new(&directory))).unwrap();
    // SAFETY: raise takes no pointers.
    unsafe { libc::raise(libc::SIGKILL) };
}

/// What a broadcast has more than a channel of two.
#[test]
fn the_pages_of_a_broadcast() {
    const ROSTER: usize = 16384;
    const BOARD: usize = PRODUCER_PAGE + 1024;
    let scratch = Scratch::new();
    let options = Options { kind: Some(Kind::Broadcast), history: Some(2), ..scratch.options() };
    let mut first = Consumer::open(&options).unwrap();
    let mut producer = Producer::open(&options).unwrap();
    let mut second = Consumer::open(&options).unwrap();

    let control = scratch.control();
    assert_eq!(control.len(), ROSTER + 3 * 4096);
    assert_eq!((half(&control, 20), half(&control, 208), half(&control, 212)), (2, 0, 64));
    assert_eq!(word(&control, 216), 2, "history");
    assert_eq!(word(&control, ROSTER), 2, "joins");
    for (place, reads_from) in [(0, 1), (1, 1)] {
        let record = ROSTER + 128 + 128 * place;
        // epoch, state, pid; side, first.
        let found = [0, 8, 16, 64, 72].map(|at| word(&control, record + at));
        assert_eq!(found, [1, 1, std::process::id().into(), 2, reads_from]);
    }
    assert!(control[ROSTER + 128 + 2 * 128..].iter().all(|byte| *byte == 0));

    // 3 records of 1024 + 64 bytes fill the ring: the fourth claim looks at the readers.
    let mut send = || producer.try_claim(1024).map(|claim| claim.commit().unwrap());
    (0..3).for_each(|_| send().unwrap());
    for consumer in [&mut first, &mut second] {
        (0..3).for_each(|_| drop(consumer.recv().unwrap()));
        assert_eq!(consumer.try_recv().map(drop), Err(RecvError::Empty));
    }
    send().unwrap();
    let segment = scratch.segment(1);
    assert_eq!(segment.len(), CONSUMER_PAGE + 64 * 4096);
    assert_eq!((half(&segment, 20), half(&segment, 212)), (2, 64));
    assert_eq!(word(&segment, BOARD), 0, "intent");
    assert_eq!(word(&segment, BOARD + 128), 2, "the newest mark");
    assert_eq!(word(&segment, BOARD + 128 + 8), 0, "evicted");
    // Two messages of history lay behind the first; one of them gave way to what was new.
    for number in [1, 2] {
        let mark = BOARD + 768 + 16 * number as usize;
        assert_eq!((word(&segment, mark), word(&segment, mark + 8)), (1088 * number, number));
    }
    for place in [0, 1] {
        let page = CONSUMER_PAGE + 4096 * place;
        assert_eq!(word(&segment, page), 3264, "head");
        assert_eq!(word(&segment, page + 256), 3, "received");
    }

    // One who makes no sense is told by its epoch.
    scratch.poke(CONSUMER_PAGE + 4096, &8_u64.to_ne_bytes());
    while send().is_ok() {}
    assert_eq!(word(&scratch.segment(1), BOARD + 256 + 8), 1, "expelled");

    drop((first, second, producer));
    let options = Options { overflow: Some(Overflow::Overwrite), history: None, ..options };
    let mut publisher = Publisher::open(&options).unwrap();
    (0..40).for_each(|_| publisher.claim(100).unwrap().commit().unwrap());
    let segment = scratch.segment(1);
    // 31 records of 128 fit; from then on 64 bytes are announced at a time, until they do.
    assert_eq!(half(&scratch.control(), 208), 1, "overflow");
    assert_eq!(word(&segment, BOARD), 17 * 64 + CAPACITY as u64, "intent");
    let newest = word(&segment, BOARD + 128);
    let mark = BOARD + 768 + 16 * newest as usize;
    assert_eq!((word(&segment, mark), word(&segment, mark + 8)), (39 * 128, 39));
}

/// A private directory for one channel, removed however the test ends.
struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").replace("::", "-");
        let directory =
            PathBuf::from(format!("/dev/shm/ringway-test-golden-{}-{test}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    fn options(&self) -> Options {
        options_in(&self.directory)
    }

    fn producer(&self) -> Producer {
        Producer::open(&self.options()).unwrap()
    }

    fn consumer(&self) -> Consumer {
        Consumer::open(&self.options()).unwrap()
    }

    fn control(&self) -> Vec<u8> {
        fs::read(self.directory.join("golden/control")).unwrap()
    }

    fn segment(&self, number: u32) -> Vec<u8> {
        fs::read(self.directory.join(format!("golden/{number:06}"))).unwrap()
    }

    fn poke(&self, at: usize, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let path = self.directory.join("golden/000001");
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, at as u64).unwrap();
    }

    fn assert_gone(&self) {
        assert_eq!(fs::read_dir(&self.directory).unwrap().count(), 0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn options_in(directory: &Path) -> Options {
    Options {
        directory: Some(directory.to_owned()),
        capacity: Some(CAPACITY as u64),
        wait: Some(Wait::Park),
        record_align: Some(64),
        ..Options::new(
            "golden",
            Schema { fingerprint: 0x1234, text: "a: u64\nb\n".into(), payload_align: 8 },
        )
    }
}

/// What the bytes of the ring should be.
struct Ring(Vec<u8>);

impl Ring {
    fn zeroed() -> Self {
        Self(vec![0; CAPACITY])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn assert_is(&self, scratch: &Scratch) {
        let found = &scratch.segment(1)[RING..RING + CAPACITY];
        if let Some(at) = (0..CAPACITY).find(|&at| found[at] != self.0[at]) {
            let line = at & !15;
            panic!(
                "byte {at} of the ring: found {:02x?}, expected {:02x?} from {line} on",
                &found[line..line + 16],
                &self.0[line..line + 16]
            );
        }
    }
}

fn send(producer: &mut Producer, bytes: &[u8]) {
    let mut claim = producer.try_claim(bytes.len()).unwrap();
    claim.copy_from_slice(bytes);
    claim.commit().unwrap();
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Kind, offset and length of each entry of the section table.
fn assert_sections(file: &[u8], expected: [(u32, usize, usize); 4]) {
    for (index, (kind, offset, len)) in expected.into_iter().enumerate() {
        let at = 112 + 24 * index;
        assert_eq!((half(file, at), half(file, at + 4)), (kind, 0), "section {index}");
        let (found_offset, found_len) = (word(file, at + 8), word(file, at + 16));
        assert_eq!((found_offset, found_len), (offset as u64, len as u64), "section {index}");
    }
}

/// CRC-32C (Castagnoli), bit by bit: not the library's, so that the polynomial is pinned too.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// 1 where the kernel runs fences for other processes that registered for them, else 0.
fn has_membarrier() -> u32 {
    // GLOBAL_EXPEDITED and its registration, in the answer to QUERY.
    const WANTED: libc::c_long = 1 << 1 | 1 << 2;
    // SAFETY: membarrier takes no pointers.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
    u32::from(answer >= 0 && answer & WANTED == WANTED)
}

/// Polls for up to a minute, and on a slow machine for longer.
fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not come to pass");
}

/// The kernel's boot id: the hexadecimal digits in their order, two to a byte.
fn boot_id() -> Vec<u8> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().replace('-', "");
    let text = text.trim_end();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Field 22 of /proc/self/stat.
fn start_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(19).unwrap().parse().unwrap()
}

fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/pid").unwrap().ino()
}
