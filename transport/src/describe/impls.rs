//! The schemas of primitives and of std's types, as far as rkyv archives them. Each impl writes the
//! line of its type and names its parts; `Rc` and `Arc` stay out, since a reader in another process
//! can share ownership of nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8,
    NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize,
};
use std::time::Duration;

use rkyv::{Archive, Archived};

use super::{Describe, SchemaWriter};

macro_rules! plain {
    ($($type:ident)*) => {$(
        impl Describe for $type {
            fn describe(schema: &mut SchemaWriter) {
                schema.plain::<Archived<Self>>(stringify!($type));
            }
        }
    )*};
}

plain! {
    u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char
    NonZeroU8 NonZeroU16 NonZeroU32 NonZeroU64 NonZeroU128
    NonZeroI8 NonZeroI16 NonZeroI32 NonZeroI64 NonZeroI128
    String Duration
}

// Their archived width is a feature of rkyv, whatever the width of the machine.
macro_rules! pointer_sized {
    ($($type:ident as $sign:literal)*) => {$(
        impl Describe for $type {
            fn describe(schema: &mut SchemaWriter) {
                let bits = 8 * size_of::<Archived<Self>>();
                let what = format!("{}({}{bits})", stringify!($type), $sign);
                schema.plain::<Archived<Self>>(&what);
            }
        }
    )*};
}

pointer_sized! { usize as "u" isize as "i" NonZeroUsize as "u" NonZeroIsize as "i" }

/// Raw bytes: what a channel carries that isn't typed.
impl Describe for [u8] {
    fn describe(schema: &mut SchemaWriter) {
        schema.bytes();
    }
}

impl Describe for () {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("()");
    }
}

impl<T: Describe + ?Sized> Describe for PhantomData<T> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("PhantomData<_>");
        schema.part::<T>("*", None);
    }
}

impl<T: Describe + Archive> Describe for Box<T> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("Box<_>");
        schema.part::<T>("*", None);
    }
}

impl<T: Describe + Archive> Describe for Box<[T]> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("Box<[_]>");
        schema.part::<T>("[]", None);
    }
}

impl Describe for Box<str> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("Box<str>");
    }
}

impl<T: Describe + Archive> Describe for Vec<T> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("Vec<_>");
        schema.part::<T>("[]", None);
    }
}

impl<T: Describe + Archive, const N: usize> Describe for [T; N] {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>(&format!("[_; {N}]"));
        schema.part::<T>("[]", None);
    }
}

impl<T: Describe + Archive> Describe for Option<T> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("Option<_>");
        // `ArchivedOption` is `repr(u8)`: one byte of tag, then the value where it is aligned.
        schema.part::<T>("?", Some(align_of::<Archived<T>>()));
    }
}

impl<T: Describe + Archive, E: Describe + Archive> Describe for Result<T, E> {
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("Result<_, _>");
        schema.variant("Ok", 0, |variant| variant.field::<T>("0"));
        schema.variant("Err", 1, |variant| variant.field::<E>("0"));
    }
}

impl<T: Describe> Describe for BTreeSet<T>
where
    Self: Archive,
{
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("BTreeSet<_>");
        schema.part::<T>("[]", None);
    }
}

impl<T: Describe, S: 'static> Describe for HashSet<T, S>
where
    Self: Archive,
{
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("HashSet<_>");
        schema.part::<T>("[]", None);
    }
}

impl<K: Describe, V: Describe> Describe for BTreeMap<K, V>
where
    Self: Archive,
{
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("BTreeMap<_, _>");
        schema.part::<K>("{key}", None);
        schema.part::<V>("{value}", None);
    }
}

impl<K: Describe, V: Describe, S: 'static> Describe for HashMap<K, V, S>
where
    Self: Archive,
{
    fn describe(schema: &mut SchemaWriter) {
        schema.plain::<Archived<Self>>("HashMap<_, _>");
        schema.part::<K>("{key}", None);
        schema.part::<V>("{value}", None);
    }
}

macro_rules! tuple {
    ($what:literal: $($type:ident $index:tt)*) => {
        impl<$($type: Describe + Archive),*> Describe for ($($type,)*) {
            fn describe(schema: &mut SchemaWriter) {
                schema.plain::<Archived<Self>>($what);
                $(schema.field::<$type>(
                    stringify!($index),
                    offset_of!(Archived<Self>, $index),
                );)*
            }
        }
    };
}

tuple!("(_,)": A 0);
tuple!("(_, _)": A 0 B 1);
tuple!("(_, _, _)": A 0 B 1 C 2);
tuple!("(_, _, _, _)": A 0 B 1 C 2 D 3);
tuple!("(_, _, _, _, _)": A 0 B 1 C 2 D 3 E 4);
tuple!("(_, _, _, _, _, _)": A 0 B 1 C 2 D 3 E 4 F 5);
tuple!("(_, _, _, _, _, _, _)": A 0 B 1 C 2 D 3 E 4 F 5 G 6);
tuple!("(_, _, _, _, _, _, _, _)": A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);
