//! `docs/reliability.md`: a section for each rule and tier, replaced as a whole when that rule is run again.

use super::{
    Finding, Request,
    rules::{RULES, Rule},
};
use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// What stands above the sections.
const HEAD: &str = "\
# Reliability: what was promised, and what was seen

`cargo xtask faults` writes this page. Each rule lets faults of one kind come to a process that runs `start --> left & right --> join --> sink` on the
embedded broker, and an oracle compares three logs that lie outside of the disk that fails: what was invoked, what was acknowledged, what
was observed at the sink. A run counts only if enough operations succeeded and enough faults landed while messages were in flight; one that
did too little has missed its target. `cargo xtask faults --teeth` breaks the product and shows that the oracle then objects.

R8, R9 and those with `pulsar` in their name run on an Apache Pulsar 4.0.8 of their own. They need Java, and Maven to fetch it; they are run when they are named.
Pulsar keeps no account, so that nothing is unaccounted there means only that what was sent is at the sink or a dead letter.

R18 runs on a whole Kubernetes of its own, with a real kubelet, a Pulsar and the chart installed. Its proxy stands between the pods and the API server, so it is the adapters of jobs and the controllers that are
answered with faults; kubelets and the cluster's own controllers are not. A short run has no proxy and no restarts of the API server.

R19 runs on a Kubernetes API server of its own, with its controllers and without nodes: no part asks for pods, since it is the controller that is looked at. It needs root, Go to build the
cluster's programs, and what `.ci/install-cluster-tools` installs; it is run when it is named.

`.ci/install-fault-tools` installs what it needs on Debian; without root, or without one of those tools, a rule says that it was not run.

A rule that is not listed has not been run. The seed gives the same plan of faults again; the moments at which they land differ from run to run.
";

/// How long the disk is measured.
const MEASURE: Duration = Duration::from_secs(1);

/// Puts what a rule has seen on the page.
pub(super) fn write(page: &Path, rule: &Rule, request: &Request, finding: &Finding, time: Duration) -> Result<()> {
    let before = fs::read_to_string(page).unwrap_or_default();
    let mut sections = sections(&before);
    let title = format!("{} {}: {}", rule.name, request.tier.name(), rule.title);
    sections.insert(order(&title), (title, body(rule, request, finding, time)?));
    let all = sections.into_values().map(|(title, body)| format!("\n## {title}\n\n{}\n", body.trim()));
    fs::write(page, HEAD.to_owned() + &all.collect::<String>()).with_context(|| format!("writing {}", page.display()))
}

type Sections = BTreeMap<(usize, String), (String, String)>;

/// The sections of a page, in the order of the rules.
fn sections(page: &str) -> Sections {
    let split = page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
    split.map(|(title, body)| (order(title), (title.to_owned(), body.to_owned()))).collect()
}

/// Where a section stands: by rule and tier, whatever its title says beside.
fn order(title: &str) -> (usize, String) {
    let mut words = title.split([' ', ':']);
    let name = words.next().unwrap_or_default();
    let place = RULES.iter().position(|rule| rule.name == name).unwrap_or(RULES.len());
    (place, format!("{name} {}", words.next().unwrap_or_default()))
}

fn body(rule: &Rule, request: &Request, finding: &Finding, time: Duration) -> Result<String> {
    let result = match finding.objections.as_slice() {
        [] => "passed".to_owned(),
        objections => format!("**missed**: {}", objections.iter().take(8).cloned().collect::<Vec<_>>().join("; ")),
    };
    // Where this checkout lies is nobody's business.
    let here = std::env::current_dir()?.display().to_string();
    let result = result.replace(&format!("{here}/"), "");
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    let repeat =
        format!("cargo run{release} -p xtask -- faults --tier {} --seed {} {}", request.tier.name(), request.seed, rule.name);
    Ok(format!(
        "- Target: {}.\n- Seen: {}.\n- Result: {result}.\n- Run: {} in {:.0} s, commit {}; repeat it by `{repeat}`.\n- Machine: {}.\n",
        rule.target,
        finding.seen,
        word("date", &["-u", "+%Y-%m-%d"]),
        time.as_secs_f64(),
        commit(),
        machine()?,
    ))
}

/// The commit, marked if the tree has changes beyond the page itself.
fn commit() -> String {
    let changed = word("git", &["status", "--porcelain", "--", ":!docs/reliability.md"]);
    format!("{}{}", word("git", &["rev-parse", "--short=12", "HEAD"]), if changed.is_empty() { "" } else { " with changes" })
}

fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(format!("{cores} cores, Linux {}, {:.0} syncs of 4 KiB a second, {build} build", word("uname", &["-r"]), syncs()?))
}

/// What a program says, or nothing.
fn word(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Syncs a second of the disk that the runs lie on: a block is written and synced, in a file that has its size already.
fn syncs() -> Result<f64> {
    let path = Path::new(super::FOLDER).join("syncs");
    fs::create_dir_all(super::FOLDER)?;
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0x5a; 1 << 20], 0)?;
    file.sync_all()?;
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < MEASURE {
        file.write_all_at(&[count as u8; 4096], u64::from(count % 256) * 4096)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_its_own_section_only() {
        let page = "# Head\n\n## R3 pr: old\n\n- three\n\n## R1 nightly: old\n\n- one\n- more\n";
        let mut found = sections(page);
        assert_eq!(found.values().map(|(title, _)| title.as_str()).collect::<Vec<_>>(), ["R1 nightly: old", "R3 pr: old"]);
        let title = "R3 pr: new title".to_owned();
        found.insert(order(&title), (title, "new".to_owned()));
        let bodies: Vec<_> = found.values().map(|(_, body)| body.trim()).collect();
        assert_eq!(bodies, ["- one\n- more", "new"]);
    }
}
