use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tapestry_lab::host::CpuTicks;
use tapestry_lab::rates::rates;
use tapestry_lab::status::{
    LinkStatus, Loss, NodeState, NodeStatus, Progress, StationStatus, TaskStatus, Truth,
};
use tapestry_lab::usage::Usage;
use tapestry_lab::verdict::{Trust, Verdict};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A chain of `nodes` after `seconds` in which node i sends 100·(i + 1) frames of 1000 bytes a
/// second to the next, and nothing comes back.
fn chain(nodes: u64, seconds: u64) -> Status {
    let station = |node: u64, interface: &str, sent: u64, received: u64| StationStatus {
        node: format!("n{node}"),
        interface: interface.into(),
        trouble: None,
        sent_frames: sent,
        sent_bytes: sent * 1000,
        received_frames: received,
        received_bytes: received * 1000,
        queued: if sent > 0 { node % 5 } else { 0 },
        dequeued: sent,
        sojourn_sum_ns: sent * node * 150_000,
        pending: 0,
        lost_sending: Vec::new(),
        lost_receiving: Vec::new(),
    };
    let link = |i: u64| {
        let frames = 100 * (i + 1) * seconds;
        LinkStatus {
            name: format!("n{i}--n{}", i + 1),
            up: true,
            lateness_p99_ns: Some(12_000 * (i + 1)),
            stations: vec![station(i, "eth1", frames, 0), station(i + 1, "eth0", 0, frames)],
        }
    };
    let node = |i: u64| NodeStatus {
        name: format!("n{i}"),
        kind: "netns".into(),
        state: NodeState::Ready,
        usage: Some(Usage {
            cpu_ns: seconds * SECOND / 100 * (i % 7),
            memory_bytes: (8 + i) << 20,
        }),
    };
    Status {
        name: "chain".into(),
        elapsed_ns: seconds * SECOND,
        progress: Progress {
            ready: true,
            task: Some(TaskStatus {
                name: "measure".into(),
                commands: 1,
                elapsed_ns: seconds * SECOND / 2,
                timeout_ns: 65 * SECOND,
            }),
            tasks_done: 1,
            tasks: 2,
            errors: Vec::new(),
        },
        nodes: (0..nodes).map(node).collect(),
        foreign: false,
        links: (0..nodes - 1).map(link).collect(),
        truth: Some(Truth {
            verdict: Verdict { state: Trust::Valid, reasons: Vec::new() },
            lateness_p50_ns: 2_000,
            lateness_p99_ns: 40_000,
            lateness_max_ns: 1_200_000,
            latest_event: Some("timer of link n0--n1".into()),
            offered: 123_456,
            unintended: 0,
        }),
        host: CpuTicks { busy: 80 * seconds, idle: 20 * seconds, steal: 0 },
        emulator: Some(Usage { cpu_ns: seconds * SECOND / 2, memory_bytes: 20 << 20 }),
    }
}

/// The screen after `keys`, drawn once before them so that pages have a size.
fn screen(now: &Status, (width, height): (u16, u16), keys: &[KeyCode]) -> Terminal<TestBackend> {
    let before = chain(now.nodes.len() as u64, now.elapsed_ns / SECOND - 1);
    let rates = rates(&before, now);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
    let mut view = View::new();
    terminal.draw(|frame| view.draw(frame, now, &rates, None)).expect("drawn");
    for key in keys {
        assert_eq!(view.press(KeyEvent::from(*key)), Next::Stay);
        terminal.draw(|frame| view.draw(frame, now, &rates, None)).expect("drawn");
    }
    terminal
}

/// What makes a run worth a look: a link that is down, losses of both kinds, a lost node.
fn trouble() -> Status {
    let mut status = chain(4, 10);
    let loss =
        |reason: &str, frames, unintended| Loss { reason: reason.into(), frames, unintended };
    status.links[0].stations[0].lost_sending =
        vec![loss("queue-full", 1200, false), loss("unread", 34, true)];
    status.links[1].stations[1].lost_sending = vec![loss("too-long", 1, false)];
    status.links[1].stations[1].trouble = Some("gone".into());
    status.links[2].up = false;
    status.nodes[2].state = NodeState::Lost;
    status.nodes[3] = NodeStatus {
        state: NodeState::Starting,
        kind: "qemu".into(),
        usage: None,
        ..status.nodes[3].clone()
    };
    let truth = status.truth.as_mut().expect("the chain is measured");
    let reason = "the emulator lost 34 of 123456 frames (0.028 %) that no model meant to lose, most \
                  (34) at n0:eth1 (sent faster than the emulator reads)";
    truth.verdict = Verdict { state: Trust::Degraded, reasons: vec![reason.into()] };
    truth.unintended = 34;
    status.progress.errors = vec!["first".into(), "task a: node n2:\u{1b}[2J gone\nmore".into()];
    status
}

#[test]
fn a_usual_terminal() {
    insta::assert_snapshot!(screen(&chain(4, 10), (80, 24), &[]).backend());
}

#[test]
fn trouble_is_told() {
    let terminal = screen(&trouble(), (110, 30), &[]);
    insta::assert_snapshot!(terminal.backend());
    let buffer = terminal.backend().buffer();
    let color_of = |text: &str| {
        let row = (0..30).find(|y| line(buffer, *y).contains(text)).expect("it is shown");
        buffer[(0, row)].fg
    };
    assert_eq!(color_of("unread 34"), Color::Red);
    assert_eq!(color_of("link down"), Color::Yellow);
    assert_eq!(color_of("error: 2 errors"), Color::Red);
    assert_eq!(color_of("verdict so far degraded"), Color::Yellow);
}

#[test]
fn a_wide_terminal_has_both_tables_side_by_side() {
    insta::assert_snapshot!(screen(&trouble(), (160, 20), &[KeyCode::Char('n')]).backend());
}

#[test]
fn two_hundred_nodes_scroll() {
    let keys = [KeyCode::PageDown, KeyCode::Down, KeyCode::Char('n'), KeyCode::End];
    insta::assert_snapshot!(screen(&chain(200, 10), (80, 24), &keys).backend());
}

#[test]
fn a_narrow_and_low_terminal_shows_what_is_in_focus() {
    insta::assert_snapshot!(screen(&chain(200, 10), (40, 12), &[]).backend());
}

#[test]
fn s_sorts_the_table_in_focus() {
    let first_row = |keys: &[KeyCode]| {
        let terminal = screen(&trouble(), (160, 20), keys);
        let buffer = terminal.backend().buffer();
        let heading = (0..20).find(|y| line(buffer, *y).contains("DIRECTION")).expect("headings");
        line(buffer, heading + 1)
    };
    let s = KeyCode::Char('s');
    assert!(first_row(&[]).starts_with("n0--n1  n0 → n1"));
    assert!(first_row(&[s]).starts_with("n2--n3  n2 → n3"), "by traffic");
    assert!(first_row(&[s, s]).starts_with("n2--n3  n2 → n3"), "by queue");
    assert!(first_row(&[s, s, s]).starts_with("n0--n1  n0 → n1"), "by losses");
    assert_eq!(first_row(&[s, s, s, s]), first_row(&[]));
    let n = KeyCode::Char('n');
    assert!(first_row(&[n, s]).contains(" n2    2 %"), "by CPU: {}", first_row(&[n, s]));
    assert!(first_row(&[n, s, s]).contains(" n2    2 %  10.0 MiB"), "by memory");
}

#[test]
fn a_foreign_forwarder_is_told() {
    let foreign = Status { foreign: true, links: Vec::new(), truth: None, ..chain(3, 5) };
    let text = page::plain(&foreign, &rates(&foreign, &foreign));
    assert!(text.contains("another program moves the frames"), "{text}");
    assert!(!text.contains("DIRECTION") && !text.contains("verdict"), "{text}");
}

#[test]
fn every_size_can_be_drawn() {
    let status = trouble();
    let foreign = Status { foreign: true, links: Vec::new(), truth: None, ..chain(3, 5) };
    for (width, height) in [(0, 0), (1, 1), (3, 2), (20, 3), (300, 5), (10, 100), (500, 200)] {
        for status in [&status, &foreign] {
            screen(status, (width, height), &[KeyCode::End, KeyCode::Char('n'), KeyCode::PageUp]);
        }
    }
}

#[test]
fn q_and_control_c_leave() {
    let press = |key| View::new().press(key);
    assert_eq!(press(KeyEvent::from(KeyCode::Char('q'))), Next::Leave);
    assert_eq!(press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Leave);
    assert_eq!(press(KeyEvent::from(KeyCode::Char('c'))), Next::Stay);
}

#[test]
fn a_silent_run_is_told() {
    let status = chain(2, 3);
    let rates = rates(&status, &status);
    let mut terminal = Terminal::new(TestBackend::new(60, 20)).expect("a test terminal");
    let silence = Some("run r has not answered for 7 s");
    terminal.draw(|frame| View::new().draw(frame, &status, &rates, silence)).expect("drawn");
    assert!(line(terminal.backend().buffer(), 0).starts_with("run r has not answered for 7 s"));
}

#[test]
fn plain_text_has_everything() {
    let status = trouble();
    insta::assert_snapshot!(page::plain(&status, &rates(&chain(4, 9), &status)));
}

fn line(buffer: &ratatui::buffer::Buffer, y: u16) -> String {
    (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect()
}
