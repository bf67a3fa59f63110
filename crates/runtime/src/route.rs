//! The labels of a task's edges as an enum.

use crate::{
    Codec,
    codec::{Bytes, EncodeError},
};

/// What a task with labelled edges gives: an enum whose variants are the labels. Derive it.
///
/// ```
/// use leatworks::Route;
///
/// #[derive(Route, serde::Serialize)]
/// enum Checked { Good(u32), NotFound(String), Empty }
///
/// assert_eq!(Checked::LABELS, ["good", "not-found", "empty"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "the outgoing edges have labels, but `{Self}` has no variants to match them",
    label = "this is what the task gives",
    note = "derive `leatworks::Route` for an enum with one variant per label"
)]
pub trait Route {
    /// The labels in the order of the variants, in kebab-case.
    const LABELS: &'static [&'static str];

    /// Which label this value has, as an index into [`LABELS`](Self::LABELS), and its payload, encoded.
    fn encode(&self, codec: Codec) -> (usize, Result<Bytes, EncodeError>);
}

/// What the variant at index `INDEX` of [`Route::LABELS`] holds. Derived together with [`Route`](macro@crate::Route).
pub trait RouteVariant<const INDEX: usize> {
    /// What travels on the edges of this label.
    type Payload;
}
