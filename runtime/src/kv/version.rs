//! Of two publications, which is the later.

use std::fmt;

/// Of a pair that is published: the decision that it comes from and the epoch of raft in which it was written. The decision
/// weighs more, since terms begin again where a cluster is formed anew, and log time does not. Between two daemons that know
/// no different decision (log time stands still for as long as somebody's clock was ahead) it is the one of the later term
/// that knows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Its log time in milliseconds since the epoch, and the number of the recovery added to it.
    pub decided: u64,
    /// Of the last entry that the writing daemon had applied.
    pub term: u64,
}

/// Leaves room for decisions until the year 2527. Terms beyond are told as the greatest.
const TERM_BITS: u32 = 20;
const TERM_MAX: u64 = (1 << TERM_BITS) - 1;
/// What is less is a decision's time alone, as it was written before terms were.
const PACKED_MIN: u64 = 1 << 44;

impl Version {
    /// As one number that grows with it.
    #[must_use]
    pub fn packed(self) -> u64 {
        let decided = self.decided.min(u64::MAX >> TERM_BITS);
        decided << TERM_BITS | self.term.min(TERM_MAX)
    }

    #[must_use]
    pub const fn unpacked(number: u64) -> Self {
        if number < PACKED_MIN {
            return Version {
                decided: number,
                term: 0,
            };
        }
        Version {
            decided: number >> TERM_BITS,
            term: number & TERM_MAX,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in term {}", self.decided, self.term)
    }
}
