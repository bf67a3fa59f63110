//! What every foreign client is run through, each in its own words under `tests/clients/`.

/// The scenarios, and what must be seen in each.
///
/// Every scenario has a topic of its own; what is sent is also received, with the payload that it had, and nothing comes after what should come.
pub(crate) const SCENARIOS: &[(&str, &str)] = &[
    ("keys-and-properties", "keys, properties in UTF-8 and event times arrive as they were sent"),
    ("batches", "1,000 messages in batches arrive in order, each with its own key and property"),
    ("compression-lz4", "20 messages of 10 kB, batched and not, packed with lz4"),
    ("compression-zstd", "the same with zstd"),
    ("compression-zlib", "the same with zlib"),
    ("compression-snappy", "the same with snappy"),
    ("exclusive", "one consumer has 100 messages in order"),
    ("shared", "two consumers have 100 messages together, each once, and each has some"),
    ("failover", "one of two consumers has all in order; when it goes the other has what follows"),
    ("key-shared", "the messages of a key arrive in order, over both consumers"),
    ("key-affinity", "a key stays with one consumer as long as no other comes or goes"),
    ("ack-individual", "after a reconnect exactly those come that were not acknowledged"),
    ("ack-cumulative", "acknowledged up to the fifth of ten, the other five come after a reconnect"),
    ("ack-batch-index", "three of a batch of ten are acknowledged, the other seven come after a reconnect"),
    ("nack", "a refused message comes again, counted as redelivered, and the others do not"),
    ("redeliver-all", "what is asked for again comes again"),
    ("unacked-again", "ten messages that nobody acknowledged come again in order after a reconnect"),
    ("acked-never-again", "acknowledged ones do not, and a new one does"),
    ("seek-id", "back to a message: what follows it comes again"),
    ("seek-time", "back to a time: what was sent after it comes again"),
    ("last-message-id", "it is the identifier of the message that was sent last"),
    ("deliver-after", "a message that is to wait for 2 s comes not earlier, and does not hold up another"),
    ("dedup", "sequences that a producer of the same name sends again are dropped"),
    ("unsubscribe", "a subscription that was removed and is made again knows nothing of the old messages"),
    ("pattern", "one consumer has the messages of all topics of a pattern"),
    ("pattern-grows", "and those of a topic that is made later"),
    ("shared-200k", "two consumers have 200,000 messages together, each exactly once"),
    ("oversized", "a message above the limit is refused with the client's error for it, and a small one still goes"),
    ("exclusive-conflict", "a second exclusive consumer is refused with the client's error for it, and the first goes on"),
    ("reader", "a reader has all messages from the first on, and those after a given one"),
    ("consumer-stats", "the server tells how much a consumer holds"),
];

/// The scenarios for a server that asks for tokens.
pub(crate) const WITH_TOKENS: &[(&str, &str)] = &[
    ("token-right", "a client with a signed token is served"),
    ("token-wrong", "a client with another one is refused, with the error that it has for it on the real service"),
    ("token-none", "so is one without"),
];
