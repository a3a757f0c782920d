//! JSON into types: what is of the wrong kind is named, with what it must be.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;

/// Turns a document into a type.
///
/// # Errors
/// One sentence that names the member.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            // the document itself
            path if path == "." => "the body".to_owned(),
            path => path,
        };
        ApiError::invalid(sentence(&path, &error.inner().to_string()))
    })
}

/// That a body is no JSON.
pub(crate) fn no_json(error: &serde_json::Error) -> ApiError {
    ApiError::invalid(format!("invalid JSON: {error}"))
}

/// `invalid type: integer `7`, expected a string` in the words of whoever wrote the document. What serde
/// says otherwise is said behind the name as it is.
fn sentence(path: &str, told: &str) -> String {
    let parts = told.split_once(": ").filter(|(kind, _)| kind.starts_with("invalid "));
    match parts.and_then(|(_, rest)| rest.split_once(", expected ")) {
        Some((found, wanted)) => {
            format!("invalid JSON: {path} is {}, and must be {}", found_kind(found), kind(wanted))
        }
        None => format!("invalid JSON: {path}: {told}"),
    }
}

/// What stands there, by serde's name for it (`serde::de::Unexpected`).
fn found_kind(found: &str) -> String {
    match found.split_once(' ') {
        Some(("integer", value)) => format!("the number {}", value.trim_matches('`')),
        Some(("floating", value)) => {
            format!("the number {}", value.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        Some(("string", value)) => format!("the text {value}"),
        _ => kind(found),
    }
}

/// A kind of value, by the name that serde and Rust have for it.
fn kind(name: &str) -> String {
    match name {
        "map" | "a map" => "an object".to_owned(),
        "sequence" | "a sequence" => "a list".to_owned(),
        "a string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number from 0 on".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        _ if name.starts_with("struct ") => "an object".to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_docker_types::{ContainerCreate, ExecCreate, NetworkCreate, VolumeCreate};
    use serde_json::json;

    use super::*;

    fn refused<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
        decode::<T>(value).expect_err("refused").message
    }

    #[test]
    fn what_is_of_the_wrong_kind_is_named() {
        let host = |member: &str, value: Value| json!({"HostConfig": {member: value}});
        for (body, told) in [
            (json!({"Cmd": 7}), "Cmd is the number 7, and must be a word or a list of words"),
            (
                json!({"Entrypoint": ["a", 1.5]}),
                "Entrypoint[1] is the number 1.5, and must be a text",
            ),
            (json!({"Env": "A=1"}), "Env is the text \"A=1\", and must be a list"),
            (json!({"Labels": ["a"]}), "Labels is a list, and must be an object"),
            (json!({"Labels": {"a": 1}}), "Labels.a is the number 1, and must be a text"),
            (json!({"Tty": "yes"}), "Tty is the text \"yes\", and must be true or false"),
            (
                host("Memory", json!("1g")),
                "HostConfig.Memory is the text \"1g\", and must be a whole number",
            ),
            (
                host("PortBindings", json!({"80/tcp": [{"HostPort": 80}]})),
                "HostConfig.PortBindings.80/tcp[0].HostPort is the number 80, and must be a text",
            ),
            (json!({"HostConfig": true}), "HostConfig is true, and must be an object"),
            (json!([]), "the body is a list, and must be an object"),
        ] {
            let said = refused::<ContainerCreate>(body);
            assert_eq!(said, format!("invalid JSON: {told}"));
        }
        assert!(
            refused::<ExecCreate>(json!({"Cmd": {}})).starts_with("invalid JSON: Cmd is an object")
        );
        assert!(
            refused::<NetworkCreate>(json!({"Name": null, "IPAM": 1}))
                .contains("IPAM is the number 1")
        );
        assert!(
            refused::<VolumeCreate>(json!({"DriverOpts": {"o": []}}))
                .contains("DriverOpts.o is a list")
        );
    }
}
