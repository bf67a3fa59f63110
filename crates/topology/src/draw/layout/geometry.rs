//! Points, boxes and paths, and the turning of a drawing laid out from top to bottom into any of the four directions.

use crate::Direction;

/// A place in the drawing, in pixels from its top left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// A box with its top left corner and its size in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rect {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Rect {
    pub(crate) fn around(center: Point, width: f64, height: f64) -> Rect {
        Rect { x: center.x - width / 2.0, y: center.y - height / 2.0, width, height }
    }

    pub(crate) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.y + self.height
    }

    pub(crate) fn center(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }
}

/// One piece of an edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// A straight line to a point.
    Line(Point),
    /// A cubic curve: two control points, then the end.
    Curve(Point, Point, Point),
}

/// The line of an edge.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    pub(crate) start: Point,
    pub(crate) steps: Vec<Step>,
}

impl Path {
    /// Where it ends.
    pub(crate) fn end(&self) -> Point {
        match self.steps.last() {
            Some(Step::Line(end) | Step::Curve(_, _, end)) => *end,
            None => self.start,
        }
    }

    /// Goes on to a point: straight where that lies ahead, otherwise in a curve that starts and ends along the flow.
    pub(super) fn flow_to(&mut self, to: Point) {
        /// Shorter distances are invisible.
        const SAME: f64 = 0.05;
        let from = self.end();
        if (from.x - to.x).abs() < SAME {
            if (from.y - to.y).abs() < SAME {
                return;
            }
            // Straight pieces in one line are one piece.
            let straight_before = match self.steps.len() {
                0 => None,
                1 => Some(self.start),
                count => match self.steps[count - 2] {
                    Step::Line(end) | Step::Curve(_, _, end) => Some(end),
                },
            };
            if let (Some(before), Some(Step::Line(end))) = (straight_before, self.steps.last_mut())
                && (before.x - to.x).abs() < SAME
            {
                *end = to;
                return;
            }
            self.steps.push(Step::Line(to));
        } else {
            let half = (to.y - from.y) / 2.0;
            self.steps.push(Step::Curve(Point { x: from.x, y: from.y + half }, Point { x: to.x, y: to.y - half }, to));
        }
    }
}

/// How a drawing that flows from top to bottom is turned. `flow` is its whole extent along the flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) direction: Direction,
    pub(super) flow: f64,
}

impl Turn {
    pub(super) fn point(self, at: Point) -> Point {
        match self.direction {
            Direction::TopToBottom => at,
            Direction::BottomToTop => Point { x: at.x, y: self.flow - at.y },
            Direction::LeftToRight => Point { x: at.y, y: at.x },
            Direction::RightToLeft => Point { x: self.flow - at.y, y: at.x },
        }
    }

    pub(super) fn rect(self, rect: Rect) -> Rect {
        let one = self.point(Point { x: rect.x, y: rect.y });
        let other = self.point(Point { x: rect.right(), y: rect.bottom() });
        Rect { x: one.x.min(other.x), y: one.y.min(other.y), width: (one.x - other.x).abs(), height: (one.y - other.y).abs() }
    }

    pub(super) fn path(self, path: &Path) -> Path {
        let steps = path
            .steps
            .iter()
            .map(|step| match *step {
                Step::Line(end) => Step::Line(self.point(end)),
                Step::Curve(one, two, end) => Step::Curve(self.point(one), self.point(two), self.point(end)),
            })
            .collect();
        Path { start: self.point(path.start), steps }
    }
}
