//! What the fuzz targets need of private code.

use crate::build::check_query;
use crate::request::Query;

/// Reads the query of a build; the error is the sentence that its client gets.
pub fn build_query(text: &str) -> Result<(), String> {
    check_query(&Query::parse(text)).map_err(|error| error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/build_query");
        let seed =
            |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).expect("a seed");
        assert_eq!(build_query(&seed("usual")), Ok(()));
        assert!(build_query(&seed("refused")).is_err());
    }
}
