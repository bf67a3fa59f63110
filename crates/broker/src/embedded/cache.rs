//! Recently published messages, so that what is consumed soon is not read back from disk.

use crate::Message;
use rustc_hash::FxHashMap;
use std::{collections::VecDeque, sync::Arc};

/// What a message takes in memory beside its payload, key and properties.
const MESSAGE_BYTES: usize = 256;

/// Entries of the order that may belong to messages that are gone, before it is cleaned up.
const STALE_MIN: usize = 1_024;

/// Messages by address, the oldest first out.
pub(crate) struct Cache {
    messages: FxHashMap<u64, Arc<Message>>,
    order: VecDeque<u64>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { messages: FxHashMap::default(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn insert(&mut self, address: u64, message: Arc<Message>) {
        self.bytes += size(&message);
        self.messages.insert(address, message);
        self.order.push_back(address);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
        if self.order.len() > 2 * self.messages.len() + STALE_MIN {
            self.order.retain(|address| self.messages.contains_key(address));
        }
    }

    pub(crate) fn get(&self, address: u64) -> Option<&Arc<Message>> {
        self.messages.get(&address)
    }

    pub(crate) fn remove(&mut self, address: u64) {
        if let Some(message) = self.messages.remove(&address) {
            self.bytes -= size(&message);
        }
    }
}

fn size(message: &Message) -> usize {
    let properties: usize = message.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
    MESSAGE_BYTES + message.payload.len() + message.key.as_ref().map_or(0, String::len) + properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_bytes_and_forgets_what_is_gone() {
        let mut cache = Cache::new(100 * (MESSAGE_BYTES + 10));
        let message = || Arc::new(Message { payload: vec![0; 10].into(), ..Message::default() });
        cache.insert(0, message());
        for address in 1..50_000 {
            cache.insert(address, message());
            if address % 2 == 0 {
                cache.remove(address);
            }
        }
        assert!(cache.get(49_999).is_some() && cache.get(0).is_none());
        assert!(cache.messages.len() <= 100 && cache.order.len() <= 2 * cache.messages.len() + STALE_MIN + 1);
        assert_eq!(cache.bytes, cache.messages.len() * (MESSAGE_BYTES + 10));
    }
}
