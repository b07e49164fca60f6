//! Whatever is in a file: no panic, no hang, and every problem lies in the file. `fuzz/` asks the
//! same with coverage feedback, for as long as one likes.

mod invariants;

use std::path::Path;

use invariants::check;
use proptest::prelude::*;
use tapestry_topologies::{load, load_str};

const SEEDS: [&str; 5] = [
    include_str!("../chain.yaml"),
    include_str!("../pair.yaml"),
    include_str!("../lan.yaml"),
    include_str!("../ring.yaml"),
    include_str!("../routers.yaml"),
];

/// Words of the format and of YAML that random text would seldom hit.
const WORDS: [&str; 24] = [
    "${",
    "}",
    "$${",
    "[",
    "]",
    "{",
    ": ",
    "- ",
    "\n  ",
    "\n",
    "n[0-${nodes-1}]",
    "'",
    "\"",
    "|\n",
    "&a ",
    "*a",
    "!!str ",
    "kind: hub",
    "lan: ",
    "type: end",
    "10.0.0.0/16",
    "é",
    "\u{0}",
    "99999999999",
];

#[derive(Debug, Clone)]
enum Edit {
    Cut(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), 1..40_usize).prop_map(|(at, length)| Edit::Cut(at, length)),
        (any::<usize>(), proptest::sample::select(&WORDS[..]))
            .prop_map(|(at, word)| Edit::Insert(at, word.to_owned())),
        (any::<usize>(), "\\PC{1,8}").prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<usize>(), 1..80_usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let count = chars.len().max(1);
    match edit {
        Edit::Cut(at, length) => {
            let at = (at % count).min(chars.len());
            chars.drain(at..(at + length).min(chars.len()));
        }
        Edit::Insert(at, new) => {
            let at = (at % count).min(chars.len());
            chars.splice(at..at, new.chars());
        }
        Edit::Repeat(at, length) => {
            let at = (at % count).min(chars.len());
            let part: Vec<char> = chars[at..(at + length).min(chars.len())].to_vec();
            chars.splice(at..at, part);
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files(seed in 0..SEEDS.len(), edits in proptest::collection::vec(edit(), 1..6)) {
        let text = edits.iter().fold(SEEDS[seed].to_owned(), |text, edit| apply(&text, edit));
        check(&text);
    }

    #[test]
    fn words_of_the_format_in_any_order(parts in proptest::collection::vec(
        prop_oneof![proptest::sample::select(&WORDS[..]).prop_map(str::to_owned), "[a-z:\\[\\]{}, \n-]{0,12}"], 0..60)) {
        check(&parts.concat());
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.yaml");
        std::fs::write(&path, &bytes).unwrap();
        if let Err(wrong) = load(&path, &[]) {
            for place in wrong.problems().iter().filter_map(|problem| problem.place.as_ref()) {
                prop_assert!(place.offset + place.text.len() <= bytes.len());
            }
        }
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_value_of_any_parameter(
        name in proptest::sample::select(&["nodes", "kind", "pps", "seconds", "rate", "delay", "attach"][..]),
        value in prop_oneof!["\\PC{0,20}".boxed(), any::<i64>().prop_map(|number| number.to_string()).boxed()],
    ) {
        let sets = [(name.to_owned(), value)];
        if let Err(wrong) = load_str("chain.yaml", SEEDS[0], &sets, Path::new("")) {
            prop_assert!(!wrong.problems().is_empty());
        }
    }
}
