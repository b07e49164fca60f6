//! What holds for every text that is read as a topology file.

use std::path::Path;

use tapestry_topologies::{graph, load_str};

/// Panics if reading this text as a topology file breaks a promise.
pub(crate) fn check(text: &str) {
    match load_str("fuzz.yaml", text, &[], Path::new("/nonexistent")) {
        Ok(topology) => {
            for drawing in [graph::dot(&topology), graph::mermaid(&topology), graph::svg(&topology)]
            {
                assert!(!drawing.is_empty());
            }
        }
        Err(wrong) => {
            assert!(!wrong.problems().is_empty());
            for problem in wrong.problems() {
                assert!(!problem.message.is_empty());
                let Some(place) = &problem.place else { continue };
                let end = place.offset + place.text.len();
                assert_eq!(text.get(place.offset..end), Some(place.text.as_str()), "{problem:?}");
                let before = &text[..place.offset];
                assert_eq!(place.line, before.matches('\n').count() + 1);
                let line = before.rsplit('\n').next().unwrap_or_default();
                assert_eq!(place.column, line.chars().count() + 1);
            }
            // What a person sees: of bounded size, and nothing in it that a terminal would obey.
            let problems = wrong.problems().len();
            let mut shown = String::new();
            miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
                .render_report(&mut shown, &wrong)
                .expect("a text takes everything");
            assert!(shown.len() < 20_000 * (problems + 1), "{} bytes", shown.len());
            let obeyed = |c: char| {
                (c.is_control() && c != '\n')
                    || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
            };
            assert!(!shown.contains(obeyed), "{shown:?}");
        }
    }
}
