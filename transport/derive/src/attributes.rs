//! What stands in `#[describe(...)]`, and the two of rkyv's field attributes that change a schema.

use syn::meta::ParseNestedMeta;
use syn::{Error, Field, LitStr, Result, Token, Type, token};

/// The attributes of one field.
#[derive(Default)]
pub(crate) struct FieldAttributes {
    /// `#[describe(opaque = "name")]`
    pub(crate) opaque: Option<LitStr>,
    /// `#[rkyv(with = Type)]`
    pub(crate) with: Option<Type>,
    /// `#[rkyv(omit_bounds)]`
    pub(crate) omit_bounds: bool,
}

impl FieldAttributes {
    /// Reads a field's attributes; refuses what would leave the schema silent about the field.
    pub(crate) fn of(field: &Field) -> Result<Self> {
        let mut found = Self::default();
        for attribute in &field.attrs {
            if attribute.path().is_ident("describe") {
                attribute.parse_nested_meta(|meta| found.describe(&meta))?;
            } else if attribute.path().is_ident("rkyv") {
                // rkyv's own derive reports what is wrong here; a second error would only be noise.
                let _ = attribute.parse_nested_meta(|meta| found.rkyv(&meta));
            }
        }
        match (&found.with, &found.opaque) {
            (Some(with), None) => Err(Error::new_spanned(
                with,
                "`with` archives this field as something else than its type, so its type cannot \
                 describe it: add #[describe(opaque = \"...\")] with a name for what is archived",
            )),
            _ => Ok(found),
        }
    }

    fn describe(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if !meta.path.is_ident("opaque") {
            return Err(meta.error("unknown: a field takes #[describe(opaque = \"name\")] alone"));
        }
        if !meta.input.peek(Token![=]) {
            return Err(meta.error("`opaque` needs a name: #[describe(opaque = \"name\")]"));
        }
        let name: LitStr = meta.value()?.parse()?;
        if self.opaque.is_some() {
            return Err(Error::new_spanned(name, "`opaque` is given twice: keep one name"));
        }
        // A name ends up between quotes on a line of its own in a text that tools take apart.
        let unfit = |c: char| c.is_control() || c == '"' || c == '\\';
        if name.value().is_empty() || name.value().contains(unfit) {
            let text = "the name of an opaque field must not be empty, nor hold control characters, \
                        double quotes or backslashes";
            return Err(Error::new_spanned(name, text));
        }
        self.opaque = Some(name);
        Ok(())
    }

    fn rkyv(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("omit_bounds") {
            self.omit_bounds = true;
        } else if meta.path.is_ident("with") {
            self.with = Some(meta.value()?.parse()?);
        } else if meta.input.peek(Token![=]) {
            meta.value()?.parse::<Type>()?;
        } else if meta.input.peek(token::Paren) {
            meta.input.parse::<proc_macro2::Group>()?;
        }
        Ok(())
    }
}
