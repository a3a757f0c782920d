//! A tar archive, compressed or not: whatever is read is written and read again without a
//! difference, within the limits.
#![no_main]

use std::io::Read;

use bulkhead_archive::{Entry, Kind, Limits, Reader, Writer};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { what: "an archive", bytes: 1 << 20, members: 1000 };

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::open(bytes, LIMITS) else { return };
    let mut writer = Writer::new(Vec::new());
    let mut members: Vec<(Entry, Vec<u8>)> = Vec::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(!entry.path.contains(&0) && entry.mode <= 0o7777);
        let mut content = Vec::new();
        if reader.read_to_end(&mut content).is_err() {
            break;
        }
        match &entry.kind {
            Kind::File { size } => {
                assert_eq!(*size, content.len() as u64);
                writer.file(&entry, &content).expect("memory");
            }
            _ => {
                assert!(content.is_empty());
                writer.start(&entry).expect("memory");
            }
        }
        members.push((entry, content));
    }
    let written = writer.finish().expect("memory");
    let mut again = Reader::plain(&written[..], LIMITS);
    for (entry, content) in members {
        let read = again.next_entry().expect("what was written can be read");
        assert_eq!(read, Some(entry));
        let mut bytes = Vec::new();
        again.read_to_end(&mut bytes).expect("what was written can be read");
        assert_eq!(bytes, content);
    }
    assert_eq!(again.next_entry().expect("an end"), None);
});
