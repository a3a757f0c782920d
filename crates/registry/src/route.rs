use bulkhead_types::{Digest, Reference};

/// What a path below `/v2/` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`: is this a registry, and may I enter?
    Base,
    Blob {
        name: Name,
        digest: Digest,
    },
    Catalog,
    Manifest {
        name: Name,
        version: Version,
    },
    Referrers {
        name: Name,
        digest: Digest,
    },
    StartUpload {
        name: Name,
    },
    Tags {
        name: Name,
    },
    Upload {
        name: Name,
        id: String,
    },
}

/// A valid repository name of any depth, such as `team/app`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The grammar of names lives with references; the domain makes every name a path.
        let reference: Reference = format!("r.io/{text}").parse().ok()?;
        (reference.path() == text && reference.tag() == Some("latest")).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the repository's directory: one component, whatever the depth.
    pub(crate) fn directory(&self) -> String {
        self.0.replace('/', "%")
    }

    pub(crate) fn of_directory(directory: &str) -> Option<Self> {
        Self::parse(&directory.replace('%', "/"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    Digest(Digest),
    Tag(String),
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Astray {
    Digest,
    Name,
    Path,
    Tag,
}

/// Splits the path of a request from the right, because a name may hold any of the words.
pub(crate) fn route(path: &str) -> Result<Route, Astray> {
    // Nothing in these paths needs an escape, except that some clients escape a digest's colon.
    let path = path.replace("%3A", ":").replace("%3a", ":");
    let rest = match path.strip_prefix("/v2").ok_or(Astray::Path)? {
        "" | "/" => return Ok(Route::Base),
        "/_catalog" => return Ok(Route::Catalog),
        rest => rest.strip_prefix('/').ok_or(Astray::Path)?,
    };
    let name = |text: &str| Name::parse(text).ok_or(Astray::Name);
    let digest = |text: &str| text.parse::<Digest>().map_err(|_| Astray::Digest);
    if let Some(text) =
        rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
    {
        return Ok(Route::StartUpload { name: name(text)? });
    }
    let (before, last) = rest.rsplit_once('/').ok_or(Astray::Path)?;
    let (before, word) = before.rsplit_once('/').ok_or(Astray::Path)?;
    match word {
        "tags" if last == "list" => Ok(Route::Tags { name: name(before)? }),
        "manifests" => {
            let name = name(before)?;
            let version = if last.contains(':') {
                Version::Digest(digest(last)?)
            } else {
                Version::Tag(tag(last).ok_or(Astray::Tag)?)
            };
            Ok(Route::Manifest { name, version })
        }
        "blobs" => Ok(Route::Blob { name: name(before)?, digest: digest(last)? }),
        "referrers" => Ok(Route::Referrers { name: name(before)?, digest: digest(last)? }),
        "uploads" => {
            let text = before.strip_suffix("/blobs").ok_or(Astray::Path)?;
            Ok(Route::Upload { name: name(text)?, id: last.to_owned() })
        }
        _ => Err(Astray::Path),
    }
}

pub(crate) fn tag(text: &str) -> Option<String> {
    let reference: Reference = format!("r.io/x:{text}").parse().ok()?;
    (reference.tag() == Some(text)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect(text)
    }

    #[test]
    fn paths_are_split_from_the_right() {
        let digest = Digest::of(b"x");
        let tagged = |text: &str, tag: &str| Route::Manifest {
            name: name(text),
            version: Version::Tag(tag.to_owned()),
        };
        for (path, expected) in [
            ("/v2".to_owned(), Ok(Route::Base)),
            ("/v2/".to_owned(), Ok(Route::Base)),
            ("/v2/_catalog".to_owned(), Ok(Route::Catalog)),
            ("/v2/app/manifests/latest".to_owned(), Ok(tagged("app", "latest"))),
            ("/v2/a/b/c/d/manifests/1.0".to_owned(), Ok(tagged("a/b/c/d", "1.0"))),
            ("/v2/manifests/manifests/blobs".to_owned(), Ok(tagged("manifests", "blobs"))),
            ("/v2/a/tags/manifests/list".to_owned(), Ok(tagged("a/tags", "list"))),
            (
                format!("/v2/app/manifests/{digest}"),
                Ok(Route::Manifest { name: name("app"), version: Version::Digest(digest) }),
            ),
            (
                format!("/v2/app/blobs/sha256%3A{}", digest.hex()),
                Ok(Route::Blob { name: name("app"), digest }),
            ),
            (
                format!("/v2/a/b/referrers/{digest}"),
                Ok(Route::Referrers { name: name("a/b"), digest }),
            ),
            ("/v2/team/app/tags/list".to_owned(), Ok(Route::Tags { name: name("team/app") })),
            ("/v2/a/blobs/uploads/".to_owned(), Ok(Route::StartUpload { name: name("a") })),
            ("/v2/a/blobs/uploads".to_owned(), Ok(Route::StartUpload { name: name("a") })),
            (
                "/v2/a/b/blobs/uploads/7".to_owned(),
                Ok(Route::Upload { name: name("a/b"), id: "7".to_owned() }),
            ),
            ("/v2/../etc/manifests/x".to_owned(), Err(Astray::Name)),
            ("/v2/%2e%2e/manifests/x".to_owned(), Err(Astray::Name)),
            ("/v2/a%2fb/manifests/x".to_owned(), Err(Astray::Name)),
            ("/v2/A/manifests/x".to_owned(), Err(Astray::Name)),
            ("/v2/ä/tags/list".to_owned(), Err(Astray::Name)),
            (format!("/v2/{}/tags/list", "a".repeat(256)), Err(Astray::Name)),
            ("/v2//manifests/x".to_owned(), Err(Astray::Name)),
            ("/v2/a/manifests/..".to_owned(), Err(Astray::Tag)),
            ("/v2/a/manifests/".to_owned(), Err(Astray::Tag)),
            ("/v2/a/manifests/sha1:00".to_owned(), Err(Astray::Digest)),
            ("/v2/a/blobs/x".to_owned(), Err(Astray::Digest)),
            ("/v2/a/uploads/7".to_owned(), Err(Astray::Path)),
            ("/v2/a".to_owned(), Err(Astray::Path)),
            ("/v1/".to_owned(), Err(Astray::Path)),
            ("/v2x/a/tags/list".to_owned(), Err(Astray::Path)),
        ] {
            assert_eq!(route(&path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_split_without_panic(path in "/v2/[a-z%./:_]{0,60}") {
            let _ = route(&path);
        }

        #[test]
        fn a_name_is_one_directory(text in "[a-z0-9]{1,4}([/._-][a-z0-9]{1,4}){0,5}") {
            if let Some(name) = Name::parse(&text) {
                prop_assert!(!name.directory().contains('/'));
                prop_assert_eq!(Name::of_directory(&name.directory()), Some(name));
            }
        }
    }
}
