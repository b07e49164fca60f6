//! The document as Markdown, with the figures in files beside it.

use std::fmt::Write;

use super::document::{Block, Document};

pub(super) fn render(document: &Document<'_>) -> String {
    let mut out = format!("# {}\n", escape(&document.title));
    for block in &document.blocks {
        // Writing to a string cannot fail.
        let _ = match block {
            Block::Heading(text) => writeln!(out, "\n## {}", escape(text)),
            Block::Paragraph(text) => writeln!(out, "\n{}", escape(text)),
            Block::List(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| format!("- {}", escape(item))).collect();
                writeln!(out, "\n{}", items.join("\n"))
            }
            Block::Table { headers, rows } => {
                let row = |cells: &[String]| -> String {
                    let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
                    format!("| {} |\n", cells.join(" | "))
                };
                let rule = format!("|{}\n", "---|".repeat(headers.len()));
                let body: String = rows.iter().map(|cells| row(cells)).collect();
                write!(out, "\n{}{rule}{body}", row(headers))
            }
            Block::Figure(figure) => writeln!(
                out,
                "\n![{}](figures/{}.svg)\n\n{} `{}`",
                escape(&figure.title),
                figure.id,
                escape(&figure.caption),
                figure.command
            ),
        };
    }
    out
}

/// Text that Markdown leaves as it is.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '|' | '*' | '_' | '`' | '<' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}
