//! The names of a repository's images: `docker pull --all-tags`.

use std::collections::BTreeSet;

use http::header::LINK;
use http::{HeaderMap, StatusCode};

use super::origin::Url;
use super::session::Session;
use crate::{ImageError, SMALL};

/// A repository with more is none that somebody wants as a whole.
const MOST: usize = 10_000;

#[derive(serde::Deserialize)]
struct Page {
    /// `null` where there is none.
    tags: Option<Vec<String>>,
}

/// Every tag, sorted: page by page, as `Link` leads (distribution-spec, "Listing Tags").
pub(super) async fn list(session: &Session) -> Result<Vec<String>, ImageError> {
    let mut tags = BTreeSet::new();
    let mut next = Some(session.url("tags/list"));
    while let Some(url) = next {
        let response = session.get(url.clone(), &HeaderMap::new()).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(ImageError::NotFound(session.pull_denied())),
            _ => return Err(session.refused("list the tags", response).await),
        }
        let link = response.headers().get(LINK).and_then(|value| value.to_str().ok());
        // A registry behind a proxy may call itself otherwise; it is still reached the way it was.
        let following = |location| {
            let there = url.join(location).ok_or_else(|| {
                session.error("its list of tags goes on at an address that is none")
            })?;
            Ok(Url { origin: url.origin.clone(), ..there })
        };
        next = link.and_then(next_page).map(following).transpose()?;
        let bytes = session.bytes(response, SMALL).await?;
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| session.error(&format!("its list of tags is no JSON: {error}")))?;
        let before = tags.len();
        tags.extend(page.tags.unwrap_or_default());
        if tags.len() > MOST {
            return Err(session.error(&format!("the repository has more than {MOST} tags")));
        }
        // A page with nothing new leads in circles.
        if tags.len() == before {
            break;
        }
    }
    Ok(tags.into_iter().collect())
}

/// The address in `</v2/NAME/tags/list?last=x>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
    parameters.split(';').any(is_next).then_some(address)
}
