//! A member's content on its way to a file.

use std::io::{self, Read, Write};

/// Which end went wrong: what cannot be read is the sender's fault, what cannot be written is this
/// machine's, and has a file to name.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("{0}")]
    Read(io::Error),
    #[error("{0}")]
    Write(io::Error),
}

/// Copies `from` to its end.
pub fn copy(
    from: &mut (impl Read + ?Sized),
    to: &mut (impl Write + ?Sized),
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; 128 << 10];
    let mut length = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                to.write_all(&buffer[..count]).map_err(CopyError::Write)?;
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}
