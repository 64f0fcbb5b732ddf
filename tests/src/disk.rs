//! Disks that fail: full ones, ones that can only be read, and ones that never answer. Real file systems, of their own; needs root.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A file system of its own. It goes with its owner.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
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
        let (image, place) = (image.display().to_string(), path.display().to_string());
        run("mkfs.ext4", &["-q", "-F", &image])?;
        run("mount", &["-o", "loop", &image, &place])?;
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
