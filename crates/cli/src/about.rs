//! Commands that tell about leat itself: explanations, completions, manual pages, version.

use crate::{
    args::{Completions, Explain, Leat, Man, Output, Version},
    exit::{Code, Doing, Failure, Result, say, write_out},
};
use clap::CommandFactory;

/// `leat explain`.
pub(crate) fn explain(args: &Explain) -> Result {
    let Some(code) = args.code.as_deref().filter(|_| !args.list) else {
        for info in leatworks_topology::codes() {
            say!("{}  {}", info.code, info.title);
        }
        return Ok(());
    };
    let code = code.to_ascii_uppercase();
    let text = leatworks_topology::explain(&code).ok_or_else(|| {
        Failure::new(Code::Nothing, format!("there is no diagnostic `{code}`; `leat explain --list` lists them"))
    })?;
    say!("{}", text.trim_end());
    Ok(())
}

/// `leat completions`.
pub(crate) fn completions(args: &Completions) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Leat::command(), "leat", &mut script);
    write_out(&script);
}

/// `leat man`.
pub(crate) fn man(args: &Man) -> Result {
    let mut command = Leat::command();
    command.build();
    match &args.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).doing(|| "writing the manual page".to_owned())?;
            write_out(&page);
            Ok(())
        }
        Some(dir) => {
            std::fs::create_dir_all(dir).doing(|| format!("making `{}`", dir.display()))?;
            clap_mangen::generate_to(command, dir).doing(|| format!("writing manual pages into `{}`", dir.display()))
        }
    }
}

/// `leat version`.
pub(crate) fn version(args: &Version) {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Output::Table => say!("leat {version}"),
        Output::Json => {
            let value = serde_json::json!({ "schema": "leat.version/v1", "version": version, "rust_version": env!("CARGO_PKG_RUST_VERSION") });
            say!("{value}");
        }
    }
}

/// The reference page of the command line, from the same definitions that parse it.
#[cfg(test)]
pub(crate) fn reference_markdown() -> String {
    let mut page = String::from(
        "# Command line\n\nThis page is generated from the definitions that parse the command line. Data goes to standard output; progress, warnings and errors go to standard error.\n",
    );
    let mut command = Leat::command().term_width(100);
    command.build();
    section(&command, "leat", &mut page);
    page
}

#[cfg(test)]
fn section(command: &clap::Command, path: &str, page: &mut String) {
    use std::fmt::Write;
    let help = command.clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(page, "\n## `{path}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()).expect("writing to a string succeeds");
    for child in command.get_subcommands() {
        section(child, &format!("{path} {}", child.get_name()), page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Leat::command().debug_assert();
    }

    #[test]
    fn short_help_fits_a_terminal() {
        let help = Leat::command().term_width(80).render_help().to_string();
        assert!(help.lines().count() <= 34, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
        let page = reference_markdown();
        if std::env::var_os("LEAT_BLESS").is_some() {
            std::fs::write(path, &page).expect("the page can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page, "docs/reference/cli.md is stale; run this test with LEAT_BLESS=1 to renew it");
    }

    #[test]
    fn the_diagnostics_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/diagnostics.md");
        let page = leatworks_topology::reference_markdown();
        if std::env::var_os("LEAT_BLESS").is_some() {
            std::fs::write(path, &page).expect("the page can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page, "docs/reference/diagnostics.md is stale; run this test with LEAT_BLESS=1 to renew it");
    }
}
