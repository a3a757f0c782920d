use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

/// What a file is that ADD may unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detected {
    /// An archive, maybe compressed by gzip or zstd.
    Tar,
    /// Maybe an archive, compressed in a way that cannot be read here.
    Unsupported(&'static str),
    Other,
}

/// Looks at a file's first bytes; its name does not count, as Docker has it.
pub(super) fn detect(mut file: File) -> io::Result<Detected> {
    let mut start = [0; 6];
    let length = read_full(&mut file, &mut start)?;
    match &start[..length] {
        [0x42, 0x5a, 0x68, ..] => return Ok(Detected::Unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Ok(Detected::Unsupported("xz")),
        _ => {}
    }
    file.rewind()?;
    let mut block = [0; 512];
    // What only looks compressed is no archive.
    let length = open(file).and_then(|mut plain| read_full(&mut plain, &mut block)).unwrap_or(0);
    let is_tar = length == block.len() && block[0] != 0 && checksum_is_right(&block);
    Ok(if is_tar { Detected::Tar } else { Detected::Other })
}

/// The archive's bytes without compression.
pub(super) fn open(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let length = read_full(&mut file, &mut magic)?;
    file.rewind()?;
    let file = BufReader::with_capacity(128 << 10, file);
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

pub(super) fn is_named_like_a_tar(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    [".tar.xz", ".txz", ".tar.bz2", ".tbz", ".tbz2"].iter().any(|end| name.ends_with(end))
}

/// The sum of a header's bytes, with blanks for the sum itself (pax(1), "ustar Interchange
/// Format").
fn checksum_is_right(block: &[u8; 512]) -> bool {
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    tar::Header::from_byte_slice(block).cksum().is_ok_and(|written| written == sum)
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}
