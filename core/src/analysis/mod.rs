//! Judging: evidence counted once, the rule table (`diagnose`), and the verdict that alone admits a recovery.

pub mod verdict;
