//! Figures for the tests of the drawings.

use std::collections::HashMap;

use super::figure::{Figure, Group, Link, Node};
use crate::{Direction, Shape};

/// A figure from words: `a>b` is an edge, `a>2>b` one of length 2, `a>mail>b` one with a label, `box[a,b]` a group, `box[a,b]/outer` one
/// inside another that stands before it, `a=Some_text|below` a text of two lines, `a:diamond` a shape.
pub(super) fn figure(words: &str) -> Figure {
    let mut figure = Figure { name: "test".to_owned(), ..Figure::default() };
    let mut known = HashMap::new();
    for word in words.split_whitespace() {
        if let Some((group, rest)) = word.split_once('[') {
            let (members, parent) = rest.split_once(']').expect("a group is closed");
            let parent = parent.strip_prefix('/').and_then(|parent| figure.groups.iter().position(|group| group.id == parent));
            let index = figure.groups.len();
            figure.groups.push(Group { id: group.to_owned(), parent, ..Group::default() });
            for member in members.split(',').filter(|member| !member.is_empty()) {
                let member = node(&mut figure, &mut known, member);
                figure.nodes[member].group = Some(index);
                figure.groups[index].members.push(member);
            }
        } else if let Some((id, text)) = word.split_once('=') {
            let index = node(&mut figure, &mut known, id);
            figure.nodes[index].text = Some(text.replace('_', " ").replace('|', "\n"));
        } else if let Some((id, shape)) = word.split_once(':') {
            let index = node(&mut figure, &mut known, id);
            figure.nodes[index].shape = match shape {
                "diamond" => Shape::Diamond,
                "stadium" => Shape::Stadium,
                "cylinder" => Shape::Cylinder,
                "rounded" => Shape::Rounded,
                other => panic!("no shape {other}"),
            };
        } else {
            let parts: Vec<&str> = word.split('>').collect();
            let from = node(&mut figure, &mut known, parts[0]);
            let to = node(&mut figure, &mut known, parts[parts.len() - 1]);
            let middle = if parts.len() == 3 { Some(parts[1]) } else { None };
            let length = middle.and_then(|middle| middle.parse().ok());
            let label = if length.is_some() { None } else { middle.map(str::to_owned) };
            figure.links.push(Link { from, to, label, length: length.unwrap_or(1) });
        }
    }
    figure
}

fn node(figure: &mut Figure, known: &mut HashMap<String, usize>, id: &str) -> usize {
    *known.entry(id.to_owned()).or_insert_with(|| {
        figure.nodes.push(Node { id: id.to_owned(), ..Node::default() });
        figure.nodes.len() - 1
    })
}

/// Numbers that look random and are the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

/// A pipeline of `count` tasks as people draw them: mostly short edges, some skips, branches with labels, several shapes, and groups.
pub(super) fn pipeline(count: usize, seed: u64, groups: usize, direction: Direction) -> Figure {
    let mut dice = Dice(seed);
    let mut figure = Figure { name: format!("pipeline-{count}"), direction, ..Figure::default() };
    const VERBS: [&str; 10] = ["read", "parse", "enrich", "score", "route", "render", "send", "record", "merge", "audit"];
    const THINGS: [&str; 7] = ["orders", "users", "mail", "pages", "invoices", "errors", "sessions"];
    let width = (count / 8).clamp(1, 12);
    for index in 0..count {
        let id = format!("{}-{}-{index}", VERBS[dice.below(10)], THINGS[dice.below(7)]);
        let shape =
            [Shape::Rectangle, Shape::Rectangle, Shape::Rounded, Shape::Diamond, Shape::Stadium, Shape::Cylinder][dice.below(6)];
        let text = (dice.below(4) == 0).then(|| format!("{} the {} of today", VERBS[dice.below(10)], THINGS[dice.below(7)]));
        let group = (groups > 0 && dice.below(3) > 0).then(|| index * groups / count);
        figure.nodes.push(Node { id, text, shape, group, classes: Vec::new() });
    }
    for group in 0..groups {
        let parent = (group % 3 == 2).then(|| group - 1);
        figure.groups.push(Group {
            id: format!("stage-{group}"),
            title: Some(format!("Stage number {group}")),
            parent,
            ..Group::default()
        });
    }
    for (index, node) in figure.nodes.iter().enumerate() {
        if let Some(group) = node.group {
            figure.groups[group].members.push(index);
        }
    }
    for to in 1..count {
        for _ in 0..1 + usize::from(dice.below(4) == 0) {
            let reach = if dice.below(12) == 0 { to } else { width + 2 };
            let from = to - 1 - dice.below(reach.min(to));
            let label = (dice.below(4) == 0).then(|| ["mail", "skipped", "not-found", "page"][dice.below(4)].to_owned());
            figure.links.push(Link { from, to, label, length: 1 });
        }
    }
    figure
}
