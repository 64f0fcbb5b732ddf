//! What happened, as one hash: the simulators' witness that two runs of a seed are the same run.
//!
//! Off unless a simulator turns it on for its thread; then every line (a note, an effect, the bytes of a frame) is
//! hashed with the simulated time and the machine it happened on, and kept if asked for; a listener hears the lines that
//! are no bytes. In production [`event`] is one relaxed load of a counter that is zero, and its arguments are not
//! formatted.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Threads that trace.
static TRACING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// What a trace is told by the simulator that wants it.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// The simulated time.
    pub clock: fn() -> Duration,
    /// Writes the name of the machine whose program runs.
    pub place: fn(&mut String),
    /// Hears each line that is no bytes, after it was recorded: machine, kind, text. Must not trace.
    pub listener: fn(&str, &'static str, &str),
}

struct Recorder {
    sources: Sources,
    trace: Trace,
    keep_lines: bool,
    line: String,
}

/// What a thread's run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Of all lines in their order.
    pub hash: u64,
    pub events: u64,
    /// The time of the last line.
    pub ended_at: Duration,
    /// Empty unless they were to be kept.
    pub lines: Vec<String>,
}

/// FNV-1a, 64 bits: small, and the same on every machine.
#[must_use]
pub fn hash(mut state: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        state ^= u64::from(*byte);
        state = state.wrapping_mul(0x0100_0000_01b3);
    }
    state
}

/// Most events of a run, about a hundred times what one has: a program that does the same thing again and again without
/// waiting would go on until the memory is full.
const EVENTS_MAX: u64 = 2_000_000;

/// What [`hash`] starts from.
pub const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Begins a trace on this thread; an earlier one is forgotten.
pub fn start(sources: Sources, keep_lines: bool) {
    let recorder = Recorder {
        sources,
        trace: Trace {
            hash: HASH_START,
            events: 0,
            ended_at: Duration::ZERO,
            lines: Vec::new(),
        },
        keep_lines,
        line: String::new(),
    };
    if RECORDER.replace(Some(recorder)).is_none() {
        TRACING.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends this thread's trace. None when there is none.
pub fn stop() -> Option<Trace> {
    let recorder = RECORDER.take()?;
    TRACING.fetch_sub(1, Ordering::Relaxed);
    Some(recorder.trace)
}

/// Whether any thread traces: asks before the arguments of [`event`] cost something.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    TRACING.load(Ordering::Relaxed) > 0
}

/// Adds a line. `kind` is what happened in one word.
#[inline]
pub fn event(kind: &'static str, what: fmt::Arguments<'_>) {
    if is_on() {
        record(kind, what, true);
    }
}

/// Adds bytes, by their length and hash. `from` says whose they are.
#[inline]
pub fn bytes(kind: &'static str, from: fmt::Arguments<'_>, bytes: &[u8]) {
    if is_on() {
        let of_bytes = hash(HASH_START, bytes);
        record(
            kind,
            format_args!("{from} {} bytes {of_bytes:016x}", bytes.len()),
            false,
        );
    }
}

#[cold]
fn record(kind: &'static str, what: fmt::Arguments<'_>, is_heard: bool) {
    // A destructor may run while the thread's own data is going.
    let heard = RECORDER.try_with(|recorder| {
        let mut recorder = recorder.borrow_mut();
        let recorder = recorder.as_mut()?;
        let at = (recorder.sources.clock)();
        let line = &mut recorder.line;
        line.clear();
        write!(line, "{}.{:09} ", at.as_secs(), at.subsec_nanos())
            .expect("a String takes any text");
        let place_from = line.len();
        (recorder.sources.place)(line);
        let place_to = line.len();
        write!(line, " {kind} ").expect("a String takes any text");
        let text_from = line.len();
        write!(line, "{what}").expect("a String takes any text");
        let trace = &mut recorder.trace;
        trace.hash = hash(hash(trace.hash, line.as_bytes()), b"\n");
        trace.events += 1;
        assert!(
            trace.events < EVENTS_MAX,
            "the run turns in a circle: {EVENTS_MAX} events, the last: {line}"
        );
        trace.ended_at = at;
        if recorder.keep_lines {
            trace.lines.push(line.clone());
        }
        is_heard.then(|| {
            let place = line[place_from..place_to].to_owned();
            (
                recorder.sources.listener,
                place,
                line[text_from..].to_owned(),
            )
        })
    });
    if let Ok(Some((listener, place, text))) = heard {
        listener(&place, kind, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: Sources = Sources {
        clock: || Duration::from_millis(1_500),
        place: |line| line.push_str("n1"),
        listener: |place, kind, text| {
            HEARD.with_borrow_mut(|heard| heard.push(format!("{place} {kind}: {text}")));
        },
    };

    thread_local! {
        static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn lines_and_their_order_make_the_hash() {
        let run = |kinds: [&'static str; 2]| {
            start(SOURCES, true);
            event(kinds[0], format_args!("{}", 1));
            bytes(kinds[1], format_args!("n1>n2"), b"abc");
            stop().unwrap()
        };
        let first = run(["note", "frame"]);
        assert_eq!(first, run(["note", "frame"]));
        assert_ne!(first.hash, run(["frame", "note"]).hash);
        assert_eq!(first.events, 2);
        assert_eq!(
            first.lines,
            [
                "1.500000000 n1 note 1",
                "1.500000000 n1 frame n1>n2 3 bytes e71fa2190541574b"
            ]
        );
        let heard = HEARD.take();
        assert_eq!(heard, ["n1 note: 1", "n1 note: 1", "n1 frame: 1"]);
        event("note", format_args!("after the end"));
        assert_eq!(stop(), None);
    }
}
