//! `--log-budget`: a cap for all logs together. The oldest rotated file of whoever has most goes first; what
//! is being written stays, whatever it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was removed since the engine began.
#[derive(Debug, Default)]
pub(crate) struct LogBudget(Mutex<Removed>);

#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Bytes by the containers' names.
    pub(crate) bytes: BTreeMap<String, u64>,
    /// Nothing more can go, and it is too much still: bytes.
    pub(crate) over: u64,
}

impl LogBudget {
    pub(crate) fn removed(&self) -> MutexGuard<'_, Removed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of a log; the newest has number 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) owner: usize,
    pub(crate) number: u32,
    pub(crate) size: u64,
}

/// Which files go, and the bytes that are too much when they are gone.
pub(crate) fn decide(mut pieces: Vec<Piece>, budget: u64) -> (Vec<Piece>, u64) {
    let mut total: u64 = pieces.iter().map(|piece| piece.size).sum();
    let mut going = Vec::new();
    while total > budget {
        let mut sizes: BTreeMap<usize, u64> = BTreeMap::new();
        for piece in &pieces {
            *sizes.entry(piece.owner).or_default() += piece.size;
        }
        let rotated = pieces.iter().enumerate().filter(|(_, piece)| piece.number > 0);
        let Some((at, _)) = rotated.max_by_key(|(_, piece)| (sizes[&piece.owner], piece.number))
        else {
            return (going, total - budget);
        };
        let piece = pieces.swap_remove(at);
        total -= piece.size;
        going.push(piece);
    }
    (going, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_whoever_has_most_goes_first() {
        let piece = |owner, number, size| Piece { owner, number, size };
        let logs = || {
            vec![piece(0, 0, 10), piece(0, 1, 10), piece(0, 2, 10), piece(1, 0, 5), piece(1, 1, 20)]
        };
        assert_eq!(decide(logs(), 55), (vec![], 0));
        assert_eq!(decide(logs(), 50), (vec![piece(0, 2, 10)], 0));
        assert_eq!(decide(logs(), 44), (vec![piece(0, 2, 10), piece(1, 1, 20)], 0));
        let all = vec![piece(0, 2, 10), piece(1, 1, 20), piece(0, 1, 10)];
        assert_eq!(decide(logs(), 0), (all, 15), "what is written stays");
    }
}
