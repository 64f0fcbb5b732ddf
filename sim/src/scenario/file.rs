//! Scenario files, and replay files: a scenario with the seed, the plan that was drawn for it, and what came of it.

use std::path::Path;
use std::time::Duration;

use orchestrator::env::Mutant;
use orchestrator::raft::LogBounds;
use serde::{Deserialize, Serialize};

use super::action::{Planned, parse_duration};
use super::fault::Faults;
use crate::model::Kind;
use crate::outcome::Failure;
use crate::random::SplitMix;
use crate::timeline;

/// No scenario has more daemons, or more servers.
const DAEMONS_MAX: u8 = 9;
const SERVERS_MAX: u32 = 64;
const HOOKS_MAX: u32 = 9;
/// One seed in so many has hooks and a key-value store where the scenario does not say.
const ANNOUNCED_ONE_IN: u64 = 3;
const PURPOSE_OF_SYNCING: u64 = 0x57c0;
const ENGINES: [&str; 2] = ["madsim", "turmoil"];
/// In one seed of so many operators are at work where the scenario does not say.
const OPERATED_ONE_IN: u64 = 5;
/// In one seed of so many a quorum is healed first where the scenario does not say.
const QUORUM_FIRST_ONE_IN: u64 = 3;
const LENGTH_MAX: Duration = Duration::from_secs(600);
const PURPOSE: u64 = 0x91a7;
const PURPOSE_OF_HEALING: u64 = 0x4ea1;

/// Whose servers a scenario has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Servers {
    Mysql,
    Mariadb,
    /// Drawn: even seeds MySQL, odd ones MariaDB.
    Any,
}

/// How the servers wait for their replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SemiSync {
    /// In the log before the commit, and longer than any recovery takes.
    Lossless,
    /// After the commit, for a second.
    Lossy,
}

/// What must have come of it when the script is over, in runs without drawn faults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// So many recoveries ended with a promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotions: Option<usize>,
    /// This server takes writes; with `!` before it, another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The record of a recovery names these as lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// A client's write was acknowledged within so long of the first blow to a primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable_within: Option<String>,
    /// The primary that was replaced acknowledged at most so many writes after another was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposed_writes_max: Option<usize>,
    /// The machines whose daemons are the voters at the end, with or without drawn faults; none: those of the first
    /// lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// The first of these two members is copied to the second machine: the copy may have its place in the end, where drawn
    /// faults kept the first from being heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<(String, String)>,
    /// Every recovery was refused with this in its reason, and nothing was changed on any server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Daemons that end by themselves, and a part of the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<(String, String)>,
    /// What daemons answer: the machine, the path, and a part of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub says: Vec<(String, String, String)>,
    /// A daemon leads.
    #[serde(default)]
    pub led: bool,
    /// A majority's memory is lost for good: nobody leads when the script is over, and nothing is healed.
    #[serde(default)]
    pub stands_still: bool,
    /// In so many terms a daemon led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<usize>,
}

/// What a scenario asks to be changed of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_patience: Option<String>,
    /// `RefuseLossyPromotion`
    #[serde(default)]
    pub refuse_lossy: bool,
}

/// The operators' hooks, and the key-value store that the daemons publish to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcements {
    /// Hooks in each list.
    pub each: u32,
    /// The longest hook takes so long.
    #[serde(default = "brief")]
    pub takes_max: String,
    /// So many of them fail.
    #[serde(default)]
    pub fail_percent: u32,
    #[serde(default)]
    pub store: bool,
}

/// A run that is to be made again: nothing is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    pub seed: u64,
    pub engine: String,
    pub plan: Vec<String>,
    /// A mistake put back on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistake: Option<String>,
    /// What the scenario expects of a whole script is demanded. None: of a plan that is as long as the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm: Option<bool>,
    /// What must come of it: with a mistake the failure that finds it, without one nothing.
    #[serde(default)]
    pub outcome: String,
    /// What came of it when it was written, where nothing is to come of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// What makes the run what it is kept for: texts in lines of its story, each behind the one before. A run that keeps all
    /// promises and does not come to them tests something else than it did.
    #[serde(default)]
    pub reaches: Vec<String>,
}

impl Replay {
    /// Whether a run came to the situation that it is kept for. `lines`: its whole trace.
    ///
    /// # Errors
    /// What it did not come to, and what to do.
    pub fn reached(&self, lines: &[String]) -> Result<(), String> {
        let mut told = lines.iter().filter(|line| timeline::is_told(line));
        let mut before = String::new();
        for text in &self.reaches {
            if !told.any(|line| line.contains(text.as_str())) {
                return Err(format!(
                    "reaches: the story has no line with '{text}'{before}: the code has changed so that this run does not come \
                     to what the file is kept for. Read it (replay FILE --story). Where it tells the same in other words, \
                     correct 'reaches'; else move the plan's times, or look for another seed, until a run comes there"
                ));
            }
            before = format!(" behind '{text}'");
        }
        Ok(())
    }
}

/// A scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What happens, in a sentence.
    pub title: String,
    /// On which engines it makes sense.
    #[serde(default = "both_engines")]
    pub engines: Vec<String>,
    /// How long the script runs.
    pub length: String,
    #[serde(default = "three")]
    pub daemons: u8,
    /// Machines with a daemon that is not started until the script does, and that no list of nodes names at first.
    #[serde(default)]
    pub spare_daemons: u8,
    /// Daemons of the list that the script starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asleep: Vec<String>,
    /// Daemons of the release before, until the script installs this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<String>,
    /// `m1` is the primary, the others are its replicas.
    #[serde(default = "four")]
    pub servers: u32,
    #[serde(default = "any")]
    pub kind: Servers,
    /// None: replication is asynchronous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semi_sync: Option<SemiSync>,
    /// In every second seed the servers do not sync their logs: a power cut takes what was committed within so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsynced: Option<String>,
    /// Raft makes a snapshot after so many entries, and keeps as many behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_entries: Option<u64>,
    /// Raft cuts a log that holds more, to half of it. A daemon counts it in megabytes, more than comes together here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes_max: Option<u64>,
    /// Raft makes a snapshot when the last one is so old. A daemon counts it in hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_age_max: Option<String>,
    /// `RaftReplaceSilentSeconds`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_silent: Option<String>,
    /// Operators give and end downtimes, tags and the like all the while. None: in some seeds with faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operators: Option<bool>,
    /// A quorum of the daemons is healed alone and must come to rest, before all are. None: in some seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum_first: Option<bool>,
    pub script: Vec<String>,
    /// None: drawn, a seed in three has brief ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announcements: Option<Announcements>,
    #[serde(default)]
    pub policy: PolicyChange,
    #[serde(default)]
    pub expect: Expect,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Faults>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

fn both_engines() -> Vec<String> {
    ENGINES.map(str::to_owned).to_vec()
}

fn brief() -> String {
    "40ms".to_owned()
}

const fn three() -> u8 {
    3
}

const fn four() -> u32 {
    4
}

const fn any() -> Servers {
    Servers::Any
}

/// What one seed makes of a scenario: nothing is left to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub lines: Vec<Planned>,
    /// No fault was drawn: what the scenario expects must be there when its script is over.
    pub is_calm: bool,
    pub mistake: Option<Mutant>,
}

impl Scenario {
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    /// # Errors
    /// The file cannot be read, or what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The text of this scenario.
    ///
    /// # Errors
    /// It cannot be written as TOML.
    pub fn write(&self) -> Result<String, String> {
        toml::to_string_pretty(self).map_err(|error| error.to_string())
    }

    fn check(&self) -> Result<(), String> {
        let length = parse_duration(&self.length)?;
        if length > LENGTH_MAX {
            return Err(format!("length: at most {} s", LENGTH_MAX.as_secs()));
        }
        if !(1..=DAEMONS_MAX).contains(&self.daemons) || self.spare_daemons > DAEMONS_MAX {
            return Err(format!("daemons: 1 to {DAEMONS_MAX}"));
        }
        if !(1..=SERVERS_MAX).contains(&self.servers) {
            return Err(format!("servers: 1 to {SERVERS_MAX}"));
        }
        if self.engines.is_empty() {
            return Err("engines: none is named".to_owned());
        }
        let of_replay = self.replay.as_ref().map(|replay| &replay.engine);
        for engine in self.engines.iter().chain(of_replay) {
            if !ENGINES.contains(&engine.as_str()) {
                return Err(format!("'{engine}' is no engine: {}", ENGINES.join(", ")));
            }
        }
        for line in self.script()? {
            self.check_names(&line.action)?;
        }
        self.check_expected()?;
        if let Some(silent) = &self.replace_silent {
            parse_duration(silent)?;
        }
        if let Some(within) = &self.unsynced {
            parse_duration(within)?;
        }
        if let Some(age) = &self.snapshot_age_max {
            parse_duration(age)?;
        }
        if let Some(within) = &self.expect.writable_within {
            parse_duration(within)?;
        }
        if let Some(patience) = &self.policy.gone_patience {
            parse_duration(patience)?;
        }
        if let Some(faults) = &self.faults {
            faults.check()?;
        }
        if let Some(announcements) = &self.announcements {
            parse_duration(&announcements.takes_max)?;
            if announcements.each > HOOKS_MAX || announcements.fail_percent > 100 {
                return Err(format!(
                    "announcements: each at most {HOOKS_MAX}, fail_percent at most 100"
                ));
            }
        }
        if let Some(replay) = &self.replay {
            for line in lines(&replay.plan)? {
                self.check_names(&line.action)?;
            }
            if let Some(name) = &replay.mistake {
                crate::mutant::named(name)?;
            }
        }
        Ok(())
    }

    fn script(&self) -> Result<Vec<Planned>, String> {
        lines(&self.script)
    }

    /// How much log the daemons keep; what is not said as in production.
    #[must_use]
    pub fn log_bounds(&self) -> LogBounds {
        let production = LogBounds::default();
        let age_max = self.snapshot_age_max.as_ref();
        LogBounds {
            snapshot_entries: self.snapshot_entries.unwrap_or(production.snapshot_entries),
            keep_entries: self.snapshot_entries.unwrap_or(production.keep_entries),
            bytes_max: self.log_bytes_max.unwrap_or(production.bytes_max),
            snapshot_age_max: age_max
                .and_then(|age| parse_duration(age).ok())
                .unwrap_or(production.snapshot_age_max),
        }
    }

    /// The hooks and the store of a seed.
    #[must_use]
    pub fn announcements(&self, seed: u64) -> Announcements {
        match &self.announcements {
            Some(given) => given.clone(),
            None if seed % ANNOUNCED_ONE_IN == 1 => Announcements {
                each: 1 + (seed / ANNOUNCED_ONE_IN % 2) as u32,
                takes_max: brief(),
                fail_percent: 0,
                store: true,
            },
            None => Announcements {
                each: 0,
                takes_max: brief(),
                fail_percent: 0,
                store: false,
            },
        }
    }

    /// Within which time a power cut takes what a server committed; none: nothing, each commit is synced.
    #[must_use]
    pub fn unsynced(&self, seed: u64) -> Option<Duration> {
        let mut random = SplitMix::new(seed, PURPOSE_OF_SYNCING);
        let within = self.unsynced.as_ref()?;
        random
            .one_in(2)
            .then(|| parse_duration(within).ok())
            .flatten()
    }

    /// Whether operators are at work: never by chance where a calm run is to come to what is expected.
    #[must_use]
    pub fn has_operators(&self, plan: &Plan) -> bool {
        let drawn = !plan.is_calm && plan.seed % OPERATED_ONE_IN == 2;
        self.operators.unwrap_or(drawn)
    }

    /// Whether a quorum is healed alone at first, where the daemons at the end are such that it can do without the others.
    /// A replay file that does not say was written when everybody was healed at once.
    #[must_use]
    pub fn heals_quorum_first(&self, seed: u64) -> bool {
        let mut random = SplitMix::new(seed, PURPOSE_OF_HEALING);
        let drawn = self.replay.is_none() && random.one_in(QUORUM_FIRST_ONE_IN);
        self.quorum_first.unwrap_or(drawn)
    }

    /// How long the script runs.
    #[must_use]
    pub fn length(&self) -> Duration {
        parse_duration(&self.length).unwrap_or_default()
    }

    /// What a seed makes of it; the plan of a replay file is taken as it is.
    ///
    /// # Errors
    /// A line that cannot be read, or a mistake where the replay file has another one.
    pub fn plan(&self, seed: u64, mistake: Option<Mutant>) -> Result<Plan, String> {
        if let Some(replay) = &self.replay
            && replay.seed == seed
        {
            let of_replay = replay.mistake.as_deref().map(crate::mutant::named);
            let of_replay = of_replay.transpose()?;
            if let (Some(own), Some(asked)) = (of_replay, mistake)
                && own != asked
            {
                return Err(format!(
                    "the replay file has the mistake {}",
                    crate::mutant::name(own)
                ));
            }
            let lines = lines(&replay.plan)?;
            return Ok(Plan {
                seed,
                kind: self.kind_of(seed),
                // What people took out may have made the difference.
                is_calm: replay.calm != Some(false) && lines.len() == self.script.len(),
                lines,
                mistake: of_replay.or(mistake),
            });
        }
        let mut random = SplitMix::new(seed, PURPOSE);
        let mut lines: Vec<Planned> = self
            .script()?
            .iter()
            .map(|line| line.draw(&mut random))
            .collect();
        let drawn = match &self.faults {
            Some(faults) => faults.draw(seed, self),
            None => Vec::new(),
        };
        let is_calm = drawn.is_empty();
        lines.extend(drawn);
        Ok(Plan {
            seed,
            kind: self.kind_of(seed),
            lines,
            is_calm,
            mistake,
        })
    }

    fn kind_of(&self, seed: u64) -> Kind {
        match self.kind {
            Servers::Mysql => Kind::Mysql,
            Servers::Mariadb => Kind::Mariadb,
            Servers::Any if seed.is_multiple_of(2) => Kind::Mysql,
            Servers::Any => Kind::Mariadb,
        }
    }

    /// The names of the daemons that the first lists name.
    #[must_use]
    pub fn daemon_names(&self) -> Vec<String> {
        (1..=self.daemons)
            .map(|number| format!("n{number}"))
            .collect()
    }

    /// The machines whose daemons are the voters at the end.
    #[must_use]
    pub fn member_names(&self) -> Vec<String> {
        let expected = self.expect.members.clone();
        expected.unwrap_or_else(|| self.daemon_names())
    }

    /// And of those that come later.
    #[must_use]
    pub fn every_daemon_name(&self) -> Vec<String> {
        (1..=self.daemons + self.spare_daemons)
            .map(|number| format!("n{number}"))
            .collect()
    }

    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        (1..=self.servers)
            .map(|number| format!("m{number}"))
            .collect()
    }

    /// This scenario as a replay file: what a mistake came to must come of it again, any other failure must not.
    #[must_use]
    pub fn with_replay(&self, plan: &Plan, engine: &str, failure: Option<&Failure>) -> Self {
        let came = failure.map_or_else(String::new, ToString::to_string);
        let (outcome, found) = match plan.mistake {
            Some(_) => (came, String::new()),
            None => (String::new(), came),
        };
        Self {
            announcements: Some(self.announcements(plan.seed)),
            operators: Some(self.has_operators(plan)),
            quorum_first: Some(self.heals_quorum_first(plan.seed)),
            replay: Some(Replay {
                seed: plan.seed,
                engine: engine.to_owned(),
                plan: plan.lines.iter().map(ToString::to_string).collect(),
                mistake: plan
                    .mistake
                    .map(|mistake| crate::mutant::name(mistake).to_owned()),
                calm: Some(plan.is_calm),
                outcome,
                found,
                reaches: self
                    .replay
                    .as_ref()
                    .map_or_else(Vec::new, |replay| replay.reaches.clone()),
            }),
            ..self.clone()
        }
    }
}

fn lines(texts: &[String]) -> Result<Vec<Planned>, String> {
    texts.iter().map(|line| line.parse()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        title = "A test"
        length = "15s"
        script = ["at 8s..10s: kill primary", "when commit 1..4 + 0ms..50ms: kill leader for 1s..2s"]
        [expect]
        promotions = 1
        [faults]
        daemons_down = 1
    "#;

    #[test]
    fn a_seed_makes_one_plan_and_a_replay_file_repeats_it() {
        let scenario = Scenario::parse(TEXT).unwrap();
        for seed in 0..40 {
            let plan = scenario.plan(seed, None).unwrap();
            assert_eq!(plan, scenario.plan(seed, None).unwrap());
            let repeated = |plan: &Plan| {
                let replay = scenario.with_replay(plan, "madsim", None);
                let again = Scenario::parse(&replay.write().unwrap()).unwrap();
                assert_eq!(again, replay);
                assert_eq!(again.has_operators(plan), scenario.has_operators(plan));
                let is_quorum_first = |scenario: &Scenario| scenario.heals_quorum_first(seed);
                assert_eq!(is_quorum_first(&again), is_quorum_first(&scenario));
                again.plan(seed, None).unwrap()
            };
            assert_eq!(repeated(&plan), plan);
            assert!(!plan.is_calm || !scenario.has_operators(&plan));
            // A shrunk plan is not taken for the script because it is as long.
            let mut lines = plan.lines.clone();
            lines.reverse();
            lines.truncate(scenario.script.len());
            let shrunk = Plan {
                lines,
                is_calm: false,
                ..plan
            };
            assert_eq!(repeated(&shrunk), shrunk);
        }
    }

    /// What a scenario expects is judged without faults alone: of either kind of servers, with hooks and without.
    #[test]
    fn calm_seeds_are_of_every_kind() {
        let scenario = Scenario::parse(TEXT).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..24 {
            let plan = scenario.plan(seed, None).unwrap();
            if plan.is_calm {
                let announcements = scenario.announcements(seed);
                let has_hooks = announcements.each > 0;
                seen.insert((plan.kind == Kind::Mysql, has_hooks, announcements.store));
            }
        }
        for is_mysql in [false, true] {
            for has_hooks in [false, true] {
                let is_seen = seen
                    .iter()
                    .any(|(mysql, hooks, _)| (*mysql, *hooks) == (is_mysql, has_hooks));
                assert!(is_seen, "mysql {is_mysql}, hooks {has_hooks}: {seen:?}");
            }
        }
        assert!(seen.iter().any(|(.., store)| *store), "{seen:?}");
    }

    #[test]
    fn what_is_taken_out_of_a_calm_plan_makes_it_another() {
        let scenario = Scenario::parse(TEXT).unwrap();
        let plan = scenario.plan(0, None).unwrap();
        assert!(plan.is_calm);
        let mut replay = scenario.with_replay(&plan, "madsim", None);
        replay.replay.as_mut().unwrap().plan.pop();
        assert!(!replay.plan(0, None).unwrap().is_calm);
    }

    #[test]
    fn only_what_a_mistake_comes_to_is_to_come_again() {
        let scenario = Scenario::parse(TEXT).unwrap();
        let failure = Failure::Safety("one leader: two".to_owned());
        let mut plan = scenario.plan(1, None).unwrap();
        let replay = |plan: &Plan| {
            let written = scenario.with_replay(plan, "madsim", Some(&failure));
            written.replay.unwrap()
        };
        let told = failure.to_string();
        let (outcome, found) = (replay(&plan).outcome, replay(&plan).found);
        assert_eq!((outcome.as_str(), found.as_str()), ("", told.as_str()));
        plan.mistake = Some(Mutant::OwnClock);
        let (outcome, found) = (replay(&plan).outcome, replay(&plan).found);
        assert_eq!((outcome.as_str(), found.as_str()), (told.as_str(), ""));
        let replay_file = scenario.with_replay(&plan, "madsim", Some(&failure));
        assert!(replay_file.plan(1, Some(Mutant::AnyTarget)).is_err());
    }

    #[test]
    fn a_run_that_does_not_come_to_what_it_is_kept_for_says_so() {
        let scenario = Scenario::parse(TEXT).unwrap();
        let plan = scenario.plan(1, None).unwrap();
        let lines = [
            "8.000 scenario fault kill m1",
            "8.100 n1 wire fault thaw m1",
            "8.200 n1 commit 1-2-3 begins",
        ]
        .map(str::to_owned);
        let reached = |texts: &[&str]| {
            let mut replay = scenario.with_replay(&plan, "madsim", None).replay.unwrap();
            replay.reaches = texts.iter().map(|text| (*text).to_owned()).collect();
            replay.reached(&lines)
        };
        assert_eq!(reached(&[]), Ok(()));
        assert_eq!(reached(&["fault kill m1", "n1 commit"]), Ok(()));
        let unreached = |texts: &[&str], why: &str| {
            let told = reached(texts).unwrap_err();
            assert!(told.contains(why) && told.contains("--story"), "{told}");
        };
        unreached(&["kill m2"], "no line with 'kill m2':");
        // Out of order, and in a line that nobody is told.
        unreached(&["n1 commit", "kill m1"], "'kill m1' behind 'n1 commit'");
        unreached(&["thaw m1"], "'thaw m1'");
    }

    #[test]
    fn wrong_files_are_refused_with_the_reason() {
        for (change, reason) in [
            (("15s", "15"), "no time"),
            (("length", "lenght"), "lenght"),
            (("kill primary", "kill"), "nothing that can be done"),
            (("daemons_down = 1", "daemons_down = 99"), "daemons_down"),
            (("length", "engines = []\nlength"), "engines"),
            (("length", "engines = [\"madsin\"]\nlength"), "madsin"),
            (("kill primary", "kill prymary"), "prymary"),
            (
                (
                    "[expect]",
                    "[replay]\nseed = 1\nengine = \"madsin\"\nplan = []\n[expect]",
                ),
                "madsin",
            ),
        ] {
            let error = Scenario::parse(&TEXT.replace(change.0, change.1)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
