//! `report`: the parts of the three counts become one report, as JSON and as text.

use super::{MalformedCount, MinuteCounts, Part, PathCounts, Tally};
use leatworks::{Context, Fold, Setup, TaskError};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

/// How many paths and minutes the text shows.
const ROWS_MAX: usize = 10;

/// Writes `report.json` and `report.txt`.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// The folder; by default `report` in the data directory.
    #[serde(default)]
    folder: Option<PathBuf>,
}

/// The report. `lines` is `page + asset + error + malformed`: every line is in exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportDocument {
    /// All lines.
    pub lines: u64,
    /// Hits on pages.
    pub page: u64,
    /// Hits on assets.
    pub asset: u64,
    /// Answers with a status of 400 or more.
    pub error: u64,
    /// Lines that cannot be read.
    pub malformed: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Hits by minute.
    pub by_minute: MinuteCounts,
    /// Hits by path.
    pub by_path: PathCounts,
    /// More about the lines that cannot be read.
    pub malformed_lines: MalformedCount,
}

impl Fold for Report {
    type In = Part;
    type Out = ();
    type State = ReportDocument;

    async fn start(&mut self, setup: &Setup) -> Result<(), TaskError> {
        setup.results_at(self.folder.get_or_insert_with(|| setup.data().join("report")).as_path());
        Ok(())
    }

    fn fold(&self, report: &mut ReportDocument, part: Part, _cx: &Context) -> Result<(), TaskError> {
        match part {
            Part::Minutes(minutes) => report.by_minute = minutes,
            Part::Paths(paths) => report.by_path = paths,
            Part::Malformed(malformed) => report.malformed_lines = malformed,
        }
        Ok(())
    }

    async fn finish(&self, report: ReportDocument, _cx: &Context) -> Result<(), TaskError> {
        let report = report.summed().map_err(TaskError::permanent)?;
        let folder = self.folder.clone().unwrap_or_else(|| "report".into());
        tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            replace(&folder.join("report.json"), &serde_json::to_vec_pretty(&report)?)?;
            replace(&folder.join("report.txt"), report.text().as_bytes())
        })
        .await??;
        Ok(())
    }
}

/// Writes a file that is there whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, bytes)?;
    std::fs::rename(draft, path)
}

impl ReportDocument {
    /// Adds up the parts. Both ways of counting must have seen the same hits.
    fn summed(mut self) -> Result<Self, String> {
        let by_minute = sum(self.by_minute.minutes.values().chain([&self.by_minute.others]));
        let by_path = sum(self.by_path.paths.values().chain([&self.by_path.others]));
        if by_minute != by_path {
            return Err(format!("counted by minute there are {} hits, by path {}", by_minute.hits(), by_path.hits()));
        }
        (self.page, self.asset, self.error, self.bytes) = (by_minute.page, by_minute.asset, by_minute.error, by_minute.bytes);
        self.malformed = self.malformed_lines.lines;
        self.lines = by_minute.hits() + self.malformed;
        Ok(self)
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} lines = {} page + {} asset + {} error + {} malformed; {} bytes sent\n",
            self.lines, self.page, self.asset, self.error, self.malformed, self.bytes
        );
        let paths = most(self.by_path.paths.iter().map(|(path, tally)| (tally.hits(), path.escape_debug().to_string())));
        let minutes = most(self.by_minute.minutes.iter().map(|(minute, tally)| (tally.hits(), minute.clone())));
        let reasons = self.malformed_lines.reasons.iter().map(|(reason, count)| (*count, reason.clone())).collect();
        for (heading, rows) in [
            (format!("{} paths, the busiest:", self.by_path.paths.len()), paths),
            (format!("{} minutes, the busiest:", self.by_minute.minutes.len()), minutes),
            (format!("{} malformed lines:", self.malformed), reasons),
        ] {
            // Writing to a string does not fail.
            let _ = writeln!(text, "\n{heading}");
            for (count, name) in rows {
                let _ = writeln!(text, "{count:>10}  {name}");
            }
        }
        text
    }
}

fn sum<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Tally {
    tallies.fold(Tally::default(), |sum, tally| Tally {
        page: sum.page + tally.page,
        asset: sum.asset + tally.asset,
        error: sum.error + tally.error,
        bytes: sum.bytes.saturating_add(tally.bytes),
    })
}

/// The rows with the highest counts; equal ones in the order of their names.
fn most(rows: impl Iterator<Item = (u64, String)>) -> Vec<(u64, String)> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    rows.truncate(ROWS_MAX);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn parts() -> [Part; 3] {
        let tally = Tally { page: 2, asset: 1, error: 1, bytes: 40 };
        let malformed =
            MalformedCount { lines: 3, reasons: BTreeMap::from([("empty line".to_owned(), 3)]), samples: BTreeMap::new() };
        [
            Part::Minutes(MinuteCounts {
                minutes: BTreeMap::from([("2000-10-10T20:55:00Z".to_owned(), tally)]),
                others: Tally::default(),
            }),
            Part::Paths(PathCounts { paths: BTreeMap::from([("/\u{202e}".to_owned(), tally)]), others: Tally::default() }),
            Part::Malformed(malformed),
        ]
    }

    #[tokio::test]
    async fn the_report_adds_up_in_both_forms() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let task = Report { folder: Some(folder.path().join("deep")) };
        let mut state = ReportDocument::default();
        for part in parts() {
            task.fold(&mut state, part, &Context::detached()).expect("taken in");
        }
        for _ in ["first", "repeated"] {
            task.finish(state.clone(), &Context::detached()).await.expect("written");
        }
        let read = |file| std::fs::read_to_string(folder.path().join("deep").join(file)).expect(file);
        let report: ReportDocument = serde_json::from_str(&read("report.json")).expect("JSON");
        assert_eq!(report.lines, report.page + report.asset + report.error + report.malformed);
        assert_eq!((report.lines, report.malformed, report.bytes), (7, 3, 40));
        let text = read("report.txt");
        assert!(text.starts_with("7 lines = 2 page + 1 asset + 1 error + 3 malformed; 40 bytes sent\n"), "{text}");
        assert!(
            text.contains("         4  /\\u{202e}\n")
                && text.contains("\n\n1 minutes, the busiest:\n         4  2000-10-10T20:55:00Z\n"),
            "{text}"
        );
    }

    #[test]
    fn counts_that_differ_are_no_report() {
        let mut report = ReportDocument::default();
        report.by_path.others.page = 1;
        assert!(report.summed().is_err());
    }
}
