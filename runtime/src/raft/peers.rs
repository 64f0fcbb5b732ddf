//! What is known of the other daemons: where they are reached, and the furthest each identity was seen.
//!
//! Decides whether an identity *went back*: a virtual machine's snapshot, a restored backup or a copied directory brings
//! back an identity whose promises are forgotten, and it must not be heard. Membership decides nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::NodeId;
use super::wire::{Introduction, LogIdV1};

/// Addresses kept for one identity, the one that worked last first.
const ADDRESSES_MAX: usize = 4;
/// Identities kept, at most, beside members; the one that was heard longest ago and is no member makes room. Far above what
/// a cluster has.
const PEERS_MAX: usize = 64;
/// A process that comes from where its identity is not known waits until the one before was silent for so long: members greet
/// one another every other second, and one that does not answer holds that up.
const MOVED_SILENCE: Duration = Duration::from_secs(10);
/// Who calls itself another is told of once, until it did not for so long.
const IMPOSTOR_KEPT: Duration = Duration::from_mins(1);
/// Bytes of an address or URI, at most.
pub(super) const ADDRESS_BYTES_MAX: usize = 300;

/// What is kept durably of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerRecord {
    pub(super) addresses: Vec<String>,
    pub(super) http_uri: String,
    pub(super) seen: Seen,
    /// The process that was heard last under this identity; none in a record of a release that did not keep it.
    #[serde(skip)]
    pub(super) process: Option<u64>,
}

impl PeerRecord {
    /// With what came later behind the rest, where earlier releases do not look.
    ///
    /// # Errors
    /// None that is known of.
    pub(super) fn encode(&self) -> postcard::Result<Vec<u8>> {
        postcard::to_extend(&self.process, postcard::to_stdvec(self)?)
    }

    /// # Errors
    /// Bytes that are no record.
    pub(super) fn decode(bytes: &[u8]) -> postcard::Result<Self> {
        let (record, later) = postcard::take_from_bytes::<Self>(bytes)?;
        let process = match later {
            [] => None,
            later => postcard::from_bytes(later)?,
        };
        Ok(Self { process, ..record })
    }
}

/// The furthest an identity was seen.
///
/// `last` is an entry of term `term`: only such entries cannot be truncated while that term lasts, so only they prove that
/// something was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) boot: u64,
    pub(super) term: u64,
    pub(super) last: Option<LogIdV1>,
}

/// A peer in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    pub(super) record: PeerRecord,
    /// The process that was heard under this identity since this daemon started, and when.
    pub(super) instance: Option<u64>,
    pub(super) heard: Option<Duration>,
    pub(super) version: Option<u32>,
    /// How many entries that were committed it lacked when it was greeted last.
    pub(super) lacks: Option<u64>,
    /// Where it says it is reached.
    pub(super) advertise: String,
    /// The address that led to it when it was dialled last, and when.
    pub(super) answered: Option<(String, Duration)>,
    /// Why it is not listened to, or why it does not listen.
    pub(super) refusal: Option<String>,
    /// What somebody else was told last who called itself this one, and when.
    pub(super) impostor: Option<(String, Duration)>,
}

/// All peers of one daemon.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<u64, Peer>,
    /// A process that was not heard for so long has made room for the next one at its address.
    silence: Duration,
}

impl Peer {
    /// Why somebody else is not heard who calls itself this one, if somebody did lately.
    pub(super) fn impostor_at(&self, now: Duration) -> Option<&str> {
        let (why, at) = self.impostor.as_ref()?;
        (now < *at + IMPOSTOR_KEPT).then_some(why)
    }
}

/// What an introduction means for the identity that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing speaks against it; `true`: the record changed and is to be saved.
    Fine(bool),
    /// Another process has this identity now.
    Twice(String),
    /// The process that had this identity before was heard a moment ago: it may be at work still.
    Early(String),
    /// The identity went back.
    Back(String),
}

impl Seen {
    /// Whether an identity that starts with `boot`, `term` and `last` has forgotten something; why, if so.
    fn contradicts(&self, boot: u64, term: u64, last: Option<LogIdV1>) -> Option<String> {
        if boot < self.boot {
            return Some(format!(
                "it starts for the {boot}. time and was seen at its {}.",
                self.boot
            ));
        }
        // In one boot, introductions may overtake one another.
        if boot == self.boot {
            return None;
        }
        if term < self.term {
            return Some(format!(
                "it comes with term {term} and was seen with term {}",
                self.term
            ));
        }
        match self.last {
            Some(seen) if term == self.term && last < Some(seen) => Some(format!(
                "its log ends at {} and was seen to reach {}@{}",
                last.map_or("nothing".to_owned(), |last| format!(
                    "{}@{}",
                    last.index, last.term
                )),
                seen.index,
                seen.term
            )),
            Some(_) | None => None,
        }
    }

    /// Takes in a later sight; whether it changed anything.
    pub(super) fn advance(&mut self, boot: u64, term: u64, last: Option<LogIdV1>) -> bool {
        let before = *self;
        self.boot = self.boot.max(boot);
        if term > self.term {
            self.term = term;
            self.last = None;
        }
        if let Some(last) = last
            && last.term == self.term
            && Some(last) > self.last
        {
            self.last = Some(last);
        }
        before != *self
    }
}

impl Peers {
    pub(super) fn new(records: BTreeMap<u64, PeerRecord>, silence: Duration) -> Self {
        let peer = |record| Peer {
            record,
            ..Peer::default()
        };
        Peers {
            known: records
                .into_iter()
                .map(|(node, record)| (node, peer(record)))
                .collect(),
            silence,
        }
    }

    pub(super) fn get(&self, node: u64) -> Option<&Peer> {
        self.known.get(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Peer)> {
        self.known.iter().map(|(node, peer)| (*node, peer))
    }

    /// The addresses to dial for an identity, best first.
    pub(super) fn addresses(&self, node: u64) -> Vec<String> {
        self.known
            .get(&node)
            .map(|peer| peer.record.addresses.clone())
            .unwrap_or_default()
    }

    /// The identity that an address led to last.
    pub(super) fn at_address(&self, address: &str) -> Option<u64> {
        self.known
            .iter()
            .find(|(_, peer)| peer.record.addresses.iter().any(|known| known == address))
            .map(|(node, _)| *node)
    }

    /// Why a peer cannot be this identity, whose certificate is for the addresses of which `is_for` is true: it is for where
    /// another identity is known, and for nowhere that this one is. An identity that is not known yet may be anywhere, and
    /// one that is may move to where nobody is known, or to where `is_left` says that another one was formerly.
    pub(super) fn impostor(
        &self,
        node: u64,
        is_for: impl Fn(&str) -> bool,
        is_left: impl Fn(u64) -> bool,
    ) -> Option<String> {
        let known = &self.known.get(&node)?.record.addresses;
        if known.is_empty() || known.iter().any(|address| is_for(address)) {
            return None;
        }
        let (other, address) = self.known.iter().find_map(|(other, peer)| {
            // Where it was before that may be another's by this time.
            let address = peer.record.addresses.first()?;
            let is_its = *other != node && is_for(address) && !is_left(*other);
            is_its.then_some((*other, address))
        })?;
        Some(format!(
            "its certificate is for {address}, where node {} is known, and it calls itself node {}, which is known at {}; if that \
             one moved there, give it a certificate for both",
            NodeId(other),
            NodeId(node),
            known.join(" and ")
        ))
    }

    /// Takes in what a peer of this cluster says of itself; `dialled` is the address that led to it, if it was dialled.
    /// `members`, if it is known who they are, make no room for others: one may be silent for long, and what it was seen with
    /// must be known when it comes back.
    pub(super) fn introduce(
        &mut self,
        from: &Introduction,
        dialled: Option<&str>,
        now: Duration,
        members: Option<&BTreeSet<u64>>,
    ) -> Judgement {
        if let Some(peer) = self.known.get(&from.node) {
            if let Some(why) = peer
                .record
                .seen
                .contradicts(from.boot, from.term, from.last)
            {
                let text = format!("node {} went back: {why}", NodeId(from.node));
                return self.refused(from.node, text, Judgement::Back);
            }
            let is_another = |known: Option<u64>| known.is_some_and(|known| known != from.instance);
            if peer.record.seen.boot == from.boot
                && peer.instance.is_none()
                && is_another(peer.record.process)
            {
                // A process counts its start durably before it says a word: who comes back with the same number lost that.
                let text = format!(
                    "node {} went back: another process was seen in its {}. start",
                    NodeId(from.node),
                    from.boot
                );
                return self.refused(from.node, text, Judgement::Back);
            }
            if peer.record.seen.boot == from.boot && is_another(peer.instance) {
                let text = format!(
                    "two processes run as node {}, each in its {}. start",
                    NodeId(from.node),
                    from.boot
                );
                return self.refused(from.node, text, Judgement::Twice);
            }
            let is_where_it_was = peer.record.addresses.contains(&from.advertise);
            let silence = if is_where_it_was {
                self.silence
            } else {
                self.silence.max(MOVED_SILENCE)
            };
            if is_another(peer.instance)
                && let Some(heard) = peer.heard
                && now < heard + silence
            {
                let text = format!(
                    "node {} is heard in its {}. start; its {}. is listened to once that one is silent",
                    NodeId(from.node),
                    peer.record.seen.boot,
                    from.boot
                );
                return Judgement::Early(text);
            }
        }
        let is_member = members.is_some_and(|members| members.contains(&from.node));
        if !self.known.contains_key(&from.node) && !self.make_room(members) && !is_member {
            return Judgement::Fine(false);
        }
        let peer = self.known.entry(from.node).or_default();
        let before = peer.record.clone();
        peer.instance = Some(from.instance);
        peer.record.process = Some(from.instance);
        peer.heard = Some(now);
        peer.version = Some(from.version);
        peer.advertise.clone_from(&from.advertise);
        if let Some(address) = dialled {
            peer.answered = Some((address.to_owned(), now));
        }
        peer.refusal = None;
        peer.record.seen.advance(from.boot, from.term, from.last);
        if from.http_uri.len() <= ADDRESS_BYTES_MAX {
            peer.record.http_uri.clone_from(&from.http_uri);
        }
        learn(
            &mut peer.record.addresses,
            &from.advertise,
            dialled.is_none(),
        );
        if let Some(address) = dialled {
            learn(&mut peer.record.addresses, address, true);
        }
        let changed = peer.record != before;
        if let Some(address) = dialled {
            self.take_from_others(from.node, address);
        }
        Judgement::Fine(changed)
    }

    /// Notes how many entries a peer lacked when it was greeted.
    pub(super) fn note_lack(&mut self, node: u64, entries: u64) {
        if let Some(peer) = self.known.get_mut(&node) {
            peer.lacks = Some(entries);
        }
    }

    /// Notes that a peer was seen with a term and, if it holds an entry of that term, up to it; the record when changed.
    pub(super) fn saw(
        &mut self,
        node: u64,
        term: u64,
        last: Option<LogIdV1>,
    ) -> Option<PeerRecord> {
        let peer = self.known.get_mut(&node)?;
        let boot = peer.record.seen.boot;
        peer.record
            .seen
            .advance(boot, term, last)
            .then(|| peer.record.clone())
    }

    /// Notes that this process was heard; false: another one has its identity.
    pub(super) fn heard(&mut self, node: u64, instance: u64, now: Duration) -> bool {
        let Some(peer) = self.known.get_mut(&node) else {
            return true;
        };
        if peer.instance.is_some_and(|known| known != instance) {
            return false;
        }
        peer.heard = Some(now);
        true
    }

    pub(super) fn refuse(&mut self, node: u64, why: Option<String>) {
        if let Some(peer) = self.known.get_mut(&node) {
            peer.refusal = why;
        }
    }

    /// Keeps why somebody who calls itself this one is not listened to.
    fn refused(&mut self, node: u64, why: String, how: fn(String) -> Judgement) -> Judgement {
        self.refuse(node, Some(why.clone()));
        how(why)
    }

    /// Notes that somebody else calls itself this one; whether nobody did for a while.
    pub(super) fn note_impostor(&mut self, node: u64, why: &str, now: Duration) -> bool {
        let Some(peer) = self.known.get_mut(&node) else {
            return false;
        };
        let is_news = peer.impostor_at(now).is_none();
        peer.impostor = Some((why.to_owned(), now));
        is_news
    }

    /// An address leads to one identity at a time.
    fn take_from_others(&mut self, node: u64, address: &str) {
        for (other, peer) in &mut self.known {
            if *other != node {
                peer.record.addresses.retain(|known| known != address);
            }
        }
    }

    /// Whether there is room for one more.
    fn make_room(&mut self, members: Option<&BTreeSet<u64>>) -> bool {
        if self.known.len() < PEERS_MAX {
            return true;
        }
        let stays = |node: &u64| members.is_none_or(|members| members.contains(node));
        let others = self.known.iter().filter(|(node, _)| !stays(node));
        let oldest = others
            .min_by_key(|(_, peer)| peer.heard)
            .map(|(node, _)| *node);
        oldest.is_some_and(|node| self.known.remove(&node).is_some())
    }
}

/// Adds an address, in front or (if it is not known yet) at the end.
fn learn(addresses: &mut Vec<String>, address: &str, in_front: bool) {
    if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
        return;
    }
    match (
        addresses.iter().position(|known| known == address),
        in_front,
    ) {
        (Some(0), _) | (Some(_), false) => return,
        (Some(place), true) => {
            addresses.remove(place);
            addresses.insert(0, address.to_owned());
        }
        (None, true) => addresses.insert(0, address.to_owned()),
        (None, false) => addresses.push(address.to_owned()),
    }
    addresses.truncate(ADDRESSES_MAX);
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    static NONE: BTreeSet<u64> = BTreeSet::new();
    const NOBODY: Option<&BTreeSet<u64>> = Some(&NONE);

    fn id(term: u64, index: u64) -> Option<LogIdV1> {
        Some(LogIdV1 { term, index })
    }

    fn introduction(boot: u64, term: u64, last: Option<LogIdV1>) -> Introduction {
        Introduction {
            node: 5,
            cluster: Some([1; 32]),
            boot,
            instance: boot,
            term,
            last,
            advertise: "a:1".to_owned(),
            http_uri: "http://a:3000".to_owned(),
            version: 1,
            empty: false,
            listed: Vec::new(),
        }
    }

    /// Peers that saw node 5 in its second start, at term 4, holding entry 10 of term 4.
    fn peers() -> Peers {
        let mut peers = Peers::default();
        let judged = peers.introduce(&introduction(2, 4, id(4, 10)), None, Duration::ZERO, NOBODY);
        assert_eq!(judged, Judgement::Fine(true));
        peers
    }

    #[track_caller]
    fn check(again: Introduction, wanted: &str) {
        let judged = format!(
            "{:?}",
            peers().introduce(&again, None, Duration::ZERO, NOBODY)
        );
        assert!(judged.starts_with(wanted), "{judged}, wanted {wanted}");
    }

    #[test]
    fn an_identity_that_went_back_is_noticed() {
        check(introduction(1, 9, id(9, 90)), "Back");
        check(introduction(3, 3, id(3, 90)), "Back");
        check(introduction(3, 4, id(4, 9)), "Back");
        check(introduction(3, 4, id(3, 90)), "Back");
        check(introduction(3, 4, None), "Back");
    }

    #[test]
    fn an_ordinary_restart_is_not() {
        check(introduction(3, 4, id(4, 10)), "Fine");
        check(introduction(3, 4, id(4, 11)), "Fine");
        // A later leader truncated what it had not acknowledged in that leader's term.
        check(introduction(3, 5, id(3, 7)), "Fine");
        // The same run, seen through a connection that was begun earlier.
        check(introduction(2, 3, id(3, 1)), "Fine");
    }

    #[test]
    fn a_copied_directory_is_noticed() {
        let copy = Introduction {
            instance: 99,
            ..introduction(2, 4, id(4, 10))
        };
        check(copy, "Twice");
    }

    /// Of two processes of one identity the one that came first is listened to, for as long as it is heard.
    #[test]
    fn the_next_process_of_an_identity_waits_until_the_one_before_is_silent() {
        let millis = Duration::from_millis;
        let mut peers = Peers::new(BTreeMap::new(), millis(250));
        let judge = |peers: &mut Peers, boot, address: &str, at| {
            let next = Introduction {
                advertise: address.to_owned(),
                ..introduction(boot, 4, id(4, 10))
            };
            peers.introduce(&next, None, millis(at), NOBODY)
        };
        assert!(matches!(judge(&mut peers, 2, "a:1", 0), Judgement::Fine(_)));
        assert!(peers.heard(5, 2, millis(100)));
        assert!(matches!(
            judge(&mut peers, 3, "a:1", 120),
            Judgement::Early(_)
        ));
        // What it sends meanwhile does not make it the one that is heard.
        assert!(!peers.heard(5, 3, millis(130)));
        assert!(peers.heard(5, 2, millis(140)));
        assert!(matches!(
            judge(&mut peers, 3, "a:1", 389),
            Judgement::Early(_)
        ));
        assert!(matches!(
            judge(&mut peers, 3, "a:1", 390),
            Judgement::Fine(_)
        ));
        // On a connection that is left of it the one before is not heard any more.
        assert!(!peers.heard(5, 2, millis(400)));
        assert!(peers.heard(5, 3, millis(400)));
        // From elsewhere it may be a copy.
        assert!(matches!(
            judge(&mut peers, 4, "c:1", 10_399),
            Judgement::Early(_)
        ));
        assert!(matches!(
            judge(&mut peers, 4, "c:1", 10_400),
            Judgement::Fine(_)
        ));
    }

    /// As they are after a restart.
    fn read_again(peers: &Peers) -> Peers {
        let read = |(node, peer): (u64, &Peer)| {
            let bytes = peer.record.encode().unwrap();
            (node, PeerRecord::decode(&bytes).unwrap())
        };
        Peers::new(peers.iter().map(read).collect(), Duration::ZERO)
    }

    /// Its machine went back to before its last start, and whoever heard of that was restarted since.
    #[test]
    fn another_process_of_the_same_start_went_back() {
        let judge = |instance: u64| {
            let again = Introduction {
                instance,
                ..introduction(2, 5, id(5, 90))
            };
            let mut peers = read_again(&peers());
            peers.introduce(&again, None, Duration::ZERO, NOBODY)
        };
        assert!(matches!(judge(99), Judgement::Back(_)));
        assert_eq!(judge(2), Judgement::Fine(true));
    }

    /// A release that does not know what comes last reads the rest, and what it wrote is read.
    #[test]
    fn records_of_earlier_releases_are_read_and_read_ours() {
        let peers = peers();
        let record = &peers.get(5).unwrap().record;
        let bytes = record.encode().unwrap();
        let former: PeerRecord = postcard::from_bytes(&bytes).unwrap();
        let without = PeerRecord {
            process: None,
            ..record.clone()
        };
        assert_eq!(former, without);
        let former = postcard::to_stdvec(record).unwrap();
        assert_eq!(PeerRecord::decode(&former).unwrap(), without);
        assert_eq!(PeerRecord::decode(&bytes).unwrap(), *record);
        assert!(PeerRecord::decode(&bytes[..3]).is_err());
    }

    #[test]
    fn entries_of_earlier_terms_prove_nothing() {
        let mut seen = Seen::default();
        assert!(seen.advance(1, 5, id(4, 100)));
        assert_eq!(
            seen,
            Seen {
                boot: 1,
                term: 5,
                last: None
            }
        );
        assert!(seen.advance(1, 5, id(5, 101)));
        assert!(!seen.advance(1, 5, id(5, 100)));
        assert_eq!(seen.contradicts(2, 5, id(5, 101)), None);
    }

    #[test]
    fn addresses_follow_what_works() {
        let mut peers = peers();
        peers.introduce(
            &introduction(2, 4, None),
            Some("b:2"),
            Duration::ZERO,
            NOBODY,
        );
        assert_eq!(peers.addresses(5), ["b:2", "a:1"]);
        // Another identity answers at b:2.
        peers.introduce(
            &Introduction {
                node: 6,
                advertise: String::new(),
                ..introduction(1, 4, None)
            },
            Some("b:2"),
            Duration::ZERO,
            NOBODY,
        );
        assert_eq!(peers.addresses(5), ["a:1"]);
        assert_eq!(peers.addresses(6), ["b:2"]);
        assert_eq!(peers.at_address("b:2"), Some(6));
    }

    /// Nodes 5 and 6 at hosts of their own.
    fn two() -> Peers {
        let mut peers = peers();
        let other = Introduction {
            node: 6,
            advertise: "b:1".to_owned(),
            ..introduction(1, 4, None)
        };
        peers.introduce(&other, None, Duration::ZERO, NOBODY);
        peers
    }

    /// Whether a certificate for this host makes a peer an impostor as node 5, or as one that is not known.
    #[track_caller]
    fn check_impostor(peers: &Peers, node: u64, hosts: &[&str], is_left: bool, wanted: bool) {
        let is_for = |address: &str| {
            hosts
                .iter()
                .any(|host| address.split(':').next() == Some(host))
        };
        let why = peers.impostor(node, is_for, |_| is_left);
        assert_eq!(why.is_some(), wanted, "{node} of {hosts:?}: {why:?}");
    }

    #[test]
    fn nobody_is_another_by_the_certificate_of_a_third() {
        let peers = two();
        check_impostor(&peers, 5, &["b"], false, true);
        check_impostor(&peers, 6, &["a"], false, true);
        // As themselves, and by one certificate for all.
        check_impostor(&peers, 5, &["a"], false, false);
        check_impostor(&peers, 6, &["b"], false, false);
        check_impostor(&peers, 5, &["a", "b"], false, false);
        // A newcomer at a known host, as one that was provisioned anew.
        check_impostor(&peers, 7, &["b"], false, false);
        // Moved to where nobody is known, and to where one was that is no member any more and whose host is listed.
        check_impostor(&peers, 5, &["c"], false, false);
        check_impostor(&peers, 5, &["b"], true, false);
    }

    #[test]
    fn an_impostor_is_news_once_for_as_long_as_it_goes_on() {
        let mut peers = two();
        let second = Duration::from_secs;
        let mut check = |at: u64, why: &str, wanted: bool| {
            assert_eq!(peers.note_impostor(5, why, second(at)), wanted, "at {at} s");
        };
        check(10, "one way", true);
        check(11, "another", false);
        check(12, "one way", false);
        check(71, "one way", false);
        check(131, "one way", true);
        let peer = |node| peers.get(node).unwrap();
        assert_eq!(peer(5).impostor_at(second(132)), Some("one way"));
        assert_eq!(peer(5).impostor_at(second(191)), None);
        assert_eq!(peer(6).impostor_at(second(132)), None);
        assert_eq!(peer(5).refusal, None);
    }

    #[test]
    fn members_may_move_one_after_the_other() {
        let mut peers = two();
        let moved = Introduction {
            advertise: "c:1".to_owned(),
            ..introduction(3, 4, id(4, 10))
        };
        let judged = peers.introduce(&moved, None, MOVED_SILENCE, NOBODY);
        assert_eq!(judged, Judgement::Fine(true));
        // Node 6 comes to where node 5 was, and node 5 is still node 5 there and here.
        check_impostor(&peers, 6, &["a"], false, false);
        check_impostor(&peers, 5, &["a"], false, false);
        check_impostor(&peers, 5, &["c"], false, false);
        check_impostor(&peers, 6, &["c"], false, true);
    }

    #[test]
    fn strangers_do_not_pile_up() {
        let mut peers = Peers::default();
        for node in 1..=1000 {
            let stranger = Introduction {
                node,
                ..introduction(1, 1, None)
            };
            peers.introduce(&stranger, None, Duration::from_secs(node), NOBODY);
        }
        assert_eq!(peers.known.len(), PEERS_MAX);
        assert!(peers.get(1000).is_some());
    }

    /// Has peers with these numbers introduce themselves, one each second, to one that knows who the members are, or does not.
    fn come(peers: &mut Peers, nodes: RangeInclusive<u64>, members: Option<&BTreeSet<u64>>) {
        for node in nodes {
            let one = Introduction {
                node,
                advertise: String::new(),
                ..introduction(1, 1, None)
            };
            let judged = peers.introduce(&one, None, Duration::from_secs(node), members);
            assert!(matches!(judged, Judgement::Fine(_)), "{judged:?}");
        }
    }

    #[test]
    fn members_make_no_room_for_strangers() {
        // Heard before all others, and not at all since the start.
        let mut peers = peers();
        peers.known.insert(6, Peer::default());
        let members = BTreeSet::from([5, 6]);
        come(&mut peers, 7..=1_000, Some(&members));
        assert_eq!(peers.known.len(), PEERS_MAX);
        assert!(peers.get(6).is_some() && peers.get(1_000).is_some());
        let back = introduction(1, 9, id(9, 90));
        let judged = peers.introduce(&back, None, Duration::ZERO, Some(&members));
        assert!(matches!(judged, Judgement::Back(_)), "{judged:?}");

        // A member has its place where all are members, and nobody else has one.
        let mut peers = Peers::default();
        let members: BTreeSet<u64> = (1..=100).collect();
        come(&mut peers, 1..=200, Some(&members));
        assert!(peers.known.keys().eq(&members));
    }

    #[test]
    fn nobody_makes_room_before_the_members_are_known() {
        let mut peers = peers();
        peers.known.insert(6, Peer::default());
        come(&mut peers, 7..=1_000, None);
        assert_eq!(peers.known.len(), PEERS_MAX);
        assert!(peers.get(5).is_some() && peers.get(6).is_some());
    }
}
