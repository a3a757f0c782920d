//! Docker's borderless tables.

use comfy_table::{Table, presets};

/// Prints rows under upper-case titles, columns three spaces apart, as `docker ps` does.
pub fn print(titles: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(titles.iter().copied());
    let printable = |row: Vec<String>| {
        row.iter().map(|cell| crate::terminal::printable(cell)).collect::<Vec<_>>()
    };
    table.add_rows(rows.into_iter().map(printable));
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

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
