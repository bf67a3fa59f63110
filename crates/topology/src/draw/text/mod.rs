//! Text for a terminal: boxes and arrows where they fit, otherwise a list.

mod canvas;
mod flow;
mod list;

use super::figure::Figure;

/// The width a drawing may take: what a terminal window usually shows without wrapping.
const COLUMNS_MAX: usize = 100;

/// Taller drawings leave the window and lose their edges from sight; the list reads better then.
const ROWS_MAX: usize = 40;

/// Draws the figure.
pub(super) fn write(figure: &Figure, unicode: bool) -> String {
    flow::draw(figure, unicode).unwrap_or_else(|| list::write(figure, unicode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;
    use crate::draw::testing::{figure, pipeline};

    #[test]
    fn small_graphs_become_boxes_and_arrows() {
        for (words, expected) in [
            ("a", "a\n"),
            ("a>b b>c", "a ─▶ b ─▶ c\n"),
            (
                "http>parse parse>enrich parse>score enrich>store score>store",
                "http ─▶ parse ─┬▶ enrich ─┬▶ store\n               └▶ score ──┘\n",
            ),
            (
                "read>parse parse>page>pages parse>malformed>reject pages>report reject>report",
                "read ─▶ parse ─┬─ page ──────▶ pages ──┬▶ report\n               └─ malformed ─▶ reject ─┘\n",
            ),
            (
                "start>fetch-users fetch-users>render render>mail>send render>skipped>record send>record",
                "start ─▶ fetch-users ─▶ render ─┬─ mail ────▶ send ─┬▶ record\n                                └─ skipped ─────────┘\n",
            ),
            ("a>c a>d b>c b>d", "a ──┬─┬─▶ c\nb ─┐└─┼┬▶ d\n   ├──┘│\n   └───┘\n"),
        ] {
            assert_eq!(write(&figure(words), true), expected, "{words}");
        }
    }

    #[test]
    fn without_unicode_it_is_ascii_and_no_wider_than_a_terminal() {
        let wide = "日本語の長い名前の仕事をするところ";
        for count in [1, 2, 5, 20, 100] {
            for seed in 0..5 {
                let mut figure = pipeline(count, seed, 2, Direction::LeftToRight);
                figure.nodes[0].text = Some(wide.to_owned());
                let ascii = write(&figure, false);
                assert!(ascii.is_ascii(), "{ascii}");
                let unicode = write(&figure, true);
                for text in [ascii, unicode] {
                    assert!(text.ends_with('\n'));
                    let widest = text.lines().map(unicode_width::UnicodeWidthStr::width).max();
                    assert!(widest <= Some(COLUMNS_MAX), "{text}");
                    for node in &figure.nodes {
                        assert!(text.contains(&node.id), "{} is missing in\n{text}", node.id);
                    }
                }
            }
        }
    }
}
