//! What a source sends: its frames, described in the file or read from a capture.

use std::collections::HashSet;
use std::path::Path;

use tapestry_core::{ByteCount, SimTime};

use super::{Draft, Drafts};
use crate::diagnostics::report;
use crate::expression::Value;
use crate::keys::{FRAME, MAX_SOURCE_FRAMES};
use crate::pcap;
use crate::read::{Reader, locate};
use crate::resolved::{FrameBytes, MacAddr, NodeKind, Source, SourceFrame};
use crate::shape::{Scalar, Shape};
use crate::source::Span;
use crate::tree::Yaml;

/// Destination, source and type.
const HEADER_BYTES: usize = 14;
/// Header and the largest payload that a link may carry.
const LONGEST_BYTES: usize = HEADER_BYTES + 65_535;
/// A VLAN tag (IEEE 802.1Q).
const VLAN_TAG_BYTES: usize = 4;
/// A type for experiments of one's own (IEEE 802, local experimental ethertype 1).
const ETHERTYPE: u16 = 0x88b5;
/// Larger captures belong to other tools, and would make a manifest of twice their size.
const MAX_CAPTURE_BYTES: u64 = 64 << 20;

/// Reads the frames of all sources. Their interfaces must be there.
pub(crate) fn resolve(reader: &mut Reader<'_>, drafts: &mut Drafts<'_>) {
    let mut seen = HashSet::new();
    for draft in &mut drafts.nodes {
        if !matches!(draft.node.kind, NodeKind::Source(_)) {
            continue;
        }
        if draft.node.interfaces.len() != 1 && !draft.doubtful {
            let (name, links) = (&draft.node.name, draft.node.interfaces.len());
            let wrong = report(format!("the source `{name}` is on {links} links"));
            let wrong = wrong.expected("expected exactly one link");
            reader.problems.add(draft.span, wrong.help("make a source for each link"));
        }
        reader.scope.set("index", Value::Int(i64::try_from(draft.index).unwrap_or(i64::MAX)));
        reader.scope.set("node", Value::Text(draft.node.name.clone()));
        // What is wrong with one node of a list is wrong with all: say it once.
        reader.problems.once_per_place(!seen.insert(draft.span));
        draft.node.kind = NodeKind::Source(source(reader, draft));
    }
    reader.problems.once_per_place(false);
    reader.scope.remove("index");
    reader.scope.remove("node");
}

fn source(reader: &mut Reader<'_>, draft: &Draft<'_>) -> Source {
    let interface = draft.node.interfaces.first();
    let own = interface.map_or(MacAddr([0; 6]), |interface| interface.mac);
    let mtu = interface.map(|interface| interface.mtu);
    let described = draft.applicable("frames");
    let items = described.and_then(Yaml::list).unwrap_or_default();
    let mut frames: Vec<SourceFrame> =
        items.iter().filter_map(|item| frame(reader, item, own, mtu)).collect();
    let capture = draft.applicable("pcap");
    frames.extend(capture.and_then(|yaml| captured(reader, yaml, mtu)).unwrap_or_default());
    let count = frames.iter().fold(0_u64, |count, frame| count.saturating_add(frame.count));
    if count > MAX_SOURCE_FRAMES {
        let span = described.or(capture).map_or(draft.span, |yaml| yaml.span);
        too_many(reader, span, count);
    }
    Source { frames }
}

fn too_many(reader: &mut Reader<'_>, span: Span, count: u64) {
    let wrong = report(format!("these are {count} frames"));
    let expected = format!("expected at most {MAX_SOURCE_FRAMES} of one source");
    reader.problems.add(span, wrong.expected(expected));
}

/// The longest frame that a link with this MTU carries: neither its header nor a VLAN tag counts.
fn longest(mtu: u32, bytes: &[u8]) -> usize {
    let tagged = bytes.get(12..14) == Some(&[0x81, 0x00]);
    mtu as usize + HEADER_BYTES + if tagged { VLAN_TAG_BYTES } else { 0 }
}

fn frame(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    own: MacAddr,
    mtu: Option<u32>,
) -> Option<SourceFrame> {
    yaml.map()?;
    let time = |reader: &mut Reader<'_>, key: &str| match yaml.get(key) {
        Some(yaml) => reader.parsed::<SimTime>(yaml, Scalar::Time, key),
        None => Some(SimTime::ZERO),
    };
    let (at, every) = (time(reader, "at"), time(reader, "every"));
    let count = integer(reader, yaml, "count");
    if count.is_some_and(|count| count > 1) && yaml.get("every").is_none() {
        let wrong = report("a frame is sent several times, but `every` is missing");
        let span = yaml.get("count").map_or(yaml.span, |yaml| yaml.span);
        reader.problems.add(span, wrong.expected("expected `every: TIME` beside it"));
    }
    let bytes = match (yaml.get("hex"), yaml.get("size")) {
        (Some(hex), None) => from_hex(reader, yaml, hex),
        (None, Some(size)) => from_size(reader, yaml, size, own),
        (written, _) => {
            let wrong = match written {
                Some(_) => "the frame has both `hex` and `size`",
                None => "the frame has neither `hex` nor `size`",
            };
            let expected = "expected its bytes as `hex: …`, or its length as `size: 60B`";
            reader.problems.add(yaml.span, report(wrong).expected(expected));
            None
        }
    };
    let written = yaml.get("size").or(yaml.get("hex")).map_or(yaml.span, |yaml| yaml.span);
    if let (Some(FrameBytes(bytes)), Some(mtu)) = (&bytes, mtu)
        && bytes.len() > longest(mtu, bytes)
    {
        let wrong = report(format!("the frame has {} bytes", bytes.len()));
        let expected = format!(
            "expected at most {}: a header and the link's MTU of {mtu}",
            longest(mtu, bytes)
        );
        let help = "give the link a larger `mtu`, or send a shorter frame";
        reader.problems.add(written, wrong.expected(expected).help(help));
    }
    let count = count.unwrap_or(1);
    Some(SourceFrame { at: at?, every: every?, count, bytes: bytes? })
}

fn integer(reader: &mut Reader<'_>, yaml: &Yaml, key: &str) -> Option<u64> {
    let Shape::Scalar(scalar) = FRAME.key(key)?.shape else { return None };
    reader.parsed(yaml.get(key)?, scalar, key)
}

fn from_hex(reader: &mut Reader<'_>, yaml: &Yaml, hex: &Yaml) -> Option<FrameBytes> {
    for key in ["to", "from", "ethertype"] {
        if let Some(extra) = yaml.get(key) {
            let wrong = report(format!("`{key}` belongs to a frame with `size`"));
            reader.problems.add(extra.span, wrong.expected("`hex` says it all"));
        }
    }
    let text = reader.text(hex)?;
    let bytes = match FrameBytes::from_hex(&text) {
        Ok(bytes) => bytes,
        Err((part, expected)) => {
            let span = locate(reader.problems, hex.span, &text, part);
            reader.problems.add(span, report("`hex` is wrong").expected(expected));
            return None;
        }
    };
    check_length(reader, hex.span, bytes.0.len() as u64)?;
    Some(bytes)
}

/// A header and zeros.
fn from_size(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    size: &Yaml,
    own: MacAddr,
) -> Option<FrameBytes> {
    let length: ByteCount = reader.parsed(size, Scalar::Bytes, "size")?;
    let length = check_length(reader, size.span, length.as_bytes())?;
    let mut address = |key, default| match yaml.get(key) {
        Some(yaml) => reader.parsed(yaml, Scalar::Mac, key),
        None => Some(default),
    };
    let (to, from) = (address("to", MacAddr([0xff; 6]))?, address("from", own)?);
    let ethertype = integer(reader, yaml, "ethertype").and_then(|value| u16::try_from(value).ok());
    let ethertype = ethertype.unwrap_or(ETHERTYPE).to_be_bytes();
    let mut bytes = [&to.0[..], &from.0, &ethertype].concat();
    bytes.resize(length, 0);
    Some(FrameBytes(bytes))
}

fn check_length(reader: &mut Reader<'_>, span: Span, bytes: u64) -> Option<usize> {
    let length = usize::try_from(bytes).ok();
    let fits = length.filter(|length| (HEADER_BYTES..=LONGEST_BYTES).contains(length));
    if fits.is_none() {
        let wrong = report(format!("the frame has {bytes} bytes"));
        let expected = format!("expected {HEADER_BYTES} (a header) to {LONGEST_BYTES} bytes");
        reader.problems.add(span, wrong.expected(expected));
    }
    fits
}

/// The frames of a capture, each as long behind the first as there.
fn captured(reader: &mut Reader<'_>, yaml: &Yaml, mtu: Option<u32>) -> Option<Vec<SourceFrame>> {
    let written = reader.text(yaml)?;
    let base = &reader.problems.sources.file(yaml.span.file).dir;
    let path = base.join(Path::new(&written));
    let read = crate::files::read_at_most(&path, MAX_CAPTURE_BYTES)
        .map_err(|reason| format!("cannot read `{}`: {reason}", path.display()))
        .and_then(|bytes| {
            pcap::frames(&bytes, MAX_SOURCE_FRAMES)
                .map_err(|error| format!("`{}`: {error}", path.display()))
        });
    let frames = match read {
        Ok(frames) => frames,
        Err(wrong) => {
            let expected = "expected a pcap or pcapng file of Ethernet frames";
            reader.problems.add(yaml.span, report(wrong).expected(expected));
            return None;
        }
    };
    let fits = |bytes: &[u8]| mtu.is_none_or(|mtu| bytes.len() <= longest(mtu, bytes));
    if let Some(at) = frames.iter().position(|(_, bytes)| !fits(bytes)) {
        let (number, bytes) = (at + 1, frames[at].1.len());
        let wrong = report(format!("frame {number} of `{}` has {bytes} bytes", path.display()));
        let mtu = mtu.unwrap_or_default();
        let expected = format!(
            "expected at most {}: a header and the link's MTU of {mtu}",
            longest(mtu, &frames[at].1)
        );
        let help = "give the link a larger `mtu`, or leave the frame out of the capture";
        reader.problems.add(yaml.span, wrong.expected(expected).help(help));
    }
    let frame =
        |(at, bytes)| SourceFrame { at, every: SimTime::ZERO, count: 1, bytes: FrameBytes(bytes) };
    Some(frames.into_iter().map(frame).collect())
}
