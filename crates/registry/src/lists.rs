//! Lists in pages: repositories, and tags of one.

use axum::response::Response;
use http::header::LINK;
use serde_json::json;

use crate::Registry;
use crate::answer::{Answer, Refusal, header, json};
use crate::request::find;
use crate::route::Name;
use crate::store::Kind;

type Query = Vec<(String, String)>;
/// Names, and `n` and `last` of the page after them.
type Page = (Vec<String>, Option<(usize, String)>);

/// Names in one answer, whatever `n` asks for.
const PAGE: usize = 1000;

pub(crate) fn catalog(registry: &Registry, query: Query) -> Answer {
    let names = registry.store.repositories()?;
    let names = names.iter().map(|name| name.as_str().to_owned()).collect();
    let (page, next) = page(names, &query)?;
    let mut response = json(&json!({ "repositories": page }));
    add_link(&mut response, "/v2/_catalog", next);
    Ok(response)
}

pub(crate) fn tags(registry: &Registry, name: &Name, query: Query) -> Answer {
    let tags = registry.store.list(name, Kind::Tags)?.ok_or_else(Refusal::name_unknown)?;
    let (page, next) = page(tags, &query)?;
    let mut response = json(&json!({ "name": name.as_str(), "tags": page }));
    add_link(&mut response, &format!("/v2/{}/tags/list", name.as_str()), next);
    Ok(response)
}

/// The part of sorted `names` after `last`, at most `n`.
fn page(names: Vec<String>, query: &Query) -> Result<Page, Refusal> {
    let count = match find(query, "n") {
        None => PAGE,
        Some(text) => match text.parse::<u64>() {
            Ok(count) => usize::try_from(count).unwrap_or(PAGE).min(PAGE),
            Err(_) => {
                let message = "n must be a number, and not negative";
                return Err(Refusal::new(400, "PAGINATION_NUMBER_INVALID", message));
            }
        },
    };
    let last = find(query, "last").unwrap_or_default();
    let mut rest = names.into_iter().filter(|name| last.is_empty() || name.as_str() > last);
    let page: Vec<_> = rest.by_ref().take(count).collect();
    let next = page.last().filter(|_| rest.next().is_some()).map(|last| (count, last.clone()));
    Ok((page, next))
}

fn add_link(response: &mut Response, path: &str, next: Option<(usize, String)>) {
    if let Some((count, last)) = next {
        // A repository's slashes may stand in a query as they are (RFC 3986, 3.4).
        let link = format!("<{path}?n={count}&last={last}>; rel=\"next\"");
        response.headers_mut().insert(LINK, header(link));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded() {
        let names = || ["a", "b", "c"].map(str::to_owned).to_vec();
        let many = || (0..2000).map(|number| format!("{number:04}")).collect::<Vec<_>>();
        for (names, n, last, length, next) in [
            (names(), None, None, 3, None),
            (names(), Some("2"), None, 2, Some("b")),
            (names(), Some("2"), Some("b"), 1, None),
            (names(), Some("2"), Some("bb"), 1, None),
            (names(), Some("0"), None, 0, None),
            (names(), Some("3"), None, 3, None),
            (many(), Some("1000000000"), None, 1000, Some("0999")),
            (many(), None, Some("0999"), 1000, None),
        ] {
            let parameters = [("n", n), ("last", last)];
            let query: Query = parameters
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
                .collect();
            let (page, found) = page(names, &query).expect("a valid query");
            assert_eq!((page.len(), found.as_ref().map(|(_, last)| last.as_str())), (length, next));
        }
        for wrong in ["-1", "x", ""] {
            assert!(page(names(), &vec![("n".to_owned(), wrong.to_owned())]).is_err(), "{wrong}");
        }
    }
}
