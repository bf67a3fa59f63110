//! Making the index of a spilled block anew of what its messages say.

use super::{Index, Indexed, Missing, Run, SpilledImage, State, spill::Spilled};
use crate::TopicKind;

impl<H> State<H> {
    /// Makes an index of a spilled block anew: `found` is what its messages say of themselves, with the root that each names. Whether that root is tracked, and
    /// whether the message is all there is of it, follows from the table of roots. How often a root was sent is only known of the whole block: where it differs between
    /// its roots, which takes roots that came from outside of any ingress, the account is right when the block is done.
    pub(crate) fn index_anew(
        &self,
        kind: TopicKind,
        block: &SpilledImage<H>,
        tracked: bool,
        mut found: Vec<Indexed<H>>,
    ) -> Index<H> {
        let mut sent = block.sent;
        for entry in found.iter_mut().filter(|entry| entry.root != 0) {
            if !tracked || kind == TopicKind::Plain {
                entry.root = 0;
            } else if kind != TopicKind::DeadLetter && self.roots.known(entry.root).is_none() {
                entry.sole = Some(sent.min(1));
                sent = sent.saturating_sub(1);
            }
        }
        Index { newest_ms: block.newest_ms, bytes: block.bytes, entries: found }
    }
}

impl<H: Clone + PartialEq> State<H> {
    /// In which segments the messages of a block are, if it is still where it was.
    pub(crate) fn runs_of(&self, missing: &Missing<H>) -> Option<Vec<Run>> {
        self.spilled_of(missing).map(|block| block.runs.to_vec())
    }

    fn spilled_of(&self, missing: &Missing<H>) -> Option<&Spilled<H>> {
        self.log(missing.topic).spilled_at(missing.range().0).filter(|block| block.handle == missing.handle)
    }

    /// Makes the index of a block anew of what its messages say, if it is still where it was.
    pub(crate) fn missing_anew(&self, missing: &Missing<H>, found: Vec<Indexed<H>>) -> Option<Index<H>> {
        let block = self.spilled_of(missing)?;
        let image = SpilledImage {
            handle: block.handle.clone(),
            remaining: block.remaining,
            newest_ms: block.newest_ms,
            bytes: block.bytes,
            sent: block.sent,
            shared: block.shared,
            runs: Vec::new(),
        };
        let kind = self.topics[missing.topic.0 as usize].spec.kind;
        Some(self.index_anew(kind, &image, block.shared || block.ticket.is_some(), found))
    }
}
