//! Bugs that a test can plant, to show that it would find them. Without the feature `planted` there are none, and no code for them.

/// Defines the bugs once for both ways of building, so that neither can forget one.
macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A bug, and the promise that it breaks.
        #[cfg(feature = "planted")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $doc])* $name,)*
        }

        #[cfg(feature = "planted")]
        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it breaks.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*).trim(),)*
                }
            }
        }

        #[cfg(not(feature = "planted"))]
        #[derive(Clone, Copy)]
        pub(crate) enum Bug {
            $($(#[doc = $doc])* $name,)*
        }
    };
}

bugs! {
    /// A step is told to be durable when it is in order: the loss of power takes it back.
    TellBeforeSync,
    /// A consumer that relies on durability gets a message that is not durable yet: what it does outside stands without its cause.
    HandOverUnsynced,
    /// The last range that a group has settled is not in its record: a step has happened without its acknowledgement, and happens again.
    ForgetSettledSpan,
    /// What a step acknowledges is in the record after the one with what it publishes: a crash between the two splits the step.
    SplitStep,
    /// A message that one subscription has settled and another has not is elided: it is lost there.
    ElideHalfSettled,
    /// Accounts are not recorded: roots of which everything was elided are missing from them after a restart.
    AccountNotWritten,
    /// What the messages that are left do not say of their roots is not recorded.
    RootNoteLeftOut,
    /// Ids of roots whose dead letters were dropped are not recorded.
    DroppedNotWritten,
    /// An attempt is not noted before its message is handed out: one that kills its consumer is tried for ever.
    AttemptNotNoted,
    /// The attempt of a message that was given back is counted in memory only: a restart takes it back.
    AttemptNotRecorded,
    /// The attempts of messages that were handed over and lost with the process are forgotten, so they start over when the messages come again.
    LostAttemptsForgotten,
    /// A message's attempt is struck from what is in hand before the record with its end is written: the end of the process in between takes it back.
    BackTooEarly,
    /// The sequence of a producer that equals its last one is taken for new: a repetition is published twice.
    SequenceOffByOne,
    /// Last sequences are not in a checkpoint: after a restart a repetition is published twice.
    SequencesNotInSnapshot,
    /// A step with a guard is done although its input is settled: what comes of a message comes twice.
    GuardIgnored,
    /// Delays are not recorded.
    DelayNotWritten,
    /// A message that was given back with a delay is ready at once.
    DelayIgnored,
    /// A message that is given back does not keep its key: the next one of the key overtakes it.
    KeyOrderForgotten,
    /// A consumer of a failover subscription gets messages although another is active: they overtake each other.
    FailoverToAll,
    /// A consumer that leaves takes its messages with it.
    LeaveForgets,
    /// Nobody is told that something was published: whoever waits goes on waiting.
    PublishTellsNobody,
    /// A snapshot does not wait for the group that is closed and not appended: it has the group's effects, and is taken for a state without them.
    SnapshotBetween,
    /// Where messages lie is not held: their segments are used again while they are needed.
    PlaceNotHeld,
    /// Messages that are moved are not recorded at their new place: the next checkpoint leaves them out.
    MovedNotWritten,
    /// What is let go of for its age is let go of although a subscription needs it.
    ExpireUnsettled,
    /// That keyed state was removed is not recorded: it comes back.
    RemovalNotWritten,
    /// Positions whose messages were elided are given away again after a restart.
    PositionReused,
}

/// Plants a bug in every broker of this process, or takes it out again.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as usize + 1), std::sync::atomic::Ordering::SeqCst);
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as usize + 1
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
