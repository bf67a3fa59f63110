//! Compares what there is with what was sent.

use super::{
    CHAPTERS, Finding, GIVEN_UP, PER_BOOK, Plan, TOPOLOGY, TROUBLE, TROUBLES,
    kept::{self, Message},
    rig::Rig,
};
use anyhow::Result;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

impl Rig<'_> {
    /// What was seen of the books that were sent.
    pub(super) fn judge(&mut self, books: &[String], plan: &Plan, time: Duration, left: usize) -> Result<Finding> {
        let mut finding = Finding::default();
        self.made.add_audited(self.site.cluster)?;
        let messages = kept::messages(self.files.folder())?;
        let twice = self.made.twice();
        finding.require(twice.is_empty(), || format!("{} attempts had two Jobs, such as {:?}", twice.len(), twice.first()));
        for book in books {
            self.judge_book(&mut finding, book, &messages, plan);
        }
        self.judge_book(&mut finding, TROUBLE, &messages, plan);
        self.judge_dead_letters(&mut finding, plan)?;
        for book in books.iter().take(1).map(String::as_str).chain([TROUBLE]) {
            self.judge_trace(&mut finding, book, &messages)?;
        }
        let (joined, committed) = kept::joined(&messages);
        let gathered = self.gathered(committed)?;
        finding.require(gathered == Some(committed), || {
            format!("lost or double: {committed} chapters are committed, and {gathered:?} came to the fold")
        });
        let parts: Vec<&String> = joined.iter().flat_map(|one| &one.files).collect();
        let different: BTreeSet<&&String> = parts.iter().collect();
        finding.require((parts.len(), different.len()) == (committed, committed), || {
            format!("lost or double: of {committed} chapters {} are joined, {} of them different", parts.len(), different.len())
        });
        finding.require(left == 0, || format!("{left} Jobs and pods are left a minute after the end"));
        finding.require(self.at_once <= super::PARALLEL, || {
            format!("{} programs ran at once, where {} may", self.at_once, super::PARALLEL)
        });
        finding.require(self.evicted > 0, || "void: no pod was evicted".to_owned());
        let faults: usize = self.faults.values().sum();
        finding.require(self.under_way * 2 >= faults, || format!("void: only {} of {faults} faults hit a Job", self.under_way));
        let sent = super::BAD + books.len() * PER_BOOK;
        finding.require(sent >= plan.messages(), || {
            format!(
                "void: the time was over after {sent} of {} messages, and {faults} of {} faults",
                plan.messages(),
                plan.faults.len()
            )
        });
        let seconds = self.seconds()?;
        let struck = self.proxy.as_ref().map(|proxy| format!("; {}", proxy.tally())).unwrap_or_default();
        finding.seen = format!(
            "{sent} messages of {} books had {} Jobs, {} of them of an attempt that had one already, in {:.0} s; {} chapters were joined, by {} results of the fold; {} pods were evicted and replaced; {}, {} of these {faults} with Jobs under way; {seconds} second pods did all of their work beside the first{struck}; {} messages that failed, hung or ate memory had exactly their {} attempts each, and {GIVEN_UP} dead letters have their logs; {left} Jobs and pods are left",
            books.len() + 2,
            self.made.count(),
            self.made.twice().len(),
            time.as_secs_f64(),
            parts.len(),
            joined.len(),
            self.evicted,
            listed(&self.faults),
            self.under_way,
            TROUBLES.len(),
            plan.attempts,
        );
        Ok(finding)
    }

    /// The message of a book, and its chapters: each was handled, and each as often as it should be.
    fn judge_book(&self, finding: &mut Finding, book: &str, messages: &[Message], plan: &Plan) {
        let of_book = || messages.iter().filter(|one| one.book == book);
        let split = of_book().filter(|one| one.task == "split" && one.committed).count();
        finding.require(split == 1, || format!("lost: {book} was divided {split} times"));
        for number in 1..=CHAPTERS {
            let found: Vec<&Message> = of_book().filter(|one| one.task == kept::TRANSFORM && one.number == number).collect();
            let [message] = found[..] else {
                finding.objections.push(format!("lost or double: chapter {number} of {book} is {} messages", found.len()));
                continue;
            };
            let is_bad = book == TROUBLE && number <= TROUBLES.len();
            finding.require(message.committed != is_bad, || {
                format!("chapter {number} of {book} is committed: {}", message.committed)
            });
            let jobs = self.made.of(&message.step);
            if is_bad {
                let all: Vec<u32> = (1..=plan.attempts as u32).collect();
                finding.require(jobs == all, || {
                    format!("chapter {number} of {book} has Jobs of the attempts {jobs:?}, and not {all:?}")
                });
                finding.require(message.logs == all.len(), || format!("chapter {number} of {book} has {} logs", message.logs));
            } else if book == TROUBLE {
                // It was evicted, which is no failure.
                finding.require(jobs == [1], || {
                    format!("chapter {number} of {book} was evicted, and has Jobs of the attempts {jobs:?}")
                });
            } else {
                let within = jobs.last().is_some_and(|last| *last as usize <= plan.attempts);
                finding.require(within, || format!("over-attempt: chapter {number} of {book} has Jobs of the attempts {jobs:?}"));
            }
        }
    }

    /// `leat trace` shows each message that came of a book, with the attempts that had a Job, the files of those that are done, and why the others were given up.
    fn judge_trace(&self, finding: &mut Finding, book: &str, messages: &[Message]) -> Result<()> {
        let steps = self.trace(book)?;
        let divided = messages.iter().find(|one| one.book == book && one.task == "split").map(|one| one.id.as_str());
        for message in messages.iter().filter(|one| one.book == book && one.task == kept::TRANSFORM) {
            let what = format!("the trace of chapter {} of {book}", message.number);
            let Some(step) = steps.iter().find(|step| step["message"] == *message.id) else {
                finding.objections.push(format!("{what} has no step"));
                continue;
            };
            let list = |name: &str| step[name].as_array().cloned().unwrap_or_default();
            let made: Vec<u64> = self.made.of(&message.step).into_iter().map(u64::from).collect();
            // What was killed before it made the Job of an attempt has written that it began, and no more.
            let is_no_more = |job: &Value| job["ended_ms"].is_null() && !made.iter().any(|made| job["attempt"] == *made);
            let told = list("jobs").into_iter().filter(|job| !is_no_more(job));
            let jobs: BTreeSet<u64> = told.filter_map(|job| job["attempt"].as_u64()).collect();
            let made: BTreeSet<u64> = made.into_iter().collect();
            finding.require(jobs == made, || format!("{what} has jobs of the attempts {jobs:?}, and the cluster had {made:?}"));
            finding.require(step["parent"].as_str() == divided, || format!("{what} came of {}", step["parent"]));
            if message.committed {
                let done = step["state"] == "handled" && !list("files").is_empty();
                finding.require(done, || format!("{what} is {} with {} files", step["state"], list("files").len()));
            } else {
                let said = step["dead_letter"]["error"].as_str().unwrap_or_default();
                let logs = list("jobs").iter().filter(|job| job["log"].is_string() && job["error"].is_string()).count();
                finding.require(step["state"] == "dead-lettered" && !said.is_empty() && logs == made.len(), || {
                    format!("{what} is {}, says `{said}` and has {logs} logs", step["state"])
                });
            }
        }
        Ok(())
    }

    /// Each message that was given up says why, and has its log.
    fn judge_dead_letters(&self, finding: &mut Finding, plan: &Plan) -> Result<()> {
        let dead = self.ask(&["dlq", "list", TOPOLOGY, "--output", "json"])?;
        let letters = dead[TOPOLOGY]["letters"].as_array().cloned().unwrap_or_default();
        let mut said: Vec<(String, u64)> = Vec::new();
        for letter in &letters {
            let error = letter["error"].as_str().unwrap_or_default();
            let log = error.rsplit("log: /files/").next().map(|path| self.files.folder().join(path.trim_end_matches('`')));
            finding.require(log.is_some_and(|log| log.is_file()), || format!("a dead letter without its log: {error}"));
            said.push((error.to_owned(), letter["attempts"].as_u64().unwrap_or_default()));
        }
        let troubles = TROUBLES.iter().map(|(_, what)| (*what, plan.attempts as u64));
        for (what, attempts) in troubles.chain([("declared permanent", 1)]) {
            finding.require(said.iter().any(|(error, had)| error.contains(what) && *had == attempts), || {
                format!("nothing says `{what}` after {attempts} attempts: {said:?}")
            });
        }
        finding.require(letters.len() == GIVEN_UP, || format!("lost: {} dead letters: {said:?}", letters.len()));
        Ok(())
    }
}

fn listed(faults: &BTreeMap<&'static str, usize>) -> String {
    faults.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
