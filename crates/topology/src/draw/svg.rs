//! SVG: the layout as a document that stands alone.

use std::fmt::Write as _;

use super::css::{self, Style};
use super::figure::Figure;
use super::layout::{
    self, CYLINDER_CAP, GroupBox, HEAD, LABEL_FONT, LINE_HEIGHT, NODE_FONT, NodeBox, Path, Picture, Point, Rect, Step,
};
use crate::Shape;

/// Edges that the description spells out; a listener would not follow more, and the text form of the drawing lists all.
const DESCRIBED_EDGES_MAX: usize = 60;

/// Hues for edges. Where edges cross, those of one task share a hue, so that the eye keeps hold of them.
const HUES: usize = 6;

/// Colours for light pages, then for dark ones. Text has a contrast of at least 7:1 to what it stands on, lines of at least 4:1.
const STYLES: &str = "\
.leat .page{fill:#fff}\
.leat .box{fill:#eef4fc;stroke:#3d6fb4;stroke-width:1.4}\
.leat .text{fill:#16202c}\
.leat .group{fill:#6b7f99;fill-opacity:.08;stroke:#71819a;stroke-dasharray:4 3}\
.leat .title{fill:#3a4859;font-weight:600}\
.leat .plate{fill:#fff;stroke:#c3ccd8}\
.leat .label{fill:#2b3745}\
.leat .line{fill:none;stroke:#5a6878;stroke-width:1.5}\
.leat .head{fill:#5a6878}\
.leat .h0 .line{stroke:#3566b0}.leat .h0 .head{fill:#3566b0}\
.leat .h1 .line{stroke:#b4480f}.leat .h1 .head{fill:#b4480f}\
.leat .h2 .line{stroke:#22774a}.leat .h2 .head{fill:#22774a}\
.leat .h3 .line{stroke:#8b3fa8}.leat .h3 .head{fill:#8b3fa8}\
.leat .h4 .line{stroke:#8a6500}.leat .h4 .head{fill:#8a6500}\
.leat .h5 .line{stroke:#b02a5b}.leat .h5 .head{fill:#b02a5b}\
@media (prefers-color-scheme:dark){\
.leat .page{fill:#0d1117}\
.leat .box{fill:#17263c;stroke:#6aa0ea}\
.leat .text{fill:#eaf0f8}\
.leat .group{fill:#9fb3d1;stroke:#7c8da6}\
.leat .title{fill:#c3cfdf}\
.leat .plate{fill:#0d1117;stroke:#3c4859}\
.leat .label{fill:#d3dce8}\
.leat .line{stroke:#93a1b3}\
.leat .head{fill:#93a1b3}\
.leat .h0 .line{stroke:#7db0f5}.leat .h0 .head{fill:#7db0f5}\
.leat .h1 .line{stroke:#f0965f}.leat .h1 .head{fill:#f0965f}\
.leat .h2 .line{stroke:#62c48c}.leat .h2 .head{fill:#62c48c}\
.leat .h3 .line{stroke:#cf94e6}.leat .h3 .head{fill:#cf94e6}\
.leat .h4 .line{stroke:#dcb54a}.leat .h4 .head{fill:#dcb54a}\
.leat .h5 .line{stroke:#f285ab}.leat .h5 .head{fill:#f285ab}\
}";

/// Writes the document.
pub(super) fn write(figure: &Figure) -> String {
    let picture = layout::layout(figure);
    let mut out = String::new();
    open(&mut out, figure, &picture);
    let (node_styles, group_styles) = css::of_nodes_and_groups(figure);
    for (group, style) in picture.groups.iter().zip(&group_styles) {
        if let Some(group) = group {
            write_group_box(&mut out, group, style);
        }
    }
    write_links(&mut out, figure, &picture);
    for (group, style) in picture.groups.iter().zip(&group_styles) {
        if let Some(group) = group {
            write_title(&mut out, group, style);
        }
    }
    for ((node, drawn), style) in figure.nodes.iter().zip(&picture.nodes).zip(&node_styles) {
        write_node(&mut out, &node.id, node.caption(), node.shape, drawn, style);
    }
    out.push_str("</svg>\n");
    out
}

fn open(out: &mut String, figure: &Figure, picture: &Picture) {
    let (width, height) = (number(picture.width), number(picture.height));
    let id = format!("leat-{}", id(&figure.name));
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"leat\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-labelledby=\"{id}-title {id}-desc\" \
         font-family=\"Helvetica Neue,Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif\">"
    );
    let _ = writeln!(out, "<title id=\"{id}-title\">{}</title>", escape(&figure.name));
    let _ = writeln!(out, "<desc id=\"{id}-desc\">{}</desc>", escape(&description(figure)));
    let _ = writeln!(out, "<style>{STYLES}</style>");
    let _ = writeln!(out, "<rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>");
}

/// A name as part of an id: everything else than letters, digits and dashes becomes a dash.
fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn description(figure: &Figure) -> String {
    let mut text = String::new();
    if let Some(description) = &figure.description {
        let _ = write!(text, "{} ", description.trim());
    }
    let plural = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let _ = write!(text, "Flowchart of {} and {}.", plural(figure.nodes.len(), "task"), plural(figure.links.len(), "edge"));
    for link in figure.links.iter().take(DESCRIBED_EDGES_MAX) {
        let (from, to) = (&figure.nodes[link.from].id, &figure.nodes[link.to].id);
        let _ = match &link.label {
            Some(label) => write!(text, " {from} leads to {to} by {label}."),
            None => write!(text, " {from} leads to {to}."),
        };
    }
    if figure.links.len() > DESCRIBED_EDGES_MAX {
        let _ = write!(text, " And {} more.", plural(figure.links.len() - DESCRIBED_EDGES_MAX, "edge"));
    }
    text
}

fn write_group_box(out: &mut String, group: &GroupBox, style: &Style) {
    let Rect { x, y, width, height } = group.rect;
    let (x, y, width, height) = (number(x), number(y), number(width), number(height));
    // A fill that the author chose is shown in full, the usual one lets the page through.
    let opacity = if style.fill.is_some() { "fill-opacity:1;" } else { "" };
    let style = shape_style(style, opacity);
    let _ = writeln!(out, "<rect class=\"group\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\"{style}/>");
}

fn write_title(out: &mut String, group: &GroupBox, style: &Style) {
    let at = group.title_rect;
    let (x, y) = (number(at.x), number(at.y + at.height * 0.76));
    let style = text_style(style);
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"{x}\" y=\"{y}\" font-size=\"{LABEL_FONT}\"{style}>{}</text>",
        escape(&group.title)
    );
}

fn write_links(out: &mut String, figure: &Figure, picture: &Picture) {
    let styles = css::of_links(figure);
    for (index, link) in figure.links.iter().enumerate() {
        let (from, to) = (&figure.nodes[link.from].id, &figure.nodes[link.to].id);
        let name = match &link.label {
            Some(label) => format!("{from} --> {to}: {label}"),
            None => format!("{from} --> {to}"),
        };
        let hue = if picture.crossings > 0 { format!(" class=\"h{}\"", link.from % HUES) } else { String::new() };
        let style = &styles[index];
        let (line, head) = path_data(&picture.links[index]);
        let head_style = style.stroke.map_or(String::new(), |stroke| format!(" style=\"fill:{stroke}\""));
        let line_style = shape_style(&Style { fill: None, ..style.clone() }, "");
        let _ = writeln!(
            out,
            "<g{hue}><title>{}</title><path class=\"line\" d=\"{line}\"{line_style}/><path class=\"head\" d=\"{head}\"{head_style}/></g>",
            escape(&name)
        );
    }
    for ((link, rect), style) in figure.links.iter().zip(&picture.labels).zip(&styles) {
        if let (Some(label), Some(rect)) = (&link.label, rect) {
            write_label(out, label, *rect, style);
        }
    }
}

fn write_label(out: &mut String, label: &str, rect: Rect, style: &Style) {
    let (x, y, width, height) = (number(rect.x), number(rect.y), number(rect.width), number(rect.height));
    let Point { x: middle, y: center } = rect.center();
    let (middle, base) = (number(middle), number(center + LABEL_FONT * 0.35));
    let radius = number(rect.height / 2.0);
    let text_style = style.color.map_or(String::new(), |color| format!(" style=\"fill:{color}\""));
    let _ = writeln!(
        out,
        "<rect class=\"plate\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{radius}\"/>\
         <text class=\"label\" x=\"{middle}\" y=\"{base}\" font-size=\"{LABEL_FONT}\" text-anchor=\"middle\"{text_style}>{}</text>",
        escape(label)
    );
}

fn write_node(out: &mut String, id: &str, caption: &str, shape: Shape, drawn: &NodeBox, style: &Style) {
    let tooltip = if caption == id { escape(id) } else { format!("{}: {}", escape(id), escape(caption)) };
    let _ = writeln!(out, "<g><title>{tooltip}</title>");
    write_outline(out, shape, drawn.rect, &shape_style(style, ""));
    let Point { x, y } = drawn.rect.center();
    let cap = if shape == Shape::Cylinder { CYLINDER_CAP / 2.0 } else { 0.0 };
    let first = y + cap + NODE_FONT * 0.35 - LINE_HEIGHT * (drawn.lines.len() as f64 - 1.0) / 2.0;
    let (x, text_style) = (number(x), text_style(style));
    for (index, line) in drawn.lines.iter().enumerate() {
        let y = number(first + LINE_HEIGHT * index as f64);
        let _ = writeln!(
            out,
            "<text class=\"text\" x=\"{x}\" y=\"{y}\" font-size=\"{NODE_FONT}\" text-anchor=\"middle\"{text_style}>{}</text>",
            escape(line)
        );
    }
    out.push_str("</g>\n");
}

fn write_outline(out: &mut String, shape: Shape, rect: Rect, style: &str) {
    let Rect { x, y, width, height } = rect;
    let Point { x: middle, y: center } = rect.center();
    let _ = match shape {
        Shape::Rectangle | Shape::Rounded | Shape::Stadium => {
            let radius = match shape {
                Shape::Rectangle => 4.0,
                Shape::Rounded => 12.0_f64.min(height / 2.0),
                _ => width.min(height) / 2.0,
            };
            let (x, y, width, height, radius) = (number(x), number(y), number(width), number(height), number(radius));
            writeln!(
                out,
                "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{radius}\"{style}/>"
            )
        }
        Shape::Diamond => {
            let (left, top, right, bottom) = (number(x), number(y), number(rect.right()), number(rect.bottom()));
            let (middle, center) = (number(middle), number(center));
            writeln!(
                out,
                "<path class=\"box\" d=\"M{middle} {top}L{right} {center}L{middle} {bottom}L{left} {center}Z\" stroke-linejoin=\"round\"{style}/>"
            )
        }
        Shape::Cylinder => {
            let (left, right, radius, cap) = (number(x), number(rect.right()), number(width / 2.0), number(CYLINDER_CAP));
            let (top, bottom) = (number(y + CYLINDER_CAP), number(rect.bottom() - CYLINDER_CAP));
            writeln!(
                out,
                "<path class=\"box\" d=\"M{left} {top}A{radius} {cap} 0 0 1 {right} {top}V{bottom}A{radius} {cap} 0 0 1 {left} {bottom}Z\
                 M{left} {top}A{radius} {cap} 0 0 0 {right} {top}\"{style}/>"
            )
        }
    };
}

/// The line of an edge, which ends inside its head, and the head.
fn path_data(path: &Path) -> (String, String) {
    let end = path.end();
    let before = match path.steps.as_slice() {
        [.., Step::Line(_) | Step::Curve(_, _, _), Step::Line(_)] | [Step::Line(_)] => straight_before(path),
        [.., Step::Curve(_, control, _)] => *control,
        _ => path.start,
    };
    let length = ((end.x - before.x).powi(2) + (end.y - before.y).powi(2)).sqrt().max(f64::EPSILON);
    let (along_x, along_y) = ((end.x - before.x) / length, (end.y - before.y) / length);
    let base = Point { x: end.x - along_x * HEAD, y: end.y - along_y * HEAD };
    let half = HEAD * 0.44;
    let head = format!(
        "M{} {}L{} {}L{} {}Z",
        number(end.x),
        number(end.y),
        number(base.x - along_y * half),
        number(base.y + along_x * half),
        number(base.x + along_y * half),
        number(base.y - along_x * half)
    );
    let stop = Point { x: end.x - along_x * (HEAD - 1.0), y: end.y - along_y * (HEAD - 1.0) };
    let mut line = format!("M{} {}", number(path.start.x), number(path.start.y));
    let last = path.steps.len().saturating_sub(1);
    for (index, step) in path.steps.iter().enumerate() {
        let shortened = |to: Point| if index == last { stop } else { to };
        let _ = match *step {
            Step::Line(to) => {
                let to = shortened(to);
                write!(line, "L{} {}", number(to.x), number(to.y))
            }
            Step::Curve(one, two, to) => {
                let to = shortened(to);
                let [a, b, c, d, e, f] = [one.x, one.y, two.x, two.y, to.x, to.y].map(number);
                write!(line, "C{a} {b} {c} {d} {e} {f}")
            }
        };
    }
    (line, head)
}

/// Where the last straight piece begins.
fn straight_before(path: &Path) -> Point {
    match path.steps.len() {
        0 | 1 => path.start,
        count => match path.steps[count - 2] {
            Step::Line(at) | Step::Curve(_, _, at) => at,
        },
    }
}

fn shape_style(style: &Style, more: &str) -> String {
    let mut css = String::from(more);
    if let Some(fill) = style.fill {
        let _ = write!(css, "fill:{fill};");
    }
    if let Some(stroke) = style.stroke {
        let _ = write!(css, "stroke:{stroke};");
    }
    if let Some(width) = style.stroke_width {
        let _ = write!(css, "stroke-width:{};", number(width));
    }
    if let Some(dashes) = &style.dashes {
        let _ = write!(css, "stroke-dasharray:{dashes};");
    }
    attribute(&css)
}

fn text_style(style: &Style) -> String {
    let mut css = String::new();
    if let Some(color) = style.color.or(style.fill.map(css::Color::readable)) {
        let _ = write!(css, "fill:{color};");
    }
    if style.bold {
        css.push_str("font-weight:bold;");
    }
    if style.italic {
        css.push_str("font-style:italic;");
    }
    attribute(&css)
}

fn attribute(css: &str) -> String {
    if css.is_empty() { String::new() } else { format!(" style=\"{}\"", css.trim_end_matches(';')) }
}

/// A length with at most one decimal: a tenth of a pixel cannot be seen.
fn number(value: f64) -> String {
    let tenths = (value * 10.0).round() as i64;
    let sign = if tenths < 0 { "-" } else { "" };
    let (whole, rest) = (tenths.abs() / 10, tenths.abs() % 10);
    if rest == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

/// Text for XML: markup escaped, and characters left out that XML cannot hold in any form.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {}
            // Marks that turn the reading direction of what follows could make a name look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
