//! `leat broker verify`: looks through a journal for damage.

use crate::{
    args::{BrokerVerify, Global, Output},
    exit::{Code, Doing, Failure, Result, say},
    project,
};
use leatworks::config::Flags;
use leatworks_broker::{RealFileSystem, Report, verify};
use serde_json::json;
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

/// The name of the file that the owner of a journal has locked; it holds the owner's process id.
const LOCK_FILE: &str = "lock";

/// `leat broker verify`: reads everything, changes nothing.
pub(super) fn run(args: &BrokerVerify, global: &Global, color: bool) -> Result {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => project_journal(args, global, color)?,
    };
    let fs = RealFileSystem::existing(&dir).doing(|| format!("opening journal `{}`", dir.display()))?;
    let _alone = lock(&dir)?;
    if !is_journal(&dir).doing(|| format!("listing `{}`", dir.display()))? {
        let below = dir.join("journal");
        let hint = if below.is_dir() { format!("; there is one in `{}`", below.display()) } else { String::new() };
        let text = format!("`{}` holds no journal: neither a segment nor a checkpoint is there{hint}", dir.display());
        return Err(Failure::new(Code::Invalid, text));
    }
    let report = verify(&fs).map_err(|error| Failure::new(Code::Internal, format!("journal `{}`: {error}", dir.display())))?;
    match args.output {
        Output::Json => print_json(&dir, &report),
        Output::Table => print_table(&dir, &report),
    }
    match report.damages.is_empty() {
        true => Ok(()),
        false => Err(Failure::reported(Code::Different)),
    }
}

fn project_journal(args: &BrokerVerify, global: &Global, color: bool) -> Result<PathBuf> {
    let found = project::load(global, color)?;
    let flags = Flags { data: args.data.data.clone(), ..Flags::default() };
    Ok(found.config(flags)?.journal())
}

/// Whether there is anything in the folder that only a journal has. Without that nothing could be damaged, whatever the folder is.
fn is_journal(dir: &Path) -> std::io::Result<bool> {
    for entry in dir.read_dir()? {
        let name = entry?.file_name();
        if ["segment-", "checkpoint-"].iter().any(|begin| name.as_encoded_bytes().starts_with(begin.as_bytes())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the lock of the journal's owner, so that nobody writes while it is read; `None` if there never was an owner.
fn lock(dir: &Path) -> Result<Option<File>> {
    let path = dir.join(LOCK_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let file = File::open(&path).doing(|| format!("opening `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let owner = std::fs::read_to_string(&path).unwrap_or_default();
            let owner = if owner.trim().is_empty() { "another process".to_owned() } else { format!("process {}", owner.trim()) };
            let text = format!("journal `{}` is in use by {owner}, which may be writing: end it first", dir.display());
            Err(Failure::new(Code::Conflict, text))
        }
        Err(TryLockError::Error(error)) => Err(error).doing(|| format!("locking `{}`", path.display())),
    }
}

fn print_table(dir: &Path, report: &Report) {
    say!("journal {}", dir.display());
    say!("  segments     {}, and {} spare", report.segments, report.spares);
    say!("  checkpoints  {}", report.checkpoints);
    say!("  records      {} with {} bytes, the last is {}", report.records, report.record_bytes, report.last_sequence);
    say!("  on disk      {} bytes", report.file_bytes);
    if let Some((file, offset)) = &report.torn {
        say!("  interrupted  `{file}` at byte {offset}: a crash came while records were written that were not durable yet");
    }
    for damage in &report.damages {
        let lost = match damage.lost {
            Some((first, Some(last))) if first == last => format!("record {first}: "),
            Some((first, Some(last))) => format!("records {first} to {last}: "),
            Some((first, None)) => format!("record {first} and what followed: "),
            None => String::new(),
        };
        say!("  damaged      `{}` at byte {}: {lost}{}", damage.file, damage.offset, damage.reason);
    }
    match report.damages.len() {
        0 => say!("  sound"),
        count => say!("  {count} damaged places"),
    }
}

fn print_json(dir: &Path, report: &Report) {
    let damages = report.damages.iter().map(|damage| {
        let (first, last) = damage.lost.map_or((None, None), |(first, last)| (Some(first), last));
        let lost = first.map(|first| json!({"first": first, "last": last}));
        json!({"file": damage.file, "offset": damage.offset, "lost": lost, "reason": damage.reason})
    });
    let torn = report.torn.as_ref().map(|(file, offset)| json!({"file": file, "offset": offset}));
    say!(
        "{}",
        json!({
            "journal": dir,
            "sound": report.damages.is_empty(),
            "segments": report.segments,
            "spares": report.spares,
            "checkpoints": report.checkpoints,
            "records": report.records,
            "record_bytes": report.record_bytes,
            "file_bytes": report.file_bytes,
            "last_sequence": report.last_sequence,
            "interrupted": torn,
            "damages": damages.collect::<Vec<_>>(),
        })
    );
}
