//! As much of MessagePack as a forwarder of logs writes (msgpack: spec.md).

pub(crate) fn array(into: &mut Vec<u8>, length: u8) {
    into.push(0x90 | length.min(15));
}

/// A map of so many pairs, which follow.
pub(crate) fn map(into: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(length @ 0..=15) => into.push(0x80 | length),
        _ => {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            into.push(0xde);
            into.extend_from_slice(&length.to_be_bytes());
        }
    }
}

pub(crate) fn text(into: &mut Vec<u8>, text: &str) {
    let length = text.len();
    match length {
        0..=31 => into.push(0xa0 | length as u8),
        32..=0xff => into.extend_from_slice(&[0xd9, length as u8]),
        0x100..=0xffff => {
            into.push(0xda);
            into.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            into.push(0xdb);
            into.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    into.extend_from_slice(text.as_bytes());
}

pub(crate) fn integer(into: &mut Vec<u8>, value: i64) {
    into.push(0xd3);
    into.extend_from_slice(&value.to_be_bytes());
}

/// An extension of type 0 with eight bytes.
pub(crate) fn extension(into: &mut Vec<u8>, bytes: [u8; 8]) {
    into.extend_from_slice(&[0xd7, 0x00]);
    into.extend_from_slice(&bytes);
}
