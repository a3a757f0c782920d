//! Docker's borderless tables: the columns of Go's text/tabwriter.

use std::borrow::Cow;
use std::io::Write as _;

use unicode_width::UnicodeWidthStr;

use crate::terminal::printable;

/// Prints rows under upper-case titles, as `docker ps` does.
pub fn print(titles: &[&str], rows: &[Vec<String>]) {
    show(&render(titles, rows));
}

/// One write for all: a terminal and a pipe are asked once and not for every line.
pub fn show(text: &str) {
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        eprintln!("bulkhead: write the table: {error}");
    }
}

fn render(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles = titles.iter().map(|title| Cell::of(title)).collect();
    let shown = rows.iter().map(|row| row.iter().map(|cell| Cell::of(cell)).collect());
    let rows: Vec<Vec<Cell<'_>>> = std::iter::once(titles).chain(shown).collect();
    columns(&rows, LIST)
}

/// Puts what tabs divide below each other.
pub fn align(text: &str, columns_of: Columns) -> String {
    let rows: Vec<Vec<Cell<'_>>> =
        text.lines().map(|line| line.split('\t').map(Cell::of).collect()).collect();
    columns(&rows, columns_of)
}

/// How wide columns are.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// No column is narrower, with the space behind it.
    least: usize,
    /// Spaces behind the widest cell.
    gap: usize,
}

/// docker/cli: cli/command/formatter/formatter.go
pub const LIST: Columns = Columns { least: 10, gap: 3 };
/// `docker top` (docker/cli: cli/command/container/top.go)
pub const PROCESSES: Columns = Columns { least: 20, gap: 3 };
/// `docker version` (docker/cli: cli/command/system/version.go)
pub const VERSION: Columns = Columns { least: 20, gap: 1 };

/// A column is as wide as the widest of its cells in neighbouring lines; the last cell of a line is in
/// no column, and nothing is written behind it.
fn columns(rows: &[Vec<Cell<'_>>], wide: Columns) -> String {
    let mut widths: Vec<Vec<usize>> =
        rows.iter().map(|row| vec![0; row.len().saturating_sub(1)]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut line = 0;
        while line < rows.len() {
            let block = widths[line..].iter().take_while(|row| row.len() > column).count();
            let cells = rows[line..line + block].iter().map(|row| row[column].width + wide.gap);
            let width = cells.max().unwrap_or(0).max(wide.least);
            widths[line..line + block].iter_mut().for_each(|row| row[column] = width);
            line += block.max(1);
        }
    }
    let mut text = String::new();
    for (row, widths) in rows.iter().zip(&widths) {
        for (at, cell) in row.iter().enumerate() {
            text.push_str(&cell.text);
            let width = widths.get(at).copied().unwrap_or(0);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width)));
        }
        text.push('\n');
    }
    text
}

/// A text as it is shown, and how many columns of a terminal it takes.
struct Cell<'a> {
    text: Cow<'a, str>,
    width: usize,
}

impl<'a> Cell<'a> {
    fn of(text: &'a str) -> Self {
        // nearly all are, and there are seven for each of a thousand containers
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Self { text: Cow::Borrowed(text), width: text.len() };
        }
        let text = printable(text);
        Self { width: text.width(), text: Cow::Owned(text) }
    }
}

/// `2 hours`, in the words of Docker's go-units, which rounds hours and cuts all else.
pub fn ago(seconds: i64) -> String {
    let hours = (seconds + 1800) / 3600;
    match seconds {
        i64::MIN..=0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ => match hours {
            ..=1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17_520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / 31_536_000),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_looks() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "\u{4f60}\u{597d}", "x"]), row(["long one", "b\u{1b}[2J", ""])];
        assert_eq!(
            render(&["NAME", "SIZE", "PORTS"], &rows),
            "NAME       SIZE         PORTS\n\
             a          \u{4f60}\u{597d}         x\n\
             long one   b\\u{1b}[2J   \n"
        );
        assert_eq!(render(&["ONLY", "TITLES"], &[]), "ONLY      TITLES\n");
        // a line without the column ends it
        assert_eq!(
            align("a\tb\nno column\nlonger than ten\tc", LIST),
            "a         b\nno column\nlonger than ten   c\n"
        );
        assert_eq!(align(" Version:\t1\nServer:", VERSION), " Version:           1\nServer:\n");
    }

    #[test]
    fn hours_are_rounded_and_all_else_is_cut() {
        for (seconds, text) in [
            (-5, "Less than a second"),
            (119, "About a minute"),
            (3599, "59 minutes"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (171_000, "2 days"),
            (86_400 * 13, "13 days"),
            (86_400 * 14, "2 weeks"),
            (86_400 * 61, "2 months"),
            (86_400 * 730, "2 years"),
        ] {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
    }
}
