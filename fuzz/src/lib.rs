//! Fuzz targets: what comes from outside, as bytes, and what must hold whatever they are.
//!
//! A target is total: it panics only where a promise is broken. Each has a corpus in `corpus/NAME`; plain `cargo test`
//! replays every file of it and some thousand mutations, the same ones at each run. `orchestrator-fuzz NAME SECONDS`
//! goes on mutating and saves what breaks a promise into the corpus, where it stays as a test.

pub mod bytes;
pub mod configuration;
pub mod gtid;
pub mod http;
pub mod mutate;
pub mod node;
pub mod probe;
pub mod replicated;
pub mod wire;

use std::path::PathBuf;

/// Something that takes bytes.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Longer inputs are cut to so many bytes.
    pub bytes_max: usize,
    /// How many mutations of each file plain `cargo test` tries: fewer where one takes long.
    pub mutations: u32,
    /// Words that the target understands; mutations put them in.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "gtid",
        run: gtid::run,
        bytes_max: 4096,
        mutations: 400,
        words: &[
            "3e11fa47-71ca-11e1-9e33-c80aa9429562",
            ":",
            "-",
            ",",
            ":tag:",
            "18446744073709551615",
            "\n",
            "0-1-",
            "1-10",
            "9223372036854775807",
            "0",
            "|",
        ],
    },
    Target {
        name: "command",
        run: replicated::run_command,
        bytes_max: 16_384,
        mutations: 150,
        words: &["\u{1}", "\0", "db1", "db2:3306", "\u{7f}\u{7f}\u{7f}\u{7f}"],
    },
    Target {
        name: "snapshot",
        run: replicated::run_snapshot,
        bytes_max: 65_536,
        mutations: 300,
        words: &["\u{1}", "\0", "db1", "\u{7f}\u{7f}\u{7f}\u{7f}"],
    },
    Target {
        name: "history",
        run: replicated::run_history,
        bytes_max: 32_768,
        mutations: 200,
        words: &["\u{1}", "\0"],
    },
    Target {
        name: "raft",
        run: wire::run,
        bytes_max: 16_384,
        mutations: 300,
        words: &["\u{1}", "\0", "\u{7f}\u{7f}\u{7f}\u{7f}"],
    },
    Target {
        name: "configuration",
        run: configuration::run,
        bytes_max: 16_384,
        mutations: 150,
        words: &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "null",
            "true",
            "-1",
            "1e400",
            "\\ud800",
            "\"RaftNodes\"",
            "\"ListenAddress\"",
            "\"${A}\"",
            "\"SafetyProfile\"",
            "\"original\"",
            "\"RecoveryPeriodBlockSeconds\"",
            "\"*\"",
            "(((((((((",
            "127.0.0.1:0",
            "18446744073709551616",
        ],
    },
    Target {
        name: "probe",
        run: probe::run,
        bytes_max: 16_384,
        mutations: 200,
        words: &[
            "@Live\n",
            "@ReplicaStatus\n",
            "@Grants\n",
            "@Gtid\n",
            "@Replicas\n",
            "|",
            "\\N",
            "\n",
            "GRANT ",
            " ON *.* TO ",
            "`",
            "'",
            "Yes",
            "Connecting",
            "18446744073709551615",
            "0-1-1",
            "127.0.0.1",
        ],
    },
    Target {
        name: "http",
        run: http::run,
        bytes_max: 16_384,
        mutations: 200,
        words: &[
            "GET ",
            "POST ",
            "HEAD ",
            " HTTP/1.1\r\n",
            "\r\n",
            "Host: x\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Authorization: Basic YTpi\r\n",
            "/api/",
            "%2f",
            "%",
            "?",
            "../",
            "Connection: close\r\n",
            "/web",
            "//",
        ],
    },
    Target {
        name: "node",
        run: node::run,
        bytes_max: 4096,
        mutations: 250,
        words: &["\u{1}", "\0", "\u{5}\u{1}", "\u{6}\0"],
    },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

impl Target {
    /// Where its corpus is, in a checkout.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(self.name)
    }

    /// The files of the corpus with their names, in the order of those.
    ///
    /// # Errors
    /// The folder or a file cannot be read.
    pub fn corpus(&self) -> std::io::Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.folder())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push((name, std::fs::read(entry.path())?));
        }
        files.sort();
        Ok(files)
    }

    /// Runs it on an input of any length.
    pub fn try_on(&self, data: &[u8]) {
        (self.run)(&data[..data.len().min(self.bytes_max)]);
    }
}
