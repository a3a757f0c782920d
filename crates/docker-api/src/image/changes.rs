//! `--change` of import and commit.

use bulkhead_builder::change;
use bulkhead_types::image::Config;

use crate::error::ApiError;

/// Applies the values of the parameter `changes`: together they are one small Dockerfile.
pub(crate) fn apply(config: &mut Config, changes: &[String]) -> Result<(), ApiError> {
    let text = changes.join("\n");
    if text.trim().is_empty() {
        return Ok(());
    }
    change(config, &text).map_err(|error| ApiError::invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_belong_together() {
        let mut config = Config::default();
        let changes = ["CMD [\"a\"]", "ENTRYPOINT [\"b\"]\nENV A=1", "ENV B=$A", ""];
        apply(&mut config, &changes.map(str::to_owned)).expect("instructions");
        // An ENTRYPOINT does away with the CMD of its image, and not with one of the same text.
        assert_eq!(config.cmd, Some(vec!["a".to_owned()]));
        assert_eq!(config.env, Some(vec!["A=1".to_owned(), "B=1".to_owned()]));
        apply(&mut config, &[String::new()]).expect("nothing to do");
        let error = apply(&mut config, &["RUN x".to_owned()]).expect_err("RUN");
        assert_eq!(error.status, http::StatusCode::BAD_REQUEST);
    }
}
