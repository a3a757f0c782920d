//! The parameters of `POST /build`; what becomes of each is in the table (`crate::fields`).

use bulkhead_build_service::{Build, DockerfileSource};
use bulkhead_engine::{HostConfig, SecurityOptions, Ulimit};
use bulkhead_types::Reference;

use crate::error::ApiError;
use crate::image::transfer::check_platform;
use crate::request::Query;
use crate::version::MAXIMUM;

/// A whole query, checked.
#[derive(Debug)]
pub(super) struct BuildQuery {
    /// All but the credentials, which come with the headers.
    pub(super) build: Build,
    /// The image's names.
    pub(super) references: Vec<Reference>,
    pub(super) quiet: bool,
    /// Images of which the client hopes that they save steps.
    pub(super) cache_from: Vec<String>,
}

impl TryFrom<&Query> for BuildQuery {
    type Error = ApiError;

    fn try_from(query: &Query) -> Result<Self, ApiError> {
        query.check(&http::Method::POST, "/build", MAXIMUM)?;
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
                dockerfile: DockerfileSource::InContext(
                    some("dockerfile").unwrap_or_else(|| "Dockerfile".to_owned()),
                ),
                arguments: query.json("buildargs")?.unwrap_or_default(),
                labels: query.json("labels")?.unwrap_or_default(),
                target: some("target"),
                no_cache: query.flag("nocache"),
                pull: query.flag("pull"),
                contexts: query.json("buildcontexts")?.unwrap_or_default(),
                host: host_config(query)?,
                ..Build::default()
            },
            references: tags.map(tag).collect::<Result<_, _>>()?,
            quiet: query.flag("q"),
            cache_from: cache_from(query)?,
        })
    }
}

/// What holds for the containers of all RUN steps.
fn host_config(query: &Query) -> Result<HostConfig, ApiError> {
    let bytes = |name: &str| -> Result<u64, ApiError> {
        let value: i64 = query.number(name)?.unwrap_or(0);
        u64::try_from(value).map_err(|_| {
            ApiError::invalid(format!("invalid value for {name}: {value} is negative"))
        })
    };
    // A client may send a parameter without a value.
    let some = |name: &str| -> Vec<String> {
        query.all(name).iter().filter(|value| !value.is_empty()).cloned().collect()
    };
    let ulimits: Vec<bulkhead_docker_types::Ulimit> = query.json("ulimits")?.unwrap_or_default();
    let hosts = some("extrahosts");
    Ok(HostConfig {
        network_mode: query.text("networkmode").parse()?,
        extra_hosts: hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>()?,
        security_opt: SecurityOptions::parse(some("securityopt"))?,
        memory: bytes("memory")?,
        memory_swap: query.number("memswap")?.unwrap_or(0),
        cpu_shares: bytes("cpushares")?,
        cpu_period: bytes("cpuperiod")?,
        cpu_quota: query.number("cpuquota")?.unwrap_or(0),
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        shm_size: bytes("shmsize")?,
        ulimits: ulimits
            .iter()
            .map(|limit| Ulimit::new(&limit.name, limit.soft, limit.hard))
            .collect::<Result<_, _>>()?,
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
        BuildQuery::try_from(&Query::parse(query))
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
        assert_eq!(query.references[1].to_string(), "127.0.0.1:5000/web:1");
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
        assert_eq!(host.ulimits, [Ulimit::new("nofile", 10, 20).expect("a limit")]);
        assert_eq!(host.security_opt.given(), ["seccomp=unconfined"]);
        assert_eq!(host.extra_hosts, ["a:1.2.3.4".parse().expect("a host")]);
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
            ("bogus=1", "unknown parameter \"bogus\""),
        ] {
            let error = read(query).expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn what_clients_send_untouched_is_no_wish() {
        read(
            "version=&remote=&squash=0&squash=False&isolation=&cgroupparent=&session=&outputs=null&extrahosts=&securityopt=&\
             cachefrom=null&ulimits=null&shmsize=0&memory=0&buildid=x&forcerm=1&platform=&q=False",
        )
        .expect("nothing is asked for");
    }
}
