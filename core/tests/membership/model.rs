//! A cluster of daemons that see each other, with a log in which everything that a majority could commit is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use orchestrator_core::{
    id::{Epoch, LogPosition, NodeId},
    membership::{self, Listed, Move, Own, Seen, Sight, Standing, View, Word},
    replicated::{Answer, ChangeCause, Command, Members, Replicated, Stamped},
    time::{Mono, Now, Wall},
};

const START: u64 = 1_800_000_000;
const STEP: Duration = Duration::from_millis(500);

pub fn id(node: u64) -> NodeId {
    NodeId(node)
}

pub fn addr(place: u64) -> String {
    format!("n{place}:1")
}

#[derive(Debug, Clone)]
struct Daemon {
    /// What it advertises.
    address: String,
    list: Vec<String>,
    /// The list that its cluster was formed with, or with which it was let in; none: it does not know so far.
    came_with: Option<Vec<String>>,
    up: bool,
    reads: u32,
    /// What it holds of the log.
    matched: u64,
    heard: Option<Mono>,
}

pub struct Model {
    pub state: Replicated,
    pub leader: u64,
    pub never_catches_up: BTreeSet<u64>,
    /// Known from the files of whoever looks, who was started since and has not heard of them.
    pub unheard: BTreeSet<u64>,
    /// They do not describe themselves.
    pub say_nothing: BTreeSet<u64>,
    pub all_slow: bool,
    /// The leader makes so many moves and then none.
    pub stop_after_moves: Option<usize>,
    pub entries_of_members: usize,
    daemons: BTreeMap<u64, Daemon>,
    /// Which daemon answers at an address.
    answers: BTreeMap<String, u64>,
    index: u64,
    term: u64,
    at: Duration,
    led_by: u64,
    leading_since: Mono,
    waiting: String,
}

impl Model {
    pub fn new(count: u64) -> Self {
        let mut model = Self {
            state: Replicated::default(),
            leader: 1,
            never_catches_up: BTreeSet::new(),
            unheard: BTreeSet::new(),
            say_nothing: BTreeSet::new(),
            all_slow: false,
            stop_after_moves: None,
            entries_of_members: 0,
            daemons: BTreeMap::new(),
            answers: BTreeMap::new(),
            // A newcomer has a way to go.
            index: 1_000,
            term: 1,
            at: Duration::from_secs(100),
            led_by: 1,
            leading_since: Mono::from_elapsed(Duration::from_secs(100)),
            waiting: String::new(),
        };
        let all: Vec<u64> = (1..=count).collect();
        for node in 1..=count {
            model.start(node, &addr(node), &all);
        }
        let voters = all.iter().map(|node| id(*node)).collect();
        let at = model.position();
        let members = Members {
            voters: vec![voters],
            learners: BTreeSet::new(),
        };
        model.put(at, &members);
        model
    }

    // --- what tests do ---

    pub fn start(&mut self, node: u64, address: &str, list: &[u64]) {
        let list: Vec<String> = list.iter().map(|place| addr(*place)).collect();
        self.daemons.insert(
            node,
            Daemon {
                address: address.to_owned(),
                came_with: Some(list.clone()),
                list,
                up: true,
                reads: 1,
                matched: 0,
                heard: None,
            },
        );
        self.answers.entry(address.to_owned()).or_insert(node);
    }

    pub fn stop(&mut self, node: u64) {
        let daemon = self.daemons.get_mut(&node).expect("a daemon");
        daemon.up = false;
        let address = daemon.address.clone();
        if self.answers.get(&address) == Some(&node) {
            // A test may have somebody else answer there.
            let stays_dark = self
                .daemons
                .values()
                .any(|daemon| daemon.up && daemon.address == address);
            if stays_dark {
                self.answers.insert(address, 0);
            } else {
                self.answers.remove(&address);
            }
        }
    }

    /// The machine is provisioned anew: another identity at the same address.
    pub fn wipe(&mut self, node: u64, newcomer: u64) {
        let address = addr(node);
        let former = self.answers.remove(&address).unwrap_or(node);
        let list = self.daemons[&former].list.clone();
        self.daemons.get_mut(&former).expect("a daemon").up = false;
        self.start(newcomer, &address, &[]);
        let started = self.daemons.get_mut(&newcomer).expect("started");
        started.came_with = Some(list.clone());
        started.list = list;
        if self.leader == former {
            self.elect_any();
        }
    }

    pub fn configure(&mut self, node: u64, list: &[u64]) {
        self.daemons.get_mut(&node).expect("a daemon").list =
            list.iter().map(|place| addr(*place)).collect();
    }

    pub fn restart(&mut self, _node: u64) {}

    /// The daemon learns with which list its cluster was formed, or does not know.
    pub fn came_with(&mut self, node: u64, list: Option<&[u64]>) {
        let list = list.map(|list| list.iter().map(|place| addr(*place)).collect());
        self.daemons.get_mut(&node).expect("a daemon").came_with = list;
    }

    pub fn alias(&mut self, place: u64, node: u64) {
        self.answers.insert(addr(place), node);
    }

    pub fn upgrade(&mut self, node: u64, reads: u32) {
        self.daemons.get_mut(&node).expect("a daemon").reads = reads;
    }

    pub fn operator(&mut self, wanted: &[u64]) {
        let answer = self.apply(Command::BeginMemberChange {
            epoch: self.epoch(),
            base: self.state.membership().at.index,
            wanted: wanted.iter().map(|node| id(*node)).collect(),
            cause: ChangeCause::Operator {
                request: String::from("asked for"),
            },
        });
        assert!(matches!(answer, Answer::Numbered(_)), "{answer:?}");
    }

    pub fn seat(&mut self, voters: &[&[u64]], learners: &[u64]) {
        let set = |nodes: &[u64]| nodes.iter().map(|node| id(*node)).collect();
        let members = Members {
            voters: voters.iter().map(|nodes| set(nodes)).collect(),
            learners: set(learners),
        };
        let at = self.position();
        self.put(at, &members);
    }

    pub fn catch_up(&mut self, node: u64) {
        self.daemons.get_mut(&node).expect("a daemon").matched = self.index;
    }

    // --- by place, for random histories ---

    pub fn stop_at(&mut self, place: u64) {
        if let Some(node) = self.answers.get(&addr(place)).copied() {
            self.stop(node);
        }
    }

    /// Whoever ran there last, or somebody new.
    pub fn back_at(&mut self, place: u64, fresh: u64) {
        if self.answers.contains_key(&addr(place)) {
            return;
        }
        let last = self
            .daemons
            .iter()
            .filter(|(_, daemon)| daemon.address == addr(place))
            .map(|(node, _)| *node)
            .next_back();
        match last {
            Some(node) => {
                self.daemons.get_mut(&node).expect("there").up = true;
                self.answers.insert(addr(place), node);
            }
            None => self.start(fresh, &addr(place), &[1, 2, place]),
        }
    }

    pub fn wipe_at(&mut self, place: u64, fresh: u64) {
        let there = self.answers.contains_key(&addr(place));
        // A majority that loses its memory is another story.
        let memory = self.living_voters() > self.state.membership().members.all().len() / 2 + 1;
        if there && memory && !self.state.membership().members.is_joint() {
            self.wipe(place, fresh);
        }
    }

    pub fn configure_at(&mut self, place: u64, list: &[u64]) {
        if let Some(node) = self.answers.get(&addr(place)).copied() {
            self.configure(node, list);
        }
    }

    pub fn lead_at(&mut self, place: u64) {
        if let Some(node) = self.answers.get(&addr(place)).copied()
            && self.state.membership().members.is_voter(id(node))
        {
            self.leader = node;
        }
    }

    pub fn everybody_back(&mut self) {
        for place in 1..=5 {
            self.back_at(place, 1_000 + place);
        }
    }

    pub fn has_no_majority(&self) -> bool {
        !self.can_commit(&self.state.membership().members)
    }

    fn living_voters(&self) -> usize {
        let members = &self.state.membership().members;
        self.daemons
            .iter()
            .filter(|(node, daemon)| daemon.up && members.is_voter(id(**node)))
            .count()
    }

    // --- what tests look at ---

    pub fn voters(&self) -> Vec<u64> {
        let members = &self.state.membership().members;
        let voters = members.settled().expect("one set of voters");
        voters.iter().map(|node| node.0).collect()
    }

    pub fn learners(&self) -> Vec<u64> {
        let members = &self.state.membership().members;
        members.learners.iter().map(|node| node.0).collect()
    }

    pub fn why(&self, node: u64) -> String {
        let sight = self.sight(self.leader);
        let judgement = membership::judge(&self.view(self.leader, &sight));
        judgement
            .strangers
            .get(&id(node))
            .cloned()
            .unwrap_or_default()
    }

    pub fn waiting(&self) -> &str {
        &self.waiting
    }

    pub fn next(&self) -> Option<Move> {
        let sight = self.sight(self.leader);
        membership::judge(&self.view(self.leader, &sight)).next
    }

    pub fn word(&self, node: u64) -> Option<Word> {
        let sight = self.sight(node);
        let mut view = self.view(node, &sight);
        view.leading_since = None;
        membership::word(&view)
    }

    // --- time ---

    pub fn run(&mut self, duration: Duration) {
        let until = self.at + duration;
        while self.at < until {
            self.at += STEP;
            self.step();
        }
    }

    fn step(&mut self) {
        let members = self.state.membership().members.clone();
        let leads = self
            .daemons
            .get(&self.leader)
            .is_some_and(|daemon| daemon.up)
            && members.is_voter(id(self.leader))
            && self.can_commit(&members);
        if !leads {
            self.elect_any();
            return;
        }
        if self.led_by != self.leader {
            self.led_by = self.leader;
            self.term += 1;
            self.leading_since = self.mono();
        }
        for (node, daemon) in &mut self.daemons {
            if !daemon.up {
                continue;
            }
            daemon.heard = Some(Mono::from_elapsed(self.at));
            let is_slow = self.all_slow || self.never_catches_up.contains(node);
            if members.is_voter(id(*node)) || (members.contains(id(*node)) && !is_slow) {
                daemon.matched = self.index;
            }
        }
        self.say();
        let sight = self.sight(self.leader);
        let judgement = membership::judge(&self.view(self.leader, &sight));
        self.waiting = judgement.waiting.unwrap_or_default();
        if let Some(next) = judgement.next {
            if let Some(left) = &mut self.stop_after_moves {
                if *left == 0 {
                    return;
                }
                *left -= 1;
            }
            self.make(next);
        }
    }

    /// Every member says what it has to say.
    fn say(&mut self) {
        let nodes: Vec<u64> = self.daemons.keys().copied().collect();
        for node in nodes {
            let daemon = self.daemons[&node].clone();
            if !daemon.up || !self.state.membership().members.contains(id(node)) {
                continue;
            }
            let described = self.state.member(id(node));
            let is_news = described.is_none_or(|row| row.reads_command != daemon.reads);
            if is_news && !self.say_nothing.contains(&node) {
                self.apply(Command::DescribeMember {
                    node: id(node),
                    raft_address: daemon.address.clone(),
                    http_uri: String::new(),
                    host_name: String::new(),
                    build: String::new(),
                    reads_command: daemon.reads,
                    reads_snapshot: daemon.reads,
                    original: None,
                });
            }
            let (entries, identities) = match self.word(node) {
                Some(Word::First(entries)) => (entries, BTreeSet::new()),
                Some(Word::Wants(entries, identities)) => (entries, identities),
                Some(Word::Not(_)) | None => continue,
            };
            self.apply(Command::Declare {
                node: id(node),
                entries,
                identities: identities.into_iter().collect(),
            });
        }
    }

    fn make(&mut self, next: Move) {
        let epoch = self.epoch();
        match next {
            Move::Begin {
                base,
                wanted,
                cause,
            } => {
                let answer = self.apply(Command::BeginMemberChange {
                    epoch,
                    base,
                    wanted: wanted.into_iter().collect(),
                    cause,
                });
                assert!(matches!(answer, Answer::Numbered(_)), "{answer:?}");
            }
            Move::GiveUp { base, reason } => {
                let answer = self.apply(Command::EndMemberChange {
                    epoch,
                    base,
                    reason,
                });
                assert_eq!(answer, Answer::Done);
            }
            Move::SwitchOn(versions) => {
                self.apply(Command::SetVersion {
                    command: versions.command,
                    snapshot: versions.snapshot,
                });
            }
            Move::Seat { base, members, .. } => {
                assert_eq!(
                    base,
                    self.state.membership().at,
                    "decided from another membership"
                );
                let at = self.position();
                self.put(at, &members);
            }
            Move::HandOver(to) => {
                let whole = to.iter().find(|node| {
                    self.daemons
                        .get(&node.0)
                        .is_some_and(|daemon| daemon.up && daemon.matched + 16 >= self.index)
                });
                if let Some(node) = whole {
                    self.leader = node.0;
                }
            }
        }
    }

    /// Commits members, and asserts what must hold of them.
    fn put(&mut self, at: LogPosition, members: &Members) {
        let former = self.state.membership().members.clone();
        for set in &members.voters {
            assert!(
                set.len() <= former.voters.last().map_or(9, BTreeSet::len) + 1
                    || former.is_joint()
                    || members.is_joint()
            );
        }
        if !former.voters.is_empty() && former.voters != members.voters {
            // Consecutive memberships share a set of voters, so that their majorities meet.
            assert!(
                members.voters.iter().any(|set| former.voters.contains(set)),
                "{former} then {members}"
            );
            for voter in members.voters.iter().flatten() {
                assert!(former.contains(*voter), "{voter} votes and was no member");
                let daemon = &self.daemons[&voter.0];
                if !former.is_voter(*voter) {
                    assert!(
                        daemon.matched + 16 >= self.index - 1,
                        "{voter} votes without the log"
                    );
                }
            }
            assert!(self.can_commit(members), "{members} has no living majority");
        }
        self.entries_of_members += 1;
        self.state.seat(at, members);
        assert_eq!(self.state.membership().members, *members);
        assert_eq!(self.state.check_invariants(), Ok(()));
    }

    fn apply(&mut self, command: Command) -> Answer {
        let at = self.position();
        let wall = self.now().wall;
        self.state.apply(at, &Stamped { wall, command }).answer
    }

    fn elect_any(&mut self) {
        let members = self.state.membership().members.clone();
        if !self.can_commit(&members) {
            return;
        }
        let electable = self
            .daemons
            .iter()
            .find(|(node, daemon)| daemon.up && members.is_voter(id(**node)));
        if let Some((node, _)) = electable {
            self.leader = *node;
        }
    }

    fn can_commit(&self, members: &Members) -> bool {
        members.voters.iter().all(|set| {
            let living = set
                .iter()
                .filter(|node| self.daemons.get(&node.0).is_some_and(|daemon| daemon.up));
            living.count() * 2 > set.len()
        })
    }

    fn position(&mut self) -> LogPosition {
        self.index += 1;
        LogPosition {
            index: self.index,
            term: self.term,
            node: NodeId(0),
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch {
            term: self.term,
            node: id(self.leader),
            boot: 1,
        }
    }

    fn mono(&self) -> Mono {
        Mono::from_elapsed(self.at)
    }

    fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: Wall::from_secs(START) + self.at,
        }
    }

    fn view<'a>(&'a self, own: u64, sight: &'a Sight) -> View<'a> {
        View {
            now: self.now(),
            own: id(own),
            replicated: &self.state,
            sight,
            leading_since: Some(self.leading_since),
        }
    }

    fn sight(&self, own: u64) -> Sight {
        let members = &self.state.membership().members;
        let seen = |(node, daemon): (&u64, &Daemon)| {
            let answers = self.answers.get(&daemon.address) == Some(node) && daemon.up;
            let seen = Seen {
                address: daemon.address.clone(),
                answers: answers.then_some(self.mono()),
                heard: daemon.heard,
                standing: if members.contains(id(*node)) {
                    Standing::Member
                } else {
                    Standing::Stranger
                },
                matched: members.contains(id(*node)).then_some(daemon.matched),
                reads: Some(daemon.reads),
            };
            let seen = if self.unheard.contains(node) {
                Seen {
                    answers: None,
                    heard: None,
                    reads: None,
                    ..seen
                }
            } else {
                seen
            };
            (id(*node), seen)
        };
        let listed = |entry: &String| Listed {
            entry: entry.clone(),
            node: self
                .answers
                .get(entry)
                .filter(|node| self.daemons.get(node).is_some_and(|daemon| daemon.up))
                .map(|node| id(*node)),
        };
        Sight {
            own: Own {
                reads_command: self.daemons[&own].reads,
                reads_snapshot: self.daemons[&own].reads,
                ..Own::default()
            },
            came_with: self.daemons[&own].came_with.clone().unwrap_or_default(),
            listed: self.daemons[&own].list.iter().map(listed).collect(),
            nodes: self
                .daemons
                .iter()
                .filter(|(node, _)| **node != own)
                .map(seen)
                .collect(),
            last_index: self.index,
            replace_silent: Duration::from_secs(30),
            replace_per_hour: 3,
        }
    }
}
