//! What the scaffold needs of a model's tokenizer and chat template. Implemented where the model
//! is; this crate never sees a tokenizer file.

use crrl_types::Message;

/// A chat template that refused the conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("chat template: {0}")]
pub struct RenderError(pub String);

/// A tokenizer with its chat template.
pub trait ChatCodec: Send + Sync {
    /// Token ids of a piece of template text. Special tokens written out in the text become their
    /// ids; nothing (no beginning-of-sequence token either) is added.
    fn encode(&self, text: &str) -> Vec<u32>;

    /// Text of some ids, special tokens written out. Ids that are no valid UTF-8 together become
    /// replacement characters.
    fn decode(&self, ids: &[u32]) -> String;

    /// The conversation as the chat template writes it.
    ///
    /// `tools` holds one JSON schema a tool, in the form `{"type": "function", "function": {..}}`.
    ///
    /// # Errors
    /// When the template itself raises, or asks for something it is not given.
    fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<String, RenderError>;

    /// Whether an id ends a turn.
    fn is_end(&self, id: u32) -> bool;

    /// Texts of the special tokens. They are defused in tool output and issue statements, so that
    /// a file the agent prints cannot open a turn of its own.
    fn special_texts(&self) -> &[String];
}
