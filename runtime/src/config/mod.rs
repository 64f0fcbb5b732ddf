//! Configuration: from the original's JSON files to typed settings.
//!
//! It decides which files count, how they lay over each other, what every key means and defaults to, and what is
//! wrong with a configuration. It starts nothing and obeys nothing itself. What holds: a [`Settings`] that was
//! loaded passed every rule; a configuration that breaks one is refused as a whole, with all its problems named
//! by file, line, key and reason; no text from outside causes a panic; a secret appears in no message.
//!
//! - [`keys`]: the one table of all keys;
//! - [`file`](mod@file): finding, reading and merging files;
//! - [`values`]: decoding, and the rule of a single value;
//! - [`check`]: what concerns several keys, after the last file;
//! - [`credentials`]: my.cnf files and environment variables;
//! - [`settings`]: the typed result; [`policy`]: the part of it that all daemons share;
//! - [`remarks`]: what follows from it that people may not expect.
//!
//! A reload loads anew, from the files alone: a key removed from the file has its default again (the original
//! keeps the old value until a restart). A refused reload leaves what runs as it is; [`Settings::reloaded`]
//! gives what a running process obeys of an accepted one.

mod address;
mod check;
mod credentials;
pub mod error;
pub mod file;
pub mod keys;
pub mod near;
mod policy;
mod remarks;
pub mod settings;
mod values;

#[cfg(test)]
mod tests;

use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use address::Address;
pub use error::{Cause, ConfigErrors, Place, Problem};
pub use remarks::Remark;
pub use settings::*;
pub use values::{MASK, Secrets};

use error::Findings;
use values::Values;

/// Reads environment variables.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads whole files.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// A configuration that passed every rule.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// What deserves a line in the log, in the order of the files and then of the rules.
    pub warnings: Vec<String>,
    /// The files that were read, in the order in which they were laid over each other.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// Where files were looked for if none was found, from this working directory; the defaults alone serve nobody.
    pub fn nothing_found(&self, directory: &Path) -> Option<String> {
        let looked: Vec<String> = file::IMPLICIT_FILES
            .iter()
            .map(|file| directory.join(file).display().to_string())
            .collect();
        self.files.is_empty().then(|| {
            format!(
                "there is no configuration file: none is named (--config FILE), and none of these exists: {}; begin with a sample: \
                 conf/orchestrator-alone.conf.json, or conf/orchestrator-raft.conf.json for one of several daemons, of the \
                 package's examples (/usr/share/doc/orchestrator/examples) or of runtime/packaging",
                looked.join(", ")
            )
        })
    }
}

impl Settings {
    /// Loads the configuration from the disk: `explicit` alone, or what there is of the implicit files.
    pub fn load(explicit: Option<&Path>, env: Variables<'_>) -> Result<Loaded, ConfigErrors> {
        Settings::load_with(explicit, &read_bounded, env)
    }

    /// The same with another way to read files.
    pub fn load_with(
        explicit: Option<&Path>,
        read: ReadFile<'_>,
        env: Variables<'_>,
    ) -> Result<Loaded, ConfigErrors> {
        let mut findings = Findings::default();
        let files = file::read(explicit, read, &mut findings);
        let named: Vec<(String, &[u8])> = files
            .iter()
            .map(|(path, bytes)| (path.display().to_string(), bytes.as_slice()))
            .collect();
        let texts: Vec<(&str, &[u8])> = named
            .iter()
            .map(|(name, bytes)| (name.as_str(), *bytes))
            .collect();
        let (settings, warnings) = settle(&texts, read, env, findings)?;
        Ok(Loaded {
            settings,
            warnings,
            files: files.into_iter().map(|(path, _)| path).collect(),
        })
    }
}

/// Loads the configuration from texts, later ones laid over earlier ones. Touches no disk: a credentials file
/// that they name counts as missing.
pub fn parse_files(files: &[(&str, &[u8])], env: Variables<'_>) -> Result<Loaded, ConfigErrors> {
    let missing: ReadFile<'_> = &|_| Err(io::ErrorKind::NotFound.into());
    parse_files_with(files, missing, env)
}

/// The same with a way to read credentials files.
pub fn parse_files_with(
    files: &[(&str, &[u8])],
    read: ReadFile<'_>,
    env: Variables<'_>,
) -> Result<Loaded, ConfigErrors> {
    let (settings, warnings) = settle(files, read, env, Findings::default())?;
    Ok(Loaded {
        settings,
        warnings,
        files: files.iter().map(|(name, _)| PathBuf::from(name)).collect(),
    })
}

fn settle(
    files: &[(&str, &[u8])],
    read: ReadFile<'_>,
    env: Variables<'_>,
    mut findings: Findings,
) -> Result<(Settings, Vec<String>), ConfigErrors> {
    let mut values = Values::presets();
    let mut all_read = !findings.has_problems();
    for (name, bytes) in files {
        all_read &= file::merge(name, bytes, &mut values, &mut findings);
    }
    // What a file that could not be read says may be just what a rule over several keys misses.
    if all_read {
        check::settle(&mut values, read, env, &mut findings);
    }
    let warnings = findings.finish()?;
    Ok((Settings::of(values), warnings))
}

/// Reads a file from the disk, one byte more than is accepted at most.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(file::FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
