//! From text to a [`Project`](crate::Project): the list of passes.

use crate::diagnostics::{CodeInfo, Diagnostic, Reports};
use crate::{Diagnostics, Project, Sources};

const NOT_READ: CodeInfo = CodeInfo { code: "LW0201", title: "a project file cannot be read", explanation: "", example: "" };

pub(crate) fn compile(sources: &dyn Sources) -> Result<Project, Diagnostics> {
    let mut reports = Reports::default();
    let message = match sources.read("Project.toml") {
        Ok(_) => "the passes are not in place yet".to_owned(),
        Err(error) => error.to_string(),
    };
    reports.push(Diagnostic::new(&NOT_READ, message));
    Err(reports.finish().expect("one was pushed"))
}
