//! `docker wait`.

use bulkhead_types::Id;

use crate::{Engine, EngineError, WaitCondition};

impl Engine {
    /// Resolves when the condition holds, with the exit code. The future is registered when this
    /// returns, so a start that comes later is not missed.
    pub fn wait(
        &self,
        id: Id,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<u8, EngineError>> + Send + use<>, EngineError> {
        let mut receiver = { self.containers.lock().entry(id)?.lifecycle.subscribe() };
        let ends = receiver.borrow_and_update().ends;
        Ok(async move {
            let done = receiver
                .wait_for(|lifecycle| {
                    lifecycle.removed
                        || match condition {
                            // An end counts even where a policy restarts it at once, as in Docker.
                            WaitCondition::NotRunning => {
                                !lifecycle.running || lifecycle.ends > ends
                            }
                            WaitCondition::NextExit => lifecycle.ends > ends,
                            WaitCondition::Removed => false,
                        }
                })
                .await
                .map(|lifecycle| lifecycle.code);
            // The sender goes only with the container, after it has said so.
            Ok(done.unwrap_or_else(|_| receiver.borrow().code))
        })
    }
}
