//! What the fuzz targets need of private code.

use crate::manifests::Outline;
use crate::route::{Route, route};

/// Reads the path of a request. Of one that names a repository: the repository, and its directory.
pub fn path(text: &str) -> Option<(String, String)> {
    let name = match route(text).ok()? {
        Route::Base | Route::Catalog => return None,
        Route::Blob { name, .. }
        | Route::Manifest { name, .. }
        | Route::Referrers { name, .. }
        | Route::StartUpload { name }
        | Route::Tags { name }
        | Route::Upload { name, .. } => name,
    };
    Some((name.as_str().to_owned(), name.directory()))
}

/// Reads a manifest that was sent as `announced`: the kind that is kept with it, or the sentence that its
/// sender gets.
pub fn manifest(bytes: &[u8], announced: &str) -> Result<String, String> {
    Outline::parse(bytes, announced)
        .map(|outline| outline.media_type)
        .map_err(|refusal| refusal.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/registry");
        let seed =
            |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).expect("a seed");
        for name in ["image", "index"] {
            let (first, body) = seed(name).split_once('\n').map(own).expect("a path and a body");
            assert_eq!(path(&first), Some(("team/app".to_owned(), "team%app".to_owned())));
            assert!(manifest(body.as_bytes(), "").is_ok(), "{name}");
        }
    }

    fn own((first, rest): (&str, &str)) -> (String, String) {
        (first.to_owned(), rest.to_owned())
    }
}
