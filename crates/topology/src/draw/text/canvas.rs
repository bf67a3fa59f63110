//! A sheet of characters on which lines join by themselves.

/// Directions in which a line leaves a cell.
pub(super) const LEFT: u8 = 1;
pub(super) const RIGHT: u8 = 2;
pub(super) const UP: u8 = 4;
pub(super) const DOWN: u8 = 8;

#[derive(Clone, Copy, Debug)]
enum Cell {
    Empty,
    Line(u8),
    Char(char),
}

/// The sheet; it grows as it is drawn on.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    rows: Vec<Vec<Cell>>,
}

impl Canvas {
    fn cell(&mut self, column: usize, row: usize) -> &mut Cell {
        if self.rows.len() <= row {
            self.rows.resize(row + 1, Vec::new());
        }
        let cells = &mut self.rows[row];
        if cells.len() <= column {
            cells.resize(column + 1, Cell::Empty);
        }
        &mut cells[column]
    }

    /// Adds the ends of lines to a cell.
    pub(super) fn line(&mut self, column: usize, row: usize, ends: u8) {
        let cell = self.cell(column, row);
        *cell = match *cell {
            Cell::Line(before) => Cell::Line(before | ends),
            _ => Cell::Line(ends),
        };
    }

    /// A line along a row from `from` up to and without `to`.
    pub(super) fn along(&mut self, row: usize, from: usize, to: usize) {
        for column in from..to {
            self.line(column, row, LEFT | RIGHT);
        }
    }

    /// Writes a text of narrow characters over whatever is there.
    pub(super) fn text(&mut self, column: usize, row: usize, text: &str) {
        for (at, c) in text.chars().enumerate() {
            *self.cell(column + at, row) = Cell::Char(c);
        }
    }

    /// The sheet in lines without blanks at their ends.
    pub(super) fn finish(&self, unicode: bool) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let line: String = row
                .iter()
                .map(|cell| match *cell {
                    Cell::Empty => ' ',
                    Cell::Char(c) => c,
                    Cell::Line(ends) if unicode => joined(ends),
                    Cell::Line(ends) => plain(ends),
                })
                .collect();
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn joined(ends: u8) -> char {
    const FORMS: [char; 16] = [' ', '─', '─', '─', '│', '┘', '└', '┴', '│', '┐', '┌', '┬', '│', '┤', '├', '┼'];
    FORMS[usize::from(ends & 15)]
}

fn plain(ends: u8) -> char {
    match (ends & (LEFT | RIGHT) != 0, ends & (UP | DOWN) != 0) {
        (true, true) => '+',
        (true, false) => '-',
        (false, true) => '|',
        (false, false) => ' ',
    }
}
