//! The tasks of all pipelines, under the names that the graphs give them.

mod access_log;
mod counts;
mod email;
mod fetch_users;
mod gather;
mod log_line;
mod maildir;
mod record;
mod render;
mod report;
mod send;
mod start;

pub use access_log::{Malformed, Parse, Parsed};
pub use counts::{
    CountMalformed, CountMinutes, CountPaths, MINUTES_MAX, MalformedCount, MinuteCounts, MinuteState, PATHS_MAX, Part,
    PathCounts, SAMPLES_MAX, Tally,
};
pub use email::{Campaign, Mail, Outcome, Request, Result as OutcomeResult, User};
pub use fetch_users::FetchUsers;
pub use gather::{Chapter, Gather};
pub use log_line::{Hit, HitKind, PATH_BYTES_MAX, parse_line};
pub use record::Record;
pub use render::{Render, Rendered};
pub use report::{Report, ReportDocument};
pub use send::Send;
pub use start::Start;
