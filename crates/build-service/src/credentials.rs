//! Who knows the credentials of the registries that a build pulls from.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use bulkhead_image::Credentials;

/// Given with the request, or asked for when they are needed.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// By registry.
    Given(BTreeMap<String, Credentials>),
    Asked(Arc<dyn AskCredentials>),
}

impl Default for CredentialSource {
    fn default() -> Self {
        Self::Given(BTreeMap::new())
    }
}

/// A client that knows credentials.
pub trait AskCredentials: Debug + Send + Sync {
    /// Those for a registry (`host[:port]`), if there are any.
    fn ask<'a>(
        &'a self,
        registry: &'a str,
    ) -> Pin<Box<dyn Future<Output = Option<Credentials>> + Send + 'a>>;
}

impl CredentialSource {
    pub(crate) async fn of(&self, registry: &str) -> Option<Credentials> {
        match self {
            Self::Given(all) => all.get(registry).cloned(),
            Self::Asked(client) => client.ask(registry).await,
        }
    }
}
