//! Texts of GTID sets: what parses prints and parses to itself, and the algebra of any two holds.

use orchestrator_core::gtid::{Flavour, GtidSet, SetOrder, check_parse};

/// The input is one text, or two with a bar between them.
pub fn run(data: &[u8]) {
    check_parse(data);
    let mut parts = data.splitn(2, |byte| *byte == b'|');
    let (one, other) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    for flavour in [Flavour::Oracle, Flavour::Mariadb] {
        if let (Ok(a), Ok(b)) = (
            GtidSet::parse(flavour, &one),
            GtidSet::parse(flavour, &other),
        ) {
            algebra(&a, &b);
        }
    }
}

fn algebra(a: &GtidSet, b: &GtidSet) {
    let union = a.union(b).expect("one flavour");
    let common = a.intersect(b).expect("one flavour");
    for set in [a, b] {
        assert_eq!(union.is_superset(set), Ok(true), "{a} and {b}: {union}");
        assert_eq!(set.is_superset(&common), Ok(true), "{a} and {b}: {common}");
        assert_eq!(union.missing_count(set), Ok(0));
        assert!(union.count() >= set.count());
    }
    // A MariaDB position keeps one server a domain, so which of two equal sequence numbers stays is not symmetric.
    if a.flavour() == Flavour::Oracle {
        assert_eq!(b.union(a), Ok(union.clone()));
        assert_eq!(b.intersect(a), Ok(common.clone()));
        assert_eq!(
            a.count() + a.missing_count(b).expect("one flavour"),
            union.count()
        );
    }
    let (there, back) = (
        a.compare(b).expect("one flavour"),
        b.compare(a).expect("one flavour"),
    );
    assert_eq!(there.reverse(), back, "{a} and {b}");
    let (holds, is_held) = (a.is_superset(b) == Ok(true), b.is_superset(a) == Ok(true));
    // MariaDB: the same number by two servers is two histories, which only the comparison tells.
    let is_conflict = a
        .as_mariadb()
        .zip(b.as_mariadb())
        .is_some_and(|(a, b)| !a.conflicts(b).is_empty());
    let expected = match (holds, is_held) {
        _ if is_conflict => SetOrder::Diverged,
        (true, true) => SetOrder::Equal,
        (true, false) => SetOrder::Superset,
        (false, true) => SetOrder::Subset,
        (false, false) => SetOrder::Diverged,
    };
    assert_eq!(there, expected, "{a} and {b}");
    assert_eq!(a.missing_count(b) == Ok(0), holds, "{a} and {b}");
}
