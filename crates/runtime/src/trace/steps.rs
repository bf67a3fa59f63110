//! Puts together what is known of a root, from whoever knows something: each message on each edge once, behind what it came of. A message that
//! fans out is on several edges under one identity, so what came of it stands behind the step of the branch that made it.

use super::{Outcome, Record};
use crate::{DeadLetter, control::Pending};
use leatworks_jobs::{Attempt, FileRef, JobStep, State as JobState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// One message on one edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// How many steps lie between it and the first one that is known.
    pub depth: usize,
    /// The edge.
    pub edge: String,
    /// The task, if somebody has told it.
    pub task: Option<String>,
    /// The message's identity.
    pub message: String,
    /// The message in whose handling it was made, if that is known.
    pub parent: Option<String>,
    /// How it stands.
    pub state: StepState,
    /// Every attempt that was written down, in their order.
    pub attempts: Vec<Record>,
    /// Every job that was run for it, in the order in which they began.
    pub jobs: Vec<Attempt>,
    /// The files that the job has left.
    pub files: Vec<FileRef>,
    /// What lies in the dead letters.
    pub dead_letter: Option<DeadLetter>,
}

/// How a message on an edge stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Something was done with it, and nobody says what has become of it.
    #[default]
    Unknown,
    /// It waits on the edge, or is in hand.
    Pending,
    /// It was handled, and what came of it is published.
    Handled,
    /// It was given up, and lies in the dead letters or did so.
    DeadLettered,
}

/// What is known of a root, by who knows it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// What dispatchers have written down.
    pub records: Vec<Record>,
    /// What jobs have.
    pub jobs: Vec<JobStep>,
    /// What the broker still keeps.
    pub pending: Vec<Pending>,
    /// What was given up.
    pub dead_letters: Vec<DeadLetter>,
}

/// Puts the steps together: each behind the one that it came of, those of one parent by when something was done with them first.
pub fn steps(sources: Sources) -> Vec<Step> {
    let mut gathered = Gathered::default();
    let Sources { mut records, jobs, pending, dead_letters } = sources;
    records.sort_by_key(|record| record.ended_ms);
    for record in records {
        gathered.record(record);
    }
    for job in jobs {
        gathered.job(job);
    }
    for waiting in pending {
        let step = gathered.step(&waiting.edge, &waiting.id, waiting.created_ms);
        step.state = StepState::Pending;
        gathered.parent(&waiting.id, waiting.parent);
    }
    for letter in dead_letters {
        let step = gathered.step(&letter.edge, &letter.id, letter.last_ms);
        step.state = StepState::DeadLettered;
        step.dead_letter = Some(letter);
    }
    gathered.in_order()
}

#[derive(Default)]
struct Gathered {
    /// By message and edge, with when something was done first.
    steps: BTreeMap<(String, String), (u64, Step)>,
    /// Which message was made in the handling of which.
    parents: HashMap<String, String>,
    /// By message, the edge on which that handling was, where whoever made it has named it.
    made_on: HashMap<String, String>,
}

impl Gathered {
    fn step(&mut self, edge: &str, message: &str, ms: u64) -> &mut Step {
        let new = || (ms, Step { edge: edge.to_owned(), message: message.to_owned(), ..Step::default() });
        let (first, step) = self.steps.entry((message.to_owned(), edge.to_owned())).or_insert_with(new);
        *first = ms.min(*first);
        step
    }

    fn parent(&mut self, message: &str, parent: Option<String>) {
        if let Some(parent) = parent {
            self.parents.entry(message.to_owned()).or_insert(parent);
        }
    }

    fn record(&mut self, record: Record) {
        for output in &record.outputs {
            self.parents.insert(output.clone(), record.message.clone());
            self.made_on.insert(output.clone(), record.edge.clone());
        }
        self.parent(&record.message, record.parent.clone());
        let step = self.step(&record.edge, &record.message, record.ended_ms);
        step.task = Some(record.task.clone());
        match record.outcome {
            Outcome::Handled | Outcome::Folded => step.state = StepState::Handled,
            // One that was redriven since is handled, or waits: whoever knows that is asked later.
            Outcome::DeadLettered => step.state = StepState::DeadLettered,
            Outcome::Failed => {}
        }
        step.attempts.push(record);
    }

    fn job(&mut self, job: JobStep) {
        let files = job.files();
        self.parent(&job.message, job.parent.clone());
        let first = job.attempts.first().map_or(0, |attempt| attempt.started_ms);
        let step = self.step(&job.edge, &job.message, first);
        step.task = Some(job.task);
        step.files = files;
        // What a job has committed is published with the next attempt at the latest, so it is as good as handled.
        let committed = job.commit.is_some() || job.attempts.iter().any(|attempt| attempt.state == JobState::Succeeded);
        if committed && step.state == StepState::Unknown {
            step.state = StepState::Handled;
        }
        step.jobs = job.attempts;
    }

    fn in_order(self) -> Vec<Step> {
        let Self { steps, parents, made_on } = self;
        let mut edges: HashMap<String, Vec<String>> = HashMap::new();
        for (message, edge) in steps.keys() {
            edges.entry(message.clone()).or_default().push(edge.clone());
        }
        let mut steps: Vec<(u64, Step)> = steps.into_values().collect();
        steps.sort_by(|(one, a), (other, b)| (one, &a.edge, &a.message).cmp(&(other, &b.edge, &b.message)));
        let mut tops = Vec::new();
        let mut children: HashMap<(String, String), Vec<Step>> = HashMap::new();
        for (_, mut step) in steps {
            step.parent = parents.get(&step.message).cloned();
            let behind = step.parent.as_ref().and_then(|parent| {
                let edge = branch(edges.get(parent)?, made_on.get(&step.message), &step.edge)?;
                Some((parent.clone(), edge.clone()))
            });
            match behind {
                Some(behind) => children.entry(behind).or_default().push(step),
                None => tops.push(step),
            }
        }
        let mut ordered = Vec::new();
        let mut stack: Vec<Step> = tops.into_iter().rev().collect();
        while let Some(step) = stack.pop() {
            let below = children.remove(&(step.message.clone(), step.edge.clone())).unwrap_or_default();
            let depth = step.depth + 1;
            stack.extend(below.into_iter().rev().map(|child| Step { depth, ..child }));
            ordered.push(step);
        }
        // Those that name each other as parents are damaged; they are shown all the same.
        let mut rest: Vec<Step> = children.into_values().flatten().collect();
        rest.sort_by(|a, b| (&a.edge, &a.message).cmp(&(&b.edge, &b.message)));
        ordered.extend(rest);
        ordered
    }
}

/// On which of its parent's edges a message was made: the one that was named, otherwise the one that leads to the task from which its own
/// edge comes. `None` where nothing is known of that branch: behind another one it would look as if that had made it.
fn branch<'a>(edges: &'a [String], named: Option<&String>, child: &str) -> Option<&'a String> {
    if let Some(edge) = edges.iter().find(|edge| Some(*edge) == named) {
        return Some(edge);
    }
    match child.split_once("-->") {
        Some((from, _)) => edges.iter().find(|edge| edge.rsplit(['>', '|']).next() == Some(from)),
        None => edges.first(),
    }
}
