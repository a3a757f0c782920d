//! Docker's borderless tables.

use std::borrow::Cow;
use std::io::Write as _;

use unicode_width::UnicodeWidthStr;

use crate::terminal::printable;

/// Prints rows under upper-case titles, columns three spaces apart, as `docker ps` does.
pub fn print(titles: &[&str], rows: Vec<Vec<String>>) {
    let text = render(titles, &rows);
    // one write for all: a terminal and a pipe are asked once and not for every line
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        eprintln!("bulkhead: write the table: {error}");
    }
}

fn render(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles = titles.iter().map(|title| Cell::of(title)).collect();
    let shown = rows.iter().map(|row| row.iter().map(|cell| Cell::of(cell)).collect());
    let rows: Vec<Vec<Cell<'_>>> = std::iter::once(titles).chain(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width.max(*width);
        }
    }
    let mut text = String::with_capacity(rows.len() * (widths.iter().sum::<usize>() + 3 * columns));
    for row in &rows {
        let start = text.len();
        for (width, cell) in widths.iter().zip(row) {
            text.push_str(&cell.text);
            text.extend(std::iter::repeat_n(' ', width + GAP - cell.width));
        }
        let end = text.trim_end_matches(' ').len().max(start);
        text.truncate(end);
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

/// Spaces between columns.
const GAP: usize = 3;

/// `2 hours`, in the words of Docker's go-units.
pub fn ago(seconds: i64) -> String {
    match seconds {
        i64::MIN..=0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => format!("{} hours", seconds / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86_400),
        1_209_600..5_184_000 => format!("{} weeks", seconds / 604_800),
        5_184_000..63_072_000 => format!("{} months", seconds / 2_592_000),
        _ => format!("{} years", seconds / 31_536_000),
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
             long one   b\\u{1b}[2J\n"
        );
        assert_eq!(render(&["ONLY", "TITLES"], &[]), "ONLY   TITLES\n");
    }
}
