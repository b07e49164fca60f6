//! `validate`, `graph` and `schema`: topology files without running them.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use tapestry_topologies::Diagnostics;
use tapestry_topologies::resolved::Topology;

use crate::USAGE;
use crate::summary::count;

/// A topology file and its parameters.
#[derive(clap::Args)]
pub(crate) struct FileArgs {
    /// The topology file (YAML; see docs/topology.md)
    pub(crate) file: PathBuf,
    /// Give a parameter of the file a value
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    pub(crate) sets: Vec<(String, String)>,
}

pub(crate) fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err(format!("expected NAME=VALUE, found {text:?}")),
    }
}

impl FileArgs {
    /// Loads the file; everything that is wrong with it goes to standard error.
    pub(crate) fn load(&self) -> Result<Topology, u8> {
        tapestry_topologies::load(&self.file, &self.sets).map_err(|diagnostics| {
            tell_diagnostics(diagnostics);
            USAGE
        })
    }
}

/// Everything that is wrong with a file, to standard error.
pub(crate) fn tell_diagnostics(diagnostics: Diagnostics) {
    let report = format!("{:?}", miette::Report::new(diagnostics));
    for line in report.lines() {
        crate::tell!("{}", clip(line));
    }
}

/// A line that a person can read: a file may be one line of a megabyte, and the report quotes it.
fn clip(line: &str) -> std::borrow::Cow<'_, str> {
    /// More than any terminal shows at once; the place stands in the report's header in any case.
    const LONGEST: usize = 400;
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", line[..end].trim_end()).into(),
        None => line.into(),
    }
}

/// Check a topology file and say everything that is wrong with it.
#[derive(clap::Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Print the resolved topology as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn validate(args: &ValidateArgs) -> anyhow::Result<u8> {
    let topology = match args.file.load() {
        Ok(topology) => topology,
        Err(code) => return Ok(code),
    };
    if args.json {
        crate::say!("{}", serde_json::to_string_pretty(&topology)?);
        return Ok(0);
    }
    let kinds: Vec<String> = topology
        .count_by_kind()
        .into_iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    crate::say!(
        "{}: {} ({}), {}, {}: no errors",
        topology.name,
        count(topology.nodes.len(), "node"),
        kinds.join(", "),
        count(topology.links.len(), "link"),
        count(topology.tasks.len(), "task")
    );
    Ok(0)
}

/// How a graph is written.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Graphviz
    Dot,
    /// Mermaid flowchart, for Markdown
    Mermaid,
    /// A picture
    Svg,
}

/// Draw a topology file as DOT, Mermaid or SVG.
#[derive(clap::Args)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    file: FileArgs,
    /// How to write it; by default as the name of --output says, else DOT
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// Write to this file instead of standard output
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(crate) fn graph(args: &GraphArgs) -> anyhow::Result<u8> {
    let topology = match args.file.load() {
        Ok(topology) => topology,
        Err(code) => return Ok(code),
    };
    let extension = args.output.as_ref().and_then(|path| path.extension()?.to_str());
    let format = args.format.unwrap_or(match extension {
        Some("svg") => Format::Svg,
        Some("mmd" | "mermaid" | "md") => Format::Mermaid,
        _ => Format::Dot,
    });
    let text = match format {
        Format::Dot => tapestry_topologies::graph::dot(&topology),
        Format::Mermaid => tapestry_topologies::graph::mermaid(&topology),
        Format::Svg => tapestry_topologies::graph::svg(&topology),
    };
    match &args.output {
        Some(path) => {
            std::fs::write(path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => crate::say!("{}", text.trim_end()),
    }
    Ok(0)
}

/// Print the JSON Schema of topology files, or of plans.
#[derive(clap::Args)]
pub(crate) struct SchemaArgs {
    /// Of plan files (`tapestry campaign`)
    #[arg(long)]
    plan: bool,
}

pub(crate) fn schema(args: &SchemaArgs) -> anyhow::Result<u8> {
    let schema =
        if args.plan { tapestry_topologies::plan_schema() } else { tapestry_topologies::schema() };
    crate::say!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(0)
}
