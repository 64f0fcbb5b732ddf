//! Simulated worlds for the daemon.

#[cfg(not(all(madsim, tokio_unstable)))]
compile_error!(
    "build with the flags of .cargo/config.toml: a RUSTFLAGS variable in the environment overrides them"
);

pub mod disk;
pub mod engine;
pub mod model;
pub mod network;
pub mod random;
