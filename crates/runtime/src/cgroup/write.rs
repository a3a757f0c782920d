//! One setting of a controller, and how the kernel is made to take it.

use std::borrow::Cow;

use rustix::io::Errno;

use super::CgroupError;
use super::file::{self, Directory};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub file: Cow<'static, str>,
    pub value: String,
    pub absent: Absent,
    /// Whether a refusal (`EINVAL`) may be for want of a setting that follows, so that it is worth
    /// another try after that: limits of memory, and of memory and swap, bound each other.
    pub again: bool,
}

/// What to do where the kernel has no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Absent {
    Fail,
    Skip,
    Instead(&'static str, String),
}

impl Write {
    pub fn new(file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self { file: file.into(), value: value.to_string(), absent: Absent::Fail, again: false }
    }

    pub fn or_skip(self) -> Self {
        Self { absent: Absent::Skip, ..self }
    }

    pub fn or(self, file: &'static str, value: impl ToString) -> Self {
        Self { absent: Absent::Instead(file, value.to_string()), ..self }
    }

    pub fn again_if(self, again: bool) -> Self {
        Self { again, ..self }
    }
}

/// Writes in the given order; what is refused and worth it once more at the end.
pub(super) fn apply(directory: &Directory, writes: &[Write]) -> Result<(), CgroupError> {
    let mut refused = Vec::new();
    for write in writes {
        match put(directory, write) {
            Err((_, Errno::INVAL)) if write.again => refused.push(write),
            other => other.map_err(|error| explain(directory, write, error))?,
        }
    }
    refused.into_iter().try_for_each(|write| {
        put(directory, write).map_err(|error| explain(directory, write, error))
    })
}

fn put<'a>(directory: &Directory, write: &'a Write) -> Result<(), (&'a str, Errno)> {
    let name: &str = &write.file;
    match (file::try_write(directory, name, &write.value), &write.absent) {
        (Err(Errno::NOENT), Absent::Skip) => Ok(()),
        (Err(Errno::NOENT), Absent::Instead(other, value)) => {
            file::try_write(directory, other, value).map_err(|errno| (*other, errno))
        }
        (result, _) => result.map_err(|errno| (name, errno)),
    }
}

fn explain(directory: &Directory, write: &Write, (name, errno): (&str, Errno)) -> CgroupError {
    // the limit is below what is in use and cannot be freed
    if errno == Errno::BUSY && name == "memory.limit_in_bytes" {
        let number = |name| file::read_number(directory, name).ok().flatten();
        let usage = number("memory.usage_in_bytes");
        let peak = number("memory.max_usage_in_bytes");
        if let (Some(usage), Some(peak)) = (usage, peak) {
            return CgroupError::MemoryInUse { limit: write.value.clone(), usage, peak };
        }
    }
    let value = match &write.absent {
        Absent::Instead(other, value) if *other == name => value,
        _ => &write.value,
    };
    CgroupError::Write { value: value.clone(), file: directory.file(name), cause: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_files_are_skipped_or_replaced_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("here"), "").unwrap();
        let directory = super::super::tests::directory(folder.path());
        let apply = |write| apply(&directory, &[write]);
        let here = || std::fs::read_to_string(folder.path().join("here")).unwrap();

        apply(Write::new("gone", 1).or_skip()).unwrap();
        apply(Write::new("gone", 1).or("here", 2)).unwrap();
        assert_eq!(here(), "2");
        apply(Write::new("here", 3).or("gone", 4)).unwrap();
        assert_eq!(here(), "3");
        let error = apply(Write::new("gone", 5)).unwrap_err().to_string();
        assert!(error.starts_with("write 5 to /"), "{error}");
        assert!(error.contains("/gone: "), "{error}");
        let error = apply(Write::new("gone", 5).or("gone2", 6)).unwrap_err().to_string();
        assert!(error.starts_with("write 6 to /") && error.contains("/gone2: "), "{error}");
        // a name from a config leads nowhere else
        let error = apply(Write::new("../here", 7)).unwrap_err().to_string();
        assert!(error.contains("../here: Invalid argument"), "{error}");
    }
}
