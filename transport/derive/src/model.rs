//! A declaration as the derive sees it: every field with its attributes read, every refusal made.

use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Expr, Field, Fields, Generics, Ident, Member,
    Result,
};

use crate::attributes::FieldAttributes;

/// A struct's fields, or an enum's variants, in order of declaration.
pub(crate) enum Model<'a> {
    Struct(Vec<FieldModel<'a>>),
    Enum(Vec<VariantModel<'a>>),
}

/// One variant of an enum.
pub(crate) struct VariantModel<'a> {
    pub(crate) name: &'a Ident,
    pub(crate) discriminant: Option<&'a Expr>,
    pub(crate) fields: Vec<FieldModel<'a>>,
}

/// One field of a struct or of a variant.
pub(crate) struct FieldModel<'a> {
    pub(crate) member: Member,
    pub(crate) field: &'a Field,
    pub(crate) attributes: FieldAttributes,
}

impl<'a> Model<'a> {
    /// Reads the declaration; reports all that is wrong with it at once.
    pub(crate) fn of(input: &'a DeriveInput) -> Result<Self> {
        let mut errors = Errors::default();
        errors.note(refuse_describe(&input.attrs, "a type"));
        errors.note(refuse_lifetimes(&input.generics));
        let model = match &input.data {
            Data::Struct(data) => Self::Struct(read_fields(&data.fields, &mut errors)),
            Data::Enum(data) => Self::Enum(read_variants(input, data, &mut errors)),
            Data::Union(data) => {
                errors.note::<()>(Err(Error::new_spanned(
                    data.union_token,
                    "a union cannot be a message: nothing in its bytes says which field is meant; \
                     use an enum",
                )));
                Self::Struct(Vec::new())
            }
        };
        errors.or(model)
    }

    /// All fields, those of all variants included.
    pub(crate) fn fields(&self) -> Vec<&FieldModel<'a>> {
        match self {
            Self::Struct(fields) => fields.iter().collect(),
            Self::Enum(variants) => variants.iter().flat_map(|v| &v.fields).collect(),
        }
    }
}

fn read_variants<'a>(
    input: &'a DeriveInput,
    data: &'a DataEnum,
    errors: &mut Errors,
) -> Vec<VariantModel<'a>> {
    if data.variants.is_empty() {
        errors.note::<()>(Err(Error::new_spanned(
            &input.ident,
            "an enum without variants cannot be a message: it has no values to send",
        )));
    }
    let mut variants = Vec::new();
    for variant in &data.variants {
        errors.note(refuse_describe(&variant.attrs, "a variant"));
        variants.push(VariantModel {
            name: &variant.ident,
            discriminant: variant.discriminant.as_ref().map(|(_, value)| value),
            fields: read_fields(&variant.fields, errors),
        });
    }
    variants
}

fn read_fields<'a>(fields: &'a Fields, errors: &mut Errors) -> Vec<FieldModel<'a>> {
    let mut models = Vec::new();
    for (member, field) in fields.members().zip(fields) {
        if let Some(attributes) = errors.note(FieldAttributes::of(field)) {
            models.push(FieldModel { member, field, attributes });
        }
    }
    models
}

fn refuse_lifetimes(generics: &Generics) -> Result<()> {
    match generics.lifetimes().next() {
        Some(lifetime) => Err(Error::new_spanned(
            lifetime,
            "a message owns what it holds, so it has no lifetime parameters: use String, Vec or \
             Box in place of the reference",
        )),
        None => Ok(()),
    }
}

/// Refuses `#[describe(...)]` where no option exists.
fn refuse_describe(attributes: &[Attribute], place: &str) -> Result<()> {
    match attributes.iter().find(|attribute| attribute.path().is_ident("describe")) {
        Some(attribute) => Err(Error::new_spanned(
            attribute,
            format!("#[describe(...)] stands on a field; {place} has no options"),
        )),
        None => Ok(()),
    }
}

/// What was refused so far.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match (result, &mut self.0) {
            (Ok(value), _) => return Some(value),
            (Err(error), Some(first)) => first.combine(error),
            (Err(error), none) => *none = Some(error),
        }
        None
    }

    fn or<T>(self, value: T) -> Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}
