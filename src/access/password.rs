//! The password, which is configured in plain text or as an argon2 hash (PHC string format).

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};

/// The configured password.
#[derive(Debug)]
pub struct Password {
    /// Plain text or an argon2 hash.
    configured: String,
    session: String,
    /// Digest of the last correct password. argon2 takes tens of milliseconds and 19 MiB, which is
    /// too expensive for every request.
    known: Mutex<Option<[u8; 32]>>,
    /// Held while argon2 runs, so that only one instance runs at a time.
    verifying: tokio::sync::Mutex<()>,
}

impl Password {
    /// Creates a password from its configuration: plain text or an argon2 hash.
    pub fn new(configured: &str) -> Password {
        let session = digest(&["berrymse session\0", configured]);
        Password {
            configured: configured.into(),
            session: session.iter().map(|byte| format!("{byte:02x}")).collect(),
            known: Mutex::default(),
            verifying: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the session value, a hexadecimal string that a client may present instead of the
    /// password.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Returns whether `value` equals [`Self::session`]. The comparison takes the same time however
    /// many characters match.
    pub fn is_session(&self, value: &str) -> bool {
        digest(&[value]) == digest(&[&self.session])
    }

    /// Returns whether `given` is the password.
    pub async fn is_right(&self, given: &str) -> bool {
        if !self.configured.starts_with("$argon2") {
            return digest(&[given]) == digest(&[&self.configured]);
        }
        let known = || *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest(&[given]);
        if known() == Some(digest) {
            return true;
        }
        let _guard = self.verifying.lock().await;
        if known() == Some(digest) {
            return true;
        }
        let (configured, given) = (self.configured.clone(), given.to_string());
        let verify = move || {
            let hash = PasswordHash::new(&configured)?;
            Argon2::default().verify_password(given.as_bytes(), &hash)
        };
        let right = tokio::task::spawn_blocking(verify).await.is_ok_and(|result| result.is_ok());
        if right {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        right
    }
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher, SaltString};

    #[tokio::test]
    async fn accepts_plain_text_passwords_and_hashes() {
        let salt = SaltString::encode_b64(b"not so random").unwrap();
        let hash = Argon2::default().hash_password(b"secret", &salt).unwrap().to_string();
        for configured in ["secret", &hash] {
            let password = Password::new(configured);
            for wrong in ["", "wrong", "Secret", "secret ", &hash[..20]] {
                assert!(!password.is_right(wrong).await, "{wrong:?}");
            }
            for _ in 0..2 {
                assert!(password.is_right("secret").await);
            }
            assert!(!password.is_right("wrong").await, "only the correct password is remembered");
        }
    }

    #[test]
    fn rejects_sessions_of_other_passwords() {
        let password = Password::new("secret");
        assert!(password.is_session(password.session()));
        let mut forged = password.session().to_string();
        let last = forged.pop().unwrap();
        forged.push(if last == '0' { '1' } else { '0' });
        assert!(!password.is_session(&forged));
        assert!(!password.is_session(Password::new("other").session()));
        assert!(!password.is_session(""));
    }
}
