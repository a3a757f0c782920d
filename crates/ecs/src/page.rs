use crate::error::Error;

/// A stretch of a listing, and where the next one starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give this back to get the next stretch; `None` at the end.
    pub next_token: Option<String>,
}

/// Cuts `items`, which are sorted by `key`, after `maximum` of them.
///
/// The token is the last key shown, in hexadecimal: it stays right while others insert and delete,
/// which an offset would not.
pub(crate) fn cut<T>(
    items: Vec<T>,
    key: impl Fn(&T) -> String,
    order: Order,
    token: Option<&str>,
    maximum: Option<i64>,
) -> Result<Page<T>, Error> {
    let maximum = match maximum {
        None => DEFAULT,
        Some(number @ 1..=100) => usize::try_from(number).expect("1 to 100 fits"),
        Some(_) => return Err(Error::invalid("maxResults must be between 1 and 100.")),
    };
    let after = token.filter(|token| !token.is_empty()).map(decode).transpose()?;
    let mut rest: Vec<T> = items
        .into_iter()
        .filter(|item| match (&after, order) {
            (None, _) => true,
            (Some(after), Order::Ascending) => key(item) > *after,
            (Some(after), Order::Descending) => key(item) < *after,
        })
        .collect();
    let more = rest.len() > maximum;
    rest.truncate(maximum);
    let next_token = rest.last().filter(|_| more).map(|last| encode(&key(last)));
    Ok(Page { items: rest, next_token })
}

/// How a listing is sorted by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

fn encode(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(token: &str) -> Result<String, Error> {
    let invalid = || Error::invalid("Invalid token: give back the nextToken of the last answer.");
    if !token.is_ascii() || !token.len().is_multiple_of(2) {
        return Err(invalid());
    }
    let bytes = (0..token.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&token[at..at + 2], 16))
        .collect::<Result<Vec<u8>, _>>()
        .map_err(|_| invalid())?;
    String::from_utf8(bytes).map_err(|_| invalid())
}

/// The page size where the caller names none (the API's own text for most lists).
const DEFAULT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn page(items: &[&str], token: Option<&str>) -> Page<String> {
        let items = items.iter().map(|item| (*item).to_owned()).collect();
        cut(items, Clone::clone, Order::Ascending, token, Some(2)).unwrap()
    }

    #[test]
    fn a_token_survives_inserts_and_deletes() {
        let first = page(&["a", "b", "c", "d", "e"], None);
        assert_eq!(first.items, ["a", "b"]);
        let second = page(&["a", "aa", "c", "d", "e"], first.next_token.as_deref());
        assert_eq!(second.items, ["c", "d"]);
        let third = page(&["e"], second.next_token.as_deref());
        assert_eq!((third.items, third.next_token), (vec!["e".to_owned()], None));
    }

    #[test]
    fn bad_tokens_and_sizes_are_refused() {
        for token in ["x", "zz", "ff", "é"] {
            assert!(
                cut(vec!["a".to_owned()], Clone::clone, Order::Ascending, Some(token), None)
                    .is_err()
            );
        }
        for size in [0, -1, 101] {
            assert!(
                cut(vec!["a".to_owned()], Clone::clone, Order::Ascending, None, Some(size))
                    .is_err()
            );
        }
    }
}
