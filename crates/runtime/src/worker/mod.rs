//! Workers: tasks behind HTTP, in any language. The client calls one, the server is one.

mod batch;
mod client;
mod job;
mod server;

pub(crate) use client::{Endpoint, Reply, open as client, open_with as client_with};
pub use job::{JobServer, serve_job};
pub(crate) use server::inherited;
pub use server::{Bound, ServeError, bind};

/// The header with the message's identity.
pub(crate) const MESSAGE_ID: &str = "leat-message-id";
/// The header with the identity of its root.
pub(crate) const ROOT_ID: &str = "leat-root-id";
/// The header with the identity of the message in whose handling this one was made, where messages say it.
pub(crate) const PARENT_ID: &str = "leat-parent-id";
/// The header with the number of the attempt.
pub(crate) const ATTEMPT: &str = "leat-attempt";
/// The header with the topology's name.
pub(crate) const TOPOLOGY: &str = "leat-topology";
/// The header with the edge, such as `a-->|mail|b`.
pub(crate) const EDGE: &str = "leat-edge";
/// The header with the message's key, if it has one that is visible ASCII.
pub(crate) const KEY: &str = "leat-key";
/// The W3C trace context.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The largest body in either direction. A worker's answer is held in memory, and published in one step.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;
