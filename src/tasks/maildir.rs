//! A Maildir: one file per mail, which is there whole or not at all, and only once.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// A folder with `tmp`, `new` and `cur`, as every mail program reads it.
#[derive(Clone, Debug)]
pub(crate) struct Maildir {
    folder: PathBuf,
}

impl Maildir {
    /// Opens it; missing folders are made.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self { folder })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Delivers a mail under a name that is its identity: delivering it again changes nothing, also after a reader has moved it to `cur`.
    pub(crate) fn deliver(&self, name: &str, mail: &[u8]) -> io::Result<()> {
        if self.holds(name)? {
            return Ok(());
        }
        let draft = self.folder.join("tmp").join(name);
        let mut file = fs::File::create(&draft)?;
        file.write_all(mail)?;
        // The caller acknowledges its message next, so the mail must outlast a power cut from here on.
        file.sync_all()?;
        let new = self.folder.join("new");
        fs::rename(draft, new.join(name))?;
        fs::File::open(new)?.sync_all()
    }

    fn holds(&self, name: &str) -> io::Result<bool> {
        if self.folder.join("new").join(name).try_exists()? {
            return Ok(true);
        }
        // Readers append their flags behind a colon.
        for entry in fs::read_dir(self.folder.join("cur"))? {
            let file = entry?.file_name();
            if file.to_string_lossy().split(':').next() == Some(name) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_delivered_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let maildir = Maildir::open(folder.path().join("mail")).expect("opened");
        let count = |part: &str| fs::read_dir(maildir.folder().join(part)).expect("a folder").count();
        maildir.deliver("1.showcase", b"first").expect("delivered");
        maildir.deliver("1.showcase", b"first").expect("delivered");
        assert_eq!((count("tmp"), count("new"), count("cur")), (0, 1, 0));
        fs::rename(maildir.folder().join("new/1.showcase"), maildir.folder().join("cur/1.showcase:2,S")).expect("read");
        maildir.deliver("1.showcase", b"first").expect("delivered");
        assert_eq!((count("tmp"), count("new"), count("cur")), (0, 0, 1));
    }
}
