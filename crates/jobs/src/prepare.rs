//! Lays a message and its files into a folder.

use crate::{
    DATA, IN, Job, JobError, MESSAGE, Store, contract,
    file::{self},
};
use std::{collections::BTreeSet, path::Path};
use tokio::fs;

/// Makes the folders of the file contract below `work`, with the message and its files in them.
///
/// # Errors
/// A permanent failure if a file is missing or not the one that was meant; otherwise one that may pass.
pub async fn prepare(store: &Store, job: &Job, work: &Path) -> Result<(), JobError> {
    let failed = |error| JobError::failed(format!("making the work folder `{}`: {error}", work.display()));
    contract::make_folders(work).map_err(failed)?;
    let mut seen = BTreeSet::new();
    for file in &job.files {
        let path = file::relative(&file.path)?;
        if !seen.insert(&file.path) {
            return Err(JobError::permanent(format!("the message has two files of the name `{}`", file.path)));
        }
        let to = work.join(IN).join(DATA).join(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).await.map_err(failed)?;
        }
        store.get_file(file, &to).await?;
    }
    let message = serde_json::to_vec_pretty(&contract::message(job)).map_err(JobError::permanent)?;
    fs::write(work.join(IN).join(MESSAGE), message).await.map_err(failed)
}
