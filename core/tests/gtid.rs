//! GTID algebra: what servers print, what is refused, and the laws against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::gtid::mariadb::{self, Domain, Last, ServerId};
use orchestrator_core::gtid::oracle::{self, INTERVALS_MAX, NUMBER_MAX, ParseError};
use orchestrator_core::gtid::{
    Difference, Flavour, FlavourMismatch, Gtid, GtidSet, Interval, MariadbGtidSet, OracleGtidSet,
    Origin, SetOrder, Tag, Uuid, check_parse,
};
use proptest::prelude::*;

const A: &str = "00006a9a-0000-0000-0000-00000000000a";
const B: &str = "11111111-2222-3333-4444-5555555555bb";
const C: &str = "cccccccc-0000-11ee-8c99-0242ac120002";

/// Letters before a colon stand for the UUIDs above.
fn full(text: &str) -> String {
    let entries = text
        .split(',')
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (letter, rest) = entry.split_once(':').expect("entry with a colon");
            let uuid = match letter {
                "a" => A,
                "b" => B,
                "c" => C,
                other => panic!("no UUID {other}"),
            };
            format!("{uuid}:{rest}")
        });
    entries.collect::<Vec<_>>().join(",")
}

fn set(text: &str) -> OracleGtidSet {
    full(text).parse().expect("a set")
}

fn uuid(text: &str) -> Uuid {
    text.parse().expect("a UUID")
}

fn position(text: &str) -> MariadbGtidSet {
    text.parse().expect("a position")
}

fn check(got: &OracleGtidSet, want: &str) {
    assert_eq!(got.to_string(), full(want));
}

// What MySQL prints ----------------------------------------------------------------------------------------

#[test]
fn mysql_text_survives_as_the_server_prints_it() {
    for printed in [
        "",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:23",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:11:47-49",
        "2174b383-5441-11e8-b90a-c80aa9429562:1-3,\n24da167a-0c0c-11e8-8442-00059a3c7b00:1-19",
        "ed102faf-eb00-11eb-8f20-0c5415bfaa1d:1-3:domain_1:1-3:domain_2:8-52",
        "ed102faf-eb00-11eb-8f20-0c5415bfaa1d:_tag_:1:5-9,\nfd102faf-eb00-11eb-8f20-0c5415bfaa1d:1-9223372036854775807",
    ] {
        let parsed: OracleGtidSet = printed.parse().expect(printed);
        assert_eq!(format!("{parsed:#}"), printed);
        assert_eq!(parsed.to_string(), printed.replace('\n', ""));
    }
}

#[test]
fn mysql_text_is_made_canonical() {
    for (given, want) in [
        ("b:7:5-6,a:3,b:1-2", "a:3,b:1-2:5-7"),
        ("a:1-5,a:4-9:12", "a:1-9:12"),
        ("a:3:2:1", "a:1-3"),
        ("a:1-10:2-3:5", "a:1-10"),
        ("a:00000000000000000000001", "a:1"),
        ("a:1:TAG:2", "a:1:tag:2"),
        ("a:zz:3:aa:1-2,a:1:zz:4", "a:1:aa:1-2:zz:3-4"),
        ("a:t:1,a:t:2,a:2,a:1", "a:1-2:t:1-2"),
        ("a:t:1:u:1:t:2", "a:t:1-2:u:1"),
    ] {
        check(&set(given), want);
    }
    let spaced = format!(
        "\n\t {} : 1 - 3 : tag : 7 ,\r\n {} : 2 \n",
        A.to_uppercase(),
        B
    );
    check(
        &spaced.parse().expect("white space and upper case"),
        "a:1-3:tag:7,b:2",
    );
    assert!(" \n ".parse::<OracleGtidSet>().expect("blank").is_empty());
}

#[test]
fn mysql_text_that_is_no_set_is_refused_by_cause() {
    let check = |text: String, want: ParseError| {
        assert_eq!(text.parse::<OracleGtidSet>(), Err(want), "{text:?}")
    };
    for at_fault in [
        "nonsense:1",
        "00006a9a-0000-0000-0000-00000000000:1",
        "00006a9a-0000-0000-0000-00000000000aa:1",
        "00006a9a000000000000000000000000000a:1",
        "00006a9a-0000-0000-0000_00000000000a:1",
        "0000g a9a-000-0000-0000-00000000000a:1",
        "00006a9a-0000-0000-0000-0000000000\u{e9}:1",
        "0-1-100",
    ] {
        check(at_fault.to_string(), ParseError::BadUuid { at: 0 });
    }
    check(A.to_string(), ParseError::MissingInterval { at: 0 });
    check(format!("{A}:"), ParseError::EmptyItem { at: 37 });
    check(format!("{A}:1:"), ParseError::EmptyItem { at: 39 });
    check(format!("{A}::1"), ParseError::EmptyItem { at: 37 });
    check(format!("{A}:1,"), ParseError::EmptyItem { at: 39 });
    check(format!(",{A}:1"), ParseError::EmptyItem { at: 0 });
    check(format!("{A}:1,,{B}:1"), ParseError::EmptyItem { at: 39 });
    check(",".to_string(), ParseError::EmptyItem { at: 0 });
    check(":".to_string(), ParseError::EmptyItem { at: 0 });
    check(format!("{A}:0"), ParseError::BadNumber { at: 37 });
    check(
        format!("{A}:9223372036854775808"),
        ParseError::BadNumber { at: 37 },
    );
    check(
        format!("{A}:1-18446744073709551616"),
        ParseError::BadNumber { at: 39 },
    );
    check(format!("{A}:1-+5"), ParseError::BadNumber { at: 39 });
    check(format!("{A}:1-"), ParseError::BadNumber { at: 39 });
    check(format!("{A}:1 2"), ParseError::BadNumber { at: 37 });
    check(format!("{A}:1-2-3"), ParseError::BadNumber { at: 39 });
    check(format!("{A}:1x"), ParseError::BadNumber { at: 37 });
    check(format!("{A}:5-4"), ParseError::ReversedInterval { at: 37 });
    check(format!("{A}:-5"), ParseError::BadTag { at: 37 });
    check(format!("{A}:ta-g:1"), ParseError::BadTag { at: 37 });
    check(format!("{A}:t\u{e4}g:1"), ParseError::BadTag { at: 37 });
    check(
        format!("{A}:{}:1", "t".repeat(33)),
        ParseError::BadTag { at: 37 },
    );
    check(format!("{A}:tag"), ParseError::MissingInterval { at: 37 });
    check(format!("{A}:1:tag"), ParseError::MissingInterval { at: 39 });
    check(
        format!("{A}:tag:other:1"),
        ParseError::MissingInterval { at: 37 },
    );
    check(
        format!("{A}:tag:1,{B}"),
        ParseError::MissingInterval { at: 43 },
    );
    assert!(
        format!("{A}:{}:1", "t".repeat(32))
            .parse::<OracleGtidSet>()
            .is_ok()
    );
}

#[test]
fn mysql_text_is_bounded_but_what_was_saved_is_read() {
    let text = |intervals: usize| {
        let items: String = (0..intervals)
            .map(|index| format!(":{}", 2 * index + 1))
            .collect();
        format!("{A}{items}")
    };
    let most: OracleGtidSet = text(INTERVALS_MAX).parse().expect("at the bound");
    assert_eq!(most.interval_count(), INTERVALS_MAX);
    let refused = Err(ParseError::TooManyIntervals {
        limit: INTERVALS_MAX,
    });
    assert_eq!(text(INTERVALS_MAX + 1).parse::<OracleGtidSet>(), refused);
    // Repeating one interval costs as much as any other.
    assert_eq!(
        format!("{A}{}", ":1".repeat(INTERVALS_MAX + 1)).parse::<OracleGtidSet>(),
        refused
    );

    let more = most.union(&set("b:1"));
    let saved = serde_json::to_string(&more).expect("saves");
    assert_eq!(
        serde_json::from_str::<OracleGtidSet>(&saved).expect("reads"),
        more
    );
}

#[test]
fn single_gtids() {
    for text in [format!("{A}:5"), format!("{A}:tag:9223372036854775807")] {
        assert_eq!(
            text.parse::<Gtid>().expect("one transaction").to_string(),
            text
        );
    }
    let check =
        |text: String, want: ParseError| assert_eq!(text.parse::<Gtid>(), Err(want), "{text:?}");
    check(format!("{A}:1-2"), ParseError::NotSingle { at: 37 });
    check(format!("{A}:1:2"), ParseError::NotSingle { at: 39 });
    check(format!("{A}:1,{B}:1"), ParseError::NotSingle { at: 76 });
    check(A.to_string(), ParseError::MissingInterval { at: 0 });
    check(format!("{A}:tag"), ParseError::MissingInterval { at: 37 });
    check(String::new(), ParseError::BadUuid { at: 0 });
    assert_eq!(Gtid::new(Origin::untagged(uuid(A)), 0), None);
    assert_eq!(Gtid::new(Origin::untagged(uuid(A)), NUMBER_MAX + 1), None);
    assert_eq!(Interval::new(2, 1), None);
    assert_eq!(Interval::new(0, 1), None);
    assert_eq!(Interval::new(1, NUMBER_MAX + 1), None);
}

// Algebra --------------------------------------------------------------------------------------------------

#[test]
fn algebra_by_example() {
    check(&set("a:1-5").union(&set("a:4-9:12")), "a:1-9:12");
    check(&set("a:1-5").union(&set("a:6-9")), "a:1-9");
    check(
        &set("a:1-10,b:1-3").subtract(&set("a:4-6,b:1-9")),
        "a:1-3:7-10",
    );
    check(&set("a:1-5:bk:1-5").subtract(&set("a:1-5")), "a:bk:1-5");
    check(&set("a:1-3:5-7:9-11").subtract(&set("a:2-10")), "a:1:11");
    check(&set("a:1-9:20").intersect(&set("a:5-20,b:1")), "a:5-9:20");
    check(&set("a:1-90").subtract(&set("a:1-95")), "");
    check(&set("a:1-40,b:1-2").subtract(&set("a:1-90")), "b:1-2");
    let all = set(&format!("a:1-{NUMBER_MAX}"));
    check(
        &all.subtract(&set(&format!("a:{NUMBER_MAX}"))),
        &format!("a:1-{}", NUMBER_MAX - 1),
    );
    check(&all.subtract(&all), "");

    assert!(set("a:1-9").contains(&set("a:2-3:9")));
    assert!(!set("a:1-9").contains(&set("a:10")));
    assert!(!set("a:1-9").contains(&set("a:tag:1")));
    assert!(set("").contains(&set("")));

    let gtids: Vec<String> = set("a:2-3:7:bk:1-2")
        .gtids()
        .map(|gtid| gtid.to_string())
        .collect();
    assert_eq!(
        gtids,
        ["2", "3", "7", "bk:1", "bk:2"].map(|rest| format!("{A}:{rest}"))
    );
    assert_eq!(
        set("a:1:t:1,b:1,c:t:1:u:2").uuids().collect::<Vec<_>>(),
        [uuid(A), uuid(B), uuid(C)]
    );
    check(&set("a:1:t:1,b:1").without_uuid(uuid(A)), "b:1");
    check(&set("a:1:t:1,b:1").restricted_to_uuid(uuid(A)), "a:1:t:1");
    check(
        &set("a:1,b:1,c:1").without_uuids(&[uuid(A), uuid(C)]),
        "b:1",
    );
    check(
        &set("a:1,b:1,c:1").restricted_to_uuids(&[uuid(A), uuid(C)]),
        "a:1,c:1",
    );
    assert_eq!(set("a:1-5:7:t:1,b:2").count(), 8);
    let everything = format!("a:1-{NUMBER_MAX}:t:1-{NUMBER_MAX}:u:1-{NUMBER_MAX}");
    assert_eq!(set(&everything).count(), u64::MAX);

    let origin = Origin::untagged(uuid(A));
    assert_eq!(set("").next_number(&origin), Some(1));
    assert_eq!(set("a:2-5").next_number(&origin), Some(1));
    assert_eq!(set("a:1-5:8").next_number(&origin), Some(6));
    assert_eq!(all.next_number(&origin), None);
    assert_eq!(set("a:1-5:8").last_number(&origin), Some(8));
    assert_eq!(set("a:t:1").last_number(&origin), None);
}

#[test]
fn order_of_sets() {
    for (first, second, want) in [
        ("a:1-5", "a:1-5", SetOrder::Equal),
        ("", "", SetOrder::Equal),
        ("a:1-5,b:1", "a:1-5", SetOrder::Superset),
        ("a:1-5", "a:1-6", SetOrder::Subset),
        ("", "a:1", SetOrder::Subset),
        ("a:1-5", "a:2-6", SetOrder::Diverged),
        ("a:1", "a:t:1", SetOrder::Diverged),
    ] {
        assert_eq!(set(first).compare(&set(second)), want, "{first} {second}");
        assert_eq!(
            set(second).compare(&set(first)),
            want.reverse(),
            "{second} {first}"
        );
    }
}

#[test]
fn errant_transactions_of_mysql() {
    let errant = |replica: &str, ancestry: &[&str], parent: &str| {
        let ancestry: Vec<Uuid> = ancestry.iter().map(|text| uuid(text)).collect();
        oracle::errant(&set(replica), uuid(B), &ancestry, &set(parent), uuid(A))
    };
    // The ancestor's own transactions never count, however far behind the parent's row is.
    check(&errant("a:1-100,b:5,c:1-4", &[A, B], "a:1-99,c:1-4"), "b:5");
    check(&errant("a:1-100,c:1-4", &[A, B], "a:1-99,c:1-4"), "");
    check(&errant("a:1-100,c:1-5", &[A, B], "a:1-99,c:1-4"), "c:5");
    check(&errant("a:1-100,b:1-3", &[A, B], "a:1-100,b:1-2"), "b:3");
    check(
        &errant("a:1-100,b:tag:1", &[A, B], "a:1-100,b:1"),
        "b:tag:1",
    );
    // The parent's transactions under its own UUID excuse nothing, even if it is missing from the ancestry.
    check(&errant("a:1-2,b:1", &[B], "a:1-2"), "a:1-2,b:1");
    // Either side unknown: nothing is known.
    check(&errant("b:1", &[A, B], ""), "");
    check(&errant("", &[A, B], "a:1"), "");

    let ancestry = [uuid(A), uuid(B)];
    let of_co_primary = |replica: &str, parent: &str| {
        oracle::errant_of_co_primary(&set(replica), uuid(B), &ancestry, &set(parent), uuid(A))
    };
    check(&of_co_primary("a:1-100,b:5,c:1-5", "a:1-99,c:1-4"), "c:5");
    check(&of_co_primary("a:1-100,b:5", "a:1-99"), "");

    check(
        &oracle::surplus(&set("a:1-100,b:5"), &set("a:1-99")),
        "a:100,b:5",
    );
}

// MariaDB --------------------------------------------------------------------------------------------------

#[test]
fn mariadb_text() {
    for (given, want) in [
        ("", ""),
        (" \n", ""),
        ("0-1-100", "0-1-100"),
        ("1-2-5,0-1-100", "0-1-100,1-2-5"),
        (" 0 - 1 - 100 ,\n 1-2-5 ", "0-1-100,1-2-5"),
        ("10-1-1,9-1-1", "9-1-1,10-1-1"),
        // gtid_binlog_state: one entry a server id; the latest stands.
        ("0-2-7,0-1-100,0-3-99", "0-1-100"),
        ("0-1-0", ""),
        (
            "4294967295-4294967295-18446744073709551615",
            "4294967295-4294967295-18446744073709551615",
        ),
    ] {
        assert_eq!(position(given).to_string(), want);
    }
    let check = |text: &str, want: mariadb::ParseError| {
        assert_eq!(text.parse::<MariadbGtidSet>(), Err(want), "{text:?}");
    };
    for text in [
        "0",
        "0-1",
        "0-1-2-3",
        "0-1-",
        "-0-1",
        "0--1",
        "a-1-2",
        "0-+1-2",
        "0-1-2x",
        "0-1-\u{b2}",
        A,
    ] {
        check(text, mariadb::ParseError::BadEntry { at: 0 });
    }
    check("0-1-2,", mariadb::ParseError::EmptyItem { at: 6 });
    check(",", mariadb::ParseError::EmptyItem { at: 0 });
    check("0-1-2,3-4", mariadb::ParseError::BadEntry { at: 6 });
    for text in [
        "4294967296-1-1",
        "0-4294967296-1",
        "0-1-18446744073709551616",
    ] {
        check(text, mariadb::ParseError::NumberTooLarge { at: 0 });
    }
    let many = vec!["0-1-1"; mariadb::ENTRIES_MAX + 1].join(",");
    check(
        &many,
        mariadb::ParseError::TooManyEntries {
            limit: mariadb::ENTRIES_MAX,
        },
    );
}

#[test]
fn mariadb_order() {
    for (first, second, want) in [
        ("0-1-120,1-7-4", "0-1-120,1-7-4", SetOrder::Equal),
        ("0-1-120,1-7-4", "0-2-130,1-7-4", SetOrder::Subset),
        ("0-1-120,2-9-1", "0-1-130", SetOrder::Diverged),
        ("0-1-120", "0-2-120", SetOrder::Diverged),
        ("0-1-120,1-1-9", "0-2-120", SetOrder::Diverged),
        ("0-1-120,1-1-1", "0-1-120", SetOrder::Superset),
        ("", "0-1-1", SetOrder::Subset),
    ] {
        assert_eq!(
            position(first).compare(&position(second)),
            want,
            "{first} {second}"
        );
        assert_eq!(
            position(second).compare(&position(first)),
            want.reverse(),
            "{second} {first}"
        );
    }
    assert!(position("0-1-120").contains(&position("0-2-120")));
    assert_eq!(
        position("0-1-120").conflicts(&position("0-2-120")),
        [Domain(0)]
    );
}

#[test]
fn mariadb_differences() {
    let gaps = |first: &str, second: &str| {
        let gaps = position(first).subtract(&position(second));
        gaps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        gaps("0-1-120,1-7-4,2-3-9", "0-2-117,1-7-4"),
        ["0-1-118..120", "2-3-1..9"]
    );
    assert!(gaps("0-1-5", "0-2-5").is_empty());
    assert_eq!(
        position("0-2-117,1-7-4").missing_count(&position("0-1-120,1-7-4,2-3-9")),
        12
    );
    assert_eq!(
        position("").missing_count(&position("0-1-18446744073709551615,1-1-5")),
        u64::MAX
    );

    let errant = |replica: &str, primary: &str| {
        let errant = mariadb::errant(&position(replica), &position(primary));
        errant.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(errant("0-1-100,1-2-5", "0-1-100,1-2-6,2-1-1").is_empty());
    assert!(errant("0-9-99", "0-1-100").is_empty());
    assert_eq!(
        errant("0-1-101,1-2-5", "0-1-100,1-2-5"),
        ["0-1-101 where the primary is at 0-1-100"]
    );
    assert_eq!(
        errant("0-2-100", "0-1-100"),
        ["0-2-100 where the primary is at 0-1-100"]
    );
    assert_eq!(
        errant("0-1-9,7-2-1", "0-1-9"),
        ["7-2-1 where the primary has nothing"]
    );
}

// Either flavour -------------------------------------------------------------------------------------------

#[test]
fn flavours_do_not_mix() {
    let first = GtidSet::from(set("a:1-5"));
    let second = GtidSet::from(position("0-1-5"));
    let mismatch = FlavourMismatch {
        first: Flavour::Oracle,
        second: Flavour::Mariadb,
    };
    assert_eq!(first.union(&second), Err(mismatch));
    assert_eq!(first.intersect(&second), Err(mismatch));
    assert_eq!(first.subtract(&second), Err(mismatch));
    assert_eq!(first.is_superset(&second), Err(mismatch));
    assert_eq!(first.missing_count(&second), Err(mismatch));
    assert_eq!(first.compare(&second), Err(mismatch));
    // Not even two empty ones, which print the same.
    assert!(
        GtidSet::empty(Flavour::Oracle)
            .compare(&GtidSet::empty(Flavour::Mariadb))
            .is_err()
    );
    assert!(GtidSet::parse(Flavour::Mariadb, &first.to_string()).is_err());
    assert!(GtidSet::parse(Flavour::Oracle, &second.to_string()).is_err());
}

#[test]
fn either_flavour_by_the_same_calls() {
    for (flavour, less, more, difference) in [
        (Flavour::Oracle, full("a:1-5"), full("a:1-7"), full("a:6-7")),
        (
            Flavour::Mariadb,
            "0-1-5".to_string(),
            "0-2-7".to_string(),
            "0-2-6..7".to_string(),
        ),
    ] {
        let less = GtidSet::parse(flavour, &less).expect("parses");
        let more = GtidSet::parse(flavour, &more).expect("parses");
        assert_eq!(less.missing_count(&more), Ok(2));
        assert_eq!(more.missing_count(&less), Ok(0));
        assert_eq!(more.is_superset(&less), Ok(true));
        assert_eq!(less.is_superset(&more), Ok(false));
        assert_eq!(less.compare(&more), Ok(SetOrder::Subset));
        assert_eq!(less.union(&more), Ok(more.clone()));
        assert_eq!(less.intersect(&more), Ok(less.clone()));
        let lost = more.subtract(&less).expect("same flavour");
        assert_eq!(
            (lost.to_string(), lost.count(), lost.is_empty()),
            (difference, 2, false)
        );
        assert!(less.subtract(&more).expect("same flavour").is_empty());
        assert_eq!(more.flavour(), flavour);
        assert_eq!(less.count(), 5);
        assert!(GtidSet::empty(flavour).is_empty());
    }
    assert!(matches!(
        GtidSet::from(set("")).subtract(&GtidSet::from(set(""))),
        Ok(Difference::Oracle(_))
    ));
}

#[test]
fn saved_form_is_the_text() {
    let oracle = GtidSet::from(set("a:1-3:tag:7,b:2"));
    let json = format!(r#"{{"Oracle":"{}"}}"#, full("a:1-3:tag:7,b:2"));
    assert_eq!(serde_json::to_string(&oracle).expect("saves"), json);
    let mariadb = GtidSet::from(position("0-1-100,1-2-5"));
    assert_eq!(
        serde_json::to_string(&mariadb).expect("saves"),
        r#"{"Mariadb":"0-1-100,1-2-5"}"#
    );
    for saved in [oracle, mariadb] {
        let json = serde_json::to_string(&saved).expect("saves");
        assert_eq!(
            serde_json::from_str::<GtidSet>(&json).expect("reads"),
            saved
        );
        let bytes = postcard::to_allocvec(&saved).expect("saves");
        assert_eq!(
            postcard::from_bytes::<GtidSet>(&bytes).expect("reads"),
            saved
        );
    }
    assert!(serde_json::from_str::<OracleGtidSet>(r#""nonsense""#).is_err());
    assert!(serde_json::from_str::<OracleGtidSet>("5").is_err());
    assert_eq!(
        serde_json::from_str::<Uuid>(&format!("{A:?}")).expect("reads"),
        uuid(A)
    );
}

// Laws -----------------------------------------------------------------------------------------------------

type Model = BTreeSet<(u128, Option<&'static str>, u64)>;

const TAGS: [Option<&str>; 3] = [None, Some("_b"), Some("tag")];
const UUIDS: [u128; 3] = [0, 0x1111_1111_2222_3333_4444_5555_5555_55bb, u128::MAX];

fn gtid_of((uuid, tag, number): (u128, Option<&str>, u64)) -> Gtid {
    let tag: Option<Tag> = tag.map(|tag| tag.parse().expect("a tag"));
    Gtid::new(
        Origin {
            uuid: Uuid(uuid),
            tag,
        },
        number,
    )
    .expect("in range")
}

fn set_of(items: impl IntoIterator<Item = (u128, Option<&'static str>, u64)>) -> OracleGtidSet {
    let mut set = OracleGtidSet::new();
    for item in items {
        set.insert(gtid_of(item));
    }
    set
}

fn model_of(set: &OracleGtidSet) -> Model {
    let tag_of = |tag: &Tag| {
        TAGS.iter()
            .flatten()
            .find(|known| **known == tag.as_str())
            .copied()
            .expect("known tag")
    };
    set.gtids()
        .map(|gtid| {
            (
                gtid.origin().uuid.0,
                gtid.origin().tag.as_ref().map(tag_of),
                gtid.number(),
            )
        })
        .collect()
}

/// Few names and small numbers, so that sets overlap, touch and nest.
fn models() -> impl Strategy<Value = Model> {
    let run = (0..3usize, 0..3usize, 1..30u64, 0..6u64);
    prop::collection::vec(run, 0..12).prop_map(|runs| {
        let spread = |(uuid, tag, first, more): (usize, usize, u64, u64)| {
            (first..=first + more).map(move |number| (UUIDS[uuid], TAGS[tag], number))
        };
        runs.into_iter().flat_map(spread).collect()
    })
}

/// A set as text in arbitrary order, with repeated UUIDs, overlaps, upper case and white space.
fn messy_texts() -> impl Strategy<Value = (Model, String)> {
    let run = (0..3usize, 0..3usize, 1..30u64, 0..6u64, any::<bool>());
    prop::collection::vec(run, 0..12).prop_map(|runs| {
        let mut model = Model::new();
        let mut entries = Vec::new();
        for (uuid, tag, first, more, shout) in runs {
            model.extend((first..=first + more).map(|number| (UUIDS[uuid], TAGS[tag], number)));
            let tag = TAGS[tag].map(|tag| format!(":{tag}")).unwrap_or_default();
            let entry = format!("{}{tag}: {first}-{}", Uuid(UUIDS[uuid]), first + more);
            entries.push(if shout { entry.to_uppercase() } else { entry });
        }
        (model, entries.join(" ,\n"))
    })
}

fn check_canonical(set: &OracleGtidSet) {
    for (origin, intervals) in set.origins() {
        assert!(!intervals.is_empty(), "{origin} without intervals");
        for pair in intervals.windows(2) {
            assert!(
                pair[0].last() + 1 < pair[1].first(),
                "{origin}: {} and {}",
                pair[0],
                pair[1]
            );
        }
    }
    assert_eq!(set.to_string().parse::<OracleGtidSet>().as_ref(), Ok(set));
    assert_eq!(
        format!("{set:#}").parse::<OracleGtidSet>().as_ref(),
        Ok(set)
    );
}

/// Sequence number and server id by domain.
type Position = BTreeMap<u32, (u64, u32)>;

fn positions() -> impl Strategy<Value = Position> {
    prop::collection::btree_map(0..4u32, (1..6u64, 1..4u32), 0..4)
}

fn position_of(model: &Position) -> MariadbGtidSet {
    let mut position = MariadbGtidSet::new();
    for (domain, (sequence, server_id)) in model {
        position.advance(
            Domain(*domain),
            Last {
                sequence: *sequence,
                server_id: ServerId(*server_id),
            },
        );
    }
    position
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn oracle_sets_behave_as_sets(one in models(), two in models()) {
        let (first, second) = (set_of(one.clone()), set_of(two.clone()));
        for (got, want) in [
            (first.clone(), one.clone()),
            (first.union(&second), one.union(&two).copied().collect()),
            (first.subtract(&second), one.difference(&two).copied().collect()),
            (first.intersect(&second), one.intersection(&two).copied().collect()),
        ] {
            check_canonical(&got);
            prop_assert_eq!(model_of(&got), want.clone());
            prop_assert_eq!(got.count(), want.len() as u64);
            prop_assert_eq!(got.is_empty(), want.is_empty());
            prop_assert_eq!(&got, &got.gtids().collect::<OracleGtidSet>());
            prop_assert_eq!(got, set_of(want));
        }
        prop_assert_eq!(first.contains(&second), one.is_superset(&two));
        prop_assert_eq!(first.missing_count(&second), two.difference(&one).count() as u64);
        let order = match (one.is_subset(&two), one.is_superset(&two)) {
            (true, true) => SetOrder::Equal,
            (true, false) => SetOrder::Subset,
            (false, true) => SetOrder::Superset,
            (false, false) => SetOrder::Diverged,
        };
        prop_assert_eq!(first.compare(&second), order);
        prop_assert_eq!(first == second, one == two);
        for item in &two {
            prop_assert_eq!(first.contains_gtid(&gtid_of(*item)), one.contains(item));
        }
        for uuid in UUIDS {
            let (without, only) = (first.without_uuid(Uuid(uuid)), first.restricted_to_uuid(Uuid(uuid)));
            prop_assert_eq!(model_of(&without), one.iter().filter(|item| item.0 != uuid).copied().collect::<Model>());
            prop_assert_eq!(model_of(&only), one.iter().filter(|item| item.0 == uuid).copied().collect::<Model>());
        }
    }

    /// The supersets that chance hardly ever makes.
    #[test]
    fn oracle_supersets_contain(one in models(), two in models()) {
        let (first, second) = (set_of(one), set_of(two));
        let union = first.union(&second);
        prop_assert!(union.contains(&first) && union.contains(&second));
        prop_assert_eq!(&union, &second.union(&first));
        prop_assert_eq!(first.subtract(&second).union(&first.intersect(&second)), first.clone());
        prop_assert_eq!(first.contains(&second), second.subtract(&first).is_empty());
    }

    #[test]
    fn oracle_insertion_in_any_order(
        (model, shuffled) in models().prop_flat_map(|model| {
            let items: Vec<_> = model.iter().copied().collect();
            (Just(model), Just(items).prop_shuffle())
        })
    ) {
        let set = set_of(shuffled);
        check_canonical(&set);
        prop_assert_eq!(model_of(&set), model);
    }

    #[test]
    fn oracle_interval_insertion(model in models(), first in 1..40u64, more in 0..40u64) {
        let mut set = set_of(model.clone());
        let added = Interval::new(first, first + more).expect("in range");
        set.insert_interval(Origin::untagged(Uuid(0)), added);
        let mut wanted = model;
        wanted.extend((first..=first + more).map(|number| (0, None, number)));
        check_canonical(&set);
        prop_assert_eq!(model_of(&set), wanted);
    }

    #[test]
    fn oracle_messy_text((model, text) in messy_texts()) {
        let set: OracleGtidSet = text.parse().expect("a set");
        check_canonical(&set);
        prop_assert_eq!(model_of(&set), model);
    }

    #[test]
    fn oracle_errant_is_part_of_the_surplus(one in models(), two in models()) {
        let (replica, parent) = (set_of(one), set_of(two));
        let (root, own) = (Uuid(UUIDS[0]), Uuid(UUIDS[1]));
        let errant = oracle::errant(&replica, own, &[root, own], &parent, root);
        prop_assert!(oracle::surplus(&replica, &parent).contains(&errant));
        let of_co_primary = oracle::errant_of_co_primary(&replica, own, &[root, own], &parent, root);
        prop_assert_eq!(of_co_primary, errant.without_uuid(own));
    }

    #[test]
    fn mariadb_positions(one in positions(), two in positions()) {
        let (first, second) = (position_of(&one), position_of(&two));
        prop_assert_eq!(first.to_string().parse(), Ok(first.clone()));

        let (union, both) = (first.union(&second), first.intersect(&second));
        prop_assert_eq!(&union, &second.union(&first));
        prop_assert_eq!(&both, &second.intersect(&first));
        prop_assert!(union.contains(&first) && union.contains(&second));
        prop_assert!(first.contains(&both) && second.contains(&both));
        prop_assert_eq!(&union.union(&first), &union);
        prop_assert_eq!(first.intersect(&union), first.clone());

        let sequence = |model: &Position, domain| model.get(&domain).map_or(0, |last| last.0);
        let missing: u64 = (0..4).map(|domain| sequence(&two, domain).saturating_sub(sequence(&one, domain))).sum();
        prop_assert_eq!(first.missing_count(&second), missing);
        prop_assert_eq!(first.contains(&second), missing == 0);
        prop_assert_eq!(first.contains(&second), second.subtract(&first).is_empty());

        prop_assert_eq!(first.compare(&second) == SetOrder::Equal, one == two);
        prop_assert_eq!(first.compare(&second), second.compare(&first).reverse());
        let errant = mariadb::errant(&first, &second);
        prop_assert_eq!(errant.is_empty(), matches!(first.compare(&second), SetOrder::Equal | SetOrder::Subset));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_parse(&bytes);
    }

    #[test]
    fn no_near_miss_makes_a_parser_panic(
        text in "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]{1,11})?([-:, \n0-9a-zA-Z_é]{0,6}){0,8}"
    ) {
        check_parse(text.as_bytes());
    }
}
