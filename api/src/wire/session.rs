//! [`Session`]: what goes on between a log-in and the end of a connection: questions by the simple protocol, and transactions,
//! which are nothing but a state that drivers want to see.

use std::{sync::Arc, time::Duration};

use bytes::BufMut;
use karat_http::Overdue;
use tokio::time::timeout;

use super::{
    cancel::Registered,
    channel::{Broken, Channel, Fields, message, text},
    end,
    extended::Kept,
    question::{Answer, Asker},
    refusal::{IDLE, Refusal, Trouble},
    statement::{Facts, Statement},
    value::{Formats, put_columns, put_row},
};
use crate::live::{ending::Ending, guard::Guard};

/// The longest between two messages of a client.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// A connection that has logged in.
pub(super) struct Session {
    pub(super) channel: Channel,
    guard: Guard,
    asker: Asker,
    facts: Facts,
    registered: Registered,
    pub(super) block: Block,
    pub(super) kept: Kept,
}

/// Whether a client says that it is in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    None,
    Open,
    Failed,
}

/// What came of a statement.
pub(super) enum Outcome {
    Empty,
    /// Nothing to show; the word for it.
    Done(&'static str),
    Rows(Arc<Answer>),
}

impl Session {
    pub(super) fn new(channel: Channel, guard: Guard, asker: Asker, facts: Facts, registered: Registered) -> Self {
        Self { channel, guard, asker, facts, registered, block: Block::None, kept: Kept::default() }
    }

    /// Goes on until the client or the server ends it; what was overdue, when that is why.
    pub(super) async fn run(mut self) -> Option<Overdue> {
        match self.converse().await {
            Ok(()) => {
                self.channel.close().await;
                None
            }
            Err(trouble) => {
                let overdue = trouble.overdue();
                end(self.channel, trouble).await;
                overdue
            }
        }
    }

    async fn converse(&mut self) -> Result<(), Trouble> {
        self.say_ready().await?;
        // After a refusal in the extended protocol nothing counts until the client knows of it.
        let mut is_skipping = false;
        loop {
            let (kind, fields) = self.hear().await?;
            match kind {
                b'X' => return Ok(()),
                b'S' => {
                    is_skipping = false;
                    self.kept.end_of_turn(self.block);
                    self.say_ready().await?;
                }
                b'H' => self.channel.send().await?,
                _ if is_skipping => {}
                b'Q' => {
                    let asked = self.ask_at_once(fields).await;
                    self.refuse(asked)?;
                    self.kept.end_of_turn(self.block);
                    self.say_ready().await?;
                }
                _ => {
                    let answered = self.extended(kind, fields).await;
                    is_skipping = self.refuse(answered)?;
                    // A client may wait for it before it says anything else.
                    if is_skipping { self.channel.send().await? } else { self.channel.send_parts().await? }
                }
            }
        }
    }

    /// The next message, unless the session has to end.
    async fn hear(&mut self) -> Result<(u8, Fields), Trouble> {
        let Self { channel, guard, .. } = self;
        tokio::select! {
            heard = timeout(SILENCE, channel.next(true)) => match heard {
                Ok(heard) => Ok(heard?),
                Err(_) => Err(Refusal::new(IDLE, "nothing was asked for half an hour").into()),
            },
            ending = guard.ended() => Err(match ending {
                Ending::ServerStops => Refusal::new("57P01", "the server stops: connect again in a moment"),
                _ => Refusal::new("28000", "the API key does not hold any more: log in with another one"),
            }.into()),
        }
    }

    /// The simple protocol: a text, and all that comes of it.
    async fn ask_at_once(&mut self, mut fields: Fields) -> Result<(), Trouble> {
        let sql = fields.text()?;
        self.kept.forget_described();
        match self.carry_out(&sql).await? {
            Outcome::Empty => message(self.channel.out(), b'I', |_| {}),
            Outcome::Done(word) => self.say_complete(word),
            Outcome::Rows(answer) => {
                let formats = Formats::default();
                put_columns(self.channel.out(), &answer.columns, &formats);
                let (sent, _) = put_rows(&mut self.channel, &answer, 0, usize::MAX, &formats).await?;
                self.say_complete(&format!("SELECT {sent}"));
            }
        }
        Ok(())
    }

    /// Does what a statement asks for.
    pub(super) async fn carry_out(&mut self, sql: &str) -> Result<Outcome, Trouble> {
        let statement = Statement::of(sql)?;
        let ends_block = matches!(statement, Statement::Commit | Statement::Rollback);
        if self.block == Block::Failed && !ends_block && statement != Statement::Empty {
            let words = "the transaction has failed: nothing is answered before `ROLLBACK`";
            return Err(Refusal::new("25P02", words).into());
        }
        Ok(match statement {
            Statement::Empty => Outcome::Empty,
            Statement::Begin => {
                self.block = Block::Open;
                Outcome::Done("BEGIN")
            }
            Statement::Commit | Statement::Rollback => {
                let is_kept = statement == Statement::Commit && self.block != Block::Failed;
                self.block = Block::None;
                Outcome::Done(if is_kept { "COMMIT" } else { "ROLLBACK" })
            }
            Statement::Ignored(word) => Outcome::Done(word),
            Statement::Discard => {
                self.kept.deallocate(None);
                Outcome::Done("DISCARD ALL")
            }
            Statement::Deallocate(name) => {
                self.kept.deallocate(name.as_deref());
                Outcome::Done("DEALLOCATE")
            }
            Statement::Tell(name) => {
                let unknown = || Refusal::new("42704", "there is no setting of this name here");
                let value = self.facts.tell(&name).ok_or_else(unknown)?;
                Outcome::Rows(Arc::new(Answer::of_text(&name.replace(' ', "_"), &value)?))
            }
            Statement::Question => Outcome::Rows(Arc::new(self.ask(sql).await?)),
        })
    }

    /// Asks a question for as long as the client waits for it.
    async fn ask(&mut self, sql: &str) -> Result<Answer, Trouble> {
        let Self { channel, asker, registered, .. } = self;
        tokio::select! {
            answer = asker.ask(sql) => Ok(answer?),
            () = channel.gone() => Err(Broken::Gone.into()),
            () = registered.cancelled() => Err(Refusal::new("57014", "the question was broken off").into()),
        }
    }

    /// Tells of a refusal, after which the session goes on; whether there was one.
    fn refuse(&mut self, result: Result<(), Trouble>) -> Result<bool, Trouble> {
        match result {
            Ok(()) => Ok(false),
            Err(Trouble::Refused(refusal)) => {
                if self.block == Block::Open {
                    self.block = Block::Failed;
                }
                refusal.write(self.channel.out());
                Ok(true)
            }
            Err(broken) => Err(broken),
        }
    }

    pub(super) fn say_complete(&mut self, word: &str) {
        message(self.channel.out(), b'C', |out| text(out, word));
    }

    async fn say_ready(&mut self) -> Result<(), Trouble> {
        let state = match self.block {
            Block::None => b'I',
            Block::Open => b'T',
            Block::Failed => b'E',
        };
        message(self.channel.out(), b'Z', |out| out.put_u8(state));
        Ok(self.channel.send().await?)
    }
}

/// Sends rows from one on, at most so many: how many they were, and whether there are more.
pub(super) async fn put_rows(
    channel: &mut Channel,
    answer: &Answer,
    from: usize,
    most: usize,
    formats: &Formats,
) -> Result<(usize, bool), Trouble> {
    formats.check(answer.columns.len())?;
    let mut sent = 0;
    for row in answer.rows.iter().skip(from).take(most) {
        put_row(channel.out(), &answer.columns, row, formats)?;
        sent += 1;
        channel.send_parts().await?;
    }
    Ok((sent, from + sent < answer.rows.len()))
}
