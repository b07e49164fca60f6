//! A document without a format: what HTML and Markdown have in common.

use super::figures::Figure;

#[derive(Debug)]
pub(super) enum Block<'a> {
    Heading(String),
    Paragraph(String),
    List(Vec<String>),
    Table { headers: Vec<String>, rows: Vec<Vec<String>> },
    Figure(&'a Figure),
}

#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) title: String,
    pub(super) blocks: Vec<Block<'a>>,
}
