//! `POST /containers/{id}/update`.

use axum::extract::{Path, State};
use bulkhead_docker_types as wire;
use bulkhead_engine::{RestartPolicy, Update};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Api;
use crate::error::{Answer, ApiError};
use crate::request::Json;

/// The part of Docker's `UpdateConfig` that is done; the table of fields refuses the rest. The CLI sends
/// every member, and 0 or nothing for what its user did not say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UpdateBody {
    memory: i64,
    memory_reservation: i64,
    memory_swap: i64,
    cpu_shares: i64,
    nano_cpus: i64,
    cpu_period: i64,
    cpu_quota: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    pids_limit: Option<i64>,
    blkio_weight: u16,
    restart_policy: wire::RestartPolicy,
}

pub(crate) async fn update(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<UpdateBody>,
) -> Answer<axum::Json<Value>> {
    let update = body.into_update()?;
    let warnings = api.engine.update(api.engine.container_id(&name)?, update).await?;
    Ok(axum::Json(json!({ "Warnings": warnings })))
}

impl UpdateBody {
    fn into_update(self) -> Result<Update, ApiError> {
        let positive = |member: &str, value: i64| match u64::try_from(value) {
            Ok(0) => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(_) => {
                Err(ApiError::invalid(format!("{member} cannot be negative, and is {value}")))
            }
        };
        let given = |text: String| (!text.is_empty()).then_some(text);
        let wire::RestartPolicy { name, maximum_retry_count } = self.restart_policy;
        let policy = match (name.as_str(), maximum_retry_count) {
            ("", 0) => None,
            (name, count) => Some(RestartPolicy::parse(name, count)?),
        };
        Ok(Update {
            memory: positive("Memory", self.memory)?,
            memory_reservation: positive("MemoryReservation", self.memory_reservation)?,
            memory_swap: (self.memory_swap != 0).then_some(self.memory_swap),
            cpu_shares: positive("CpuShares", self.cpu_shares)?,
            nano_cpus: positive("NanoCpus", self.nano_cpus)?,
            cpu_period: positive("CpuPeriod", self.cpu_period)?,
            cpu_quota: (self.cpu_quota != 0).then_some(self.cpu_quota),
            cpuset_cpus: given(self.cpuset_cpus),
            cpuset_mems: given(self.cpuset_mems),
            pids_limit: self.pids_limit.filter(|limit| *limit != 0),
            blkio_weight: (self.blkio_weight != 0).then_some(self.blkio_weight),
            restart_policy: policy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cli_sends_for_nothing_changes_nothing() {
        let read = |text: &str| serde_json::from_str::<UpdateBody>(text).unwrap().into_update();
        let update = read(
            r#"{"CpuShares":0,"Memory":41943040,"NanoCpus":0,"BlkioWeight":0,"PidsLimit":0,
            "RestartPolicy":{"Name":"","MaximumRetryCount":0}}"#,
        );
        let update = update.unwrap();
        assert_eq!((update.memory, update.nano_cpus), (Some(41_943_040), None));
        assert!(update.restart_policy.is_none() && update.pids_limit.is_none());
        assert!(read(r#"{"RestartPolicy":{"Name":"never"}}"#).is_err());
        let policy = read(r#"{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}}"#);
        let wanted = RestartPolicy::OnFailure { maximum_retries: 3 };
        assert_eq!(policy.unwrap().restart_policy, Some(wanted));
    }
}
