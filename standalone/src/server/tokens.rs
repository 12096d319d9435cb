//! Who is on the other end of a socket: the administrator's token and those of service accounts. Makes keys from the
//! system's randomness, no other IO.
//!
//! ECDSA and JWS compact form are a few lines over `ring`, which does TLS here anyway. The crates that do all of JOSE
//! bring further algorithms along, and with them the question which one a token may choose: here it is always ES256.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{Digest, SHA256, digest};
use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use ropewalk_apiserver::Tokens;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

/// Bytes of the administrator's token: nobody guesses 256 bits.
const ADMIN_BYTES: usize = 32;

/// Bytes a token may have. Those signed here have less than one kB; what is longer is not looked at.
const LONGEST: usize = 8 * 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The system gives none to make keys from.
    #[error("cannot make keys: the system gives no randomness")]
    Randomness,
    /// The text is none of ours.
    #[error("it does not hold a key")]
    Malformed,
}

/// What authenticates requests. The administrator's token itself is not kept.
pub struct Keys {
    admin: Digest,
    signing: EcdsaKeyPair,
    random: SystemRandom,
}

impl Keys {
    /// A new key to sign tokens of service accounts with, as text.
    pub fn signing_key() -> Result<String, KeysError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Ok(STANDARD.encode(document.map_err(|_: Unspecified| KeysError::Randomness)?.as_ref()))
    }

    /// A new token for the administrator.
    pub fn admin_token() -> Result<String, KeysError> {
        let mut admin = [0; ADMIN_BYTES];
        SystemRandom::new().fill(&mut admin).map_err(|_: Unspecified| KeysError::Randomness)?;
        Ok(URL_SAFE_NO_PAD.encode(admin))
    }

    /// These keys; `signing` is the text of [`Keys::signing_key`].
    pub fn new(signing: &str, admin: &str) -> Result<Self, KeysError> {
        let random = SystemRandom::new();
        let document = STANDARD.decode(signing.trim()).map_err(|_| KeysError::Malformed)?;
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &random);
        let signing = signing.map_err(|_| KeysError::Malformed)?;
        Ok(Self { admin: digest(&SHA256, admin.as_bytes()), signing, random })
    }

    /// Whether this is the administrator's token. Takes the same time however much of it is right.
    pub(super) fn is_admin(&self, token: &str) -> bool {
        let shown = digest(&SHA256, token.as_bytes());
        shown.as_ref().ct_eq(self.admin.as_ref()).into()
    }
}

impl Tokens for Keys {
    fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", part(&header), part(claims));
        let signature = self.signing.sign(&self.random, token.as_bytes()).ok()?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }

    fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.signing.public_key());
        key.verify(signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (Keys, String) {
        let (signing, admin) = (Keys::signing_key().expect("a key"), Keys::admin_token().expect("a token"));
        (Keys::new(&signing, &admin).expect("keys"), admin)
    }

    #[test]
    fn a_token_says_what_was_signed_and_nothing_else() {
        let (keys, _) = made();
        let claims = json!({ "sub": "system:serviceaccount:default:default", "aud": ["here"] });
        let token = keys.sign(&claims).expect("a token");
        assert_eq!(keys.verify(&token), Some(claims.clone()));
        let [header, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
        let other =
            URL_SAFE_NO_PAD.encode(json!({ "sub": "system:serviceaccount:default:other" }).to_string());
        let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none" }).to_string());
        let (others, _) = made();
        let foreign = others.sign(&claims).expect("a token");
        for wrong in [
            format!("{header}.{other}.{signature}"),
            format!("{none}.{body}."),
            format!("{none}.{body}.{signature}"),
            format!("{header}.{body}"),
            format!("{header}.{body}.{signature}A"),
            foreign,
            token.repeat(100),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(keys.verify(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_administrators_token_is_that_alone() {
        let (keys, admin) = made();
        assert!(keys.is_admin(&admin));
        let (_, other) = made();
        for wrong in ["", &admin[1..], &other, &format!("{admin}=")] {
            assert!(!keys.is_admin(wrong), "{wrong}");
        }
    }

    #[test]
    fn tokens_hold_as_long_as_the_key_is_kept() {
        let (signing, admin) = (Keys::signing_key().expect("a key"), Keys::admin_token().expect("a token"));
        let token = Keys::new(&signing, &admin).expect("keys").sign(&json!({ "sub": "x" })).expect("a token");
        let again = Keys::new(&format!("{signing}\n"), &admin).expect("keys");
        assert_eq!(again.verify(&token), Some(json!({ "sub": "x" })));
        assert!(again.is_admin(&admin));
        for wrong in ["", "no base64!", "AAAA", &signing[4..]] {
            assert!(matches!(Keys::new(wrong, &admin), Err(KeysError::Malformed)), "{wrong}");
        }
    }
}
