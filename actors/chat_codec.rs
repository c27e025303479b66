//! The model's tokenizer and chat template, as the scaffold sees them.

use std::path::Path;
use std::sync::Arc;

use crrl_agent::{ChatCodec, RenderError};
use crrl_model::ChatTokenizer;
use crrl_model::tokenizer::TokenizerError;
use crrl_types::Message;

/// A model folder's tokenizer and chat template.
#[derive(Debug)]
pub struct ModelCodec(ChatTokenizer);

impl ModelCodec {
    /// Reads a model folder's tokenizer.
    ///
    /// # Errors
    /// When a file is missing or malformed.
    pub fn open(dir: &Path) -> Result<Arc<dyn ChatCodec>, TokenizerError> {
        Ok(Arc::new(Self(ChatTokenizer::open(dir)?)))
    }
}

impl From<ChatTokenizer> for ModelCodec {
    fn from(tokenizer: ChatTokenizer) -> Self {
        Self(tokenizer)
    }
}

impl ChatCodec for ModelCodec {
    fn encode(&self, text: &str) -> Vec<u32> {
        self.0.encode(text)
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.0.decode(ids)
    }

    fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<String, RenderError> {
        self.0
            .render(messages, tools, add_generation_prompt)
            .map_err(|error| RenderError(error.to_string()))
    }

    fn is_end(&self, id: u32) -> bool {
        self.0.is_end(id)
    }

    fn special_texts(&self) -> &[String] {
        self.0.special_texts()
    }
}
