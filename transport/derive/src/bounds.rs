//! The `where` clause of the generated impl.
//!
//! The bounds are on the types of the fields, as rkyv's are, and never on the described type
//! itself: `Self: Archive` among the bounds would hide from the compiler which struct the archived
//! type is, and with it the offsets of its fields.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Generics, Ident, WhereClause, parse_quote};

use crate::model::FieldModel;

/// The bounds that `fields` need, added to those that the type was declared with.
pub(crate) fn where_clause(generics: &Generics, fields: &[&FieldModel<'_>]) -> WhereClause {
    let parameters: BTreeSet<&Ident> = generics.type_params().map(|p| &p.ident).collect();
    let mut generics = generics.clone();
    let mut clause = generics.make_where_clause().clone();

    for parameter in &parameters {
        clause.predicates.push(parse_quote!(#parameter: 'static));
    }
    for FieldModel { field, attributes, .. } in fields {
        let ty = &field.ty;
        let mentioned = mentioned(ty.to_token_stream(), &parameters);
        if mentioned.is_empty() {
            continue;
        }
        if let Some(with) = &attributes.with {
            clause.predicates.push(parse_quote!(#with: ::ringway::rkyv::with::ArchiveWith<#ty>));
        } else if attributes.opaque.is_some() {
            clause.predicates.push(parse_quote!(#ty: ::ringway::rkyv::Archive));
        } else if attributes.omit_bounds {
            // The field's type contains the described type: a bound on it would need itself.
            for parameter in mentioned {
                clause
                    .predicates
                    .push(parse_quote!(#parameter: ::ringway::Describe + ::ringway::rkyv::Archive));
            }
        } else {
            clause
                .predicates
                .push(parse_quote!(#ty: ::ringway::Describe + ::ringway::rkyv::Archive));
        }
    }
    clause
}

/// Which of `parameters` occur in `tokens`. Tokens rather than a walk over the syntax, so that a
/// type written by a macro is seen through; one bound too many does no harm.
fn mentioned(tokens: TokenStream, parameters: &BTreeSet<&Ident>) -> BTreeSet<Ident> {
    let mut found = BTreeSet::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if parameters.contains(&ident) => {
                found.insert(ident);
            }
            TokenTree::Group(group) => found.extend(mentioned(group.stream(), parameters)),
            _ => {}
        }
    }
    found
}
