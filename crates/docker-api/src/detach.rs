use crate::error::ApiError;

/// The keys by which a user at a terminal leaves a container that goes on (moby: pkg/term).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or `a,b`; nothing is Docker's default.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let key = |name: &str| match name.as_bytes() {
            [byte] => Some(*byte),
            [
                b'c',
                b't',
                b'r',
                b'l',
                b'-',
                byte @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_'),
            ] => Some(byte & 0x1f),
            _ => None,
        };
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        keys.map(Self)
            .ok_or_else(|| ApiError::invalid(format!("Invalid detach keys ({text}) provided")))
    }

    pub(crate) fn watch(self) -> DetachWatch {
        DetachWatch { keys: self.0, seen: 0 }
    }
}

/// Looks for the keys in what a client sends, piece by piece.
#[derive(Debug)]
pub(crate) struct DetachWatch {
    keys: Vec<u8>,
    /// How many of the keys came last, and are held back.
    seen: usize,
}

impl DetachWatch {
    /// What of `input` is the container's, and whether the keys came. A start of the keys is held
    /// back until it is known whether the rest follows.
    pub(crate) fn pass(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len() + self.seen);
        for byte in input {
            if *byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(*byte == self.keys[0]);
            if self.seen == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_across_pieces() {
        for (pieces, passed, found) in [
            (&["ab\x10\x11cd"][..], "ab", true),
            (&["a\x10", "\x11"][..], "a", true),
            (&["a\x10", "b"][..], "a\x10b", false),
            (&["\x10\x10\x11"][..], "\x10", true),
            (&["plain"][..], "plain", false),
        ] {
            let mut watch = DetachKeys::parse("").expect("the default").watch();
            let mut all = Vec::new();
            let mut ended = false;
            for piece in pieces {
                let (bytes, found) = watch.pass(piece.as_bytes());
                all.extend(bytes);
                ended |= found;
            }
            assert_eq!((all.as_slice(), ended), (passed.as_bytes(), found), "{pieces:?}");
        }
    }

    #[test]
    fn keys_are_named_as_in_docker() {
        assert_eq!(DetachKeys::parse("ctrl-a,x").expect("keys"), DetachKeys(vec![1, b'x']));
        assert_eq!(DetachKeys::parse("ctrl-@,ctrl-\\").expect("keys"), DetachKeys(vec![0, 28]));
        for wrong in ["ctrl-", "ab", "ctrl-A,", "a,,b"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }
}
