//! The live view of `tapestry top`: where things are on the screen, and what keys do.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table};
use tapestry_lab::rates::Rates;
use tapestry_lab::status::Status;

use super::grid::{GAP, Grid, Tone, wrap};
use super::page::{self, LinkSort, NodeSort};

/// Which table the keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    Links,
    Nodes,
}

/// What the user has chosen.
#[derive(Debug)]
pub(crate) struct View {
    focus: Focus,
    link_sort: LinkSort,
    node_sort: NodeSort,
    links: Scroll,
    nodes: Scroll,
}

/// Place in a table.
#[derive(Debug, Clone, Copy, Default)]
struct Scroll {
    /// Rows above the screen.
    offset: usize,
    /// Rows on the screen when it was last drawn.
    page: usize,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    Leave,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            focus: Focus::Links,
            link_sort: LinkSort::File,
            node_sort: NodeSort::File,
            links: Scroll::default(),
            nodes: Scroll::default(),
        }
    }

    /// Does what a key means.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Next {
        let scroll = match self.focus {
            Focus::Links => &mut self.links,
            Focus::Nodes => &mut self.nodes,
        };
        // One row stays as a landmark.
        let page = scroll.page.saturating_sub(1).max(1);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Next::Leave,
            KeyCode::Char('q') | KeyCode::Esc => return Next::Leave,
            KeyCode::Down | KeyCode::Char('j') => scroll.offset = scroll.offset.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => scroll.offset = scroll.offset.saturating_sub(1),
            KeyCode::PageDown => scroll.offset = scroll.offset.saturating_add(page),
            KeyCode::PageUp => scroll.offset = scroll.offset.saturating_sub(page),
            KeyCode::Home => scroll.offset = 0,
            KeyCode::End => scroll.offset = usize::MAX,
            KeyCode::Char('l') => self.focus = Focus::Links,
            KeyCode::Char('n') => self.focus = Focus::Nodes,
            KeyCode::Tab => {
                self.focus = match self.focus {
                    Focus::Links => Focus::Nodes,
                    Focus::Nodes => Focus::Links,
                }
            }
            KeyCode::Char('s') => {
                match self.focus {
                    Focus::Links => self.link_sort = self.link_sort.next(),
                    Focus::Nodes => self.node_sort = self.node_sort.next(),
                }
                scroll.offset = 0;
            }
            _ => {}
        }
        Next::Stay
    }

    /// Draws everything. `silence` says that the run has not answered for a while.
    pub(crate) fn draw(
        &mut self,
        frame: &mut Frame<'_>,
        status: &Status,
        rates: &Rates,
        silence: Option<&str>,
    ) {
        let area = frame.area();
        let width = usize::from(area.width);
        let mut text: Vec<Line<'_>> = Vec::new();
        let silence = silence.map(|text| (Tone::Alarm, text.to_owned()));
        for (index, (tone, said)) in
            silence.into_iter().chain(page::header(status, rates)).enumerate()
        {
            let bold = if index == 0 { Modifier::BOLD } else { Modifier::empty() };
            let styled = |line| Line::styled(line, style(tone).add_modifier(bold));
            text.extend(wrap(&said, width).into_iter().map(styled));
        }
        // The tables are what one came for.
        let header_height = (text.len() as u16).min((area.height / 3).max(1));
        let [header, body, footer] = Layout::vertical([
            Constraint::Length(header_height),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(Text::from(text)), header);
        frame.render_widget(Line::styled(KEYS, Modifier::DIM), footer);

        let links = page::links(rates, self.link_sort);
        let nodes = page::nodes(rates, self.node_sort);
        let (links_area, nodes_area) = arrange(body, self.focus, &links, &nodes);
        let title = |name, sort: &str| format!("{name} {sort}");
        if let Some(area) = links_area {
            let title = title("links", self.link_sort.as_str());
            table(frame, area, &links, &mut self.links, &title, self.focus == Focus::Links);
        }
        if let Some(area) = nodes_area {
            let title = title("nodes", self.node_sort.as_str());
            table(frame, area, &nodes, &mut self.nodes, &title, self.focus == Focus::Nodes);
        }
    }
}

const KEYS: &str = "q leave  l links  n nodes  s sort  ↑ ↓ PgUp PgDn scroll";

/// A title and the headings.
const TABLE_HEAD: u16 = 2;

/// Where the tables are: side by side, one above the other, or only the one in focus.
fn arrange(body: Rect, focus: Focus, links: &Grid, nodes: &Grid) -> (Option<Rect>, Option<Rect>) {
    /// Two tables one above the other need this many rows to be of use.
    const ENOUGH: u16 = 14;
    const BETWEEN: u16 = 3;
    let link_width = links.natural_width() as u16;
    let node_width = nodes.natural_width() as u16;
    if body.width >= link_width.saturating_add(node_width).saturating_add(BETWEEN) {
        let sides = [Constraint::Min(0), Constraint::Length(node_width)];
        let [left, right] = Layout::horizontal(sides).spacing(BETWEEN).areas(body);
        return (Some(left), Some(right));
    }
    let wanted =
        |grid: &Grid| u16::try_from(grid.rows.len()).unwrap_or(u16::MAX).saturating_add(TABLE_HEAD);
    let (links, nodes) = (wanted(links), wanted(nodes));
    if body.height < ENOUGH && links.saturating_add(nodes) > body.height {
        return match focus {
            Focus::Links => (Some(body), None),
            Focus::Nodes => (None, Some(body)),
        };
    }
    // Who is in focus gets the larger part, and each what the other leaves.
    let upper = match focus {
        Focus::Links => body.height - body.height * 2 / 5,
        Focus::Nodes => body.height * 2 / 5,
    };
    let upper = links.min(upper.max(body.height.saturating_sub(nodes)));
    let [above, below] =
        Layout::vertical([Constraint::Length(upper), Constraint::Min(0)]).areas(body);
    (Some(above), Some(below))
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    grid: &Grid,
    scroll: &mut Scroll,
    title: &str,
    focused: bool,
) {
    let all = grid.rows.len();
    scroll.page = usize::from(area.height.saturating_sub(TABLE_HEAD));
    scroll.offset = scroll.offset.min(all.saturating_sub(scroll.page));
    let end = all.min(scroll.offset + scroll.page);
    let place = if end - scroll.offset == all {
        format!("{all}")
    } else {
        format!("{}-{end} of {all}", scroll.offset + 1)
    };
    let strong = if focused { Modifier::BOLD } else { Modifier::DIM };
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(strong)
        .title(Line::styled(format!(" {title} "), strong))
        .title(Line::styled(format!(" {place} "), strong).right_aligned());

    let columns = grid.fit(usize::from(area.width));
    let aligned = |column: usize, text: String| {
        let right = grid.columns[column].right;
        let alignment = if right { Alignment::Right } else { Alignment::Left };
        Cell::new(Text::from(text).alignment(alignment))
    };
    let head =
        columns.iter().map(|&(column, _)| aligned(column, grid.columns[column].title.into()));
    let rows = grid.rows[scroll.offset..end].iter().map(|row| {
        let cells = columns.iter().map(|&(column, _)| aligned(column, row.cells[column].clone()));
        TableRow::new(cells).style(style(row.tone))
    });
    let widths = columns.iter().map(|&(_, width)| Constraint::Length(width as u16));
    let table = Table::new(rows, widths)
        .header(TableRow::new(head).style(Modifier::BOLD))
        .column_spacing(GAP as u16)
        .block(block);
    frame.render_widget(table, area);
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Normal => Style::new(),
        Tone::Quiet => Style::new().add_modifier(Modifier::DIM),
        Tone::Warning => Style::new().fg(Color::Yellow),
        Tone::Alarm => Style::new().fg(Color::Red),
    }
}

#[cfg(test)]
mod tests;
