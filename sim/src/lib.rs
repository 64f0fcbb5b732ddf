//! Simulated worlds for the daemon: the whole runtime, unchanged, on simulated machines with disks and networks of their
//! own, beside model MySQL servers; scenarios that break things, and oracles that say what must hold all the same.

#[cfg(not(any(doc, all(madsim, tokio_unstable))))]
compile_error!(
    "build with the flags of .cargo/config.toml: a RUSTFLAGS variable in the environment overrides them"
);

#[cfg(feature = "engines")]
pub mod browser;
#[cfg(feature = "engines")]
pub mod daemon;
#[cfg(feature = "engines")]
pub mod disk;
#[cfg(feature = "engines")]
pub mod engine;
#[cfg(feature = "engines")]
pub mod hooks;
pub mod model;
#[cfg(feature = "engines")]
pub mod mutant;
#[cfg(feature = "engines")]
pub mod network;
#[cfg(feature = "engines")]
pub mod operator;
#[cfg(feature = "engines")]
pub mod oracle;
#[cfg(feature = "engines")]
pub mod outcome;
pub mod protocol;
pub mod random;
#[cfg(feature = "engines")]
pub mod scenario;
#[cfg(feature = "engines")]
pub mod shrink;
#[cfg(feature = "engines")]
pub mod store;
#[cfg(feature = "engines")]
pub mod sweep;
#[cfg(feature = "engines")]
pub mod timeline;
#[cfg(feature = "engines")]
pub mod twice;
#[cfg(feature = "engines")]
pub mod witness;
