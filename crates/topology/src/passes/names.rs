//! Checks every name: that it can be a topic, a binary and a Kubernetes object, and that no two binaries share one.

use std::collections::{HashMap, HashSet};

use super::Draft;
use crate::NAME_LENGTH_MAX;
use crate::diagnostics::{At, CodeInfo, Diagnostic, Place, Reports, codes};
use crate::mermaid::{forbidden, reserved};

/// Names of binaries that cannot be: Cargo keeps these for its own folders, and Rust for itself.
const RESERVED_BY_CARGO: [&str; 7] = ["build", "deps", "examples", "incremental", "self", "super", "crate"];

/// Names that Windows keeps for devices; a file cannot be called so there, whatever its extension.
const RESERVED_BY_WINDOWS: [&str; 4] = ["con", "prn", "aux", "nul"];

pub(super) fn run(project: Option<&At<String>>, drafts: &mut [Draft], reports: &mut Reports) {
    if let Some(name) = project {
        check(&codes::NAME, "project", &name.value, &name.place, reports);
    }
    let mut binaries: HashMap<String, (&'static str, Place)> = HashMap::new();
    let mut topologies: HashMap<String, Place> = HashMap::new();
    for draft in drafts.iter_mut() {
        let At { value, place } = &draft.spec.name;
        check(&codes::NAME, "topology", value, place, reports);
        keyword_free("topology", value, place, reports);
        if let Some(first) = topologies.get(&value.to_lowercase()) {
            let diagnostic =
                Diagnostic::at(&codes::TOPOLOGY_TWICE, place, format!("two topologies are called `{value}`"), "the second");
            reports.push(diagnostic.also(first, "the first").with_help("give one of them another name"));
            draft.copy = true;
        } else {
            topologies.insert(value.to_lowercase(), place.clone());
            binary("topology", value, place, &mut binaries, reports);
        }
    }
    for draft in drafts.iter() {
        tasks(draft, &mut binaries, reports);
        labels(draft, reports);
    }
}

fn tasks(draft: &Draft, binaries: &mut HashMap<String, (&'static str, Place)>, reports: &mut Reports) {
    // A box that is used as a task has been reported as such.
    let boxes: HashSet<&str> = draft.sketch.boxes.iter().map(|drawn| &*drawn.id.text).collect();
    for node in draft.sketch.nodes.iter().filter(|node| !boxes.contains(&*node.id.text)) {
        let place = draft.spec.graph.place(&node.id.span);
        check(&codes::NAME, "task", &node.id.text, &place, reports);
        keyword_free("task", &node.id.text, &place, reports);
        if !draft.copy {
            binary("task", &node.id.text, &place, binaries, reports);
        }
    }
}

fn labels(draft: &Draft, reports: &mut Reports) {
    // One arrow between groups makes many links with one label.
    let mut last = None;
    for label in draft.sketch.links.iter().filter_map(|link| link.label.as_ref()) {
        if last != Some(label.span.start) {
            check(&codes::LABEL, "label", &label.text, &draft.spec.graph.place(&label.span), reports);
        }
        last = Some(label.span.start);
    }
    for label in draft.spec.tasks.iter().flat_map(|task| &task.ends) {
        check(&codes::LABEL, "label", &label.value, &label.place, reports);
    }
}

/// Reports a binary that another one would overwrite, on file systems that do not tell capitals apart too.
fn binary(
    what: &'static str,
    name: &str,
    place: &Place,
    binaries: &mut HashMap<String, (&'static str, Place)>,
    reports: &mut Reports,
) {
    let Some((first_what, first)) = binaries.get(&name.to_lowercase()) else {
        binaries.insert(name.to_lowercase(), (what, place.clone()));
        return;
    };
    let message = format!("two binaries would be called `{name}`: a {first_what} and a {what}");
    let message = if *first_what == what { format!("two {what}s would make one binary `{name}`") } else { message };
    let diagnostic = Diagnostic::at(&codes::BINARY_TWICE, place, message, format!("this {what}"));
    let diagnostic = diagnostic.also(first, format!("this {first_what}"));
    let diagnostic = diagnostic.with_help("give one of them another name");
    reports.push(diagnostic.with_note("each topology and each task of the project is built as a binary of its name"));
}

fn keyword_free(what: &str, name: &str, place: &Place, reports: &mut Reports) {
    let lower = name.to_lowercase();
    let windows = RESERVED_BY_WINDOWS.contains(&&*lower) || is_numbered_device(&lower);
    let owner = if RESERVED_BY_CARGO.contains(&&*lower) {
        "Cargo makes no binary of that name".to_owned()
    } else if windows {
        "Windows makes no file of that name".to_owned()
    } else if let Some(word) = reserved(name).filter(|_| what == "task") {
        format!("`{word}` is a keyword in Mermaid: a graph with this node would not be drawn")
    } else {
        return;
    };
    let diagnostic = Diagnostic::at(&codes::RESERVED, place, format!("a {what} cannot be called `{name}`"), "a reserved name");
    reports.push(diagnostic.with_help(format!("call it `my-{lower}`, or better by what it does")).with_note(owner));
}

/// `com1`, `lpt9` and the like.
fn is_numbered_device(name: &str) -> bool {
    let number = name.strip_prefix("com").or_else(|| name.strip_prefix("lpt"));
    number.is_some_and(|number| number.len() == 1 && number.starts_with(|c: char| c.is_ascii_digit()))
}

/// Why a name cannot be used.
fn fault(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if name.len() > NAME_LENGTH_MAX {
        return Some(format!("longer than {NAME_LENGTH_MAX} bytes"));
    }
    if let Some(c) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
        return Some(match c {
            'A'..='Z' => "has a capital letter".to_owned(),
            ' ' => "has a blank".to_owned(),
            c => format!("has `{}`", c.escape_debug()),
        });
    }
    if !first.is_ascii_lowercase() {
        return Some("does not begin with a letter".to_owned());
    }
    name.ends_with('-').then(|| "ends with `-`".to_owned())
}

/// Reports a name that cannot be used, unless it was reported for an invisible character already.
fn check(code: &'static CodeInfo, what: &str, name: &str, place: &Place, reports: &mut Reports) {
    if name.chars().any(forbidden) {
        return;
    }
    let label = match fault(name) {
        Some(fault) => fault,
        None if name.is_empty() => "empty".to_owned(),
        None => return,
    };
    let good = kebab(name);
    let help = if name.len() > 1 && name.trim_matches('&').contains('&') {
        "put blanks around `&` to name several tasks: `a & b`".to_owned()
    } else if name.len() > NAME_LENGTH_MAX {
        "shorten it; the text of a node can say more: `name[\"What it does\"]`".to_owned()
    } else if name.is_ascii() && fault_free(&good) {
        format!("call it `{good}`")
    } else {
        "begin with a small letter and go on with small letters, digits and `-`".to_owned()
    };
    let note = match what {
        "label" => "a label is a part of a topic's name, and a variant in Rust",
        "project" => "the name is a part of file and image names",
        _ => "the name is also a topic, a binary and a Kubernetes object",
    };
    let message = format!("`{name}` cannot be the name of a {what}");
    reports.push(Diagnostic::at(code, place, message, label).with_help(help).with_note(note));
}

fn fault_free(name: &str) -> bool {
    !name.is_empty() && fault(name).is_none()
}

/// The name as it would be written here: `FetchUsers`, `fetch_users` and `Fetch users` are all `fetch-users`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    let mut lower_before = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && lower_before {
            out.push('-');
        }
        match c {
            c if c.is_ascii_alphanumeric() => out.push(c.to_ascii_lowercase()),
            _ if !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
        lower_before = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    out.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_or_say_why_not() {
        let longest = "a".repeat(NAME_LENGTH_MAX);
        for name in ["a", "fetch-users", "x2", "a-1-b", &longest] {
            assert_eq!(fault(name), None, "of {name:?}");
        }
        let too_long = "a".repeat(NAME_LENGTH_MAX + 1);
        for (name, expected) in [
            ("A", "has a capital letter"),
            ("a_b", "has `_`"),
            ("a b", "has a blank"),
            ("2a", "does not begin with a letter"),
            ("-a", "does not begin with a letter"),
            ("a-", "ends with `-`"),
            ("größe", "has `ö`"),
            ("a.b", "has `.`"),
            (&too_long, "longer than 63 bytes"),
        ] {
            assert_eq!(fault(name).as_deref(), Some(expected), "of {name:?}");
        }
    }

    #[test]
    fn a_usable_name_is_proposed() {
        for (name, expected) in [
            ("FetchUsers", "fetch-users"),
            ("fetch_users", "fetch-users"),
            ("Fetch users!", "fetch-users"),
            ("HTTPServer", "httpserver"),
            ("v2Api", "v2-api"),
            ("größe", "gr-e"),
        ] {
            assert_eq!(kebab(name), expected, "of {name:?}");
        }
    }
}
