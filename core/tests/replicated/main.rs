//! The replicated state through its public face: the gate, the bytes, snapshots, and random histories.

mod adoption;
mod clusters;
mod gate;
mod history;
mod rows;
mod samples;
mod snapshot;
mod wire;
