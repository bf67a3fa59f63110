//! Gathers the files of chapters, so that one job can join them.

use leatworks::{Context, Fold, TaskError, jobs::FileRef};
use serde::{Deserialize, Serialize};

/// The most files of one message: its payload must fit into one message of the broker.
const FILES_MAX: usize = 10_000;

/// What came of a chapter: its words, and the file with its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chapter {
    /// How many words it has.
    pub words: u64,
    /// The files that travel with the message, under the key that jobs use.
    #[serde(rename = "leat-files", default)]
    pub files: Vec<FileRef>,
}

/// Adds chapters up to one message with all of their files.
#[derive(Debug, Deserialize)]
pub struct Gather;

impl Fold for Gather {
    type In = Chapter;
    type Out = Chapter;
    type State = Chapter;

    fn fold(&self, all: &mut Chapter, chapter: Chapter, _cx: &Context) -> Result<(), TaskError> {
        if all.files.len() + chapter.files.len() > FILES_MAX {
            return Err(TaskError::permanent(format!("there are more than {FILES_MAX} chapters")));
        }
        all.words += chapter.words;
        all.files.extend(chapter.files);
        Ok(())
    }

    async fn finish(&self, all: Chapter, _cx: &Context) -> Result<Chapter, TaskError> {
        Ok(all)
    }
}
