//! R3: the power of the disk is cut under load. What was acknowledged is there afterwards, and with the sync switched off it is not.

use super::{
    Finding, Setting,
    disk::Mounted,
    log::{self, Log},
    lying::Lie,
    random::Random,
    rig::Rig,
};
use anyhow::Result;
use leatworks_broker::{Durability, STORAGE_EXIT_CODE};
use std::{path::Path, time::Duration};

/// How long after its cut the process may go on before it has noticed: some commit groups, on a machine with other work.
const NOTICED_MAX: Duration = Duration::from_secs(5);

/// Batches that are acknowledged before a cut, at most.
const BATCHES_MAX: u64 = 200;

/// How long after that the cut comes at most.
const LATER_MAX: Duration = Duration::from_millis(20);

/// Cuts of each run without a sync. One is enough as a rule; the disk may have written by itself what was cut.
const TOOTHLESS_CUTS: u64 = 3;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let cuts = setting.pick(10, 300);
    if setting.teeth {
        return Ok(cut(setting, &setting.folder, TOOTHLESS_CUTS, |rig| rig.job.lie = Some(Lie::NeverSyncs)).await?.0);
    }
    let (mut finding, _) = cut(setting, &setting.folder, cuts, |_| {}).await?;
    // The same run must lose without its sync, or the cut is none.
    let level = |rig: &mut Rig| rig.job.durability = Durability::Process.name().to_owned();
    let lying = |rig: &mut Rig| rig.job.lie = Some(Lie::NeverSyncs);
    let (_, lost_by_level) = cut(setting, &setting.folder.join("level"), TOOTHLESS_CUTS, level).await?;
    let (_, lost_by_lie) = cut(setting, &setting.folder.join("lie"), TOOTHLESS_CUTS, lying).await?;
    finding.seen += &format!(
        "; the same with the sync switched off, {TOOTHLESS_CUTS} cuts each: {lost_by_level} lost at level `process`, {lost_by_lie} on a disk that says it has synced"
    );
    for (lost, how) in [(lost_by_level, "level `process`"), (lost_by_lie, "a disk that lies")] {
        finding.require(lost > 0, || format!("the run without teeth lost nothing by {how}: these cuts prove nothing"));
    }
    Ok(finding)
}

/// Cuts the power again and again. Gives what was lost beside what was found.
async fn cut(setting: &Setting, folder: &Path, cuts: u64, change: impl Fn(&mut Rig)) -> Result<(Finding, u64)> {
    let mut rig = Rig::new(folder, Some(&folder.join("disk/journal")))?;
    let mut disk = Mounted::ext4(folder)?;
    change(&mut rig);
    let mut random = Random::new(setting.seed, "R3");
    let mut finding = Finding::default();
    let (mut landed, mut noticed) = (0, 0);
    for _ in 0..cuts {
        let mut running = rig.start()?;
        let goal = rig.acked() + random.within(1..BATCHES_MAX) * rig.job.batch;
        let going = running.until_open().await? && running.until("progress", |rig| rig.acked() >= goal).await?;
        if !going || running.wait(random.below(LATER_MAX)).await?.is_some() {
            finding.objections.push(format!("the child ended by itself: {}", rig.last_words()));
            break;
        }
        let cut_ms = disk.cut()?;
        for name in [log::ACKED, log::OBSERVED] {
            Log::open(folder, name)?.append(&format!("x {cut_ms}"));
        }
        match running.wait(NOTICED_MAX).await? {
            Some(status) => noticed += u64::from(status.code() == Some(i32::from(STORAGE_EXIT_CODE))),
            None => running.kill().await?,
        }
        landed += 1;
        disk.restart()?;
    }
    rig.job.roots = rig.acked();
    rig.drain().await?;
    let verdict = rig.judge_power(cuts)?;
    finding.seen = format!(
        "{landed} cuts under load, after {noticed} of which the process ended with {STORAGE_EXIT_CODE} by itself; {}",
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding.require(landed == cuts, || format!("only {landed} of {cuts} cuts landed"));
    finding.require(verdict.acked >= cuts * 100, || format!("only {} roots were acknowledged", verdict.acked));
    Ok((finding, verdict.lost))
}
