//! Frames and greetings: whatever bytes come, they are a frame that fits its bounds and prints as
//! the same bytes, or they are refused; and more bytes never turn a refusal into a greeting.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::{net, seeds};
use ringway_net::frame::{HEADER_LEN, Header, Kind, frame_len};
use ringway_net::session::{Direction, Greeting};

fn header(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<HEADER_LEN>() else { return };
    let header = Header::from_bytes(*bytes);
    assert_eq!(header.to_bytes(), *bytes);
    for body_max in [0, 100, u32::MAX] {
        let Ok((kind, len)) = header.check(body_max) else { continue };
        assert_eq!(len, frame_len(header.len));
        assert!(len.is_multiple_of(16) && len >= 16 + u64::from(header.len));
        assert!(kind != Kind::Data || header.len <= body_max);
        assert!(kind == Kind::Data || len <= 240);
        assert!(header.flags <= 2 && (header.flags == 0 || kind == Kind::Data));
        assert!(header.flags != 2 || header.len == 8);
        assert_eq!(header.stream, 0);
    }
}

fn greeting(data: &[u8]) {
    for kind in [Kind::Hello, Kind::Welcome] {
        let whole = Greeting::read(kind, data);
        if let Ok(Some(greeting)) = &whole {
            let bytes = greeting.to_bytes(kind);
            assert_eq!(Greeting::read(kind, &bytes), whole);
        }
        let mut refused = None;
        for len in 0..=data.len().min(300) {
            let read = Greeting::read(kind, &data[..len]);
            if let Some(refused) = &refused {
                assert_eq!(&read, refused, "it changed its mind at {len}");
            }
            if read.is_err() {
                refused = Some(read);
            }
        }
    }
}

fuzz_target!(
    init: {
        let hello = net::greeting(Direction::Sends, 1, 0).to_bytes(Kind::Hello).to_vec();
        let welcome = net::greeting(Direction::Receives, 9, 48).to_bytes(Kind::Welcome).to_vec();
        let future = [&hello[..24], &[2, 0, 0, 0]].concat();
        let small = Kind::ALL.map(|kind| Header::control(kind, 48).to_bytes().to_vec());
        let data = Header::data(99, 7).to_bytes().to_vec();
        seeds::write([hello, welcome, future, data, vec![]].into_iter().chain(small));
    },
    |data: &[u8]| {
        header(data);
        greeting(data);
    }
);
