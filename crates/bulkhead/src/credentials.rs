//! The keys of one machine: an AWS-style access key for the ECS API, and a user with a password for
//! the registry and the console. Made once by `bulkhead up`, readable by root only.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads `DATA/credentials.json`, or draws new ones and writes them (mode 0600).
    pub fn open(data: &Path) -> Result<Self, Failure> {
        match Self::read(data) {
            Err(failure) if failure.status == Some(404) => {}
            found => return found,
        }
        let made = Self {
            access_key_id: format!("BKIA{}", draw(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
            secret_access_key: draw(40, LETTERS),
            user: "admin".to_owned(),
            password: draw(20, LETTERS),
        };
        let path = file(data);
        let temporary = path.with_extension("new");
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&serde_json::to_vec_pretty(&made)?)?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&temporary, &path));
        written
            .map_err(|cause| Failure::new(format!("cannot write {}: {cause}", path.display())))?;
        Ok(made)
    }

    fn read(data: &Path) -> Result<Self, Failure> {
        let path = file(data);
        let text = std::fs::read(&path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => Failure {
                status: Some(404),
                ..Failure::new(format!("{} does not exist: `bulkhead up` makes it", path.display()))
            },
            std::io::ErrorKind::PermissionDenied => {
                Failure::new(format!("only root may read {}: run it with sudo", path.display()))
            }
            _ => Failure::new(format!("cannot read {}: {cause}", path.display())),
        })?;
        serde_json::from_slice(&text).map_err(|cause| {
            Failure::new(format!(
                "{} is damaged ({cause}): repair it, or remove it to get new keys",
                path.display()
            ))
        })
    }
}

impl bulkhead_registry::Users for Credentials {
    fn check(&self, user: &str, password: &str) -> bool {
        self.is(user, password)
    }
}

impl bulkhead_console::Users for Credentials {
    fn check(&self, user: &str, password: &str) -> bool {
        self.is(user, password)
    }
}

impl bulkhead_aws_api::AccessKeys for Credentials {
    fn secret(&self, access_key_id: &str) -> Option<String> {
        (access_key_id == self.access_key_id).then(|| self.secret_access_key.clone())
    }
}

impl Credentials {
    fn is(&self, user: &str, password: &str) -> bool {
        // Every byte is compared whatever came before it, so that time tells nothing of the password.
        let same = |a: &[u8], b: &[u8]| {
            a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
        };
        same(user.as_bytes(), self.user.as_bytes())
            & same(password.as_bytes(), self.password.as_bytes())
    }
}

/// `bulkhead credentials`
pub fn show(data: &Path, format: &str) -> Result<(), Failure> {
    let credentials = Credentials::read(data)?;
    match format {
        "json" => println!(
            "{}",
            serde_json::to_string(&credentials).map_err(|cause| Failure::new(cause.to_string()))?
        ),
        "env" => {
            println!("export AWS_ACCESS_KEY_ID={}", credentials.access_key_id);
            println!("export AWS_SECRET_ACCESS_KEY={}", credentials.secret_access_key);
            println!("export AWS_DEFAULT_REGION=us-east-1");
        }
        "table" => {
            println!("Access key ID:     {}", credentials.access_key_id);
            println!("Secret access key: {}", credentials.secret_access_key);
            println!("User:              {}", credentials.user);
            println!("Password:          {}", credentials.password);
        }
        other => {
            return Err(Failure::new(format!("unknown format {other:?}: use table, json or env")));
        }
    }
    Ok(())
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn file(data: &Path) -> PathBuf {
    data.join("credentials.json")
}

/// Draws `length` letters of an alphabet whose size is a power of two, so that none is likelier.
fn draw(length: usize, alphabet: &[u8]) -> String {
    debug_assert!(alphabet.len().is_power_of_two());
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).expect("getrandom(2) with no flags fails only before Linux 3.17");
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once() {
        let directory =
            std::env::temp_dir().join(format!("bulkhead-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let first = Credentials::open(&directory).expect("made");
        let second = Credentials::open(&directory).expect("read");
        assert_eq!(first.secret_access_key, second.secret_access_key);
        assert!(second.is("admin", &first.password));
        assert!(
            !second.is("admin", "wrong")
                && !second.is("", "")
                && !second.is("root", &first.password)
        );
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
