//! How tables look: a line under the head, and nothing else.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// An empty table with these heads.
pub(crate) fn table<T: Into<comfy_table::Row>>(heads: T) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(heads);
    table
}

/// Its text, with these columns flush right, as numbers are.
pub(crate) fn text(mut table: Table, numbers: impl Fn(usize) -> bool) -> String {
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if numbers(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
