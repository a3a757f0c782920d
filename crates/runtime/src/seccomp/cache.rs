//! Compiled profiles on disk, for runtimes that live no longer than a start.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bulkhead_sys::seccomp::Instruction;
use bulkhead_types::oci::Seccomp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::table::NATIVE;
use super::{CompileOptions, Compiled, SeccompError, compile_oci, interpreter, oci};

/// A directory with a file for each profile that was compiled, under the hash of the whole profile.
///
/// Whoever can write there decides what processes may do, so it has to be this user's alone. A file
/// is used only if it is this user's, is whole, and says of itself which profile and which build of
/// the compiler it is from; another one counts as none. Nothing that goes wrong here is an error:
/// the profile is compiled then.
#[derive(Debug)]
pub struct Cache {
    directory: OwnedFd,
}

impl Cache {
    /// Fails with `EACCES` if others can write to the directory, and `ENOTDIR` if it is none.
    pub fn open(directory: OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&directory)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if is_own(&stat) => Ok(Self { directory }),
            FileType::Directory => Err(Errno::ACCESS),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// As [`compile_oci`], which is asked only if the directory has no answer.
    pub fn filter(
        &self,
        seccomp: &Seccomp,
        options: CompileOptions,
    ) -> Result<Option<Compiled>, SeccompError> {
        let key = Key::of(seccomp, options);
        let (flags, listener) = oci::installation(seccomp)?;
        if let Some(instructions) = self.read(&key) {
            return Ok(Some(Compiled { instructions: instructions.into(), flags, listener }));
        }
        let compiled = compile_oci(seccomp, options)?;
        if let Some(compiled) = &compiled {
            let _ = self.write(&key, &compiled.instructions);
        }
        Ok(compiled)
    }

    fn read(&self, key: &Key) -> Option<Vec<Instruction>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.directory, key.name(), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let size = usize::try_from(stat.st_size).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || !is_own(&stat) || size > MAXIMUM_SIZE {
            return None;
        }
        // one byte more than there should be: a file that grows is none of ours
        let mut content = Vec::with_capacity(size + 1);
        File::from(file).take(size as u64 + 1).read_to_end(&mut content).ok()?;
        decode(key, &content)
    }

    /// The file appears under its name when it is whole.
    fn write(&self, key: &Key, program: &[Instruction]) -> Result<(), std::io::Error> {
        self.evict()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let process = rustix::process::getpid().as_raw_nonzero();
        let temporary = format!("temporary-{process}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut create = rustix::fs::openat(&self.directory, &temporary, flags, mode);
        if matches!(create, Err(Errno::EXIST)) {
            // one of the same process id has ended in the middle
            rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty())?;
            create = rustix::fs::openat(&self.directory, &temporary, flags, mode);
        }
        let written = File::from(create?).write_all(&encode(key, program)).and_then(|()| {
            rustix::fs::renameat(&self.directory, &temporary, &self.directory, key.name())
                .map_err(std::io::Error::from)
        });
        if written.is_err() {
            rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty())?;
        }
        written
    }

    /// Makes place for one more: the oldest go, and what a process left that ended in the middle.
    fn evict(&self) -> Result<(), Errno> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = self.stat(&name) else { continue };
            files.push((Duration::new(stat.st_mtime as u64, stat.st_mtime_nsec as u32), name));
        }
        files.sort();
        let surplus = (files.len() + 1).saturating_sub(MAXIMUM_ENTRIES);
        for (_, name) in &files[..surplus] {
            match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn stat(&self, name: &CStr) -> Result<Stat, Errno> {
        rustix::fs::statat(self.directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// This user's, and nobody else writes to it.
fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0
}

/// A hash of everything that a program and its installation depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key([u8; 32]);

impl Key {
    /// The profile's JSON is what is hashed: no two profiles have the same, and a field that is added
    /// to the type is in it without further ado. (crun's key once lacked `defaultErrnoRet`.)
    fn of(seccomp: &Seccomp, options: CompileOptions) -> Self {
        let CompileOptions { close_socketcall } = options;
        let mut hash = Sha256::new();
        hash.update(COMPILER.to_le_bytes());
        hash.update(NATIVE[0].audit().to_le_bytes());
        hash.update([u8::from(close_socketcall)]);
        let json = serde_json::to_vec(seccomp).expect("strings and numbers are JSON");
        hash.update(json);
        Self(hash.finalize().into())
    }

    fn name(&self) -> String {
        use std::fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

/// MAGIC, the key, the hash of the program, the program.
fn encode(key: &Key, program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION_SIZE);
    for it in program {
        bytes.extend(it.code.to_le_bytes());
        bytes.extend([it.jump_true, it.jump_false]);
        bytes.extend(it.k.to_le_bytes());
    }
    let mut content = Vec::with_capacity(HEADER_SIZE + bytes.len());
    content.extend(MAGIC);
    content.extend(key.0);
    content.extend(Sha256::digest(&bytes));
    content.extend(bytes);
    content
}

fn decode(key: &Key, content: &[u8]) -> Option<Vec<Instruction>> {
    let (header, bytes) = content.split_at_checked(HEADER_SIZE)?;
    let (magic, hashes) = header.split_at(MAGIC.len());
    let (own, hash) = hashes.split_at(key.0.len());
    let (instructions, []) = bytes.as_chunks::<INSTRUCTION_SIZE>() else { return None };
    if magic != MAGIC || own != key.0 || hash != Sha256::digest(bytes).as_slice() {
        return None;
    }
    let instructions: Vec<Instruction> = instructions
        .iter()
        .map(|&[c0, c1, jump_true, jump_false, k0, k1, k2, k3]| Instruction {
            code: u16::from_le_bytes([c0, c1]),
            jump_true,
            jump_false,
            k: u32::from_le_bytes([k0, k1, k2, k3]),
        })
        .collect();
    interpreter::validate(&instructions).ok().map(|()| instructions)
}

const MAGIC: [u8; 8] = *b"BHFLTR\0\x01";
const HEADER_SIZE: usize = MAGIC.len() + 32 + 32;
const INSTRUCTION_SIZE: usize = 8;
const MAXIMUM_SIZE: usize = HEADER_SIZE + 4096 * INSTRUCTION_SIZE;
const MAXIMUM_ENTRIES: usize = 64;

/// A fingerprint of the compiler's source: a program of another build of it is none of ours.
const COMPILER: u64 = {
    let files: [&[u8]; 8] = [
        include_bytes!("cache.rs"),
        include_bytes!("names.rs"),
        include_bytes!("oci.rs"),
        include_bytes!("outcome.rs"),
        include_bytes!("profile.rs"),
        include_bytes!("program.rs"),
        include_bytes!("syscalls.txt"),
        include_bytes!("table.rs"),
    ];
    // FNV-1a
    let (mut hash, mut file) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while file < files.len() {
        let mut at = 0;
        while at < files[file].len() {
            hash = (hash ^ files[file][at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        file += 1;
    }
    hash
};

#[cfg(test)]
mod tests;
