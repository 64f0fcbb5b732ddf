//! Ten minutes of kills and cuts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{DaemonOptions, Daemons, get};
use orchestrator_tests::figures::Random;
use orchestrator_tests::network::Network;
use orchestrator_tests::process::Signal;
use serde_json::Value;

const WATCHED: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long somebody who looks waits for an answer; less than it takes to lead again.
const GLANCE: Duration = Duration::from_millis(500);
/// Of one trouble.
const TROUBLED: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));

/// What befalls one daemon for a while.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Isolated,
    Killed,
    CutFromOne,
    Unheard,
    Deaf,
    Frozen,
}

const TROUBLES: [Trouble; 6] = [
    Trouble::Isolated,
    Trouble::Killed,
    Trouble::CutFromOne,
    Trouble::Unheard,
    Trouble::Deaf,
    Trouble::Frozen,
];

impl Trouble {
    fn begin(self, network: &Network, daemons: &Daemons, place: usize) {
        let (one, other) = ((place + 1) % 3, (place + 2) % 3);
        let daemon = &daemons.all()[place];
        match self {
            Trouble::Isolated => network.isolate(place).expect("cut"),
            Trouble::Killed => drop(daemon.signal(Signal::Kill)),
            Trouble::CutFromOne => network.cut(place, one).expect("cut"),
            Trouble::Unheard => {
                network.cut_one_way(place, one).expect("cut");
                network.cut_one_way(place, other).expect("cut");
            }
            Trouble::Deaf => {
                network.cut_one_way(one, place).expect("cut");
                network.cut_one_way(other, place).expect("cut");
            }
            Trouble::Frozen => drop(daemon.signal(Signal::Stop)),
        }
    }

    async fn end(self, network: &Network, daemons: &Daemons, place: usize) {
        let (one, other) = ((place + 1) % 3, (place + 2) % 3);
        let finds = |from: usize, to: usize| {
            let address = network.machines()[to].address();
            network.machines()[from].finds(address).expect("joined");
        };
        match self {
            Trouble::Isolated => network.rejoin(place).expect("joined"),
            Trouble::Killed => {
                let daemon = &daemons.all()[place];
                daemon.wait_ended(PATIENCE).await.expect("ended");
                daemon.start().expect("started");
            }
            Trouble::CutFromOne => network.join(place, one).expect("joined"),
            Trouble::Unheard => [one, other].iter().for_each(|to| finds(place, *to)),
            Trouble::Deaf => [one, other].iter().for_each(|from| finds(*from, place)),
            Trouble::Frozen => drop(daemons.all()[place].signal(Signal::Continue)),
        }
    }
}

/// An answer of a daemon that it leads: it holds for some moment between its request and itself.
#[derive(Clone, Copy, Debug)]
struct Claim {
    place: usize,
    asked: Instant,
    answered: Instant,
}

impl Claim {
    /// Whether that moment, whichever it is, is of this time.
    fn is_within(&self, (from, to): (Instant, Instant)) -> bool {
        from <= self.asked && self.answered <= to
    }
}

/// Of each term who led, and from when to when it surely did: whoever leads a term twice leads it all the while, or nobody does.
type Spans = BTreeMap<u64, (usize, (Instant, Instant))>;

fn spans(led: &[(u64, Claim)]) -> Spans {
    let mut spans = BTreeMap::new();
    for (term, claim) in led {
        let span = (claim.answered, claim.asked);
        let (first, (from, to)) = spans.entry(*term).or_insert((claim.place, span));
        assert_eq!(*first, claim.place, "two lead in term {term}");
        *from = claim.answered.min(*from);
        *to = claim.asked.max(*to);
    }
    spans
}

/// Of the answers that proxies go by: those of a moment at which another one led; and how many are of a moment at which the one
/// that answered did, in which term.
fn judge(checks: &[Claim], spans: &Spans) -> (Vec<(u64, Claim)>, usize) {
    let (mut wrongs, mut rights) = (Vec::new(), 0);
    for check in checks {
        for (term, (place, span)) in spans {
            match check.is_within(*span) {
                true if check.place == *place => rights += 1,
                true => wrongs.push((*term, *check)),
                false => {}
            }
        }
    }
    (wrongs, rights)
}

#[test]
fn an_answer_while_another_one_leads_is_found() {
    let began = Instant::now();
    let claim = |place, asked, answered| {
        let at = |seconds| began + Duration::from_secs(seconds);
        let (asked, answered) = (at(asked), at(answered));
        Claim {
            place,
            asked,
            answered,
        }
    };
    let led = [
        (1, claim(0, 0, 1)),
        (1, claim(0, 9, 10)),
        (2, claim(1, 11, 12)),
        (2, claim(1, 20, 21)),
    ];
    let spans = spans(&led);
    for (check, is_wrong, is_right) in [
        (claim(0, 2, 3), 0, 1),
        (claim(1, 2, 3), 1, 0),
        (claim(2, 13, 14), 1, 0),
        (claim(1, 13, 14), 0, 1),
        // Perhaps before the one led, or after the other.
        (claim(1, 0, 2), 0, 0),
        (claim(2, 9, 11), 0, 0),
    ] {
        let (wrongs, rights) = judge(&[check], &spans);
        assert_eq!((wrongs.len(), rights), (is_wrong, is_right), "{check:?}");
    }
}

/// No two daemons say that they lead in one term, and no two say so at one time, by either answer.
#[tokio::test]
async fn never_two_leaders_whatever_is_cut_or_killed() {
    let network = Network::lay(3).expect("a network");
    let options = DaemonOptions::default_configuration();
    let daemons = Daemons::start_on(&network, &options).expect("daemons");
    daemons.wait_whole(PATIENCE).await.expect("whole");
    let ended = Arc::new(AtomicBool::new(false));
    let mut lookers = Vec::new();
    for (place, daemon) in daemons.all().iter().enumerate() {
        let (address, ended) = (daemon.http(), ended.clone());
        lookers.push(tokio::spawn(async move {
            let (mut led, mut checks, mut looks) = (Vec::new(), Vec::new(), 0);
            let claim = |asked| Claim {
                place,
                asked,
                answered: Instant::now(),
            };
            while !ended.load(Ordering::Relaxed) {
                let asked = Instant::now();
                // Term and leadership in one answer, and the answer that proxies go by.
                if let Ok(reply) = get(address, "/api/v2/health", GLANCE).await
                    && let Ok(health) = reply.json()
                    && health["IsLeading"] == Value::Bool(true)
                {
                    let term = health["Term"].as_u64().expect("a term");
                    led.push((term, claim(asked)));
                }
                let asked = Instant::now();
                if let Ok(reply) = get(address, "/api/leader-check", GLANCE).await {
                    let wanted = if reply.status == 200 {
                        "\"OK\""
                    } else {
                        "\"Not leader\""
                    };
                    assert_eq!(reply.body, wanted);
                    looks += 1;
                    if reply.status == 200 {
                        checks.push(claim(asked));
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (looks, led, checks)
        }));
    }
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < WATCHED {
        let led = daemons.wait_whole(PATIENCE).await.expect("whole");
        // Mostly whoever leads.
        let place = (led + [0, 0, 0, 1, 2][random.below(5)]) % 3;
        let trouble = TROUBLES[random.below(TROUBLES.len())];
        let (shortest, longest) = TROUBLED;
        let length = shortest + (longest - shortest).mul_f64(random.fraction());
        rounds += 1;
        println!("{rounds}: {place} of leader {led} is {trouble:?} for {length:?}");
        trouble.begin(&network, &daemons, place);
        tokio::time::sleep(length).await;
        trouble.end(&network, &daemons, place).await;
    }
    daemons.wait_whole(PATIENCE).await.expect("whole");
    ended.store(true, Ordering::Relaxed);
    let (mut led, mut checks, mut looks) = (Vec::new(), Vec::new(), 0);
    for looker in lookers {
        let (looked, its_led, its_checks) = looker.await.expect("it ends");
        looks += looked;
        led.extend(its_led);
        checks.extend(its_checks);
    }
    let spans = spans(&led);
    let by_term: BTreeMap<u64, usize> =
        spans.iter().map(|(term, (led, _))| (*term, *led)).collect();
    println!(
        "{rounds} troubles, {looks} looks, {} terms: {by_term:?}",
        by_term.len()
    );
    assert!(by_term.len() >= 5, "{by_term:?}");
    // One leader's moments end before another's begin.
    led.sort_by_key(|(_, claim)| claim.asked);
    let mut ends: BTreeMap<u64, Instant> = BTreeMap::new();
    for (term, claim) in led {
        let later = ends.range(term + 1..).map(|(_, at)| *at).min();
        assert!(
            later.is_none_or(|later| claim.asked < later),
            "term {term} led after a later one did"
        );
        ends.entry(term).or_insert(claim.answered);
    }
    let (wrongs, rights) = judge(&checks, &spans);
    assert!(wrongs.is_empty(), "{wrongs:?}, of {spans:?}");
    println!(
        "{} answers of leader-check with 200, {rights} of a moment at which that one led",
        checks.len()
    );
    assert!(rights * 2 > checks.len(), "{rights} of {}", checks.len());
}
