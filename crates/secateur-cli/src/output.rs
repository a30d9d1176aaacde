//! The result on stdout: tables, or one JSON object.

use crate::args::Format;
use anyhow::{Context, Result};
use comfy_table::{CellAlignment, ContentArrangement, presets};
use secateur::report::{Align, Table};
use serde::Serialize;
use std::io::{self, Write};

/// Prints a result: `record` as one JSON object, or `tables` and then `remarks`, a line each.
pub fn emit(
    format: Format,
    record: &impl Serialize,
    tables: &[Table],
    remarks: &[String],
) -> Result<()> {
    let text = match format {
        Format::Json => {
            serde_json::to_string_pretty(record).context("cannot write the result as JSON")? + "\n"
        }
        Format::Table => {
            let mut text: Vec<String> = tables.iter().map(|table| drawn(table) + "\n").collect();
            if !remarks.is_empty() {
                text.push(remarks.join("\n") + "\n");
            }
            text.join("\n")
        }
    };
    write(&text)
}

/// Writes to stdout. A reader that has gone away has all it wants.
fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// A table in plain characters, the same in a terminal and in a pipe.
fn drawn(table: &Table) -> String {
    let mut drawn = comfy_table::Table::new();
    drawn
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty();
    drawn.set_header(table.columns.iter().map(|(heading, _)| printable(heading)));
    for row in &table.rows {
        drawn.add_row(row.iter().map(|cell| printable(cell)));
    }
    for (column, (_, align)) in drawn.column_iter_mut().zip(&table.columns) {
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    drawn.trim_fmt()
}

/// Text from a file without what would move the cursor or change the terminal's state.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_file_cannot_control_the_terminal() {
        let mut table = Table::new("t", &["name", "#n"]);
        table.push(["a\u{1b}[2Jb\nc", "1"]);
        let text = drawn(&table);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn numbers_stand_right_and_names_left() {
        let mut table = Table::new("t", &["name", "#count"]);
        table.push(["a", "1"]);
        table.push(["longer", "1000"]);
        assert_eq!(
            drawn(&table),
            "\
| name   | count |
|--------|-------|
| a      |     1 |
| longer |  1000 |"
        );
    }
}
