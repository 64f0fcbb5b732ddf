//! Makes a failing plan small: takes lines out, many at first and one by one at last, and shortens what lasts, while the
//! run goes on failing in the same way.

use std::time::Duration;

use crate::outcome::{Failure, class};
use crate::scenario::Plan;
use crate::scenario::action::{Planned, Window};

/// The smallest plan that was found.
#[derive(Debug)]
pub struct Shrunk {
    pub plan: Plan,
    pub failure: Failure,
}

/// Two failures are the same if they are of one kind and one oracle says so.
fn is_same(one: &Failure, other: &Failure) -> bool {
    class(&one.to_string()) == class(&other.to_string())
}

/// Shrinks a plan. None when it does not fail at all.
pub fn shrink(
    plan: &Plan,
    mut run: impl FnMut(&Plan) -> Option<Failure>,
    mut say: impl FnMut(&str),
) -> Option<Shrunk> {
    let failure = run(plan)?;
    let mut best = Shrunk {
        plan: plan.clone(),
        failure,
    };
    let mut attempt = |best: &mut Shrunk, lines: Vec<Planned>| {
        let plan = Plan {
            // What a scenario's script is to come to says nothing of a part of it.
            is_calm: best.plan.is_calm && lines.len() == best.plan.lines.len(),
            lines,
            ..best.plan.clone()
        };
        match run(&plan) {
            Some(failure) if is_same(&failure, &best.failure) => {
                say(&format!("{} lines: {failure}", plan.lines.len()));
                *best = Shrunk { plan, failure };
                true
            }
            Some(_) | None => false,
        }
    };
    let mut size = best.plan.lines.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut is_smaller = false;
        while at < best.plan.lines.len() {
            let mut lines = best.plan.lines.clone();
            lines.drain(at..(at + size).min(lines.len()));
            if attempt(&mut best, lines) {
                is_smaller = true;
            } else {
                at += size;
            }
        }
        if size == 1 && !is_smaller {
            break;
        }
        size = size.div_ceil(2).max(1);
    }
    for at in 0..best.plan.lines.len() {
        while let Some(lasts) = best.plan.lines[at].lasts {
            let half = lasts.0 / 2;
            if half < Duration::from_millis(10) {
                break;
            }
            let mut lines = best.plan.lines.clone();
            lines[at].lasts = Some(Window(half, half));
            if !attempt(&mut best, lines) {
                break;
            }
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn plan(count: u64) -> Plan {
        let line = |number| {
            format!("at {number}ms: kill m1 for 4000ms")
                .parse()
                .unwrap()
        };
        Plan {
            seed: 1,
            kind: Kind::Mysql,
            lines: (0..count).map(line).collect(),
            is_calm: false,
            mistake: None,
        }
    }

    /// Fails when all of these lines are there and the first lasts a second at least.
    fn fails_with(needed: &'static [u64]) -> impl FnMut(&Plan) -> Option<Failure> {
        move |plan| {
            let has = |number: &u64| {
                plan.lines
                    .iter()
                    .find(|line| line.to_string().starts_with(&format!("at {number}ms:")))
            };
            let all: Option<Vec<&Planned>> = needed.iter().map(has).collect();
            let lasts = all?.first()?.lasts?.0;
            (lasts >= Duration::from_secs(1)).then(|| Failure::Safety("oracle: broken".to_owned()))
        }
    }

    #[test]
    fn what_is_not_needed_goes() {
        let shrunk = shrink(&plan(37), fails_with(&[5, 30]), |_| ()).unwrap();
        let lines: Vec<String> = shrunk.plan.lines.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("at 5ms: kill m1 for 1000ms"),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("at 30ms"), "{lines:?}");
    }

    #[test]
    fn what_a_whole_script_is_to_come_to_is_not_asked_of_a_part() {
        let calm = Plan {
            is_calm: true,
            ..plan(4)
        };
        let run = |plan: &Plan| {
            let failure = || Failure::Safety("expected: something".to_owned());
            plan.is_calm.then(failure)
        };
        assert_eq!(shrink(&calm, run, |_| ()).unwrap().plan.lines.len(), 4);
    }

    #[test]
    fn another_failure_is_not_taken_for_it() {
        let mut first = true;
        let run = |_: &Plan| {
            Some(if std::mem::take(&mut first) {
                Failure::Safety("one: broken".to_owned())
            } else {
                Failure::Safety("another: broken".to_owned())
            })
        };
        assert_eq!(shrink(&plan(4), run, |_| ()).unwrap().plan.lines.len(), 4);
        assert!(shrink(&plan(4), |_| None, |_| ()).is_none());
    }
}
