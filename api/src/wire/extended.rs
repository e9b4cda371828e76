//! The extended protocol, as drivers speak it: a statement is prepared, bound, described and executed in messages of its own.
//!
//! It has no parameters here: values are part of the text. What describes a question asks it, and an execution that follows soon
//! has those rows, so that it is asked once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BufMut;

use super::{
    channel::{Broken, Fields, message},
    question::Answer,
    refusal::{Refusal, Trouble},
    session::{Block, Outcome, Session, put_rows},
    statement::{Statement, has_parameter},
    value::{Formats, put_columns},
};

/// Prepared statements of a session.
const MAX_STATEMENTS: usize = 64;
/// Bytes of their names and texts.
const MAX_STATEMENT_BYTES: usize = 1 << 20;
/// Portals of a session, each of which may hold an answer.
const MAX_PORTALS: usize = 2;
/// How long the rows of a description are those of an execution. What was prepared long before it is executed reads the epoch that
/// is the newest then.
const DESCRIBED_FOR: Duration = Duration::from_secs(15);

/// What a session keeps between messages.
#[derive(Default)]
pub(super) struct Kept {
    /// The texts, by name.
    statements: HashMap<String, Arc<str>>,
    portals: HashMap<String, Portal>,
    /// The statement that was described last.
    described: Option<Described>,
}

/// A statement whose rows are known.
struct Described {
    name: String,
    answer: Arc<Answer>,
    since: Instant,
}

/// A statement that is to be executed.
struct Portal {
    sql: Arc<str>,
    answer: Option<Arc<Answer>>,
    /// Rows that were sent.
    sent: usize,
    formats: Arc<Formats>,
}

impl Kept {
    /// Portals live as long as their transaction.
    pub(super) fn end_of_turn(&mut self, block: Block) {
        if block == Block::None {
            self.portals.clear();
        }
    }

    pub(super) fn forget_described(&mut self) {
        self.described = None;
    }

    /// The rows of a statement that was described just now, once.
    fn take_described(&mut self, name: &str, now: Instant) -> Option<Arc<Answer>> {
        let described = self.described.take_if(|described| described.name == name)?;
        (now.saturating_duration_since(described.since) < DESCRIBED_FOR).then_some(described.answer)
    }

    /// Forgets a statement, or all.
    pub(super) fn deallocate(&mut self, name: Option<&str>) {
        match name {
            Some(name) => self.close_statement(name),
            None => {
                self.statements.clear();
                self.described = None;
            }
        }
    }

    fn close_statement(&mut self, name: &str) {
        self.statements.remove(name);
        if self.described.as_ref().is_some_and(|described| described.name == name) {
            self.described = None;
        }
    }

    fn statement(&self, name: &str) -> Result<Arc<str>, Refusal> {
        let found = self.statements.get(name).cloned();
        found.ok_or_else(|| Refusal::new("26000", "there is no prepared statement of this name"))
    }

    fn portal(&mut self, name: &str) -> Result<&mut Portal, Refusal> {
        self.portals.get_mut(name).ok_or_else(|| Refusal::new("34000", "there is no portal of this name"))
    }
}

impl Session {
    /// Does what a message asks for.
    pub(super) async fn extended(&mut self, kind: u8, mut fields: Fields) -> Result<(), Trouble> {
        match kind {
            b'P' => self.prepare(&mut fields),
            b'B' => self.bind(&mut fields),
            b'D' => match fields.byte()? {
                b'S' => self.describe_statement(&fields.text()?).await,
                b'P' => self.describe_portal(&fields.text()?).await,
                _ => Err(Broken::Malformed("what is to be described is neither a statement nor a portal").into()),
            },
            b'E' => {
                let name = fields.text()?;
                self.execute(&name, fields.int32()?).await
            }
            b'C' => {
                match fields.byte()? {
                    b'S' => self.kept.close_statement(&fields.text()?),
                    b'P' => drop(self.kept.portals.remove(&fields.text()?)),
                    _ => {
                        return Err(
                            Broken::Malformed("what is to be closed is neither a statement nor a portal").into()
                        );
                    }
                }
                message(self.channel.out(), b'3', |_| {});
                Ok(())
            }
            _ => Err(Broken::Malformed("a message of this kind is not understood here").into()),
        }
    }

    fn prepare(&mut self, fields: &mut Fields) -> Result<(), Trouble> {
        let (name, sql) = (fields.text()?, fields.text()?);
        if fields.int16()? != 0 || has_parameter(&sql) {
            return Err(parameters().into());
        }
        Statement::of(&sql)?;
        self.kept.close_statement(&name);
        let kept = &mut self.kept.statements;
        let bytes = kept.iter().fold(name.len() + sql.len(), |bytes, (name, sql)| bytes + name.len() + sql.len());
        if kept.len() >= MAX_STATEMENTS || bytes > MAX_STATEMENT_BYTES {
            let words = format!(
                "prepared statements: at most {MAX_STATEMENTS} with {MAX_STATEMENT_BYTES} bytes, found {} and one more with {bytes} \
                 bytes together: `DEALLOCATE` some",
                kept.len()
            );
            return Err(Refusal::new("54000", words).into());
        }
        kept.insert(name, sql.into());
        message(self.channel.out(), b'1', |_| {});
        Ok(())
    }

    fn bind(&mut self, fields: &mut Fields) -> Result<(), Trouble> {
        let (name, statement) = (fields.text()?, fields.text()?);
        for _ in 0..fields.int16()? {
            fields.int16()?;
        }
        if fields.int16()? != 0 {
            return Err(parameters().into());
        }
        let formats = Arc::new(Formats::read(fields)?);
        let sql = self.kept.statement(&statement)?;
        self.kept.portals.remove(&name);
        if self.kept.portals.len() >= MAX_PORTALS {
            let words = format!("there are {MAX_PORTALS} portals already: read and close one first");
            return Err(Refusal::new("54000", words).into());
        }
        let answer = self.kept.take_described(&statement, Instant::now());
        self.kept.portals.insert(name, Portal { sql, answer, sent: 0, formats });
        message(self.channel.out(), b'2', |_| {});
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Trouble> {
        let sql = self.kept.statement(name)?;
        self.kept.forget_described();
        let answer = self.rows_of(&sql).await?;
        let out = self.channel.out();
        // No parameters.
        message(out, b't', |out| out.put_i16(0));
        match &answer {
            Some(answer) => put_columns(out, &answer.columns, &Formats::default()),
            None => message(out, b'n', |_| {}),
        }
        self.kept.described = answer.map(|answer| Described { name: name.to_owned(), answer, since: Instant::now() });
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Trouble> {
        let portal = self.kept.portal(name)?;
        let (sql, formats) = (Arc::clone(&portal.sql), Arc::clone(&portal.formats));
        let answer = match portal.answer.clone() {
            Some(answer) => Some(answer),
            None => self.rows_of(&sql).await?,
        };
        match &answer {
            Some(answer) => {
                formats.check(answer.columns.len())?;
                put_columns(self.channel.out(), &answer.columns, &formats);
            }
            None => message(self.channel.out(), b'n', |_| {}),
        }
        self.kept.portal(name)?.answer = answer;
        Ok(())
    }

    /// The rows that a statement gives; none for one that gives none, which is not carried out yet.
    async fn rows_of(&mut self, sql: &str) -> Result<Option<Arc<Answer>>, Trouble> {
        if !Statement::of(sql)?.has_rows() {
            return Ok(None);
        }
        Ok(match self.carry_out(sql).await? {
            Outcome::Rows(answer) => Some(answer),
            Outcome::Empty | Outcome::Done(_) => None,
        })
    }

    async fn execute(&mut self, name: &str, most: i32) -> Result<(), Trouble> {
        let portal = self.kept.portal(name)?;
        let (sql, formats, from) = (Arc::clone(&portal.sql), Arc::clone(&portal.formats), portal.sent);
        let answer = match portal.answer.clone() {
            Some(answer) => answer,
            None => match self.carry_out(&sql).await? {
                Outcome::Rows(answer) => answer,
                Outcome::Done(word) => {
                    self.say_complete(word);
                    return Ok(());
                }
                Outcome::Empty => {
                    message(self.channel.out(), b'I', |_| {});
                    return Ok(());
                }
            },
        };
        let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let (sent, has_more) = put_rows(&mut self.channel, &answer, from, most, &formats).await?;
        if has_more {
            message(self.channel.out(), b's', |_| {});
        } else {
            self.say_complete(&format!("SELECT {sent}"));
        }
        let portal = self.kept.portal(name)?;
        portal.sent = from + sent;
        portal.answer = Some(answer);
        Ok(())
    }
}

fn parameters() -> Refusal {
    let words =
        "parameters are not taken here: write the values into the SQL, as drivers do that bind on their own side";
    Refusal::new("0A000", words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_description_are_those_of_one_execution_that_follows_soon() {
        let since = Instant::now();
        let described = || {
            let answer = Arc::new(Answer::of_text("n", "1").unwrap());
            Kept { described: Some(Described { name: "s".to_owned(), answer, since }), ..Kept::default() }
        };
        let mut kept = described();
        assert!(kept.take_described("other", since).is_none());
        assert!(kept.take_described("s", since + DESCRIBED_FOR / 2).is_some(), "another statement takes nothing away");
        assert!(kept.take_described("s", since).is_none(), "the next execution asks again");
        let mut kept = described();
        assert!(kept.take_described("s", since + DESCRIBED_FOR).is_none());
        assert!(kept.described.is_none(), "what is too old is not kept");
    }
}
