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
