//! Who may connect: whoever has a token (JWT) that is signed with the server's key.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use std::{fmt, io, path::Path};

/// The least bytes of a secret: as many as the hash that it keys, as its standard asks for.
const SECRET_BYTES_MIN: usize = 32;

/// The key that tokens must be signed with. It decides about the algorithm; what a token says of it does not.
#[derive(Clone)]
pub struct TokenKey {
    key: DecodingKey,
    algorithm: Algorithm,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key itself: it may be a secret.
        f.debug_struct("TokenKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("token key `{path}`: {why}")]
pub struct KeyError {
    path: String,
    why: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
}

impl TokenKey {
    /// Reads a key from a file: an RSA public key in PEM, for tokens by RS256, or else the bytes of a secret, for tokens by HS256.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |why: String| KeyError { path: path.display().to_string(), why };
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        Self::from_bytes(&bytes).map_err(failed)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(b"-----BEGIN") {
            let key = DecodingKey::from_rsa_pem(bytes).map_err(|error| format!("no RSA public key in PEM: {error}"))?;
            return Ok(Self { key, algorithm: Algorithm::RS256 });
        }
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(format!("a secret of {} bytes, at least {SECRET_BYTES_MIN} are needed", bytes.len()));
        }
        Ok(Self { key: DecodingKey::from_secret(bytes), algorithm: Algorithm::HS256 })
    }

    /// A key that nobody else has, and a token that is signed with it: for processes that know each other by being started together.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn random() -> io::Result<(Self, String)> {
        let mut secret = [0; SECRET_BYTES_MIN];
        getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
        let claims = serde_json::json!({ "sub": "leatworks" });
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&secret));
        Ok((Self { key: DecodingKey::from_secret(&secret), algorithm: Algorithm::HS256 }, token.map_err(io::Error::other)?))
    }

    /// Checks a token and gives the time at which it ends, in seconds since the Unix epoch, if it does.
    pub(crate) fn check(&self, token: &[u8]) -> Result<Option<u64>, String> {
        let mut validation = Validation::new(self.algorithm);
        // Pulsar's tokens need not end, and name no audience.
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 0;
        let refused = |error: jsonwebtoken::errors::Error| format!("the token is not valid: {error}");
        let token = jsonwebtoken::decode::<Claims>(token, &self.key, &validation).map_err(refused)?;
        Ok(token.claims.exp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_key_takes_its_own_token_only() {
        let (key, token) = TokenKey::random().unwrap();
        let (other, others) = TokenKey::random().unwrap();
        assert_eq!(key.check(token.as_bytes()), Ok(None));
        assert_eq!(other.check(others.as_bytes()), Ok(None));
        assert!(key.check(others.as_bytes()).is_err() && other.check(token.as_bytes()).is_err());
    }
}
