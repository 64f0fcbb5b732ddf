//! Time as a machine's own clock counts it: what raft's timers and leases go by, and what a drifting clock stretches.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use super::place::here;
use crate::model::host::World;
use crate::network;

/// Readings begin far from zero, so that a span can be taken from an early one.
const ORIGIN: Duration = Duration::from_secs(1_000_000);

/// A reading of the clock of the machine whose task asks.
pub struct LocalInstant<W> {
    since_origin: Duration,
    world: PhantomData<fn() -> W>,
}

impl<W> LocalInstant<W> {
    const fn new(since_origin: Duration) -> Self {
        Self {
            since_origin,
            world: PhantomData,
        }
    }
}

impl<W: World> openraft_rt::Instant for LocalInstant<W> {
    fn now() -> Self {
        Self::new(network::local(here(), ORIGIN, W::elapsed()))
    }
}

/// How long the world waits while the clock of the machine whose task asks counts so much.
pub fn right_span(local: Duration) -> Duration {
    network::right_span(here(), local)
}

/// How long the world waits until that clock shows this.
pub fn right_span_until<W: World>(at: LocalInstant<W>) -> Duration {
    let now = <LocalInstant<W> as openraft_rt::Instant>::now();
    right_span(at.since_origin.saturating_sub(now.since_origin))
}

impl<W> Clone for LocalInstant<W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for LocalInstant<W> {}

impl<W> fmt::Debug for LocalInstant<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.since_origin.fmt(f)
    }
}

impl<W> PartialEq for LocalInstant<W> {
    fn eq(&self, other: &Self) -> bool {
        self.since_origin == other.since_origin
    }
}

impl<W> Eq for LocalInstant<W> {}

impl<W> PartialOrd for LocalInstant<W> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> Ord for LocalInstant<W> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.since_origin.cmp(&other.since_origin)
    }
}

impl<W> Add<Duration> for LocalInstant<W> {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self::new(self.since_origin.saturating_add(span))
    }
}

impl<W> AddAssign<Duration> for LocalInstant<W> {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl<W> Sub<Duration> for LocalInstant<W> {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self::new(self.since_origin.saturating_sub(span))
    }
}

impl<W> SubAssign<Duration> for LocalInstant<W> {
    fn sub_assign(&mut self, span: Duration) {
        *self = *self - span;
    }
}

impl<W> Sub for LocalInstant<W> {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since_origin.saturating_sub(earlier.since_origin)
    }
}
