//! When something that could not be done is tried again: after a time, then after twice as long, and so on to a longest one.

use core::time::Duration;

use crate::time::Mono;

/// Waits after tries. What was never tried is due.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    due: Mono,
    tries: u32,
}

impl Backoff {
    pub(super) fn is_due(&self, now: Mono) -> bool {
        now >= self.due
    }

    /// How often it was tried.
    pub(super) const fn tries(&self) -> u32 {
        self.tries
    }

    /// It is tried now: not again before `first`, which has doubled with each try before this, at most so often.
    pub(super) fn tried(&mut self, now: Mono, first: Duration, doublings_max: u32) {
        self.due = now + first * (1 << self.tries.min(doublings_max));
        self.tries = self.tries.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_longest() {
        let mut now = Mono::ZERO;
        let mut backoff = Backoff::default();
        assert!(backoff.is_due(now));
        for seconds in [1, 2, 4, 4, 4] {
            backoff.tried(now, Duration::from_secs(1), 2);
            now = now + Duration::from_millis(seconds * 1000 - 1);
            assert!(!backoff.is_due(now), "{seconds}");
            now = now + Duration::from_millis(1);
            assert!(backoff.is_due(now), "{seconds}");
        }
        assert_eq!(backoff.tries(), 5);
    }
}
