//! A table as data: the terminal, Markdown and HTML each draw it in their own way.

/// The side to which a column's text is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the table shows; unique in a report.
    pub title: String,
    /// Each column's heading and alignment.
    pub columns: Vec<(String, Align)>,
    /// The cells, as many a row as there are columns. Their text may come from a file.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table. Columns whose heading begins with `#` are numbers and set to the right; the
    /// sign is not shown.
    #[must_use]
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let column = |heading: &&str| match heading.strip_prefix('#') {
            Some(heading) => (heading.to_owned(), Align::Right),
            None => ((*heading).to_owned(), Align::Left),
        };
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing are empty, cells too many are left out.
    pub fn push<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }
}
