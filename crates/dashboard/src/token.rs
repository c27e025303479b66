//! The secret of one dashboard: whoever has it may look.

use std::fmt;

use crrl_transport::{NoEntropy, random_bytes};

/// Bytes of a token: nobody guesses 256 bits.
const BYTES: usize = 32;

/// A secret. It is drawn when a dashboard starts and ends with it; printing it takes [`Token::reveal`].
#[derive(Clone)]
pub struct Token {
    text: String,
    digest: blake3::Hash,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn draw() -> Result<Self, NoEntropy> {
        let bytes: [u8; BYTES] = random_bytes()?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = blake3::hash(text.as_bytes());
        Ok(Self { text, digest })
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Whether this is the secret. How long that takes says nothing of how much of it is right:
    /// digests are compared, and all of each.
    #[must_use]
    pub fn is(&self, said: &str) -> bool {
        blake3::hash(said.as_bytes()) == self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let (token, other) = (Token::draw().expect("entropy"), Token::draw().expect("entropy"));
        assert_eq!(token.reveal().len(), 64);
        assert!(token.is(token.reveal()) && !token.is(other.reveal()));
        assert!(!token.is("") && !token.is(&token.reveal()[1..]));
        assert!(!format!("{token:?}").contains(token.reveal()), "logs do not tell it");
    }
}
