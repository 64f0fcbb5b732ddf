//! A result set as text, looked up by column names whose case differs between servers.

/// Columns and rows of one result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// One row, with the names of its columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowView<'a> {
    columns: &'a [String],
    values: &'a [Option<String>],
}

impl Table {
    pub fn iter(&self) -> impl Iterator<Item = RowView<'_>> {
        self.rows.iter().map(|values| RowView {
            columns: &self.columns,
            values,
        })
    }

    pub fn first(&self) -> Option<RowView<'_>> {
        self.iter().next()
    }

    /// The second column of the row whose first column is `name`: how SHOW VARIABLES and SHOW STATUS answer.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.rows.iter().find_map(|row| match row.as_slice() {
            [Some(found), value, ..] if found.eq_ignore_ascii_case(name) => value.as_deref(),
            _ => None,
        })
    }
}

impl<'a> RowView<'a> {
    /// The value of the first of these columns that the server has; none for NULL and for no such column.
    pub fn get(&self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|name| {
            let at = self
                .columns
                .iter()
                .position(|column| column.eq_ignore_ascii_case(name))?;
            self.values.get(at)?.as_deref()
        })
    }

    pub fn at(&self, index: usize) -> Option<&'a str> {
        self.values.get(index)?.as_deref()
    }

    pub fn text(&self, names: &[&str]) -> String {
        self.get(names).unwrap_or_default().to_owned()
    }

    /// 0 for NULL, for no such column and for what is no number.
    pub fn number<T: std::str::FromStr + Default>(&self, names: &[&str]) -> T {
        self.get(names)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    pub fn is_on(&self, names: &[&str]) -> bool {
        self.get(names).is_some_and(is_on)
    }
}

/// How servers spell a truth.
pub(super) fn is_on(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("ON") || text.eq_ignore_ascii_case("YES")
}
