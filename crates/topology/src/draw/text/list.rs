//! A list: each task with its routes and where they lead. It takes any graph.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::COLUMNS_MAX;
use crate::draw::figure::Figure;
use crate::draw::measure;

/// Names up to this width are padded to one column; longer ones push their own line only.
const NAME_COLUMN_MAX: usize = 28;

/// Writes the list.
pub(super) fn write(figure: &Figure, unicode: bool) -> String {
    let mut routes: Vec<Vec<(Option<&str>, Vec<usize>)>> = vec![Vec::new(); figure.nodes.len()];
    let mut reached = vec![false; figure.nodes.len()];
    for link in &figure.links {
        reached[link.to] = true;
        let label = link.label.as_deref();
        let of_task = &mut routes[link.from];
        match of_task.iter_mut().find(|(other, _)| *other == label) {
            Some((_, targets)) => targets.push(link.to),
            None => of_task.push((label, vec![link.to])),
        }
    }
    let column = figure.nodes.iter().map(|node| node.id.len()).filter(|&width| width <= NAME_COLUMN_MAX).max().unwrap_or(0);
    let mut out = String::new();
    for (index, node) in figure.nodes.iter().enumerate() {
        let text = node.text.as_deref().map(|text| measure::paragraphs(text).collect::<Vec<_>>().join(" "));
        let shown = text.filter(|text| unicode || text.is_ascii());
        if let Some(text) = &shown {
            let _ = writeln!(out, "{}", cut(&format!("{:column$} ({text})", node.id), unicode));
        } else if routes[index].is_empty() && !reached[index] {
            let _ = writeln!(out, "{}", node.id);
        }
        for (at, (label, targets)) in routes[index].iter().enumerate() {
            let name = if at == 0 && shown.is_none() { node.id.as_str() } else { "" };
            let start = format!("{name:column$} {} ", arrow(at, routes[index].len(), *label, unicode));
            write_targets(&mut out, figure, &start, targets);
        }
    }
    out
}

fn arrow(at: usize, count: usize, label: Option<&str>, unicode: bool) -> String {
    let fork = match (at, count, unicode) {
        (_, 1, true) => "─",
        (0, _, true) => "┬",
        (at, count, true) if at + 1 == count => "└",
        (_, _, true) => "├",
        (_, 1, false) => "-",
        (_, _, false) => "+",
    };
    let (line, head) = if unicode { ("─", "─▶") } else { ("-", "->") };
    match label {
        Some(label) => format!("{fork}{line} {label} {head}"),
        None => format!("{fork}{head}"),
    }
}

/// The targets behind the arrow, continued on indented lines where they are too many for one.
fn write_targets(out: &mut String, figure: &Figure, start: &str, targets: &[usize]) {
    let indent = start.width();
    let mut width = indent;
    out.push_str(start);
    for (at, &target) in targets.iter().enumerate() {
        let id = &figure.nodes[target].id;
        let comma = if at + 1 < targets.len() { "," } else { "" };
        if at > 0 && width + 1 + id.len() + comma.len() > COLUMNS_MAX {
            let _ = write!(out, "\n{:indent$}", "");
            width = indent;
        } else if at > 0 {
            out.push(' ');
            width += 1;
        }
        let _ = write!(out, "{id}{comma}");
        width += id.len() + comma.len();
    }
    out.push('\n');
}

/// A line no wider than [`COLUMNS_MAX`], wide characters counted as two.
fn cut(line: &str, unicode: bool) -> String {
    if line.width() <= COLUMNS_MAX {
        return line.to_owned();
    }
    let dots = if unicode { "…" } else { "..." };
    let mut kept = String::new();
    let mut width = dots.width();
    for c in line.chars() {
        width += c.width().unwrap_or(0);
        if width > COLUMNS_MAX {
            break;
        }
        kept.push(c);
    }
    kept + dots
}
