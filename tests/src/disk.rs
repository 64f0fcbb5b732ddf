//! Disks that fail: full ones, ones that can only be read, ones that answer with errors, and ones that never answer. Real file
//! systems, of their own; needs root.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A file system of its own. It goes with its owner.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `_IOR('X', 125, __u32)` of the kernel's ext4, and how: what was not synchronised is lost.
const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .env("PATH", PROGRAMS)
        .output();
    let output = output.with_context(|| {
        format!("{program}; as root, type:  apt-get install mount util-linux e2fsprogs")
    })?;
    ensure!(
        output.status.success(),
        "{program} {}: {} (file systems need root)",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Ext4 that lets nobody write once it has found an error, as installers have it.
fn mount(image: &Path, place: &Path) -> Result<()> {
    let (image, place) = (image.display().to_string(), place.display().to_string());
    run("mount", &["-o", "loop,errors=remount-ro", &image, &place])
}

impl Disk {
    /// In memory, at a folder that it makes.
    pub fn in_memory(path: &Path, mebibytes: u32) -> Result<Disk> {
        fs::create_dir_all(path)?;
        let size = format!("size={mebibytes}m");
        let place = path.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &place])?;
        Ok(Disk {
            path: path.to_owned(),
        })
    }

    /// Ext4 in a file beside the folder that it makes.
    pub fn in_file(path: &Path, mebibytes: u32) -> Result<Disk> {
        fs::create_dir_all(path)?;
        let image = path.with_extension("image");
        fs::File::create(&image)?.set_len(u64::from(mebibytes) << 20)?;
        run("mkfs.ext4", &["-q", "-F", &image.display().to_string()])?;
        mount(&image, path)?;
        Ok(Disk {
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room that is left; [`Disk::make_room`] gives it back.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.path.join("filling"))?;
        let mut bytes = vec![7; 1 << 20];
        while !bytes.is_empty() {
            match file.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    bytes.truncate(bytes.len() / 2);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.path.join("filling"))?)
    }

    /// Nothing can be written; nobody may have a file open for that.
    pub fn protect(&self) -> Result<()> {
        self.remount("remount,ro")
    }

    pub fn unprotect(&self) -> Result<()> {
        self.remount("remount,rw")
    }

    /// Ext4 finds itself damaged, and lets nobody write any more, whoever has files open.
    pub fn damage(&self) -> Result<()> {
        let place = self.path.display().to_string();
        let device = Command::new("findmnt")
            .args(["-n", "-o", "SOURCE", &place])
            .output()?;
        let device = String::from_utf8(device.stdout)?;
        let device = Path::new(device.trim())
            .file_name()
            .with_context(|| format!("nothing is mounted at {place}"))?;
        let trigger = Path::new("/sys/fs/ext4")
            .join(device)
            .join("trigger_fs_error");
        fs::write(&trigger, "of a test").with_context(|| trigger.display().to_string())
    }

    /// The device under ext4 is gone: whatever is written or synchronised is answered with an input/output error.
    pub fn break_off(&self) -> Result<()> {
        let folder = fs::File::open(&self.path)?;
        let how = EXT4_GOING_FLAGS_NOLOGFLUSH;
        // SAFETY: plain system call on a file that is open, which reads the number that it is given the place of.
        let done = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const how) };
        ensure!(
            done == 0,
            "{}: {}",
            self.path.display(),
            std::io::Error::last_os_error()
        );
        Ok(())
    }

    /// What an operator does with a damaged ext4: taken off, checked, and put back. Nobody may use it.
    pub fn mend(&self) -> Result<()> {
        let (image, place) = (self.image(), self.path.display().to_string());
        run("umount", &[&place])?;
        let checked = Command::new("e2fsck")
            .args(["-f", "-p", &image.display().to_string()])
            .env("PATH", PROGRAMS)
            .output()?;
        // 1: errors were found, and corrected.
        ensure!(
            matches!(checked.status.code(), Some(0 | 1)),
            "e2fsck: {}",
            String::from_utf8_lossy(&checked.stdout)
        );
        mount(&image, &self.path)
    }

    /// What it is kept in, if it is ext4.
    fn image(&self) -> PathBuf {
        self.path.with_extension("image")
    }

    fn remount(&self, option: &str) -> Result<()> {
        run("mount", &["-o", option, &self.path.display().to_string()])
    }

    /// Whoever writes waits, until it is thawed.
    pub fn freeze(&self) -> Result<Frozen<'_>> {
        run("fsfreeze", &["-f", &self.path.display().to_string()])?;
        Ok(Frozen(self))
    }
}

/// A disk that does not answer. Thawed when this goes: who waits for it cannot even be killed.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", &self.0.path.display().to_string()]).ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.path.display().to_string()]).ok();
    }
}
