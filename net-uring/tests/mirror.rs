//! The mirrored ring: what is written at one address is read at the other.

use std::fs;

use proptest::prelude::*;
use ringway_net::ErrorKind;
use ringway_net::frame::Header;
use ringway_net::mirror::{Ring, Span};
use ringway_net::session::Headers;

fn write(span: Span, bytes: &[u8]) {
    assert!(bytes.len() <= span.len);
    // SAFETY: within the span of a ring that the test alone uses.
    unsafe { span.start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

fn read(span: Span) -> Vec<u8> {
    // SAFETY: the whole span, of a ring that the test alone uses.
    (0..span.len).map(|offset| unsafe { span.start.add(offset).read_volatile() }).collect()
}

#[test]
fn a_range_across_the_end_is_one_piece() {
    let ring = Ring::new(8192).unwrap();
    let bytes: Vec<u8> = (0..1000).map(|index| (index * 7) as u8).collect();
    write(ring.span(8192 - 500, 1000), &bytes);
    assert_eq!(read(ring.span(0, 500)), bytes[500..]);
    assert_eq!(read(ring.span(8192 - 500, 500)), bytes[..500]);
    // And the other way round.
    write(ring.span(16, 4), b"more");
    assert_eq!(&read(ring.span(8192 * 7 - 16, 64))[32..36], b"more");
    // The whole ring from anywhere, and never more than that.
    assert_eq!(ring.span(u64::MAX, usize::MAX).len, 8192);
    assert_eq!(read(ring.span(8191, 8192)).len(), 8192);
}

#[test]
fn a_ring_begins_where_it_is_told_to() {
    let mut ring = Ring::new(4096).unwrap();
    let front = ring.span(0, 1).start;
    write(ring.span(0, 5), b"first");
    let old = ring.view();
    ring.begin_at(3 * 4096 + 1000);
    // At a line, so that what is aligned stays so.
    let at = 3 * 4096 + 960;
    assert_eq!(ring.span(at, 1).start, front);
    assert_eq!(read(ring.span(at, 5)), b"first");
    assert_eq!((ring.view().offset(at), ring.view().offset(at + 4096 + 7)), (0, 7));
    // A range across the end is one piece as before, and positions may be below the front's.
    let bytes: Vec<u8> = (0..1000).map(|index| (index * 7) as u8).collect();
    write(ring.span(at - 500, 1000), &bytes);
    assert_eq!(read(ring.span(at + 4096, 500)), bytes[500..]);
    assert_eq!(ring.span(16, 1).start as usize % 64, 16);
    // A view of before has the old places.
    assert_eq!(old.span(0, 1).start, front);
}

#[test]
fn what_is_a_multiple_of_16_is_aligned_to_it() {
    let ring = Ring::new(4096).unwrap();
    for position in (0..3 * 4096).step_by(16) {
        assert_eq!(ring.span(position, 16).start as usize % 16, 0);
    }
}

#[test]
fn headers_are_found_where_they_lie() {
    let ring = Ring::new(4096).unwrap();
    let header = Header::data(77, 4096 * 3 - 16);
    write(ring.span(4096 * 3 - 16, 16), &header.to_bytes());
    assert_eq!(Header::from_bytes(ring.header(4096 * 3 - 16)), header);
    assert_eq!(Header::from_bytes(ring.header(4096 - 16)), header);
}

#[test]
fn sizes_that_no_ring_has_are_refused_with_one_that_it_has() {
    for (capacity, remedy) in
        [(0, "4096"), (1, "4096"), (5000, "8192"), (100_000, "131072"), (u64::MAX, "4294967296")]
    {
        let error = Ring::new(capacity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOption);
        let text = error.to_string();
        assert!(text.ends_with(&format!("Set `capacity` to {remedy}")), "{text}");
    }
}

#[test]
fn lack_of_addresses_is_an_error_with_a_remedy() {
    // In a process of its own: the limit stays.
    let limited = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "limited", "--test-threads=1", "--nocapture"])
        .env("RINGWAY_TEST_LIMITED", "1")
        .output()
        .unwrap();
    assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stdout));
}

#[test]
fn limited() {
    if std::env::var_os("RINGWAY_TEST_LIMITED").is_none() {
        return;
    }
    let limit = libc::rlimit { rlim_cur: 2 << 30, rlim_max: 2 << 30 };
    // SAFETY: a live value.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    let error = Ring::new(1 << 31).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("`capacity`"), "{error}");
    // What was taken on the way was given back.
    drop(Ring::new(1 << 20).unwrap());
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    let mapped = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("ringway-net")).count()
    };
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, descriptors) = (mapped(), open());
    for _ in 0..200 {
        drop([Ring::new(1 << 20).unwrap(), Ring::new(4096).unwrap()]);
    }
    // 400 rings would be 800 mappings and 400 descriptors; the other tests have a few.
    assert!(mapped() < before + 50 && open() < descriptors + 50);
}

#[test]
fn it_moves_between_threads() {
    let ring = Ring::new(4096).unwrap();
    write(ring.span(4090, 5), b"hello");
    let ring = std::thread::spawn(move || {
        assert_eq!(read(ring.span(4090, 5)), b"hello");
        ring
    })
    .join()
    .unwrap();
    assert_eq!(read(ring.span(4090, 5)), b"hello");
}

proptest! {
    #[test]
    fn every_byte_has_its_two_addresses(
        shift in 12_u32..16, position: u64, len in 1_usize..5000, value: u8,
    ) {
        let ring = Ring::new(1 << shift).unwrap();
        let span = ring.span(position, len);
        let bytes: Vec<u8> = (0..span.len).map(|index| value.wrapping_add(index as u8)).collect();
        write(span, &bytes);
        for (index, byte) in bytes.iter().enumerate() {
            let at = ring.span(position.wrapping_add(index as u64), 1);
            prop_assert_eq!(read(at)[0], *byte);
        }
    }
}
