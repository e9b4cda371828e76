//! `karat.toml`: values below those of the environment and of the command line.
//!
//! A value is text, a number, a flag, a list of these, or where a secret is: `{ env = "NAME" }` or `{ file = "PATH" }`, from
//! the folder of `karat.toml`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, error::ContextKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::key_of;

/// Read when it is in the working folder and nothing else is named.
const USUAL: &str = "karat.toml";

/// Names the file in the environment.
const VARIABLE: &str = "KARAT_CONFIG";

/// The values of a file, by `section.key`.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub line: usize,
    pub values: Vec<String>,
    /// Written in the file itself, instead of where the file says.
    pub is_plain: bool,
    /// The files that it names instead.
    pub files: Vec<PathBuf>,
}

/// A value of the file, as it was found.
struct Value {
    text: String,
    is_plain: bool,
    file: Option<PathBuf>,
}

/// The file that the words or the environment name, or the usual one when it is there.
pub(super) fn path(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(USUAL)).filter(|path| path.is_file()))
}

/// Reads a file of settings, which are the options of `command`.
///
/// # Errors
/// Every problem, as `FILE:LINE: what is wrong`. Values are never shown: they may be secrets.
pub(super) fn read(path: &Path, command: &Command) -> Result<ConfigFile, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("`{}`: {error}", path.display())])?;
    let mut reader = Reader {
        path,
        text: &text,
        options: options(command),
        file: ConfigFile { path: path.to_owned(), entries: BTreeMap::new() },
        problems: Vec::new(),
    };
    reader.read();
    if reader.problems.is_empty() {
        return Ok(reader.file);
    }
    reader.problems.sort();
    Err(reader.problems.into_iter().map(|(line, what)| format!("{}:{line}: {what}", path.display())).collect())
}

impl ConfigFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Puts the values where the defaults of the options were.
    pub(super) fn under(&self, mut command: Command) -> Command {
        let known = command.get_arguments().filter_map(|option| {
            let key = key_of(option.get_env()?.to_str()?)?;
            Some((option.get_id().clone(), self.entries.get(&key)?))
        });
        for (id, entry) in known.collect::<Vec<_>>() {
            command = command.mut_arg(id, |option| {
                let is_secret = option.is_hide_env_values_set();
                option.default_values(entry.values.clone()).hide_default_value(is_secret)
            });
        }
        let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |verb| self.under(verb)))
    }
}

/// Every option that is a setting, by `section.key`, with those of verbs.
fn options(command: &Command) -> BTreeMap<String, Arg> {
    let own = command.get_arguments().filter_map(|option| Some((key_of(option.get_env()?.to_str()?)?, option.clone())));
    command.get_subcommands().flat_map(options).chain(own).collect()
}

struct Reader<'t> {
    path: &'t Path,
    text: &'t str,
    options: BTreeMap<String, Arg>,
    file: ConfigFile,
    problems: Vec<(usize, String)>,
}

impl<'t> Reader<'t> {
    fn read(&mut self) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let line = error.span().map_or(1, |span| self.line(span.start));
            self.problems.push((line, error.message().to_owned()));
        }
        for (name, value) in table.into_inner() {
            let line = self.line(name.span().start);
            let name = name.into_inner();
            match value.get_ref() {
                DeValue::Table(section) if reference(section).is_none() => {
                    for (key, value) in section.iter() {
                        let line = self.line(key.span().start);
                        self.entry(format!("{name}.{}", key.get_ref()), line, value);
                    }
                }
                _ => self.entry(name.into_owned(), line, &value),
            }
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    fn entry(&mut self, key: String, line: usize, value: &Spanned<DeValue<'t>>) {
        let Some(option) = self.options.get(&key) else {
            let what = self.unknown(&key);
            return self.problems.push((line, what));
        };
        let is_secret = option.is_hide_env_values_set();
        let read = values(value.get_ref(), self.path, is_secret).and_then(|found| {
            let is_plain = found.iter().any(|value| value.is_plain);
            let files = found.iter().filter_map(|value| value.file.clone()).collect();
            let values: Vec<String> = found.into_iter().map(|value| value.text).collect();
            check(option, &values)?;
            Ok(Entry { line, values, is_plain, files })
        });
        match read {
            Ok(entry) => drop(self.file.entries.insert(key, entry)),
            Err(what) => self.problems.push((line, format!("`{key}`: {what}"))),
        }
    }

    fn unknown(&self, key: &str) -> String {
        let section = key.split_once('.').map_or("", |(section, _)| section);
        let begins = format!("{section}.");
        let near: Vec<&str> =
            self.options.keys().filter(|known| known.starts_with(&begins)).map(String::as_str).collect();
        if near.is_empty() {
            let known: Vec<&str> = self.options.keys().map(String::as_str).collect();
            return format!("`{key}` is no setting: known are {}", known.join(", "));
        }
        format!("`{key}` is no setting: [{section}] has {}", near.join(", "))
    }
}

/// Where a secret is, when a table says that and nothing else.
fn reference<'a>(table: &'a DeTable<'_>) -> Option<(&'a str, &'a str)> {
    let mut entries = table.iter();
    let (key, value) = entries.next()?;
    let key = key.get_ref().as_ref();
    let is_alone = entries.next().is_none();
    Some((key, value.get_ref().as_str()?)).filter(|_| is_alone && matches!(key, "env" | "file"))
}

fn values(value: &DeValue<'_>, path: &Path, is_secret: bool) -> Result<Vec<Value>, String> {
    match value {
        DeValue::Array(list) => list.iter().map(|value| one(value.get_ref(), path, is_secret)).collect(),
        value => Ok(vec![one(value, path, is_secret)?]),
    }
}

fn one(value: &DeValue<'_>, path: &Path, is_secret: bool) -> Result<Value, String> {
    let mut source = None;
    let found = match value {
        DeValue::Table(table) => match reference(table) {
            Some(("env", name)) => std::env::var(name).map_err(|_| format!("the environment has no `{name}`"))?,
            Some((_, file)) => {
                let file = path.parent().unwrap_or_else(|| Path::new("")).join(file);
                let found = std::fs::read_to_string(&file).map_err(|error| format!("`{}`: {error}", file.display()))?;
                source = Some(file);
                found.trim_end().to_owned()
            }
            None => return Err("expected a value, or `{ env = \"NAME\" }`, or `{ file = \"PATH\" }`".to_owned()),
        },
        other => {
            let written = text(other).ok_or("expected a text, a number, true or false, or a list of these")?;
            return Ok(Value { text: written, is_plain: true, file: None });
        }
    };
    // What was found is the secret itself, and not the name of a file.
    let is_like_a_name = is_secret && found.starts_with('@');
    let text = if is_like_a_name { format!("@{found}") } else { found };
    Ok(Value { text, is_plain: false, file: source })
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        // With the prefix of another base, which no option takes.
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Whether the option takes the values: asked of an option of its own, so that the line of the file can be named.
fn check(option: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        let is_flag = matches!(values, [value] if value == "true" || value == "false");
        return if is_flag { Ok(()) } else { Err("expected true or false".to_owned()) };
    }
    if values.len() > 1 && !matches!(option.get_action(), ArgAction::Append) {
        return Err("expected one value, not a list".to_owned());
    }
    let id = option.get_id().as_str();
    let words = values.iter().map(|value| format!("--{}={value}", option.get_long().unwrap_or(id)));
    let alone = Command::new("karat").no_binary_name(true).disable_help_flag(true).arg(option.clone());
    alone.try_get_matches_from(words).map(drop).map_err(|error| {
        let possible =
            error.context().find_map(|(kind, value)| (kind == ContextKind::ValidValue).then(|| value.to_string()));
        // Not what clap says, which has the value.
        possible.map_or_else(
            || "the value is not one that this setting takes".to_owned(),
            |possible| format!("expected one of {possible}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{super::PREFIX, *};
    use crate::cli::Cli;

    fn read_text(text: &str) -> Result<ConfigFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("karat.toml");
        std::fs::write(folder.path().join("password"), "postgres://karat:from-file@db/karat\n").unwrap();
        std::fs::write(&path, text).unwrap();
        let begins = format!("{}:", path.display());
        read(&path, &Cli::command()).map_err(|problems| problems.join("\n").replace(&begins, ""))
    }

    #[test]
    fn values_are_read_with_their_lines_and_secrets_from_where_they_are() {
        let file = read_text(
            "environment = \"staging\"\n[server]\nlisten = \"127.0.0.1:9\"\nallowed_hosts = [\"a.org\", \"b.org\"]\n\
             [database]\nurl = { file = \"password\" }\nconnections = 1_0\n[access]\nlong_passwords = true\n",
        )
        .unwrap();
        let hosts = file.entry("server.allowed_hosts").unwrap();
        assert_eq!((hosts.line, hosts.values.len(), hosts.is_plain), (4, 2, true));
        let url = file.entry("database.url").unwrap();
        assert_eq!((url.values[0].as_str(), url.is_plain), ("postgres://karat:from-file@db/karat", false));
        assert!(url.files[0].ends_with("password") && hosts.files.is_empty());
        assert_eq!(file.entry("database.connections").unwrap().values, ["10"]);
        let command = file.under(Cli::command());
        let matches = command.get_matches_from(["karat", "up"]);
        let up = matches.subcommand_matches("up").unwrap();
        assert_eq!(up.get_one::<u32>("database_connections"), Some(&10));
        assert_eq!(up.get_one::<bool>("long_passwords"), Some(&true));
        assert_eq!(up.get_many::<String>("allowed_hosts").unwrap().count(), 2);
        let off = file.under(Cli::command()).get_matches_from(["karat", "up", "--long-passwords=false"]);
        assert_eq!(off.subcommand_matches("up").unwrap().get_one::<bool>("long_passwords"), Some(&false));
    }

    #[test]
    fn every_problem_is_named_with_its_line_and_without_the_value() {
        let problems = read_text(
            "enviroment = \"test\"\n[server]\nlisten = \"canary\"\nlisten_on = 1\n[database]\nconnections = \"canary\"\n\
             url = { env = \"KARAT_TEST_IS_NOT_SET\" }\n[access]\nlong_passwords = \"canary\"\nproviders = { a = 1 }\n",
        )
        .unwrap_err();
        let lines: Vec<&str> = problems.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["1", "3", "4", "6", "7", "9", "10"], "{problems}");
        for expected in ["`enviroment` is no setting", "[server] has ", "server.listen", "KARAT_TEST_IS_NOT_SET"] {
            assert!(problems.contains(expected), "{expected}: {problems}");
        }
        assert!(!problems.contains("canary"), "{problems}");
    }

    #[test]
    fn every_variable_is_a_setting_of_the_file() {
        let options = options(&Cli::command());
        assert!(options.len() > 25, "{options:?}");
        assert!(options.values().all(|option| option.get_env().unwrap().to_str().unwrap().starts_with(PREFIX)));
    }
}
