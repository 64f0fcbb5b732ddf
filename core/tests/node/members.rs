//! What operators are answered who change the members: that it is done when it is, and never of another member than they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::{
    id::{Epoch, LogPosition, NodeId, RequestId},
    membership::{self, Listed, Move, Seen, Sight, Standing, View},
    node::{Effect, Identification, Input, Node, Output, RaftView, Reply, Request},
    policy::Policy,
    replicated::{Answer, ChangeCause, Command, Members, Replicated, Stamped, wire},
    time::{Mono, Now, Wall},
};
use rand::{SeedableRng as _, rngs::StdRng};

fn now() -> Now {
    Now {
        mono: Mono::from_elapsed(Duration::from_secs(1_000)),
        wall: Wall::from_secs(1_800_000_000),
    }
}

const EPOCH: Epoch = Epoch {
    term: 1,
    node: NodeId(1),
    boot: 1,
};

/// Node 1 leads; the others are `n2` and `n3`, unless said otherwise.
struct Leader {
    state: Replicated,
    sight: Sight,
    index: u64,
}

impl Leader {
    fn of(voters: &[u64]) -> Self {
        let mut leader = Self {
            state: Replicated::default(),
            sight: Sight::default(),
            index: 0,
        };
        leader.seat(voters);
        for node in voters {
            leader.describe(*node, &format!("n{node}"));
            leader.see(*node, &format!("n{node}"), Duration::ZERO);
        }
        leader
    }

    fn seat(&mut self, voters: &[u64]) {
        let members = Members {
            voters: vec![voters.iter().copied().map(NodeId).collect()],
            learners: BTreeSet::new(),
        };
        let at = self.position();
        self.state.seat(at, &members);
    }

    fn position(&mut self) -> LogPosition {
        self.index += 1;
        LogPosition {
            term: 1,
            node: NodeId(1),
            index: self.index - 1,
        }
    }

    fn apply(&mut self, command: Command) {
        let at = self.position();
        let wall = now().wall;
        let applied = self.state.apply(at, &Stamped { wall, command });
        assert!(
            !matches!(applied.answer, Answer::Refused(_)),
            "{:?}",
            applied.answer
        );
    }

    fn describe(&mut self, node: u64, address: &str) {
        self.apply(Command::DescribeMember {
            node: NodeId(node),
            raft_address: address.to_owned(),
            http_uri: String::new(),
            host_name: String::new(),
            build: String::new(),
            reads_command: 1,
            reads_snapshot: 1,
            original: None,
        });
    }

    /// Another daemon answered at its address, and was heard, so long ago.
    fn see(&mut self, node: u64, address: &str, ago: Duration) {
        if node == 1 {
            return;
        }
        let at = Mono::from_elapsed(Duration::from_secs(1_000) - ago);
        let seen = Seen {
            address: address.to_owned(),
            answers: Some(at),
            heard: Some(at),
            standing: Standing::Stranger,
            matched: Some(self.index),
            reads: Some(1),
        };
        self.sight.nodes.insert(NodeId(node), seen);
    }

    fn list(&mut self, entries: &[(&str, Option<u64>)]) {
        self.sight.listed = entries
            .iter()
            .map(|(entry, node)| Listed {
                entry: (*entry).to_owned(),
                node: node.map(NodeId),
            })
            .collect();
    }

    /// What is answered at once, and the members that are proposed.
    fn ask(&self, request: Request) -> (Option<Reply>, Option<BTreeSet<u64>>) {
        let (reply, proposed, _) = self.ask_and_see(request, &[]);
        (reply, proposed)
    }

    /// The same with what is seen so long afterwards; and where daemons are looked for.
    fn ask_and_see(
        &self,
        request: Request,
        later: &[(Duration, &Sight)],
    ) -> (Option<Reply>, Option<BTreeSet<u64>>, BTreeSet<String>) {
        let identification = Identification {
            host_name: String::from("n1"),
            token: String::from("t1"),
        };
        let mut node = Node::new(identification, Policy::default(), self.state.clone());
        let mut rng = StdRng::seed_from_u64(1);
        let voters = self.state.membership().members.voters.iter().flatten();
        let view = RaftView {
            node: NodeId(1),
            leading: Some(EPOCH),
            leader: Some(NodeId(1)),
            voters: voters.copied().collect(),
            healthy: true,
        };
        let mut out = Output::default();
        node.step(
            now(),
            &mut rng,
            Input::Sight(Box::new(self.sight.clone())),
            &mut out,
        );
        node.step(now(), &mut rng, Input::Raft(view), &mut out);
        let mut out = Output::default();
        node.step(
            now(),
            &mut rng,
            Input::Asked(RequestId(7), request),
            &mut out,
        );
        for (after, sight) in later {
            let mut now = now();
            now.mono = now.mono + *after;
            let sight = Box::new((*sight).clone());
            node.step(now, &mut rng, Input::Sight(sight), &mut out);
        }
        let mut replies = BTreeMap::new();
        let mut proposed = None;
        let mut greeted = BTreeSet::new();
        for effect in out.effects {
            match effect {
                Effect::Greet(addresses) => greeted.extend(addresses.into_keys()),
                Effect::Answer(id, reply) => {
                    replies.insert(id.0, reply);
                }
                Effect::Propose { bytes, .. } => {
                    let stamped = wire::decode_command(&bytes).expect("a command of ours");
                    if let Command::BeginMemberChange { wanted, .. } = stamped.command {
                        proposed = Some(wanted.iter().map(|node| node.0).collect());
                    }
                }
                _ => {}
            }
        }
        (replies.remove(&7), proposed, greeted)
    }
}

fn add(address: &str) -> Request {
    Request::AddPeer {
        address: address.to_owned(),
    }
}

fn remove(address: &str) -> Request {
    Request::RemovePeer {
        address: address.to_owned(),
    }
}

fn replace(former: &str, newcomer: &str) -> Request {
    Request::ReplacePeer {
        former: former.to_owned(),
        newcomer: newcomer.to_owned(),
    }
}

#[track_caller]
fn done((reply, proposed): (Option<Reply>, Option<BTreeSet<u64>>)) {
    assert_eq!(reply, Some(Reply::Decided(Answer::Done)));
    assert_eq!(proposed, None);
}

#[track_caller]
fn refused((reply, proposed): (Option<Reply>, Option<BTreeSet<u64>>), why: &str) {
    let Some(Reply::Refused(refusal)) = &reply else {
        panic!("{reply:?} {proposed:?}");
    };
    assert!(refusal.to_string().contains(why), "{refusal}");
    assert_eq!(proposed, None);
}

#[track_caller]
fn begins((reply, proposed): (Option<Reply>, Option<BTreeSet<u64>>), wanted: &[u64]) {
    assert_eq!(reply, None);
    assert_eq!(proposed, Some(wanted.iter().copied().collect()));
}

/// Who heard of no outcome asks once more.
#[test]
fn what_was_done_is_done() {
    let mut leader = Leader::of(&[1, 2, 4]);
    leader.list(&[("n1", Some(1)), ("n2", Some(2)), ("n3", None)]);
    done(leader.ask(add("n4")));
    done(leader.ask(remove("n3")));
    done(leader.ask(replace("n3", "n4")));
    leader.see(3, "n3", Duration::from_secs(60));
    leader.list(&[]);
    done(leader.ask(remove("n3")));
    done(leader.ask(replace("n3", "n4")));
    // Nobody ever heard of these.
    refused(leader.ask(remove("n9")), "no member has the address n9");
    refused(
        leader.ask(replace("n9", "n4")),
        "no member has the address n9",
    );
}

/// The list of one that is to take the leader's place names the others only: the leader dials it before it says no.
#[test]
fn a_newcomer_that_was_not_seen_is_looked_for() {
    let leader = Leader::of(&[1, 2, 3]);
    let mut seen = Leader::of(&[1, 2, 3]);
    seen.see(4, "n4", Duration::ZERO);
    let (soon, late) = (Duration::from_millis(600), Duration::from_secs(7));
    for (request, wanted) in [
        (add("n4"), [1, 2, 3, 4].as_slice()),
        (replace("n1", "n4"), [2, 3, 4].as_slice()),
    ] {
        let (reply, proposed, greeted) = leader.ask_and_see(request.clone(), &[]);
        assert_eq!((reply, proposed), (None, None));
        assert!(greeted.contains("n4"), "{greeted:?}");
        let (reply, proposed, _) =
            leader.ask_and_see(request.clone(), &[(soon, &seen.sight), (late, &seen.sight)]);
        begins((reply, proposed), wanted);
        let unseen = [(soon, &leader.sight), (late, &leader.sight)];
        let (reply, proposed, _) = leader.ask_and_see(request, &unseen);
        refused((reply, proposed), "start it first");
    }
}

/// The own list has another name for a member than the one that it advertises.
#[test]
fn a_member_is_known_by_either_of_its_names() {
    let mut leader = Leader::of(&[1, 2]);
    leader.seat(&[1, 2, 3]);
    leader.describe(3, "10.0.0.3");
    leader.see(3, "10.0.0.3", Duration::ZERO);
    leader.list(&[("n1", Some(1)), ("n2", Some(2)), ("n3", Some(3))]);
    begins(leader.ask(remove("n3")), &[1, 2]);
    begins(leader.ask(remove("10.0.0.3")), &[1, 2]);
    done(leader.ask(replace("n3", "10.0.0.3")));
    // It is gone, and so is what told that this entry is its.
    leader.see(3, "10.0.0.3", Duration::from_secs(60));
    leader.list(&[("n1", Some(1)), ("n2", Some(2)), ("n3", None)]);
    refused(leader.ask(remove("n3")), "no member has the address n3");
    begins(leader.ask(remove("10.0.0.3")), &[1, 2]);
}

/// A machine that lost its memory answers at the address of the member that it was.
#[test]
fn a_member_is_not_taken_for_who_came_in_its_place() {
    let mut leader = Leader::of(&[1, 2, 3]);
    leader.see(3, "n3", Duration::from_secs(10));
    leader.see(13, "n3", Duration::ZERO);
    refused(leader.ask(add("n3")), "another identity answers there");
    refused(
        leader.ask(replace("n2", "n3")),
        "another identity answers there",
    );
    begins(leader.ask(remove("n3")), &[1, 2]);
    // It took that place, and what it was before is remembered for a while.
    let mut leader = Leader::of(&[1, 2]);
    leader.seat(&[1, 2, 13]);
    leader.describe(13, "n3");
    leader.see(3, "n3", Duration::from_secs(10));
    leader.see(13, "n3", Duration::ZERO);
    done(leader.ask(add("n3")));
    begins(leader.ask(remove("n3")), &[1, 2]);
}

/// That would be one member less, of which nobody spoke.
#[test]
fn a_member_takes_no_other_members_place() {
    let leader = Leader::of(&[1, 2, 3]);
    refused(leader.ask(replace("n3", "n2")), "raft-remove-peer");
}

/// There is nobody to lead meanwhile but this daemon.
#[test]
fn the_only_member_is_replaced() {
    let mut leader = Leader::of(&[1]);
    leader.see(4, "n4", Duration::ZERO);
    begins(leader.ask(replace("n1", "n4")), &[4]);
    let base = leader.state.membership().at.index;
    leader.apply(Command::BeginMemberChange {
        epoch: EPOCH,
        base,
        wanted: [4].map(NodeId).into(),
        cause: ChangeCause::Operator {
            request: String::from("an operator replaces n1 by n4"),
        },
    });
    let at = leader.position();
    let members = Members {
        voters: vec![[1].map(NodeId).into()],
        learners: [4].map(NodeId).into(),
    };
    leader.state.seat(at, &members);
    leader.see(4, "n4", Duration::ZERO);
    let judgement = membership::judge(&View {
        now: now(),
        own: NodeId(1),
        replicated: &leader.state,
        sight: &leader.sight,
        leading_since: Some(Mono::ZERO),
    });
    let Some(Move::Seat { members, .. }) = &judgement.next else {
        panic!("{judgement:?}");
    };
    assert_eq!(
        members.voters,
        [[1].map(NodeId).into(), [4].map(NodeId).into()]
    );
}

#[test]
fn who_is_being_added_is_not_removed_already() {
    let mut leader = Leader::of(&[1, 2, 3]);
    leader.see(4, "n4", Duration::ZERO);
    begins(leader.ask(add("n4")), &[1, 2, 3, 4]);
    let base = leader.state.membership().at.index;
    leader.apply(Command::BeginMemberChange {
        epoch: EPOCH,
        base,
        wanted: [1, 2, 3, 4].map(NodeId).into(),
        cause: ChangeCause::Operator {
            request: String::from("an operator adds n4"),
        },
    });
    // Asked once more it is waited for.
    assert_eq!(leader.ask(add("n4")), (None, None));
    let (reply, _) = leader.ask(remove("n4"));
    assert_ne!(reply, Some(Reply::Decided(Answer::Done)));
}
