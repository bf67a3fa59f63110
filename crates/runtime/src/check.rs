//! Checks of the edges that rustc makes while it compiles generated code. They cost nothing at run time.

/// What a task gives fits what the next one takes: it is the same type, or the same on the wire.
///
/// Implement it for two types that are encoded alike, for example when the target reads only some of the fields.
/// A target that takes `serde_json::Value` takes everything; generated code checks such edges by [`edge_fits`](crate::edge_fits).
#[diagnostic::on_unimplemented(
    message = "the types of edge `{Edge}` do not fit: it gives `{Self}`, and the task behind it takes `{In}`",
    label = "this edge gives `{Self}`",
    note = "change one of the two tasks, or write `impl<E> leatworks::check::Fits<{In}, E> for {Self} {{}}` if both look the same on the wire"
)]
pub trait Fits<In, Edge> {}

impl<T, Edge> Fits<T, Edge> for T {}

/// Compiles if what an edge gives fits what its target takes. `Edge` is a type whose name tells the edge.
pub const fn edge<Out: Fits<In, Edge>, In, Edge>() {}

/// Compiles if what an edge gives fits what its target takes, as [`edge`](crate::check::edge) does, or if the target takes any JSON.
#[macro_export]
macro_rules! edge_fits {
    // Words for people: rustc shows the whole call when the edge does not fit.
    ($words:literal, $out:ty, $in:ty, $edge:ty $(,)?) => {
        $crate::edge_fits!($out, $in, $edge)
    };
    ($out:ty, $in:ty, $edge:ty $(,)?) => {{
        #[allow(unused_imports)]
        use $crate::check::AnyFits as _;
        $crate::check::Probe::<$out, $in, $edge>::NEW.check()
    }};
}

/// Asks whether `Out` fits `In`; see [`edge_fits`](crate::edge_fits).
#[doc(hidden)]
pub struct Probe<Out, In, Edge>(std::marker::PhantomData<fn(Out, In, Edge)>);

impl<Out, In, Edge> Probe<Out, In, Edge> {
    #[doc(hidden)]
    pub const NEW: Self = Self(std::marker::PhantomData);
}

// A method of the type itself is found before one of a trait: so this one answers for `Value` and the trait for all others.
impl<Out, Edge> Probe<Out, serde_json::Value, Edge> {
    #[doc(hidden)]
    pub fn check(&self) {}
}

#[doc(hidden)]
pub trait AnyFits<Out, In, Edge> {
    #[doc(hidden)]
    fn check(&self)
    where
        Out: Fits<In, Edge>;
}

impl<Out, In, Edge> AnyFits<Out, In, Edge> for Probe<Out, In, Edge> {
    fn check(&self)
    where
        Out: Fits<In, Edge>,
    {
    }
}

/// What a task gives under a labelled edge is told apart by its labels. Everything that is a [`Route`](crate::Route) is.
#[diagnostic::on_unimplemented(
    message = "edge `{Edge}` has a label, but `{Self}` has none: it is what the task in front of it gives",
    label = "derive `leatworks::Route` for an enum with one variant per label"
)]
pub trait Labelled<Edge> {
    /// The labels, as [`Route::LABELS`](crate::Route::LABELS) gives them.
    const LABELS: &'static [&'static str];
}

impl<T: crate::Route, Edge> Labelled<Edge> for T {
    const LABELS: &'static [&'static str] = T::LABELS;
}

/// The labels of what a task gives. `Edge` is a type whose name tells the edge, for the compiler's message when there are none.
pub const fn labels<Out: Labelled<Edge>, Edge>() -> &'static [&'static str] {
    Out::LABELS
}

/// The index of a label among those that a task gives.
///
/// # Panics
/// While compiling, if the task gives no such label. The message names the edge, its place, the label and those that exist.
pub const fn label(labels: &[&str], label: &str, edge: &str, task: &str, place: &str) -> usize {
    if let Some(index) = find(labels, label) {
        return index;
    }
    let text = Text::new()
        .add("edge `")
        .add(edge)
        .add("` (")
        .add(place)
        .add("): `")
        .add(label)
        .add("` is no variant of what `")
        .add(task)
        .add("` gives; it has: ")
        .list(labels);
    panic!("{}", text.as_str())
}

/// Every label that a task gives has an edge, or stands in its `ends`.
///
/// # Panics
/// While compiling, with the first variant that has neither, and the remedy.
pub const fn variants_covered(labels: &[&str], edges: &[&str], ends: &[&str], task: &str, place: &str) {
    let mut index = 0;
    while index < labels.len() {
        if find(edges, labels[index]).is_none() && find(ends, labels[index]).is_none() {
            let text = Text::new()
                .add("task `")
                .add(task)
                .add("` (")
                .add(place)
                .add(") gives `")
                .add(labels[index])
                .add("`, but no edge has that label: draw `")
                .add(task)
                .add(" -->|")
                .add(labels[index])
                .add("| …`, or write `ends = [\"")
                .add(labels[index])
                .add("\"]` if the flow ends there");
            panic!("{}", text.as_str())
        }
        index += 1;
    }
    index = 0;
    while index < ends.len() {
        if find(labels, ends[index]).is_none() {
            let text = Text::new()
                .add("task `")
                .add(task)
                .add("` (")
                .add(place)
                .add(") says that `")
                .add(ends[index])
                .add("` ends, which is no variant of what it gives; it has: ")
                .list(labels);
            panic!("{}", text.as_str())
        }
        index += 1;
    }
}

const fn find(list: &[&str], word: &str) -> Option<usize> {
    let mut index = 0;
    while index < list.len() {
        if equal(list[index].as_bytes(), word.as_bytes()) {
            return Some(index);
        }
        index += 1;
    }
    None
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The longest message. Names are at most 63 bytes, so only a long list of labels is ever cut.
const TEXT_MAX: usize = 1024;

/// A text that is put together while compiling, where there is no allocation.
struct Text {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; TEXT_MAX], len: 0 }
    }

    /// Adds a text, or nothing of it if it does not fit, so that no character is cut in two.
    const fn add(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        if self.len + text.len() <= TEXT_MAX {
            let mut index = 0;
            while index < text.len() {
                self.bytes[self.len + index] = text[index];
                index += 1;
            }
            self.len += text.len();
        }
        self
    }

    const fn list(mut self, words: &[&str]) -> Self {
        let mut index = 0;
        while index < words.len() {
            self = self.add(if index == 0 { "" } else { ", " }).add(words[index]);
            index += 1;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "an edge does not fit its tasks",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic_text(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panic = std::panic::catch_unwind(check).expect_err("the check fails");
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap()
    }

    #[test]
    fn a_label_that_is_no_variant_is_named_with_its_edge_and_place() {
        assert_eq!(label(&["mail", "skipped"], "skipped", "e", "render", "p"), 1);
        let text = panic_text(|| {
            label(&["mail", "skipped"], "mial", "render -->|mial| send", "render", "topologies/email.toml:9");
        });
        assert_eq!(
            text,
            "edge `render -->|mial| send` (topologies/email.toml:9): `mial` is no variant of what `render` gives; it has: mail, skipped"
        );
    }

    #[test]
    fn a_variant_without_an_edge_is_named_with_the_remedy() {
        variants_covered(&["mail", "skipped"], &["mail"], &["skipped"], "render", "p");
        let text = panic_text(|| variants_covered(&["mail", "skipped"], &["mail"], &[], "render", "email.toml:9"));
        assert!(text.starts_with("task `render` (email.toml:9) gives `skipped`, but no edge has that label: draw"), "{text}");
        assert!(text.ends_with("or write `ends = [\"skipped\"]` if the flow ends there"), "{text}");
        let text = panic_text(|| variants_covered(&["mail"], &["mail"], &["gone"], "render", "email.toml:9"));
        assert!(text.contains("`gone` ends, which is no variant"), "{text}");
    }

    #[test]
    fn a_target_that_takes_any_json_fits_every_edge() {
        struct Edge;
        edge::<String, String, Edge>();
        crate::edge_fits!(u64, serde_json::Value, Edge);
        crate::edge_fits!(serde_json::Value, serde_json::Value, Edge);
        crate::edge_fits!(String, String, Edge);
    }
}
