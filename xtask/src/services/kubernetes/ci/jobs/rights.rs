//! What runs jobs needs each of its rights: with one of them taken away it says which one it lacks, and when it has it again nothing is lost for it.

use super::{
    super::{
        NAMESPACE, answer, apply,
        chart::RELEASE,
        rights::{bare, plain, rights, until_taken, without},
    },
    TOPOLOGY, kept,
    rig::Rig,
};
use crate::services::wait_every;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// How many books there are for it, of one chapter each.
pub(super) const BOOKS: usize = 8;

/// What comes of such a book: itself, and its chapter.
const MESSAGES: usize = 2;

/// How long something may take: a Job to be begun and seen through, or a lack to be said.
const STEP_LIMIT: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The name of such a book.
pub(super) fn book(number: usize) -> String {
    format!("right{number}")
}

/// Takes away one right after another, and sends a book each time.
pub(super) fn each_is_needed(mut rig: Rig<'_>) -> Result<()> {
    let cluster = rig.site.cluster;
    let account = format!("{RELEASE}-jobs");
    let role = answer(&mut rig.site.kubectl(&["get", "role", &account, "--output=json"]))?;
    let rights = rights(std::slice::from_ref(&role))?;
    ensure!((1..=BOOKS).contains(&rights.len()), "{} rights, and {BOOKS} books for them", rights.len());
    for (number, right) in rights.iter().enumerate() {
        let done = kept::commits(rig.files.folder())?;
        apply(cluster, &without(&role, right))?;
        until_taken(cluster, NAMESPACE, &account, right)?;
        rig.send(&book(number))?;
        let complains = wait_every(LOOK_AGAIN, "a complaint", STEP_LIMIT, || {
            let selector = format!("--selector=app.kubernetes.io/component=worker,leatworks.dev/topology={TOPOLOGY}");
            let said = rig.site.kubectl(&["logs", &selector, "--tail=-1"]).output().context("starting kubectl")?;
            Ok(plain(&String::from_utf8_lossy(&said.stdout)).contains(&right.complaint()).then_some(()))
        });
        apply(cluster, &bare(&role, role["rules"].clone()))?;
        complains.with_context(|| format!("without {right:?}"))?;
        wait_every(LOOK_AGAIN, "what waited for a right", STEP_LIMIT, || {
            Ok((kept::commits(rig.files.folder())? == done + MESSAGES).then_some(()))
        })
        .with_context(|| format!("with {right:?} again"))?;
    }
    let messages = kept::messages(rig.files.folder())?;
    for message in messages.iter().filter(|one| rights.iter().enumerate().any(|(number, _)| one.book == book(number))) {
        let jobs = rig.made_of(&message.step)?;
        ensure!(jobs == [1], "the {} of {} has Jobs of the attempts {jobs:?}", message.task, message.book);
    }
    let left = rig.left()?;
    ensure!(left == 0, "{left} Jobs and pods are left");
    println!(
        "{TOPOLOGY}: each of the {} rights of what runs jobs is needed, what it lacks without it is said, and no message is lost for it",
        rights.len()
    );
    Ok(())
}
