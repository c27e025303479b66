//! Text to tokens and back, with the model's chat template: what a model folder's
//! `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` say. Also trains a small
//! byte-level vocabulary for policies made from scratch.

use std::path::{Path, PathBuf};

use crrl_types::Message;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use crate::chat_template::{ChatTemplate, TemplateError};
use crate::config::token_ids;

/// Ends a document in a vocabulary trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Opens a ChatML turn.
pub const TURN_BEGIN: &str = "<|im_start|>";
/// Closes a ChatML turn.
pub const TURN_END: &str = "<|im_end|>";

/// Largest file of a tokenizer that is read, bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A tokenizer that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The chat template does not compile.
    #[error("{path}: {source}")]
    Template {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: TemplateError,
    },
    /// A vocabulary could not be trained.
    #[error("cannot train a tokenizer: {0}")]
    Train(String),
}

/// A tokenizer with its chat template.
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    bos: Option<String>,
    eos: Option<String>,
    eos_ids: Vec<u32>,
    special_texts: Vec<String>,
}

impl ChatTokenizer {
    /// Reads a model folder's tokenizer.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing or a file is malformed.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = read(&path)?.ok_or_else(|| TokenizerError::Io {
            path: path.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|e| TokenizerError::Format { path, reason: e.to_string() })?;
        let settings = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let (bos, eos) = (token_text(&settings["bos_token"]), token_text(&settings["eos_token"]));
        let template_path = dir.join("chat_template.jinja");
        let own = match read(&template_path)? {
            Some(bytes) => Some(String::from_utf8(bytes).map_err(|e| TokenizerError::Format {
                path: template_path,
                reason: e.to_string(),
            })?),
            None => template_text(&settings["chat_template"]),
        };
        let mut eos_ids = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            if let Some(value) = read_json(&dir.join(file))? {
                eos_ids.extend(token_ids(value.get("eos_token_id")));
            }
        }
        Self::assemble(tokenizer, own.as_deref(), bos, eos, eos_ids)
            .map_err(|source| TokenizerError::Template { path: dir.into(), source })
    }

    /// Trains a byte-level BPE vocabulary of `vocab_size` tokens on texts, digits apart from each
    /// other. The first tokens are [`END_OF_TEXT`], [`TURN_BEGIN`], [`TURN_END`] and then
    /// `added`, each never split. The same texts in the same order give the same vocabulary.
    ///
    /// # Errors
    /// When the vocabulary cannot hold the 256 bytes and the added tokens.
    pub fn train<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocab_size: usize,
        added: &[&str],
    ) -> Result<Self, TokenizerError> {
        let mut tokens: Vec<&str> = vec![END_OF_TEXT, TURN_BEGIN, TURN_END];
        for &token in added {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        if vocab_size < 256 + tokens.len() {
            return Err(TokenizerError::Train(format!(
                "a vocabulary of {vocab_size} does not hold 256 bytes and {} added tokens",
                tokens.len()
            )));
        }
        let tokens: Vec<_> = tokens
            .iter()
            // Only what steers the template is special; tags of the tool format are plain text.
            .map(|&text| AddedToken::from(text, text.starts_with("<|")))
            .collect();
        let fail = |e: tokenizers::Error| TokenizerError::Train(e.to_string());
        let mut tokenizer = Tokenizer::new(BPE::default());
        let bytes = ByteLevel::new(false, true, true);
        tokenizer
            .with_pre_tokenizer(Some(Sequence::new(vec![
                PreTokenizerWrapper::Digits(Digits::new(true)),
                PreTokenizerWrapper::ByteLevel(bytes),
            ])))
            .with_decoder(Some(bytes));
        let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(tokens.clone())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build()
            .into();
        tokenizer.train(&mut trainer, texts).map_err(fail)?;
        tokenizer.add_tokens(&tokens);
        if !matches!(tokenizer.get_model(), ModelWrapper::BPE(_)) {
            return Err(TokenizerError::Train("the trainer gave another model".into()));
        }
        let eos_ids = Vec::new();
        let (bos, eos) = (None, Some(TURN_END.to_owned()));
        Self::assemble(tokenizer, None, bos, eos, eos_ids)
            .map_err(|e| TokenizerError::Train(e.to_string()))
    }

    fn assemble(
        tokenizer: Tokenizer,
        own: Option<&str>,
        bos: Option<String>,
        eos: Option<String>,
        mut eos_ids: Vec<u32>,
    ) -> Result<Self, TemplateError> {
        let template = ChatTemplate::new(
            own,
            bos.as_deref().unwrap_or_default(),
            eos.as_deref().unwrap_or_default(),
        )?;
        eos_ids.extend(eos.as_deref().and_then(|text| tokenizer.token_to_id(text)));
        // The built-in template closes turns with this one, whatever else ends a generation.
        eos_ids.extend(tokenizer.token_to_id(TURN_END));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        let mut special: Vec<(u32, String)> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        special.sort_unstable();
        let special_texts = special.into_iter().map(|(_, text)| text).collect();
        Ok(Self { tokenizer, template, bos, eos, eos_ids, special_texts })
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a folder that exists.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|source| TokenizerError::Io { path, source })
        };
        let text = self.tokenizer.to_string(false).map_err(|e| TokenizerError::Format {
            path: dir.join("tokenizer.json"),
            reason: e.to_string(),
        })?;
        write("tokenizer.json", text)?;
        let settings = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "clean_up_tokenization_spaces": false,
            "chat_template": self.template.source(),
        });
        write("tokenizer_config.json", format!("{settings:#}\n"))
    }

    /// Token ids of a text. Special tokens written out in it become their ids; nothing is added.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            Err(error) => {
                // Only a vocabulary without an unknown token, given a text it cannot spell.
                tracing::warn!(%error, "text without tokens");
                Vec::new()
            }
        }
    }

    /// Text of some ids, special tokens written out; bytes that are no UTF-8 together become
    /// replacement characters, ids outside the vocabulary nothing.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap_or_default()
    }

    /// The conversation as the chat template writes it. `tools` holds one JSON schema a tool.
    ///
    /// # Errors
    /// When the template raises.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        self.template.render(messages, tools, add_generation_prompt)
    }

    /// Tokens that end a turn, ascending.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Whether a token ends a turn.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.eos_ids.contains(&id)
    }

    /// Texts of the special tokens, by id.
    #[must_use]
    pub fn special_texts(&self) -> &[String] {
        &self.special_texts
    }

    /// The id of one token's exact text.
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    /// Tokens in all; the embedding must have at least as many rows.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |last| last as usize + 1)
    }

    /// The chat template in use.
    #[must_use]
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }
}

/// The content of a file; `None` when there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.into(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            let reason = format!("{} bytes are more than the {FILE_BYTES_MAX} read", found.len());
            return Err(TokenizerError::Format { path: path.into(), reason });
        }
        Ok(_) => {}
    }
    std::fs::read(path).map(Some).map_err(io)
}

fn read_json(path: &Path) -> Result<Option<Value>, TokenizerError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| TokenizerError::Format { path: path.into(), reason: e.to_string() })
}

/// A token's text, given bare or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// A template given bare, or as the list of named ones some models have: `tool_use` first.
fn template_text(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let list = value.as_array()?;
    let named = |name: &str| list.iter().find(|entry| entry["name"] == name);
    let entry = named("tool_use").or_else(|| named("default"))?;
    entry["template"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: [&str; 3] = [
        "def add(left, right):\n    return left + right\n",
        "def sub(left, right):\n    return left - right\n",
        "if value is not None and value != 17:\n    return left\n",
    ];

    #[test]
    fn a_trained_vocabulary_spells_any_text_and_reads_back_from_disk() {
        let trained =
            ChatTokenizer::train(CORPUS.into_iter(), 300, &["<tool_call>"]).expect("trains");
        let dir = tempfile::tempdir().expect("a folder");
        trained.save(dir.path()).expect("saves");
        let loaded = ChatTokenizer::open(dir.path()).expect("opens");
        let text = "<|im_start|>user\nreturn left 1984 – ünïcode\t<tool_call>x<|im_end|>";
        let ids = loaded.encode(text);
        assert_eq!(ids, trained.encode(text));
        assert_eq!(loaded.decode(&ids), text);
        assert_eq!(ids[0], loaded.token_id(TURN_BEGIN).expect("added"));
        assert!(loaded.is_end(*ids.last().expect("tokens")));
        assert!(ids.contains(&loaded.token_id("<tool_call>").expect("added")));
        assert!(loaded.vocab_size() <= 300);
        assert_eq!(loaded.special_texts(), [END_OF_TEXT, TURN_BEGIN, TURN_END]);
    }

    #[test]
    fn training_is_deterministic() {
        let ids = || {
            let trained = ChatTokenizer::train(CORPUS.into_iter(), 300, &[]).expect("trains");
            trained.encode("return left + value")
        };
        assert_eq!(ids(), ids());
    }

    #[test]
    fn a_folder_without_a_tokenizer_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let message = ChatTokenizer::open(dir.path()).expect_err("empty").to_string();
        assert!(message.contains("tokenizer.json"), "{message}");
    }
}
