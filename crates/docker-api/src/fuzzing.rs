//! What the fuzz targets need of private code.

use bulkhead_docker_types::ContainerCreate;

use crate::build::check_query;
use crate::container::create;
use crate::request::Query;

/// Reads the query of a build; the error is the sentence that its client gets.
pub fn build_query(text: &str) -> Result<(), String> {
    check_query(&Query::parse(text)).map_err(|error| error.message)
}

/// Reads the body of a container's creation, which is no JSON of that kind (`None`), is understood, or is
/// refused by a sentence.
pub fn create_body(bytes: &[u8]) -> Option<Result<(), String>> {
    let body: ContainerCreate = serde_json::from_slice(bytes).ok()?;
    Some(create::request(body, "").map(drop).map_err(|error| error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds");
        let seed =
            |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).expect("a seed");
        assert_eq!(build_query(&seed("build_query/usual")), Ok(()));
        assert!(build_query(&seed("build_query/refused")).is_err());
        assert_eq!(create_body(seed("create_body/usual").as_bytes()), Some(Ok(())));
        let refused =
            create_body(seed("create_body/refused").as_bytes()).expect("JSON of that kind");
        assert!(refused.is_err());
    }
}
