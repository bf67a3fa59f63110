//! What somebody who asks the admin API can make the server hold, and for how long.

use std::time::Duration;

/// Connections at once; one beyond is closed unread. A tool has one for a moment, a client of ours one for each request.
pub(crate) const CONNECTIONS_MAX: usize = 256;

/// How long the head of a request may take, also of the first, before anybody is known; it is also how long an idle connection is kept.
pub(crate) const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// The largest head, a token included, and its most lines.
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 10;
/// See [`HEADER_BYTES_MAX`].
pub(crate) const HEADERS_MAX: usize = 64;

/// The largest body, and how long it may take: properties of a topic are the largest.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
/// See [`BODY_BYTES_MAX`].
pub(crate) const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a request may take the broker. Pulsar's own tools wait for a minute.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a connection is kept, busy or not: a client that takes no byte of its answer has to go some time.
pub(crate) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);

/// The properties of one topic, in bytes as they are kept, all of them together.
pub(crate) const PROPERTIES_BYTES_MAX: usize = 64 << 10;

/// Ranges of settled messages behind unsettled ones that are told of one subscription, at some 30 bytes each. What is behind them looks unsettled.
pub(crate) const RANGES_MAX: usize = 100_000;
