//! `leat graph`: drawings, on standard output or inside a Markdown file.

use crate::{
    args::{Format, Graph},
    exit::{Code, Doing, Failure, Result, write_out},
    project::Found,
};
use leatworks_topology::{Topology, draw};

/// What ends the part of a file that a drawing replaces.
const END: &str = "<!-- leat end -->";

/// Draws a topology.
pub(crate) fn run(args: &Graph, found: &Found) -> Result {
    let topology = found.topology(args.topology.as_deref())?;
    let Some(path) = &args.write else {
        write_out(drawing(topology, args.format).as_bytes());
        return Ok(());
    };
    if args.format != Format::Mermaid {
        let text = "a page holds its drawing as Mermaid: leave out --format, or leave out --write and keep the drawing in a file of its own";
        return Err(Failure::new(Code::Usage, text));
    }
    let text = std::fs::read_to_string(path).doing(|| format!("reading `{}`", path.display()))?;
    let name = topology.name().as_str();
    let new = replace(&text, name, &drawing(topology, Format::Mermaid)).ok_or_else(|| {
        Failure::new(
            Code::Invalid,
            format!(
                "`{}` has no place for the drawing; put the two lines `{}` and `{END}` where it belongs",
                path.display(),
                begin(name)
            ),
        )
    })?;
    if new == text {
        return Ok(());
    }
    if args.check {
        return Err(Failure::new(
            Code::Different,
            format!(
                "the drawing of `{name}` in `{0}` is not the graph's; `leat graph {name} --write {0}` renews it",
                path.display()
            ),
        ));
    }
    std::fs::write(path, new).doing(|| format!("writing `{}`", path.display()))
}

fn drawing(topology: &Topology, format: Format) -> String {
    match format {
        Format::Mermaid => draw::mermaid(topology),
        Format::Svg => draw::svg(topology),
        Format::Dot => draw::dot(topology),
        Format::Text => draw::text(topology, unicode()),
    }
}

/// Whether the locale says that the terminal shows more than ASCII.
fn unicode() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
    locale.is_none_or(|locale| locale.to_ascii_uppercase().replace('-', "").contains("UTF8"))
}

fn begin(name: &str) -> String {
    format!("<!-- leat graph {name} -->")
}

/// Puts the drawing between the marks; `None` if they are not there.
fn replace(text: &str, name: &str, mermaid: &str) -> Option<String> {
    let begin = begin(name);
    let start = text.find(&begin)? + begin.len();
    let end = start + text[start..].find(END)?;
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let block = format!("\n```mermaid\n{}\n```\n", mermaid.trim_end()).replace('\n', newline);
    Some(format!("{}{block}{}", &text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_goes_between_its_marks_and_nowhere_else() {
        let cases = [
            (
                "x\n<!-- leat graph a -->\nold\n<!-- leat end -->\ny",
                Some("x\n<!-- leat graph a -->\n```mermaid\nflow\n```\n<!-- leat end -->\ny"),
            ),
            ("<!-- leat graph a --><!-- leat end -->", Some("<!-- leat graph a -->\n```mermaid\nflow\n```\n<!-- leat end -->")),
            (
                "\r\n<!-- leat graph a -->\r\n<!-- leat end -->",
                Some("\r\n<!-- leat graph a -->\r\n```mermaid\r\nflow\r\n```\r\n<!-- leat end -->"),
            ),
            ("<!-- leat graph b -->\n<!-- leat end -->", None),
            ("<!-- leat end -->\n<!-- leat graph a -->", None),
        ];
        for (text, expected) in cases {
            assert_eq!(replace(text, "a", "flow\n").as_deref(), expected, "{text}");
            if let Some(once) = expected {
                assert_eq!(replace(once, "a", "flow\n").as_deref(), expected, "writing again changes nothing");
            }
        }
    }
}
