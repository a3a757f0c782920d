//! `--log-opt tag`: a Go template over what is known of the container (moby:
//! daemon/logger/loggerutils/log_tag.go).

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, Value};

use crate::container::Container;

/// Docker's default: the short id.
pub(crate) const DEFAULT: &str = "{{.ID}}";

/// Renders a tag.
///
/// # Errors
/// A sentence: what is wrong with the template.
pub(crate) fn render(template: &str, container: &Container) -> Result<String, String> {
    let wrong = |cause: gotmpl::TemplateError| format!("log opt 'tag': {cause}");
    let change = |arguments: &[Value], change: fn(&str) -> String| {
        let text = arguments.first().map(ToString::to_string).unwrap_or_default();
        Ok(Value::String(change(&text).into()))
    };
    let template = Template::new("log-tag")
        .missing_key(MissingKey::Error)
        .func("upper", move |arguments| change(arguments, str::to_uppercase))
        .func("lower", move |arguments| change(arguments, str::to_lowercase))
        .func("truncate", |arguments| {
            let text = arguments.first().map(ToString::to_string).unwrap_or_default();
            let length = arguments.get(1).map(ToString::to_string).unwrap_or_default();
            let length = length.parse().unwrap_or(usize::MAX);
            let kept: String = text.chars().take(length).collect();
            Ok(Value::String(kept.into()))
        })
        .parse(template)
        .map_err(wrong)?;
    template.execute_to_string(&values(container)).map_err(wrong)
}

fn values(container: &Container) -> Value {
    let text = |text: &str| Value::String(text.into());
    let texts = |texts: &BTreeMap<String, String>| {
        let entries = texts.iter().map(|(key, value)| (key.as_str().into(), text(value)));
        Value::Map(Arc::new(entries.collect()))
    };
    let short = |id: &str| {
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        id.chars().take(12).collect::<String>()
    };
    let words = container.command.join(" ");
    let list = |words: &[String]| Value::List(words.iter().map(|word| text(word)).collect());
    let (program, arguments) = match container.command.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    let fields = [
        ("ID", text(&short(&container.id))),
        ("FullID", text(&container.id)),
        ("Name", text(&container.name)),
        ("ImageID", text(&short(&container.image_id))),
        ("ImageFullID", text(&container.image_id)),
        ("ImageName", text(&container.image_name)),
        ("Command", text(&words)),
        ("Hostname", text(&container.hostname)),
        ("DaemonName", text("docker")),
        ("ContainerID", text(&container.id)),
        ("ContainerName", text(&format!("/{}", container.name))),
        ("ContainerEntrypoint", text(program)),
        ("ContainerArgs", list(arguments)),
        ("ContainerImageID", text(&container.image_id)),
        ("ContainerImageName", text(&container.image_name)),
        ("ContainerCreated", text(&container.created.to_string())),
        ("ContainerEnv", list(&container.env)),
        ("ContainerLabels", texts(&container.labels)),
    ];
    let entries = fields.into_iter().map(|(key, value)| (key.into(), value));
    Value::Map(Arc::new(entries.collect()))
}
