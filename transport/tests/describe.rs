//! Schemas of derived messages: what must differ does, what is told of offsets is true, and the
//! text stays the same from build to build.
//!
//! The messages here are described, never sent, so most of their fields are never read.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::marker::PhantomData;
use std::time::Duration;

use ringway::rkyv::rancor::Error;
use ringway::rkyv::with::Skip;
use ringway::rkyv::{self, Archive, Archived, Deserialize, Serialize};
use ringway::{Describe, Schema};

/// The message of the golden text.
#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Order {
    id: u64,
    side: Side,
    venue: Venue,
    limit: Option<i64>,
    legs: Vec<Leg>,
    hidden: Leg,
    tags: BTreeMap<String, (u8, f64)>,
    r#type: Kind,
    day: Day,
    #[describe(opaque = "raw flags v2")]
    flags: [u16; 3],
    none: Nothing,
}

#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
enum Side {
    Bid,
    Ask,
}

#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Venue(u16, [u8; 4]);

#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Leg {
    price: i64,
    side: Side,
}

#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
enum Kind {
    Market,
    Limit(u8, i64),
    Peg { to: Side, by: i32 },
}

const TUESDAY: u8 = 20;

#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
#[repr(u8)]
enum Day {
    Monday = 7,
    Tuesday = TUESDAY,
    Wednesday,
}

#[derive(Archive, Serialize, Deserialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Nothing;

#[test]
fn golden_text_and_fingerprint() {
    let schema = Schema::of::<Order>();
    let expected = r#"ringway schema 1
archive rkyv 0.8 little-endian align 8 pointer 32
Order: struct Order size 88 align 8
Order.id: u64 @0 size 8 align 8
Order.side: enum Side @8 size 1 align 1
Order.side::Bid: variant 0
Order.side::Ask: variant 1
Order.venue: struct Venue @10 size 6 align 2
Order.venue.0: u16 @0 size 2 align 2
Order.venue.1: [_; 4] @2 size 4 align 1
Order.venue.1[]: u8 size 1 align 1
Order.limit: Option<_> @16 size 16 align 8
Order.limit?: i64 @8 size 8 align 8
Order.legs: Vec<_> @32 size 8 align 4
Order.legs[]: struct Leg size 16 align 8
Order.legs[].price: i64 @0 size 8 align 8
Order.legs[].side: enum Side @8 size 1 align 1 as Order.side
Order.hidden: struct Leg @40 size 16 align 8 as Order.legs[]
Order.tags: BTreeMap<_, _> @56 size 8 align 4
Order.tags{key}: String size 8 align 4
Order.tags{value}: (_, _) size 16 align 8
Order.tags{value}.0: u8 @0 size 1 align 1
Order.tags{value}.1: f64 @8 size 8 align 8
Order.type: enum Kind @64 size 16 align 8
Order.type::Market: variant 0
Order.type::Limit: variant 1
Order.type::Limit.0: u8 @1 size 1 align 1
Order.type::Limit.1: i64 @8 size 8 align 8
Order.type::Peg: variant 2
Order.type::Peg.to: enum Side @1 size 1 align 1 as Order.side
Order.type::Peg.by: i32 @4 size 4 align 4
Order.day: enum Day @80 size 1 align 1
Order.day::Monday: variant 7
Order.day::Tuesday: variant 20
Order.day::Wednesday: variant 21
Order.flags: opaque "raw flags v2" @82 size 6 align 2
Order.none: struct Nothing @88 size 0 align 1
"#;
    assert_eq!(schema.text(), expected, "\n{schema}");
    assert_eq!(schema.fingerprint(), 0x523a_7e2d_20b0_d54f);
}

/// A line of a schema, taken apart by the grammar that `SchemaWriter`'s module tells.
#[derive(Debug, PartialEq)]
struct Line {
    path: String,
    what: String,
    offset: Option<usize>,
    size: Option<usize>,
    align: Option<usize>,
    place: Option<String>,
}

fn lines(schema: &Schema) -> Vec<Line> {
    let mut lines = schema.text().lines();
    assert_eq!(lines.next(), Some("ringway schema 1"));
    let format = lines.next().expect("a second line");
    assert!(format.starts_with("archive rkyv 0.8 "), "{format}");
    lines.map(take_apart).collect()
}

fn take_apart(line: &str) -> Line {
    let (path, rest) = line.split_once(": ").unwrap_or_else(|| panic!("no path: {line}"));
    // An opaque name may hold any of these words, but no quote.
    let (named, rest) = rest.split_at(rest.rfind('"').map_or(0, |last| last + 1));
    let (rest, place) = cut(rest, " as ");
    let (rest, align) = cut(rest, " align ");
    let (rest, size) = cut(rest, " size ");
    let (rest, offset) = cut(rest, " @");
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    Line {
        path: path.to_owned(),
        what: format!("{named}{rest}"),
        offset: offset.map(number),
        size: size.map(number),
        align: align.map(number),
        place: place.map(str::to_owned),
    }
}

fn cut<'a>(text: &'a str, mark: &str) -> (&'a str, Option<&'a str>) {
    match text.rsplit_once(mark) {
        Some((left, right)) => (left, Some(right)),
        None => (text, None),
    }
}

/// The line of `path`, which must be there once.
fn line(schema: &Schema, path: &str) -> Line {
    let mut found: Vec<Line> = lines(schema).into_iter().filter(|l| l.path == path).collect();
    assert_eq!(found.len(), 1, "lines of {path} in\n{schema}");
    found.remove(0)
}

/// Bytes from the start of `whole` to `part`.
fn distance<A, B>(whole: &A, part: &B) -> Option<usize> {
    Some(std::ptr::from_ref(part).addr() - std::ptr::from_ref(whole).addr())
}

#[test]
fn offsets_are_those_of_the_archived_bytes() {
    let order = Order {
        id: 1,
        side: Side::Ask,
        venue: Venue(2, *b"XETR"),
        limit: Some(3),
        legs: vec![Leg { price: 4, side: Side::Bid }],
        hidden: Leg { price: 5, side: Side::Bid },
        tags: BTreeMap::from([("a".to_owned(), (1, 2.0))]),
        r#type: Kind::Peg { to: Side::Ask, by: -1 },
        day: Day::Wednesday,
        flags: [1, 2, 3],
        none: Nothing,
    };
    let bytes = rkyv::to_bytes::<Error>(&order).expect("serialize");
    let order = rkyv::access::<Archived<Order>, Error>(&bytes).expect("access");
    let schema = Schema::of::<Order>();
    let offset = |path: &str| line(&schema, path).offset;

    assert_eq!(offset("Order"), None);
    assert_eq!(offset("Order.id"), distance(order, &order.id));
    assert_eq!(offset("Order.side"), distance(order, &order.side));
    assert_eq!(offset("Order.venue.1"), distance(&order.venue, &order.venue.1));
    assert_eq!(offset("Order.limit"), distance(order, &order.limit));
    let limit = order.limit.as_ref().expect("some");
    assert_eq!(offset("Order.limit?"), distance(&order.limit, limit));
    assert_eq!(offset("Order.legs"), distance(order, &order.legs));
    assert_eq!(offset("Order.legs[]"), None);
    assert_eq!(offset("Order.legs[].side"), distance(&order.legs[0], &order.legs[0].side));
    assert_eq!(offset("Order.type"), distance(order, &order.r#type));
    let ArchivedKind::Peg { to, by } = &order.r#type else { panic!("another variant") };
    assert_eq!(offset("Order.type::Peg.to"), distance(&order.r#type, to));
    assert_eq!(offset("Order.type::Peg.by"), distance(&order.r#type, by));
    assert_eq!(offset("Order.flags"), distance(order, &order.flags));
    for (key, value) in order.tags.iter() {
        assert_eq!(key.as_str(), "a");
        assert_eq!(offset("Order.tags{value}.1"), distance(value, &value.1));
    }
    // The tag of an enum is its first byte.
    let day = &bytes[distance(&bytes[0], &order.day).expect("within")..];
    assert_eq!(line(&schema, "Order.day::Wednesday").what, format!("variant {}", day[0]));

    let (top, kind) = (line(&schema, "Order"), line(&schema, "Order.type"));
    assert_eq!(top.size, Some(size_of::<ArchivedOrder>()));
    assert_eq!(top.align, Some(align_of::<ArchivedOrder>()));
    assert_eq!(kind.size, Some(size_of::<ArchivedKind>()));
    assert_eq!(line(&schema, "Order.hidden").place.as_deref(), Some("Order.legs[]"));
}

#[test]
fn offsets_in_tuples_and_results() {
    type Message = (u8, Result<u32, (u8, u64)>);
    let bytes = rkyv::to_bytes::<Error>(&(7u8, Err::<u32, _>((1u8, 2u64)))).expect("serialize");
    let message = rkyv::access::<Archived<Message>, Error>(&bytes).expect("access");
    let schema = Schema::of::<Message>();
    assert_eq!(line(&schema, "message").what, "(_, _)");
    assert_eq!(line(&schema, "message.1").offset, distance(message, &message.1));
    let rkyv::result::ArchivedResult::Err(error) = &message.1 else { panic!("not an error") };
    assert_eq!(line(&schema, "message.1::Err.0").offset, distance(&message.1, error));
    assert_eq!(line(&schema, "message.1::Err.0.1").offset, distance(error, &error.1));
    assert_eq!(line(&schema, "message.1::Ok.0").what, "u32");
    assert_eq!(line(&schema, "message.1::Ok.0").offset, Some(4));
}

/// Declares a module whose `Tick` is made of these items.
macro_rules! tick {
    ($module:ident: $($items:tt)*) => {
        mod $module {
            use ringway::Describe;
            use ringway::rkyv::Archive;
            $($items)*
        }
    };
}

tick!(first:
    pub(super) type Price = i64;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) enum Side { Bid, Ask }
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { price: Price, size: i64, side: Side }
);
tick!(elsewhere:
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) enum Side { Bid, Ask }
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { pub(super) price: i64, pub(super) size: i64, pub(super) side: Side }
);
tick!(swapped:
    use super::first::*;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { size: i64, price: Price, side: Side }
);
tick!(other_alias:
    use super::first::Side;
    pub(super) type Price = u64;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { price: Price, size: i64, side: Side }
);
tick!(renamed_field:
    use super::first::*;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { price: Price, quantity: i64, side: Side }
);
tick!(renamed_type:
    use super::first::*;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tock { price: Price, size: i64, side: Side }
);
tick!(other_order:
    use super::first::Price;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) enum Side { Ask, Bid }
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { price: Price, size: i64, side: Side }
);
tick!(other_tag:
    use super::first::Price;
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) enum Side { Bid, Ask = 2 }
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { price: Price, size: i64, side: Side }
);
tick!(more_fields:
    use super::first::*;
    // In the padding: neither the size nor another offset changes.
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    pub(super) struct Tick { price: Price, size: i64, side: Side, last: bool }
);

#[test]
fn module_paths_and_visibility_do_not_count() {
    assert_eq!(Schema::of::<first::Tick>(), Schema::of::<elsewhere::Tick>());
}

#[test]
fn every_change_that_misleads_a_reader_shows_in_its_line() {
    let from = Schema::of::<first::Tick>();
    let changed = |to: Schema| {
        assert_ne!(from.fingerprint(), to.fingerprint(), "\n{to}");
        let old: BTreeSet<&str> = from.text().lines().collect();
        let new: BTreeSet<&str> = to.text().lines().collect();
        let told = |lines: BTreeSet<&str>| lines.into_iter().map(str::to_owned).collect::<Vec<_>>();
        (told(&old - &new), told(&new - &old))
    };
    let (gone, come) = changed(Schema::of::<swapped::Tick>());
    assert_eq!(gone, ["Tick.price: i64 @0 size 8 align 8", "Tick.size: i64 @8 size 8 align 8"]);
    assert_eq!(come, ["Tick.price: i64 @8 size 8 align 8", "Tick.size: i64 @0 size 8 align 8"]);

    let (gone, come) = changed(Schema::of::<other_alias::Tick>());
    assert_eq!(gone, ["Tick.price: i64 @0 size 8 align 8"]);
    assert_eq!(come, ["Tick.price: u64 @0 size 8 align 8"]);

    let (gone, come) = changed(Schema::of::<renamed_field::Tick>());
    assert_eq!(gone, ["Tick.size: i64 @8 size 8 align 8"]);
    assert_eq!(come, ["Tick.quantity: i64 @8 size 8 align 8"]);

    let (gone, come) = changed(Schema::of::<other_order::Tick>());
    assert_eq!(gone, ["Tick.side::Ask: variant 1", "Tick.side::Bid: variant 0"]);
    assert_eq!(come, ["Tick.side::Ask: variant 0", "Tick.side::Bid: variant 1"]);

    let (gone, come) = changed(Schema::of::<other_tag::Tick>());
    assert_eq!(gone, ["Tick.side::Ask: variant 1"]);
    assert_eq!(come, ["Tick.side::Ask: variant 2"]);

    let (gone, come) = changed(Schema::of::<more_fields::Tick>());
    assert_eq!(gone, [""; 0]);
    assert_eq!(come, ["Tick.last: bool @17 size 1 align 1"]);

    let (gone, come) = changed(Schema::of::<renamed_type::Tock>());
    assert_eq!(gone.len(), 6, "{gone:?}");
    assert!(come.contains(&"Tock: struct Tock size 24 align 8".to_owned()), "{come:?}");
}

/// A type that only its module can name.
#[derive(Archive, Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Inner<T> {
    value: T,
}

trait Unit: 'static {
    type Number: Archive;
}

#[derive(Archive, Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Euro;

impl Unit for Euro {
    type Number = i64;
}

#[derive(Archive, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Wide<T, U: Unit, const N: usize>
where
    T: Default,
{
    plain: T,
    inner: Inner<Vec<T>>,
    map: BTreeMap<T, u8>,
    hashed: HashMap<T, T>,
    number: U::Number,
    unit: PhantomData<U>,
    array: [T; N],
    #[describe(opaque = "whatever T is")]
    secret: Option<T>,
    #[rkyv(with = Skip)]
    #[describe(opaque = "not archived")]
    skipped: Box<T>,
}

#[test]
fn generic_types_show_their_arguments() {
    let schema = Schema::of::<Wide<u16, Euro, 5>>();
    assert_eq!(line(&schema, "Wide").size, Some(size_of::<Archived<Wide<u16, Euro, 5>>>()));
    assert_eq!(line(&schema, "Wide.plain").what, "u16");
    assert_eq!(line(&schema, "Wide.inner.value[]").what, "u16");
    assert_eq!(line(&schema, "Wide.map{key}").what, "u16");
    assert_eq!(line(&schema, "Wide.number").what, "i64");
    assert_eq!(line(&schema, "Wide.unit*").what, "struct Euro");
    assert_eq!(line(&schema, "Wide.array").what, "[_; 5]");
    assert_eq!(line(&schema, "Wide.array").size, Some(10));
    assert_eq!(line(&schema, "Wide.secret").what, "opaque \"whatever T is\"");
    assert_eq!(line(&schema, "Wide.secret").size, Some(4));
    assert_eq!(line(&schema, "Wide.skipped").size, Some(0));
    assert_ne!(schema, Schema::of::<Wide<i16, Euro, 5>>());
    assert_ne!(schema, Schema::of::<Wide<u16, Euro, 4>>());
}

#[derive(Archive, Describe)]
#[rkyv(crate = ringway::rkyv)]
#[rkyv(bytecheck(bounds(
    __C: rkyv::validation::ArchiveContext,
    <__C as rkyv::rancor::Fallible>::Error: rkyv::rancor::Source,
)))]
enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(#[rkyv(omit_bounds)] Vec<Json>),
    Object(#[rkyv(omit_bounds)] HashMap<String, Json>),
}

#[derive(Archive, Describe)]
#[rkyv(crate = ringway::rkyv)]
#[rkyv(bytecheck(bounds(
    __C: rkyv::validation::ArchiveContext,
    <__C as rkyv::rancor::Fallible>::Error: rkyv::rancor::Source,
)))]
struct Chain<T> {
    value: T,
    #[rkyv(omit_bounds)]
    next: Option<Box<Chain<T>>>,
}

#[derive(Archive, Describe)]
#[rkyv(crate = ringway::rkyv)]
struct Chains {
    narrow: Chain<u8>,
    wide: Chain<u64>,
}

#[test]
fn types_that_contain_themselves_come_to_an_end() {
    let schema = Schema::of::<Json>();
    assert_eq!(line(&schema, "Json::Array.0[]").place.as_deref(), Some("Json"));
    assert_eq!(line(&schema, "Json::Object.0{value}").place.as_deref(), Some("Json"));
    assert_eq!(lines(&schema).len(), 15, "{schema}");

    // Two types of one bare name are told apart by the path.
    let schema = Schema::of::<Chains>();
    assert_eq!(line(&schema, "Chains.narrow.next?*").place.as_deref(), Some("Chains.narrow"));
    assert_eq!(line(&schema, "Chains.wide.next?*").place.as_deref(), Some("Chains.wide"));
}

macro_rules! doubling {
    ($($outer:ident of $inner:ty),*) => {$(
        #[derive(Archive, Describe)]
        #[rkyv(crate = ringway::rkyv)]
        struct $outer {
            left: Vec<$inner>,
            right: Vec<$inner>,
        }
    )*};
}
doubling!(D1 of u8, D2 of D1, D3 of D2, D4 of D3, D5 of D4, D6 of D5, D7 of D6, D8 of D7);

#[test]
fn text_grows_with_declarations_not_with_paths() {
    let schema = Schema::of::<D8>();
    assert!(lines(&schema).len() < 8 * 6, "{schema}");
}

#[test]
fn opaque_fields_count_by_name_size_and_align() {
    #[derive(Archive, Describe)]
    #[rkyv(crate = ringway::rkyv)]
    enum Event {
        From(u8, #[describe(opaque = "client @7 size 1 as: it")] std::net::Ipv4Addr),
        Hidden(
            #[describe(opaque = "gone")]
            #[rkyv(with = Skip)]
            u64,
        ),
    }
    let schema = Schema::of::<Event>();
    let from = line(&schema, "Event::From.1");
    assert_eq!(from.what, "opaque \"client @7 size 1 as: it\"");
    assert_eq!((from.offset, from.size, from.align), (Some(2), Some(4), Some(1)));
    let hidden = line(&schema, "Event::Hidden.0");
    assert_eq!((hidden.offset, hidden.size, hidden.align), (Some(1), Some(0), Some(1)));
}

#[test]
fn each_supported_type_has_one_line_of_the_right_size() {
    fn check<T: Describe + Archive>(what: &str) {
        let schema = Schema::of::<T>();
        let top = line(&schema, "message");
        assert_eq!(top.what, what, "\n{schema}");
        assert_eq!(top.size, Some(size_of::<Archived<T>>()), "\n{schema}");
        assert_eq!(top.align, Some(align_of::<Archived<T>>()), "\n{schema}");
    }
    macro_rules! check {
        ($($type:ident)*) => {$( check::<$type>(stringify!($type)); )*};
    }
    check!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char String Duration);
    {
        use std::num::*;
        check!(NonZeroU8 NonZeroU16 NonZeroU32 NonZeroU64 NonZeroU128);
        check!(NonZeroI8 NonZeroI16 NonZeroI32 NonZeroI64 NonZeroI128);
        check::<NonZeroUsize>("NonZeroUsize(u32)");
        check::<NonZeroIsize>("NonZeroIsize(i32)");
    }
    check::<usize>("usize(u32)");
    check::<isize>("isize(i32)");
    check::<()>("()");
    check::<Box<u8>>("Box<_>");
    check::<Box<[u8]>>("Box<[_]>");
    check::<Box<str>>("Box<str>");
    check::<Vec<String>>("Vec<_>");
    check::<[Vec<u8>; 0]>("[_; 0]");
    check::<Option<Box<str>>>("Option<_>");
    check::<Result<(), String>>("Result<_, _>");
    check::<(u8,)>("(_,)");
    check::<(u8, u16, u32, u64, u128, i8, bool, char)>("(_, _, _, _, _, _, _, _)");
    check::<BTreeMap<String, u8>>("BTreeMap<_, _>");
    check::<BTreeSet<String>>("BTreeSet<_>");
    check::<HashMap<String, u8>>("HashMap<_, _>");
    check::<HashSet<String>>("HashSet<_>");
    check::<PhantomData<String>>("PhantomData<_>");
}
