//! What the fuzz targets need of private code.

use std::path::Path;

use crate::LogQuery;
use crate::log_reader::{LogReader, PastRecords};

/// The texts of a log's records: of all of them read forwards, of all that were there at a moment, and of
/// the last `tail` looked for from the end.
pub fn log(path: &Path, tail: usize) -> std::io::Result<[Vec<Vec<u8>>; 3]> {
    let query = LogQuery { stdout: true, stderr: true, ..LogQuery::default() };
    let last = LogQuery { tail: Some(tail), ..query.clone() };
    let all = LogReader::open(path.to_owned(), query.clone())?.more(usize::MAX)?;
    let past = PastRecords::open(path, query)?.more(usize::MAX)?;
    let last = LogReader::open(path.to_owned(), last)?.more(usize::MAX)?;
    Ok([all, past, last].map(|lines| lines.into_iter().map(|line| line.text).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/log_reader");
        let [all, past, last] = log(&Path::new(directory).join("torn"), 2).expect("a seed");
        assert_eq!(all, [&b"one\n"[..], b"two\n", b"three\n"]);
        assert_eq!((past, last), (all.clone(), all[1..].to_vec()));
    }
}
