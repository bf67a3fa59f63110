//! Every code has an explanation, an example that has the error, and a case with its expected rendering.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use leatworks_topology::{CodeInfo, Diagnostics, codes, explain, load, load_from, reference_markdown};

/// A member that has nothing wrong, for examples that are about `Project.toml`.
const MEMBER: &str = "[[topology]]\nname = \"orders\"\ngraph = \"parse --> score\"\n";

const PROJECT: &str = "[project]\nname = \"shop\"\nmembers = [\"member.toml\"]\n";

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topologies/invalid");
    let entries = fs::read_dir(folder).expect("there is a folder of cases");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    cases.sort();
    cases
}

fn code_of(case: &Path) -> String {
    let name = case.file_name().expect("a case has a name").to_string_lossy();
    name.split('-').next().expect("it begins with its code").to_uppercase()
}

fn wrong_with(case: &Path) -> Diagnostics {
    load(case).expect_err(&format!("{} has nothing wrong", case.display()))
}

#[test]
fn renderings_are_as_expected() {
    let bless = std::env::var_os("LEAT_BLESS").is_some();
    let mut differ = Vec::new();
    for case in cases() {
        let rendered = wrong_with(&case).render(false);
        let expected = case.join("expected.stderr");
        if bless {
            fs::write(&expected, rendered).expect("the expectation can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default().replace("\r\n", "\n") != rendered {
            differ.push(format!("{}:\n{rendered}", case.display()));
        }
    }
    assert!(differ.is_empty(), "LEAT_BLESS=1 accepts these renderings:\n{}", differ.join("\n"));
}

#[test]
fn every_code_has_a_case_in_which_it_is_found() {
    let mut found: BTreeSet<String> = BTreeSet::new();
    for case in cases() {
        let code = code_of(&case);
        let diagnostics = wrong_with(&case);
        assert!(
            diagnostics.iter().any(|diagnostic| diagnostic.code() == code),
            "{} lacks its code:\n{diagnostics}",
            case.display()
        );
        found.insert(code);
    }
    let known: BTreeSet<String> = codes().iter().map(|info| info.code.to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn every_diagnostic_has_a_place_a_label_and_a_hint() {
    for case in cases() {
        for diagnostic in wrong_with(&case).iter() {
            let about = format!("{} of {}", diagnostic.code(), case.display());
            assert!(diagnostic.help().is_some(), "{about} has no hint");
            let primary = diagnostic.labels().first().unwrap_or_else(|| panic!("{about} has no place"));
            assert!(primary.primary() && !primary.text().is_empty(), "{about} has no label");
            assert!(primary.line() > 0 && primary.column() > 0, "{about} has no line");
        }
    }
}

#[test]
fn codes_are_in_order_and_explained() {
    let list: Vec<&str> = codes().iter().map(|info| info.code).collect();
    assert!(list.is_sorted_by(|one, other| one < other), "{list:?}");
    for CodeInfo { code, title, explanation, .. } in codes() {
        assert!(!title.is_empty() && explanation.len() > 60 && explanation.ends_with('.'), "{code} is hardly explained");
        assert_eq!(explain(&code.to_lowercase()), Some(*explanation));
    }
    assert_eq!(explain("LW9999"), None);
}

#[test]
fn every_example_has_its_error() {
    for CodeInfo { code, example, .. } in codes() {
        let files = if example.starts_with("[project]") { [example, MEMBER] } else { [PROJECT, example] };
        let sources: BTreeMap<String, String> = ["Project.toml", "member.toml"]
            .into_iter()
            .zip(files)
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .collect();
        let diagnostics = load_from(&sources).expect_err(code);
        // In memory there are no folders, so a folder is a file that does not exist.
        let expected = if *code == "LW0201" { "LW0202" } else { code };
        assert!(diagnostics.iter().any(|diagnostic| diagnostic.code() == expected), "the example of {code}:\n{diagnostics}");
        assert_eq!(diagnostics.found(), 1, "the example of {code} has more than one error:\n{diagnostics}");
    }
}

#[test]
fn the_reference_has_every_code() {
    let page = reference_markdown();
    for info in codes() {
        assert!(page.contains(&format!("### {}: {}", info.code, info.title)));
    }
}

#[test]
fn a_folder_without_a_project_is_told_what_to_do() {
    let diagnostics = load(Path::new(env!("CARGO_MANIFEST_DIR"))).expect_err("a crate is no project");
    let rendered = diagnostics.to_string();
    assert!(rendered.contains("LW0201") && rendered.contains("leat new"), "{rendered}");
}
