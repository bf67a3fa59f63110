//! What is to be on the cluster for a topology, and what is to be done for it. All of it is pure: what is there comes in, what is to be done goes out.

mod changes;
mod jobs;
mod objects;
mod pod;
mod retire;
mod site;
mod status;

pub use changes::{Observed, Plan, Step, are_side_by_side, plan};
pub use objects::{BACKLOG_METRIC, desired, scaled};
pub use retire::{EdgeQueue, Queues, drained};
pub use site::{Refusal, Settings, Site};
pub use status::{Outcome, status};
