//! Configuration files: refused with bounded messages, or accepted and written down to the same.

use orchestrator::config::{Secrets, parse_files};

/// Most bytes of all messages together: they are shown to a person.
const MESSAGES_BYTES_MAX: usize = 256 * 1024;

/// One file, or two with a zero byte between them.
pub fn run(data: &[u8]) {
    let parts: Vec<&[u8]> = data.splitn(2, |byte| *byte == 0).collect();
    let files: Vec<(&str, &[u8])> = ["one.json", "two.json"].into_iter().zip(parts).collect();
    let env = |name: &str| (name == "A").then(|| String::from("value"));
    match parse_files(&files, &env) {
        Err(errors) => {
            assert!(!errors.problems.is_empty());
            assert!(errors.to_string().len() <= MESSAGES_BYTES_MAX);
        }
        Ok(loaded) => {
            let length: usize = loaded.warnings.iter().map(String::len).sum();
            assert!(length <= MESSAGES_BYTES_MAX, "{length} bytes of warnings");
            let _ = loaded.settings.dump_json(Secrets::Mask);
            let dump = loaded.settings.dump_json(Secrets::Show);
            let policy = loaded.settings.policy();
            let again = parse_files(&[("again.json", dump.to_string().as_bytes())], &|_| None);
            // A secret that looks like a variable is one again.
            if dump.to_string().contains("${") {
                return;
            }
            match again {
                Ok(again) => assert_eq!(again.settings.policy(), policy, "{dump}"),
                Err(errors) => panic!("what was accepted is refused: {errors}\n{dump}"),
            }
        }
    }
}
