//! A layer: files, packed so that the same files give the same bytes.

use crate::{Error, Result, digest};
use flate2::{Compression, write::GzEncoder};
use std::{collections::BTreeMap, io::Write as _};
use tar::{EntryType, Header};

/// Beyond this, what is left to gain in size takes several times as long.
const COMPRESSION: Compression = Compression::new(6);

/// A file or a folder of an image.
#[derive(Clone, Debug)]
pub struct Entry {
    /// From the root, without a slash in front.
    path: String,
    mode: u32,
    /// Without bytes it is a folder.
    bytes: Option<Vec<u8>>,
}

impl Entry {
    /// A file that everybody may read and execute.
    pub fn program(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), mode: 0o755, bytes: Some(bytes) }
    }

    /// A file that everybody may read.
    pub fn file(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), mode: 0o644, bytes: Some(bytes) }
    }

    /// A folder with these rights. The folders of files need no entry, unless others than the usual rights are wanted.
    pub fn folder(path: impl Into<String>, mode: u32) -> Self {
        Self { path: path.into(), mode, bytes: None }
    }
}

/// Files that come over those of the layers below.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The compressed bytes.
    pub(crate) bytes: Vec<u8>,
    /// The hash of the compressed bytes.
    pub(crate) digest: String,
    /// The hash of the bytes before they were compressed.
    pub(crate) unpacked_digest: String,
}

impl Layer {
    /// Packs files. Their order does not matter; of two with the same path the later one counts.
    ///
    /// # Errors
    ///
    /// A path that is absolute, leads out of the image, or is both a file and a folder.
    pub fn of(entries: &[Entry]) -> Result<Self> {
        let mut sorted: BTreeMap<&str, (u32, Option<&[u8]>)> = BTreeMap::new();
        for entry in entries {
            check(&entry.path)?;
            for (end, _) in entry.path.match_indices('/') {
                sorted.entry(&entry.path[..end]).or_insert((0o755, None));
            }
        }
        for entry in entries {
            let before = sorted.insert(&entry.path, (entry.mode, entry.bytes.as_deref()));
            if before.is_some_and(|(_, bytes)| bytes.is_none()) && entry.bytes.is_some() {
                return Err(Error::Path { path: entry.path.clone(), why: "it is a file and a folder" });
            }
        }
        let mut tar = tar::Builder::new(Vec::new());
        for (path, (mode, bytes)) in sorted {
            append(&mut tar, path, mode, bytes).map_err(Error::Pack)?;
        }
        let unpacked = tar.into_inner().map_err(Error::Pack)?;
        let mut encoder = GzEncoder::new(Vec::new(), COMPRESSION);
        let bytes = encoder.write_all(&unpacked).and_then(|()| encoder.finish()).map_err(Error::Pack)?;
        Ok(Self { digest: digest(&bytes), unpacked_digest: digest(&unpacked), bytes })
    }

    /// How many bytes it has, compressed.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The hash by which registries know it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Adds an entry to an archive. The header names no time and no owner, so nothing of the machine gets into the bytes.
pub(crate) fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: Option<&[u8]>) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes.map_or(0, |bytes| bytes.len() as u64));
    header.set_entry_type(if bytes.is_some() { EntryType::Regular } else { EntryType::Directory });
    let name = if bytes.is_some() { path.to_owned() } else { format!("{path}/") };
    tar.append_data(&mut header, name, bytes.unwrap_or_default())
}

fn check(path: &str) -> Result<()> {
    let why = if path.starts_with('/') {
        "it begins with a slash"
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "one of its parts is empty or consists of dots"
    } else if path.contains('\0') {
        "it holds a zero byte"
    } else {
        return Ok(());
    };
    Err(Error::Path { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read as _;

    fn listed(layer: &Layer) -> Vec<(String, u32, u64, Vec<u8>)> {
        let mut tar = tar::Archive::new(GzDecoder::new(layer.bytes.as_slice()));
        let entry = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let header = entry.header();
            let path = header.path().unwrap().to_string_lossy().into_owned();
            (path, header.mode().unwrap(), header.mtime().unwrap() + header.uid().unwrap() + header.gid().unwrap(), bytes)
        };
        tar.entries().unwrap().map(entry).collect()
    }

    #[test]
    fn files_come_sorted_in_their_folders_and_belong_to_nobody() {
        let entries = [
            Entry::file("etc/passwd", b"p".to_vec()),
            Entry::folder("tmp", 0o1777),
            Entry::program("app/b", b"old".to_vec()),
            Entry::program("app/b", b"b".to_vec()),
        ];
        let expected =
            [("app/", 0o755, ""), ("app/b", 0o755, "b"), ("etc/", 0o755, ""), ("etc/passwd", 0o644, "p"), ("tmp/", 0o1777, "")];
        let expected: Vec<_> =
            expected.iter().map(|(path, mode, bytes)| ((*path).to_owned(), *mode, 0, bytes.as_bytes().to_vec())).collect();
        assert_eq!(listed(&Layer::of(&entries).unwrap()), expected);
    }

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let mut entries = vec![Entry::file("b", b"1".to_vec()), Entry::file("a/c", b"2".to_vec()), Entry::folder("a", 0o700)];
        let first = Layer::of(&entries).unwrap();
        entries.reverse();
        let second = Layer::of(&entries).unwrap();
        assert_eq!((first.bytes, first.digest, first.unpacked_digest), (second.bytes, second.digest, second.unpacked_digest));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for path in ["/etc/passwd", "../passwd", "a/../../b", "a//b", "", ".", "a/", "a\0b"] {
            assert!(Layer::of(&[Entry::file(path, Vec::new())]).is_err(), "{path:?}");
        }
        let both = [Entry::file("a", Vec::new()), Entry::file("a/b", Vec::new())];
        assert!(Layer::of(&both).unwrap_err().to_string().contains("a file and a folder"));
    }

    #[test]
    fn a_path_longer_than_a_header_takes_is_kept() {
        let path = format!("{}/file", "folder/".repeat(30).trim_end_matches('/'));
        let layer = Layer::of(&[Entry::file(path.clone(), b"here".to_vec())]).unwrap();
        let mut tar = tar::Archive::new(GzDecoder::new(layer.bytes.as_slice()));
        assert!(tar.entries().unwrap().any(|entry| entry.unwrap().path().unwrap().to_string_lossy() == path));
    }
}
