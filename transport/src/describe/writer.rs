//! The text of a schema: its grammar, and the writer that keeps to it. Which types exist, and what
//! becomes of the finished text, is not known here.
//!
//! A schema is a tree of types written depth first, one line for each:
//!
//! ```text
//! schema  = "ringway schema 1" LF [ format LF ] type
//! format  = "archive rkyv 0.8 " ("little" | "big") "-endian align " NUMBER " pointer " NUMBER
//! type    = PATH ": " what [ " @" NUMBER ] " size " NUMBER " align " NUMBER [ " as " PATH ] LF
//!           { type | variant }
//!         | PATH ": bytes" LF
//! variant = PATH "::" NAME ": variant " NUMBER LF { type }
//! what    = "struct " NAME | "enum " NAME | "opaque " QUOTED | WORDS
//! ```
//!
//! - `PATH` starts with the name of the message, or with `message` if that is no struct or enum. It
//!   grows by `.field` (a number in tuples), `::Variant`, `?` (what an `Option` holds), `[]` (an
//!   element of an array, list or set), `{key}` and `{value}` (of a map), `*` (what a `Box` holds).
//! - `WORDS` is a type of std, spelled as in Rust with `_` for each part that has a line of its own:
//!   `u64`, `Vec<_>`, `[_; 8]`. The archived form of `usize` is told: `usize(u32)`.
//! - `@` is the offset in bytes in the archived struct, tuple, enum or option that the line above it
//!   in the tree stands for; in enums the tag is the byte at 0. Elements of lists and maps, and what
//!   boxes hold, lie elsewhere and have no offset. Size and alignment are the archived type's.
//! - A struct or enum is written out where it occurs first. Later lines of the same type end in `as`
//!   and the path of that place, so that types that contain themselves come to an end and the text
//!   stays as short as the declarations. The same means: to the compiler, not by name.
//! - Raw bytes have neither size nor format, and the schema of a channel of them is two lines.
//!
//! A change of the grammar needs a new number in the first line.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt::{self, Write};

use rkyv::{Archive, Archived};

use super::Describe;

/// Writes the text of a schema; each type that is [`Describe`] calls it.
#[derive(Debug)]
pub struct SchemaWriter {
    body: String,
    /// Where in the message the next line is; empty until the first.
    path: String,
    /// The next line's offset in what contains it.
    offset: Option<usize>,
    /// Where each struct and enum was written out.
    written: HashMap<TypeId, String>,
    /// Whether something has an archived form, so that the format matters.
    archived: bool,
    /// The largest alignment met.
    align: usize,
}

impl SchemaWriter {
    /// Writes the line of a type that is neither struct nor enum: `what` in the grammar of the
    /// text, the size and alignment of `A`, its archived form. Its parts, if any, follow with
    /// [`part`](Self::part). `what` must be one line, and the same for every build.
    pub fn plain<A>(&mut self, what: &str) {
        self.line(what, Some(Layout::of::<A>()), None);
    }

    /// Writes what a type with a line of its own is made of: `step` is appended to the path,
    /// `offset` is in bytes in the archived form of the container, if it lies in there.
    pub fn part<T: Describe + ?Sized>(&mut self, step: &str, offset: Option<usize>) {
        self.within(step, offset, T::describe);
    }

    /// Writes the line of the struct `T`, by its bare name, then its fields.
    ///
    /// `fields` is called unless the type was written out before.
    pub fn structure<T: Archive + 'static>(&mut self, name: &str, fields: impl FnOnce(&mut Self)) {
        self.named::<T>("struct", name, fields);
    }

    /// Writes the line of the enum `T`, by its bare name, then its variants.
    ///
    /// `variants` is called unless the type was written out before.
    pub fn enumeration<T: Archive + 'static>(
        &mut self,
        name: &str,
        variants: impl FnOnce(&mut Self),
    ) {
        self.named::<T>("enum", name, variants);
    }

    /// Writes a field of a struct: `offset` is in bytes in the archived struct.
    pub fn field<T: Describe>(&mut self, name: &str, offset: usize) {
        self.within(&format!(".{name}"), Some(offset), T::describe);
    }

    /// Writes a field that is archived as `A` and described by nothing but `label`.
    pub fn opaque_field<A>(&mut self, name: &str, offset: usize, label: &str) {
        self.within(&format!(".{name}"), Some(offset), |schema| schema.opaque::<A>(label));
    }

    /// Writes a variant of an enum with the value of its tag, then its fields.
    pub fn variant(&mut self, name: &str, tag: u8, fields: impl FnOnce(&mut VariantWriter<'_>)) {
        self.within(&format!("::{name}"), None, |schema| {
            schema.line(&format!("variant {tag}"), None, None);
            fields(&mut VariantWriter { schema, end: 1 });
        });
    }

    pub(super) fn new() -> Self {
        Self {
            body: String::new(),
            path: String::new(),
            offset: None,
            written: HashMap::new(),
            archived: false,
            align: 1,
        }
    }

    /// A line without size: bytes that nobody archives.
    pub(super) fn bytes(&mut self) {
        self.line("bytes", None, None);
    }

    /// The text, and the largest alignment that anything in a message needs.
    pub(super) fn finish(self) -> (String, usize) {
        let mut text = String::from("ringway schema 1\n");
        if self.archived {
            text.push_str(&format());
            text.push('\n');
        }
        (text + &self.body, self.align)
    }

    fn opaque<A>(&mut self, label: &str) {
        self.plain::<A>(&format!("opaque \"{label}\""));
        // What it may hold out of line is not known: the most that a message may need.
        self.align = self.align.max(16);
    }

    fn named<T: Archive + 'static>(
        &mut self,
        kind: &str,
        name: &str,
        parts: impl FnOnce(&mut Self),
    ) {
        if self.path.is_empty() {
            self.path.push_str(name);
        }
        let what = format!("{kind} {name}");
        let layout = Some(Layout::of::<Archived<T>>());
        match self.written.get(&TypeId::of::<T>()).cloned() {
            Some(place) => self.line(&what, layout, Some(&place)),
            None => {
                self.written.insert(TypeId::of::<T>(), self.path.clone());
                self.line(&what, layout, None);
                parts(self);
            }
        }
    }

    fn within(&mut self, step: &str, offset: Option<usize>, write: impl FnOnce(&mut Self)) {
        let outer = self.path.len();
        self.path.push_str(step);
        self.offset = offset;
        write(self);
        // Taken by the first line of the part, unless an impl wrote none.
        self.offset = None;
        self.path.truncate(outer);
    }

    fn line(&mut self, what: &str, layout: Option<Layout>, place: Option<&str>) {
        if self.path.is_empty() {
            self.path.push_str("message");
        }
        self.archived |= layout.is_some();
        self.align = self.align.max(layout.map_or(1, |layout| layout.align));
        let offset = Suffix(" @", self.offset.take());
        let size = Suffix(" size ", layout.map(|l| l.size));
        let align = Suffix(" align ", layout.map(|l| l.align));
        let place = Suffix(" as ", place);
        // Writing to a String can't fail.
        let _ = writeln!(self.body, "{}: {what}{offset}{size}{align}{place}", self.path);
    }
}

/// Writes the fields of one variant of an enum.
///
/// It finds their offsets itself: an archived enum is `repr(u8)`, and the language lays each
/// variant of such an enum out as a `repr(C)` struct whose first field is the tag.
#[derive(Debug)]
pub struct VariantWriter<'a> {
    schema: &'a mut SchemaWriter,
    /// Where the fields so far end, in bytes from the start of the archived enum.
    end: usize,
}

impl VariantWriter<'_> {
    /// Writes the next field.
    pub fn field<T: Describe + Archive>(&mut self, name: &str) {
        let offset = self.place(Layout::of::<Archived<T>>());
        self.schema.field::<T>(name, offset);
    }

    /// Writes the next field, which is archived as `A` and described by nothing but `label`.
    pub fn opaque_field<A>(&mut self, name: &str, label: &str) {
        let offset = self.place(Layout::of::<A>());
        self.schema.opaque_field::<A>(name, offset, label);
    }

    fn place(&mut self, layout: Layout) -> usize {
        let offset = self.end.next_multiple_of(layout.align);
        self.end = offset + layout.size;
        offset
    }
}

#[derive(Clone, Copy)]
struct Layout {
    size: usize,
    align: usize,
}

impl Layout {
    fn of<A>() -> Self {
        Self { size: size_of::<A>(), align: align_of::<A>() }
    }
}

/// A word and a value, or nothing where there is no value.
struct Suffix<T>(&'static str, Option<T>);

impl<T: fmt::Display> fmt::Display for Suffix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1 {
            Some(value) => write!(f, "{}{value}", self.0),
            None => Ok(()),
        }
    }
}

/// What rkyv's features decide about the archived form of every type. Any crate in a program can
/// switch them, so two programs with the same messages may differ here.
fn format() -> String {
    use rkyv::rend::{u32_be, unaligned::u32_ube};
    let number = TypeId::of::<Archived<u32>>();
    let big = number == TypeId::of::<u32_be>() || number == TypeId::of::<u32_ube>();
    let endian = if big { "big" } else { "little" };
    let align = align_of::<Archived<u64>>();
    let pointer = 8 * size_of::<Archived<usize>>();
    format!("archive rkyv 0.8 {endian}-endian align {align} pointer {pointer}")
}
