//! Disks that fail: an ext4 in a file, mounted by a loop device, whose power can be cut; and a small file system in memory that gets full.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
};

/// Bytes of the ext4 whose power is cut: some hundred small segments, and made in some hundredths of a second.
const EXT4_BYTES: u64 = 256 << 20;

/// Cuts the power of a file system: nothing that is not on the disk will come there, not even its own journal (`EXT4_IOC_SHUTDOWN` with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`). The call takes a pointer, which is out of reach without `unsafe`; Perl is part of every Debian.
const CUT: &str = r#"
    use Time::HiRes "time";
    open(my $f, "<", $ARGV[0]) or die "$!\n";
    my $flags = pack("L", 2);
    my $now = time;
    ioctl($f, 0x8004587d, $flags) or die "$!\n";
    printf "%d\n", $now * 1000;
"#;

/// A file system that is mounted as long as this exists.
pub(crate) struct Mounted {
    /// What is mounted: an image file, or nothing for one in memory.
    image: Option<PathBuf>,
    at: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// A new ext4 in a file beside the place where it is mounted.
    pub(crate) fn ext4(folder: &Path) -> Result<Self> {
        let (image, at) = (folder.join("disk.img"), folder.join("disk"));
        fs::create_dir_all(&at)?;
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&image)?;
        file.set_len(EXT4_BYTES)?;
        call(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mut mounted = Self { image: Some(image), at, is_mounted: false };
        mounted.mount()?;
        Ok(mounted)
    }

    /// A new file system in memory, of this size.
    pub(crate) fn memory(folder: &Path, bytes: u64) -> Result<Self> {
        let at = folder.join("disk");
        fs::create_dir_all(&at)?;
        call(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&at))?;
        Ok(Self { image: None, at, is_mounted: true })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&mut self) -> Result<()> {
        let Some(image) = &self.image else { bail!("a file system in memory is gone when it is unmounted") };
        call(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.at))?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        call(Command::new("umount").arg(&self.at))?;
        self.is_mounted = false;
        Ok(())
    }

    /// Cuts the power, now, and tells the time just before, in milliseconds since the Unix epoch. Whoever uses it gets errors from here on.
    pub(crate) fn cut(&self) -> Result<u64> {
        let told = call(Command::new("perl").args(["-e", CUT]).arg(&self.at))?;
        told.trim().parse().context("reading the time of a cut")
    }

    /// Gives the power back: what is there then is what was on the disk. Nobody may use it any more.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child that was killed just now may still be there for a moment: then the place is free at once, and the disk when it is gone.
        if self.is_mounted
            && self.unmount().is_err()
            && let Err(error) = call(Command::new("umount").arg("--lazy").arg(&self.at))
        {
            eprintln!("{error:#}");
        }
    }
}

/// A folder in memory, where a sync costs nothing: for faults that do not touch the disk itself. It is removed with this.
pub(crate) struct Memory(PathBuf);

impl Memory {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let folder = parent.join(format!("leatworks-faults-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}

/// Runs a command that must succeed, and gives what it said.
fn call(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of this name can be started.
pub(crate) fn is_installed(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).any(|path| path.join(name).is_file())
}
