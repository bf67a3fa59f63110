//! How the author drew the graph: direction, shapes, subgraphs and styles. Nothing here changes what a topology does.

use crate::TaskName;

/// The direction in which a graph is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `TB` or `TD`, and what Mermaid takes when no direction is given.
    #[default]
    TopToBottom,
    /// `BT`.
    BottomToTop,
    /// `LR`.
    LeftToRight,
    /// `RL`.
    RightToLeft,
}

impl Direction {
    /// The two letters Mermaid uses: `TB`, `BT`, `LR` or `RL`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::TopToBottom => "TB",
            Direction::BottomToTop => "BT",
            Direction::LeftToRight => "LR",
            Direction::RightToLeft => "RL",
        }
    }
}

/// The outline of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `a[Text]`, and a node without a text.
    #[default]
    Rectangle,
    /// `a(Text)`.
    Rounded,
    /// `a{Text}`.
    Diamond,
    /// `a([Text])`.
    Stadium,
    /// `a[(Text)]`.
    Cylinder,
}

/// A box around some tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subgraph {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    pub(crate) direction: Option<Direction>,
    pub(crate) parent: Option<usize>,
    pub(crate) tasks: Vec<TaskName>,
}

impl Subgraph {
    /// Its id, unique in the topology and no task's name; `subgraph-1` and so on where the author wrote only a title.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The title when it differs from the id.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The direction that a `direction` statement asks for inside the box.
    pub fn direction(&self) -> Option<Direction> {
        self.direction
    }

    /// Where in [`Topology::subgraphs`](crate::Topology::subgraphs) the enclosing box stands; always before this one.
    pub fn parent(&self) -> Option<usize> {
        self.parent
    }

    /// The tasks directly in this box, in the order of the graph; a task is in one box at most.
    pub fn tasks(&self) -> &[TaskName] {
        &self.tasks
    }
}

/// One statement about looks, as the author wrote it.
///
/// `css` is a Mermaid style list such as `fill:#f9f,stroke:#333`. It holds no quotes, angle brackets, braces, backslashes or `url(`, and
/// no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StyleRule {
    /// `classDef names css`.
    ClassDef {
        /// The classes that get the style; `default` is for every node.
        classes: Vec<String>,
        /// The style list.
        css: String,
    },
    /// `class tasks class`; a `:::class` behind a node is in [`Task::classes`](crate::Task::classes) instead.
    Class {
        /// Ids of tasks and subgraphs.
        nodes: Vec<String>,
        /// The class they get.
        class: String,
    },
    /// `style task css`.
    Style {
        /// The id of a task or subgraph; Mermaid takes one only.
        nodes: Vec<String>,
        /// The style list.
        css: String,
    },
    /// `linkStyle numbers css`.
    LinkStyle {
        /// Places in [`Topology::edges`](crate::Topology::edges); empty for `linkStyle default`, which is for every edge.
        edges: Vec<usize>,
        /// The style list.
        css: String,
    },
}
