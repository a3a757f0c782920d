//! Names of containers: the one that was wanted, or a random one.

use bulkhead_types::{Id, Name};

use crate::EngineError;
use crate::containers::Known;

pub(crate) fn choose(known: &Known, wanted: Option<Name>) -> Result<Name, EngineError> {
    if let Some(name) = wanted {
        return match known.names.get(&name) {
            None => Ok(name),
            Some(owner) => Err(conflict(&name, *owner)),
        };
    }
    for attempt in 0..1000 {
        let name = random(attempt).parse().expect("drawn names are names: tested");
        if !known.names.contains_key(&name) {
            return Ok(name);
        }
    }
    Err(EngineError::internal("no free name was drawn in 1000 attempts; give one with --name"))
}

pub(crate) fn conflict(name: &Name, owner: Id) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You \
         have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// Draws `brave_bell`; with `attempt` above 0 a digit is added, so that a crowded engine still
/// finds a free one.
fn random(attempt: u32) -> String {
    let mut bytes = [0; 3];
    getrandom::fill(&mut bytes).expect("getrandom(2) with no flags fails only before Linux 3.17");
    let left = LEFT[usize::from(bytes[0]) % LEFT.len()];
    let right = RIGHT[usize::from(bytes[1]) % RIGHT.len()];
    match attempt {
        0 => format!("{left}_{right}"),
        _ => format!("{left}_{right}{}", u32::from(bytes[2]) + 256 * (attempt - 1)),
    }
}

const LEFT: [&str; 48] = [
    "able", "agile", "amber", "ample", "bold", "brave", "bright", "brisk", "calm", "candid",
    "clear", "clever", "crisp", "daring", "deft", "eager", "early", "fair", "firm", "fleet",
    "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy", "hardy", "humble",
    "keen", "kind", "lively", "lucid", "merry", "mild", "neat", "noble", "plain", "proud", "quick",
    "quiet", "ready", "silver", "steady", "sturdy", "swift", "warm",
];

/// People of ships, bridges, signals and machines.
const RIGHT: [&str; 48] = [
    "anning",
    "babbage",
    "bazalgette",
    "beaufort",
    "bell",
    "boole",
    "brunel",
    "cayley",
    "clarke",
    "cook",
    "darby",
    "davy",
    "drake",
    "eiffel",
    "ellet",
    "faraday",
    "franklin",
    "fresnel",
    "fulton",
    "galton",
    "harrison",
    "henry",
    "herschel",
    "hooke",
    "hopper",
    "jansky",
    "kelvin",
    "lovelace",
    "marconi",
    "maury",
    "maxwell",
    "mercator",
    "morse",
    "newcomen",
    "parsons",
    "roebling",
    "savery",
    "shannon",
    "smeaton",
    "somerville",
    "stevin",
    "symington",
    "telford",
    "tesla",
    "turing",
    "volta",
    "watt",
    "zheng",
];

#[cfg(test)]
mod tests {
    use bulkhead_types::Name;

    #[test]
    fn drawn_names_are_valid_names() {
        for attempt in 0..300 {
            let name = super::random(attempt);
            assert!(name.parse::<Name>().is_ok(), "{name}");
        }
    }
}
