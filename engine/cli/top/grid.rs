//! Tables of text that fit the width there is.

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) title: &'static str,
    /// Whether numbers stand in it.
    pub(crate) right: bool,
    /// Columns go when the width is too small, the highest first; 0 stays.
    pub(crate) rank: u8,
}

/// How a row is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Normal,
    /// Nothing happens there.
    Quiet,
    /// Not as it should be.
    Warning,
    /// Something is wrong.
    Alarm,
}

/// A row: as many cells as the grid has columns.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) cells: Vec<String>,
    pub(crate) tone: Tone,
}

/// A table. Its last column may be cut short; the others are shown whole or, except those that
/// stay, not at all.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// Spaces between columns.
pub(crate) const GAP: usize = 2;

impl Grid {
    /// The columns to show in `width` cells: index and width of each.
    pub(crate) fn fit(&self, width: usize) -> Vec<(usize, usize)> {
        /// The last column is worth showing from this width on.
        const WORTHWHILE: usize = 16;
        let natural = self.widths();
        let last = natural.len().saturating_sub(1);
        let needs = |column: usize| {
            if column == last { natural[column].min(WORTHWHILE) } else { natural[column] }
        };
        let mut shown: Vec<usize> = (0..natural.len()).collect();
        let needed = |shown: &[usize]| {
            shown.iter().map(|column| needs(*column) + GAP).sum::<usize>().saturating_sub(GAP)
        };
        while needed(&shown) > width {
            let worst = shown.iter().enumerate().max_by_key(|(_, c)| self.columns[**c].rank);
            match worst {
                Some((at, &column)) if self.columns[column].rank > 0 => shown.remove(at),
                _ => break,
            };
        }
        let spare = width.saturating_sub(needed(&shown));
        let wide = |column| if column == last { needs(column) + spare } else { needs(column) };
        shown.into_iter().map(|column| (column, wide(column).min(natural[column]))).collect()
    }

    /// Width that shows everything.
    pub(crate) fn natural_width(&self) -> usize {
        (self.widths().iter().sum::<usize>() + self.columns.len() * GAP).saturating_sub(GAP)
    }

    /// Everything as text, one line a row.
    pub(crate) fn plain(&self) -> String {
        let widths = self.widths();
        let titles = self.columns.iter().map(|column| column.title).collect();
        let rows = self.rows.iter().map(|row| row.cells.iter().map(String::as_str).collect());
        let mut text = String::new();
        for row in std::iter::once(titles).chain(rows) {
            let row: Vec<&str> = row;
            let cells = row.iter().zip(&widths).zip(&self.columns);
            let line: Vec<String> = cells
                .map(|((cell, width), column)| {
                    if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
            text.push_str(line.join(&" ".repeat(GAP)).trim_end());
            text.push('\n');
        }
        text
    }

    /// Width of each column's longest cell. Names are ASCII and figures are plain, so a character
    /// is a cell of the terminal.
    fn widths(&self) -> Vec<usize> {
        let cell = |column: usize| {
            self.rows.iter().filter_map(move |row| Some(row.cells.get(column)?.chars().count()))
        };
        let width = |(column, it): (usize, &Column)| {
            cell(column).max().unwrap_or(0).max(it.title.chars().count())
        };
        self.columns.iter().enumerate().map(width).collect()
    }
}

/// Lines of at most `width` characters; words are broken only if longer than a line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        length += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let column = |title, right, rank| Column { title, right, rank };
        let columns = vec![column("NAME", false, 0), column("N", true, 1), column("WHY", false, 2)];
        let row =
            |cells: [&str; 3]| Row { cells: cells.map(str::to_owned).to_vec(), tone: Tone::Normal };
        let rows = vec![row(["a", "12345", ""]), row(["longer", "1", "a long reason, 20 chars."])];
        Grid { columns, rows }
    }

    #[test]
    fn columns_go_by_rank_and_the_last_is_cut_first() {
        let grid = grid();
        assert_eq!(grid.natural_width(), 6 + 2 + 5 + 2 + 24);
        assert_eq!(grid.fit(100), [(0, 6), (1, 5), (2, 24)]);
        assert_eq!(grid.fit(33), [(0, 6), (1, 5), (2, 18)]);
        assert_eq!(grid.fit(30), [(0, 6), (1, 5)]);
        assert_eq!(grid.fit(10), [(0, 6)]);
        assert_eq!(grid.fit(0), [(0, 6)]);
    }

    #[test]
    fn plain_text_is_aligned_without_trailing_space() {
        let expected =
            "NAME        N  WHY\na       12345\nlonger      1  a long reason, 20 chars.\n";
        assert_eq!(grid().plain(), expected);
    }

    #[test]
    fn words_wrap_and_giants_break() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }
}
