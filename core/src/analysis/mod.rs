//! Judging: evidence counted once, the rule table, and the verdict that alone admits a recovery.
