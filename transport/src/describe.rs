//! What a message looks like to its reader, so that two processes can refuse each other in words
//! before they misread each other's bytes.
//!
//! Here live the trait and its derive; `writer` has the text and its grammar, `schema` the finished
//! text and its fingerprint, `impls` the types of std. No file here knows of channels or segments.

mod impls;
mod schema;
mod writer;

pub use schema::Schema;
pub use writer::{SchemaWriter, VariantWriter};

/// Writes [`trait@Describe`] for a message.
///
/// ```
/// use ringway::rkyv::{Archive, Serialize};
/// use ringway::{Describe, Schema};
///
/// #[derive(Archive, Serialize, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// enum Side {
///     Bid,
///     Ask,
/// }
///
/// #[derive(Archive, Serialize, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Tick {
///     price: i64,
///     side: Side,
///     venue: Option<u16>,
/// }
///
/// assert_eq!(
///     Schema::of::<Tick>().text(),
///     "ringway schema 1\n\
///      archive rkyv 0.8 little-endian align 8 pointer 32\n\
///      Tick: struct Tick size 16 align 8\n\
///      Tick.price: i64 @0 size 8 align 8\n\
///      Tick.side: enum Side @8 size 1 align 1\n\
///      Tick.side::Bid: variant 0\n\
///      Tick.side::Ask: variant 1\n\
///      Tick.venue: Option<_> @10 size 4 align 2\n\
///      Tick.venue?: u16 @2 size 2 align 2\n"
/// );
/// ```
///
/// A field whose type has no `Describe` goes in by a name of your choice:
///
/// ```
/// # use ringway::rkyv::{Archive, Serialize};
/// # use ringway::{Describe, Schema};
/// #[derive(Archive, Serialize, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Login {
///     #[describe(opaque = "address of the client, v1")]
///     from: std::net::Ipv4Addr,
/// }
/// let text = Schema::of::<Login>().text().to_owned();
/// assert!(text.contains("Login.from: opaque \"address of the client, v1\" @0 size 4 align 1"));
/// ```
///
/// Refused: a field whose type has no `Describe` and no such name,
///
/// ```compile_fail,E0277
/// # use ringway::rkyv::{Archive, Serialize};
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Login { from: std::net::Ipv4Addr }
/// ```
///
/// a type that isn't archived,
///
/// ```compile_fail,E0277
/// # use ringway::Describe;
/// #[derive(Describe)]
/// struct Tick { price: i64 }
/// ```
///
/// shared ownership, which has no place in a message,
///
/// ```compile_fail,E0277
/// # use ringway::rkyv::{Archive, Serialize};
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Tick { price: std::sync::Arc<i64> }
/// ```
///
/// unions,
///
/// ```compile_fail
/// # use ringway::Describe;
/// #[derive(Describe)]
/// union Word { whole: u64, half: u32 }
/// ```
///
/// enums without variants,
///
/// ```compile_fail
/// # use ringway::Describe;
/// #[derive(Describe)]
/// enum Never {}
/// ```
///
/// lifetime parameters,
///
/// ```compile_fail
/// # use ringway::rkyv::{Archive, with::InlineAsBox};
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Line<'a> {
///     #[rkyv(with = InlineAsBox)]
///     #[describe(opaque = "text")]
///     text: &'a str,
/// }
/// ```
///
/// options that don't exist,
///
/// ```compile_fail
/// # use ringway::rkyv::Archive;
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Tick { #[describe(rename = "p")] price: i64 }
/// ```
///
/// options where none exist,
///
/// ```compile_fail
/// # use ringway::rkyv::Archive;
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// #[describe(opaque = "tick")]
/// struct Tick { price: i64 }
/// ```
///
/// an opaque field without a name, or with one that would break the text,
///
/// ```compile_fail
/// # use ringway::rkyv::Archive;
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Tick { #[describe(opaque)] price: i64 }
/// ```
///
/// ```compile_fail
/// # use ringway::rkyv::Archive;
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Tick { #[describe(opaque = "two\nlines")] price: i64 }
/// ```
///
/// and a field that rkyv archives as something else than its type says, without a name for it.
///
/// ```compile_fail
/// # use ringway::rkyv::{Archive, with::Skip};
/// # use ringway::Describe;
/// #[derive(Archive, Describe)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Tick { #[rkyv(with = Skip)] price: i64 }
/// ```
pub use ringway_derive::Describe;

/// A type that can say what its archived form looks like.
///
/// Derive it (see [`derive@Describe`]) on your messages. Both ends of a channel compare the
/// fingerprint of the [`Schema`] that results, so a description must hold everything that a reader
/// relies on: names, types, order, offsets, sizes. Module paths are not part of it, so a message may
/// be declared by two crates.
///
/// Implemented for numbers, `bool`, `char`, `String`, `Duration`, tuples and arrays, for `Box`,
/// `Vec`, `Option`, `Result` and std's maps and sets of such types, and for `[u8]`, which stands for
/// a channel of raw bytes. Not for `Rc` and `Arc`: a reader in another process owns nothing of them.
///
/// By hand, an implementation writes the line of its own type first, then its parts:
///
/// ```
/// use ringway::rkyv::{Archive, Archived};
/// use ringway::{Describe, Schema, SchemaWriter};
///
/// #[derive(Archive)]
/// #[rkyv(crate = ringway::rkyv)]
/// struct Money(i64);
///
/// impl Describe for Money {
///     fn describe(schema: &mut SchemaWriter) {
///         schema.plain::<Archived<Money>>("Money in cents");
///     }
/// }
/// assert!(Schema::of::<Money>().text().ends_with("message: Money in cents size 8 align 8\n"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema",
    label = "`Describe` is not implemented for `{Self}`",
    note = "derive it beside rkyv's Archive, #[derive(ringway::rkyv::Archive, ringway::Describe)], \
            or put #[describe(opaque = \"name\")] on the field",
    note = "Rc, Arc and Weak do not belong in messages"
)]
pub trait Describe: 'static {
    /// Writes the line of this type, then those of its parts. Allocates; runs once for each handle
    /// that is opened, never for a message.
    fn describe(schema: &mut SchemaWriter);
}
