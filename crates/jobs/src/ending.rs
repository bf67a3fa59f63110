//! How the end of a worker is told, whoever has run it.

use crate::{JobError, Spec};

/// What a worker has said last, as it stands behind the text of a failure.
pub(crate) fn said(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(": {last}") }
}

/// A worker that ended by itself, and not well.
pub(crate) fn by_exit_code(spec: &Spec, code: i32, last: &str) -> JobError {
    let said = said(last);
    if spec.permanent.iter().any(|permanent| i32::from(*permanent) == code) {
        return JobError::permanent(format!("the worker ended with exit code {code}, which is declared permanent{said}"));
    }
    JobError::failed(format!("the worker ended with exit code {code}{said}"))
}
