//! The author's styles: which properties a drawing takes over, checked value by value so that nothing else can come in.

use std::collections::HashMap;

use super::figure::Figure;
use crate::StyleRule;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Color {
    red: u8,
    green: u8,
    blue: u8,
}

impl Color {
    /// `#rgb`, `#rrggbb` or one of CSS' names.
    pub(super) fn parse(text: &str) -> Option<Color> {
        let text = text.trim();
        if let Some(digits) = text.strip_prefix('#') {
            return match digits.len() {
                3 => Color::from_hex(&digits.chars().flat_map(|digit| [digit, digit]).collect::<String>()),
                6 => Color::from_hex(digits),
                _ => None,
            };
        }
        let mut words = NAMES.split_whitespace();
        while let (Some(name), Some(digits)) = (words.next(), words.next()) {
            if name.eq_ignore_ascii_case(text) {
                return Color::from_hex(digits);
            }
        }
        None
    }

    fn from_hex(digits: &str) -> Option<Color> {
        if !digits.is_ascii() {
            return None;
        }
        let part = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        Some(Color { red: part(0)?, green: part(2)?, blue: part(4)? })
    }

    /// Black or white, whichever is easier to read on this colour.
    pub(super) fn readable(self) -> Color {
        // At this luminance black and white have the same WCAG contrast to the colour.
        if self.luminance() > 0.179 {
            Color { red: 0x11, green: 0x11, blue: 0x11 }
        } else {
            Color { red: 255, green: 255, blue: 255 }
        }
    }

    /// The contrast to another colour as WCAG defines it, from 1 to 21.
    #[cfg(test)]
    pub(super) fn contrast(self, other: Color) -> f64 {
        let (one, other) = (self.luminance(), other.luminance());
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let share = f64::from(part) / 255.0;
            if share <= 0.040_45 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }
}

impl std::fmt::Display for Color {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// What the author asked for, as far as a drawing can do it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Style {
    pub(super) fill: Option<Color>,
    pub(super) stroke: Option<Color>,
    pub(super) color: Option<Color>,
    pub(super) stroke_width: Option<f64>,
    /// Numbers separated by spaces.
    pub(super) dashes: Option<String>,
    pub(super) bold: bool,
    pub(super) italic: bool,
}

impl Style {
    /// Takes over a style list; what is unknown or malformed is left out.
    fn apply(&mut self, css: &str) {
        for declaration in css.split([',', ';']) {
            let Some((property, value)) = declaration.split_once(':') else { continue };
            let value = value.trim().trim_end_matches("!important").trim();
            match property.trim() {
                "fill" => self.fill = Color::parse(value).or(self.fill),
                "stroke" => self.stroke = Color::parse(value).or(self.stroke),
                "color" => self.color = Color::parse(value).or(self.color),
                "stroke-width" => self.stroke_width = length(value).or(self.stroke_width),
                "stroke-dasharray" => self.dashes = dashes(value).or(self.dashes.take()),
                "font-weight" => self.bold = value == "bold" || value.parse::<u16>().is_ok_and(|weight| weight >= 600),
                "font-style" => self.italic = value == "italic",
                _ => {}
            }
        }
    }
}

/// Widths above this are mistakes or mischief: such a line hides what it should set off.
const STROKE_WIDTH_MAX: f64 = 12.0;

fn length(value: &str) -> Option<f64> {
    let number: f64 = value.trim_end_matches("px").parse().ok()?;
    (number.is_finite() && number >= 0.0).then(|| number.min(STROKE_WIDTH_MAX))
}

fn dashes(value: &str) -> Option<String> {
    let numbers: Option<Vec<f64>> = value.split_whitespace().map(length).collect();
    let numbers: Vec<String> = numbers?.iter().map(f64::to_string).collect();
    (!numbers.is_empty()).then(|| numbers.join(" "))
}

/// The styles of all nodes and of all groups.
pub(super) fn of_nodes_and_groups(figure: &Figure) -> (Vec<Style>, Vec<Style>) {
    let rules = Rules::new(figure);
    let nodes = figure.nodes.iter().map(|node| rules.of(&node.id, &node.classes, true)).collect();
    let groups = figure.groups.iter().map(|group| rules.of(&group.id, &[], false)).collect();
    (nodes, groups)
}

/// The style of every edge.
pub(super) fn of_links(figure: &Figure) -> Vec<Style> {
    let mut styles = vec![Style::default(); figure.links.len()];
    for rule in &figure.rules {
        if let StyleRule::LinkStyle { edges, css } = rule {
            if edges.is_empty() {
                styles.iter_mut().for_each(|style| style.apply(css));
            }
            for &edge in edges {
                if let Some(style) = styles.get_mut(edge) {
                    style.apply(css);
                }
            }
        }
    }
    styles
}

/// The rules by what they are about, so that thousands of nodes with a rule each stay cheap.
#[derive(Default)]
struct Rules<'a> {
    css_of_class: HashMap<&'a str, Vec<&'a str>>,
    classes_of: HashMap<&'a str, Vec<&'a str>>,
    css_of: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Rules<'a> {
    fn new(figure: &'a Figure) -> Rules<'a> {
        let mut rules = Rules::default();
        for rule in &figure.rules {
            let (map, names, value) = match rule {
                StyleRule::ClassDef { classes, css } => (&mut rules.css_of_class, classes, css),
                StyleRule::Class { nodes, class } => (&mut rules.classes_of, nodes, class),
                StyleRule::Style { nodes, css } => (&mut rules.css_of, nodes, css),
                StyleRule::LinkStyle { .. } => continue,
            };
            for name in names {
                map.entry(name).or_default().push(value);
            }
        }
        rules
    }

    /// Defaults first, then classes in the order they were given, then what is said of the element itself.
    fn of(&self, id: &str, own_classes: &[String], default_applies: bool) -> Style {
        let mut style = Style::default();
        let given = self.classes_of.get(id).into_iter().flatten().copied();
        let default = default_applies.then_some("default");
        for class in default.into_iter().chain(own_classes.iter().map(String::as_str)).chain(given) {
            self.css_of_class.get(class).into_iter().flatten().for_each(|css| style.apply(css));
        }
        self.css_of.get(id).into_iter().flatten().for_each(|css| style.apply(css));
        style
    }
}

/// The names of CSS with their values.
const NAMES: &str = "aliceblue f0f8ff antiquewhite faebd7 aqua 00ffff aquamarine 7fffd4 azure f0ffff beige f5f5dc bisque ffe4c4 \
    black 000000 blanchedalmond ffebcd blue 0000ff blueviolet 8a2be2 brown a52a2a burlywood deb887 cadetblue 5f9ea0 chartreuse 7fff00 \
    chocolate d2691e coral ff7f50 cornflowerblue 6495ed cornsilk fff8dc crimson dc143c cyan 00ffff darkblue 00008b darkcyan 008b8b \
    darkgoldenrod b8860b darkgray a9a9a9 darkgreen 006400 darkgrey a9a9a9 darkkhaki bdb76b darkmagenta 8b008b darkolivegreen 556b2f \
    darkorange ff8c00 darkorchid 9932cc darkred 8b0000 darksalmon e9967a darkseagreen 8fbc8f darkslateblue 483d8b darkslategray 2f4f4f \
    darkslategrey 2f4f4f darkturquoise 00ced1 darkviolet 9400d3 deeppink ff1493 deepskyblue 00bfff dimgray 696969 dimgrey 696969 \
    dodgerblue 1e90ff firebrick b22222 floralwhite fffaf0 forestgreen 228b22 fuchsia ff00ff gainsboro dcdcdc ghostwhite f8f8ff \
    gold ffd700 goldenrod daa520 gray 808080 green 008000 greenyellow adff2f grey 808080 honeydew f0fff0 hotpink ff69b4 \
    indianred cd5c5c indigo 4b0082 ivory fffff0 khaki f0e68c lavender e6e6fa lavenderblush fff0f5 lawngreen 7cfc00 lemonchiffon fffacd \
    lightblue add8e6 lightcoral f08080 lightcyan e0ffff lightgoldenrodyellow fafad2 lightgray d3d3d3 lightgreen 90ee90 lightgrey d3d3d3 \
    lightpink ffb6c1 lightsalmon ffa07a lightseagreen 20b2aa lightskyblue 87cefa lightslategray 778899 lightslategrey 778899 \
    lightsteelblue b0c4de lightyellow ffffe0 lime 00ff00 limegreen 32cd32 linen faf0e6 magenta ff00ff maroon 800000 \
    mediumaquamarine 66cdaa mediumblue 0000cd mediumorchid ba55d3 mediumpurple 9370db mediumseagreen 3cb371 mediumslateblue 7b68ee \
    mediumspringgreen 00fa9a mediumturquoise 48d1cc mediumvioletred c71585 midnightblue 191970 mintcream f5fffa mistyrose ffe4e1 \
    moccasin ffe4b5 navajowhite ffdead navy 000080 oldlace fdf5e6 olive 808000 olivedrab 6b8e23 orange ffa500 orangered ff4500 \
    orchid da70d6 palegoldenrod eee8aa palegreen 98fb98 paleturquoise afeeee palevioletred db7093 papayawhip ffefd5 peachpuff ffdab9 \
    peru cd853f pink ffc0cb plum dda0dd powderblue b0e0e6 purple 800080 rebeccapurple 663399 red ff0000 rosybrown bc8f8f \
    royalblue 4169e1 saddlebrown 8b4513 salmon fa8072 sandybrown f4a460 seagreen 2e8b57 seashell fff5ee sienna a0522d silver c0c0c0 \
    skyblue 87ceeb slateblue 6a5acd slategray 708090 slategrey 708090 snow fffafa springgreen 00ff7f steelblue 4682b4 tan d2b48c \
    teal 008080 thistle d8bfd8 tomato ff6347 turquoise 40e0d0 violet ee82ee wheat f5deb3 white ffffff whitesmoke f5f5f5 yellow ffff00 \
    yellowgreen 9acd32";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_values_are_taken_over() {
        let mut style = Style::default();
        style.apply("fill:#f9F, stroke:RebeccaPurple,stroke-width:4px,stroke-dasharray: 5 5,color:white,font-weight:bold");
        assert_eq!(style.fill.map(|c| c.to_string()).as_deref(), Some("#ff99ff"));
        assert_eq!(style.stroke.map(|c| c.to_string()).as_deref(), Some("#663399"));
        assert_eq!((style.stroke_width, style.dashes.as_deref(), style.bold), (Some(4.0), Some("5 5"), true));
        for bad in [
            "fill:url(http://x)",
            "fill:#ééé",
            "fill:#12345",
            "stroke-width:-1",
            "stroke-width:1e999",
            "fill",
            "stroke-dasharray:a",
            "",
        ] {
            let mut style = Style::default();
            style.apply(bad);
            assert_eq!(style, Style::default(), "{bad}");
        }
    }

    #[test]
    fn text_on_a_filled_box_can_be_read() {
        for (fill, expected) in [("yellow", "#111111"), ("navy", "#ffffff"), ("#f9f", "#111111"), ("black", "#ffffff")] {
            assert_eq!(Color::parse(fill).map(|fill| fill.readable().to_string()).as_deref(), Some(expected), "{fill}");
        }
    }
}
