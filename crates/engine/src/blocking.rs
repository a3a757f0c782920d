//! What blocks stays off the async runtime's threads, and the compiler sees to it: whatever waits
//! for the disk, for the kernel or for another thread asks for a [`Blocking`], and only
//! [`blocking`] has one to lend.

use crate::EngineError;

/// Shows that the caller is on a thread that may block.
#[derive(Debug)]
pub(crate) struct Blocking {
    _only_made_here: (),
}

/// Runs what blocks away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Blocking) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let work = move || work(&Blocking { _only_made_here: () });
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::internal(format!("the engine failed: {error}"))),
    }
}
