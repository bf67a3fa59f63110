//! R2: the process is killed as it enters a system call that changes the disk, one call after the other.

use super::{Finding, Setting, disk::Memory, log, oracle::Verdict, random::Random, rig::Rig};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    time::{Duration, Instant},
};

/// The calls by which the journal changes its disk.
const CALLS: [&str; 6] = ["pwrite64", "fdatasync", "fsync", "rename", "unlink", "fallocate"];

/// Places to be killed at, in all, and those that the few of the short tier are taken from.
const PLACES_MAX: usize = 3_000;
const PLACES_SHORT: usize = 1_000;

/// How long a run may take to come to its call: so many times as long as the one that counted them all, and a start.
const REACHED_TIMES: u32 = 3;
const START_MAX: Duration = Duration::from_secs(2);

/// Kills after which the oracle judges and a new journal is begun, so that its logs stay small.
const KILLS_EACH: usize = 100;

/// One place to be killed at: a call, and how often one thread has entered it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    call: &'static str,
    nth: u64,
}

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let memory = Memory::new("r02")?;
    let kills = setting.pick(24, PLACES_MAX);
    let (counted, reached_max) = count(setting, &memory).await?;
    let places = plan(&counted, kills, &mut Random::new(setting.seed, "R2"));
    let mut finding = Finding::default();
    let mut sum = Verdict::default();
    let mut landed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut in_flight = 0;
    let mut missed = Vec::new();
    for places in places.chunks(KILLS_EACH) {
        let mut rig = rig(setting, &memory)?;
        for place in places {
            match kill_at(&mut rig, *place, reached_max).await? {
                true => *landed.entry(place.call).or_default() += 1,
                false => missed.push(*place),
            }
        }
        in_flight += end(&mut rig, places.len(), &mut finding, &mut sum).await?;
    }
    // A journal that is older makes fewer files, since it uses those again that are there: once more where the calls were counted, in one that has just been made.
    for place in missed {
        let mut rig = rig(setting, &memory)?;
        open_once(&rig).await?;
        if kill_at(&mut rig, place, reached_max).await? {
            *landed.entry(place.call).or_default() += 1;
        }
        in_flight += end(&mut rig, 1, &mut finding, &mut sum).await?;
    }
    let (total, tried) = (landed.values().sum::<usize>(), places.len());
    let calls: Vec<String> = landed.iter().map(|(call, count)| format!("{count} at {call}")).collect();
    finding.seen = format!(
        "{total} of {tried} kills landed ({}), {in_flight} openings found messages in flight, all openings were clean; {}",
        calls.join(", "),
        sum.figures()
    );
    finding.require(total * 100 >= tried * 90, || format!("only {total} of {tried} kills landed"));
    finding.require(in_flight * 2 >= total, || format!("only {in_flight} of {total} kills hit messages in flight"));
    Ok(finding)
}

/// Lets everything come to its end, and judges it. Gives how many openings have found messages in flight.
async fn end(rig: &mut Rig, kills: usize, finding: &mut Finding, sum: &mut Verdict) -> Result<usize> {
    rig.wrapper.clear();
    rig.job.roots = rig.acked();
    rig.drain().await?;
    let openings = log::read(&rig.folder, log::OPENED)?;
    let verdict = rig.judge(kills as u64)?;
    finding.objections.extend(verdict.objections());
    sum.add(&verdict);
    Ok(openings.iter().filter(|line| line.get(4).is_some_and(|count| count != "0")).count())
}

/// Makes the journal, and ends the process that has made it.
async fn open_once(rig: &Rig) -> Result<()> {
    let mut running = rig.start()?;
    running.until_open().await?;
    running.kill().await
}

fn rig(setting: &Setting, memory: &Memory) -> Result<Rig> {
    let journal = memory.path().join("journal");
    if journal.exists() {
        fs::remove_dir_all(&journal)?;
    }
    let mut rig = Rig::new(&setting.folder, Some(&journal))?;
    // Small groups, so that there are many calls, and small segments, so that they are of all kinds.
    (rig.job.batch, rig.job.window) = (2, 32);
    (rig.job.segment_bytes, rig.job.checkpoint_bytes) = (64 << 10, 64 << 10);
    Ok(rig)
}

fn wrap(rig: &mut Rig, more: &[&str]) {
    let calls = format!("trace={}", CALLS.join(","));
    // Not with `--seccomp-bpf`, which would be quicker: strace 6.1 sends no signal then.
    let words = ["strace", "-f", "-q", "-e", &calls];
    rig.wrapper = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
}

/// How often each call comes among the first ones, by the thread that makes most of them, and how long a run may take to come to one of them.
async fn count(setting: &Setting, memory: &Memory) -> Result<(BTreeMap<&'static str, u64>, Duration)> {
    let mut rig = rig(setting, memory)?;
    // What is counted is a process that finds a journal, as all but one of those do that are killed.
    open_once(&rig).await?;
    let began = Instant::now();
    let trace = rig.folder.join("trace");
    wrap(&mut rig, &["-o", &trace.display().to_string()]);
    let mut running = rig.start()?;
    // Calls of other threads than the one that makes most cannot be told apart by their number, so there are more calls than places.
    let places = |trace: &Path| fs::read_to_string(trace).map_or(0, |text| counted(&text).values().sum::<u64>());
    let wanted = setting.pick(PLACES_SHORT, PLACES_MAX) as u64;
    while places(&trace) < wanted {
        if running.wait(Duration::from_millis(100)).await?.is_some() {
            bail!("the child that was to be counted ended: {}", rig.last_words());
        }
    }
    running.kill().await?;
    drop(running);
    let reached_max = began.elapsed() * REACHED_TIMES + START_MAX;
    Ok((counted(&fs::read_to_string(&trace).context("reading the trace")?), reached_max))
}

fn counted(trace: &str) -> BTreeMap<&'static str, u64> {
    let mut threads: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let call = CALLS.iter().find(|call| rest.trim_start().strip_prefix(**call).is_some_and(|rest| rest.starts_with('(')));
        if let Some(call) = call {
            *threads.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in threads {
        let most: &mut u64 = most.entry(call).or_default();
        *most = count.max(*most);
    }
    most
}

/// The places of a run: of all that there are so many, the rare calls first, in a random order.
fn plan(counted: &BTreeMap<&'static str, u64>, kills: usize, random: &mut Random) -> Vec<Place> {
    let mut by_rarity: Vec<_> = counted.iter().map(|(call, count)| (*count, *call)).collect();
    by_rarity.sort_unstable();
    let mut places = Vec::new();
    for (index, (count, call)) in by_rarity.iter().enumerate() {
        let share = (kills - places.len()) / (by_rarity.len() - index);
        let mut all: Vec<Place> = (1..=*count).map(|nth| Place { call, nth }).collect();
        shuffle(&mut all, random);
        places.extend(all.into_iter().take(share));
    }
    shuffle(&mut places, random);
    places
}

fn shuffle(places: &mut [Place], random: &mut Random) {
    for index in (1..places.len()).rev() {
        places.swap(index, random.within(0..index as u64 + 1) as usize);
    }
}

/// Runs the child until it is killed there; `false` if it never came there.
async fn kill_at(rig: &mut Rig, place: Place, reached_max: Duration) -> Result<bool> {
    wrap(rig, &["-e", &format!("inject={}:signal=KILL:when={}", place.call, place.nth), "-o", "/dev/null"]);
    let mut running = rig.start()?;
    let Some(status) = running.wait(reached_max).await? else {
        running.kill().await?;
        return Ok(false);
    };
    if status.signal() == Some(9) {
        return Ok(true);
    }
    bail!("the child ended with {status} before call {} of {}: {}", place.nth, place.call, rig.last_words());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_thread_and_rare_ones_are_all_taken() {
        let trace = "7 pwrite64(3, \"\") = 1\n8 pwrite64(3) = 1\n7 pwrite64(3) = 1\n9 rename(\"a\", \"b\") = 0\n9 +++ exited\n9  unlink(\"a\") = 0\n";
        let counts = counted(trace);
        assert_eq!(counts, [("pwrite64", 2), ("rename", 1), ("unlink", 1)].into());
        let places = plan(&[("pwrite64", 1_000), ("rename", 3)].into(), 20, &mut Random::new(1, "test"));
        assert_eq!(places.len(), 20);
        let renames: std::collections::BTreeSet<u64> =
            places.iter().filter(|place| place.call == "rename").map(|place| place.nth).collect();
        assert_eq!(renames, [1, 2, 3].into());
    }
}
