//! At most one process leads in a term, and no two daemons lead at one time: a leader that lost its quorum has stopped
//! leading before another can begin. An identity promises its vote once a term, keeps that promise across every restart,
//! and never goes back to an earlier term, whatever became of its memory: a daemon whose directory was removed comes back
//! as another identity.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::witness::Event;

/// A daemon looks at its own leadership this often, and tells of its end so much later at most.
const LOOK: Duration = Duration::from_millis(60);

/// Answers of one daemon that are due together may be told of in either order.
const TOGETHER: Duration = Duration::from_millis(1);

/// Who led, and who promised what.
#[derive(Debug, Default)]
pub struct OneLeader {
    /// By cluster and term: the machine and the number of its process.
    leaders: BTreeMap<(String, u64), (String, usize)>,
    /// Who leads now, and in which cluster; of one that is frozen nobody knows.
    leading: BTreeMap<String, String>,
    /// Who led when another began, who that was, and when.
    overlap: Option<(String, String, Duration)>,
    /// By identity and term, for whom.
    votes: BTreeMap<String, BTreeMap<u64, String>>,
    /// By identity, its latest term and since when it is that.
    latest: BTreeMap<String, (u64, Duration)>,
}

impl OneLeader {
    /// In how many terms somebody led.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// # Errors
    /// Two leaders, or two votes.
    pub fn observe(&mut self, at: Duration, event: &Event) -> Result<(), String> {
        if let Some((first, second, since)) = &self.overlap
            && at > *since + LOOK
        {
            return Err(format!("one leader: {first} and {second} lead at once"));
        }
        match event {
            Event::Leads {
                daemon,
                process,
                cluster,
                term,
            } => {
                let own = (daemon.clone(), *process);
                let first = self
                    .leaders
                    .entry((cluster.clone(), *term))
                    .or_insert_with(|| own.clone());
                if *first != own {
                    return Err(format!(
                        "one leader: {daemon} (process {process}) leads in term {term} after {} (process {})",
                        first.0, first.1
                    ));
                }
                self.leading.insert(daemon.clone(), cluster.clone());
                let mut leading = self.leading.iter();
                if let Some((other, _)) =
                    leading.find(|(other, theirs)| *theirs == cluster && *other != daemon)
                {
                    self.overlap = Some((other.clone(), daemon.clone(), at));
                }
            }
            Event::NoLongerLeads { daemon } => {
                self.leading.remove(daemon);
                self.overlap
                    .take_if(|(first, second, _)| first == daemon || second == daemon);
            }
            Event::Votes {
                daemon,
                voter,
                term,
                candidate,
            } => {
                let fail = |earlier: &str, earlier_term: u64| {
                    Err(format!(
                        "one leader: {daemon} (node {voter}) votes for {candidate} in term {term} after {earlier} in term {earlier_term}"
                    ))
                };
                let votes = self.votes.entry(voter.clone()).or_default();
                let promised = votes.entry(*term).or_insert_with(|| candidate.clone());
                if promised != candidate {
                    return fail(promised, *term);
                }
                let latest = self.latest.entry(voter.clone()).or_insert((*term, at));
                if *term > latest.0 {
                    *latest = (*term, at);
                } else if *term < latest.0 && at > latest.1 + TOGETHER {
                    return fail(&votes[&latest.0], latest.0);
                }
            }
            Event::Committed { .. }
            | Event::Refused { .. }
            | Event::Executed { .. }
            | Event::Seated { .. }
            | Event::HookBegan { .. }
            | Event::HookEnded { .. }
            | Event::Published { .. } => {}
        }
        Ok(())
    }
}
