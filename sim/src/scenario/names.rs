//! Whom the lines of a scenario may name: its machines, and roles, which are looked up when something is done. A name that
//! means nobody is refused when the file is read, not when its time comes.

use super::action::Action;
use super::file::Scenario;
use crate::store;

/// Who a line means, whoever that is by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    LastFollower,
    Followers,
    Daemons,
    Primary,
    Replica,
    Replicas,
    Servers,
    All,
}

impl Role {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Leader, "leader"),
        (Self::Follower, "follower"),
        (Self::LastFollower, "last-follower"),
        (Self::Followers, "followers"),
        (Self::Daemons, "daemons"),
        (Self::Primary, "primary"),
        (Self::Replica, "replica"),
        (Self::Replicas, "replicas"),
        (Self::Servers, "servers"),
        (Self::All, "all"),
    ];

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut roles = Self::ALL.iter();
        roles
            .find(|(_, known)| *known == name)
            .map(|(role, _)| *role)
    }

    const fn may_be(self, whom: Whom) -> bool {
        match self {
            Self::Leader
            | Self::Follower
            | Self::LastFollower
            | Self::Followers
            | Self::Daemons => !matches!(whom, Whom::Server),
            Self::Primary | Self::Replica | Self::Replicas | Self::Servers => {
                !matches!(whom, Whom::Daemon)
            }
            Self::All => matches!(whom, Whom::Machine | Whom::LinkEnd),
        }
    }
}

/// To whom something can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    Daemon,
    Server,
    /// Either of the two.
    Machine,
    /// Whatever is on the network: also the key-value store, and the clients' machine.
    LinkEnd,
}

/// The machine that the clients are on.
const CLIENTS: &str = "scenario";

/// The names in an action, and whom each may mean.
fn named_by(action: &Action) -> Vec<(&str, Whom)> {
    match action {
        Action::Kill(who)
        | Action::PowerCut(who)
        | Action::Start(who)
        | Action::Stop(who)
        | Action::Freeze(who)
        | Action::Thaw(who)
        | Action::Isolate(who)
        | Action::Rejoin(who)
        | Action::Clock(who, _)
        | Action::Rights(who, _)
        | Action::Drift(who, _) => vec![(who, Whom::Machine)],
        Action::SlowDisk(who, _)
        | Action::Disk(who, _)
        | Action::FailSync(who, _)
        | Action::Rot(who, _)
        | Action::Wipe(who, _)
        | Action::Keep(who)
        | Action::Nodes(who, _)
        | Action::Install(who, _)
        | Action::Ask(who, _)
        | Action::Form(who, _)
        | Action::Recover(who, _) => vec![(who, Whom::Daemon)],
        Action::Applier(who, _)
        | Action::SlowApplier(who, _)
        | Action::PurgeLogs(who)
        | Action::Logins(who, _)
        | Action::ReadLock(who, _) => vec![(who, Whom::Server)],
        Action::Press(_) => Vec::new(),
        Action::CloneBackend(from, to) | Action::Restore(from, to, _) => {
            vec![(from, Whom::Daemon), (to, Whom::Daemon)]
        }
        Action::Name(from, to) => vec![(from, Whom::Machine), (to, Whom::Machine)],
        Action::Cut(from, to)
        | Action::Heal(from, to)
        | Action::Slow(from, to, _)
        | Action::Lose(from, to, _) => vec![(from, Whom::LinkEnd), (to, Whom::LinkEnd)],
    }
}

impl Scenario {
    /// Whether every name in an action means somebody in this scenario.
    pub(super) fn check_names(&self, action: &Action) -> Result<(), String> {
        for (name, whom) in named_by(action) {
            self.check_name(name, whom)
                .map_err(|reason| format!("'{action}': {reason}"))?;
        }
        Ok(())
    }

    /// Whether what is expected is expected of somebody.
    pub(super) fn check_expected(&self) -> Result<(), String> {
        let expect = &self.expect;
        let daemons = (self.asleep.iter())
            .chain(expect.members.iter().flatten())
            .chain(expect.ends.iter().map(|(who, _)| who))
            .chain(expect.says.iter().map(|(who, ..)| who));
        for name in daemons {
            self.check_name(name, Whom::Daemon)?;
        }
        if let Some(primary) = &expect.primary {
            let name = primary.strip_prefix('!').unwrap_or(primary);
            self.check_name(name, Whom::Server)?;
        }
        Ok(())
    }

    fn check_name(&self, name: &str, whom: Whom) -> Result<(), String> {
        let is_daemon = || self.every_daemon_name().iter().any(|known| known == name);
        let is_server = || self.server_names().iter().any(|known| known == name);
        let has_store = || self.announcements.as_ref().is_some_and(|given| given.store);
        let is_known = Role::named(name).is_some_and(|role| role.may_be(whom))
            || match whom {
                Whom::Daemon => is_daemon(),
                Whom::Server => is_server(),
                Whom::Machine => is_daemon() || is_server(),
                Whom::LinkEnd => {
                    is_daemon()
                        || is_server()
                        || name == CLIENTS
                        || name == store::NAME && has_store()
                }
            };
        if is_known {
            return Ok(());
        }
        let what = match whom {
            Whom::Daemon => "daemon",
            Whom::Server => "server",
            Whom::Machine => "daemon or server",
            Whom::LinkEnd => "machine",
        };
        let roles: Vec<&str> = (Role::ALL.iter())
            .filter(|(role, _)| role.may_be(whom))
            .map(|(_, name)| *name)
            .collect();
        Err(format!(
            "'{name}' is no {what} of this scenario; there are n1 to n{}, m1 to m{}, and {}",
            self.daemons + self.spare_daemons,
            self.servers,
            roles.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(line: &str, more: &str) -> Result<Scenario, String> {
        Scenario::parse(&format!(
            "title = \"t\"\nlength = \"15s\"\nspare_daemons = 1\nscript = [\"at 1s: {line}\"]\n{more}"
        ))
    }

    #[test]
    fn names_that_mean_nobody_are_refused() {
        let store = "[announcements]\neach = 1\nstore = true";
        let none = "";
        for (line, more) in [
            ("kill primary", none),
            ("power-cut all", none),
            ("start n4", none),
            ("stop leader", none),
            ("applier m4 off", none),
            ("revoke servers", none),
            ("revoke n3", none),
            ("recover n1 raft", none),
            ("cut scenario>m1", none),
            ("cut leader>kv", store),
            ("nodes n1 n1,n2,n9", none),
        ] {
            let read = scenario(line, more);
            assert!(read.is_ok(), "{line}: {read:?}");
        }
        for (line, more) in [
            ("kill prymary", none),
            ("kill n5", none),
            ("kill m5", none),
            ("kill n0", none),
            ("kill kv", store),
            ("cut leader>kv", none),
            ("cut n1>nowhere", none),
            ("stop kv", store),
            ("wipe primary raft", none),
            ("applier n1 off", none),
            ("logins n1 full", none),
            ("recover m1 raft", none),
            ("clone-backend n1>m1", none),
            ("name n1>n7", none),
            ("kill n1", "[expect]\nprimary = \"!m9\""),
            ("kill n1", "[expect]\nmembers = [\"n1\", \"n9\"]"),
            ("kill n1", "[expect]\nends = [[\"n9\", \"why\"]]"),
            ("kill n1", "[expect]\nsays = [[\"m1\", \"/\", \"\"]]"),
        ] {
            let refused = scenario(line, more).expect_err(line);
            assert!(refused.contains("of this scenario"), "{refused}");
        }
        let replayed = "[replay]\nseed = 1\nengine = \"madsim\"\nplan = [\"at 1s: kill n7\"]";
        assert!(scenario("kill n1", replayed).unwrap_err().contains("n7"));
    }
}
