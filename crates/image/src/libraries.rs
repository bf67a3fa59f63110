//! Which shared libraries a program needs: those, its loader and nothing else of the machine go into an image.

use crate::{Error, Result};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// The header of a program, as the loaders of 64-bit Linux read it: positions in the file.
mod header {
    pub(super) const MAGIC: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    pub(super) const SEGMENTS_AT: usize = 0x20;
    pub(super) const SEGMENT_SIZE_AT: usize = 0x36;
    pub(super) const SEGMENT_COUNT_AT: usize = 0x38;
    pub(super) const INTERPRETER: u32 = 3;
    pub(super) const OFFSET_AT: usize = 0x08;
    pub(super) const SIZE_AT: usize = 0x20;
}

/// Libraries that the C library opens by itself when a name is looked up, where it is older than 2.34 and does not have them inside.
const FOR_NAMES: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// The files that a set of programs needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Loaders and libraries, by the paths at which they are looked for. Static programs need none.
    pub files: BTreeSet<PathBuf>,
}

/// Finds what a program needs, by asking the loader that it names. Nothing of the program is run.
///
/// # Errors
///
/// It cannot be read, is no program for 64-bit Linux, or needs a library that this machine does not have.
pub fn needed(program: &Path) -> Result<Needed> {
    let bytes = std::fs::read(program).map_err(Error::file(program))?;
    let refused = |why: String| Error::Program { path: program.to_owned(), why };
    let Some(loader) = interpreter(&bytes).map_err(|why| refused(why.to_owned()))? else { return Ok(Needed::default()) };
    let mut ask = Command::new(&loader);
    ask.arg("--list").arg(program).env_clear();
    let output = ask.output().map_err(|error| refused(format!("its loader `{}` cannot be asked: {error}", loader.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(refused(format!("its loader `{}` does not list its libraries: {said}", loader.display())));
    }
    let mut files = listed(&String::from_utf8_lossy(&output.stdout)).map_err(refused)?;
    let folder =
        files.iter().find(|file| file.file_name().is_some_and(|name| name == "libc.so.6")).and_then(|file| file.parent());
    let for_names: Vec<PathBuf> =
        folder.into_iter().flat_map(|folder| FOR_NAMES.map(|name| folder.join(name))).filter(|file| file.exists()).collect();
    files.extend(for_names);
    files.insert(loader);
    Ok(Needed { files })
}

/// The loader that a program names, if it is not static.
fn interpreter(bytes: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    if !bytes.starts_with(&header::MAGIC) {
        return Err("it is no program for 64-bit Linux");
    }
    let cut_short = "it is cut short";
    let segments = number::<8>(bytes, header::SEGMENTS_AT).ok_or(cut_short)?;
    let size = number::<2>(bytes, header::SEGMENT_SIZE_AT).ok_or(cut_short)?;
    let count = number::<2>(bytes, header::SEGMENT_COUNT_AT).ok_or(cut_short)?;
    for index in 0..count {
        let at = index.checked_mul(size).and_then(|past| past.checked_add(segments)).ok_or(cut_short)?;
        if number::<4>(bytes, at).ok_or(cut_short)? != header::INTERPRETER as usize {
            continue;
        }
        let field = |offset: usize| at.checked_add(offset).and_then(|at| number::<8>(bytes, at)).ok_or(cut_short);
        let (start, length) = (field(header::OFFSET_AT)?, field(header::SIZE_AT)?);
        let text = start.checked_add(length).and_then(|end| bytes.get(start..end)).ok_or(cut_short)?;
        let text = std::str::from_utf8(text).map_err(|_| "the path of its loader is no text")?;
        return Ok(Some(PathBuf::from(text.trim_end_matches('\0'))));
    }
    Ok(None)
}

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(BYTES)?)?;
    let mut whole = [0; 8];
    whole[..BYTES].copy_from_slice(field);
    usize::try_from(u64::from_le_bytes(whole)).ok()
}

/// The paths in what a loader lists: `libc.so.6 => /lib/libc.so.6 (0x…)`, or a path alone. What the kernel brings along has none.
fn listed(text: &str) -> Result<BTreeSet<PathBuf>, String> {
    let mut files = BTreeSet::new();
    for line in text.lines() {
        let (name, found) = line.split_once("=>").map_or((line.trim(), line.trim()), |(name, found)| (name.trim(), found.trim()));
        if found.starts_with("not found") {
            return Err(format!("it needs `{name}`, which this machine does not have"));
        }
        let path = found.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            files.insert(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loader_lists_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(listed(text).unwrap().into_iter().collect::<Vec<_>>(), expected.map(PathBuf::from));
        assert_eq!(listed("\tstatically linked\n").unwrap(), BTreeSet::new());
        assert!(listed("\tlibabsent.so.3 => not found\n").unwrap_err().contains("libabsent.so.3"));
    }

    #[test]
    fn what_is_no_program_is_refused_and_nothing_panics() {
        assert!(interpreter(b"#!/bin/sh\n").is_err());
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [6, 0x20, 0x38, 0x40, 0x100] {
            let _ = interpreter(&own[..length]);
        }
        let mut wild = own[..0x400].to_vec();
        wild[header::SEGMENTS_AT..header::SEGMENTS_AT + 8].fill(0xff);
        assert!(interpreter(&wild).is_err());
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn this_program_needs_the_c_library_and_its_loader() {
        let files = needed(&std::env::current_exe().unwrap()).unwrap().files;
        assert!(files.iter().any(|file| file.ends_with("libc.so.6")), "{files:?}");
        assert!(files.iter().any(|file| file.to_string_lossy().contains("ld-linux")), "{files:?}");
        assert!(files.iter().all(|file| file.is_absolute() && file.exists()), "{files:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert!(needed(Path::new("/nowhere/program")).unwrap_err().to_string().contains("/nowhere/program"));
    }
}
