//! What a reader of a drawing may rely on, checked on many graphs: boxes apart, edges around boxes, labels alone.

use super::*;
use crate::draw::testing::{Dice, figure, pipeline};

const DIRECTIONS: [Direction; 4] =
    [Direction::TopToBottom, Direction::BottomToTop, Direction::LeftToRight, Direction::RightToLeft];

/// Graphs of many kinds, each in all four directions.
fn figures() -> Vec<(String, Figure)> {
    let mut named: Vec<(String, Figure)> = [
        "a",
        "a>b",
        "start>fetch-users fetch-users>render render>mail>send render>skipped>record send>record",
        "a>b a>c b>d c>d a:diamond b:cylinder c:stadium d:rounded",
        "a>x>b a>y>b a>z>b a>c b>c",
        "a>b b>c c>d d>e e>f a>f a>e a>d b>f",
        "a>b b>c c>d x[a,b] y[c,d]",
        "a>b a>c b>d c>d e>d outer[] inner[b,c]/outer last[d]/outer",
        "a>b c>d a>4>d one[a,d] two[b,c] a=A_rather_long_text_that_needs_several_lines_to_be_shown_at_all",
        "hub>a hub>b hub>c hub>d hub>e hub>f hub>g a>end b>end c>end d>end e>end f>end g>end hub:diamond end:stadium",
    ]
    .iter()
    .map(|words| ((*words).to_owned(), figure(words)))
    .collect();
    for (count, groups) in [(5, 0), (5, 2), (20, 0), (20, 4), (100, 0), (100, 7)] {
        for seed in 0..3 {
            named.push((
                format!("{count} tasks, {groups} groups, seed {seed}"),
                pipeline(count, seed, groups, Direction::TopToBottom),
            ));
        }
    }
    let turn = |(name, figure): (String, Figure)| {
        DIRECTIONS.map(|direction| (format!("{name} ({})", direction.as_str()), Figure { direction, ..figure.clone() }))
    };
    named.into_iter().flat_map(turn).collect()
}

fn overlap(one: &Rect, other: &Rect) -> bool {
    one.x < other.right() - 0.01 && other.x < one.right() - 0.01 && one.y < other.bottom() - 0.01 && other.y < one.bottom() - 0.01
}

fn within(inner: &Rect, outer: &Rect) -> bool {
    inner.x >= outer.x - 0.01
        && inner.right() <= outer.right() + 0.01
        && inner.y >= outer.y - 0.01
        && inner.bottom() <= outer.bottom() + 0.01
}

/// Points along a path, close enough that nothing of a box's size lies between two of them.
fn points(path: &Path) -> Vec<Point> {
    let mut points = vec![path.start];
    let mut from = path.start;
    for step in &path.steps {
        let (one, two, to) = match *step {
            Step::Line(to) => (from, to, to),
            Step::Curve(one, two, to) => (one, two, to),
        };
        let parts = (((to.x - from.x).abs() + (to.y - from.y).abs()) / 4.0).ceil().max(1.0) as usize;
        for part in 1..=parts {
            let t = part as f64 / parts as f64;
            let u = 1.0 - t;
            let blend = |a: f64, b: f64, c: f64, d: f64| match step {
                Step::Line(_) => a + (d - a) * t,
                Step::Curve(..) => u * u * u * a + 3.0 * u * u * t * b + 3.0 * u * t * t * c + t * t * t * d,
            };
            points.push(Point { x: blend(from.x, one.x, two.x, to.x), y: blend(from.y, one.y, two.y, to.y) });
        }
        from = to;
    }
    points
}

fn holds(rect: &Rect, point: &Point) -> bool {
    point.x > rect.x + 0.1 && point.x < rect.right() - 0.1 && point.y > rect.y + 0.1 && point.y < rect.bottom() - 0.1
}

#[test]
fn boxes_and_labels_stand_apart_and_edges_go_around_them() {
    for (name, figure) in figures() {
        let picture = layout(&figure);
        let page = Rect { x: 0.0, y: 0.0, width: picture.width, height: picture.height };
        let labels: Vec<(usize, Rect)> =
            picture.labels.iter().enumerate().filter_map(|(index, rect)| Some((index, (*rect)?))).collect();
        for (index, node) in picture.nodes.iter().enumerate() {
            assert!(within(&node.rect, &page), "{name}: node {index} leaves the page");
            for (other, box_of_other) in picture.nodes.iter().enumerate().skip(index + 1) {
                assert!(!overlap(&node.rect, &box_of_other.rect), "{name}: nodes {index} and {other} overlap");
            }
        }
        for (at, (index, label)) in labels.iter().enumerate() {
            assert!(within(label, &page), "{name}: label {index} leaves the page");
            for (node, drawn) in picture.nodes.iter().enumerate() {
                assert!(!overlap(label, &drawn.rect), "{name}: label {index} covers node {node}");
            }
            for (other, rect) in &labels[at + 1..] {
                assert!(!overlap(label, rect), "{name}: labels {index} and {other} overlap");
            }
        }
        for (index, (link, path)) in figure.links.iter().zip(&picture.links).enumerate() {
            let points = points(path);
            for point in &points {
                assert!(
                    point.x >= 0.0 && point.x <= page.width && point.y >= 0.0 && point.y <= page.height,
                    "{name}: edge {index} leaves the page"
                );
                for (node, drawn) in picture.nodes.iter().enumerate() {
                    let own = node == link.from || node == link.to;
                    assert!(own || !holds(&drawn.rect, point), "{name}: edge {index} crosses node {node} at {point:?}");
                }
                for (label, rect) in &labels {
                    assert!(*label == index || !holds(rect, point), "{name}: edge {index} crosses label {label} at {point:?}");
                }
            }
            let own_label = picture.labels[index].is_none_or(|rect| points.iter().any(|point| holds(&rect, point)));
            assert!(own_label, "{name}: label {index} is not on its edge");
        }
    }
}

#[test]
fn edges_end_on_the_outlines_of_their_own_tasks_and_apart_from_each_other() {
    for (name, figure) in figures() {
        let picture = layout(&figure);
        for (index, (link, path)) in figure.links.iter().zip(&picture.links).enumerate() {
            for (node, end) in [(link.from, path.start), (link.to, path.end())] {
                let rect = &picture.nodes[node].rect;
                let reach = Rect { x: rect.x - 0.2, y: rect.y - 0.2, width: rect.width + 0.4, height: rect.height + 0.4 };
                assert!(holds(&reach, &end), "{name}: edge {index} does not touch node {node}");
            }
            for (other, path_of_other) in picture.links.iter().enumerate().skip(index + 1) {
                assert_ne!(
                    (path.start, path.end()),
                    (path_of_other.start, path_of_other.end()),
                    "{name}: edges {index} and {other} are one line"
                );
                let (one, two) = (path.end(), path_of_other.end());
                assert!(
                    (one.x - two.x).abs() + (one.y - two.y).abs() > 3.0,
                    "{name}: heads of {index} and {other} cover each other"
                );
            }
        }
    }
}

#[test]
fn groups_hold_their_own_tasks_and_no_others() {
    for (name, figure) in figures() {
        let picture = layout(&figure);
        let encloses = |group: usize, mut at: Option<usize>| {
            while let Some(inner) = at {
                if inner == group {
                    return true;
                }
                at = figure.groups[inner].parent;
            }
            false
        };
        for (group, drawn) in picture.groups.iter().enumerate() {
            let Some(drawn) = drawn else { continue };
            assert!(within(&drawn.title_rect, &drawn.rect), "{name}: title of group {group} leaves its box");
            for (index, node) in figure.nodes.iter().enumerate() {
                let rect = &picture.nodes[index].rect;
                if encloses(group, node.group) {
                    assert!(within(rect, &drawn.rect), "{name}: node {index} leaves group {group}");
                    assert!(!overlap(rect, &drawn.title_rect), "{name}: node {index} covers the title of {group}");
                } else {
                    assert!(!overlap(rect, &drawn.rect), "{name}: node {index} stands in group {group}");
                }
            }
            for (other, rect) in picture.groups.iter().enumerate().skip(group + 1) {
                let Some(other_drawn) = rect else { continue };
                if encloses(group, Some(other)) {
                    assert!(within(&other_drawn.rect, &drawn.rect), "{name}: group {other} leaves {group}");
                    assert!(!overlap(&other_drawn.rect, &drawn.title_rect), "{name}: group {other} covers the title of {group}");
                } else {
                    assert!(!overlap(&other_drawn.rect, &drawn.rect), "{name}: groups {group} and {other} overlap");
                }
            }
        }
    }
}

#[test]
fn trees_and_diamonds_are_drawn_without_crossings() {
    for words in [
        "a>b a>c b>d b>e c>f c>g",
        "a>b a>c b>d c>d",
        "start>fetch fetch>render render>mail>send render>skipped>record send>record",
        "z>d z>c z>b z>a a>e b>f c>g d>h",
    ] {
        assert_eq!(layout(&figure(words)).crossings, 0, "{words}");
    }
}

#[test]
fn edges_beyond_the_limit_run_in_lanes_and_still_meet_no_box() {
    let mut dice = Dice(7);
    let mut words = String::new();
    for index in 1..260 {
        words.push_str(&format!("t{}>t{index} ", index - 1));
        let from = dice.below(index);
        words.push_str(&if dice.below(3) == 0 { format!("t{from}>far>t{index} ") } else { format!("t{from}>t{index} ") });
    }
    let figure = figure(&words);
    let picture = layout(&figure);
    for (index, (link, path)) in figure.links.iter().zip(&picture.links).enumerate() {
        for point in points(path) {
            for (node, drawn) in picture.nodes.iter().enumerate() {
                assert!(node == link.from || node == link.to || !holds(&drawn.rect, &point), "edge {index} crosses node {node}");
            }
        }
    }
}

#[test]
fn extreme_graphs_are_drawn_whole() {
    let words = |count: usize, word: &dyn Fn(usize) -> String| (1..count).map(word).collect::<Vec<_>>().join(" ");
    let skips = words(500, &|n| format!("n{}>n{n} n0>n{n}", n - 1));
    let nested = format!("g0[a0] {}", words(32, &|n| format!("g{n}[a{n}]/g{} a{}>a{n}", n - 1, n - 1)));
    for (name, figure) in [
        ("nothing", Figure::default()),
        ("a star", figure(&words(500, &|n| format!("hub>n{n}")))),
        ("a chain", figure(&words(500, &|n| format!("n{}>n{n}", n - 1)))),
        ("a chain with skips", figure(&skips)),
        ("all to all", figure(&words(2_501, &|n| format!("a{}>b{}", n % 50, n / 50)))),
        ("many boxes", figure(&words(200, &|n| format!("g{n}[a{n},b{n}] a{n}>b{n} root>a{n}")))),
        ("boxes in boxes", figure(&nested)),
        ("no edges", figure(&words(100, &|n| format!("box{n}[n{n}]")))),
        ("an empty box", figure("box[] a>b")),
    ] {
        let picture = layout(&figure);
        assert!(picture.width.is_finite() && picture.height.is_finite(), "{name}");
        let page = Rect { x: 0.0, y: 0.0, width: picture.width, height: picture.height };
        let mut boxes: Vec<&Rect> = picture.nodes.iter().map(|node| &node.rect).collect();
        assert!(boxes.iter().all(|rect| within(rect, &page)), "{name}: a task leaves the page");
        boxes.sort_by(|one, other| (one.center().y, one.x).partial_cmp(&(other.center().y, other.x)).expect("all are numbers"));
        assert!(boxes.windows(2).all(|pair| !overlap(pair[0], pair[1])), "{name}: two tasks overlap");
    }
}
