//! Host lists: `n[0-9]`, `n[0,2,5-7]`, `rack[1-2]n[00-15]`, `a,b,c`.
//!
//! Purpose: many names in few words, as cluster tools write them.
//! Assumptions: `lo-(lo-1)` is the empty range, so that `n[1-${nodes-2}]` also holds for two
//! nodes; any lower end is a mistake. A leading zero of the lower end sets the width.
//! Not modelled: steps, exclusions, letters as ranges.
//! Reference: the host-list notation of Slurm and pdsh.

use std::collections::HashSet;
use std::ops::Range;

use thiserror::Error;

/// Most names one topology may have; the hardware addresses of 65,535 nodes would be distinct, but
/// no host runs as many.
pub(crate) const MAX_NODES: usize = 20_000;

/// Beyond any count of nodes; numbers of so many digits fit 32 bits with room to add.
const MAX_DIGITS: usize = 9;

/// Why a text is not a host list; each names the part at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum HostsError {
    #[error("the range `{part}` is impossible: it ends below its beginning")]
    Impossible { part: String, range: Range<usize> },
    #[error("`{part}` is not a number or a range of numbers such as `0-9`")]
    NotNumbers { part: String, range: Range<usize> },
    #[error("the bracket in `{part}` is not closed")]
    Unclosed { part: String, range: Range<usize> },
    #[error("the host list has an empty name")]
    Empty { range: Range<usize> },
    #[error("`{part}` names more than {MAX_NODES} nodes, the most a topology may have")]
    TooMany { part: String, range: Range<usize> },
    #[error("`{part}` is too large: a node's number has at most {MAX_DIGITS} digits")]
    TooLarge { part: String, range: Range<usize> },
}

impl HostsError {
    /// The bytes of the text that are at fault.
    pub(crate) fn range(&self) -> Range<usize> {
        match self {
            Self::Impossible { range, .. }
            | Self::NotNumbers { range, .. }
            | Self::Unclosed { range, .. }
            | Self::TooMany { range, .. }
            | Self::TooLarge { range, .. }
            | Self::Empty { range } => range.clone(),
        }
    }
}

/// The names a host list stands for, in order; repeated names are kept.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, HostsError> {
    let mut names = Vec::new();
    for item in items(text) {
        let part = &text[item.clone()];
        if part.trim().is_empty() {
            return Err(HostsError::Empty { range: item });
        }
        let start = item.start + (part.len() - part.trim_start().len());
        let room = MAX_NODES - names.len();
        names.extend(expand_item(text, start..start + part.trim().len(), room)?);
    }
    Ok(names)
}

/// Names that texts nobody could read may have meant. What is said of such a name elsewhere is no
/// mistake of its own; everything else still is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts {
    all: bool,
    names: HashSet<String>,
    prefixes: Vec<String>,
}

impl Doubts {
    /// Any name could have been meant.
    pub(crate) fn add_all(&mut self) {
        self.all = true;
    }

    /// The names of a host list as it is written, with or without interfaces. Of an item that
    /// cannot be read, what stands before its first bracket or expression is certain.
    pub(crate) fn add_list(&mut self, written: &str) {
        for item in items(written) {
            let item = written[item].trim();
            match expand(item) {
                Ok(names) if !item.contains("${") => {
                    let nodes = names.iter().filter_map(|name| name.split(':').next());
                    self.names.extend(nodes.map(str::to_owned));
                }
                _ if item.is_empty() => {}
                _ => {
                    let end = item.find("${").into_iter().chain(item.find('[')).min();
                    self.prefixes.push(item[..end.unwrap_or(item.len())].to_owned());
                }
            }
        }
    }

    /// Whether this name may be one of them.
    pub(crate) fn cover(&self, name: &str) -> bool {
        self.all
            || self.names.contains(name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.all && self.names.is_empty() && self.prefixes.is_empty()
    }
}

/// Splits at commas outside brackets.
fn items(text: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                items.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(start..text.len());
    items
}

fn expand_item(text: &str, item: Range<usize>, room: usize) -> Result<Vec<String>, HostsError> {
    let whole = || crate::diagnostics::excerpt(&text[item.clone()]);
    let mut names = vec![String::new()];
    let mut at = item.start;
    while at < item.end {
        let rest = &text[at..item.end];
        let Some(open) = rest.find('[') else {
            for name in &mut names {
                name.push_str(rest);
            }
            break;
        };
        let Some(close) = rest[open..].find(']').map(|close| open + close) else {
            return Err(HostsError::Unclosed { part: whole(), range: at + open..item.end });
        };
        let numbers = numbers(text, at + open + 1..at + close, room)?;
        if names.len().saturating_mul(numbers.len()) > room {
            return Err(HostsError::TooMany { part: whole(), range: item });
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |n| format!("{name}{}{n}", &rest[..open])))
            .collect();
        at += close + 1;
    }
    if names.len() > room {
        return Err(HostsError::TooMany { part: whole(), range: item });
    }
    Ok(names)
}

/// The numbers between two brackets, padded as written.
fn numbers(text: &str, inside: Range<usize>, room: usize) -> Result<Vec<String>, HostsError> {
    let mut numbers = Vec::new();
    let mut at = inside.start;
    for part in text[inside].split(',') {
        let range = at..at + part.len();
        at = range.end + 1;
        let part = part.trim();
        let wrong = || HostsError::NotNumbers {
            part: crate::diagnostics::excerpt(part),
            range: range.clone(),
        };
        let number = |digits: &str| {
            let digits = digits.trim();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            let too_large = || HostsError::TooLarge {
                part: crate::diagnostics::excerpt(digits),
                range: range.clone(),
            };
            if digits.len() > MAX_DIGITS {
                return Err(too_large());
            }
            digits.parse::<u32>().map_err(|_| too_large())
        };
        let (low_text, high) = match part.split_once('-') {
            None => (part, number(part)?),
            Some((low, high)) => match high.trim().strip_prefix('-') {
                None => {
                    // A range too large for a topology is so whatever its digits are.
                    let both = number(low).and_then(|_| number(high));
                    if let Err(HostsError::TooLarge { .. }) = both {
                        return Err(too_many(text, range));
                    }
                    (low.trim(), both?)
                }
                // `1--1`: what `n[1-${nodes-2}]` becomes with one node.
                Some(negative) if number(low).is_ok() && number(negative).is_ok() => {
                    return Err(HostsError::Impossible { part: part.to_owned(), range });
                }
                Some(_) => return Err(wrong()),
            },
        };
        let low = number(low_text)?;
        if high + 1 < low {
            return Err(HostsError::Impossible { part: part.to_owned(), range });
        }
        if numbers.len() + (high + 1 - low) as usize > room {
            return Err(too_many(text, range));
        }
        let width = if low_text.starts_with('0') { low_text.len() } else { 0 };
        numbers.extend((low..=high).map(|number| format!("{number:0width$}")));
    }
    Ok(numbers)
}

fn too_many(text: &str, range: Range<usize>) -> HostsError {
    HostsError::TooMany { part: crate::diagnostics::excerpt(text), range }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        expand(text).unwrap()
    }

    #[test]
    fn ranges_multiply_pad_and_join() {
        assert_eq!(names("n[0-2]"), ["n0", "n1", "n2"]);
        assert_eq!(names("n[0,2,5-6]x"), ["n0x", "n2x", "n5x", "n6x"]);
        assert_eq!(names("n[08-11]"), ["n08", "n09", "n10", "n11"]);
        assert_eq!(names("a[1-2]b[0,3]"), ["a1b0", "a1b3", "a2b0", "a2b3"]);
        assert_eq!(names("a, b[1-2]:eth1 ,c"), ["a", "b1:eth1", "b2:eth1", "c"]);
        assert_eq!(names("n[0]"), ["n0"]);
    }

    #[test]
    fn a_range_that_ends_one_below_its_beginning_is_empty() {
        assert_eq!(names("n[1-0]"), Vec::<String>::new());
        assert_eq!(names("n[5-4,7]"), ["n7"]);
        assert!(matches!(expand("n[2-0]"), Err(HostsError::Impossible { .. })));
        assert!(matches!(expand("n[1--1]"), Err(HostsError::Impossible { .. })));
        assert!(matches!(expand("n[0--1]"), Err(HostsError::Impossible { .. })));
    }

    #[test]
    fn wrong_lists_name_the_part() {
        for (text, part) in [("n[a-b]", "a-b"), ("n[1-2,x]", "x"), ("n[]", ""), ("n[1-]", "1-")] {
            let error = expand(text).unwrap_err();
            assert_eq!(&text[error.range()], part, "{error}");
        }
        assert!(matches!(expand("n[1"), Err(HostsError::Unclosed { .. })));
        assert!(matches!(expand("a,,b"), Err(HostsError::Empty { .. })));
        assert!(matches!(expand(""), Err(HostsError::Empty { .. })));
    }

    #[test]
    fn huge_ranges_are_refused_before_they_are_built() {
        for text in
            ["n[0-999999999]", "n[0-999]x[0-999]", "a[0-9]b[0-9]c[0-9]d[0-9]e[0-9]", "n[0-19999],m"]
        {
            assert!(matches!(expand(text), Err(HostsError::TooMany { .. })), "{text}");
        }
        assert_eq!(names("n[0-19999]").len(), MAX_NODES);
        for text in ["n[0-4000000000]", "n[0-99999999999999999999]", "n[5000000000-1]"] {
            let error = expand(text).unwrap_err();
            assert!(error.to_string().contains("more than 20000 nodes"), "{error}");
        }
        let error = expand("n[4000000000]").unwrap_err();
        assert!(error.to_string().contains("at most 9 digits"), "{error}");
    }

    #[test]
    fn a_list_that_cannot_be_read_covers_what_it_may_have_meant() {
        let mut doubts = Doubts::default();
        assert!(doubts.is_empty() && !doubts.cover("a"));
        doubts.add_list("a:eth1, n[5-2] ,r${x}n[0-1],c[0-1]");
        for (name, covered) in
            [("a", true), ("ab", false), ("n7", true), ("r9n1", true), ("c1", true), ("c2", false)]
        {
            assert_eq!(doubts.cover(name), covered, "{name}");
        }
        doubts.add_all();
        assert!(doubts.cover("anything"));
    }
}
