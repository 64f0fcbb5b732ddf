//! Simulated worlds for the daemon: the whole runtime, unchanged, on simulated machines with disks and networks of their
//! own, beside model MySQL servers; scenarios that break things, and oracles that say what must hold all the same.

#[cfg(not(any(doc, all(madsim, tokio_unstable))))]
compile_error!(
    "build with the flags of .cargo/config.toml: a RUSTFLAGS variable in the environment overrides them"
);

pub mod browser;
pub mod daemon;
pub mod disk;
pub mod engine;
pub mod model;
pub mod mutant;
pub mod network;
pub mod operator;
pub mod oracle;
pub mod outcome;
pub mod random;
pub mod scenario;
pub mod shrink;
pub mod sweep;
pub mod timeline;
pub mod witness;
