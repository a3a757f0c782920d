//! `--format`: Go templates over the engine's JSON, with Docker's functions.

use std::io::Write as _;

use gotmpl::{MissingKey, Template, Value};
use serde_json::Value as Json;

use crate::failure::Failure;

/// Prints one object of the engine's by the template, or as JSON when the template is `json`.
///
/// A field that it does not have is an error, but for a label: of these nobody can say which there are.
pub fn print(format: &str, object: &Json) -> Result<(), Failure> {
    let mut line = render(format, object, MissingKey::Invalid)?;
    if line.contains(NO_VALUE) && !format.contains(".Labels") {
        line = render(format, object, MissingKey::Error)?;
    }
    writeln!(std::io::stdout(), "{line}").map_err(Failure::from)
}

/// What the template writes for nothing.
const NO_VALUE: &str = "<no value>";

/// Prints rows that this program has made. `sample` has their fields: a template that is wrong is so
/// where there are no rows, too.
pub fn print_rows(format: &str, rows: &[Json], sample: &Json) -> Result<(), Failure> {
    render(format, sample, MissingKey::Error)?;
    let mut stdout = std::io::stdout();
    for row in rows {
        writeln!(stdout, "{}", render(format, row, MissingKey::Error)?)?;
    }
    Ok(())
}

/// Renders one object; `json` alone is the whole object in one line.
fn render(format: &str, object: &Json, missing: MissingKey) -> Result<String, Failure> {
    let format = format.strip_prefix("table ").unwrap_or(format);
    if format == "json" {
        return Ok(object.to_string());
    }
    let wrong =
        |cause: &dyn std::fmt::Display| Failure::new(format!("template parsing error: {cause}"));
    // Shells pass '\t' and '\n' as two characters, and Docker reads them as the one meant.
    let format = format.replace("\\t", "\t").replace("\\n", "\n");
    let template = Template::new("")
        .missing_key(missing)
        .func("json", |arguments| {
            let value = arguments.first().map_or(Json::Null, to_json);
            Ok(Value::String(value.to_string().into()))
        })
        .func("join", |arguments| {
            let separator = arguments.get(1).map(ToString::to_string).unwrap_or_default();
            let parts: Vec<String> = match arguments.first() {
                Some(Value::List(items)) => items.iter().map(ToString::to_string).collect(),
                Some(other) => vec![other.to_string()],
                None => Vec::new(),
            };
            Ok(Value::String(parts.join(&separator).into()))
        })
        .func("upper", |arguments| text(arguments, |text| text.to_uppercase()))
        .func("lower", |arguments| text(arguments, |text| text.to_lowercase()))
        .func("title", |arguments| {
            text(arguments, |text| {
                let mut letters = text.chars();
                letters
                    .next()
                    .map(|first| first.to_uppercase().chain(letters).collect())
                    .unwrap_or_default()
            })
        })
        .parse(&format)
        .map_err(|cause| wrong(&cause))?;
    template.execute_to_string(&to_value(object)).map_err(|cause| wrong(&cause))
}

fn text(arguments: &[Value], change: impl Fn(&str) -> String) -> gotmpl::Result<Value> {
    let text = arguments.first().map(ToString::to_string).unwrap_or_default();
    Ok(Value::String(change(&text).into()))
}

fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::Uint(value),
            (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(value) => Value::String(value.as_str().into()),
        Json::Array(items) => Value::List(items.iter().map(to_value).collect()),
        Json::Object(fields) => Value::Map(std::sync::Arc::new(
            fields.iter().map(|(key, value)| (key.as_str().into(), to_value(value))).collect(),
        )),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Uint(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(fields) => Json::Object(
            fields.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect(),
        ),
        other => Json::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn docker_templates_render() {
        let container = json!({"Id": "abc", "HostConfig": {"NetworkMode": "host"}, "Args": ["a", "b"], "State": {"Pid": 7}});
        for (template, expected) in [
            ("{{ .Id }}: NetworkMode={{ .HostConfig.NetworkMode }}", "abc: NetworkMode=host"),
            ("{{json .Args}}", r#"["a","b"]"#),
            ("{{join .Args \",\"}}", "a,b"),
            ("{{.State.Pid}}", "7"),
            ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"),
            ("{{upper .Id}}\\t{{title .Id}}", "ABC\tAbc"),
        ] {
            let rendered = render(template, &container, MissingKey::Error).expect(template);
            assert_eq!(rendered, expected);
        }
    }

    #[test]
    fn wrong_templates_are_errors_without_rows_too() {
        let sample = json!({"ID": "", "Names": ""});
        for wrong in ["{{.ID", "{{.Nope}}", "{{nope .ID}}"] {
            assert!(print_rows(wrong, &[], &sample).is_err(), "{wrong}");
            assert!(print(wrong, &sample).is_err(), "{wrong}");
        }
        assert!(print_rows("table {{.ID}}\t{{.Names}}", &[], &sample).is_ok());
        // one that is there and has nothing
        let container = json!({"State": {"Health": null}, "Config": {"Labels": {}}});
        for right in ["{{if .State.Health}}x{{end}}", "{{.Config.Labels.nope}}"] {
            assert!(print(right, &container).is_ok(), "{right}");
        }
    }
}
