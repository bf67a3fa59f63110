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
    /// The names are not synced when a segment is begun. A power cut takes the segment's name, and with it records that were reported durable.
    RollWithoutDirectorySync,
    /// A segment is left without being synced. A power cut tears it although others follow it: what was reported durable is lost, and what is
    /// torn looks like damage.
    RollWithoutSegmentSync,
    /// Names are not synced when a journal is opened. A segment that was begun just before a kill keeps its name only until the power is cut.
    OpenWithoutDirectorySync,
    /// What recovery has cut off is neither erased nor told apart by its epoch: records come back that were never durable.
    KeepCutOff,
    /// The checksum of a record's body is not looked at: a torn or damaged record is delivered as if it were whole.
    IgnoreChecksum,
    /// What is written is reported as durable at once: a power cut loses it.
    AcknowledgeBeforeSync,
    /// A segment is used again when the newest checkpoint does not need it: with that checkpoint damaged or torn, the older one cannot be
    /// replayed.
    ReuseTooEarly,
    /// A checkpoint is not synced. Segments are let go of for the sake of one that a power cut takes.
    CheckpointWithoutSync,
    /// Recovery goes on behind a torn record with what is whole: records are replayed that have a gap before them which nobody reported.
    SkipTorn,
    /// Records say that everything written before them was synced: what a power cut tears is then reported as damage.
    WrongBehind,
    /// A failed sync is tried again, and the kernel, which has dropped what it could not write, says that all is well.
    RetryFailedSync,
    /// What recovery accepts is not written again. After a failed sync it may be in memory only, and the next power cut takes it.
    TrustThePageCache,
    /// The last record of a batch of several is not written, and reported as written.
    DropLastOfBatch,
    /// The first checkpoint after opening replaces the older of the two, which is the only one that is known to be durable.
    ReplaceDurableCheckpoint,
    /// What the checkpoint's position says of the sequence is one too many: a record is skipped.
    CheckpointOneTooFar,
    /// A full disk is never asked again.
    FullForEver,
    /// A mark says that what is written is synced. A power cut tears the last record, and what is torn looks like damage.
    MarkBeforeSync,
    /// The gap that damage has left is closed without a word.
    LoseSilently,
    /// What recovery has read is not made durable when something of it is lost: a power cut brings that back among what has happened without it.
    LostComesBack,
}

/// Plants a bug in every journal of this process, or takes it out again.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as usize + 1), std::sync::atomic::Ordering::SeqCst);
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::SeqCst) == bug as usize + 1
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
