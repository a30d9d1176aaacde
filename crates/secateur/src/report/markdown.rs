//! Reports as Markdown.

use super::table::{Align, Table};
use super::{CompressReport, StudyReport};
use std::fmt::Write;

impl CompressReport {
    /// The report as a Markdown page.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut page = format!("# {}\n\n", escape(&self.model));
        let verdict = match self.missed() {
            None => "All targets are met.".to_owned(),
            Some(missed) => format!("Not all targets are met. {missed}."),
        };
        let _ = writeln!(page, "{}\n", escape(&verdict));
        for (position, table) in self.tables().iter().enumerate() {
            let _ = writeln!(
                page,
                "## {}\n\n{}",
                escape(&table.title),
                table.to_markdown()
            );
            if position == 0 {
                for remark in self.remarks() {
                    let _ = writeln!(page, "- {}", escape(&remark));
                }
                page.push('\n');
            }
        }
        let _ = writeln!(
            page,
            "Trained by `{}`. All settings are in `config.toml`.",
            escape(&self.engine)
        );
        page
    }
}

impl StudyReport {
    /// The report as a Markdown page.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut page = format!("# {}\n\n", escape(&self.study));
        for table in self.tables() {
            let title = escape(&table.title);
            let _ = writeln!(page, "## {title}\n\n{}", table.to_markdown());
        }
        for remark in self.remarks() {
            let _ = writeln!(page, "- {}", escape(&remark));
        }
        page
    }
}

impl Table {
    /// The table in Markdown, without its title.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        row(
            &mut text,
            self.columns.iter().map(|(heading, _)| escape(heading)),
        );
        row(
            &mut text,
            self.columns.iter().map(|(_, align)| match align {
                Align::Left => "---".to_owned(),
                Align::Right => "---:".to_owned(),
            }),
        );
        for cells in &self.rows {
            row(&mut text, cells.iter().map(|cell| escape(cell)));
        }
        text
    }
}

fn row(text: &mut String, cells: impl Iterator<Item = String>) {
    text.push('|');
    for cell in cells {
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
}

/// Text from a file, so that no Markdown or HTML in it has an effect and it stays on one line.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
