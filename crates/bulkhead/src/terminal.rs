//! The user's terminal: raw mode for `-it`, its size, and getting it back as it was.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios};

/// Whether both ends are a terminal, which `-t` with an attached stdin needs.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Raw mode until dropped, so that every key reaches the container.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` when stdin is no terminal.
    pub fn enter() -> Option<Self> {
        let before = termios::tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to tell a user whose terminal is gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Rows and columns, if stdout is a terminal.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// A text that somebody else has chosen, as a terminal may see it: what would move the cursor, clear the
/// screen or turn the direction of writing is shown as an escape.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match letter {
            '\t' => shown.push(letter),
            _ if letter.is_control() || turns => shown.extend(letter.escape_default()),
            _ => shown.push(letter),
        }
    }
    shown
}

/// Docker's keys to leave a container: Ctrl-P, then Ctrl-Q.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// Looks for the keys to leave with in what is typed.
#[derive(Debug)]
pub struct Keys {
    leave: Vec<u8>,
    /// As many of them have come, and wait for the next key.
    come: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { leave: LEAVE.to_vec(), come: 0 }
    }
}

/// What typed bytes are for.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// All for the program.
    Program(Vec<u8>),
    /// These, and then the user left.
    Leave(Vec<u8>),
}

impl Keys {
    /// Reads keys as Docker writes them: letters, and `ctrl-` with a letter or one of `@[\\]^_`,
    /// with commas between.
    pub fn read(text: &str) -> Option<Self> {
        let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some(letter), _) => match letter.as_bytes() {
                [letter @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Some(letter & 0x1f),
                _ => None,
            },
            (None, [byte]) if byte.is_ascii_graphic() => Some(*byte),
            _ => None,
        };
        let leave = text.split(',').map(key).collect::<Option<Vec<u8>>>()?;
        Some(Self { leave, come: 0 })
    }

    pub fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut program = Vec::with_capacity(bytes.len() + self.leave.len());
        for byte in bytes {
            while self.come > 0 && *byte != self.leave[self.come] {
                // the longest end of what has come that is a beginning still waits
                let come = self.come;
                let waits = (0..come)
                    .rev()
                    .find(|waits| self.leave[..*waits] == self.leave[come - waits..come])
                    .unwrap_or(0);
                program.extend_from_slice(&self.leave[..come - waits]);
                self.come = waits;
            }
            if *byte != self.leave[self.come] {
                program.push(*byte);
                continue;
            }
            self.come += 1;
            if self.come == self.leave.len() {
                return Typed::Leave(program);
            }
        }
        Typed::Program(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_strangers_are_shown() {
        for (text, expected) in [
            ("plain ü 漢\tx", "plain ü 漢\tx"),
            ("\x1b[2Jgone\n", "\\u{1b}[2Jgone\\n"),
            ("a\u{9b}31m\u{202e}b", "a\\u{9b}31m\\u{202e}b"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn keys_to_leave_may_come_in_pieces() {
        let program = |bytes: &[u8]| Typed::Program(bytes.to_vec());
        let mut keys = Keys::default();
        assert_eq!(keys.typed(b"ls\r"), program(b"ls\r"));
        assert_eq!(keys.typed(b"a\x10"), program(b"a"));
        assert_eq!(keys.typed(b"b\x10\x10"), program(b"\x10b\x10"));
        assert_eq!(keys.typed(b"\x11rest"), Typed::Leave(vec![]));
        let mut keys = Keys::read("a,a,ctrl-b").expect("keys");
        assert_eq!(keys.typed(b"aaac"), program(b"aaac"));
        assert_eq!(keys.typed(b"aaa"), program(b"a"));
        assert_eq!(keys.typed(b"\x02"), Typed::Leave(vec![]));
        for wrong in ["", "ab", "ctrl-", "ctrl-A", "a,,b"] {
            assert!(Keys::read(wrong).is_none(), "{wrong}");
        }
    }
}
