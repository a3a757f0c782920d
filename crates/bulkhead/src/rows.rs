//! Lists: one row a thing, as a table, by a template, or as JSON.

use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::table;
use crate::template::{self, Functions, Row};
use crate::terminal::printable;

/// What the rows of a list have.
#[derive(Debug)]
pub struct Kind {
    /// Fields of a template, with the titles of their columns.
    pub fields: &'static [(&'static str, &'static str)],
    /// The template of the table that is shown where nobody asks for another.
    pub table: &'static str,
}

/// Which rows, and what of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show<'a> {
    /// As `--format` says.
    Format(Option<&'a str>),
    /// One field of each alone.
    Only(&'static str),
}

impl<'a> Show<'a> {
    /// `--quiet` goes before `--format`, as in Docker, where no template of one's own is given.
    pub fn of(quiet: bool, field: &'static str, format: Option<&'a str>) -> Self {
        if quiet { Self::Only(field) } else { Self::Format(format) }
    }
}

/// Prints rows that this program has made. A template that is wrong is so where there are no rows, too.
pub fn print(kind: &Kind, show: Show<'_>, rows: Vec<Value>) -> Result<(), Failure> {
    table::show(&render(kind, show, rows)?);
    Ok(())
}

/// What [`print`] writes.
pub fn render(kind: &Kind, show: Show<'_>, rows: Vec<Value>) -> Result<String, Failure> {
    let format = match show {
        Show::Only(field) => {
            let lines = rows.iter().map(|row| text(&row[field]) + "\n");
            return Ok(lines.collect());
        }
        Show::Format(None | Some("" | "table")) => return as_table(kind, kind.table, rows),
        Show::Format(Some("raw")) => {
            return Err(Failure::new(
                "--format raw is not supported: use json, or a template such as '{{.Name}}'",
            ));
        }
        Show::Format(Some("json")) => {
            let lines = rows.iter().map(|row| template::row_as_json(row) + "\n");
            return Ok(lines.collect());
        }
        Show::Format(Some(format)) => format,
    };
    match format.strip_prefix("table") {
        Some(columns) => as_table(kind, columns.trim_matches(' '), rows),
        None => {
            let format = label_calls(format);
            template::check(&format, &kind.titles())?;
            let template = Row::parse(&format, Functions::OfRows)?;
            rows.iter().try_fold(String::new(), |all, row| Ok(all + &template.render(row)? + "\n"))
        }
    }
}

fn as_table(kind: &Kind, columns: &str, rows: Vec<Value>) -> Result<String, Failure> {
    let columns = label_calls(columns);
    let mut text = Row::parse(&columns, Functions::OfTitles)?.render(&kind.titles())? + "\n";
    let template = Row::parse(&columns, Functions::OfRows)?;
    for mut row in rows {
        harmless(&mut row);
        text += &template.render(&row)?;
        text.push('\n');
    }
    Ok(table::align(&text, table::LIST))
}

impl Kind {
    /// A row of titles. What labels there are nobody can say.
    fn titles(&self) -> Value {
        let titles = self.fields.iter();
        let mut titles: Map<String, Value> =
            titles.map(|(field, title)| ((*field).to_owned(), Value::from(*title))).collect();
        titles.insert(LABELS.to_owned(), Value::Object(Map::new()));
        Value::Object(titles)
    }
}

/// Docker's rows have a method `Label`; here it is a function over the labels.
fn label_calls(format: &str) -> String {
    format.replace(".Label \"", &format!("label .{LABELS} \""))
}

pub use template::LABELS;

/// Makes what strangers wrote fit for a table on a terminal.
fn harmless(row: &mut Value) {
    match row {
        Value::String(text) if text.is_ascii() && !text.bytes().any(|it| it.is_ascii_control()) => {
        }
        Value::String(text) => *text = printable(&text.replace('\t', " ")),
        Value::Array(items) => items.iter_mut().for_each(harmless),
        Value::Object(fields) => fields.values_mut().for_each(harmless),
        _ => {}
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KIND: Kind = Kind {
        fields: &[("ID", "CONTAINER ID"), ("Names", "NAMES"), ("Ports", "PORTS")],
        table: "{{.ID}}\\t{{.Names}}",
    };

    fn shown(format: Option<&str>) -> Result<String, String> {
        let rows = vec![
            json!({"Ports": "0.0.0.0:1->2/tcp", "ID": "0123", "Names": "a", "LabelMap": {"x": "y"}}),
            json!({"Ports": "", "ID": "4567", "Names": "b\tc\u{1b}", "LabelMap": {}}),
        ];
        render(&KIND, Show::Format(format), rows).map_err(|failure| failure.message)
    }

    #[test]
    fn rows_are_shown_as_docker_shows_them() {
        for (format, expected) in [
            (None, "CONTAINER ID   NAMES\n0123           a\n4567           b c\\u{1b}\n"),
            (Some("table {{.Names}}"), "NAMES\na\nb c\\u{1b}\n"),
            (Some("{{.ID}}={{upper .Names}}"), "0123=A\n4567=B\tC\u{1b}\n"),
            (Some("{{.Label \"x\"}}|"), "y|\n|\n"),
            (Some("{{json .Ports}}"), "\"0.0.0.0:1->2/tcp\"\n\"\"\n"),
            (
                Some("table {{.ID}}\\t{{.Label \"x\"}}"),
                "CONTAINER ID   x\n0123           y\n4567           \n",
            ),
        ] {
            assert_eq!(shown(format).as_deref(), Ok(expected), "{format:?}");
        }
        let json = shown(Some("json")).unwrap();
        assert!(
            json.starts_with(
                "{\"ID\":\"0123\",\"Names\":\"a\",\"Ports\":\"0.0.0.0:1-\\u003e2/tcp\"}\n"
            ),
            "{json}"
        );
        assert_eq!(shown(Some("{{json .}}")).unwrap(), json);
        for wrong in ["{{.Nope}}", "table {{.Nope}}", "{{.ID", "{{nope}}", "raw"] {
            assert!(shown(Some(wrong)).is_err(), "{wrong}");
            assert!(render(&KIND, Show::Format(Some(wrong)), vec![]).is_err(), "{wrong}");
        }
        assert_eq!(render(&KIND, Show::Only("ID"), vec![json!({"ID": "7"})]).unwrap(), "7\n");
    }
}
