//! The tasks, under the names that the graph gives them.

use leatworks::{Context, Fold, Route, Task, TaskError, source::Line};
use serde::{Deserialize, Serialize};

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub item: String,
    pub cents: u64,
}

/// A line that is no order, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub line: u64,
    pub reason: String,
}

/// What `check` gives: each variant is the label of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Route, Serialize, Deserialize)]
pub enum Checked {
    Accepted(Order),
    Refused(Refusal),
}

/// Reads a line `item,cents`. A task is its settings: `most_cents` can be set in leat.toml.
#[derive(Debug, Deserialize)]
pub struct Check {
    #[serde(default = "default_most_cents")]
    pub most_cents: u64,
}

fn default_most_cents() -> u64 {
    100_000
}

impl Task for Check {
    type In = Line;
    type Out = Checked;

    async fn run(&self, line: Line, _cx: &Context) -> Result<Checked, TaskError> {
        Ok(match self.order(&line.text) {
            Ok(order) => Checked::Accepted(order),
            Err(reason) => Checked::Refused(Refusal { line: line.number, reason }),
        })
    }
}

impl Check {
    fn order(&self, text: &str) -> Result<Order, String> {
        let (item, cents) = text.split_once(',').ok_or("there is no comma")?;
        let cents: u64 = cents.trim().parse().map_err(|_| format!("`{}` is no number of cents", cents.trim()))?;
        if cents > self.most_cents {
            return Err(format!("{cents} cents are more than {}", self.most_cents));
        }
        Ok(Order { item: item.trim().to_owned(), cents })
    }
}

/// What `total` gives at the end, and what it keeps until then. It is exact even if the process is killed in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub orders: u64,
    pub cents: u64,
}

/// Adds up the orders.
#[derive(Debug, Deserialize)]
pub struct Total;

impl Fold for Total {
    type In = Order;
    type Out = Sum;
    type State = Sum;

    fn fold(&self, sum: &mut Sum, order: Order, _cx: &Context) -> Result<(), TaskError> {
        sum.orders += 1;
        sum.cents += order.cents;
        Ok(())
    }

    async fn finish(&self, sum: Sum, _cx: &Context) -> Result<Sum, TaskError> {
        Ok(sum)
    }
}
