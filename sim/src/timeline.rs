//! A run as people read it: the lines of its trace that tell who did what and why, and a drawing of them, one row a
//! machine, in a page that needs nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::scenario::{Plan, Scenario};

/// Kinds of lines that are not for people: bytes, and effects that only look or talk.
const SILENT: [&str; 1] = ["wire"];
const SILENT_EFFECTS: [&str; 7] = [
    "Probe", "Watch", "Unwatch", "Tell", "TellOne", "Propose", "Answer",
];
const PIXELS_A_SECOND: f64 = 60.0;
const ROW_PIXELS: usize = 46;
const LEFT_PIXELS: usize = 90;
/// Rows of marks within a machine's row, so that what happens at once is told apart.
const SHELVES: usize = 3;

/// A line of a trace, taken apart.
struct Line<'a> {
    at: f64,
    machine: &'a str,
    kind: &'a str,
    text: &'a str,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, ' ');
    Some(Line {
        at: parts.next()?.parse().ok()?,
        machine: parts.next()?,
        kind: parts.next()?,
        text: parts.next().unwrap_or_default(),
    })
}

/// Whether a line of a trace is told to people.
#[must_use]
pub fn is_told(line: &str) -> bool {
    parse(line).is_some_and(|line| {
        let is_silent_effect = line.kind == "effect"
            && SILENT_EFFECTS.iter().any(|name| {
                line.text
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '(']))
            });
        !SILENT.contains(&line.kind) && !is_silent_effect
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn colour(kind: &str) -> &'static str {
    match kind {
        "fault" => "#c0392b",
        "phase" => "#2c3e50",
        "sql" => "#8e44ad",
        "commit" => "#2980b9",
        "leads" => "#27ae60",
        "follows" | "vote" => "#7f8c8d",
        "operator" => "#d68910",
        "hook" | "kv" => "#b7950b",
        "daemon" => "#16a085",
        _ => "#95a5a6",
    }
}

/// The page of a run.
#[must_use]
pub fn page(scenario: &Scenario, plan: &Plan, outcome: &str, lines: &[String]) -> String {
    let told: Vec<Line<'_>> = lines
        .iter()
        .filter(|line| is_told(line))
        .filter_map(|line| parse(line))
        .collect();
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &told {
        rows.entry(line.machine).or_default();
    }
    for (row, place) in rows.values_mut().enumerate() {
        *place = row;
    }
    let end = told.last().map_or(1.0, |line| line.at);
    let width = LEFT_PIXELS + (end * PIXELS_A_SECOND) as usize + 40;
    let height = rows.len() * ROW_PIXELS + 40;
    let mut svg = String::new();
    let _ = write!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">"#
    );
    for second in 0..=(end as usize) {
        let x = LEFT_PIXELS as f64 + second as f64 * PIXELS_A_SECOND;
        let _ = write!(
            svg,
            r##"<line x1="{x}" y1="20" x2="{x}" y2="{height}" stroke="#eee"/><text x="{x}" y="14" fill="#888">{second} s</text>"##
        );
    }
    for (machine, row) in &rows {
        let y = 20 + row * ROW_PIXELS;
        let _ = write!(
            svg,
            r##"<line x1="0" y1="{y}" x2="{width}" y2="{y}" stroke="#ddd"/><text x="6" y="{}">{}</text>"##,
            y + ROW_PIXELS / 2,
            escape(machine)
        );
    }
    for (number, line) in told.iter().enumerate() {
        let x = LEFT_PIXELS as f64 + line.at * PIXELS_A_SECOND;
        let row = rows.get(line.machine).copied().unwrap_or_default();
        let y = 30 + row * ROW_PIXELS + (number % SHELVES) * (ROW_PIXELS - 16) / SHELVES;
        let _ = write!(
            svg,
            r##"<a href="#l{number}"><circle cx="{x:.1}" cy="{y}" r="4" fill="{}"><title>{:.3} s {} {}: {}</title></circle></a>"##,
            colour(line.kind),
            line.at,
            escape(line.machine),
            escape(line.kind),
            escape(line.text)
        );
    }
    svg.push_str("</svg>");
    let mut table = String::new();
    for (number, line) in told.iter().enumerate() {
        let _ = writeln!(
            table,
            r#"<tr id="l{number}"><td>{:.3}</td><td>{}</td><td style="color:{}">{}</td><td>{}</td></tr>"#,
            line.at,
            escape(line.machine),
            colour(line.kind),
            escape(line.kind),
            escape(line.text)
        );
    }
    let plan_lines: Vec<String> = plan
        .lines
        .iter()
        .map(|line| escape(&line.to_string()))
        .collect();
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title>\n<style>body{{font-family:sans-serif}}td{{vertical-align:top;padding:0 8px;font-size:13px}}tr:target{{background:#ffeaa7}}.drawing{{overflow-x:auto;border:1px solid #ddd}}</style>\n<h1>{title}</h1>\n<p>seed {seed}, {kind:?}: {outcome}</p>\n<pre>{plan}</pre>\n<div class=\"drawing\">{svg}</div>\n<table>{table}</table>\n",
        title = escape(&scenario.title),
        seed = plan.seed,
        kind = plan.kind,
        outcome = escape(outcome),
        plan = plan_lines.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_was_done_and_not_what_was_said() {
        for told in [
            "9.000000000 n1 note [u] chosen: m3",
            "9.000000000 m1 sql fence (read-only)",
            "9.000000000 n1 effect Run { uid: u }",
            "9.000000000 - fault kill m1",
        ] {
            assert!(is_told(told), "{told}");
        }
        for silent in [
            "9.000000000 n1 wire 10.0.0.1:1>10.0.0.2:2 3 bytes 00",
            "9.000000000 n1 effect Probe { key: m1 }",
            "9.000000000 n1 effect Tell(Opinions([]))",
            "",
        ] {
            assert!(!is_told(silent), "{silent}");
        }
    }

    #[test]
    fn a_page_shows_every_line_and_nothing_breaks_out_of_it() {
        let scenario =
            Scenario::parse("title = \"<b>\"\nlength = \"1s\"\nscript = [\"at 1s: kill m1\"]")
                .unwrap();
        let plan = scenario.plan(4, None).unwrap();
        let lines = vec!["0.500000000 n1 note a <script> & \"b\"".to_owned()];
        let page = page(&scenario, &plan, "FAILED", &lines);
        assert!(
            page.contains("a &lt;script&gt; &amp; &quot;b&quot;"),
            "{page}"
        );
        assert!(
            !page.contains("<script>") && !page.contains("<b>"),
            "{page}"
        );
        assert!(page.contains("at 1000ms: kill m1"));
    }
}
