//! `images` and `history`

use bulkhead_types::{Reference, TimeZone, Timestamp, decimal_size};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::filter;
use crate::commands::show::{self, each, shorten, text};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Accepted for scripts of Docker's: layers of builds are no images here
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those that match, such as `dangling=true` or `reference=web*`
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Show ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those of this repository, or with this tag
    reference: Option<String>,
}

pub const IMAGES: Kind = Kind {
    fields: &[
        ("Containers", "CONTAINERS"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("SharedSize", "SHARED SIZE"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("VirtualSize", "SIZE"),
    ],
    table: "{{.Repository}}\\t{{.Tag}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}",
};

const WITH_DIGESTS: Kind = Kind {
    table: "{{.Repository}}\\t{{.Tag}}\\t{{.Digest}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}",
    ..IMAGES
};

pub async fn list(client: &Client, arguments: ListArguments) -> Result<(), Failure> {
    let ListArguments { all, digests, mut filter, format, no_trunc, quiet, reference } = arguments;
    filter.extend(reference.map(|reference| format!("reference={reference}")));
    let path = format!("/images/json?all={}&{}", u8::from(all), filter::query(&filter)?);
    let images = client.get(&path).await?;
    let by_digest = digests || format.as_deref().is_some_and(|text| text.contains(".Digest"));
    let rows = each(&images).flat_map(|image| rows_of(image, no_trunc, by_digest)).collect();
    let kind = if digests { &WITH_DIGESTS } else { &IMAGES };
    rows::print(kind, Show::of(quiet, "ID", format.as_deref()), rows)
}

/// A row for each of an image's names (docker/cli: cli/command/formatter/image.go).
fn rows_of(image: &Value, no_trunc: bool, by_digest: bool) -> Vec<Value> {
    let references = |field: &str| {
        let names: Vec<Reference> =
            each(&image[field]).filter_map(|name| name.as_str()?.parse().ok()).collect();
        names
    };
    let (tags, digests) = (references("RepoTags"), references("RepoDigests"));
    let digests_of = |name: &str| {
        let own = digests.iter().filter(|one| one.familiar_name() == name);
        own.filter_map(|one| Some(one.digest()?.to_string())).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for reference in &tags {
        let (name, tag) = (reference.familiar_name(), reference.tag().unwrap_or("<none>"));
        let digests = if by_digest { digests_of(&name) } else { Vec::new() };
        match digests.is_empty() {
            true => rows.push(row(image, &name, tag, "<none>", no_trunc)),
            false => {
                rows.extend(digests.iter().map(|digest| row(image, &name, tag, digest, no_trunc)))
            }
        }
    }
    let tagged = |name: &str| tags.iter().any(|tag| tag.familiar_name() == name);
    let mut seen: Vec<String> = Vec::new();
    for name in digests.iter().map(Reference::familiar_name).filter(|name| !tagged(name)) {
        if seen.contains(&name) {
            continue;
        }
        match by_digest {
            true => rows.extend(
                digests_of(&name).iter().map(|it| row(image, &name, "<none>", it, no_trunc)),
            ),
            false => rows.push(row(image, &name, "<none>", "", no_trunc)),
        }
        seen.push(name);
    }
    if rows.is_empty() {
        rows.push(row(image, "<none>", "<none>", "<none>", no_trunc));
    }
    rows
}

/// An image under its first name.
pub fn first_row(image: &Value, no_trunc: bool) -> Value {
    let mut rows = rows_of(image, no_trunc, false);
    rows.swap_remove(0)
}

fn row(image: &Value, name: &str, tag: &str, digest: &str, no_trunc: bool) -> Value {
    let created = image["Created"].as_i64().unwrap_or_default();
    let number = |field: &str| image[field].as_i64().unwrap_or(-1);
    let (size, shared) = (number("Size"), number("SharedSize"));
    let known = |bytes: i64| u64::try_from(bytes).map_or("N/A".to_owned(), show::size);
    json!({
        "Repository": name,
        "Tag": tag,
        "Digest": digest,
        "ID": show::id(&text(&image["Id"]), no_trunc),
        "CreatedSince": show::since(created, Timestamp::now()),
        "CreatedAt": show::moment(created),
        "Size": decimal_size(size.max(0) as u64),
        // until docker 28
        "VirtualSize": show::size(size.max(0) as u64),
        "Containers": match number("Containers") {
            -1 => "N/A".to_owned(),
            count => count.to_string(),
        },
        "SharedSize": known(shared),
        "UniqueSize": if shared < 0 || size < 0 { "N/A".to_owned() } else { known(size - shared) },
    })
}

#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show sizes and moments for people [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: Option<bool>,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Of an image of this platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Show ids alone
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

const HISTORY: Kind = Kind {
    fields: &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ],
    table: "{{.ID}}\\t{{.CreatedSince}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}",
};

const EXACT_HISTORY: Kind = Kind {
    table: "{{.ID}}\\t{{.CreatedAt}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}",
    ..HISTORY
};

pub async fn history(client: &Client, arguments: HistoryArguments) -> Result<(), Failure> {
    let HistoryArguments { format, human, no_trunc, platform, quiet, image } = arguments;
    let human = human.unwrap_or(true);
    let mut path = format!("/images/{}/history", super::path_of(&image));
    if let Some(platform) = platform {
        path.push_str(&format!("?platform={}", super::platform(&platform)?));
    }
    let history = client.get(&path).await?;
    let rows = each(&history).map(|step| layer(step, human, no_trunc)).collect();
    let kind = if human { &HISTORY } else { &EXACT_HISTORY };
    rows::print(kind, Show::of(quiet, "ID", format.as_deref()), rows)
}

/// docker/cli: cli/command/image/formatter_history.go
fn layer(step: &Value, human: bool, no_trunc: bool) -> Value {
    /// The year 2000: what is older was made without a clock.
    const EPOCH: i64 = 946_684_800;
    let created = step["Created"].as_i64().unwrap_or_default();
    let at = Timestamp::from_second(created).unwrap_or(Timestamp::UNIX_EPOCH);
    let at = at.to_zoned(TimeZone::system());
    let at = match at.offset().is_zero() {
        true => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        false => at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    let by = text(&step["CreatedBy"]).replace('\t', " ");
    let size = step["Size"].as_u64().unwrap_or_default();
    json!({
        "ID": show::id(&text(&step["Id"]), no_trunc),
        "CreatedSince": match created {
            _ if !human => at.clone(),
            ..=EPOCH => "N/A".to_owned(),
            _ => show::since(created, Timestamp::now()),
        },
        "CreatedAt": at,
        "CreatedBy": if no_trunc { by } else { shorten(&by, 45) },
        "Size": if human { decimal_size(size) } else { size.to_string() },
        "Comment": text(&step["Comment"]),
    })
}
