use std::fmt;

use bulkhead_store::StoreError;
use bulkhead_types::Chain;
use serde::{Deserialize, Serialize};

/// What went wrong, by the exception names of the ECS API (botocore's model `ecs/2014-11-13`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    AttributeLimitExceeded,
    Client,
    ClusterContainsContainerInstances,
    ClusterContainsTasks,
    ClusterNotFound,
    Conflict,
    InvalidParameter,
    ResourceInUse,
    ResourceNotFound,
    Server,
    TargetNotFound,
    UnsupportedFeature,
}

impl Code {
    /// The name as it stands in `__type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttributeLimitExceeded => "AttributeLimitExceededException",
            Self::Client => "ClientException",
            Self::ClusterContainsContainerInstances => "ClusterContainsContainerInstancesException",
            Self::ClusterContainsTasks => "ClusterContainsTasksException",
            Self::ClusterNotFound => "ClusterNotFoundException",
            Self::Conflict => "ConflictException",
            Self::InvalidParameter => "InvalidParameterException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Server => "ServerException",
            Self::TargetNotFound => "TargetNotFoundException",
            Self::UnsupportedFeature => "UnsupportedFeatureException",
        }
    }
}

/// A refused or failed operation: ECS's exception and the sentence for the user.
///
/// One struct rather than an enum with a variant per text: clients match on the code and people read
/// the message, and both are ECS's, not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub message: String,
    /// What a [`Code::Conflict`] is about, by ARN.
    pub resource_ids: Vec<String>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), resource_ids: Vec::new() }
    }

    pub(crate) fn client(message: impl Into<String>) -> Self {
        Self::new(Code::Client, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameter, message)
    }

    pub(crate) fn cluster_not_found() -> Self {
        Self::new(Code::ClusterNotFound, "Cluster not found.")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    /// The store's detail goes to the log and not to the caller, who can do nothing with it.
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %Chain(&error), "the control plane's store failed");
        Self::new(
            Code::Server,
            "The control plane could not read or write its store; its log says why.",
        )
    }
}

/// One thing of a list that could not be described, placed or changed, while the others could.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Failure {
    pub(crate) fn missing(arn: impl Into<String>) -> Self {
        Self { arn: Some(arn.into()), reason: "MISSING".into(), detail: None }
    }
}
