//! Judges a run by three logs: what was invoked, what was acknowledged, what was observed. Nothing here touches a disk.
//!
//! An operation that was invoked and never acknowledged is *indeterminate*: it may have happened or not, but it must not have happened by half.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
};

/// What is known of the workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Roots that are given up at `right`, and therefore seen once only at the sink.
    pub(crate) poison: BTreeSet<u64>,
    /// The most attempts at a message of the sink, and at one of `right`, where messages are given up.
    pub(crate) attempts_max: u32,
    pub(crate) attempts_right: u32,
    /// Whether the sink gets only what no crash takes back.
    pub(crate) sink_waits: bool,
    /// Whether an attempt number that comes again is an objection: the count survives the end of the process, not the loss of power.
    pub(crate) attempts_survive: bool,
    /// How often messages in flight may have been taken twice: once for each fault and each message that the sink held.
    pub(crate) duplicates_max: u64,
    /// Topics and how many messages each root publishes there: any more has happened twice inside the graph.
    pub(crate) published: Vec<(&'static str, u64, u64)>,
}

/// A dead letter as it lies in its topic.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Dead {
    pub(crate) edge: String,
    pub(crate) sequence: u64,
    pub(crate) cause: String,
    pub(crate) attempts: u32,
}

/// What the broker said when all was quiet.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct End {
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) in_flight: u64,
    pub(crate) last_sequence: u64,
    pub(crate) published: BTreeMap<String, u64>,
    pub(crate) dead: Vec<Dead>,
}

impl End {
    /// Fills in what a broker without an account does not say: what was sent is either done or has left a dead letter.
    pub(crate) fn account_by_letters(&mut self) {
        let given_up: BTreeSet<u64> = self.dead.iter().map(|letter| letter.sequence).collect();
        self.sent = self.last_sequence;
        self.dead_lettered = given_up.len() as u64;
        self.done = self.sent.saturating_sub(self.dead_lettered);
    }
}

/// The logs of a run, each line split into words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs {
    pub(crate) invoked: Vec<Vec<String>>,
    pub(crate) acked: Vec<Vec<String>>,
    pub(crate) observed: Vec<Vec<String>>,
    pub(crate) opened: Vec<Vec<String>>,
    /// Nothing if the run never came to rest.
    pub(crate) end: Option<End>,
}

/// What is wrong with a run, by kind, and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Acknowledged, or accepted by half, and neither at the sink nor a dead letter.
    pub(crate) lost: u64,
    /// At the sink and never sent, or seen there although it was not durable: a crash took it back.
    pub(crate) phantom: u64,
    /// Not what was sent.
    pub(crate) corrupt: u64,
    /// More than once at the sink before removing repetitions by id.
    pub(crate) repeated: u64,
    /// Repetitions beyond what the faults explain.
    pub(crate) duplicate: u64,
    /// Effects twice after removing repetitions, at the sink or inside the graph.
    pub(crate) double: u64,
    /// Tried more often than allowed.
    pub(crate) over_attempt: u64,
    /// Attempts whose number came again or went back.
    pub(crate) recounted: u64,
    /// Given up too early, for another cause, or without need.
    pub(crate) under_attempt: u64,
    /// The run did not come to rest.
    pub(crate) stuck: u64,
    /// Openings or ends at which `sent == done + dead-lettered + in flight` does not hold, or an end that does not fit the logs.
    pub(crate) unaccounted: u64,
    /// Roots that were acknowledged.
    pub(crate) acked: u64,
    /// Roots that were invoked and never acknowledged.
    pub(crate) indeterminate: u64,
    /// Messages that came to the sink.
    pub(crate) observed: u64,
}

impl Verdict {
    /// Adds the figures of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.corrupt += other.corrupt;
        self.repeated += other.repeated;
        self.duplicate += other.duplicate;
        self.double += other.double;
        self.over_attempt += other.over_attempt;
        self.recounted += other.recounted;
        self.under_attempt += other.under_attempt;
        self.stuck += other.stuck;
        self.unaccounted += other.unaccounted;
        self.acked += other.acked;
        self.indeterminate += other.indeterminate;
        self.observed += other.observed;
    }

    /// The kinds that are not allowed and were found, as `lost 3`.
    pub(crate) fn objections(&self) -> Vec<String> {
        let kinds = [
            ("lost", self.lost),
            ("phantom", self.phantom),
            ("corrupt", self.corrupt),
            ("duplicate", self.duplicate),
            ("double effect", self.double),
            ("over-attempt", self.over_attempt),
            ("attempt counted again", self.recounted),
            ("under-attempt", self.under_attempt),
            ("stuck", self.stuck),
            ("unaccounted", self.unaccounted),
        ];
        kinds.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind} {count}")).collect()
    }

    /// The figures in one sentence.
    pub(crate) fn figures(&self) -> String {
        let Self { lost, phantom, corrupt, repeated, duplicate, double, over_attempt, under_attempt, recounted, .. } = self;
        format!(
            "acked {}, indeterminate {}, at the sink {}: lost {lost}, phantom {phantom}, corrupt {corrupt}, repeated {repeated} \
             (unexplained {duplicate}), double effects {double}, over-attempt {over_attempt}, counted again {recounted}, under-attempt {under_attempt}, stuck {}, unaccounted {}",
            self.acked, self.indeterminate, self.observed, self.stuck, self.unaccounted
        )
    }
}

fn number(line: &[String], index: usize) -> u64 {
    line.get(index).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn kind(line: &[String]) -> &str {
    line.first().map_or("", String::as_str)
}

/// Judges a run.
pub(crate) fn judge(logs: &Logs, expected: &Expected) -> Verdict {
    let mut verdict = Verdict::default();
    let acked = read_acked(&logs.acked, &mut verdict);
    let invoked = ranges(&logs.invoked, "i");
    verdict.acked = acked.len() as u64;
    verdict.indeterminate = invoked.difference(&acked).count() as u64;
    let seen = read_observed(&logs.observed, &invoked, expected, &mut verdict);
    verdict.duplicate = verdict.repeated.saturating_sub(expected.duplicates_max);
    for line in logs.opened.iter().filter(|line| kind(line) == "o") {
        verdict.unaccounted += u64::from(number(line, 1) != number(line, 2) + number(line, 3) + number(line, 4));
    }
    match &logs.end {
        Some(end) => judge_end(end, &acked, &invoked, &seen, expected, &mut verdict),
        None => verdict.stuck += 1,
    }
    verdict
}

/// The roots of a line: so many from one on.
fn range(line: &[String]) -> Range<u64> {
    number(line, 1)..number(line, 1) + number(line, 2)
}

fn ranges(lines: &[Vec<String>], word: &str) -> BTreeSet<u64> {
    lines.iter().filter(|line| kind(line) == word).flat_map(|line| range(line)).collect()
}

/// What was acknowledged. At each opening the broker must still have all that was acknowledged before: the source goes on behind the last one
/// that is there, so that what was lost would be sent again and seem never to have been missing.
///
/// A process outlives the cut of its disk's power, which it would not in truth, and the kernel may tell it that a sync went well that the cut has hit. What it
/// acknowledges from the cut on is indeterminate.
fn read_acked(lines: &[Vec<String>], verdict: &mut Verdict) -> BTreeSet<u64> {
    let mut acked = BTreeSet::new();
    let mut last = 0;
    for life in lines.split_inclusive(|line| kind(line) == "o") {
        let cut_ms = life.iter().find(|line| kind(line) == "x").map(|line| number(line, 1));
        let before = |line: &&Vec<String>| kind(line) == "a" && cut_ms.is_none_or(|cut_ms| number(line, 3) < cut_ms);
        for sequence in life.iter().filter(before).flat_map(|line| range(line)) {
            acked.insert(sequence);
            last = last.max(sequence);
        }
        if let Some(opened) = life.last().filter(|line| kind(line) == "o") {
            verdict.lost += last.saturating_sub(number(opened, 1));
            last = last.min(number(opened, 1));
        }
    }
    acked
}

/// The ways by which each root came to the sink.
type Seen = HashMap<u64, HashSet<char>>;

fn read_observed(lines: &[Vec<String>], invoked: &BTreeSet<u64>, expected: &Expected, verdict: &mut Verdict) -> Seen {
    let mut seen: Seen = HashMap::new();
    let mut ids: HashMap<(u64, char), (String, u32)> = HashMap::new();
    let mut highest = 0;
    for life in lines.split_inclusive(|line| kind(line) == "o") {
        let cut_ms = life.iter().find(|line| kind(line) == "x").map(|line| number(line, 1));
        for line in life {
            let sequence = number(line, 1);
            match kind(line) {
                "c" => verdict.corrupt += 1,
                // What came to the sink has left the process: no crash may take it back.
                "o" => {
                    verdict.phantom += u64::from(expected.sink_waits && highest > sequence);
                    highest = highest.min(sequence);
                }
                "s" => {
                    if cut_ms.is_none_or(|cut_ms| number(line, 5) < cut_ms) {
                        highest = highest.max(sequence);
                    }
                    read_arrival(line, &mut ids, expected, verdict);
                    verdict.phantom += u64::from(!invoked.contains(&sequence));
                    seen.entry(sequence).or_default().insert(way(line));
                }
                _ => {}
            }
        }
    }
    seen
}

fn way(line: &[String]) -> char {
    line.get(2).and_then(|way| way.chars().next()).unwrap_or('?')
}

/// A message that has come to the sink, perhaps not for the first time.
fn read_arrival(line: &[String], ids: &mut HashMap<(u64, char), (String, u32)>, expected: &Expected, verdict: &mut Verdict) {
    let (sequence, way) = (number(line, 1), way(line));
    let (id, attempt) = (line.get(3).cloned().unwrap_or_default(), number(line, 4) as u32);
    let possible = way == 'L' || (way == 'R' && !expected.poison.contains(&sequence));
    verdict.observed += 1;
    verdict.phantom += u64::from(!possible);
    verdict.over_attempt += u64::from(attempt > expected.attempts_max);
    if let Some((before, last)) = ids.insert((sequence, way), (id.clone(), attempt)) {
        verdict.repeated += 1;
        verdict.double += u64::from(before != id);
        // A number that comes again means that an attempt was not counted, or was forgotten.
        verdict.recounted += u64::from(expected.attempts_survive && before == id && attempt <= last);
    }
}

fn judge_end(end: &End, acked: &BTreeSet<u64>, invoked: &BTreeSet<u64>, seen: &Seen, expected: &Expected, verdict: &mut Verdict) {
    let mut dead: HashMap<(u64, &str), u64> = HashMap::new();
    for letter in &end.dead {
        *dead.entry((letter.sequence, letter.edge.as_str())).or_default() += 1;
        let wanted = expected.poison.contains(&letter.sequence) && letter.edge == "start-->right";
        verdict.under_attempt += u64::from(!wanted);
        if letter.cause != "permanent" {
            verdict.under_attempt += u64::from(letter.attempts < expected.attempts_right);
            verdict.over_attempt += u64::from(letter.attempts > expected.attempts_right);
        }
    }
    verdict.double += dead.values().map(|count| count - 1).sum::<u64>();
    let gone = |sequence: u64, edges: &[&str]| edges.iter().any(|edge| dead.contains_key(&(sequence, *edge)));
    let none = HashSet::new();
    for sequence in (1..=end.last_sequence).chain(acked.range(end.last_sequence + 1..).copied()) {
        let ways = seen.get(&sequence).unwrap_or(&none);
        let left = ways.contains(&'L') || gone(sequence, &["start-->left", "left-->join", "[*]-->start", "join-->sink"]);
        let right = ways.contains(&'R') || gone(sequence, &["start-->right", "right-->join", "[*]-->start", "join-->sink"]);
        verdict.lost += u64::from(!left || !right);
    }
    let sum = end.done + end.dead_lettered + end.in_flight;
    let poisoned = expected.poison.range(..=end.last_sequence).count() as u64;
    verdict.stuck += u64::from(end.in_flight > 0);
    verdict.unaccounted +=
        u64::from(end.sent != sum || end.sent != end.last_sequence || !invoked.contains(&end.sent) && end.sent > 0);
    verdict.unaccounted += u64::from(end.dead_lettered < poisoned);
    for (topic, each, each_poison) in &expected.published {
        let wanted = (end.sent - poisoned.min(end.sent)) * each + poisoned * each_poison;
        let found = end.published.get(*topic).copied().unwrap_or(0);
        verdict.double += found.saturating_sub(wanted);
        verdict.lost += wanted.saturating_sub(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Vec<String>> {
        text.split(", ").filter(|line| !line.is_empty()).map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    /// Three roots of which the third is poison, all of it as it must be.
    fn good() -> (Logs, Expected) {
        let dead = Dead { edge: "start-->right".into(), sequence: 3, cause: "error".into(), attempts: 4 };
        let end = End {
            sent: 3,
            done: 2,
            dead_lettered: 1,
            in_flight: 0,
            last_sequence: 3,
            published: [("in", 3), ("out", 5)].map(|(topic, count)| (topic.to_owned(), count)).into(),
            dead: vec![dead],
        };
        let logs = Logs {
            invoked: lines("i 1 2, i 3 1, i 3 1"),
            acked: lines("o 0, a 1 2, o 2, a 3 1, o 3"),
            observed: lines("o 0, s 1 L a1 1, s 1 R b1 1, s 2 L a2 1, o 2, s 2 L a2 2, s 2 R b2 1, s 3 L a3 1, o 3"),
            opened: lines("o 0 0 0 0, o 2 1 0 1, o 3 2 1 0"),
            end: Some(end),
        };
        let published = vec![("in", 1, 1), ("out", 2, 1)];
        (
            logs,
            Expected {
                poison: [3].into(),
                attempts_max: 4,
                attempts_right: 4,
                sink_waits: true,
                attempts_survive: true,
                duplicates_max: 1,
                published,
            },
        )
    }

    #[test]
    fn a_good_run_has_no_objections() {
        let (logs, expected) = good();
        let verdict = judge(&logs, &expected);
        assert_eq!(verdict.objections(), Vec::<String>::new());
        assert_eq!((verdict.acked, verdict.indeterminate, verdict.observed, verdict.repeated), (3, 0, 6, 1));
    }

    #[test]
    fn every_kind_of_fault_is_found_and_named() {
        type Break = fn(&mut Logs, &mut Expected);
        let cases: [(&str, &str, Break); 20] = [
            ("an acknowledged root is not there at the next opening", "lost 1", |logs, _| {
                logs.acked = lines("a 1 2, o 1, a 2 2")
            }),
            ("a way is missing", "lost 1", |logs, _| _ = logs.observed.remove(2)),
            ("a dead letter is missing", "lost 1", |logs, _| end(logs).dead.clear()),
            ("fewer were published than must", "lost 1", |logs, _| _ = end(logs).published.insert("out".into(), 4)),
            ("never sent", "phantom 1", |logs, _| logs.observed.extend(lines("s 9 L a9 1"))),
            ("poison came through", "phantom 1", |logs, _| logs.observed.extend(lines("s 3 R b3 1"))),
            ("seen at the sink and taken back", "phantom 1", |logs, _| {
                logs.observed = {
                    let mut observed = lines("s 3 L a3 1, o 2");
                    observed.extend(logs.observed.clone().into_iter().filter(|line| line[0] == "s" && line[1] != "3"));
                    observed.extend(lines("s 3 L a3 2"));
                    observed
                }
            }),
            ("not what was sent", "corrupt 1", |logs, _| logs.observed.extend(lines("c 1"))),
            ("more repetitions than faults", "duplicate 1", |logs, _| logs.observed.extend(lines("s 2 L a2 3"))),
            ("another id for the same", "double effect 1", |logs, _| logs.observed[5][3] = "x2".into()),
            ("published twice", "double effect 1", |logs, _| _ = end(logs).published.insert("out".into(), 6)),
            ("two dead letters of one", "double effect 1", |logs, _| {
                let letter = end(logs).dead[0].clone();
                end(logs).dead.push(letter);
            }),
            ("an attempt too many", "over-attempt 1", |logs, _| logs.observed[5][4] = "5".into()),
            ("an attempt that was not counted", "attempt counted again 1", |logs, _| logs.observed[5][4] = "1".into()),
            ("given up too late", "over-attempt 1", |logs, _| end(logs).dead[0].attempts = 5),
            ("given up too early", "under-attempt 1", |logs, _| end(logs).dead[0].attempts = 3),
            ("a healthy one given up", "under-attempt 1", |logs, _| {
                let letter = Dead { edge: "join-->sink".into(), sequence: 1, ..end(logs).dead[0].clone() };
                end(logs).dead.push(letter);
            }),
            ("no rest", "stuck 1", |logs, _| logs.end = None),
            ("an opening does not balance", "unaccounted 1", |logs, _| logs.opened = lines("o 3 1 0 1")),
            ("the end does not balance", "unaccounted 1", |logs, _| end(logs).done = 3),
        ];
        for (what, objection, damage) in cases {
            let (mut logs, mut expected) = good();
            damage(&mut logs, &mut expected);
            let objections = judge(&logs, &expected).objections();
            assert!(objections.iter().any(|found| found == objection), "{what}: {objections:?}");
        }
    }

    fn end(logs: &mut Logs) -> &mut End {
        logs.end.as_mut().unwrap()
    }

    #[test]
    fn what_is_acknowledged_after_a_cut_is_indeterminate() {
        let lost = |text: &str| {
            let mut verdict = Verdict::default();
            let acked = read_acked(&lines(text), &mut verdict);
            (verdict.lost, acked.len())
        };
        assert_eq!(lost("o 0, a 1 2 10, a 3 2 20, x 20, a 5 2 21, o 2, a 3 2 30, o 4"), (0, 4));
        assert_eq!(lost("o 0, a 1 2 10, a 3 2 19, x 20, o 2, a 3 2 30, o 4"), (2, 4));
        assert_eq!(lost("o 0, a 1 2 10, o 2, a 3 2 20, o 1"), (3, 4));
        assert_eq!(lost("o 0, a 1 2 10, o 2, o 1"), (1, 2));
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not_but_not_by_half() {
        let (mut logs, expected) = good();
        logs.acked = lines("a 1 2, o 2");
        assert!(judge(&logs, &expected).objections().is_empty());
        assert_eq!(judge(&logs, &expected).indeterminate, 1);
        logs.observed.retain(|line| line[1] != "3" || line[0] != "s");
        assert_eq!(judge(&logs, &expected).objections(), ["lost 1"]);
    }
}
