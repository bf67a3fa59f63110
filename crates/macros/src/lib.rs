//! `#[derive(Route)]`: makes the labels of a task's outgoing edges out of the variants of an enum.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Fields, Type, Variant, parse_macro_input, spanned::Spanned};

/// Derives `leatworks::Route` and one `leatworks::RouteVariant` per variant.
///
/// The label of a variant is its name in kebab-case: `NotFound` is `not-found`. Each variant holds exactly one value, which is
/// what travels on its edges, or none, which travels as the unit value.
#[proc_macro_derive(Route)]
pub fn derive_route(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(syn::Error::new(input.span(), "`Route` is derived for an enum: each variant is the label of an edge"));
    };
    if data.variants.is_empty() {
        return Err(syn::Error::new(input.ident.span(), "an enum without variants has no routes"));
    }
    let name = &input.ident;
    let (generics, type_generics, bounds) = input.generics.split_for_impl();
    let labels: Vec<String> = data.variants.iter().map(|variant| kebab_case(&variant.ident.to_string())).collect();
    for (index, (label, variant)) in labels.iter().zip(&data.variants).enumerate() {
        if let Some(same) = labels[..index].iter().position(|before| before == label) {
            let text = format!("variants `{}` and `{}` have the same label, `{label}`", data.variants[same].ident, variant.ident);
            return Err(syn::Error::new(variant.ident.span(), text));
        }
    }
    let payloads = data.variants.iter().map(payload).collect::<syn::Result<Vec<Option<&Type>>>>()?;

    let mut arms = Vec::new();
    let mut variants = Vec::new();
    for (index, (variant, payload)) in data.variants.iter().zip(&payloads).enumerate() {
        let pattern = pattern(variant);
        let value = if payload.is_some() { quote!(value) } else { quote!(&()) };
        arms.push(quote! { #name::#pattern => (#index, ::leatworks::codec::encode(codec, #value)) });
        let ty = payload.map_or_else(|| quote!(()), |ty| quote!(#ty));
        variants.push(quote! {
            #[automatically_derived]
            impl #generics ::leatworks::RouteVariant<#index> for #name #type_generics #bounds { type Payload = #ty; }
        });
    }
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::leatworks::Route for #name #type_generics #bounds {
            const LABELS: &'static [&'static str] = &[#(#labels),*];

            fn encode(
                &self,
                codec: ::leatworks::Codec,
            ) -> (usize, ::core::result::Result<::leatworks::codec::Bytes, ::leatworks::codec::EncodeError>) {
                match self { #(#arms),* }
            }
        }
        #(#variants)*
    })
}

/// The type that a variant carries, if any.
fn payload(variant: &Variant) -> syn::Result<Option<&Type>> {
    let mut fields = variant.fields.iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => Ok(Some(&field.ty)),
        (Some(_), Some(second)) => Err(syn::Error::new(
            second.span(),
            format!("variant `{}` of a `Route` holds one value or none: put the values into a struct", variant.ident),
        )),
    }
}

fn pattern(variant: &Variant) -> TokenStream {
    let name = &variant.ident;
    match &variant.fields {
        Fields::Unit => quote!(#name),
        Fields::Unnamed(fields) if fields.unnamed.is_empty() => quote!(#name()),
        Fields::Named(fields) if fields.named.is_empty() => quote!(#name {}),
        Fields::Unnamed(_) => quote!(#name(value)),
        Fields::Named(fields) => {
            let field =
                fields.named.iter().next().and_then(|field| field.ident.clone()).unwrap_or_else(|| format_ident!("value"));
            quote!(#name { #field: value })
        }
    }
}

/// `NotFound` to `not-found`, `Http2Error` to `http2-error`, `IOError` to `io-error`.
fn kebab_case(name: &str) -> String {
    let letters: Vec<char> = name.trim_start_matches("r#").chars().collect();
    let mut label = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(index + 1);
        let starts_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || before.is_ascii_digit() || after.is_some_and(|after| after.is_lowercase())
            });
        if (starts_word || *letter == '_') && !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if *letter != '_' {
            label.extend(letter.to_lowercase());
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kebab_case() {
        for (name, label) in [
            ("Mail", "mail"),
            ("NotFound", "not-found"),
            ("Http2Error", "http2-error"),
            ("IOError", "io-error"),
            ("A", "a"),
            ("with_underscore", "with-underscore"),
        ] {
            assert_eq!(kebab_case(name), label);
        }
    }

    #[test]
    fn what_cannot_be_a_route_is_refused_in_words() {
        for (source, words) in [
            ("struct S;", "derived for an enum"),
            ("enum E {}", "no routes"),
            (
                "enum E { HttpError(u8), HTTPError(u16) }",
                "variants `HttpError` and `HTTPError` have the same label, `http-error`",
            ),
            ("enum E { A(u8, u8) }", "variant `A` of a `Route` holds one value or none"),
        ] {
            let input: DeriveInput = syn::parse_str(source).expect("the source is Rust");
            let error = expand(&input).expect_err("it is refused").to_string();
            assert!(error.contains(words), "{source}: {error}");
        }
    }
}
