//! How each request is answered, by chance.

use crate::faults::Random;
use hyper::Method;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What comes in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// That of the API server.
    OfTheServer,
    /// This status, and nothing is done.
    Refused(u16),
    /// It is done, and this status is answered all the same.
    Done(u16),
    /// It is done, and nothing is answered.
    Silence,
    /// A watch begins and tells nothing.
    SilentWatch,
}

/// One in so many requests of a method is answered otherwise. Most are looks, twice a second for each Job, and what makes a Job is rare.
fn one_in(method: &Method) -> u64 {
    match *method {
        Method::POST => 3,
        Method::DELETE | Method::PUT | Method::PATCH => 6,
        _ => 30,
    }
}

/// One in so many watches tells nothing.
const SILENT_WATCHES: u64 = 3;

/// What is answered by requests of all kinds.
const FAILURES: [u16; 4] = [429, 500, 503, 504];

/// The plan, and what has come of it.
pub(super) struct Plan(Mutex<(Random, BTreeMap<&'static str, u64>)>);

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new((Random::new(seed, "R18 proxy"), BTreeMap::new())))
    }

    /// How the next request is answered.
    pub(super) fn next(&self, method: &Method, watches: bool) -> Answer {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (random, tally) = &mut *both;
        let answer = draw(random, method, watches);
        if let Some(name) = name(answer) {
            *tally.entry(name).or_default() += 1;
        }
        answer
    }

    /// What has come of it, in words.
    pub(super) fn tally(&self) -> String {
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts: Vec<String> = both.1.iter().map(|(name, count)| format!("{count} {name}")).collect();
        format!("the proxy gave {}", counts.join(", "))
    }
}

fn draw(random: &mut Random, method: &Method, watches: bool) -> Answer {
    if watches {
        return if random.within(0..SILENT_WATCHES) == 0 { Answer::SilentWatch } else { Answer::OfTheServer };
    }
    if random.within(0..one_in(method)) > 0 {
        return Answer::OfTheServer;
    }
    match random.within(0..10) {
        0 => Answer::Silence,
        1 | 2 => Answer::Done([500, 504][random.within(0..2) as usize]),
        // What is there already, or was changed meanwhile; and what is too old to be listed.
        3 | 4 => Answer::Refused(if method == Method::GET { 410 } else { 409 }),
        _ => Answer::Refused(FAILURES[random.within(0..FAILURES.len() as u64) as usize]),
    }
}

fn name(answer: Answer) -> Option<&'static str> {
    match answer {
        Answer::OfTheServer => None,
        Answer::Refused(409) => Some("409"),
        Answer::Refused(410) => Some("410"),
        Answer::Refused(429) => Some("429"),
        Answer::Refused(_) => Some("5xx"),
        Answer::Done(_) => Some("5xx for what was done"),
        Answer::Silence => Some("times no answer"),
        Answer::SilentWatch => Some("silent watches"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_answer_comes_and_most_are_those_of_the_server() {
        let mut random = Random::new(1, "test");
        for (method, kinds) in [(Method::GET, 6), (Method::POST, 6)] {
            let answers: Vec<Answer> = (0..6000).map(|_| draw(&mut random, &method, false)).collect();
            let names: BTreeSet<_> = answers.iter().map(|answer| name(*answer)).collect();
            assert_eq!(names.len(), kinds, "{method}: {names:?}");
            let own = answers.iter().filter(|answer| **answer == Answer::OfTheServer).count();
            assert!(own > 3000, "{method}: {own}");
        }
        let watches: BTreeSet<_> = (0..100).map(|_| name(draw(&mut random, &Method::GET, true))).collect();
        assert_eq!(watches, BTreeSet::from([None, Some("silent watches")]));
    }
}
