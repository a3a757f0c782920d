//! What the fuzz targets need of private code.

use std::collections::BTreeMap;

use crate::graph::Graph;
use crate::plan::{self, Choices};
use crate::{BuildError, Vertex, parse};

/// The operations that a Dockerfile without arguments comes to.
pub fn vertices(text: &str) -> Result<Vec<Vertex>, BuildError> {
    let arguments = BTreeMap::new();
    let contexts = BTreeMap::new();
    let choices = Choices { arguments: &arguments, target: None, contexts: &contexts };
    let plan = plan::plan(parse::parse(text)?, choices)?;
    Ok(Graph::new(&plan, &arguments)?.vertices())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_planned() {
        for seed in ["stages", "escape"] {
            let path = format!("{}/../../fuzz/seeds/dockerfile/{seed}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).expect(&path);
            assert!(!vertices(&text).expect(seed).is_empty());
        }
    }
}
