//! What a client can make the server hold, and for how long.

use std::time::Duration;

/// Bytes of messages, unpacked, that were read from all clients and are not published yet. Beyond it reading stops: a flood is slowed down
/// to the disk's speed. Some hundred batches of the largest size that clients make by default, per second of a slow disk.
pub(crate) const INCOMING_BYTES_MAX: usize = 256 << 20;

/// The part of it that one connection may take, so that one does not stop all others: two of the largest entries.
pub(crate) const CONNECTION_BYTES_MAX: usize = 32 << 20;

/// Sends of one producer that wait to be published. A client waits for its receipts at a thousand by default.
pub(crate) const SENDS_MAX: usize = 2_048;

/// Bytes and messages after which what waits is published as one step: enough that the sync is shared by many, and well below a segment.
pub(crate) const PUBLISH_BYTES_MAX: usize = 4 << 20;
/// See [`PUBLISH_BYTES_MAX`].
pub(crate) const PUBLISH_MESSAGES_MAX: usize = 10_000;

/// Bytes that wait to be written to one client, or one frame if that is more. A client that does not read holds this, and one batch of each
/// of its consumers.
pub(crate) const OUT_BYTES_MAX: usize = 1 << 20;

/// Bytes that a consumer takes from the broker at once, estimated by the messages before: one write's worth.
pub(crate) const RECEIVE_BYTES: usize = 256 << 10;

/// Messages that a consumer takes at once, however small they are.
pub(crate) const RECEIVE_MESSAGES_MAX: usize = 512;

/// Messages that a reader takes at once of what was there before it, whatever their size: they are not bounded by bytes.
pub(crate) const READ_MESSAGES_MAX: usize = 32;

/// Messages that a consumer takes at once before it is known how large they are.
pub(crate) const RECEIVE_MESSAGES_FIRST: usize = 32;

/// Unsettled messages of one consumer on a shared subscription: Pulsar's `maxUnackedMessagesPerConsumer`.
pub(crate) const UNSETTLED_SHARED_MAX: usize = 50_000;

/// Unsettled messages of one consumer that has the subscription for itself. Pulsar has no limit there; each takes some 50 bytes here.
pub(crate) const UNSETTLED_SOLE_MAX: usize = 1_000_000;

/// Positions of unsettled messages that are looked at together, at eight bytes each.
pub(crate) const LOOK_MESSAGES: usize = 10_000;

/// Commands of one consumer that wait for it.
pub(crate) const COMMANDS_MAX: usize = 1_024;

/// Acknowledgements that wait for those before them to be durable. Beyond it no more commands of that consumer are read.
pub(crate) const ACKS_MAX: usize = 100_000;

/// Producers, and consumers, of one connection.
pub(crate) const PRODUCERS_MAX: usize = 1_000;
/// See [`PRODUCERS_MAX`].
pub(crate) const CONSUMERS_MAX: usize = 1_000;

/// How often a consumer may fail to receive until it is closed: one damaged message fails once, a failed disk always.
pub(crate) const RECEIVE_FAILURES_MAX: u32 = 3;

/// How long an acknowledgement that finds no room on the disk waits until it is tried again.
pub(crate) const ACK_RETRY: Duration = Duration::from_millis(100);

/// How long the others of a subscription may take to let go of it before it is moved.
pub(crate) const EVICT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a client that comes back waits for what its lost connection still holds.
pub(crate) const SUCCEED_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the last words to a client whose connection ends may take.
pub(crate) const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the server waits for its connections when it is stopped: a publish on a slow disk, and its receipt.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long to wait after a connection could not be accepted.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The longest pattern of topic names, and the most memory that it may take when compiled.
pub(crate) const PATTERN_BYTES_MAX: usize = 1_024;
/// See [`PATTERN_BYTES_MAX`].
pub(crate) const PATTERN_MEMORY_MAX: usize = 1 << 20;
