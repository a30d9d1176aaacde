//! The text of `docs/operators.md`.

use crate::Verdict;
use crate::cases::Case;
use secateur::onnx::{NEWEST_OPSET, OLDEST_OPSET, SupportedOperator, supported_operators};
use std::collections::BTreeMap;
use std::fmt::Write;

const VERSION: &str = "Version of `onnx`: ";

/// The version of `onnx` that a table was made with.
pub fn version(text: &str) -> Option<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix(VERSION));
    line.map(|version| version.trim_end_matches('.'))
}

/// Passed cases, and the refused ones by reason.
#[derive(Default)]
struct Count<'c> {
    pass: usize,
    refused: BTreeMap<&'c str, Vec<&'c str>>,
    wrong: usize,
}

impl Count<'_> {
    fn refusals(&self) -> usize {
        self.refused.values().map(Vec::len).sum()
    }
}

/// Cases of several nodes are counted apart from those of one operator.
const SEVERAL: &str = "several nodes";

/// The whole document.
pub fn render(version: &str, verdicts: &[(&Case, Verdict)]) -> String {
    let mut counts: BTreeMap<&str, Count<'_>> = BTreeMap::new();
    let mut total = Count::default();
    for (case, verdict) in verdicts {
        let operator = match case.operators.as_slice() {
            [operator] => operator,
            _ => SEVERAL,
        };
        let count = counts.entry(operator).or_default();
        for count in [count, &mut total] {
            match verdict {
                Verdict::Pass => count.pass += 1,
                Verdict::Refused(reason) => {
                    count.refused.entry(reason).or_default().push(&case.name);
                }
                Verdict::Wrong(_) => count.wrong += 1,
            }
        }
    }
    let mut text = format!(
        "# Operators\n\n\
         What can be read, in operator sets {OLDEST_OPSET} to {NEWEST_OPSET}, and how ONNX's own test cases of it end \
         (`onnx.backend.test.case.node`): run forward on both engines and compared with the expected outputs. \
         Refused means that reading, shape inference or an engine says why it cannot; the reasons are below. \
         Written by a test (`SECATEUR_UPDATE=1 cargo test -p secateur --test conformance`).\n\n\
         {VERSION}{version}.\n\n\
         {} cases pass, {} are refused, {} are wrong.\n\n\
         | operator | since | pass | refused | limits |\n| --- | --- | --- | --- | --- |\n",
        total.pass,
        total.refusals(),
        total.wrong
    );
    let none = Count::default();
    for row in supported_operators() {
        let SupportedOperator {
            name,
            since,
            limits,
        } = row;
        let count = counts.get(name).unwrap_or(&none);
        let (pass, refused) = (count.pass, count.refusals());
        let _ = writeln!(text, "| {name} | {since} | {pass} | {refused} | {limits} |");
    }
    if let Some(count) = counts.get(SEVERAL) {
        let _ = writeln!(
            text,
            "| {SEVERAL} | | {} | {} | |",
            count.pass,
            count.refusals()
        );
    }
    text.push_str("\n## Refused cases, with the reason\n");
    for (operator, count) in counts.iter().filter(|(_, count)| count.refusals() > 0) {
        let _ = write!(text, "\n{operator}:\n\n");
        for (reason, cases) in &count.refused {
            let names: Vec<String> = cases.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(text, "- {reason}: {}", names.join(", "));
        }
    }
    text
}
