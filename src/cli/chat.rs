//! Connections that stay open, and who answers the chat.

use clap::{Args, ValueEnum};
use karat_api::live::{ChatProvider, LiveSettings};
use url::Url;

use super::secret;
use crate::failure::{Failure, Result};

/// Who answers the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Provider {
    /// Filler text.
    #[default]
    LoremIpsum,
    /// A server with the interface of OpenAI's chat completions.
    OpenaiCompatible,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Live connections")]
pub struct LiveArgs {
    /// WebSockets and streams of events that are open at a time, of all users.
    #[arg(long, value_name = "NUMBER", env = "KARAT__SERVER__STREAMS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: u32,
    /// The same of one user.
    #[arg(long, value_name = "NUMBER", env = "KARAT__SERVER__STREAMS_PER_USER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub streams_per_user: u32,
    /// Who answers the chat.
    #[arg(long, env = "KARAT__CHAT__PROVIDER", value_enum, default_value_t)]
    pub chat_provider: Provider,
    /// The server that answers, for `openai-compatible`: what stands before /v1/chat/completions.
    #[arg(long, env = "KARAT__CHAT__URL", value_name = "URL")]
    pub chat_url: Option<String>,
    /// The model that it is asked for.
    #[arg(long, env = "KARAT__CHAT__MODEL", value_name = "NAME")]
    pub chat_model: Option<String>,
    /// Its key, or @FILE; none is sent when absent.
    #[arg(long, env = "KARAT__CHAT__KEY", hide_env_values = true, value_name = "KEY")]
    pub chat_key: Option<String>,
}

impl LiveArgs {
    /// Puts the arguments into the settings.
    pub fn apply(&self, settings: &mut LiveSettings) -> Result<()> {
        let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        settings.connections = number(self.streams);
        settings.connections_per_user = number(self.streams_per_user);
        settings.chat = self.chat()?;
        Ok(())
    }

    fn chat(&self) -> Result<ChatProvider> {
        if self.chat_provider == Provider::LoremIpsum {
            return Ok(ChatProvider::LoremIpsum);
        }
        let (Some(url), Some(model)) = (&self.chat_url, &self.chat_model) else {
            return Err(Failure::configuration(
                "`chat.provider` is `openai-compatible`, which needs `chat.url` and `chat.model`",
            ));
        };
        let wrong = || {
            Failure::configuration("`chat.url` must be `https://HOST` or `http://HOST`, and what is in front of `/v1`")
        };
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(wrong)?;
        let key = self.chat_key.as_deref().map(secret).transpose()?.map(Into::into);
        Ok(ChatProvider::OpenAiCompatible { url, model: model.clone(), key })
    }
}
