//! What must hold for minutes on end: few leaders at a time, and members that a stranger does not disturb. It runs beside
//! the other tests on real processes.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

mod leaders;
mod replacement;

/// A request that waits this long was not answered.
const DEADLINE: Duration = Duration::from_secs(10);
