//! What was committed stays so, and with it whatever was acknowledged to anybody (`acknowledged`): no leader of a later term begins at or
//! before a place where something is committed already, and in the end every daemon that is part of the cluster is at least
//! as far as any daemon ever was. That each holds the same entry at the same place is looked at entry by entry, as they come;
//! the entry with which a leader begins says nothing, and so is not among those.

use orchestrator_core::id::LogPosition;

use super::Ended;
use crate::witness::Event;

/// How far any daemon was.
#[derive(Debug, Default)]
pub struct NothingUncommitted {
    furthest: Option<LogPosition>,
    /// How far that was when the end was called.
    wanted: Option<LogPosition>,
}

impl NothingUncommitted {
    pub fn observe(&mut self, event: &Event) {
        if let Event::Committed { at, .. } | Event::Refused { at } | Event::Seated { at } = event
            && self
                .furthest
                .is_none_or(|furthest| furthest.index < at.index)
        {
            self.furthest = Some(*at);
        }
    }

    /// A daemon was given the entry with which the leader of a term begins.
    ///
    /// # Errors
    /// It takes the place of what was committed in an earlier term, or stands before that.
    pub fn begins(&self, daemon: &str, at: LogPosition) -> Result<(), String> {
        match self.furthest {
            Some(furthest) if furthest.index >= at.index && furthest.term < at.term => {
                Err(format!(
                    "nothing uncommitted: {daemon} was given the first entry of a leader at {at}, and {furthest} was committed before"
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// People made a new cluster of what one daemon held at this position: what came behind it is given up.
    pub fn cut(&mut self, at: LogPosition) {
        self.furthest = Some(at);
    }

    /// The run is about to end: what is committed from here on need not be everywhere when the daemons are looked at. Gives
    /// back how far they must be.
    pub fn call(&mut self) -> Option<LogPosition> {
        self.wanted = self.furthest;
        self.wanted
    }

    /// # Errors
    /// A daemon of the cluster has less than was committed once.
    pub fn end(&self, ended: &Ended) -> Result<(), String> {
        let Some(furthest) = self.wanted.or(self.furthest) else {
            return Ok(());
        };
        let behind = ended
            .daemons
            .iter()
            .find(|daemon| daemon.hears_leader && daemon.at.index < furthest.index);
        match behind {
            Some(behind) => Err(format!(
                "nothing uncommitted: {} is at {} in the end, and {furthest} was committed",
                behind.name, behind.at
            )),
            None => Ok(()),
        }
    }
}
