//! The roll of the raft cluster's members, as its leader calls it: one line when a member stops answering, and one when it
//! answers again.
//!
//! It decides what is worth a line and nothing else. A leader begins anew in each term: whoever is missing then is told of
//! once more, by the one that leads.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_core::id::NodeId;
use orchestrator_core::time::Wall;

use crate::raft::MemberView;

/// The leader hears its members all the time; the others hear each other every two seconds.
pub(crate) const MISSING_AFTER: Duration = Duration::from_secs(7);
/// A look that comes so long after the one before it judges nobody: this process did not run, and heard nobody meanwhile.
const LOOK_LATE: Duration = Duration::from_secs(2);

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Gone(String),
    Back(String),
}

/// Who is missing.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    /// In which term this daemon leads, since when, and when it looked last.
    led: Option<Led>,
    /// Since when each of them is not heard.
    missing: BTreeMap<NodeId, Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Led {
    term: u64,
    since: Duration,
    looked: Duration,
}

impl Roll {
    /// What is news of the members, in the term that this daemon leads, if it does. `now` is of [`crate::env::Env::mono`].
    pub(crate) fn call(
        &mut self,
        now: Duration,
        wall: Wall,
        term: Option<u64>,
        members: &[MemberView],
    ) -> Vec<News> {
        let Some(term) = term else {
            *self = Roll::default();
            return Vec::new();
        };
        let Some(led) = self.led.filter(|led| led.term == term) else {
            self.missing.clear();
            self.led = Some(Led {
                term,
                since: now,
                looked: now,
            });
            return Vec::new();
        };
        self.led = Some(Led { looked: now, ..led });
        if now > led.looked + LOOK_LATE {
            return Vec::new();
        }
        self.missing
            .retain(|node, _| members.iter().any(|member| member.node == *node));
        let heard = |member: &MemberView| match member.last_contact {
            Some(since) => now.saturating_sub(since),
            // Not since this daemon was started.
            None => led.since,
        };
        let (mut gone, mut news) = (Vec::new(), Vec::new());
        for member in members {
            let at = heard(member);
            let is_missing = now > at + MISSING_AFTER;
            match (is_missing, self.missing.get(&member.node).copied()) {
                (true, None) => {
                    self.missing.insert(member.node, at);
                    gone.push(member);
                }
                (false, Some(since)) => {
                    let away = now.saturating_sub(since).as_secs();
                    self.missing.remove(&member.node);
                    news.push(News::Back(format!(
                        "{} answers again, after {away} s",
                        name(member)
                    )));
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
        let left = self.left(members);
        news.extend(gone.into_iter().map(|member| {
            let since = match member.last_contact {
                Some(silent) => format!("since {}", wall - silent),
                None => String::from("and was not heard of since this daemon was started"),
            };
            News::Gone(format!("{} does not answer {since}; {left}", name(member)))
        }));
        news
    }

    /// What the loss of those that are missing means.
    fn left(&self, members: &[MemberView]) -> String {
        let voters = members.iter().filter(|member| member.voter);
        let answer = voters
            .clone()
            .filter(|voter| !self.missing.contains_key(&voter.node))
            .count();
        let voters = voters.count();
        let needed = voters / 2 + 1;
        let more = if answer == needed {
            ": no further one may be lost"
        } else {
            ""
        };
        format!("{answer} of {voters} voters answer, and {needed} are needed{more}")
    }
}

fn name(member: &MemberView) -> String {
    let address = member.address.as_deref().unwrap_or("without an address");
    format!("raft member {address} (node {})", member.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000_000);

    fn member(node: u64, silent_seconds: Option<u64>) -> MemberView {
        MemberView {
            node: NodeId(node),
            voter: true,
            address: Some(format!("n{node}:10008")),
            http_uri: None,
            last_contact: silent_seconds.map(Duration::from_secs),
            lacks: None,
            version: None,
            refusal: None,
            impostor: None,
        }
    }

    /// Three members, of which this daemon is the first, as it hears the others in a second of its term.
    fn call(roll: &mut Roll, second: u64, others: [Option<u64>; 2]) -> Vec<News> {
        let [two, three] = others;
        let members = [member(1, Some(0)), member(2, two), member(3, three)];
        let now = START + Duration::from_secs(second);
        let wall = Wall::from_nanos(second * 1_000_000_000);
        roll.call(now, wall, Some(5), &members)
    }

    fn gone(text: &str) -> Vec<News> {
        vec![News::Gone(text.to_owned())]
    }

    #[test]
    fn one_line_when_a_member_is_gone_and_one_when_it_is_back() {
        let mut roll = Roll::default();
        for second in 0..=20 {
            assert_eq!(call(&mut roll, second, [Some(0), Some(0)]), []);
        }
        for silent in 1..=7 {
            assert_eq!(call(&mut roll, 20 + silent, [Some(0), Some(silent)]), []);
        }
        assert_eq!(
            call(&mut roll, 28, [Some(0), Some(8)]),
            gone(
                "raft member n3:10008 (node 0000000000000003) does not answer since 1970-01-01T00:00:20Z; 2 of 3 voters answer, \
                 and 2 are needed: no further one may be lost"
            )
        );
        for silent in 9..=100 {
            assert_eq!(call(&mut roll, 20 + silent, [Some(0), Some(silent)]), []);
        }
        assert_eq!(
            call(&mut roll, 121, [Some(0), Some(0)]),
            [News::Back(
                "raft member n3:10008 (node 0000000000000003) answers again, after 101 s"
                    .to_owned()
            )]
        );
        assert_eq!(call(&mut roll, 122, [Some(0), Some(0)]), []);
    }

    #[test]
    fn one_that_was_never_heard_is_given_the_same_time() {
        let mut roll = Roll::default();
        for second in 0..=7 {
            assert_eq!(call(&mut roll, second, [Some(0), None]), []);
        }
        assert_eq!(
            call(&mut roll, 8, [Some(0), None]),
            gone(
                "raft member n3:10008 (node 0000000000000003) does not answer and was not heard of since this daemon was started; 2 \
                 of 3 voters answer, and 2 are needed: no further one may be lost"
            )
        );
    }

    /// The next leader says who is missing, when it has led for a moment; whoever does not lead says nothing.
    #[test]
    fn each_leader_calls_the_roll_anew() {
        let mut roll = Roll::default();
        let members = [member(1, Some(0)), member(2, Some(60))];
        let mut lines = |second: u64, term: Option<u64>| {
            let now = START + Duration::from_secs(second);
            roll.call(now, Wall::from_nanos(0), term, &members).len()
        };
        assert_eq!((lines(0, None), lines(1, None)), (0, 0));
        assert_eq!((lines(2, Some(5)), lines(3, Some(5))), (0, 1));
        assert_eq!((lines(4, Some(5)), lines(5, None)), (0, 0));
        assert_eq!((lines(6, Some(7)), lines(7, Some(7))), (0, 1));
    }

    /// After a stop of the whole process nobody was heard for as long.
    #[test]
    fn a_late_look_judges_nobody() {
        let mut roll = Roll::default();
        assert_eq!(call(&mut roll, 0, [Some(0), Some(0)]), []);
        assert_eq!(call(&mut roll, 60, [Some(60), Some(60)]), []);
        assert_eq!(call(&mut roll, 61, [Some(0), Some(0)]), []);
    }

    #[test]
    fn one_that_is_no_member_any_more_is_forgotten() {
        let mut roll = Roll::default();
        for second in 0..=1 {
            call(&mut roll, second, [Some(0), Some(60)]);
        }
        assert_eq!(roll.missing.len(), 1);
        let now = START + Duration::from_secs(2);
        let left = [member(1, Some(0)), member(2, Some(0))];
        let news = roll.call(now, Wall::from_nanos(0), Some(5), &left);
        assert_eq!((news, roll.missing.len()), (vec![], 0));
    }
}
