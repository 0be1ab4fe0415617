//! `#[derive(Describe)]`: turns the declaration of a message into code that writes its schema.
//!
//! This crate only reads tokens. What a schema looks like is decided in `ringway`'s `SchemaWriter`;
//! nothing here may put the text of a type into a schema, because an alias keeps its text while its
//! target changes.

mod attributes;
mod bounds;
mod expand;
mod model;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `ringway::Describe` for a struct or enum that also derives `rkyv::Archive`.
///
/// Fields may be private. Each field's type must implement `Describe` itself, except where
/// `#[describe(opaque = "name")]` stands on the field: such a field enters the schema by that name
/// and by the size and alignment of what it is archived as, and nothing checks the rest, so change
/// the name whenever the meaning changes. A field with `#[rkyv(with = ...)]` needs it, because it
/// is archived as something else than its type says.
///
/// Type parameters get the bounds that the fields ask for; as with rkyv, `#[rkyv(omit_bounds)]` on
/// the field where a generic type contains itself breaks the cycle. Refused at compile time, with
/// the reason: unions, enums without variants, lifetime parameters, and unknown or misplaced
/// `#[describe(...)]` attributes.
#[proc_macro_derive(Describe, attributes(describe))]
pub fn derive_describe(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::describe(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
