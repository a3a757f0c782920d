use super::Fault;

/// The `# key=value` comments before everything else.
#[derive(Debug)]
pub(super) struct Directives {
    pub(super) escape: char,
    seen: Vec<String>,
    over: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', seen: Vec::new(), over: false }
    }
}

impl Directives {
    /// Reads a line without leading blanks. The first that is no directive ends them.
    pub(super) fn read(&mut self, line: &str) -> Result<(), Fault> {
        let (false, Some((key, value))) = (self.over, directive(line)) else {
            self.over = true;
            return Ok(());
        };
        if self.seen.contains(&key) {
            return Err(format!("only one {key} parser directive can be used"));
        }
        match key.as_str() {
            "escape" => {
                self.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        return Err(format!(
                            "invalid escape token '{value}' does not match ` or \\"
                        ));
                    }
                };
            }
            "syntax" => supported_syntax(value)?,
            // `check` chooses lint rules, and there are none here.
            _ => {}
        }
        self.seen.push(key);
        Ok(())
    }
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.trim_start().split_once('=')?;
    let key = key.trim_end().to_ascii_lowercase();
    let value = value.trim();
    let known = ["syntax", "escape", "check"].contains(&key.as_str());
    (known && !value.is_empty()).then_some((key, value))
}

/// `docker/dockerfile:*` is the language that is built in; other front ends are programs in
/// images, which would need a whole LLB solver.
fn supported_syntax(value: &str) -> Result<(), Fault> {
    let image = value.split_whitespace().next().unwrap_or_default();
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = name.split(['@', ':']).next().unwrap_or_default();
    if ["docker/dockerfile", "docker/dockerfile-upstream"].contains(&name) {
        return Ok(());
    }
    Err(format!(
        "the syntax {image} is not supported: only docker/dockerfile is built in; remove the \
         `# syntax=` line"
    ))
}
