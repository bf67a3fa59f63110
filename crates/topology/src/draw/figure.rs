//! What a drawing is made from: the looks of a topology without its behaviour, so that layout can be tried on any graph.

use std::collections::HashMap;

use crate::{Direction, Shape, StyleRule, Topology};

/// A graph as the drawings see it. Edges and groups name nodes and groups by their place in the lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    pub(crate) groups: Vec<Group>,
    pub(crate) rules: Vec<StyleRule>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) text: Option<String>,
    pub(crate) shape: Shape,
    pub(crate) classes: Vec<String>,
    /// The innermost group that holds it.
    pub(crate) group: Option<usize>,
}

impl Node {
    /// What stands in its box.
    pub(crate) fn caption(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.id)
    }
}

/// An edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) label: Option<String>,
    /// How many layers it spans at least; 0 counts as 1.
    pub(crate) length: usize,
}

/// A subgraph. Its parent stands before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    pub(crate) direction: Option<Direction>,
    pub(crate) parent: Option<usize>,
    /// The nodes directly inside, in the author's order.
    pub(crate) members: Vec<usize>,
}

impl Group {
    /// What stands above its box.
    pub(crate) fn caption(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.id)
    }
}

impl From<&Topology> for Figure {
    fn from(topology: &Topology) -> Figure {
        let places: HashMap<&str, usize> =
            topology.tasks().iter().enumerate().map(|(i, task)| (task.name().as_str(), i)).collect();
        let groups: Vec<Group> = topology
            .subgraphs()
            .iter()
            .map(|subgraph| Group {
                id: subgraph.id().to_owned(),
                title: subgraph.title().map(str::to_owned),
                direction: subgraph.direction(),
                parent: subgraph.parent(),
                members: subgraph.tasks().iter().map(|task| places[task.as_str()]).collect(),
            })
            .collect();
        let mut nodes: Vec<Node> = topology
            .tasks()
            .iter()
            .map(|task| Node {
                id: task.name().as_str().to_owned(),
                text: task.text().map(str::to_owned),
                shape: task.shape(),
                classes: task.classes().to_vec(),
                group: None,
            })
            .collect();
        for (index, group) in groups.iter().enumerate() {
            group.members.iter().for_each(|&member| nodes[member].group = Some(index));
        }
        let links = topology
            .edges()
            .iter()
            .map(|edge| Link {
                from: places[edge.from().as_str()],
                to: places[edge.to().as_str()],
                label: edge.label().map(|label| label.as_str().to_owned()),
                length: edge.length(),
            })
            .collect();
        Figure {
            name: topology.name().as_str().to_owned(),
            description: topology.description().map(str::to_owned),
            direction: topology.direction(),
            nodes,
            links,
            groups,
            rules: topology.styles().to_vec(),
        }
    }
}
