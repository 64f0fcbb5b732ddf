//! `orchestrator-fuzz NAME SECONDS [SEED]`: mutates the corpus of a target until the time is over. An input that breaks
//! a promise, or takes more than a second of the processor, is saved into the corpus. Exit code 1: one was.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Duration,
};

use orchestrator::env::{Env as _, TokioEnv};
use orchestrator_fuzz::{
    TARGETS, Target,
    mutate::{Random, mutate},
};

/// One input may take so much of the processor; how long it takes says more of what else runs on the machine.
const SLOW: Duration = Duration::from_secs(1);
/// Inputs that were found interesting by chance are kept in memory, so that mutations pile up: so many.
const POOL_MAX: usize = 2000;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let target = arguments
        .next()
        .and_then(|name| orchestrator_fuzz::find(&name));
    let seconds = arguments.next().and_then(|text| text.parse().ok());
    let seed = arguments.next().map_or(Some(1), |text| text.parse().ok());
    let (Some(target), Some(seconds), Some(seed)) = (target, seconds, seed) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "usage: orchestrator-fuzz NAME SECONDS [SEED]\nnames: {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    };
    match fuzz(target, Duration::from_secs(seconds), seed) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(file)) => {
            eprintln!("saved: {file}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("orchestrator-fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

fn fuzz(target: Target, lasts: Duration, seed: u64) -> std::io::Result<Option<String>> {
    let mut pool: Vec<Vec<u8>> = target.corpus()?.into_iter().map(|(_, data)| data).collect();
    let mut random = Random::new(seed);
    let began = TokioEnv::mono();
    let mut runs = 0_u64;
    while TokioEnv::mono().saturating_sub(began) < lasts {
        let mut data = pool[random.below(pool.len())].clone();
        let other = pool[random.below(pool.len())].clone();
        mutate(
            &mut data,
            &mut random,
            &other,
            target.words,
            target.bytes_max,
        );
        let before = processor_time();
        let ended = catch_unwind(AssertUnwindSafe(|| target.try_on(&data)));
        runs += 1;
        let is_slow = processor_time().saturating_sub(before) > SLOW;
        let what = match (ended, is_slow) {
            (Err(_), _) => "broken",
            (Ok(()), true) => "slow",
            (Ok(()), false) => {
                // Nothing tells which inputs reach further: some are kept by chance.
                if runs.is_multiple_of(64) {
                    if pool.len() < POOL_MAX {
                        pool.push(data);
                    } else {
                        let place = random.below(pool.len());
                        pool[place] = data;
                    }
                }
                continue;
            }
        };
        let file = target.folder().join(format!("{what}-{:016x}", hash(&data)));
        std::fs::write(&file, &data)?;
        return Ok(Some(file.display().to_string()));
    }
    println!("{}: {runs} inputs, nothing found", target.name);
    Ok(None)
}

/// What this thread has used of the processor; zero where the kernel does not tell.
fn processor_time() -> Duration {
    let nanos = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// FNV-1a: a name for a file.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
