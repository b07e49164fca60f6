//! What `tapestry top` says, as text: the same for the live view and for `--once`.

use tapestry_core::SimTime;
use tapestry_lab::rates::{Direction, NodeRate, Rates};
use tapestry_lab::status::{NodeState, Status};
use tapestry_lab::verdict::Trust;

use super::grid::{Column, Grid, Row, Tone};

/// In what order links are shown. All but the file's are descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkSort {
    File,
    Traffic,
    Queue,
    Lost,
}

impl LinkSort {
    pub(crate) fn next(self) -> Self {
        match self {
            Self::File => Self::Traffic,
            Self::Traffic => Self::Queue,
            Self::Queue => Self::Lost,
            Self::Lost => Self::File,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "in file order",
            Self::Traffic => "by frames/s",
            Self::Queue => "by queue",
            Self::Lost => "by losses",
        }
    }
}

/// In what order nodes are shown. All but the file's are descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeSort {
    File,
    Cpu,
    Memory,
}

impl NodeSort {
    pub(crate) fn next(self) -> Self {
        match self {
            Self::File => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::File,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "in file order",
            Self::Cpu => "by CPU",
            Self::Memory => "by memory",
        }
    }
}

/// Lines above the tables, each with how it is to be seen.
pub(crate) fn header(status: &Status, rates: &Rates) -> Vec<(Tone, String)> {
    let ready = status.nodes.iter().filter(|node| node.state == NodeState::Ready).count();
    let all = status.nodes.len();
    let progress = &status.progress;
    let stage = match &progress.task {
        _ if !progress.ready => "starting".to_owned(),
        Some(task) => format!(
            "task {}/{} {}: {} (limit {})",
            progress.tasks_done + 1,
            progress.tasks,
            task.name,
            span(task.elapsed_ns),
            span(task.timeout_ns),
        ),
        None => format!("{}/{} tasks done", progress.tasks_done, progress.tasks),
    };
    let elapsed = span(status.elapsed_ns);
    let emulator = match (rates.emulator_cpu, status.emulator) {
        (Some(cpu), Some(usage)) => format!("{}, {}", percent(cpu), memory(usage.memory_bytes)),
        _ => "unknown".to_owned(),
    };
    let (cpu, steal) = (percent(rates.host_cpu), percent(rates.host_steal));
    let mut lines = vec![
        (Tone::Normal, format!("{}: {elapsed}; {ready}/{all} nodes ready; {stage}", status.name)),
        (Tone::Normal, format!("machine {cpu} CPU, {steal} stolen; emulator {emulator}")),
    ];
    match &status.truth {
        Some(truth) => {
            let tone = match truth.verdict.state {
                Trust::Valid => Tone::Normal,
                Trust::Degraded => Tone::Warning,
                Trust::Invalid => Tone::Alarm,
            };
            lines.push((
                tone,
                format!(
                    "verdict so far {}; lateness p99 {}, worst {}; {} unintended losses",
                    truth.verdict.state.as_str(),
                    late(truth.lateness_p99_ns),
                    late(truth.lateness_max_ns),
                    truth.unintended,
                ),
            ));
            lines.extend(truth.verdict.reasons.iter().map(|reason| (tone, reason.clone())));
            if let Some(event) = truth.latest_event.as_ref().filter(|_| tone != Tone::Normal) {
                lines.push((tone, format!("latest event: {event}")));
            }
        }
        None if status.foreign => {
            let text = "another program moves the frames: nothing is known of links and timing";
            lines.push((Tone::Warning, text.to_owned()));
        }
        None => {}
    }
    if let Some(error) = progress.errors.last() {
        let more = match progress.errors.len() {
            1 => String::new(),
            all => format!("{all} errors, the last: "),
        };
        lines.push((Tone::Alarm, format!("error: {more}{}", error.lines().next().unwrap_or(""))));
    }
    // Errors may quote what a node printed; its control characters are not for this terminal.
    for (_, line) in &mut lines {
        *line = line.replace(char::is_control, " ");
    }
    lines
}

/// One row for each direction of each link.
pub(crate) fn links(rates: &Rates, sort: LinkSort) -> Grid {
    let mut directions: Vec<&Direction> = rates.directions.iter().collect();
    match sort {
        LinkSort::File => {}
        LinkSort::Traffic => {
            directions.sort_by(|a, b| b.frames_per_second.total_cmp(&a.frames_per_second));
        }
        LinkSort::Queue => directions.sort_by_key(|d| std::cmp::Reverse(d.queue)),
        LinkSort::Lost => directions.sort_by_key(|d| std::cmp::Reverse(d.lost_frames())),
    }
    let column = |title, right, rank| Column { title, right, rank };
    Grid {
        columns: vec![
            column("LINK", false, 0),
            column("DIRECTION", false, 0),
            column("FRAMES/S", true, 0),
            column("MBIT/S", true, 1),
            column("QUEUE", true, 2),
            column("WAIT", true, 6),
            column("LOST/S", true, 3),
            column("LATE P99", true, 5),
            column("LOST SO FAR", false, 4),
        ],
        rows: directions.into_iter().map(link_row).collect(),
    }
}

fn link_row(direction: &Direction) -> Row {
    let lost = direction.lost.iter().map(|loss| format!("{} {}", loss.reason, loss.frames));
    let notes: Vec<String> = direction.trouble.iter().cloned().chain(lost).collect();
    let tone = if direction.has_unintended_loss() {
        Tone::Alarm
    } else if direction.trouble.is_some() || direction.lost_per_second > 0.0 {
        Tone::Warning
    } else if direction.frames_per_second > 0.0 || direction.queue > 0 {
        Tone::Normal
    } else {
        Tone::Quiet
    };
    let cells = vec![
        direction.link.clone(),
        format!("{} → {}", direction.from, direction.to.as_deref().unwrap_or("all")),
        rate(direction.frames_per_second),
        figure(direction.bits_per_second / 1e6),
        direction.queue.to_string(),
        direction.sojourn_mean_ns.map_or("-".to_owned(), late),
        rate(direction.lost_per_second),
        direction.lateness_p99_ns.map_or("-".to_owned(), late),
        notes.join(", "),
    ];
    Row { cells, tone }
}

/// One row for each node.
pub(crate) fn nodes(rates: &Rates, sort: NodeSort) -> Grid {
    let mut nodes: Vec<&NodeRate> = rates.nodes.iter().collect();
    match sort {
        NodeSort::File => {}
        NodeSort::Cpu => {
            let cpu = |node: &NodeRate| node.cpu.unwrap_or(-1.0);
            nodes.sort_by(|a, b| cpu(b).total_cmp(&cpu(a)));
        }
        NodeSort::Memory => nodes.sort_by_key(|node| std::cmp::Reverse(node.memory_bytes)),
    }
    let column = |title, right, rank| Column { title, right, rank };
    Grid {
        columns: vec![
            column("NODE", false, 0),
            column("CPU", true, 0),
            column("MEMORY", true, 0),
            column("SENT/S", true, 2),
            column("RECEIVED/S", true, 3),
            column("STATE", false, 1),
            column("KIND", false, 4),
        ],
        rows: nodes.into_iter().map(node_row).collect(),
    }
}

fn node_row(node: &NodeRate) -> Row {
    let unknown = || "-".to_owned();
    let tone = match node.state {
        NodeState::Lost => Tone::Alarm,
        NodeState::Starting => Tone::Warning,
        NodeState::Ready => Tone::Normal,
    };
    let cells = vec![
        node.name.clone(),
        node.cpu.map_or_else(unknown, percent),
        node.memory_bytes.map_or_else(unknown, memory),
        rate(node.sent_per_second),
        rate(node.received_per_second),
        node.state.as_str().to_owned(),
        node.kind.clone(),
    ];
    Row { cells, tone }
}

/// Everything, for files and pipes.
pub(crate) fn plain(status: &Status, rates: &Rates) -> String {
    let mut text = String::new();
    for (_, line) in header(status, rates) {
        text.push_str(&line);
        text.push('\n');
    }
    let tables = [links(rates, LinkSort::File), nodes(rates, NodeSort::File)];
    for grid in tables.iter().filter(|grid| !grid.rows.is_empty()) {
        text.push('\n');
        text.push_str(&grid.plain());
    }
    text
}

/// Something per second: three significant digits where it matters, short where it is large.
fn rate(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{}M", figure(v / 1e6)),
        v if v >= 99_950.0 => format!("{:.0}k", v / 1e3),
        v if v >= 9.95 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

/// Three significant digits, but no more than two after the point.
fn figure(value: f64) -> String {
    match value {
        v if v >= 99.95 || v == 0.0 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// A share as people read it; 1 core is 100 %.
fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn memory(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 {
        format!("{} GiB", figure(mib / 1024.0))
    } else {
        format!("{} MiB", figure(mib))
    }
}

/// How late.
fn late(nanoseconds: u64) -> String {
    match nanoseconds as f64 {
        ns if ns >= 999.5e6 => format!("{} s", figure(ns / 1e9)),
        ns if ns >= 999.5e3 => format!("{} ms", figure(ns / 1e6)),
        ns if ns > 0.0 => format!("{:.0} µs", (ns / 1e3).ceil()),
        _ => "0 µs".to_owned(),
    }
}

/// How long, in the two units that matter.
fn span(nanoseconds: u64) -> String {
    let seconds = SimTime::from_nanos(nanoseconds).as_secs_f64();
    let whole = nanoseconds / 1_000_000_000;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_right() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (3.21, "3.2"),
            (9.97, "10"),
            (1234.4, "1234"),
            (99_949.0, "99949"),
            (123_456.0, "123k"),
            (999_499.0, "999k"),
            (999_999.0, "1.00M"),
            (12_345_678.0, "12.3M"),
        ] {
            assert_eq!(rate(value), text);
        }
        for (value, text) in [(0.0, "0"), (0.234, "0.23"), (9.996, "10.0"), (235.4, "235")] {
            assert_eq!(figure(value), text);
        }
        for (ns, text) in [
            (0, "0 µs"),
            (1, "1 µs"),
            (12_345, "13 µs"),
            (1_500_000, "1.50 ms"),
            (999_600_000, "1.00 s"),
        ] {
            assert_eq!(late(ns), text);
        }
        for (seconds, text) in
            [(0, "0.0 s"), (59, "59.0 s"), (61, "1 min 01 s"), (3660, "1 h 01 min")]
        {
            assert_eq!(span(seconds * 1_000_000_000), text);
        }
        assert_eq!((memory(3 << 20), memory(3 << 30)), ("3.00 MiB".into(), "3.00 GiB".into()));
    }
}
