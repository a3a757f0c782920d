//! The query protocols: as much of STS and EC2 as ECS's clients need.
//!
//! `DescribeContainerInstances` has no public address; AWS's console, and the people who follow a walk-through,
//! find it by EC2's `DescribeInstances` with the instance's `ec2InstanceId`.

use bulkhead_ecs::{ContainerInstance, Control};

use crate::answer::{Refusal, xml};

/// The parameters of a query request: names and values in the order they came.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    /// The values of `PREFIX.1`, `PREFIX.2`, ….
    fn list(&self, prefix: &str) -> Vec<&str> {
        let numbered = |name: &str| {
            let number = name.strip_prefix(prefix)?.strip_prefix('.')?;
            number.parse::<u32>().ok()
        };
        self.0
            .iter()
            .filter(|(name, _)| numbered(name).is_some())
            .map(|(_, value)| &**value)
            .collect()
    }
}

/// Answers STS.
pub(crate) fn sts(
    control: &Control,
    parameters: &Parameters,
    request_id: &str,
) -> Result<String, Refusal> {
    match parameters.one("Action").unwrap_or_default() {
        "GetCallerIdentity" => {
            let account = xml(&control.place().account);
            Ok(format!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>arn:aws:iam::{account}:root</Arn><UserId>{account}</UserId><Account>{account}</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
            ))
        }
        other => Err(unknown(other)),
    }
}

/// Answers EC2.
pub(crate) fn ec2(
    control: &Control,
    parameters: &Parameters,
    request_id: &str,
) -> Result<String, Refusal> {
    match parameters.one("Action").unwrap_or_default() {
        "DescribeInstances" => describe_instances(control, parameters, request_id),
        other => Err(unknown(other)),
    }
}

fn unknown(action: &str) -> Refusal {
    Refusal::new("InvalidAction", format!("The action {action} is not valid for this web service."))
}

fn describe_instances(
    control: &Control,
    parameters: &Parameters,
    request_id: &str,
) -> Result<String, Refusal> {
    let mut instances = control.all_container_instances()?;
    instances.retain(|instance| instance.ec2_instance_id.is_some());
    instances.sort_by(|one, other| one.ec2_instance_id.cmp(&other.ec2_instance_id));
    // one machine may serve several clusters
    instances.dedup_by(|one, other| one.ec2_instance_id == other.ec2_instance_id);
    let wanted = parameters.list("InstanceId");
    for id in &wanted {
        if !instances.iter().any(|instance| instance.ec2_instance_id.as_deref() == Some(id)) {
            return Err(Refusal::new(
                "InvalidInstanceID.NotFound",
                format!("The instance ID '{id}' does not exist"),
            ));
        }
    }
    if !wanted.is_empty() {
        let id =
            |instance: &ContainerInstance| instance.ec2_instance_id.clone().unwrap_or_default();
        instances.retain(|instance| wanted.contains(&&*id(instance)));
    }
    for number in 1.. {
        let Some(name) = parameters.one(&format!("Filter.{number}.Name")) else { break };
        let values = parameters.list(&format!("Filter.{number}.Value"));
        let property: fn(&ContainerInstance) -> Option<&str> = match name {
            "instance-id" => |instance| instance.ec2_instance_id.as_deref(),
            "private-ip-address" => ContainerInstance::private_ip,
            "ip-address" => ContainerInstance::public_ip,
            "instance-state-name" => |_| Some("running"),
            other => {
                return Err(Refusal::new(
                    "InvalidParameterValue",
                    format!(
                        "The filter '{other}' is not offered: use instance-id, private-ip-address, ip-address or instance-state-name."
                    ),
                ));
            }
        };
        instances.retain(|instance| property(instance).is_some_and(|own| values.contains(&own)));
    }
    let account = xml(&control.place().account);
    let zone = format!("{}a", control.place().region);
    let items: String =
        instances.iter().map(|instance| reservation(instance, &account, &zone)).collect();
    Ok(format!(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>{request_id}</requestId><reservationSet>{items}</reservationSet></DescribeInstancesResponse>"
    ))
}

fn reservation(instance: &ContainerInstance, account: &str, zone: &str) -> String {
    let id = instance.ec2_instance_id.as_deref().unwrap_or_default();
    let element = |name: &str, value: Option<&str>| {
        value.map_or(String::new(), |value| format!("<{name}>{}</{name}>", xml(value)))
    };
    let launched = instance.registered_at.map(|time| time.to_string());
    let elements = [
        element("instanceId", Some(id)),
        "<instanceState><code>16</code><name>running</name></instanceState>".to_owned(),
        element("privateDnsName", instance.attribute("bulkhead.private-dns")),
        element("dnsName", instance.attribute("bulkhead.public-dns")),
        element("instanceType", instance.attribute("ecs.instance-type")),
        element("launchTime", launched.as_deref()),
        format!(
            "<placement><availabilityZone>{}</availabilityZone></placement>",
            xml(instance.attribute("ecs.availability-zone").unwrap_or(zone))
        ),
        element("privateIpAddress", instance.private_ip()),
        element("ipAddress", instance.public_ip()),
        element("architecture", instance.attribute("ecs.cpu-architecture")),
    ]
    .concat();
    let reservation = id.replacen("i-", "r-", 1);
    format!(
        "<item><reservationId>{}</reservationId><ownerId>{account}</ownerId><instancesSet><item>{elements}</item></instancesSet></item>",
        xml(&reservation)
    )
}
