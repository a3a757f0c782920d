use std::io::{Seek, SeekFrom};
use std::ops::RangeInclusive;

use axum::body::Body;
use axum::response::Response;
use bulkhead_types::Digest;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::AsyncReadExt;

use crate::Registry;
use crate::answer::{Answer, CONTENT_DIGEST, Refusal, empty, header};
use crate::route::Name;
use crate::store::Kind;

pub(crate) fn read(
    registry: &Registry,
    name: &Name,
    digest: Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Answer {
    if !registry.store.has(name, Kind::Blobs, &digest.hex())? {
        return Err(Refusal::blob_unknown());
    }
    let mut file = registry.store.content.blob(digest)?;
    let size = file.metadata()?.len();
    let wanted = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, range) = match wanted.map(|wanted| part(wanted, size)) {
        None | Some(Part::Whole) => (StatusCode::OK, None),
        Some(Part::Some(range)) => (StatusCode::PARTIAL_CONTENT, Some(range)),
        Some(Part::None) => {
            let mut refusal = Refusal::new(416, "SIZE_INVALID", "the range is beyond the blob");
            refusal.headers.insert(CONTENT_RANGE, header(format!("bytes */{size}")));
            return Err(refusal);
        }
    };
    let (start, length) = match &range {
        Some(range) => (*range.start(), range.end() - range.start() + 1),
        None => (0, size),
    };
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        file.seek(SeekFrom::Start(start))?;
        let part = tokio::fs::File::from_std(file).take(length);
        Body::from_stream(tokio_util::io::ReaderStream::with_capacity(part, 256 << 10))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DIGEST, header(digest));
    headers.insert(ETAG, header(format!("\"{digest}\"")));
    if let Some(range) = range {
        let text = format!("bytes {}-{}/{size}", range.start(), range.end());
        headers.insert(CONTENT_RANGE, header(text));
    }
    Ok(response)
}

pub(crate) fn delete(registry: &Registry, name: &Name, digest: Digest) -> Answer {
    if registry.store.remove_blob(name, digest)? {
        Ok(empty(StatusCode::ACCEPTED))
    } else {
        Err(Refusal::blob_unknown())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Nothing of the blob is in the range.
    None,
    Some(RangeInclusive<u64>),
    /// The header is not one that has to be understood (RFC 9110, 14.2): send everything.
    Whole,
}

/// Reads a `Range` header of one part.
fn part(header: &str, size: u64) -> Part {
    let Some((first, last)) =
        header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Part::None,
        (Ok(first), Ok(last)) if last < first => Part::Whole,
        (Ok(first), Ok(last)) => Part::Some(first..=last.min(size - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Part::Some(first..=size - 1),
        (Err(_), Ok(count)) if first.is_empty() && (count == 0 || size == 0) => Part::None,
        (Err(_), Ok(count)) if first.is_empty() => Part::Some(size - count.min(size)..=size - 1),
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (header, size, expected) in [
            ("bytes=0-0", 10, Part::Some(0..=0)),
            ("bytes=2-99", 10, Part::Some(2..=9)),
            ("bytes=5-", 10, Part::Some(5..=9)),
            ("bytes=-3", 10, Part::Some(7..=9)),
            ("bytes=-30", 10, Part::Some(0..=9)),
            ("bytes=10-", 10, Part::None),
            ("bytes=0-", 0, Part::None),
            ("bytes=-0", 10, Part::None),
            ("bytes=-1", 0, Part::None),
            ("bytes=3-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("lines=0-1", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
        ] {
            assert_eq!(part(header, size), expected, "{header} of {size}");
        }
    }
}
