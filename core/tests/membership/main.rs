//! Changes of the raft members: a model cluster in which every entry is committed at once and daemons are wiped, cut off,
//! replaced and reconfigured; and what must hold whatever happens.

mod model;

use std::time::Duration;

use model::{Model, addr, id};
use orchestrator_core::{
    membership::{Move, Word},
    replicated::ChangeCause,
};

const SEC: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_done_while_nothing_differs() {
    let mut model = Model::new(3);
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    assert_eq!(model.entries_of_members, 1);
    // Everybody is described, and the lists they came with are known and ask for nothing.
    for node in 1..=3 {
        assert!(model.state.member(id(node)).is_some());
        let row = model.state.declaration(id(node)).expect("a list");
        assert!(row.identities.is_empty());
    }
}

/// Two of the three that the lists name formed a cluster on an operator's word, and have a sight of before that at first.
#[test]
fn one_that_was_missing_when_the_cluster_was_formed_is_let_in_when_it_comes() {
    let mut model = Model::new(2);
    for node in [1, 2] {
        model.configure(node, &[1, 2, 3]);
        model.came_with(node, None);
    }
    model.run(SEC);
    for node in [1, 2] {
        assert_eq!(model.state.declaration(id(node)), None);
        model.came_with(node, Some(&[1, 2]));
    }
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2]);
    model.start(3, &addr(3), &[1, 2, 3]);
    model.run(20 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
}

#[test]
fn a_wiped_machine_takes_its_old_place_after_the_silence() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.wipe(3, 13);
    model.run(25 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    assert!(
        model.why(13).contains("silent for less than 30 s"),
        "{}",
        model.why(13)
    );
    model.run(15 * SEC);
    assert_eq!(model.voters(), [1, 2, 13]);
    assert!(model.state.member(id(3)).is_none(), "who left is described");
    assert_eq!(model.why(13), "");
}

/// It died before it could describe itself.
#[test]
fn a_machine_that_is_wiped_at_once_takes_its_old_place_too() {
    let mut model = Model::new(3);
    model.wipe(3, 13);
    model.run(SEC);
    assert_eq!(model.state.member(id(3)), None);
    model.run(40 * SEC);
    assert_eq!(model.voters(), [1, 2, 13]);
}

#[test]
fn one_address_is_swapped_three_times_an_hour() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    for newcomer in [13, 23, 33] {
        model.wipe(3, newcomer);
        model.run(45 * SEC);
        assert_eq!(model.voters(), [1, 2, newcomer]);
    }
    model.wipe(3, 43);
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2, 33]);
    assert!(
        model.why(43).contains("RaftReplacePerHour"),
        "{}",
        model.why(43)
    );
    model.run(3600 * SEC);
    assert_eq!(model.voters(), [1, 2, 43]);
}

#[test]
fn a_member_that_lives_is_not_swapped_and_an_address_must_lead_to_the_newcomer() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    // Another machine with a copy of node 3's configuration.
    model.start(13, &addr(3), &[1, 2, 3]);
    model.run(120 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    // Node 3 goes, but its address does not lead to the copy.
    model.stop(3);
    model.run(120 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    assert!(
        model.why(13).contains("does not lead to it"),
        "{}",
        model.why(13)
    );
}

#[test]
fn a_list_is_obeyed_once_a_majority_declares_it() {
    for order in [[1, 2], [2, 1]] {
        let mut model = Model::new(3);
        model.run(5 * SEC);
        model.stop(3);
        model.start(9, &addr(9), &[1, 2, 9]);
        model.run(300 * SEC);
        assert_eq!(model.voters(), [1, 2, 3], "node 9 came in uninvited");
        assert!(
            model.why(9).contains("no member has n9:1"),
            "{}",
            model.why(9)
        );
        model.configure(order[0], &[1, 2, 9]);
        model.run(60 * SEC);
        assert_eq!(model.voters(), [1, 2, 3], "one of three is no majority");
        assert!(model.why(9).contains("1 of 3 members"), "{}", model.why(9));
        model.configure(order[1], &[1, 2, 9]);
        model.run(20 * SEC);
        assert_eq!(model.voters(), [1, 2, 9]);
    }
}

#[test]
fn the_replaced_one_may_still_run() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.start(9, &addr(9), &[1, 2, 9]);
    model.configure(1, &[1, 2, 9]);
    model.configure(2, &[1, 2, 9]);
    model.run(30 * SEC);
    assert_eq!(model.voters(), [1, 2, 9]);
}

#[test]
fn the_leader_may_be_the_one_to_go() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.leader = 3;
    model.start(9, &addr(9), &[1, 2, 9]);
    model.configure(1, &[1, 2, 9]);
    model.configure(2, &[1, 2, 9]);
    model.run(30 * SEC);
    assert_eq!(model.voters(), [1, 2, 9]);
    assert_ne!(model.leader, 3);
}

#[test]
fn a_list_does_not_shrink_the_cluster_and_a_typing_error_is_not_obeyed() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    for node in [1, 2] {
        model.configure(node, &[1, 2]);
    }
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    assert!(
        model.waiting().contains("raft-remove-peer"),
        "{}",
        model.waiting()
    );
    // Nobody answers at the address that was mistyped.
    for node in [1, 2] {
        model.configure(node, &[1, 2, 99]);
    }
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    // Two entries that lead to one daemon.
    model.start(99, &addr(99), &[1, 2, 99]);
    model.alias(77, 2);
    for node in [1, 2] {
        model.configure(node, &[1, 2, 77]);
    }
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
}

#[test]
fn a_change_by_verb_voids_what_was_declared_before() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.start(9, &addr(9), &[1, 2, 9]);
    model.configure(1, &[1, 2, 9]);
    model.run(10 * SEC);
    model.start(8, &addr(8), &[1, 2, 3, 8]);
    model.run(5 * SEC);
    model.operator(&[1, 2, 3, 8]);
    model.run(10 * SEC);
    assert_eq!(model.voters(), [1, 2, 3, 8]);
    model.configure(2, &[1, 2, 9]);
    model.configure(3, &[1, 2, 9]);
    model.run(30 * SEC);
    assert_eq!(
        model.voters(),
        [1, 2, 3, 8],
        "a list of before the change counted"
    );
    // And a file that was not touched since is not declared again by a restart.
    model.restart(1);
    model.run(30 * SEC);
    assert_eq!(model.voters(), [1, 2, 3, 8]);
}

#[test]
fn a_fresh_identity_declares_nothing() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.start(9, &addr(9), &[1, 2, 9]);
    model.configure(1, &[1, 2, 9]);
    model.run(5 * SEC);
    // Node 3 comes back from nothing with the new list: it would be the second of three.
    model.wipe(3, 13);
    model.configure(13, &[1, 2, 9]);
    model.run(120 * SEC);
    assert!(
        model
            .state
            .declarations()
            .all(|(node, row)| node != id(13) || row.identities.is_empty())
    );
    assert!(!model.voters().contains(&9), "{:?}", model.voters());
}

#[test]
fn a_newcomer_that_dies_while_it_is_let_in_is_given_up() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.never_catches_up.insert(9);
    model.stop(3);
    model.start(9, &addr(9), &[1, 2, 9]);
    model.configure(1, &[1, 2, 9]);
    model.configure(2, &[1, 2, 9]);
    model.run(10 * SEC);
    assert_eq!(model.learners(), [9]);
    model.stop(9);
    model.run(60 * SEC);
    assert_eq!((model.voters(), model.learners()), (vec![1, 2, 3], vec![]));
    assert!(model.state.given_up().is_some());
    // It comes back as somebody else: the list means that one, and it is let in.
    model.start(19, &addr(9), &[1, 2, 9]);
    model.run(120 * SEC);
    assert_eq!(model.voters(), [1, 2, 19]);
}

#[test]
fn one_that_gets_the_log_too_slowly_is_given_up() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.never_catches_up.insert(13);
    model.wipe(3, 13);
    model.run(700 * SEC);
    assert!(
        model
            .state
            .given_up()
            .is_some_and(|given_up| given_up.reason.contains("600 s"))
    );
    assert_eq!(model.voters(), [1, 2, 3]);
}

#[test]
fn a_majority_of_the_wanted_must_live() {
    let mut model = Model::new(5);
    model.run(5 * SEC);
    model.start(9, &addr(9), &[1, 2, 3, 9]);
    model.stop(2);
    model.stop(3);
    model.run(5 * SEC);
    // The old members have a majority, and of these four only two live.
    model.operator(&[1, 2, 3, 9]);
    model.run(20 * SEC);
    assert_eq!(model.voters(), [1, 2, 3, 4, 5]);
    assert!(
        model.waiting().contains("only 2 of the 4"),
        "{}",
        model.waiting()
    );
}

#[test]
fn the_next_leader_finishes_a_change_first() {
    for steps in 1..6 {
        let mut model = Model::new(3);
        model.run(5 * SEC);
        model.start(9, &addr(9), &[1, 2, 9]);
        model.configure(1, &[1, 2, 9]);
        model.configure(2, &[1, 2, 9]);
        model.stop_after_moves = Some(steps);
        model.run(30 * SEC);
        model.stop_after_moves = None;
        model.leader = 2;
        model.run(60 * SEC);
        assert_eq!(model.voters(), [1, 2, 9], "after {steps} moves");
    }
}

#[test]
fn a_restarted_leader_hears_the_newcomer_before_it_judges_it() {
    for steps in 1..6 {
        let mut model = Model::new(3);
        model.run(5 * SEC);
        model.start(9, &addr(9), &[1, 2, 9]);
        model.configure(1, &[1, 2, 9]);
        model.configure(2, &[1, 2, 9]);
        model.stop_after_moves = Some(steps);
        model.run(30 * SEC);
        model.stop_after_moves = None;
        model.leader = 2;
        model.unheard.insert(9);
        model.run(3 * SEC);
        model.unheard.clear();
        model.run(20 * SEC);
        assert_eq!(model.voters(), [1, 2, 9], "after {steps} moves");
        assert!(model.state.given_up().is_none(), "after {steps} moves");
    }
}

#[test]
fn halves_are_joined_before_anything_else() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.start(9, &addr(9), &[1, 2, 3]);
    model.seat(&[&[1, 2, 3]], &[9]);
    model.catch_up(9);
    model.seat(&[&[1, 2, 3], &[1, 2, 3, 9]], &[]);
    assert!(matches!(
        model.next(),
        Some(Move::Seat { members, .. }) if members.settled().is_some()
    ));
}

#[test]
fn versions_are_switched_on_when_all_read_them() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    for node in [1, 2] {
        model.upgrade(node, 2);
    }
    model.run(30 * SEC);
    assert_eq!(model.state.versions().command, 1);
    // The last one is upgraded, and another that is down at that time comes back as it was before.
    model.stop(2);
    model.run(5 * SEC);
    model.upgrade(3, 2);
    model.run(20 * SEC);
    assert_eq!(model.state.versions().command, 1);
    model.upgrade(2, 1);
    model.back_at(2, 12);
    model.run(30 * SEC);
    assert_eq!(model.state.versions().command, 1);
    model.upgrade(2, 2);
    model.run(30 * SEC);
    assert_eq!(model.state.versions().command, 2);
    // Who does not read what is in use is not let in.
    model.wipe(3, 13);
    model.upgrade(13, 1);
    model.run(120 * SEC);
    assert_eq!(model.voters(), [1, 2, 3]);
    assert!(model.why(13).contains("upgrade it"), "{}", model.why(13));
}

/// The log has it as it was while the next release was installed there, and it leads before it has said otherwise.
#[test]
fn a_leader_switches_nothing_on_that_it_does_not_read_itself() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.upgrade(2, 2);
    model.run(5 * SEC);
    model.say_nothing.insert(2);
    model.upgrade(2, 1);
    model.lead_at(2);
    for node in [1, 3] {
        model.upgrade(node, 2);
    }
    model.run(30 * SEC);
    assert_eq!(model.state.versions().command, 1);
    model.upgrade(2, 2);
    model.run(30 * SEC);
    assert_eq!(model.state.versions().command, 2);
}

#[test]
fn two_with_one_address_are_swapped_one_after_the_other() {
    let mut model = Model::new(5);
    model.run(5 * SEC);
    model.wipe(4, 14);
    model.wipe(5, 15);
    model.run(60 * SEC);
    assert_eq!(model.voters(), [1, 2, 3, 14, 15]);
}

#[test]
fn an_entry_that_does_not_answer_is_named() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.configure(1, &[1, 2, 99]);
    let word = model.word(1);
    assert!(
        matches!(&word, Some(Word::Not(why)) if why.contains("n99:1")),
        "{word:?}"
    );
}

#[test]
fn a_swap_is_recorded_with_its_cause() {
    let mut model = Model::new(3);
    model.run(5 * SEC);
    model.never_catches_up.insert(13);
    model.wipe(3, 13);
    model.run(40 * SEC);
    let change = model.state.member_change().expect("a change");
    assert!(matches!(&change.cause, ChangeCause::Swapped { former, .. } if *former == id(3)));
}

mod random {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Event {
        Run(u64),
        Stop(u64),
        Back(u64),
        Wipe(u64),
        Configure(u64, usize),
        Lead(u64),
        Slow(bool),
        StopAfter(Option<usize>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (1..50u64).prop_map(Event::Run),
            1 => (1..=5u64).prop_map(Event::Stop),
            2 => (1..=5u64).prop_map(Event::Back),
            2 => (1..=5u64).prop_map(Event::Wipe),
            3 => ((1..=5u64), 0..4usize).prop_map(|(node, list)| Event::Configure(node, list)),
            2 => (1..=5u64).prop_map(Event::Lead),
            1 => any::<bool>().prop_map(Event::Slow),
            1 => prop::option::of(0..3usize).prop_map(Event::StopAfter),
        ]
    }

    const LISTS: [&[u64]; 4] = [&[1, 2, 3], &[1, 2, 4], &[1, 4, 5], &[1, 2]];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        /// The model asserts at every entry what must always hold; in the end, with everybody up, nothing stays half
        /// done.
        #[test]
        fn whatever_happens(events in proptest::collection::vec(event(), 1..40)) {
            let mut model = Model::new(3);
            model.run(5 * SEC);
            let mut fresh = 100;
            for event in events {
                match event {
                    Event::Run(secs) => model.run(Duration::from_secs(secs)),
                    Event::Stop(place) => model.stop_at(place),
                    Event::Back(place) => {
                        fresh += 1;
                        model.back_at(place, fresh);
                    }
                    Event::Wipe(place) => {
                        fresh += 1;
                        model.wipe_at(place, fresh);
                    }
                    Event::Configure(place, list) => model.configure_at(place, LISTS[list]),
                    Event::Lead(place) => model.lead_at(place),
                    Event::Slow(is_slow) => model.all_slow = is_slow,
                    Event::StopAfter(moves) => model.stop_after_moves = moves,
                }
            }
            model.all_slow = false;
            model.stop_after_moves = None;
            model.everybody_back();
            model.run(Duration::from_secs(1500));
            prop_assert!(!model.state.membership().members.is_joint());
            prop_assert!(model.learners().is_empty() || model.has_no_majority());
        }
    }
}
