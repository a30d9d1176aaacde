//! Reports, each as one HTML page that needs no other file.

use super::table::{Align, Table};
use super::{CompressReport, ReportError, StudyReport};
use std::fmt::Write;

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #888 }
.number { text-align: right; white-space: nowrap }
.wide { overflow-x: auto }
.verdict { font-weight: bold }
figcaption { color: #666 }
figure svg { max-width: 100%; height: auto }";

impl CompressReport {
    /// The report as a self-contained HTML page.
    ///
    /// # Errors
    /// [`ReportError`] where the chart cannot be drawn.
    pub fn to_html(&self) -> Result<String, ReportError> {
        let mut page = head(&self.model);
        let verdict = match self.missed() {
            None => "All targets are met.".to_owned(),
            Some(missed) => format!("Not all targets are met. {missed}."),
        };
        let _ = writeln!(page, "<p class=\"verdict\">{}</p>", escape(&verdict));
        for (position, table) in self.tables().iter().enumerate() {
            let _ = writeln!(
                page,
                "<h2>{}</h2>\n{}",
                escape(&table.title),
                table.to_html()
            );
            if position == 0 {
                list(&mut page, &self.remarks());
                if let Some(chart) = self.chart()? {
                    let _ = writeln!(
                        page,
                        "<figure>\n{chart}\n<figcaption>Validation accuracy after the training of each round. \
                         Filled: kept; open: taken back.</figcaption>\n</figure>"
                    );
                }
            }
        }
        let _ = writeln!(
            page,
            "<p>Trained by <code>{}</code>. All settings are in <code>config.toml</code>.</p>\n</html>",
            escape(&self.engine)
        );
        Ok(page)
    }
}

impl StudyReport {
    /// The report as a self-contained HTML page.
    ///
    /// # Errors
    /// [`ReportError`] where the chart cannot be drawn.
    pub fn to_html(&self) -> Result<String, ReportError> {
        let mut page = head(&self.study);
        if let Some(chart) = self.chart()? {
            let _ = writeln!(
                page,
                "<figure>\n{chart}\n<figcaption>Lines: means over the seeds; circles: runs.</figcaption>\n</figure>"
            );
        }
        for table in self.tables() {
            let title = escape(&table.title);
            let _ = writeln!(page, "<h2>{title}</h2>\n{}", table.to_html());
        }
        list(&mut page, &self.remarks());
        page.push_str("</html>\n");
        Ok(page)
    }
}

/// The beginning of a page.
fn head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}\n\
         </style>\n<h1>{title}</h1>\n"
    )
}

fn list(page: &mut String, remarks: &[String]) {
    page.push_str("<ul>\n");
    for remark in remarks {
        let _ = writeln!(page, "<li>{}</li>", escape(remark));
    }
    page.push_str("</ul>\n");
}

impl Table {
    /// The table as an HTML element, without its title.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut text = String::from("<div class=\"wide\"><table>\n<thead>");
        row(
            &mut text,
            "th",
            self.columns
                .iter()
                .map(|(heading, align)| (heading.as_str(), *align)),
        );
        text.push_str("</thead>\n<tbody>\n");
        for cells in &self.rows {
            let aligns = self.columns.iter().map(|(_, align)| *align);
            row(
                &mut text,
                "td",
                cells.iter().map(String::as_str).zip(aligns),
            );
        }
        text.push_str("</tbody>\n</table></div>");
        text
    }
}

fn row<'c>(text: &mut String, tag: &str, cells: impl Iterator<Item = (&'c str, Align)>) {
    text.push_str("<tr>");
    for (cell, align) in cells {
        let class = match align {
            Align::Left => "",
            Align::Right => " class=\"number\"",
        };
        let _ = write!(text, "<{tag}{class}>{}</{tag}>", escape(cell));
    }
    text.push_str("</tr>\n");
}

/// Text from a file, so that no HTML in it has an effect.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
