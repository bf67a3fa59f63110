//! What belongs to some positions of a topic, such as the messages of one subscription that consumers hold.
//!
//! Nearly always they lie close together, so they are slots of a window that moves on, which costs a few nanoseconds where a map costs fifty. What stays behind while the window moves
//! on goes into a map.

use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Slots of the window before the oldest are moved out: twice what a dispatcher holds at most.
const WINDOW_MAX: usize = 16_384;

/// Values by position.
#[derive(Clone, Debug)]
pub(crate) struct Window<T> {
    base: u64,
    slots: VecDeque<Option<T>>,
    /// Positions before `base`.
    behind: FxHashMap<u64, T>,
    count: usize,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { base: 0, slots: VecDeque::new(), behind: FxHashMap::default(), count: 0 }
    }
}

impl<T: Copy> Window<T> {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, position: u64) -> Option<&T> {
        match position.checked_sub(self.base) {
            Some(index) => self.slots.get(usize::try_from(index).ok()?)?.as_ref(),
            None => self.behind.get(&position),
        }
    }

    pub(crate) fn get_mut(&mut self, position: u64) -> Option<&mut T> {
        match position.checked_sub(self.base) {
            Some(index) => self.slots.get_mut(usize::try_from(index).ok()?)?.as_mut(),
            None => self.behind.get_mut(&position),
        }
    }

    pub(crate) fn insert(&mut self, position: u64, held: T) {
        if self.slots.is_empty() {
            self.base = position.max(self.base);
        }
        let before = match position.checked_sub(self.base) {
            None => self.behind.insert(position, held),
            Some(index) => {
                let index = self.make_slot(index);
                self.slots[index].replace(held)
            }
        };
        self.count += usize::from(before.is_none());
    }

    /// Makes a slot at this index and gives where it is then: the window may have moved.
    fn make_slot(&mut self, index: u64) -> usize {
        let mut index = index as usize;
        if index >= self.slots.len() + WINDOW_MAX {
            // Far ahead of everything: a window of its own.
            self.move_out(self.slots.len());
            self.base += index as u64;
            index = 0;
        }
        if index >= self.slots.len() {
            self.slots.resize(index + 1, None);
        }
        if self.slots.len() > WINDOW_MAX {
            let out = (self.slots.len() - WINDOW_MAX / 2).min(index);
            self.move_out(out);
            self.base += out as u64;
            index -= out;
        }
        index
    }

    /// Moves what the first slots hold into the map. The caller moves the base.
    fn move_out(&mut self, count: usize) {
        let base = self.base;
        let held = self.slots.drain(..count).zip(base..).filter_map(|(held, position)| Some((position, held?)));
        self.behind.extend(held);
    }

    pub(crate) fn remove(&mut self, position: u64) -> Option<T> {
        let held = match position.checked_sub(self.base) {
            Some(index) => self.slots.get_mut(usize::try_from(index).ok()?)?.take(),
            None => self.behind.remove(&position),
        }?;
        self.count -= 1;
        while self.slots.front().is_some_and(Option::is_none) {
            self.slots.pop_front();
            self.base += 1;
        }
        Some(held)
    }

    /// Removes all from `start` up to before `end`, which may be far more than there are.
    pub(crate) fn remove_range(&mut self, start: u64, end: u64, mut removed: impl FnMut(T)) {
        if self.count == 0 || start >= end {
            return;
        }
        if end - start > self.count as u64 {
            let within: Vec<u64> = self.iter().map(|(at, _)| at).filter(|at| (start..end).contains(at)).collect();
            within.into_iter().filter_map(|position| self.remove(position)).for_each(removed);
        } else {
            for position in start..end {
                self.remove(position).into_iter().for_each(&mut removed);
            }
        }
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, T)> + '_ {
        let window = self.slots.iter().zip(self.base..).filter_map(|(held, position)| Some((position, (*held)?)));
        window.chain(self.behind.iter().map(|(position, held)| (*position, *held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_holds_what_a_map_holds_wherever_the_positions_are() {
        let mut seed = 9_u64;
        let mut next = move |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % limit
        };
        let (mut found, mut model) = (Window::default(), BTreeMap::new());
        let mut front = 0;
        for step in 0..200_000_u64 {
            // Mostly in order, sometimes far ahead or far behind.
            let position = match next(1_000) {
                0 => front + next(100_000),
                1 => next(front + 1),
                _ => front,
            };
            front = front.max(position) + 1;
            found.insert(position, step);
            model.insert(position, step);
            // One in a hundred stays for long.
            if next(100) > 0 {
                assert_eq!(found.remove(position), model.remove(&position));
            }
            if next(50) == 0 {
                let old = model.keys().nth(next(model.len() as u64 + 1) as usize).copied().unwrap_or(7);
                assert_eq!(found.get(old), model.get(&old));
                assert_eq!(found.remove(old), model.remove(&old));
            }
            assert_eq!(found.len(), model.len());
        }
        let mut all: Vec<_> = found.iter().collect();
        all.sort_unstable_by_key(|(position, _)| *position);
        assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        assert!(found.slots.len() <= 2 * WINDOW_MAX);
    }
}
