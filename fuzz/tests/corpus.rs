//! Every file of every corpus, and mutations of each: the same at each run.

use orchestrator_fuzz::{
    TARGETS,
    mutate::{Random, mutate},
};

fn replay(name: &str) {
    let target = orchestrator_fuzz::find(name).expect("a target of this name");
    let files = target.corpus().expect("its corpus");
    assert!(files.len() >= 3, "the corpus of {name} has hardly any file");
    for (number, (file, data)) in files.iter().enumerate() {
        println!("{name}/{file}");
        target.try_on(data);
        let mut random = Random::new(number as u64 + 1);
        for mutation in 0..target.mutations {
            let (_, other) = &files[random.below(files.len())];
            let mut changed = data.clone();
            mutate(
                &mut changed,
                &mut random,
                other,
                target.words,
                target.bytes_max,
            );
            // Shown only if the target panics: saved, it is a file of the corpus.
            println!("{name}/{file}, mutation {mutation}");
            target.try_on(&changed);
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets!(gtid command snapshot history raft configuration probe http node);

#[test]
fn one_seed_makes_one_sequence() {
    let run = |seed| {
        let mut random = Random::new(seed);
        let mut data = b"some bytes to begin with".to_vec();
        for _ in 0..200 {
            mutate(&mut data, &mut random, b"others", &["word"], 1000);
        }
        data
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
