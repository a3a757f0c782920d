//! `--format`: Go templates over the engine's JSON, with Docker's functions.

use std::borrow::Cow;
use std::io::Write as _;

use gotmpl::{MissingKey, Template, Value};
use serde_json::Value as Json;

use crate::failure::Failure;

/// Prints one object of the engine's by the template, or as JSON when the template is `json`.
///
/// A field that it does not have is an error, but for a label.
pub fn print(format: &str, object: &Json) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", rendered(format, object)?).map_err(Failure::from)
}

/// What [`print`] writes, without the end of its line.
pub fn rendered(format: &str, object: &Json) -> Result<String, Failure> {
    let object = &with_names_of_go(format, object);
    let mut line = render(format, object, MissingKey::Invalid)?;
    if line.contains(NO_VALUE) && !is_of_users(format) {
        line = render(format, object, MissingKey::Error)?;
    }
    Ok(line)
}

/// Whether it asks for what users have named: nobody can say which of these there are.
fn is_of_users(format: &str) -> bool {
    [".Labels", ".Attributes"].iter().any(|map| format.contains(map))
}

/// Go's structures call it `ID` where the JSON says `Id`, and templates may say either.
fn with_names_of_go<'a>(format: &str, object: &'a Json) -> Cow<'a, Json> {
    match (object.get("Id"), object.get("ID")) {
        (Some(id), None) if format.contains(".ID") => {
            let mut named = object.clone();
            named["ID"] = id.clone();
            Cow::Owned(named)
        }
        _ => Cow::Borrowed(object),
    }
}

/// What the template writes for nothing.
const NO_VALUE: &str = "<no value>";

/// Which functions a template has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    All,
    /// For rows of a list, whose JSON is that of a list in JSON.
    OfRows,
    /// For titles of columns: they are left as they are (docker/cli: templates/templates.go).
    OfTitles,
}

/// Renders one object; `json` alone is the whole object in one line.
fn render(format: &str, object: &Json, missing: MissingKey) -> Result<String, Failure> {
    if format == "json" {
        return Ok(object.to_string());
    }
    let template = parse(format, Functions::All, missing)?;
    template.execute_to_string(&to_value(object)).map_err(|cause| wrong(&cause))
}

/// A template for the rows of a list.
pub struct Row(Template);

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").finish_non_exhaustive()
    }
}

impl Row {
    pub fn parse(format: &str, functions: Functions) -> Result<Self, Failure> {
        parse(format, functions, MissingKey::Error).map(Self)
    }

    /// Renders one row; a field that it does not have is an error.
    pub fn render(&self, row: &Json) -> Result<String, Failure> {
        self.0.execute_to_string(&to_value(row)).map_err(|cause| wrong(&cause))
    }
}

/// Whether the template can be read, and asks for no field that `sample` does not have. What it does with
/// their values is not tried: these are not there yet.
pub fn check(format: &str, sample: &Json) -> Result<(), Failure> {
    use gotmpl::TemplateError::{MissingKey as NoField, UndefinedFunction};
    let template = parse(format, Functions::All, MissingKey::Error)?;
    match template.execute_to_string(&to_value(sample)) {
        Err(NoField { .. }) if is_of_users(format) => Ok(()),
        Err(cause @ (NoField { .. } | UndefinedFunction(_))) => Err(wrong(&cause)),
        _ => Ok(()),
    }
}

fn wrong(cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("template parsing error: {cause}"))
}

fn parse(format: &str, functions: Functions, missing: MissingKey) -> Result<Template, Failure> {
    // Shells pass '\t' and '\n' as two characters, and Docker reads them as the one meant.
    let format = format.replace("\\t", "\t").replace("\\n", "\n");
    let mut template = Template::new("").missing_key(missing).func("pad", pad).func("index", index);
    template = match functions {
        Functions::All | Functions::OfRows => template.func("label", label),
        Functions::OfTitles => template.func("label", title_of_label),
    };
    let of_values: [(&str, Function); 7] = [
        ("json", json),
        ("split", split),
        ("join", join),
        ("upper", |arguments| text(arguments, str::to_uppercase)),
        ("lower", |arguments| text(arguments, str::to_lowercase)),
        ("title", |arguments| text(arguments, title)),
        ("truncate", truncate),
    ];
    for (name, function) in of_values {
        let function = match functions {
            Functions::OfRows if name == "json" => json_of_row,
            Functions::All | Functions::OfRows => function,
            Functions::OfTitles => |arguments: &[Value]| text(arguments, str::to_owned),
        };
        template = template.func(name, function);
    }
    template.parse(&format).map_err(|cause| wrong(&cause))
}

type Function = fn(&[Value]) -> gotmpl::Result<Value>;

fn json(arguments: &[Value]) -> gotmpl::Result<Value> {
    let value = arguments.first().map_or(Json::Null, to_json);
    Ok(Value::String(value.to_string().into()))
}

/// A row as a whole is what `--format json` shows; its fields are themselves.
fn json_of_row(arguments: &[Value]) -> gotmpl::Result<Value> {
    match arguments.first() {
        Some(row @ Value::Map(_)) => Ok(Value::String(row_as_json(&to_json(row)).into())),
        _ => json(arguments),
    }
}

/// A row in one line, fields by name, and with what Go's encoder escapes.
pub fn row_as_json(row: &Json) -> String {
    let mut fields: Vec<(&String, &Json)> =
        row.as_object().into_iter().flatten().filter(|(name, _)| *name != LABELS).collect();
    fields.sort_by_key(|(name, _)| *name);
    let fields: serde_json::Map<String, Json> =
        fields.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut line = String::new();
    for letter in Json::Object(fields).to_string().chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                line.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            _ => line.push(letter),
        }
    }
    line
}

/// A row's labels one by one, for `.Label "NAME"`: no field of Docker's.
pub const LABELS: &str = "LabelMap";

/// Go's `index`; a text that a map does not have is an empty one.
fn index(arguments: &[Value]) -> gotmpl::Result<Value> {
    let wrong = |what: String| gotmpl::TemplateError::Exec(format!("error calling index: {what}"));
    let mut at = arguments.first().cloned().unwrap_or(Value::Nil);
    for key in arguments.iter().skip(1) {
        at = match (&at, key) {
            (Value::Map(fields), Value::String(name)) => {
                let texts = fields.values().all(|value| matches!(value, Value::String(_)));
                let missing = if texts { Value::String("".into()) } else { Value::Nil };
                fields.get(name).cloned().unwrap_or(missing)
            }
            (Value::List(items), Value::Int(number)) => {
                let place = usize::try_from(*number).ok().and_then(|number| items.get(number));
                place.cloned().ok_or_else(|| wrong(format!("index out of range: {number}")))?
            }
            (Value::String(text), Value::Int(number)) => {
                let place = usize::try_from(*number).ok();
                let byte = place.and_then(|place| text.as_bytes().get(place));
                let byte = byte.ok_or_else(|| wrong(format!("index out of range: {number}")))?;
                Value::Uint((*byte).into())
            }
            (Value::Nil, _) => return Err(wrong("index of untyped nil".to_owned())),
            _ => return Err(wrong(format!("{at} cannot be indexed by {key}"))),
        };
    }
    Ok(at)
}

fn split(arguments: &[Value]) -> gotmpl::Result<Value> {
    let word = |at: usize| arguments.get(at).map(ToString::to_string).unwrap_or_default();
    let (whole, separator) = (word(0), word(1));
    let parts: Vec<Value> =
        whole.split(separator.as_str()).map(|part| Value::String(part.into())).collect();
    Ok(Value::List(parts.into()))
}

fn join(arguments: &[Value]) -> gotmpl::Result<Value> {
    let separator = arguments.get(1).map(ToString::to_string).unwrap_or_default();
    let mut parts: Vec<String> = match arguments.first() {
        Some(Value::List(items)) => items.iter().map(ToString::to_string).collect(),
        Some(Value::Map(fields)) => fields.values().map(ToString::to_string).collect(),
        None | Some(Value::Nil) => Vec::new(),
        Some(_) => {
            return Err(gotmpl::TemplateError::Exec("join needs a list or a map".to_owned()));
        }
    };
    if let Some(Value::Map(_)) = arguments.first() {
        parts.sort();
    }
    Ok(Value::String(parts.join(&separator).into()))
}

fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut starts = true;
    for letter in text.chars() {
        if starts {
            titled.extend(letter.to_uppercase())
        } else {
            titled.push(letter)
        }
        starts = !(letter.is_alphanumeric() || letter == '_' || letter == '\'');
    }
    titled
}

/// One label of several; nothing where there is none.
fn label(arguments: &[Value]) -> gotmpl::Result<Value> {
    let name = arguments.get(1).map(ToString::to_string).unwrap_or_default();
    Ok(match arguments.first() {
        Some(Value::Map(labels)) => labels.get(name.as_str()).cloned(),
        _ => None,
    }
    .unwrap_or_else(|| Value::String("".into())))
}

/// The last part of the label's name (docker/cli: cli/command/formatter/custom.go).
fn title_of_label(arguments: &[Value]) -> gotmpl::Result<Value> {
    let name = arguments.get(1).map(ToString::to_string).unwrap_or_default();
    let last = name.rsplit('.').next().unwrap_or_default();
    Ok(Value::String(last.replace(['-', '_'], " ").into()))
}

/// Spaces around a text that is not empty.
fn pad(arguments: &[Value]) -> gotmpl::Result<Value> {
    let spaces = |at: usize| match arguments.get(at) {
        Some(Value::Int(count)) => " ".repeat((*count).clamp(0, 1000) as usize),
        _ => String::new(),
    };
    let (before, after) = (spaces(1), spaces(2));
    text(arguments, |text| match text {
        "" => String::new(),
        text => format!("{before}{text}{after}"),
    })
}

fn truncate(arguments: &[Value]) -> gotmpl::Result<Value> {
    let length = match arguments.get(1) {
        Some(Value::Int(length)) => usize::try_from(*length).unwrap_or(0),
        _ => return Err(gotmpl::TemplateError::Exec("truncate needs a length".to_owned())),
    };
    text(arguments, |text| text.chars().take(length).collect())
}

fn text(arguments: &[Value], change: impl FnOnce(&str) -> String) -> gotmpl::Result<Value> {
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
            ("{{index .Args 1}}{{index .HostConfig \"nope\"}}|", "b|"),
            ("{{pad .Id 1 2}}|{{truncate .Id 2}}", " abc  |ab"),
            ("{{index (split .HostConfig.NetworkMode \"o\") 1}}", "st"),
            ("{{printf \"%-5s|\" .Id}}{{println .State.Pid}}", "abc  |7\n"),
        ] {
            let rendered = render(template, &container, MissingKey::Error).expect(template);
            assert_eq!(rendered, expected);
        }
    }

    #[test]
    fn wrong_templates_are_errors_without_rows_too() {
        let sample = json!({"ID": "", "Names": ""});
        for wrong in ["{{.ID", "{{.Nope}}", "{{nope .ID}}"] {
            assert!(check(wrong, &sample).is_err(), "{wrong}");
            assert!(print(wrong, &sample).is_err(), "{wrong}");
        }
        for right in ["{{.ID}}\\t{{.Names}}", "{{index (split .Names \",\") 1}}"] {
            assert!(check(right, &sample).is_ok(), "{right}");
        }
        let titles = json!({"ID": "CONTAINER ID"});
        let row = Row::parse("{{lower .ID}} {{label .LabelMap \"com.x_y\"}}", Functions::OfTitles);
        let titles = json!({"LabelMap": {}, "ID": titles["ID"]});
        assert_eq!(row.unwrap().render(&titles).unwrap(), "CONTAINER ID x y");
        // one that is there and has nothing
        let container = json!({"State": {"Health": null}, "Config": {"Labels": {}}});
        assert!(print("{{index .Args 2}}", &json!({"Args": [1]})).is_err());
        assert!(print("{{.ID}}", &json!({"Id": "x"})).is_ok());
        for right in ["{{if .State.Health}}x{{end}}", "{{.Config.Labels.nope}}"] {
            assert!(print(right, &container).is_ok(), "{right}");
        }
    }
}
