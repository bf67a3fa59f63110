//! R10: a poisonous message is tried exactly as often as it may be, with the process killed between every two attempts.

use super::{
    Finding, Setting,
    child::Job,
    log,
    memory::Limited,
    oracle::Dead,
    random::Random,
    rig::{Rig, STUCK},
    workload::Poison,
};
use anyhow::{Result, bail};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

/// Attempts at each message.
pub(super) const ATTEMPTS: u32 = 3;

/// The ways to fail.
const KINDS: [Poison; 6] = [Poison::Error, Poison::Panic, Poison::Abort, Poison::Memory, Poison::Hang, Poison::Block];

/// Roots between two poisonous ones, and how many come in a second: one of them is always on its way.
pub(super) const APART: u64 = 97;
pub(super) const RATE: u64 = 400;

/// The time limit of a task: only what hangs gets near it.
pub(super) const TIMEOUT: Duration = Duration::from_millis(300);

/// How long after an attempt has begun the kill comes at most: its failure is written down by then, and the next one is not due. Half of the kills come at a random
/// moment before.
const FAILED_BY: Duration = Duration::from_millis(60);

/// The same after the last attempt, so that the dead letter tells of it and not of the kill.
const GIVEN_UP_BY: Duration = Duration::from_millis(500);

/// How long a failed message waits. The wait after a panic or a timeout is random below this, so some begin the next attempt before the kill.
const RETRY_AFTER_MS: u64 = 2_000;

/// Memory that the process may take: some times what it needs.
pub(super) const MEMORY_BYTES: u64 = 256 << 20;

/// Among so many healthy roots one is poisonous while the rate is measured, and how many of these there are at most.
const EACH: u64 = 100;
const POISONED: u64 = 5_000;

/// How often the broken counter is watched before the next message has its turn.
const BROKEN_ROUNDS: u32 = 5;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let rounds = if setting.teeth { 1 } else { setting.pick(1, 10) };
    let kinds = if setting.teeth { &KINDS[..1] } else { &KINDS[..] };
    let mut rig = Rig::new(&setting.folder, None)?;
    let limited = Limited::new(MEMORY_BYTES)?;
    rig.wrapper = limited.wrapper();
    rig.job.batch = 4;
    rig.job.rate = Some(RATE);
    rig.job.attempts_right = ATTEMPTS;
    rig.job.timeout_ms = TIMEOUT.as_millis() as u64;
    rig.job.orders.permanent_each = 0;
    rig.job.orders.retry_after_ms = RETRY_AFTER_MS;
    let poison = (0..rounds).flat_map(|_| kinds).zip(1..).map(|(kind, number): (_, u64)| (number * APART, *kind));
    rig.job.orders.poison = poison.collect();
    let mut finding = Finding::default();
    let mut random = Random::new(setting.seed, "R10");
    for (sequence, kind) in rig.job.orders.poison.clone() {
        rig.job.roots = sequence + APART / 2;
        kill_between_attempts(&rig, (sequence, kind), &mut random, setting.teeth).await?;
    }
    rig.drain().await?;
    let kills = rig.openings()? - 1;
    let verdict = rig.judge(kills)?;
    let apart = apart(&rig)?;
    let (exact, wrong) = exact(&rig, inexact)?;
    finding.objections.extend(wrong);
    let total = rig.job.orders.poison.len() as u64;
    let wanted = total * u64::from(ATTEMPTS - 1);
    finding.seen = format!(
        "{exact} of {total} poisonous messages (error, panic, abort, memory by {}, hang, block) given up after exactly {ATTEMPTS} attempts, \
         {apart} of {wanted} pairs of attempts with kills of the process and of the broker alone between them; {}",
        limited.name(),
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    if !setting.teeth {
        healthy(setting, &mut finding).await?;
    }
    finding.require(apart * 10 >= wanted * 8, || format!("only {apart} of {wanted} pairs of attempts had a kill between them"));
    Ok(finding)
}

/// Lets a message have its attempts, each in a process of its own if its wait is long enough.
async fn kill_between_attempts(rig: &Rig, (sequence, kind): (u64, Poison), random: &mut Random, broken: bool) -> Result<()> {
    let kept = rig.folder.join("kept");
    let begun = |rig: &Rig| attempts(rig).ok().and_then(|runs| runs.get(&sequence).map(Vec::len)).unwrap_or(0);
    let mut round = 0;
    while if broken { round < BROKEN_ROUNDS } else { begun(rig) < ATTEMPTS as usize } {
        let before = begun(rig);
        let mut running = rig.start()?;
        if !running.until("the next attempt", |rig| begun(rig) > before).await? {
            bail!("the child ended before the next attempt: {}", rig.last_words());
        }
        let is_last = begun(rig) >= ATTEMPTS as usize;
        let failed_by = match (is_last, random.within(0..2)) {
            (true, _) => GIVEN_UP_BY,
            (_, 0) => random.below(FAILED_BY),
            _ => FAILED_BY,
        };
        let limit = match kind {
            Poison::Abort | Poison::Memory => STUCK,
            Poison::Hang => TIMEOUT + failed_by,
            _ => failed_by,
        };
        if running.wait(limit).await?.is_none() {
            running.kill().await?;
        }
        // The broker alone, too, is opened and killed in between.
        let mut running = rig.start_with(&Job { dispatch: false, roots: 0, ..rig.job.clone() })?;
        if !running.until_open().await? {
            bail!("the broker alone did not open: {}", rig.last_words());
        }
        running.kill().await?;
        if broken {
            // What a counter in memory comes to: after each kill it is where it was.
            let (from, to) = if round == 0 { (&rig.job.journal, &kept) } else { (&kept, &rig.job.journal) };
            copy(from, to)?;
        }
        round += 1;
    }
    Ok(())
}

/// Compares what comes through with and without poison, when nothing is killed.
async fn healthy(setting: &Setting, finding: &mut Finding) -> Result<()> {
    let time = Duration::from_secs(setting.pick(3, 15));
    let (clean, poisoned) = (rate(setting, false, time).await?, rate(setting, true, time).await?);
    finding.seen += &format!("; healthy messages at the sink: {clean}/s without poison, {poisoned}/s with one in {EACH}");
    // Measured for moments on a machine with other work, so the short tier only sees that they go on.
    let kept = setting.pick(50, 80);
    finding.require(poisoned * 100 >= clean * kept, || format!("healthy messages fell from {clean}/s to {poisoned}/s"));
    Ok(())
}

/// Messages a second at the sink.
async fn rate(setting: &Setting, poisoned: bool, time: Duration) -> Result<u64> {
    let mut rig = Rig::new(&setting.folder.join("healthy"), None)?;
    rig.job.attempts_right = ATTEMPTS;
    rig.job.timeout_ms = TIMEOUT.as_millis() as u64;
    rig.job.orders.permanent_each = 0;
    rig.job.orders.retry_after_ms = TIMEOUT.as_millis() as u64;
    if poisoned {
        let kinds = [Poison::Error, Poison::Panic, Poison::Hang].into_iter().cycle();
        rig.job.orders.poison = kinds.zip(1..POISONED).map(|(kind, number): (_, u64)| (number * EACH, kind)).collect();
    }
    let mut running = rig.start()?;
    running.until_open().await?;
    // Until the first poisonous ones have used up their attempts, all is quicker than it stays.
    running.wait(TIMEOUT * 2 * ATTEMPTS).await?;
    let before = rig.count(log::OBSERVED);
    if let Some(status) = running.wait(time).await? {
        bail!("the child ended with {status}: {}", rig.last_words());
    }
    let count = rig.count(log::OBSERVED) - before;
    running.kill().await?;
    Ok(count / time.as_secs())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// One attempt as it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    process: u64,
}

/// What is wrong with how a message that fails in this way was handled: its attempts, and its dead letter.
pub(super) type Inexact = fn(Poison, &[Attempt], Option<&Dead>) -> Option<String>;

/// How many poisonous messages were given up after exactly their attempts, and what is wrong with the others.
pub(super) fn exact(rig: &Rig, inexact: Inexact) -> Result<(u64, Vec<String>)> {
    let runs = attempts(rig)?;
    let letters: BTreeMap<u64, Dead> =
        rig.end()?.into_iter().flat_map(|end| end.dead).map(|letter| (letter.sequence, letter)).collect();
    let mut objections = Vec::new();
    for (sequence, kind) in &rig.job.orders.poison {
        let wrong = inexact(*kind, runs.get(sequence).map_or(&[], Vec::as_slice), letters.get(sequence));
        objections.extend(wrong.map(|wrong| format!("{kind:?} (root {sequence}): {wrong}")));
    }
    Ok((rig.job.orders.poison.len() as u64 - objections.len() as u64, objections))
}

/// How many pairs of attempts were made by two processes.
pub(super) fn apart(rig: &Rig) -> Result<u64> {
    let pairs = |runs: &Vec<Attempt>| runs.windows(2).filter(|pair| pair[0].process != pair[1].process).count() as u64;
    Ok(attempts(rig)?.values().map(pairs).sum())
}

/// The attempts at each poisonous message.
pub(super) fn attempts(rig: &Rig) -> Result<BTreeMap<u64, Vec<Attempt>>> {
    let mut runs: BTreeMap<u64, Vec<Attempt>> = BTreeMap::new();
    for line in log::read(&rig.folder, log::ATTEMPTS)? {
        if let [_, sequence, number, _, process] = line.as_slice() {
            runs.entry(sequence.parse()?).or_default().push(Attempt { number: number.parse()?, process: process.parse()? });
        }
    }
    Ok(runs)
}

/// What is wrong with how a poisonous message was handled.
fn inexact(kind: Poison, runs: &[Attempt], letter: Option<&Dead>) -> Option<String> {
    if !runs.iter().map(|run| run.number).eq(1..=ATTEMPTS) {
        return Some(format!("its attempts were {runs:?}"));
    }
    wrong_letter(kind.cause(), letter)
}

/// The same where a process may be killed after a second or third attempt was noted and before it began: such an attempt counts and is in no log. One between two others has to be explained
/// by a process behind it; behind the last one there is only the dead letter, which must say that a process died.
pub(super) fn inexact_with_cuts(kind: Poison, runs: &[Attempt], letter: Option<&Dead>) -> Option<String> {
    let is_explained = |pair: &[Attempt]| match pair[1].number.checked_sub(pair[0].number) {
        Some(1) => true,
        Some(2..) => pair[0].process != pair[1].process,
        _ => false,
    };
    let last = runs.last().map_or(0, |run| run.number);
    if last > ATTEMPTS || runs.first().is_none_or(|first| first.number != 1) || !runs.windows(2).all(is_explained) {
        return Some(format!("its attempts were {runs:?}"));
    }
    wrong_letter(if last < ATTEMPTS { Poison::Abort.cause() } else { kind.cause() }, letter)
}

fn wrong_letter(cause: &str, letter: Option<&Dead>) -> Option<String> {
    let Some(letter) = letter else { return Some("it is no dead letter".to_owned()) };
    let told = (letter.attempts, letter.cause.as_str());
    (told != (ATTEMPTS, cause)).then(|| format!("its dead letter tells of {} attempts and `{}`", told.0, told.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_number_of_attempts_will_do() {
        let letter = |attempts, cause: &str| Dead { edge: String::new(), sequence: 1, cause: cause.to_owned(), attempts };
        let (good, died) = (Some(letter(3, "panic")), Some(letter(3, "worker-died")));
        // Attempts, each with its process; the letter; whether that is exact, and whether it is where attempts may be cut off before they begin.
        type Case<'a> = (&'a [(u32, u64)], &'a Option<Dead>, bool, bool);
        let cases: [Case<'_>; 13] = [
            (&[(1, 1), (2, 1), (3, 2)], &good, true, true),
            (&[(1, 1), (2, 2)], &good, false, false),
            (&[(1, 1), (2, 2)], &died, false, true),
            (&[(1, 1), (3, 2)], &good, false, true),
            (&[(1, 1), (3, 1)], &good, false, false),
            (&[], &died, false, false),
            (&[(3, 1)], &good, false, false),
            (&[(2, 1), (3, 2)], &good, false, false),
            (&[(1, 1), (2, 1), (3, 1), (4, 1)], &good, false, false),
            (&[(1, 1), (1, 2), (2, 2), (3, 3)], &good, false, false),
            (&[(1, 1), (2, 1), (3, 2)], &None, false, false),
            (&[(1, 1), (2, 1), (3, 2)], &Some(letter(2, "panic")), false, false),
            (&[(1, 1), (2, 1), (3, 2)], &died, false, false),
        ];
        for (runs, letter, is_exact, with_cuts) in cases {
            let attempts: Vec<Attempt> =
                runs.iter().map(|(number, process)| Attempt { number: *number, process: *process }).collect();
            let found: [Inexact; 2] = [inexact, inexact_with_cuts];
            let found = found.map(|inexact| inexact(Poison::Panic, &attempts, letter.as_ref()).is_none());
            assert_eq!(found, [is_exact, with_cuts], "{runs:?} {letter:?}");
        }
    }
}
