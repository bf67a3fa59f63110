//! What is pending of each root, and the accounts of the topologies that follow from it.

use crate::{Account, MessageId, Outcome};
use hashbrown::HashTable;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Index, IndexMut},
};

/// No root: an untracked message.
pub(crate) const UNTRACKED: u32 = u32::MAX;

/// How many roots whose dead letters were dropped are remembered by name, so that asking for one tells `DeadLettered`; the account counts
/// all of them. 65,536 are about 1 MiB.
const DROPPED_REMEMBERED_MAX: usize = 65_536;

/// The roots of which something is pending or lies in a dead-letter topic.
///
/// A message refers to its root by a slot of four bytes, which is valid as long as the message is unsettled somewhere.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    slots: Slots,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    /// Slots whose counts have changed since the last [`Roots::evaluate`].
    touched: Vec<u32>,
    accounts: Vec<Account>,
    /// The accounts as the last record that was replayed has left them.
    told: Vec<Account>,
    topologies: BTreeMap<String, u32>,
    dropped: VecDeque<MessageId>,
    /// How many roots were ever added to `dropped`.
    dropped_total: u64,
}

/// Roots of one piece of the table.
const PIECE_ROOTS: usize = if cfg!(test) { 4 } else { 16_384 };

/// All slots, in pieces: a table of a million roots that grew as one vector would be there twice while it is copied, 42 MiB each time.
#[derive(Debug, Default)]
struct Slots {
    pieces: Vec<Vec<Root>>,
}

impl Slots {
    fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * PIECE_ROOTS + last.len())
    }

    fn push(&mut self, root: Root) {
        match self.pieces.last_mut().filter(|piece| piece.len() < PIECE_ROOTS) {
            Some(piece) => piece.push(root),
            None => {
                let mut piece = Vec::with_capacity(PIECE_ROOTS);
                piece.push(root);
                self.pieces.push(piece);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Root> + '_ {
        self.pieces.iter().flatten()
    }
}

impl Index<usize> for Slots {
    type Output = Root;

    fn index(&self, slot: usize) -> &Root {
        &self.pieces[slot / PIECE_ROOTS][slot % PIECE_ROOTS]
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, slot: usize) -> &mut Root {
        &mut self.pieces[slot / PIECE_ROOTS][slot % PIECE_ROOTS]
    }
}

/// One root. The id is kept in halves: a `u128` would be aligned to 16 bytes and the entry would grow by a third.
#[derive(Clone, Copy, Debug)]
struct Root {
    id: [u64; 2],
    topology: u32,
    /// How many messages of this root an ingress has accepted, usually 1; 0 if it came from elsewhere and counts in no account.
    sent: u32,
    pending: u32,
    dead: u32,
    phase: Phase,
    dropped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    InFlight,
    Dead,
}

/// A root as a snapshot holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootImage {
    pub(crate) id: u128,
    pub(crate) topology: u32,
    pub(crate) sent: u32,
    pub(crate) pending: u32,
    pub(crate) dead: u32,
    pub(crate) dropped: bool,
}

pub(super) fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

fn whole(id: [u64; 2]) -> u128 {
    u128::from(id[0]) | (u128::from(id[1]) << 64)
}

/// Ids are random or hashes already; the multiplication is for the ones that people choose.
pub(super) fn hash(id: [u64; 2]) -> u64 {
    (id[0] ^ id[1].rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Roots {
    /// The number that stands for a topology.
    pub(crate) fn topology(&mut self, name: &str) -> u32 {
        if let Some(number) = self.topologies.get(name) {
            return *number;
        }
        let number = self.accounts.len() as u32;
        self.accounts.push(Account::default());
        self.topologies.insert(name.to_owned(), number);
        number
    }

    pub(crate) fn account(&self, topology: &str) -> Account {
        self.topologies.get(topology).map(|number| self.accounts[*number as usize]).unwrap_or_default()
    }

    /// What is known of a root: `None` while something is pending.
    pub(crate) fn outcome(&self, id: MessageId) -> Option<Outcome> {
        match self.find(halves(id.0)).map(|slot| self.slots[slot as usize]) {
            Some(root) if root.pending > 0 => None,
            Some(_) => Some(Outcome::DeadLettered),
            None if self.dropped.contains(&id) => Some(Outcome::DeadLettered),
            None => Some(Outcome::Done),
        }
    }

    /// The slot of a root, made if there is none.
    pub(crate) fn slot(&mut self, id: u128, topology: u32) -> u32 {
        let id = halves(id);
        if let Some(slot) = self.find(id) {
            return slot;
        }
        let root = Root { id, topology, sent: 0, pending: 0, dead: 0, phase: Phase::InFlight, dropped: false };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = root;
                slot
            }
            None => {
                self.slots.push(root);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.by_id.insert_unique(hash(id), slot, |slot| hash(slots[*slot as usize].id));
        self.touched.push(slot);
        slot
    }

    /// One more message of this root was accepted by an ingress.
    pub(crate) fn sent(&mut self, slot: u32) {
        let root = &mut self.slots[slot as usize];
        let account = &mut self.accounts[root.topology as usize];
        root.sent += 1;
        account.sent += 1;
        match root.phase {
            Phase::Dead => account.dead_lettered += 1,
            Phase::InFlight | Phase::Free => account.in_flight += 1,
        }
        self.touched.push(slot);
    }

    /// `count` more deliveries of this root are pending.
    pub(crate) fn pend(&mut self, slot: u32, count: u32) {
        self.slots[slot as usize].pending += count;
        self.touched.push(slot);
    }

    /// One delivery of this root is settled.
    pub(crate) fn settle(&mut self, slot: u32) {
        let root = &mut self.slots[slot as usize];
        root.pending = root.pending.saturating_sub(1);
        if root.pending == 0 {
            self.touched.push(slot);
        }
    }

    /// `count` more dead letters of this root lie somewhere; none if nobody keeps them, which drops them.
    pub(crate) fn bury(&mut self, slot: u32, count: u32) {
        let root = &mut self.slots[slot as usize];
        root.dead += count;
        root.dropped |= count == 0;
        self.touched.push(slot);
    }

    /// One dead letter of this root was taken away, to be redriven or dropped.
    pub(crate) fn unbury(&mut self, slot: u32, redriven: bool) {
        let root = &mut self.slots[slot as usize];
        root.dead = root.dead.saturating_sub(1);
        root.dropped |= !redriven;
        self.touched.push(slot);
    }

    /// The id of the root in a slot.
    pub(crate) fn id(&self, slot: u32) -> u128 {
        whole(self.slots[slot as usize].id)
    }

    /// Looks at what has changed, at the end of a step, and tells the roots of which nothing is pending any more.
    pub(crate) fn evaluate(&mut self, finished: &mut Vec<(MessageId, Outcome)>) {
        while let Some(slot) = self.touched.pop() {
            let root = self.slots[slot as usize];
            if root.phase == Phase::Free {
                continue;
            }
            let phase = match (root.pending, root.dead) {
                (1.., _) => Phase::InFlight,
                (0, 1..) => Phase::Dead,
                (0, 0) if root.dropped => Phase::Dead,
                (0, 0) => Phase::Free,
            };
            self.turn(slot, root, phase, finished);
        }
    }

    fn turn(&mut self, slot: u32, root: Root, phase: Phase, finished: &mut Vec<(MessageId, Outcome)>) {
        let id = MessageId(whole(root.id));
        if phase != root.phase {
            let sent = u64::from(root.sent);
            let account = &mut self.accounts[root.topology as usize];
            // What a damaged group had settled is settled once more, and may not be in the account any more.
            match root.phase {
                Phase::Dead => account.dead_lettered = account.dead_lettered.saturating_sub(sent),
                Phase::InFlight | Phase::Free => account.in_flight = account.in_flight.saturating_sub(sent),
            }
            match phase {
                Phase::InFlight => account.in_flight += sent,
                Phase::Dead => account.dead_lettered += sent,
                Phase::Free => account.done += sent,
            }
            self.slots[slot as usize].phase = phase;
            match phase {
                Phase::InFlight => {}
                Phase::Dead => finished.push((id, Outcome::DeadLettered)),
                Phase::Free => finished.push((id, Outcome::Done)),
            }
        }
        if root.pending == 0 && root.dead == 0 {
            self.release(slot, root);
        }
    }

    fn release(&mut self, slot: u32, root: Root) {
        if root.dropped {
            if self.dropped.len() == DROPPED_REMEMBERED_MAX {
                self.dropped.pop_front();
            }
            self.dropped.push_back(MessageId(whole(root.id)));
            self.dropped_total += 1;
        }
        self.forget(slot);
    }

    /// How often a root of this topology was sent, 0 or 1, if these pending deliveries are all there is of it.
    pub(crate) fn sole(&self, slot: u32, pending: u32, topology: u32) -> Option<u32> {
        let root = &self.slots[slot as usize];
        let sole = root.phase == Phase::InFlight && root.pending == pending && root.dead == 0 && !root.dropped;
        (sole && root.topology == topology && root.sent <= 1).then_some(root.sent)
    }

    /// A root leaves the table; its account goes on counting it.
    pub(crate) fn forget(&mut self, slot: u32) {
        let id = self.slots[slot as usize].id;
        if let Ok(entry) = self.by_id.find_entry(hash(id), |found| *found == slot) {
            entry.remove();
        }
        self.slots[slot as usize].phase = Phase::Free;
        self.free.push(slot);
    }

    /// A root that has left the table is back in it.
    pub(crate) fn recall(&mut self, id: u128, topology: u32, sent: u32, pending: u32) -> u32 {
        let slot = self.slot(id, topology);
        let root = &mut self.slots[slot as usize];
        root.sent += sent;
        root.pending += pending;
        slot
    }

    /// So many roots in flight that are not in the table are done.
    pub(crate) fn finish(&mut self, topology: u32, count: u64) {
        let account = &mut self.accounts[topology as usize];
        account.in_flight = account.in_flight.saturating_sub(count);
        account.done += count;
    }

    /// The slot of a root, if it is in the table.
    pub(crate) fn known(&self, id: u128) -> Option<u32> {
        self.find(halves(id))
    }

    fn find(&self, id: [u64; 2]) -> Option<u32> {
        self.by_id.find(hash(id), |slot| self.slots[*slot as usize].id == id).copied()
    }

    /// How many roots are tracked.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many slots exist, used or free: what a long run must not let grow.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many slots there are, and how many of them hold a root.
    pub(crate) fn slots_and_count(&self) -> (usize, usize) {
        (self.slots.len(), self.slots.len() - self.free.len())
    }

    /// The tracked roots for a snapshot; their order there is what a message's root number in it refers to.
    pub(crate) fn images(&self) -> impl Iterator<Item = (u32, RootImage)> + '_ {
        self.slots.iter().enumerate().filter(|(_, root)| root.phase != Phase::Free).map(|(slot, root)| {
            let image = RootImage {
                id: whole(root.id),
                topology: root.topology,
                sent: root.sent,
                pending: root.pending,
                dead: root.dead,
                dropped: root.dropped,
            };
            (slot as u32, image)
        })
    }

    /// Topologies by number with their accounts, for a snapshot.
    pub(crate) fn accounts(&self) -> Vec<(String, Account)> {
        let mut accounts: Vec<_> = self.topologies.iter().map(|(name, number)| (*number, name.clone())).collect();
        accounts.sort_unstable();
        accounts.into_iter().map(|(number, name)| (name, self.accounts[number as usize])).collect()
    }

    /// Roots that were dropped, oldest first, for a snapshot.
    pub(crate) fn dropped(&self) -> impl ExactSizeIterator<Item = MessageId> + '_ {
        self.dropped.iter().copied()
    }

    /// How many roots were dropped since the broker was opened or made.
    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped_total
    }

    /// The roots that were dropped last, oldest first.
    pub(crate) fn dropped_last(&self, count: u64) -> Vec<MessageId> {
        let skip = self.dropped.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        self.dropped.iter().skip(skip).copied().collect()
    }

    /// What a record must say of this root, if it is tracked: its topology, how often it was sent, and whether something of it was dropped.
    pub(crate) fn note(&self, id: u128) -> Option<(u32, u32, bool)> {
        let root = &self.slots[self.find(halves(id))? as usize];
        Some((root.topology, root.sent, root.dropped))
    }

    /// What a record says of a root, when it is replayed.
    pub(crate) fn replay_note(&mut self, id: u128, topology: u32, sent: u32, dropped: bool) {
        // A topology whose topics were lost has no account.
        if topology as usize >= self.accounts.len() {
            return;
        }
        let slot = self.slot(id, topology);
        // What was sent and not written is only told here, and counts as what was.
        for _ in self.slots[slot as usize].sent..sent {
            self.sent(slot);
        }
        let root = &mut self.slots[slot as usize];
        (root.sent, root.dropped) = (sent, dropped);
        self.touched.push(slot);
    }

    /// The accounts by number of the topology.
    pub(crate) fn all_accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// What a record says of the accounts, when it is replayed: those that it does not name are as the record before has left them. What replaying has made of
    /// them may differ, since the order within a group is not known, and a root may have gone one way and back.
    pub(crate) fn replay_accounts(&mut self, accounts: Vec<(u32, Account)>) {
        self.told.resize(self.accounts.len(), Account::default());
        for (topology, account) in accounts {
            if let Some(told) = self.told.get_mut(topology as usize) {
                *told = account;
            }
        }
        self.accounts.clone_from(&self.told);
    }

    /// Replays that roots were dropped: the ones that replaying has found are replaced by those of the record.
    pub(crate) fn replay_dropped(&mut self, before: u64, dropped: Vec<MessageId>) {
        for _ in before..self.dropped_total {
            self.dropped.pop_back();
        }
        self.dropped_total = before + dropped.len() as u64;
        self.dropped.extend(dropped);
        while self.dropped.len() > DROPPED_REMEMBERED_MAX {
            self.dropped.pop_front();
        }
    }

    /// Puts back what a snapshot holds.
    pub(crate) fn restore(&mut self, accounts: Vec<(String, Account)>, dropped: Vec<MessageId>) {
        for (name, account) in accounts {
            let number = self.topology(&name);
            self.accounts[number as usize] = account;
        }
        self.told.clone_from(&self.accounts);
        self.dropped = dropped.into();
    }

    /// Puts a root of a snapshot back and gives its slot. The account knows it already.
    pub(crate) fn restore_root(&mut self, image: RootImage) -> u32 {
        let slot = self.slot(image.id, image.topology);
        self.touched.clear();
        let root = &mut self.slots[slot as usize];
        (root.sent, root.pending, root.dead, root.dropped) = (image.sent, image.pending, image.dead, image.dropped);
        root.phase = if image.pending > 0 { Phase::InFlight } else { Phase::Dead };
        slot
    }
}
