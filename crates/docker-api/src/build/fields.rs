//! The parameters of `POST /build`: each is done, refused by name, or means nothing here.

use bulkhead_build_service::Build;
use bulkhead_engine::HostConfig;
use serde::Deserialize;

use crate::error::ApiError;
use crate::image::transfer::check_platform;
use crate::request::Query;

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Unless it has this value (or none), which asks for nothing; then the sentence.
    Refused(&'static str, &'static str),
    /// Why nothing has to be done for it.
    Meaningless(&'static str),
}

use Fate::{Done, Meaningless, Refused};

/// All parameters of Docker's API 1.51 and one of ours (`buildcontexts`).
const FIELDS: &[(&str, Fate)] = &[
    ("buildargs", Done),
    ("buildcontexts", Done),
    ("buildid", Meaningless("a build ends with its connection")),
    ("cachefrom", Done),
    (
        "cgroupparent",
        Refused(
            "",
            "cgroup-parent is not supported for builds: the engine has one cgroup for all \
             containers (bulkhead up --cgroup-parent)",
        ),
    ),
    ("cpuperiod", Done),
    ("cpuquota", Done),
    ("cpusetcpus", Done),
    ("cpusetmems", Done),
    ("cpushares", Done),
    ("dockerfile", Done),
    ("extrahosts", Done),
    ("forcerm", Meaningless("containers of steps are never kept")),
    ("isolation", Refused("default", "isolation is Windows's and not supported; leave it out")),
    ("labels", Done),
    ("memory", Done),
    ("memswap", Done),
    ("networkmode", Done),
    ("nocache", Done),
    ("outputs", Refused("", "outputs are BuildKit's and not supported; leave --output out")),
    ("platform", Done),
    ("pull", Done),
    ("q", Done),
    (
        "remote",
        Refused("", "building from an address is not supported; fetch the context and send it"),
    ),
    ("rm", Meaningless("containers of steps are never kept")),
    ("securityopt", Done),
    (
        "session",
        Refused("", "sessions are BuildKit's and not supported; build with DOCKER_BUILDKIT=0"),
    ),
    ("shmsize", Done),
    ("squash", Refused("0", "squashing layers is not supported; leave it out")),
    ("t", Done),
    ("target", Done),
    ("ulimits", Done),
    ("version", Refused("1", "BuildKit's protocol is not supported; build with DOCKER_BUILDKIT=0")),
];

/// A whole query, checked.
#[derive(Debug)]
pub(super) struct BuildQuery {
    /// All but the credentials, which come with the headers.
    pub(super) build: Build,
    pub(super) quiet: bool,
    /// Images of which the client hopes that they save steps.
    pub(super) cache_from: Vec<String>,
}

impl TryFrom<&Query> for BuildQuery {
    type Error = ApiError;

    fn try_from(query: &Query) -> Result<Self, ApiError> {
        check_names(query)?;
        check_platform(query.text("platform"))?;
        let some =
            |name: &str| query.value(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let tag = |text: &String| {
            text.parse().map_err(|_| {
                ApiError::invalid(format!(
                    "invalid argument {text:?} for t: invalid reference format"
                ))
            })
        };
        let tags = query.all("t").iter().filter(|text| !text.is_empty());
        Ok(Self {
            build: Build {
                dockerfile: some("dockerfile").unwrap_or_else(|| "Dockerfile".to_owned()),
                references: tags.map(tag).collect::<Result<_, _>>()?,
                arguments: query.json("buildargs")?.unwrap_or_default(),
                labels: query.json("labels")?.unwrap_or_default(),
                target: some("target"),
                no_cache: query.flag("nocache"),
                pull: query.flag("pull"),
                contexts: query.json("buildcontexts")?.unwrap_or_default(),
                host: host_config(query)?,
                ..Build::default()
            },
            quiet: query.flag("q"),
            cache_from: cache_from(query)?,
        })
    }
}

fn check_names(query: &Query) -> Result<(), ApiError> {
    for name in query.names() {
        let Some((_, fate)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            return Err(ApiError::invalid(format!(
                "{name:?} is no parameter of a build; leave it out"
            )));
        };
        if let Refused(harmless, sentence) = fate
            && query.all(name).iter().any(|value| !asks_for_nothing(value, harmless))
        {
            return Err(ApiError::unsupported(*sentence));
        }
    }
    Ok(())
}

/// Clients send members that their user did not touch: empty, or false in Go's or Python's words.
fn asks_for_nothing(value: &str, harmless: &str) -> bool {
    value.is_empty()
        || value.eq_ignore_ascii_case(harmless)
        || (harmless == "0" && value.eq_ignore_ascii_case("false"))
        || value == "null"
        || value == "[]"
}

/// One of `ulimits`, as the docker CLI sends it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireUlimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// What holds for the containers of all RUN steps.
fn host_config(query: &Query) -> Result<HostConfig, ApiError> {
    let bytes = |name: &str| -> Result<u64, ApiError> {
        let value: i64 = query.number(name)?.unwrap_or(0);
        u64::try_from(value).map_err(|_| {
            ApiError::invalid(format!("invalid value for {name}: {value} is negative"))
        })
    };
    let ulimits: Vec<WireUlimit> = query.json("ulimits")?.unwrap_or_default();
    Ok(HostConfig {
        network_mode: query.text("networkmode").to_owned(),
        extra_hosts: query.all("extrahosts").to_vec(),
        security_opt: query.all("securityopt").to_vec(),
        memory: bytes("memory")?,
        memory_swap: query.number("memswap")?.unwrap_or(0),
        cpu_shares: bytes("cpushares")?,
        cpu_period: bytes("cpuperiod")?,
        cpu_quota: query.number("cpuquota")?.unwrap_or(0),
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        shm_size: bytes("shmsize")?,
        ulimits: ulimits.into_iter().map(|limit| (limit.name, limit.soft, limit.hard)).collect(),
        ..HostConfig::default()
    })
}

fn cache_from(query: &Query) -> Result<Vec<String>, ApiError> {
    let images: Vec<String> = query.json("cachefrom")?.unwrap_or_default();
    if let Some(source) = images.iter().find(|source| source.contains('=')) {
        return Err(ApiError::unsupported(format!(
            "cache-from {source}: sources of this kind are BuildKit's and not supported; name an \
             image, or leave it out"
        )));
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<BuildQuery, ApiError> {
        BuildQuery::try_from(&Query::parse(query).expect(query))
    }

    #[test]
    fn the_query_is_understood() {
        let query = read(
            "t=web&t=127.0.0.1:5000/web:1&buildargs=%7B%22A%22:%221%22,%22B%22:null%7D&labels=%7B%22a\
             %22:%22b%22%7D&nocache=1&networkmode=default&target=&dockerfile=docker/Dockerfile&\
             buildcontexts=%7B%22ubuntu%22:%22docker-image://debian:bookworm%22%7D&version=1&rm=1",
        )
        .expect("valid");
        let build = query.build;
        assert_eq!(build.references[1].to_string(), "127.0.0.1:5000/web:1");
        assert_eq!(build.arguments["A"].as_deref(), Some("1"));
        assert_eq!(build.arguments["B"], None);
        assert_eq!(build.contexts["ubuntu"], "docker-image://debian:bookworm");
        assert_eq!(build.target, None);
        assert!(build.no_cache && !build.pull && !query.quiet);
    }

    #[test]
    fn limits_are_those_of_the_steps() {
        let query = read(
            "memory=67108864&memswap=-1&cpushares=512&cpuperiod=100000&cpuquota=50000&cpusetcpus=0&\
             cpusetmems=0&shmsize=1048576&extrahosts=a:1.2.3.4&securityopt=seccomp%3Dunconfined&\
             networkmode=none&ulimits=%5B%7B%22Name%22:%22nofile%22,%22Hard%22:20,%22Soft%22:10%7D%5D",
        );
        let host = query.expect("valid").build.host;
        assert_eq!((host.memory, host.memory_swap, host.shm_size), (64 << 20, -1, 1 << 20));
        assert_eq!((host.cpu_shares, host.cpu_period, host.cpu_quota), (512, 100_000, 50_000));
        assert_eq!((host.cpuset_cpus.as_str(), host.cpuset_mems.as_str()), ("0", "0"));
        assert_eq!(host.ulimits, [("nofile".to_owned(), 10, 20)]);
        assert_eq!(host.security_opt, ["seccomp=unconfined"]);
        assert_eq!(host.extra_hosts, ["a:1.2.3.4"]);
    }

    #[test]
    fn what_is_not_offered_is_said() {
        for (query, part) in [
            ("version=2", "DOCKER_BUILDKIT=0"),
            ("remote=https://x/y.git", "address"),
            ("t=UPPER", "invalid reference format"),
            ("buildargs=%7B", "buildargs"),
            ("platform=linux/s390x", "platform"),
            ("squash=1", "squashing"),
            ("cgroupparent=/x", "cgroup-parent"),
            ("isolation=hyperv", "isolation"),
            ("session=x", "sessions"),
            ("outputs=%5B%7B%22Type%22:%22local%22%7D%5D", "--output"),
            ("memory=-1", "memory: -1 is negative"),
            ("cpuquota=x", "cpuquota"),
            ("ulimits=1", "ulimits"),
            ("cachefrom=%5B%22type=registry,ref=x%22%5D", "cache-from type=registry"),
            ("bogus=1", "\"bogus\" is no parameter of a build"),
        ] {
            let error = read(query).expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn what_clients_send_untouched_is_no_wish() {
        read(
            "version=&remote=&squash=0&squash=False&isolation=&cgroupparent=&session=&outputs=null&\
             cachefrom=null&ulimits=null&shmsize=0&memory=0&buildid=x&forcerm=1&platform=&q=False",
        )
        .expect("nothing is asked for");
    }

    #[test]
    fn the_table_is_in_order_and_says_why() {
        assert!(FIELDS.is_sorted_by_key(|(name, _)| *name));
        for (name, fate) in FIELDS {
            let reason = match fate {
                Done => continue,
                Refused(_, sentence) => sentence,
                Meaningless(reason) => reason,
            };
            assert!(reason.contains(' '), "{name}");
        }
    }
}
