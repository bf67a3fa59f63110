//! How wide a text is in the drawing's typeface, and how it is broken into lines.

use unicode_width::UnicodeWidthChar;

/// Advance widths of the printable ASCII characters of Helvetica and Arial, in thousandths of the font size, from the space on.
const ADVANCES: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556, 556,
    556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778,
    722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222,
    500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// A viewer without Helvetica takes another sans-serif typeface; the widest common one, DejaVu Sans, needs about an eighth more.
const TYPEFACE_RESERVE: f64 = 1.13;

/// Longest line in units of the font size: about 30 letters, the width at which a box still looks like a box.
const LINE_EM_MAX: f64 = 17.0;

/// Lines after which a text is cut: a box of more would dwarf its neighbours, and the whole text stays in the tooltip.
const LINES_MAX: usize = 5;

/// The width of one line, in the unit of `font_size`.
pub(super) fn width(text: &str, font_size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * font_size * TYPEFACE_RESERVE
}

fn advance(c: char) -> f64 {
    if let Some(&thousandths) = (c as usize).checked_sub(0x20).and_then(|index| ADVANCES.get(index)) {
        return f64::from(thousandths) / 1000.0;
    }
    match c.width() {
        None | Some(0) => 0.0,
        Some(1) => 0.62,
        // Ideographs fill the square; emoji stand out of it a little.
        Some(_) if c as u32 >= 0x1_f000 => 1.3,
        Some(_) => 1.0,
    }
}

/// A text in lines: broken where the author broke it, between words where it is too long, inside a word only where
/// that alone is too long, and cut with `…` after the last line allowed.
pub(super) fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in paragraphs(text) {
        wrap(paragraph, &mut lines);
        if lines.len() > LINES_MAX {
            lines.truncate(LINES_MAX);
            if let Some(last) = lines.last_mut() {
                cut(last);
            }
            break;
        }
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// A text in one line, cut with `…` where it is wider than `width_max`.
pub(super) fn one_line(text: &str, font_size: f64, width_max: f64) -> String {
    let flat = paragraphs(text).collect::<Vec<_>>().join(" ");
    if width(&flat, font_size) <= width_max {
        return flat;
    }
    let mut kept = String::new();
    for c in flat.chars() {
        kept.push(c);
        if width(&kept, font_size) + width("…", font_size) > width_max {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

/// The parts between the breaks that the author wrote, trimmed.
pub(super) fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim)
}

fn wrap(paragraph: &str, lines: &mut Vec<String>) {
    let mut line = String::new();
    let mut line_em = 0.0;
    for word in paragraph.split_whitespace() {
        let word_em = width(word, 1.0);
        let space_em = if line.is_empty() { 0.0 } else { width(" ", 1.0) };
        if line_em + space_em + word_em <= LINE_EM_MAX {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            line_em += space_em + word_em;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        line_em = 0.0;
        for c in word.chars() {
            let c_em = advance(c) * TYPEFACE_RESERVE;
            if line_em + c_em > LINE_EM_MAX {
                lines.push(std::mem::take(&mut line));
                line_em = 0.0;
                if lines.len() > LINES_MAX {
                    return;
                }
            }
            line.push(c);
            line_em += c_em;
        }
    }
    lines.push(line);
}

fn cut(line: &mut String) {
    while width(line, 1.0) + width("…", 1.0) > LINE_EM_MAX && line.pop().is_some() {}
    line.push('…');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_where_it_should_be() {
        let long_word = "x".repeat(200);
        for (text, expected) in [
            ("", vec![""]),
            ("fetch users", vec!["fetch users"]),
            ("one\n two ", vec!["one", "two"]),
            ("a < b <br>", vec!["a < b <br>"]),
            ("reads each subscriber of the newsletter once", vec!["reads each subscriber of the", "newsletter once"]),
        ] {
            assert_eq!(lines(text), expected, "{text:?}");
        }
        let cut = lines(&long_word);
        assert_eq!(cut.len(), LINES_MAX);
        assert!(cut[LINES_MAX - 1].ends_with('…'));
        assert!(cut.iter().all(|line| width(line, 1.0) <= LINE_EM_MAX));
    }

    #[test]
    fn wide_characters_take_more_room_than_narrow_ones() {
        assert!(width("日本", 10.0) > width("ab", 10.0));
        assert!(width("iiii", 10.0) < width("mmmm", 10.0));
        assert_eq!(width("e\u{301}", 10.0), width("e", 10.0));
    }

    #[test]
    fn one_line_stays_within_its_width() {
        assert_eq!(one_line("orders", 12.0, 200.0), "orders");
        let cut = one_line("a very long title of a group", 12.0, 60.0);
        assert!(cut.ends_with('…') && width(&cut, 12.0) <= 60.0, "{cut}");
    }
}
