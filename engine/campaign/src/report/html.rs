//! The document as one HTML file that needs no other.

use std::fmt::Write;

use super::document::{Block, Document};

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; font-size: 90% }
th, td { border-bottom: 1px solid #ddd; padding: .2em .7em; text-align: left }
th { border-bottom: 2px solid #888 }
figure { margin: 1.5em 0 } figcaption { font-size: 90%; color: #444 } svg { max-width: 100%; height: auto }
code { background: #f3f3f3; padding: .1em .3em; font-size: 90% } .wide { overflow-x: auto }";

pub(super) fn render(document: &Document<'_>) -> String {
    let title = escape(&document.title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for block in &document.blocks {
        // Writing to a string cannot fail.
        let _ = match block {
            Block::Heading(text) => writeln!(out, "<h2>{}</h2>", escape(text)),
            Block::Paragraph(text) => writeln!(out, "<p>{}</p>", escape(text)),
            Block::List(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
                writeln!(out, "<ul>\n{}\n</ul>", items.join("\n"))
            }
            Block::Table { headers, rows } => {
                let row = |cells: &[String], tag: &str| -> String {
                    let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
                    format!("<tr>{}</tr>\n", cells.collect::<String>())
                };
                let body: String = rows.iter().map(|cells| row(cells, "td")).collect();
                writeln!(
                    out,
                    "<div class=\"wide\"><table>\n<thead>\n{}</thead>\n<tbody>\n{body}</tbody>\n</table></div>",
                    row(headers, "th")
                )
            }
            Block::Figure(figure) => writeln!(
                out,
                "<figure id=\"{}\">\n{}\n<figcaption>{}<br><code>{}</code></figcaption>\n</figure>",
                escape(&figure.id),
                figure.svg,
                escape(&figure.caption),
                escape(&figure.command)
            ),
        };
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
