//! Where the control socket of a data directory is.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64;

/// The longest path of a unix socket that every system takes (macOS: 103 bytes and the end).
const PATH_BYTES_MAX: usize = 100;

/// Where the owner of a data directory listens: in it, or if its path is too long for a socket, in the directory that `XDG_RUNTIME_DIR`
/// names, or else in one of its own among the temporary files.
pub fn socket_path(data: &Path) -> PathBuf {
    path(&whole(data), env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), &env::temp_dir())
}

/// The one path of a directory, however it was typed: whether it is too long for a socket, and what that is called then, must be the same for who listens and who asks.
fn whole(data: &Path) -> PathBuf {
    // A directory that is not there has no owner either.
    fs::canonicalize(data).or_else(|_| std::path::absolute(data)).unwrap_or_else(|_| data.to_owned())
}

fn path(data: &Path, runtime: Option<PathBuf>, temporary: &Path) -> PathBuf {
    let path = data.join("control.sock");
    let fits = |path: &Path| path.as_os_str().len() <= PATH_BYTES_MAX;
    if fits(&path) {
        return path;
    }
    let name = format!("leat-{:016x}", xxh3_64(path.as_os_str().as_encoded_bytes()));
    let runtime = runtime.filter(|runtime| runtime.is_absolute()).map(|runtime| runtime.join(format!("{name}.sock")));
    runtime.filter(|path| fits(path)).unwrap_or_else(|| temporary.join(name).join("control.sock"))
}

/// Makes sure that nobody else has made the directory of a socket outside the data directory: everybody can write where temporary files
/// are, so its owner must be that of the data directory, and nobody else may write to it. `make`: whether it is made if it is missing.
pub(super) fn guard(data: &Path, socket: &Path, make: bool) -> io::Result<()> {
    let Some(directory) =
        socket.parent().filter(|directory| socket.file_name() == Some("control.sock".as_ref()) && *directory != whole(data))
    else {
        return Ok(());
    };
    if make {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.mode() & 0o077 != 0 || found.uid() != fs::metadata(data)?.uid() {
        let text = format!("`{}` belongs to somebody else or others can write to it", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_short_path_is_in_the_data_directory_and_a_long_one_where_only_we_are() {
        let (temporary, long) = (Path::new("/tmp"), PathBuf::from(format!("/{}", "d".repeat(PATH_BYTES_MAX))));
        assert_eq!(path(Path::new("/data"), None, temporary), Path::new("/data/control.sock"));
        let within = |runtime: Option<&str>| path(&long, runtime.map(PathBuf::from), temporary).parent().unwrap().to_owned();
        assert_eq!(within(Some("/run/user/1")), Path::new("/run/user/1"));
        for runtime in [None, Some("relative"), long.to_str()] {
            assert_eq!(within(runtime).parent(), Some(temporary), "{runtime:?}");
        }
    }

    #[test]
    fn a_directory_has_one_socket_however_it_is_typed() {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("d".repeat(PATH_BYTES_MAX));
        fs::create_dir(&data).unwrap();
        let short = temporary.path().join("short");
        std::os::unix::fs::symlink(&data, &short).unwrap();
        for typed in [data.join("."), data.join("..").join(data.file_name().unwrap()), short] {
            assert_eq!(socket_path(&typed), socket_path(&data), "{}", typed.display());
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("d".repeat(PATH_BYTES_MAX));
        fs::create_dir(&data).unwrap();
        let socket = path(&data, None, temporary.path());
        guard(&data, &socket, true).unwrap();
        guard(&data, &socket, true).unwrap();
        let directory = socket.parent().unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(guard(&data, &socket, true).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::remove_dir(directory).unwrap();
        let elsewhere = temporary.path().join("elsewhere");
        fs::DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, directory).unwrap();
        assert_eq!(guard(&data, &socket, true).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
