//! What a receiver makes of bytes that claim to be a message: those that are one are read as sent, and of
//! all others it says so. No channel here: what is asked is what every receiver asks.

use proptest::prelude::*;
use ringway::rkyv::util::AlignedVec;
use ringway::rkyv::{self, Archive, Serialize};
use ringway::{Describe, Message};

/// Nothing out of line, but not all bytes are one.
#[derive(Archive, Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Quote {
    price: i64,
    is_bid: bool,
    venue: Option<u8>,
}

#[derive(Archive, Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Text {
    words: Vec<String>,
}

/// Points to more of itself.
#[derive(Archive, Serialize, Describe)]
#[rkyv(
    crate = ringway::rkyv,
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
)]
struct Chain {
    #[rkyv(omit_bounds)]
    next: Option<Box<Chain>>,
}

fn chain(links: usize) -> AlignedVec {
    // Link by link, as serialising it would take as much stack as there are links.
    const LINK: usize = size_of::<rkyv::Archived<Chain>>();
    let mut bytes = AlignedVec::new();
    let last = rkyv::to_bytes::<rkyv::rancor::Error>(&Chain { next: None }).unwrap();
    let one = Chain { next: Some(Box::new(Chain { next: None })) };
    let pair = rkyv::to_bytes::<rkyv::rancor::Error>(&one).unwrap();
    assert_eq!((last.len(), pair.len()), (LINK, 2 * LINK));
    bytes.extend_from_slice(&last);
    for _ in 1..links {
        // Relative: each points to the one before it.
        bytes.extend_from_slice(&pair[LINK..]);
    }
    bytes
}

fn links(mut chain: &rkyv::Archived<Chain>) -> usize {
    let mut links = 1;
    while let Some(next) = chain.next.as_ref() {
        (chain, links) = (next, links + 1);
    }
    links
}

fn aligned(bytes: &[u8]) -> AlignedVec {
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(bytes);
    aligned
}

#[test]
fn a_message_alone_is_read_as_sent() {
    let quote = Quote { price: -7, is_bid: true, venue: Some(9) };
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&quote).unwrap();
    let view = Quote::view(&bytes).unwrap();
    assert_eq!((view.price.to_native(), view.is_bid), (-7, true));
    assert_eq!(view.venue.as_ref(), Some(&9));
}

#[test]
fn a_value_that_is_none_is_refused() {
    let quote = Quote { price: 1, is_bid: true, venue: None };
    let mut bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&quote).unwrap();
    let at = std::mem::offset_of!(rkyv::Archived<Quote>, is_bid);
    bytes[at] = 2;
    assert!(Quote::view(&bytes).is_none(), "a bool of 2");
    assert!(Quote::view_run(&bytes, 1).is_none());
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let quote = Quote { price: 1, is_bid: false, venue: None };
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&quote).unwrap();
    for len in 0..bytes.len() {
        assert!(Quote::view(&bytes[..len]).is_none(), "{len} of {} bytes", bytes.len());
    }
    assert!(Quote::view_run(&bytes, 2).is_none());
}

#[test]
fn bytes_out_of_place_are_refused() {
    let quote = Quote { price: 1, is_bid: false, venue: None };
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&quote).unwrap();
    let mut moved = aligned(&[0]);
    moved.extend_from_slice(&bytes);
    assert!(Quote::view(&moved[1..]).is_none());
}

#[test]
fn a_message_may_not_point_to_itself() {
    let pair = chain(2);
    let own = pair.len() / 2;
    // Alone, it has nothing before it to point to.
    let mut alone = aligned(&pair[own..]);
    assert!(Chain::view(&alone).is_none());
    let at = alone.len() - 4;
    for target in -64_i32..64 {
        alone[at..].copy_from_slice(&target.to_le_bytes());
        assert!(Chain::view(&alone).is_none(), "{target} bytes from its pointer");
        assert!(Chain::view_run(&alone, 1).is_none());
    }
}

#[test]
fn depth_is_bounded_and_refused_beyond() {
    for depth in [1, 2, 500, 1024] {
        assert_eq!(Chain::view(&chain(depth)).map(links), Some(depth));
    }
    for depth in [1025, 100_000, 1_000_000] {
        assert!(Chain::view(&chain(depth)).is_none(), "{depth} links");
    }
}

proptest! {
    /// Whatever is changed: what is called valid can be read to its end.
    #[test]
    fn what_is_called_valid_can_be_read(
        words in prop::collection::vec("[a-zé]{0,12}", 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = Text { words };
        let mut bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&text).unwrap();
        let is_same = changes.is_empty();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let view = Text::view(&bytes);
        if is_same {
            let read: Vec<&str> = view.unwrap().words.iter().map(|word| word.as_str()).collect();
            prop_assert_eq!(read, text.words);
        } else if let Some(view) = view {
            prop_assert!(view.words.iter().map(|word| word.chars().count()).sum::<usize>() <= 1 << 16);
        }
        let cut = cut.index(bytes.len());
        let _ = Text::view(&aligned(&bytes[..cut]));
    }
}
