//! Which topologies are to be looked at, and when.

use crate::watch::{Key, Notice};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// How long a notice waits for others about the same topology: a rollout makes many.
const GATHER: Duration = Duration::from_millis(100);

/// How long to wait after the first failure in a row. Most often somebody else has changed something meanwhile, and the next look sees that.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// How long to wait after a failure at most: a thousand topologies that all fail, for want of a broker perhaps, are then looked at eleven times a second together.
const RETRY_MAX: Duration = Duration::from_secs(120);

/// How long to wait after a number of failures in a row, from 1 on, before chance shortens it.
fn backoff(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(RETRY_MAX)
}

/// What a reconciliation leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The topology is gone.
    Forget,
    /// It has failed.
    Retry,
    /// It has gone well, and is looked at again after that at the latest.
    After(Duration),
}

/// One is never looked at twice at a time.
#[derive(Default)]
pub(crate) struct Queue {
    due: BTreeMap<(Instant, Key), ()>,
    when: HashMap<Key, Instant>,
    running: HashSet<Key>,
    /// Those that were told of while they were looked at, and whether it was news.
    again: HashMap<Key, bool>,
    /// How often in a row those have failed that have.
    failures: HashMap<Key, u32>,
    /// What was last asked for.
    asked: HashMap<Key, String>,
    /// How often one was put off: with it chance is another each time.
    put_off: u64,
    chance: RandomState,
}

impl Queue {
    /// Something may have happened to a topology. One that has failed waits all the same: what it has written itself tells of it, too. Only something else that is asked for, and a
    /// watch that has begun anew, are news.
    pub(crate) fn notice(&mut self, notice: Notice, now: Instant) {
        let Notice { key, asked, is_anew } = notice;
        let is_another = asked.is_some_and(|asked| self.asked.insert(key.clone(), asked.clone()).is_none_or(|old| old != asked));
        let is_news = is_anew || is_another;
        if self.running.contains(&key) {
            *self.again.entry(key).or_default() |= is_news;
        } else if is_news {
            self.failures.remove(&key);
            self.put(key, now + GATHER);
        } else if !self.failures.contains_key(&key) {
            self.put(key, now + GATHER);
        }
    }

    /// Puts it in, unless it is due sooner already.
    fn put(&mut self, key: Key, at: Instant) {
        if let Some(before) = self.when.get(&key).copied() {
            if before <= at {
                return;
            }
            self.due.remove(&(before, key.clone()));
        }
        self.when.insert(key.clone(), at);
        self.due.insert((at, key), ());
    }

    /// The first that is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Key> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, key), ()) = entry.remove_entry();
        self.when.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), ())| *at)
    }

    /// How a look has ended.
    pub(crate) fn done(&mut self, key: Key, wait: Wait, now: Instant) {
        self.running.remove(&key);
        let again = self.again.remove(&key);
        let is_due = match wait {
            Wait::Forget => {
                self.failures.remove(&key);
                self.asked.remove(&key);
                again.is_some()
            }
            Wait::After(time) => {
                self.failures.remove(&key);
                let time = self.spread(&key, time);
                self.put(key.clone(), now + time);
                again.is_some()
            }
            Wait::Retry if again == Some(true) => {
                self.failures.remove(&key);
                true
            }
            Wait::Retry => {
                self.put_back(key.clone(), now);
                false
            }
        };
        if is_due {
            self.put(key, now + GATHER);
        }
    }

    /// Counts a failure, and waits for longer than after the one before.
    fn put_back(&mut self, key: Key, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        let pause = backoff(*failures);
        let pause = self.spread(&key, pause);
        self.put(key, now + pause);
    }

    /// Shortens a time by chance, by up to a quarter: what has come to all topologies at once does not come back to all of them at once.
    fn spread(&mut self, key: &Key, time: Duration) -> Duration {
        self.put_off = self.put_off.wrapping_add(1);
        let part = self.chance.hash_one((key, self.put_off)) as u8;
        time.saturating_sub(time / 4 * u32::from(part) / u32::from(u8::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn key(name: &str) -> Key {
        Key { namespace: "n".to_owned(), name: name.to_owned() }
    }

    fn part(name: &str) -> Notice {
        Notice { key: key(name), asked: None, is_anew: false }
    }

    fn asked(name: &str, what: &str) -> Notice {
        Notice { asked: Some(what.to_owned()), ..part(name) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_topology_is_looked_at_once_at_a_time_and_again_when_told_meanwhile() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        (0..5).for_each(|_| queue.notice(part("a"), now));
        assert_eq!(queue.take(now), None, "notices are gathered");
        let later = now + GATHER;
        assert_eq!((queue.take(later), queue.take(later)), (Some(key("a")), None));
        queue.notice(part("a"), later);
        assert_eq!(queue.due(), None, "it is being looked at");
        queue.done(key("a"), Wait::After(10 * MINUTE), later);
        assert_eq!(queue.due(), Some(later + GATHER), "what came meanwhile comes before the usual time");
        queue.notice(part("b"), later);
        queue.notice(part("b"), later + GATHER);
        assert_eq!(queue.take(later + GATHER), Some(key("a")));
        assert_eq!(queue.take(later + GATHER), Some(key("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer_until_one_goes_well() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.notice(part("a"), now);
        now += GATHER;
        for failures in 1..40 {
            assert_eq!(queue.take(now), Some(key("a")));
            queue.done(key("a"), Wait::Retry, now);
            let pause = queue.due().expect("it is tried again") - now;
            let whole = RETRY_MAX.min(RETRY_FIRST * 2_u32.pow(failures.min(20) - 1));
            assert!(pause <= whole && pause >= whole * 3 / 4, "{pause:?} after {failures} failures, of {whole:?}");
            now += pause;
        }
        queue.take(now);
        queue.done(key("a"), Wait::After(Duration::from_secs(1)), now);
        now += Duration::from_secs(1);
        queue.take(now);
        queue.done(key("a"), Wait::Retry, now);
        now += RETRY_FIRST;
        assert_eq!(queue.take(now), Some(key("a")), "what went well between begins it anew");
        queue.done(key("a"), Wait::Forget, now);
        assert!(queue.due().is_none() && queue.failures.is_empty() && queue.asked.is_empty());
    }

    /// How often a topology is looked at that always fails.
    fn looks(queue: &mut Queue, time: Duration, mut meanwhile: impl FnMut(&mut Queue, Instant)) -> usize {
        let (mut now, mut looks) = (Instant::now(), 0);
        let end = now + time;
        while let Some(due) = queue.due().filter(|due| *due < end) {
            now = now.max(due);
            while let Some(key) = queue.take(now) {
                looks += 1;
                meanwhile(queue, now);
                queue.done(key, Wait::Retry, now);
                meanwhile(queue, now);
            }
        }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_failure_has_written_itself_does_not_bring_it_back() {
        let mut queue = Queue::default();
        queue.notice(asked("a", "1"), Instant::now());
        let tells = |queue: &mut Queue, now: Instant| {
            queue.notice(part("a"), now);
            queue.notice(asked("a", "1"), now);
        };
        let looks = looks(&mut queue, 5 * MINUTE, tells);
        assert!((11..=17).contains(&looks), "{looks} looks within five minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn news_bring_back_what_has_failed() {
        for news in [asked("a", "2"), Notice { is_anew: true, ..asked("a", "1") }, Notice { is_anew: true, ..part("a") }] {
            for is_looked_at in [false, true] {
                let (mut queue, mut now) = (Queue::default(), Instant::now());
                queue.notice(asked("a", "1"), now);
                for _ in 0..9 {
                    now = queue.due().expect("it is tried again");
                    queue.take(now);
                    queue.done(key("a"), Wait::Retry, now);
                }
                if is_looked_at {
                    now = queue.due().expect("it is tried again");
                    queue.take(now);
                    queue.notice(news.clone(), now);
                    queue.done(key("a"), Wait::Retry, now);
                } else {
                    queue.notice(news.clone(), now);
                }
                assert_eq!(queue.due(), Some(now + GATHER), "{news:?}");
                now += GATHER;
                queue.take(now);
                queue.done(key("a"), Wait::Retry, now);
                assert!(queue.due() <= Some(now + RETRY_FIRST), "its failures are counted anew after {news:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_to_all_at_once_does_not_come_back_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let period = 10 * MINUTE;
        (0..1000).for_each(|number| queue.notice(part(&format!("t{number}")), now));
        let mut most = Vec::new();
        for _ in 0..2 {
            let mut by_minute: BTreeMap<u64, usize> = BTreeMap::new();
            let all: Vec<(Instant, Key)> = queue.due.keys().cloned().collect();
            assert_eq!(all.len(), 1000, "none is lost");
            for (at, key) in all {
                assert_eq!(queue.take(at).as_ref(), Some(&key));
                *by_minute.entry((at - now).as_secs() / 10).or_default() += 1;
                queue.done(key, Wait::After(period), at);
            }
            most.push(by_minute.values().copied().max().unwrap_or_default());
        }
        assert_eq!(most[0], 1000);
        assert!(most[1] < 150, "{} of a thousand within ten seconds", most[1]);
    }
}
