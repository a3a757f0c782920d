use std::sync::Arc;

/// Counts committed transactions; grows by one with each that changes anything.
pub type Revision = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// The transaction that last wrote it.
    pub modified: Revision,
}

/// What must hold for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    Absent(String),
    Exists(String),
    /// The key was last written by this revision.
    Unchanged(String, Revision),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put(String, Vec<u8>),
    Delete(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: String,
    /// `None`: deleted.
    pub value: Option<Vec<u8>>,
}

/// What a transaction survives once its commit has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut too: the commit waits for the disk.
    Disk,
    /// The end of this process, by `kill -9` too. After a power cut the last of these transactions
    /// may be missing; those that are there are in order, and whatever was committed to
    /// [`Self::Disk`] after one has it on disk as well.
    Process,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store {0} is used by another process; stop that one first")]
    InUse(String),
    /// Nothing was recorded; removals are, as long as the store's own reserve lasts.
    #[error(
        "the file system of the store {path} is full ({cause}): nothing was recorded; free some \
         space, for example by removing containers, images or volumes"
    )]
    Full { path: String, cause: std::io::Error },
    /// Nothing was recorded. The next call tries anew.
    #[error("the store {path}: {cause}; nothing was recorded")]
    Io { path: String, cause: std::io::Error },
    #[error("the store {path} cannot be opened: {cause}")]
    Open { path: String, cause: Box<redb::Error> },
    /// What the file holds is not what was written: no retry mends that.
    #[error("the store {path}: {cause}")]
    Database { path: String, cause: Box<redb::Error> },
    /// The disk failed, and again when the file was opened to see what came of the change. It is
    /// taken back, if it happened, as soon as the file can be opened.
    #[error("the store {path}: {cause}; whether the change was recorded is not known ({again})")]
    Unknown { path: String, cause: Box<redb::Error>, again: Box<StoreError> },
    #[error("the record {key} is damaged: {cause}")]
    Damaged { key: String, cause: serde_json::Error },
    /// A comparison did not hold: somebody else changed the key first.
    #[error("the record was changed by somebody else")]
    Conflict,
}

/// Blocking, but short: memory for reads, one flush of the disk at most for a transaction.
pub trait Store: Send + Sync + std::fmt::Debug {
    fn read(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Every entry whose key starts with `prefix`, in key order.
    fn range(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// All or nothing, and as durable as is asked for when it returns. Deleting what is absent
    /// changes nothing; a transaction that changes nothing keeps the revision, and returns it.
    fn commit_to(
        &self,
        durability: Durability,
        compare: &[Compare],
        writes: &[Write],
    ) -> Result<Revision, StoreError>;

    /// [`Self::commit_to`] the disk.
    fn commit(&self, compare: &[Compare], writes: &[Write]) -> Result<Revision, StoreError> {
        self.commit_to(Durability::Disk, compare, writes)
    }

    /// Changes of keys under `prefix` from now on. A watcher that falls far behind sees its
    /// channel end and must read again.
    fn watch(&self, prefix: &str) -> tokio::sync::broadcast::Receiver<Arc<Vec<Change>>>;
}
