//! What followers pass on to the leader: everything that the leader alone answers, asked of each daemon.

use std::time::Duration;

use anyhow::{Result, ensure};
use orchestrator::http::routes::{Action, Answered, Kind, ROUTES};

use crate::daemons::Daemons;
use crate::wait::{Look, until};

/// How long an answer may keep changing while it is compared.
const PATIENCE: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(10);

/// How many answers were compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Of looks that are served.
    pub served: usize,
    /// Of those, that had something to tell.
    pub telling: usize,
    /// Of what is not served.
    pub unserved: usize,
}

/// A path of the table with values in the place of its parameters; those that are not among `values` are 1.
#[must_use]
pub fn filled(path: &str, values: &[(&str, &str)]) -> String {
    let segments = path.split('/').map(|segment| {
        let value = values.iter().find(|(name, _)| *name == segment);
        match (value, segment.starts_with(':')) {
            (Some((_, value)), _) => value,
            (None, true) => "1",
            (None, false) => segment,
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Asks each follower for everything that the leader answers and that changes nothing. The leader is asked the same before and
/// after, until it says the same twice and the follower says it too: what ages by the second is compared within one.
///
/// # Errors
/// A follower's answer is not the leader's, to the byte.
pub async fn compare(daemons: &Daemons, values: &[(&str, &str)], query: &str) -> Result<Compared> {
    let leader = daemons.wait_leader(PATIENCE).await?;
    let mut compared = Compared::default();
    let passed_on = ROUTES
        .iter()
        .filter(|route| route.answered == Answered::ByLeader)
        .filter(|route| route.kind == Kind::Read || route.action == Action::NotServed);
    for route in passed_on {
        let path = format!("{}?{query}", filled(route.path, values));
        for follower in daemons.all() {
            if follower.http() == leader.http() {
                continue;
            }
            let what = format!("{} says to {path} what the leader says", follower.url());
            let looked = until(&what, PATIENCE, Duration::from_millis(5), async || {
                let before = leader.get(&path, DEADLINE).await;
                let relayed = follower.get(&path, DEADLINE).await;
                let after = leader.get(&path, DEADLINE).await;
                match (before, relayed, after) {
                    (Ok(before), Ok(relayed), Ok(after)) if before == after && relayed == after => {
                        Look::Holds(after)
                    }
                    other => Look::not(format!("{other:?}")),
                }
            });
            let own = looked.await?;
            if route.action == Action::NotServed {
                ensure!(own.status == 501, "{path}: {own:?}");
                compared.unserved += 1;
            } else {
                ensure!(own.status == 200, "{path}: {own:?}");
                compared.served += 1;
                compared.telling += usize::from(own.body.contains("127.0.0.1"));
            }
        }
    }
    Ok(compared)
}
