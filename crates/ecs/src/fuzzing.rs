//! What the fuzz targets need of private code.

use crate::query::Query;

/// Whether an expression of the cluster query language holds where every subject has this value, or none.
///
/// # Errors
/// The sentence that says what is wrong with it.
pub fn query(text: &str, value: Option<&str>) -> Result<bool, String> {
    let query = Query::parse(text).map_err(|error| error.message)?;
    Ok(query.holds(&|_| value.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/cluster_query");
        let seed =
            |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).expect("a seed");
        assert_eq!(query(seed("usual").trim_end(), Some("t2.micro")), Ok(true));
        assert!(query(seed("refused").trim_end(), None).is_err());
    }
}
