//! Running commands so that a reader sees what a person would have typed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A place to type commands: directories before `PATH`, and variables.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    path: Vec<PathBuf>,
    variables: Vec<(String, String)>,
    directory: Option<PathBuf>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub output: String,
    pub success: bool,
}

impl Shell {
    pub fn with_path(mut self, directory: &Path) -> Self {
        self.path.push(directory.to_owned());
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn within(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Prints the line, runs it by `sh`, shows its output as it comes, and returns standard output.
    pub fn run(&self, line: &str) -> Result<String> {
        println!("\n\x1b[1m$ {line}\x1b[0m");
        let said = self.stream(line, true)?;
        if !said.success {
            bail!("`{line}` failed");
        }
        Ok(said.output)
    }

    /// Runs a line that may fail, without showing anything.
    pub fn ask(&self, line: &str) -> Result<Said> {
        self.stream(line, false)
    }

    fn stream(&self, line: &str, show: bool) -> Result<Said> {
        let mut command = self.command("sh");
        // Both streams in one, in the order a person would see them.
        command
            .arg("-c")
            .arg(format!("{{ {line}\n}} 2>&1"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
        let stdout = child.stdout.take().context("it was piped")?;
        let mut output = String::new();
        for text in BufReader::new(stdout).split(b'\n') {
            let text = String::from_utf8_lossy(&text?).into_owned();
            if show {
                println!("{text}");
            }
            output.push_str(&text);
            output.push('\n');
        }
        Ok(Said { output, success: child.wait()?.success() })
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = self.path.iter().cloned().chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(path) {
            command.env("PATH", path);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}
