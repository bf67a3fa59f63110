//! The state as text that does not depend on where messages lie or in which order things were made: what two states are compared by.
//!
//! Left out is what may differ between a state that has lived through everything and one that was recovered: addresses, and the newest time and the bytes of a
//! block of messages, in which messages count that were elided.

use super::place::Place;
use crate::state::{State, Subscription, Topic, UNTRACKED};
use std::collections::BTreeMap;

/// One line for each thing.
pub(crate) type Image = Vec<String>;

/// The image of a state.
pub(crate) fn of(state: &State<Place>) -> Image {
    let mut lines = Vec::new();
    let names: BTreeMap<u32, u128> = state.roots.images().map(|(slot, image)| (slot, image.id)).collect();
    for topic in &state.topics {
        topic_lines(topic, &names, &mut lines);
    }
    for (number, subscription) in state.subscriptions.iter().enumerate() {
        subscription_lines(number, subscription.as_ref(), &mut lines);
    }
    let roots: BTreeMap<u128, _> = state.roots.images().map(|(_, image)| (image.id, image)).collect();
    lines.extend(roots.values().map(|root| format!("{root:?}")));
    lines.extend(state.roots.accounts().iter().map(|account| format!("{account:?}")));
    lines.extend(state.roots.dropped().map(|id| format!("dropped {id:?}")));
    lines.extend(state.keyed.iter().map(|(key, value)| format!("state {key} = {value:?}")));
    lines
}

fn topic_lines(topic: &Topic<Place>, names: &BTreeMap<u32, u128>, lines: &mut Image) {
    let name = &topic.spec.name;
    lines.push(format!("{:?}, next {}, damaged {}", topic.spec, topic.log.next(), topic.damaged));
    lines.extend(sorted(&topic.producers).map(|(producer, last)| format!("{name}: producer {producer} {last:?}")));
    lines.extend(sorted(&topic.deliver_at).map(|(position, at)| format!("{name}: {position} is due at {at}")));
    for (position, entry) in topic.log.held(0) {
        let root = if entry.root == UNTRACKED { None } else { names.get(&entry.root) };
        lines.push(format!("{name}: {position} of root {root:x?}, key {:x}, {} to go", entry.key, entry.remaining));
    }
}

fn subscription_lines(number: usize, subscription: Option<&Subscription>, lines: &mut Image) {
    let Some(Subscription { topic, name, settled, attempts, delays }) = subscription else {
        lines.push(format!("subscription {number} is gone"));
        return;
    };
    lines.push(format!("subscription {number} `{name}` of {topic:?}: {settled:?}"));
    lines.extend(sorted(attempts).map(|(position, attempt)| format!("{number} `{name}`: {position} was tried {attempt} times")));
    lines.extend(sorted(delays).map(|(position, delay)| format!("{number} `{name}`: {position} waits until {}", delay.until_ms)));
}

fn sorted<'a, K: Ord + 'a, V: 'a>(map: impl IntoIterator<Item = (&'a K, &'a V)>) -> impl Iterator<Item = (&'a K, &'a V)> {
    map.into_iter().collect::<BTreeMap<_, _>>().into_iter()
}
