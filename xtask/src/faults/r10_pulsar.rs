//! R10 on a Pulsar service: between every two attempts at a poisonous message both the process with the dispatchers and the Pulsar broker are killed.
//!
//! A second or third attempt is noted in the ledger before it begins, and the note takes one or two syncs of the service. A kill that comes meanwhile cuts the attempt off: it counts, and the task has
//! not seen it.

use super::{
    Finding, Setting,
    memory::Limited,
    r10::{APART, ATTEMPTS, MEMORY_BYTES, RATE, TIMEOUT, apart, attempts, exact, inexact_with_cuts},
    random::Random,
    rig::{Rig, STUCK},
    service,
    workload::Poison,
};
use crate::services::pulsar::Pulsar;
use anyhow::{Result, bail};
use std::time::Duration;

/// Those that fail at the same time, and those that take the process with them or hold it up, one by one.
const TOGETHER: &[Poison] = &[Poison::Error, Poison::Panic, Poison::Hang];
const ALONE: [&[Poison]; 3] = [&[Poison::Abort], &[Poison::Block], &[Poison::Memory]];

/// By chance a message is tried again before the kill. Where too many were, so many rounds come in addition until as many pairs of attempts as asked had a kill between them.
const MORE_ROUNDS: u64 = 2;

/// How long after the attempts have begun the kill comes at most. What hangs has failed by then, so each kill comes before or after a failure is written down.
const FAILED_BY: Duration = Duration::from_millis(600);

/// How long after the last attempt at any message the process lives on, so that its dead letter tells of it and not of the kill, and is there once: a step is not atomic on Pulsar.
const GIVEN_UP_BY: Duration = Duration::from_secs(2);

/// How long the last attempt may let wait for itself, also on a service that is without its bookie for two minutes: less than nothing may go on at all. Where it was cut off, it does not come.
const LAST_BY: Duration = Duration::from_secs(230);

/// One attempt in so many may have been cut off: the kill comes up to 0.6 s after an attempt has begun, of which a note takes some hundredths.
const CUT_PART: u64 = 10;

/// How long a failed message waits at most: longer than the process lives on after an attempt.
const RETRY_AFTER_MS: u64 = 4_000;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (rounds, alone) = setting.pick((1, &ALONE[..1]), (2, &ALONE[..]));
    let limited = Limited::new(MEMORY_BYTES)?;
    let mut server = service::start()?;
    let mut rig = service::rig(&setting.folder, &server, server.port)?;
    rig.wrapper = limited.wrapper();
    rig.job.rate = Some(RATE);
    rig.job.attempts_right = ATTEMPTS;
    rig.job.timeout_ms = TIMEOUT.as_millis() as u64;
    rig.job.orders.permanent_each = 0;
    rig.job.orders.retry_after_ms = RETRY_AFTER_MS;
    let groups: Vec<&[Poison]> = [TOGETHER].into_iter().chain(alone.iter().copied()).collect();
    let each = groups.iter().map(|group| group.len() as u64).sum::<u64>();
    let wanted = rounds * each * u64::from(ATTEMPTS - 1);
    let mut random = Random::new(setting.seed, "R10-pulsar");
    let (mut kills, mut number) = (0, 0);
    for round in 0..rounds + MORE_ROUNDS {
        if round >= rounds && apart(&rig)? * 10 >= wanted * 8 {
            break;
        }
        for group in &groups {
            let now: Vec<_> = group.iter().zip(number + 1..).map(|(kind, number): (_, u64)| (number * APART, *kind)).collect();
            number += group.len() as u64;
            rig.job.orders.poison.extend(now.iter().copied());
            rig.job.roots = number * APART + APART / 2;
            kills += kill_between_attempts(&rig, &mut server, &now, &mut random).await?;
        }
    }
    rig.drain().await?;
    // What was acknowledged in the last second before the service died comes again to a new process, which cannot know it.
    let verdict = rig.judge_power(rig.openings()? - 1)?;
    let mut finding = Finding::default();
    let (good, wrong) = exact(&rig, inexact_with_cuts)?;
    let (total, apart) = (rig.job.orders.poison.len() as u64, apart(&rig)?);
    let pairs = total * u64::from(ATTEMPTS - 1);
    let begun: usize = attempts(&rig)?.values().map(Vec::len).sum();
    let cut = (total * u64::from(ATTEMPTS)).saturating_sub(begun as u64);
    finding.seen = format!(
        "{good} of {total} poisonous messages (error, panic, hang, abort{}) given up after exactly {ATTEMPTS} attempts, of which kills cut {cut} off before they began, {apart} of {pairs} pairs of attempts with a kill of \
         the process and of the broker between them, {kills} kills of the broker; {}",
        setting.pick(String::new(), format!(", block, memory by {}", limited.name())),
        verdict.figures()
    );
    finding.objections = wrong;
    finding.objections.extend(verdict.objections());
    finding.require(cut * CUT_PART <= total * u64::from(ATTEMPTS), || format!("{cut} attempts were cut off before they began"));
    finding.require(apart * 10 >= wanted * 8, || {
        format!("only {apart} pairs of attempts had a kill between them, and {wanted} were to have one")
    });
    Ok(finding)
}

/// Lets messages have their attempts, each in a process and on a broker of its own. Gives how often the broker was killed.
async fn kill_between_attempts(rig: &Rig, server: &mut Pulsar, group: &[(u64, Poison)], random: &mut Random) -> Result<u64> {
    let numbers = |rig: &Rig| {
        let runs = attempts(rig).unwrap_or_default();
        let last = |(sequence, _): &(u64, Poison)| runs.get(sequence).and_then(|runs| runs.last()).map_or(0, |run| run.number);
        group.iter().map(last).collect::<Vec<u32>>()
    };
    let begun = |rig: &Rig| numbers(rig).into_iter().min().unwrap_or(0);
    let lasts = |rig: &Rig| numbers(rig).into_iter().filter(|number| *number == ATTEMPTS).count();
    let mut kills = 0;
    loop {
        let (before, mut given_up) = (begun(rig), lasts(rig));
        let mut running = rig.start()?;
        let next = tokio::time::timeout(LAST_BY, running.until("the next attempts", |rig| begun(rig) > before)).await;
        let Ok(has_come) = next else {
            if before + 1 < ATTEMPTS {
                bail!("stuck: no further attempts after {before} within {LAST_BY:?}: {}", rig.last_words());
            }
            // The oracle sees whether it was given up for a good reason.
            running.kill().await?;
            return Ok(kills);
        };
        if !has_come? {
            bail!("the child ended before the next attempts: {}", rig.last_words());
        }
        let is_last = begun(rig) >= ATTEMPTS;
        let limit = match group {
            [(_, Poison::Abort | Poison::Memory)] => STUCK,
            _ if is_last => Duration::ZERO,
            _ => random.below(FAILED_BY),
        };
        let mut has_ended = running.wait(limit).await?.is_some();
        while !has_ended && lasts(rig) > given_up {
            given_up = lasts(rig);
            has_ended = running.wait(TIMEOUT + GIVEN_UP_BY).await?.is_some();
        }
        if !has_ended {
            running.kill().await?;
        }
        if is_last {
            return Ok(kills);
        }
        server.kill()?;
        kills += 1;
        server.start_again()?;
    }
}
