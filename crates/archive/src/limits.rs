//! How much an archive may ask for.

use std::io;

/// What one archive may unpack to.
///
/// Besides, whatever is compressed may not unpack to more than 1 GiB and 200 times its size: text
/// compresses 5 to 20 times; gzip reaches 1,032, zstd over 3,000, with nothing but zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What is read, in these words in an error: `a layer`.
    pub what: &'static str,
    /// Bytes without compression, headers included.
    pub bytes: u64,
    pub members: u64,
}

impl Limits {
    /// The largest images in use have some 600,000 members.
    pub const LAYER: Self = Self { what: "a layer", bytes: 20 << 30, members: 2_000_000 };
    /// What a build copies becomes a layer.
    pub const CONTEXT: Self = Self { what: "a build context", ..Self::LAYER };
    /// The sender of a database's dump may have many bytes; they are bounded by the ratio.
    pub const COPY: Self = Self { what: "an archive", bytes: 1 << 40, members: 2_000_000 };
    /// `docker save` of many images; each layer in it has limits of its own.
    pub const IMAGES: Self =
        Self { what: "an archive of images", bytes: 1 << 40, members: 100_000 };

    /// Says whether `size` bytes may have come out of `compressed` ones.
    pub(crate) fn check(&self, size: u64, compressed: u64) -> io::Result<()> {
        if size > self.bytes {
            let most = self.bytes >> 30;
            return Err(too_large(format!("{} may unpack to {most} GiB at most", self.what)));
        }
        if size > SUSPICIOUS && size / RATIO > compressed {
            return Err(too_large(format!(
                "it unpacks to more than {} GiB and {RATIO} times its size",
                SUSPICIOUS >> 30
            )));
        }
        Ok(())
    }

    pub(crate) fn check_members(&self, count: u64) -> io::Result<()> {
        match count > self.members {
            true => Err(too_large(format!("it has more than {} members", self.members))),
            false => Ok(()),
        }
    }
}

/// From this size on an archive that is more than [`RATIO`] times its compressed form is taken for
/// a bomb.
const SUSPICIOUS: u64 = 1 << 30;
const RATIO: u64 = 200;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TooLarge(String);

fn too_large(message: String) -> io::Error {
    io::Error::other(TooLarge(message))
}

/// Whether a stream was given up because of its [`Limits`].
pub fn is_too_large(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLarge>())
}
