//! Container images, written as archives that `ctr`, Podman and registries' tools take, without a container engine.
//!
//! The same files give the same bytes, on every machine and at any time: entries are sorted, belong to nobody, and have no time.

mod archive;
mod base;
mod error;
mod layer;
mod libraries;

pub use archive::{Archive, Blob, Image, Packed};
pub use base::PROGRAMS;
pub use error::{Error, Result};
pub use layer::{Entry, Layer};
pub use libraries::{Needed, needed};

/// The user and the group of the processes in an image: without rights, and the number that other minimal images use as well.
pub const USER: u32 = 65532;

/// The hash that names a blob, as registries write it.
fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    sha2::Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
