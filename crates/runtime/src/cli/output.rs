//! Standard output: data for people or for programs, and quiet when the reader has gone.

use super::exit::{Failure, INTERNAL};
use std::io::{self, Write};

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Tables for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// Tells something on standard error. If nobody reads it any more (`2>&1 | head`, a terminal that is gone) the work goes on.
pub(crate) fn tell(text: &str) {
    let line = super::log::line(text);
    // There is no other place to say that this one is gone.
    let _ = writeln!(io::stderr().lock(), "{}", line.as_deref().unwrap_or(text));
}

/// Writes text to standard output. A reader that has gone (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(INTERNAL, format!("writing: {error}"))),
        _ => Ok(()),
    }
}

/// Writes a value as JSON, or as the text that is made of it.
pub(crate) fn show<T: serde::Serialize>(output: Output, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    match output {
        Output::Table => print(&text(value)),
        Output::Json => {
            let json = serde_json::to_string_pretty(value).map_err(|error| Failure::new(INTERNAL, error))?;
            print(&format!("{json}\n"))
        }
    }
}

/// Rows in columns that are as wide as needed; the columns after the first are set to the right if they are numbers.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[index].saturating_sub(cell.chars().count()));
            let right = index > 0 && (cell.parse::<f64>().is_ok() || rows.iter().any(|row| row[index].parse::<f64>().is_ok()));
            let (before, after) = if right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.push_str(before);
            text.push_str(cell);
            text.push_str(after);
            text.push_str("  ");
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long-name".to_owned(), "200".to_owned()]];
        assert_eq!(table(&["edge", "backlog"], &rows), "edge       backlog\na                1\nlong-name      200\n");
    }
}
