//! The generated impl: calls to the schema's writer, one for each field and variant.
//!
//! Types go in as types, never as text: the writer asks each for its own description.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{DeriveInput, Ident, Member, Result};

use crate::bounds;
use crate::model::{FieldModel, Model, VariantModel};

/// Writes `impl Describe` for `input`, or says why there can be none.
pub(crate) fn describe(input: &DeriveInput) -> Result<TokenStream> {
    let model = Model::of(input)?;
    let name = &input.ident;
    let label = ident_text(name);
    let body = match &model {
        Model::Struct(fields) => {
            let calls = fields.iter().map(struct_field);
            quote!(__schema.structure::<Self>(#label, |__schema| { #(#calls)* });)
        }
        Model::Enum(variants) => {
            let calls = variants.iter().enumerate().map(|(index, v)| variant(index, v));
            quote!(__schema.enumeration::<Self>(#label, |__schema| { #(#calls)* });)
        }
    };
    let (impl_generics, type_generics, _) = input.generics.split_for_impl();
    let where_clause = bounds::where_clause(&input.generics, &model.fields());
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::ringway::Describe for #name #type_generics #where_clause {
            fn describe(__schema: &mut ::ringway::SchemaWriter) {
                #body
            }
        }
    })
}

fn struct_field(model: &FieldModel<'_>) -> TokenStream {
    let FieldModel { member, field, attributes } = model;
    let ty = &field.ty;
    let name = member_text(member);
    let offset = quote! {
        ::core::mem::offset_of!(<Self as ::ringway::rkyv::Archive>::Archived, #member)
    };
    match &attributes.opaque {
        Some(label) => {
            let archived = archived(model);
            quote!(__schema.opaque_field::<#archived>(#name, #offset, #label);)
        }
        None => quote!(__schema.field::<#ty>(#name, #offset);),
    }
}

fn variant(index: usize, model: &VariantModel<'_>) -> TokenStream {
    let name = ident_text(model.name);
    // The rule of the language: a variant without a value of its own has its predecessor's plus 1.
    let tag = match (model.discriminant, index) {
        (Some(value), _) => value.to_token_stream(),
        (None, 0) => quote!(0),
        (None, _) => quote!(__tag + 1),
    };
    let calls = model.fields.iter().map(|field| {
        let ty = &field.field.ty;
        let name = member_text(&field.member);
        match &field.attributes.opaque {
            Some(label) => {
                let archived = archived(field);
                quote!(__variant.opaque_field::<#archived>(#name, #label);)
            }
            None => quote!(__variant.field::<#ty>(#name);),
        }
    });
    quote! {
        let __tag: u8 = #tag;
        __schema.variant(#name, __tag, |__variant| { #(#calls)* });
    }
}

/// The type that a field is archived as.
fn archived(model: &FieldModel<'_>) -> TokenStream {
    let ty = &model.field.ty;
    match &model.attributes.with {
        Some(with) => quote!(<#with as ::ringway::rkyv::with::ArchiveWith<#ty>>::Archived),
        None => quote!(<#ty as ::ringway::rkyv::Archive>::Archived),
    }
}

/// `r#type` and `type` are the same name.
fn ident_text(ident: &Ident) -> String {
    ident.unraw().to_string()
}

fn member_text(member: &Member) -> String {
    match member {
        Member::Named(name) => ident_text(name),
        Member::Unnamed(index) => index.index.to_string(),
    }
}
