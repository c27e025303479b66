//! A codec small enough to read: one id a character, special tokens above, Qwen's turn format. It
//! merges the digraph "ab" into one token, so that a text and its pieces may encode differently.

use crrl_agent::{ChatCodec, RenderError};
use crrl_types::{Message, Role};

pub(crate) const SPECIAL: u32 = 0x11_0000;

pub(crate) const END: u32 = SPECIAL + 1;
pub(crate) const END_OF_TEXT: u32 = SPECIAL + 2;
pub(crate) const AB: u32 = SPECIAL + 3;

pub(crate) struct ToyCodec {
    pub(crate) specials: Vec<String>,
    /// Render fails from this many messages on.
    pub(crate) messages_max: usize,
}

impl Default for ToyCodec {
    fn default() -> Self {
        let specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];
        Self { specials: specials.map(str::to_owned).to_vec(), messages_max: usize::MAX }
    }
}

impl ChatCodec for ToyCodec {
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut rest = text;
        'next: while let Some(c) = rest.chars().next() {
            for (index, special) in self.specials.iter().enumerate() {
                if let Some(after) = rest.strip_prefix(special.as_str()) {
                    ids.push(SPECIAL + index as u32);
                    rest = after;
                    continue 'next;
                }
            }
            if let Some(after) = rest.strip_prefix("ab") {
                ids.push(AB);
                rest = after;
                continue;
            }
            ids.push(u32::from(c));
            rest = &rest[c.len_utf8()..];
        }
        ids
    }

    fn decode(&self, ids: &[u32]) -> String {
        ids.iter()
            .map(|id| match *id {
                AB => "ab".to_owned(),
                id if id >= SPECIAL => self
                    .specials
                    .get((id - SPECIAL) as usize)
                    .cloned()
                    .unwrap_or_else(|| "\u{fffd}".to_owned()),
                id => char::from_u32(id).unwrap_or('\u{fffd}').to_string(),
            })
            .collect()
    }

    fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<String, RenderError> {
        if messages.len() > self.messages_max {
            return Err(RenderError("too many messages".to_owned()));
        }
        let mut text = String::new();
        for message in messages {
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            text.push_str(&format!("<|im_start|>{role}\n{}", message.content));
            if message.role == Role::System {
                tools.iter().for_each(|tool| text.push_str(&format!("\n{tool}")));
            }
            text.push_str("<|im_end|>\n");
        }
        if add_generation_prompt {
            text.push_str("<|im_start|>assistant\n");
        }
        Ok(text)
    }

    fn is_end(&self, id: u32) -> bool {
        id == END || id == END_OF_TEXT
    }

    fn special_texts(&self) -> &[String] {
        &self.specials
    }
}
