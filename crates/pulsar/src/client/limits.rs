//! What the client holds at most, and how long it waits.

use std::time::Duration;

/// Bytes of messages that are published and have no receipt yet, of all topics together. A publisher beyond it waits. A hundred batches of
/// the largest common size for each of some producers; the same again is held by the socket.
pub(crate) const PENDING_BYTES_MAX: usize = 64 << 20;

/// Bytes and messages of one entry: Pulsar's own clients make batches of 128 KiB and 1,000 messages.
pub(crate) const ENTRY_BYTES_MAX: usize = 128 << 10;
/// See [`ENTRY_BYTES_MAX`]. A position has 10 bits for the place in the batch.
pub(crate) const ENTRY_MESSAGES_MAX: usize = 1_000;

/// Bytes of properties, key and trace beyond the largest payload. The service takes a frame that is 10 KiB larger than that, and closes the connection when one is
/// larger still, for all who use it; the rest of it is for what Leatworks and the service write there.
pub(crate) const EXTRAS_BYTES_MAX: usize = 8 << 10;

/// Publishes that wait for one producer; each is a batch.
pub(crate) const JOBS_MAX: usize = 1_024;

/// Messages that a consumer asks for ahead of those that it has in hand, however many permits it has: a thousand is what Pulsar's own clients have. Both together
/// are at most its permits.
pub(crate) const PREFETCH_MAX: usize = 1_000;

/// Notes of what is about to be handed out that are on their way to the ledger and back at once. A round trip takes some milliseconds; with four the service has
/// the next one before it has answered the last.
pub(crate) const NOTING_MAX: usize = 4;

/// How many messages must wait for another note to be begun before the last one is read back: fewer are noted together with what comes meanwhile.
pub(crate) const NOTING_MESSAGES_MIN: usize = 256;

/// Who asks for so many at once gets some noted beyond what he has asked for. Who asks for fewer has a reason: each that is noted costs it an attempt if
/// the process dies.
pub(crate) const NOTING_AHEAD_FROM: usize = 1_000;

/// Notes on their way to the ledger with whose messages nobody waits for them. At a thousand messages a second, each by itself, 64 last for a round trip of 60 ms; beyond them
/// messages wait, and are noted together.
pub(crate) const AHEAD_NOTES_MAX: usize = 64;

/// How long a process that leaves a subscription waits until that is noted.
pub(crate) const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);

/// Messages whose time has not come, and that are held here because the service has already handed them out. Each keeps its payload.
pub(crate) const DELAYED_MAX: usize = 10_000;

/// Messages that were given back and have not come again, of which it is known where their copies are: who settles one without having it in
/// hand needs that. Beyond it the oldest is forgotten, and then comes again although it was settled.
pub(crate) const MOVED_MAX: usize = 10_000;

/// How long it is remembered what was settled: the service writes acknowledgements down about once a second, and when it dies hands out again
/// what it had not written. Counted until the last settlement before it died, however long it is away. Whoever resets a cursor by other tools
/// while consumers are connected does not get the last seconds again.
pub(crate) const SETTLED_TIME: Duration = Duration::from_secs(10);

/// How long all that is remembered of it stays so when the service is back: it hands out again what it had not written down before anything else,
/// but a thousand at a time, each when one of them is settled.
pub(crate) const SETTLED_AGAIN_TIME: Duration = Duration::from_secs(60);

/// The most that is remembered of it, at some 40 bytes each.
pub(crate) const SETTLED_MAX: usize = 250_000;

/// How long a request may take to be answered. The service's own clients wait 30 s.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long the admin API is asked again when it is away or fails: as long as a service is waited for at the start. Who asks has somebody waiting; what runs
/// in the background waits without end.
pub(crate) const AWAY_TIME_MAX: Duration = Duration::from_secs(30);

/// How long connecting may take, TLS and greeting included.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long nothing may come on a connection until the other side is asked, and how long it may then take to answer. A blackhole is noticed
/// after twice this.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Waits between attempts to reach the service: the first, and the longest that doubling leads to. There is no end to them.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// See [`BACKOFF_FIRST`]. Small enough that work goes on soon after an outage of any length.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How often a producer is asked for whose name, or whose topic, somebody else has: some 7 s, in which the service notices that a process has
/// ended.
pub(crate) const BUSY_TRIES_MAX: u32 = 8;

/// The same for one that had its topic for itself and has lost its connection: some 70 s, in which the service notices the end of a silent one.
pub(crate) const BUSY_AGAIN_TRIES_MAX: u32 = 40;

/// How often a broker may send a lookup on to another one.
pub(crate) const REDIRECTS_MAX: usize = 20;

/// How often a consumer to which nothing comes looks whether the service has a backlog for it.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// After how many such looks in a row it is made anew; and where messages lie that wait for their time, which are a backlog to the service.
pub(crate) const STILL_MAX: u32 = 2;
/// See [`STILL_MAX`]. Five minutes: making it anew changes nothing then, but costs some requests.
pub(crate) const STILL_DELAYED_MAX: u32 = 30;

/// The wait before the attempt of this number, from 0 on.
pub(crate) fn backoff(attempt: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << attempt.min(10)).min(BACKOFF_MAX)
}
