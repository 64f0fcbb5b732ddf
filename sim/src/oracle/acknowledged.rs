//! What people are told is done is committed: when a daemon says OK to somebody who asked for a change, that change was
//! committed between the question and the answer. That it stays is another promise (`nothing_uncommitted`).

use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::replicated::Command;

use crate::witness::Event;

/// What was committed of what people ask for, oldest first.
#[derive(Debug, Default)]
pub struct Acknowledged {
    committed: Vec<(Duration, Command)>,
}

impl Acknowledged {
    pub fn observe(&mut self, at: Duration, event: &Event) {
        if let Event::Committed { command, .. } = event
            && is_of_people(command)
        {
            self.committed.push((at, command.clone()));
        }
    }

    /// A daemon answered a request that was sent then with OK.
    ///
    /// # Errors
    /// Nothing of the kind was committed since.
    pub fn answered(&self, daemon: &str, path: &str, sent: Duration) -> Result<(), String> {
        let Some(asked) = Asked::of(path) else {
            return Ok(());
        };
        let since = self.committed.iter().rev();
        let mut since = since.take_while(|(at, _)| *at >= sent);
        if since.any(|(_, command)| asked.is(command)) {
            return Ok(());
        }
        Err(format!(
            "acknowledged: {daemon} said that {path} was done, and nothing of it was committed since it was asked"
        ))
    }
}

const fn is_of_people(command: &Command) -> bool {
    matches!(
        command,
        Command::BeginDowntime { .. }
            | Command::EndDowntime { .. }
            | Command::PutTag { .. }
            | Command::DeleteTag { .. }
            | Command::RegisterCandidate { .. }
            | Command::Forget { .. }
            | Command::SetClusterAlias { .. }
    )
}

/// A change that a path asks for.
struct Asked<'a> {
    what: &'a str,
    server: Option<InstanceKey>,
    /// Behind the server or the `=` of the question.
    text: &'a str,
}

impl<'a> Asked<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = path.strip_prefix("/api/")?.split('/');
        let (what, host) = (parts.next()?, parts.next()?);
        let port = parts.next().and_then(|port| port.parse().ok());
        let text = match query.split_once('=') {
            Some((_, text)) => text,
            None => parts.next().unwrap_or_default(),
        };
        Some(Self {
            what,
            server: port.map(|port| InstanceKey::new(host, port)),
            text,
        })
        .filter(|asked| CHANGES.contains(&asked.what))
    }

    fn is(&self, command: &Command) -> bool {
        let of = |key: &InstanceKey| Some(key) == self.server.as_ref();
        match (self.what, command) {
            ("begin-downtime", Command::BeginDowntime { key, .. })
            | ("end-downtime", Command::EndDowntime { key }) => of(key),
            ("tag", Command::PutTag { key, name, value }) => {
                of(key) && self.text == format!("{name}={value}")
            }
            ("untag", Command::DeleteTag { key, name, .. }) => {
                key.as_ref().is_some_and(of) && self.text == name
            }
            ("register-candidate", Command::RegisterCandidate { key, rule }) => {
                of(key) && self.text == rule.name()
            }
            ("forget", Command::Forget { keys }) => keys.iter().any(of),
            ("set-cluster-alias", Command::SetClusterAlias { alias, .. }) => self.text == alias,
            _ => false,
        }
    }
}

const CHANGES: [&str; 7] = [
    "begin-downtime",
    "end-downtime",
    "tag",
    "untag",
    "register-candidate",
    "forget",
    "set-cluster-alias",
];
