//! Where files and records lie: a folder, or a bucket of an object store.

#[cfg(feature = "cloud")]
mod cloud;

use crate::{FileRef, JobError};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future};
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, buffered::BufWriter, local::LocalFileSystem,
    path::Path as Key,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};
use url::Url;
use xxhash_rust::xxh3::Xxh3;

/// How much of a file is in memory at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The most objects that are deleted at once.
const DELETES_MAX: usize = 8;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `file:///folder`, and with the feature `cloud` also `s3://bucket/prefix` and `az://container/prefix`.
    pub url: String,
    /// Options of the object store, such as `aws_endpoint`, by the names that the crate `object_store` gives them.
    pub options: BTreeMap<String, String>,
}

impl Location {
    /// A folder.
    ///
    /// # Errors
    /// If the folder's path cannot be made absolute or has signs that no address has.
    pub fn folder(path: &Path) -> Result<Self, JobError> {
        let failed = |why: &str| JobError::permanent(format!("the folder of files `{}`: {why}", path.display()));
        let absolute = std::path::absolute(path).map_err(|error| failed(&error.to_string()))?;
        let url = Url::from_file_path(absolute).map_err(|()| failed("it is no absolute path"))?;
        Ok(Self { url: url.to_string(), options: BTreeMap::new() })
    }

    /// Whether it is an object store, and no folder of this machine.
    pub fn is_far(&self) -> bool {
        self.url.contains("://") && !self.url.starts_with("file:")
    }
}

/// Files and records by key: parts with `/` between them.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    base: Key,
    /// How people find it: a folder or an address.
    shown: String,
}

impl Store {
    /// Opens a store. Nothing is read or written yet, but a folder is made.
    ///
    /// # Errors
    /// A permanent failure if the address is none, or names a kind of store that is not built in.
    pub fn open(location: &Location) -> Result<Self, JobError> {
        let wrong = |why: &dyn std::fmt::Display| JobError::permanent(format!("the place of files `{}`: {why}", location.url));
        let url = Url::parse(&location.url).map_err(|error| wrong(&error))?;
        if url.scheme() == "file" {
            let folder: PathBuf = url.to_file_path().map_err(|()| wrong(&"it names no folder"))?;
            std::fs::create_dir_all(&folder).map_err(|error| wrong(&error))?;
            // What a message names must be there after a power cut, too.
            let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|error| wrong(&error))?.with_fsync(true);
            return Ok(Self { objects: Arc::new(objects), base: Key::default(), shown: folder.display().to_string() });
        }
        Self::remote(&url, location)
    }

    fn remote(url: &Url, location: &Location) -> Result<Self, JobError> {
        let wrong = |why: &dyn std::fmt::Display| JobError::permanent(format!("the place of files `{url}`: {why}"));
        if !matches!(url.scheme(), "s3" | "s3a" | "az" | "abfs" | "abfss") {
            return Err(wrong(&"there are `file:///FOLDER`, `s3://BUCKET/PREFIX` and `az://CONTAINER/PREFIX`"));
        }
        #[cfg(feature = "cloud")]
        {
            let (objects, base) = cloud::open(url, &location.options).map_err(|error| wrong(&error))?;
            Ok(Self { objects, base, shown: url.as_str().trim_end_matches('/').to_owned() })
        }
        #[cfg(not(feature = "cloud"))]
        {
            let _ = &location.options;
            Err(wrong(&"this program is built without object stores; the feature `cloud` of the crate `leatworks` brings them"))
        }
    }

    /// Where a key lies, for people.
    pub fn shown(&self, key: &str) -> String {
        format!("{}/{key}", self.shown)
    }

    fn key(&self, key: &str) -> Key {
        Key::from_iter(self.base.parts().chain(Key::from(key).parts()))
    }

    /// Writes an object, in place of what was there.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<(), JobError> {
        self.objects.put(&self.key(key), content.into()).await.map_err(|error| self.failed("writing", key, &error))?;
        Ok(())
    }

    pub(crate) async fn put_json(&self, key: &str, value: &impl Serialize) -> Result<(), JobError> {
        self.put(key, json(value)?).await
    }

    /// Writes an object if there is none of this key, and says whether it did.
    pub(crate) async fn put_new(&self, key: &str, value: &impl Serialize) -> Result<bool, JobError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.key(key), PutPayload::from_bytes(json(value)?), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("writing", key, &error)),
        }
    }

    /// Reads an object; none if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, JobError> {
        let got = match self.objects.get(&self.key(key)).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("reading", key, &error)),
        }
    }

    pub(crate) async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, JobError> {
        let Some(bytes) = self.get(key).await? else { return Ok(None) };
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| JobError::failed(format!("`{}` is not what it should be: {error}", self.shown(key))))?;
        Ok(Some(value))
    }

    /// The keys below a key, in order.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, below: &str) -> Result<Vec<String>, JobError> {
        let prefix = self.key(below);
        let skip = self.base.parts().count();
        let mut keys: Vec<String> = self
            .objects
            .list(Some(&prefix))
            .map_ok(|found| found.location.parts().skip(skip).map(|part| plain(part.as_ref())).collect::<Vec<_>>().join("/"))
            .try_collect()
            .await
            .map_err(|error| self.failed("listing", below, &error))?;
        keys.sort();
        Ok(keys)
    }

    /// Copies a file into the store.
    ///
    /// # Errors
    /// If it cannot be read, or the store fails.
    pub async fn put_file(&self, from: &Path, key: &str, path: &str) -> Result<FileRef, JobError> {
        let read = |error| JobError::failed(format!("reading the file `{path}`: {error}"));
        let written = |error| JobError::failed(format!("writing `{}`: {error}", self.shown(key)));
        let mut file = File::open(from).await.map_err(read)?;
        let mut writer = BufWriter::new(self.objects.clone(), self.key(key));
        let mut digest = Xxh3::new();
        let mut bytes = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk).await.map_err(read)?;
            if count == 0 {
                break;
            }
            digest.update(&chunk[..count]);
            bytes += count as u64;
            writer.write_all(&chunk[..count]).await.map_err(written)?;
        }
        writer.shutdown().await.map_err(written)?;
        let xxh3 = Some(format!("{:032x}", digest.digest128()));
        Ok(FileRef { path: path.to_owned(), key: key.to_owned(), bytes: Some(bytes), xxh3 })
    }

    /// Copies a file out of the store, and checks that it is the one that was meant.
    ///
    /// # Errors
    /// A permanent failure if it is not there or is another one.
    pub async fn get_file(&self, file: &FileRef, to: &Path) -> Result<(), JobError> {
        let written = |error| JobError::failed(format!("writing the input file `{}`: {error}", file.path));
        let got = self.objects.get(&self.key(&file.key)).await;
        let got = got.map_err(|error| match error {
            Error::NotFound { .. } => {
                let at = self.shown(&file.key);
                JobError::permanent(format!("the input file `{}` is not at `{at}`: it was removed, or never there", file.path))
            }
            other => self.failed("reading", &file.key, &other),
        })?;
        let mut content = got.into_stream();
        let mut out = File::create(to).await.map_err(written)?;
        let mut digest = Xxh3::new();
        let mut bytes = 0;
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| self.failed("reading", &file.key, &error))?;
            digest.update(&chunk);
            bytes += chunk.len() as u64;
            out.write_all(&chunk).await.map_err(written)?;
        }
        out.flush().await.map_err(written)?;
        let other = file.bytes.is_some_and(|told| told != bytes);
        if other || file.xxh3.as_ref().is_some_and(|told| *told != format!("{:032x}", digest.digest128())) {
            let at = self.shown(&file.key);
            return Err(JobError::permanent(format!(
                "the input file `{}` at `{at}` is not the one that the message names",
                file.path
            )));
        }
        Ok(())
    }

    /// Removes what has not been written for this long, and gives how many objects that were.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sweep(&self, older: Duration) -> Result<usize, JobError> {
        let Some(limit) = SystemTime::now().checked_sub(older) else { return Ok(0) };
        let old =
            self.objects.list(Some(&self.base)).try_filter(|found| future::ready(SystemTime::from(found.last_modified) < limit));
        let deleted = old
            .map_ok(|found| found.location)
            .map(|key| async { self.objects.delete(&key?).await })
            .buffer_unordered(DELETES_MAX)
            .try_fold(0, |count, ()| future::ready(Ok(count + 1)));
        deleted.await.map_err(|error| self.failed("cleaning", "", &error))
    }

    fn failed(&self, what: &str, key: &str, error: &Error) -> JobError {
        JobError::failed(format!("{what} `{}`: {error}", self.shown(key)))
    }
}

/// A part of a key as it was given: the store writes some signs, and all that are not ASCII, as `%` and two digits.
fn plain(part: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

fn json(value: &impl Serialize) -> Result<Bytes, JobError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(JobError::permanent)
}
