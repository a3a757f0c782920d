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

/// Looks for [`LEAVE`] in what is typed.
#[derive(Debug, Default)]
pub struct Keys {
    /// The first of them has come, and waits for the next key.
    begun: bool,
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
    pub fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut program = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if std::mem::take(&mut self.begun) {
                if *byte == LEAVE[1] {
                    return Typed::Leave(program);
                }
                program.push(LEAVE[0]);
            }
            if *byte == LEAVE[0] {
                self.begun = true;
            } else {
                program.push(*byte);
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
    }
}
