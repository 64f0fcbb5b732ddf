//! Bare machines: folders that hold some programs, the libraries these are linked with, and nothing else, in which a program
//! runs as if there was nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A machine.
#[derive(Debug)]
pub struct Bare {
    root: PathBuf,
}

impl Bare {
    /// With the libraries of these programs, and the programs themselves if they are named without a folder.
    pub fn make(root: &Path, programs: &[&str]) -> Result<Bare> {
        for folder in ["etc", "dev", "tmp", "usr/bin"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let bare = Bare {
            root: root.to_owned(),
        };
        for program in programs {
            let path = if program.contains('/') {
                PathBuf::from(program)
            } else {
                let path = found(program)?;
                bare.copy(&path, &format!("usr/bin/{program}"))?;
                path
            };
            bare.bring_libraries(&path)?;
        }
        Ok(bare)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a file of this machine there.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.root.join(to);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, to).with_context(|| from.display().to_string())?;
        Ok(())
    }

    fn bring_libraries(&self, program: &Path) -> Result<()> {
        let linked = Command::new("ldd").arg(program).output()?;
        ensure!(linked.status.success(), "ldd {}", program.display());
        for word in String::from_utf8_lossy(&linked.stdout).split_whitespace() {
            if let Some(path) = word.strip_prefix('/') {
                self.copy(Path::new(word), path)?;
            }
        }
        Ok(())
    }

    /// A program of the machine, with no environment but where programs are.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        // SAFETY: a plain system call.
        if unsafe { libc::geteuid() } != 0 {
            command.arg("--map-root-user");
        }
        command
            .args(["sh", "-c"])
            .arg("mount --rbind /dev \"$0/dev\" && exec chroot \"$0\" \"$@\"")
            .arg(&self.root)
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command
    }
}

/// Where a program is.
fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no {program} here"))
}
