//! Each run twice, in two processes, to show that it is the same run: in one with the lines of its trace kept and without logs,
//! in the other without the lines and with all logs written. Where two runs part is said, and both traces stay.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Lines, Write};
use std::path::{Path, PathBuf};

use crate::outcome::Failure;
use crate::sweep::{Answer, Hand, Job, Logs, OWN_PROGRAM};

/// What came of a run that was made twice.
#[derive(Debug)]
pub enum Compared {
    /// The same, whether good or bad.
    Same(Answer),
    /// Something else, or the other process ended with it.
    Differs(Failure),
}

/// Two processes that make the same runs.
pub struct Pair<'a> {
    one: Hand<'a>,
    other: Hand<'a>,
    traces: &'a Path,
}

impl<'a> Pair<'a> {
    /// The other one is of `program`. Traces that differ are left in a folder, `traces`, that is there.
    #[must_use]
    pub fn new(program: &'a Path, traces: &'a Path) -> Self {
        Self {
            one: Hand::new(Path::new(OWN_PROGRAM), Logs::Off),
            other: Hand::new(program, Logs::Everything),
            traces,
        }
    }

    /// Makes a run twice.
    ///
    /// # Errors
    /// No process can be started, or traces cannot be read or written.
    pub fn compare(&mut self, job: &Job) -> io::Result<Compared> {
        let (path, other_path) = (self.path(job, "one"), self.path(job, "other"));
        let one = self.one.run(&traced(job, &path))?;
        let other = self.other.run(job)?;
        if is_same(&one, &other) {
            remove(&path)?;
            return Ok(Compared::Same(one));
        }
        if let (Err(crash @ Failure::Crash(_)), 0) = (&other.outcome, other.events) {
            // It did not live to trace anything.
            remove(&path)?;
            return Ok(Compared::Differs(crash.clone()));
        }
        let mut said = format!(
            "{}; in the other process {}",
            in_words(&one),
            in_words(&other)
        );
        // A trace of an earlier comparison must not be taken for one that this run did not live to write.
        File::create(&other_path).map_err(|error| named(&other_path, &error))?;
        let again = self.other.run(&traced(job, &other_path))?;
        if !is_same(&other, &again) {
            said += &format!("; and there, with its trace kept, {}", in_words(&again));
        }
        said += &match difference(&path, &other_path)? {
            Some(line) => format!("\n{line}"),
            None => "\nthe traces, both kept, are equal".to_owned(),
        };
        said += &format!("\n  {}\n  {}", path.display(), other_path.display());
        Ok(Compared::Differs(Failure::NonDeterminism(said)))
    }

    fn path(&self, job: &Job, whose: &str) -> PathBuf {
        let stem = Path::new(&job.file).file_stem().unwrap_or_default();
        let (stem, Job { engine, seed, .. }) = (stem.to_string_lossy(), job);
        self.traces.join(format!("{stem}-{engine}-{seed}.{whose}"))
    }
}

fn is_same(one: &Answer, other: &Answer) -> bool {
    (one.hash, one.events, &one.outcome) == (other.hash, other.events, &other.outcome)
}

fn traced(job: &Job, path: &Path) -> Job {
    Job {
        trace: Some(path.display().to_string()),
        ..job.clone()
    }
}

/// A process that ended with its run left nothing.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn in_words(answer: &Answer) -> String {
    let came = match &answer.outcome {
        Ok(summary) => summary.clone(),
        Err(failure) => failure.to_string(),
    };
    format!(
        "{} events, hash {:016x}, '{came}'",
        answer.events, answer.hash
    )
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Writes a trace to a file.
///
/// # Errors
/// It cannot be written.
pub fn write_lines(path: &Path, lines: &[String]) -> io::Result<()> {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    write().map_err(|error| named(path, &error))
}

/// The first line that differs of two traces.
fn difference(one: &Path, other: &Path) -> io::Result<Option<String>> {
    let open = |path: &Path| {
        let file = File::open(path).map_err(|error| named(path, &error))?;
        io::Result::Ok(BufReader::new(file).lines())
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    let next = |lines: &mut Lines<BufReader<File>>| lines.next().transpose();
    for number in 1_u64.. {
        let pair = (next(&mut one)?, next(&mut other)?);
        if pair == (None, None) {
            break;
        }
        if pair.0 != pair.1 {
            let ended = || "(the run ended)".to_owned();
            return Ok(Some(format!(
                "line {number} of the traces is the first that differs:\n  one:   {}\n  other: {}",
                pair.0.unwrap_or_else(ended),
                pair.1.unwrap_or_else(ended)
            )));
        }
    }
    Ok(None)
}
