//! The operations of `AmazonEC2ContainerServiceV20141113`: from JSON to `Control` and back.

use std::sync::Arc;

use bulkhead_ecs::{
    Attribute, ContainerStateChange, Control, DescribeContainerInstances, Failure, Tag,
    TaskStateChange,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::answer::Refusal;

/// Performs one operation. `host` is what the caller calls this server, for agents to come back to.
pub(crate) fn perform(
    control: &Arc<Control>,
    operation: &str,
    body: &[u8],
    host: &str,
) -> Result<Value, Refusal> {
    let input = Input::read(body)?;
    let control = &**control;
    match operation {
        "CreateCluster" => Ok(json!({"cluster": control.create_cluster(input.parse()?)?})),
        "DescribeClusters" => {
            let (clusters, failures) = control.describe_clusters(&input.parse()?)?;
            Ok(json!({"clusters": clusters, "failures": failures}))
        }
        "ListClusters" => {
            let listing: Listing = input.parse()?;
            let page = control.list_clusters(listing.next_token.as_deref(), listing.max_results)?;
            Ok(paged("clusterArns", json!(page.items), page.next_token))
        }
        "DeleteCluster" => {
            let name: Named = input.parse()?;
            let cluster = control.delete_cluster(name.cluster.as_deref().unwrap_or_default())?;
            Ok(json!({"cluster": cluster}))
        }
        "RegisterTaskDefinition" => {
            let (definition, tags) = control.register_task_definition(input.parse()?)?;
            Ok(json!({"taskDefinition": definition, "tags": tags}))
        }
        "DescribeTaskDefinition" => {
            let name: Named = input.parse()?;
            let (definition, tags) = control.describe_task_definition(&name.task_definition)?;
            let tags =
                if name.include.iter().any(|word| word == "TAGS") { tags } else { Vec::new() };
            Ok(json!({"taskDefinition": definition, "tags": tags}))
        }
        "DeregisterTaskDefinition" => {
            let name: Named = input.parse()?;
            let definition = control.deregister_task_definition(&name.task_definition)?;
            Ok(json!({"taskDefinition": definition}))
        }
        "ListTaskDefinitions" => {
            let page = control.list_task_definitions(&input.parse()?)?;
            Ok(paged("taskDefinitionArns", json!(page.items), page.next_token))
        }
        "ListTaskDefinitionFamilies" => {
            let page = control.list_task_definition_families(&input.parse()?)?;
            Ok(paged("families", json!(page.items), page.next_token))
        }
        "RunTask" => Ok(json!(control.run_task(&input.parse()?)?)),
        "StartTask" => Ok(json!(control.start_task(&input.parse()?)?)),
        "StopTask" => {
            let name: Named = input.parse()?;
            let task =
                control.stop_task(name.cluster.as_deref(), &name.task, name.reason.as_deref())?;
            Ok(json!({"task": task}))
        }
        "DescribeTasks" => {
            let name: Named = input.parse()?;
            let (tasks, failures) =
                control.describe_tasks(name.cluster.as_deref(), &name.tasks, &name.include)?;
            Ok(json!({"tasks": tasks, "failures": failures}))
        }
        "ListTasks" => {
            let page = control.list_tasks(&input.parse()?)?;
            Ok(paged("taskArns", json!(page.items), page.next_token))
        }
        "ListServices" => Ok(json!({"serviceArns": []})),
        "DescribeServices" => Ok(no_services(&input.parse()?)),
        other => match other {
            "ListAccountSettings"
            | "PutAccountSetting"
            | "PutAccountSettingDefault"
            | "PutAttributes"
            | "DeleteAttributes"
            | "ListAttributes"
            | "TagResource"
            | "UntagResource"
            | "ListTagsForResource" => perform_on_properties(control, other, &input),
            _ => perform_on_instances(control, other, &input, host),
        },
    }
}

/// Container instances and what their agents say.
fn perform_on_instances(
    control: &Control,
    operation: &str,
    input: &Input,
    host: &str,
) -> Result<Value, Refusal> {
    match operation {
        "RegisterContainerInstance" => {
            let instance = control.register_container_instance(&input.parse()?)?;
            Ok(json!({"containerInstance": instance}))
        }
        "DescribeContainerInstances" => {
            let request: DescribeContainerInstances = input.parse()?;
            let (instances, failures) = control.describe_container_instances(&request)?;
            Ok(json!({"containerInstances": instances, "failures": failures}))
        }
        "ListContainerInstances" => {
            let page = control.list_container_instances(&input.parse()?)?;
            Ok(paged("containerInstanceArns", json!(page.items), page.next_token))
        }
        "DeregisterContainerInstance" => {
            let name: Named = input.parse()?;
            let instance = control.deregister_container_instance(
                name.cluster.as_deref(),
                &name.container_instance,
                name.force,
            )?;
            Ok(json!({"containerInstance": instance}))
        }
        "UpdateContainerInstancesState" => {
            let name: Named = input.parse()?;
            let (instances, failures) = control.update_container_instances_state(
                name.cluster.as_deref(),
                &name.container_instances,
                &name.status,
            )?;
            Ok(json!({"containerInstances": instances, "failures": failures}))
        }
        "DiscoverPollEndpoint" => {
            let endpoint = format!("http://{host}/");
            Ok(json!({"endpoint": endpoint, "telemetryEndpoint": endpoint}))
        }
        "SubmitTaskStateChange" => {
            control.submit_task_state_change(&input.parse::<TaskStateChange>()?)?;
            Ok(json!({"acknowledgment": "ACK"}))
        }
        "SubmitContainerStateChange" => {
            control.submit_container_state_change(input.parse::<ContainerStateChange>()?)?;
            Ok(json!({"acknowledgment": "ACK"}))
        }
        // network interfaces and volumes of AWS: Bulkhead attaches none, so there is nothing to note
        "SubmitAttachmentStateChanges" => Ok(json!({"acknowledgment": "ACK"})),
        other if NOT_OFFERED.contains(&other) => Err(Refusal::new(
            "UnsupportedFeatureException",
            format!(
                "{other} is not offered by this version of Bulkhead, which runs tasks but not yet services, daemons or capacity providers."
            ),
        )),
        other => {
            Err(Refusal::new("UnknownOperationException", format!("Unknown operation '{other}'.")))
        }
    }
}

/// Tags, attributes and settings.
fn perform_on_properties(
    control: &Control,
    operation: &str,
    input: &Input,
) -> Result<Value, Refusal> {
    let of: Properties = input.parse()?;
    let cluster = of.cluster.as_deref();
    let (name, value) = (of.name.as_deref(), of.value.as_deref());
    let token = of.next_token.as_deref();
    match operation {
        "TagResource" => {
            control.tag_resource(&of.resource_arn, &of.tags)?;
            Ok(json!({}))
        }
        "UntagResource" => {
            control.untag_resource(&of.resource_arn, &of.tag_keys)?;
            Ok(json!({}))
        }
        "ListTagsForResource" => {
            Ok(json!({"tags": control.list_tags_for_resource(&of.resource_arn)?}))
        }
        "PutAttributes" => {
            Ok(json!({"attributes": control.put_attributes(cluster, &of.attributes)?}))
        }
        "DeleteAttributes" => {
            Ok(json!({"attributes": control.delete_attributes(cluster, &of.attributes)?}))
        }
        "ListAttributes" => {
            let (name, value) = (of.attribute_name.as_deref(), of.attribute_value.as_deref());
            let page = control.list_attributes(cluster, name, value, token, of.max_results)?;
            Ok(paged("attributes", json!(page.items), page.next_token))
        }
        "ListAccountSettings" => {
            let page = control.list_account_settings(
                name,
                value,
                of.effective_settings,
                token,
                of.max_results,
            )?;
            Ok(paged("settings", json!(page.items), page.next_token))
        }
        _ => {
            let setting =
                control.put_account_setting(name.unwrap_or_default(), value.unwrap_or_default())?;
            Ok(json!({"setting": setting}))
        }
    }
}

/// A request's body, with members that are null left out.
struct Input(Value);

impl Input {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self(json!({})));
        }
        let mut value: Value =
            serde_json::from_slice(body).map_err(|error| serialization(&error))?;
        if !value.is_object() {
            return Err(Refusal::new(
                "SerializationException",
                "The request must be a JSON object.",
            ));
        }
        bulkhead_ecs::without_nulls(&mut value);
        Ok(Self(value))
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        T::deserialize(&self.0).map_err(|error| serialization(&error))
    }
}

fn serialization(error: &serde_json::Error) -> Refusal {
    Refusal::new("SerializationException", format!("The request could not be read: {error}."))
}

fn paged(name: &str, items: Value, next_token: Option<String>) -> Value {
    let mut answer = json!({ name: items });
    if let Some(token) = next_token {
        answer["nextToken"] = json!(token);
    }
    answer
}

/// There are no services yet, so each that is asked for is missing.
fn no_services(request: &Named) -> Value {
    let missing =
        |name: &String| Failure { arn: Some(name.clone()), reason: "MISSING".into(), detail: None };
    let failures: Vec<Failure> = request.services.iter().map(missing).collect();
    json!({"services": [], "failures": failures})
}

/// Requests that only name things.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Named {
    cluster: Option<String>,
    container_instance: String,
    container_instances: Vec<String>,
    force: bool,
    include: Vec<String>,
    reason: Option<String>,
    services: Vec<String>,
    status: String,
    task: String,
    task_definition: String,
    tasks: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listing {
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    cluster: Option<String>,
    resource_arn: String,
    tags: Vec<Tag>,
    tag_keys: Vec<String>,
    attributes: Vec<Attribute>,
    attribute_name: Option<String>,
    attribute_value: Option<String>,
    name: Option<String>,
    value: Option<String>,
    effective_settings: bool,
    next_token: Option<String>,
    max_results: Option<i64>,
}

/// Operations that the API has and Bulkhead does not offer yet.
const NOT_OFFERED: [&str; 54] = [
    "AssociateGatewayWithCluster",
    "ContinueServiceDeployment",
    "CreateCapacityProvider",
    "CreateDaemon",
    "CreateExpressGatewayService",
    "CreateGateway",
    "CreateService",
    "CreateTaskSet",
    "DeleteAccountSetting",
    "DeleteCapacityProvider",
    "DeleteDaemon",
    "DeleteDaemonTaskDefinition",
    "DeleteExpressGatewayService",
    "DeleteGateway",
    "DeleteService",
    "DeleteTaskDefinitions",
    "DeleteTaskSet",
    "DescribeCapacityProviders",
    "DescribeDaemon",
    "DescribeDaemonDeployments",
    "DescribeDaemonRevisions",
    "DescribeDaemonTaskDefinition",
    "DescribeExpressGatewayService",
    "DescribeGateway",
    "DescribeGatewayResources",
    "DescribeGatewayRoute",
    "DescribeServiceDeployments",
    "DescribeServiceRevisions",
    "DescribeTaskSets",
    "DisassociateGatewayFromCluster",
    "ExecuteCommand",
    "GetTaskProtection",
    "ListDaemonDeployments",
    "ListDaemonTaskDefinitions",
    "ListDaemons",
    "ListGatewayClusterAssociations",
    "ListGatewayRoutes",
    "ListGateways",
    "ListServiceDeployments",
    "ListServicesByNamespace",
    "PutClusterCapacityProviders",
    "RegisterDaemonTaskDefinition",
    "StopServiceDeployment",
    "UpdateCapacityProvider",
    "UpdateCluster",
    "UpdateClusterSettings",
    "UpdateContainerAgent",
    "UpdateDaemon",
    "UpdateExpressGatewayService",
    "UpdateGateway",
    "UpdateService",
    "UpdateServicePrimaryTaskSet",
    "UpdateTaskProtection",
    "UpdateTaskSet",
];
