//! The nearest known name to one that is not known.
//!
//! Near means few typing errors (a letter wrong, missing, too many, or two changed places), without regard to
//! case. It never offers a name that is far: a wrong hint is worse than none.

use super::keys::KEYS;

/// Longer names are not compared: no known key comes near this length.
const NAME_BYTES_MAX: usize = 80;

/// The known key that `name` was probably meant to be, if any is near enough: at most a third of its letters
/// wrong, at most five. The first in the table among equals.
pub fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    let tolerated = (wanted.len() / 3).min(5);
    KEYS.iter()
        .map(|key| {
            (
                distance(
                    &wanted,
                    &key.name.to_ascii_lowercase().chars().collect::<Vec<char>>(),
                ),
                key.name,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= tolerated)
        .map(|(_, name)| name)
}

/// The optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row; to.len() + 1];
        for column in 1..=to.len() {
            let same = from[row - 1] == to[column - 1];
            let mut best = (last[column] + 1)
                .min(current[column - 1] + 1)
                .min(last[column - 1] + usize::from(!same));
            let swapped = row > 1
                && column > 1
                && from[row - 1] == to[column - 2]
                && from[row - 2] == to[column - 1];
            if swapped {
                best = best.min(before_last[column - 2] + 1);
            }
            current[column] = best;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        assert_eq!(nearest(name), expected, "{name}");
    }

    #[test]
    fn typing_errors_are_forgiven_and_strangers_are_not() {
        check("RaftNode", Some("RaftNodes"));
        check("raftbnid", Some("RaftBind"));
        check("InstancePollSecond", Some("InstancePollSeconds"));
        check("MySQLTopologyPasword", Some("MySQLTopologyPassword"));
        check(
            "RecoverMasterClustersFilter",
            Some("RecoverMasterClusterFilters"),
        );
        check("Colour", None);
        check("", None);
        check("x", None);
        check(&"RaftNodes".repeat(1000), None);
    }

    #[test]
    fn distance_counts_single_errors() {
        let count = |from: &str, to: &str| {
            distance(
                &from.chars().collect::<Vec<char>>(),
                &to.chars().collect::<Vec<char>>(),
            )
        };
        assert_eq!(count("", ""), 0);
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("abc", ""), 3);
        assert_eq!(count("abc", "abd"), 1);
        assert_eq!(count("abc", "acb"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
    }
}
