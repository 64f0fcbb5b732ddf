//! Wall time as this daemon acts on it: its own clock, but never behind log time.
//!
//! Log time never goes back. A clock that was ahead for a moment takes it along, and what people set meanwhile (a downtime,
//! a cool-down) ends by that time: a daemon that then waited for its own clock to get there would wait for hours. So log
//! time goes on from where it was when this daemon learned of it, as fast as its monotonic clock.

use core::time::Duration;

use crate::{
    node::Node,
    time::{Mono, Now, Wall},
};

/// The newest log time, and when this daemon learned of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogClock {
    time: Wall,
    heard: Mono,
    /// The own clock as it was read last.
    own: Wall,
}

impl Node {
    /// What time it is, by the clocks that the caller read and by the log.
    #[must_use]
    pub fn time(&self, read: Now) -> Now {
        let LogClock { time, heard, .. } = self.log_clock;
        Now {
            wall: read.wall.max(time + read.mono.since(heard)),
            ..read
        }
    }

    /// Takes note of what was applied.
    pub(super) fn follow_log_time(&mut self, now: Now) {
        let time = self.replicated.log_time();
        if self.log_clock.time != time {
            self.log_clock.time = time;
            self.log_clock.heard = now.mono;
        }
    }

    /// Takes note of what the own clock says.
    pub(super) fn follow_own_clock(&mut self, read: Now) {
        self.log_clock.own = read.wall;
    }

    /// How long ago this was, at least: whichever of log time and the own clock was ahead for a moment, the other one was not.
    pub(super) fn least_age(&self, now: Now, at: Wall) -> Duration {
        now.wall.since(at).min(self.log_clock.own.since(at))
    }
}
