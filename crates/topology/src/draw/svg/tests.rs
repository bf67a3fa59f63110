//! What the document holds and what it never holds; and pictures for people to look at.

use super::css::Color;
use super::*;
use crate::draw::testing::{figure, pipeline};
use crate::draw::{dot, mermaid, text};
use crate::{Direction, StyleRule};

/// Texts that break out of markup wherever one layer of escaping is missing.
const NASTY: [&str; 9] = [
    "</text><script>alert(1)</script>",
    "]]><svg onload=alert(1)>",
    "\" onmouseover=\"alert(1)",
    "' & \" < > &amp; &#60;",
    "nul\u{0}bell\u{7}escape\u{1b}[31m",
    "\u{202e}txt.exe\u{2066}",
    "\u{fffe}\u{ffff}\u{85}",
    "größe 日本語 😀\nnext line",
    "<!-- --><?xml?><!DOCTYPE x [<!ENTITY a \"b\">]>",
];

fn nasty_figures() -> Vec<Figure> {
    let styled = |css: &str| {
        let nodes = vec!["a".to_owned(), "box".to_owned()];
        vec![
            StyleRule::ClassDef { classes: vec!["default".to_owned()], css: css.to_owned() },
            StyleRule::Style { nodes, css: css.to_owned() },
            StyleRule::LinkStyle { edges: vec![], css: css.to_owned() },
        ]
    };
    let mut figures = Vec::new();
    for text in NASTY {
        let mut drawn = figure("a>x>b a>b b>c box[a,b] c:diamond");
        drawn.name = text.to_owned();
        drawn.description = Some(text.to_owned());
        drawn.nodes.iter_mut().for_each(|node| node.text = Some(text.to_owned()));
        drawn.nodes[0].id = text.to_owned();
        drawn.groups[0].title = Some(text.to_owned());
        drawn.links[0].label = Some(text.to_owned());
        drawn.rules = styled(&format!("fill:{text},stroke:red;}}{text},stroke-dasharray:{text}"));
        figures.push(drawn);
    }
    figures
}

#[test]
fn no_text_can_break_out_of_the_document() {
    /// Everything the drawing is made of; an element or attribute that is not here came from a text.
    const ELEMENTS: [&str; 8] = ["svg", "title", "desc", "style", "rect", "g", "path", "text"];
    const ATTRIBUTES: [&str; 18] = [
        "class",
        "width",
        "height",
        "viewBox",
        "role",
        "aria-labelledby",
        "font-family",
        "id",
        "rx",
        "x",
        "y",
        "font-size",
        "text-anchor",
        "d",
        "style",
        "stroke-linejoin",
        "fill",
        "transform",
    ];
    for drawn in nasty_figures() {
        let svg = write(&drawn);
        let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error} in\n{svg}"));
        for element in document.descendants().filter(|node| node.is_element()) {
            assert!(ELEMENTS.contains(&element.tag_name().name()), "{} in\n{svg}", element.tag_name().name());
            for attribute in element.attributes() {
                assert!(ATTRIBUTES.contains(&attribute.name()), "{} in\n{svg}", attribute.name());
                assert!(!attribute.value().contains("url("), "{attribute:?}");
            }
        }
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("style")).count(), 1, "{svg}");
        assert_eq!(svg.matches("http").count(), 1, "only the name space: {svg}");
    }
}

#[test]
fn every_task_edge_label_and_group_can_be_read() {
    let drawn = figure("a>mail>b b>c box[a,b] a=Fetch_the_users");
    let svg = write(&drawn);
    let document = roxmltree::Document::parse(&svg).expect("the drawing is XML");
    let texts: Vec<&str> =
        document.descendants().filter(|node| node.has_tag_name("text")).filter_map(|node| node.text()).collect();
    for wanted in ["Fetch the users", "b", "mail", "box"] {
        assert!(texts.contains(&wanted), "{wanted} is not among {texts:?}");
    }
    let first: Vec<_> = document.root_element().children().filter(|node| node.is_element()).take(2).collect();
    assert_eq!((first[0].tag_name().name(), first[0].text()), ("title", Some("test")));
    assert!(first[1].text().is_some_and(|text| text.contains("a leads to b by mail.")), "{svg}");
}

#[test]
fn the_same_graph_gives_the_same_bytes() {
    for count in [5, 20, 100, 400] {
        let drawn = pipeline(count, 3, count / 10, Direction::TopToBottom);
        assert_eq!(write(&drawn), write(&drawn.clone()), "{count} tasks");
    }
}

#[test]
fn colours_contrast_with_what_they_stand_on() {
    let (light, dark) = STYLES.split_once("@media").expect("there is a dark half");
    let value = |css: &str, class: &str, property: &str| {
        let rule = css.split_once(&format!(".leat {class}{{"))?.1.split_once('}')?.0;
        rule.split(';').find_map(|declaration| Color::parse(declaration.strip_prefix(property)?.strip_prefix(':')?))
    };
    for (name, css) in [("light", light), ("dark", dark)] {
        let mut pairs = vec![(".text", ".box", "fill", 7.0), (".title", ".page", "fill", 7.0), (".label", ".plate", "fill", 7.0)];
        pairs.extend([(".box", ".page", "stroke", 4.0), (".line", ".page", "stroke", 4.0), (".head", ".page", "fill", 4.0)]);
        let hues: Vec<String> = (0..HUES).map(|hue| format!(".h{hue} .line")).collect();
        pairs.extend(hues.iter().map(|hue| (hue.as_str(), ".page", "stroke", 4.0)));
        for (class, ground, property, least) in pairs {
            let one = value(css, class, property).unwrap_or_else(|| panic!("{name}: no {property} of {class}"));
            let other = value(css, ground, "fill").unwrap_or_else(|| panic!("{name}: no fill of {ground}"));
            let contrast = one.contrast(other);
            assert!(contrast >= least, "{name}: {class} on {ground} has {contrast:.1}:1");
        }
    }
}

/// Writes pictures to look at into the folder that `LEAT_PICTURES` names.
#[test]
#[ignore = "writes pictures for people, checks nothing"]
fn pictures() {
    let folder = std::path::PathBuf::from(std::env::var_os("LEAT_PICTURES").expect("LEAT_PICTURES names a folder"));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let email = "start>fetch-users fetch-users>render render>mail>send render>skipped>record send>record";
    let log = "read>parse parse>page>count-pages parse>asset>count-assets parse>error>count-errors parse>malformed>reject \
               count-pages>report count-assets>report count-errors>report reject>report";
    let shapes = "in[http,parse] work[] fast[enrich]/work slow[score]/work http>parse parse>enrich parse>score enrich>store \
                  score>store parse>bad>audit parse:diamond store:cylinder http:stadium audit:rounded score=Score_the_order|by_its_risk";
    let mut figures = vec![("email", figure(email)), ("log", figure(log)), ("shapes", figure(shapes))];
    for (name, count, groups) in
        [("five", 5, 0), ("twenty", 20, 0), ("twenty-groups", 20, 4), ("hundred", 100, 0), ("hundred-groups", 100, 7)]
    {
        figures.push((name, pipeline(count, 1, groups, Direction::TopToBottom)));
    }
    for (name, figure) in figures {
        let others = [("mmd", mermaid::write(&figure)), ("dot", dot::write(&figure)), ("txt", text::write(&figure, true))];
        for (extension, drawing) in others {
            std::fs::write(folder.join(format!("{name}.{extension}")), drawing).expect("the drawing can be written");
        }
        for direction in [Direction::TopToBottom, Direction::LeftToRight, Direction::BottomToTop, Direction::RightToLeft] {
            let svg = write(&super::Figure { direction, ..figure.clone() });
            std::fs::write(folder.join(format!("{name}-{}.svg", direction.as_str())), svg).expect("the picture can be written");
        }
    }
    for count in [1000, 10_000] {
        let figure = pipeline(count, 1, 0, Direction::LeftToRight);
        let begin = std::time::Instant::now();
        let svg = write(&figure);
        println!("{count} tasks: {:?}, {} bytes", begin.elapsed(), svg.len());
    }
}
