//! The command line: nouns and verbs.

mod access;
mod chat;
mod database;
mod replay;
mod sql;
mod telemetry;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use access::{AccessArgs, secret};
pub use chat::LiveArgs;
pub use database::{DatabaseArgs, RedisArgs};
pub use replay::{ReplayCommand, ReplayRange};
pub use sql::SqlArgs;
pub use telemetry::TelemetryArgs;

use crate::commands::publish::PublishArgs;

/// Events in, gold out: an event-driven ETL platform in one program.
#[derive(Debug, Parser)]
#[command(
    name = "karat",
    version,
    after_help = "Examples:\n  karat up --demo\n  karat publish runs.ndjson --key kk_..."
)]
pub struct Cli {
    /// Shows more of what the program does, on standard error.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Form of the log lines on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "KARAT__LOG__FORMAT")]
    pub log_format: LogFormat,
    /// What is logged, such as `info,karat_transform=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "KARAT__LOG__LEVELS")]
    pub log_levels: Option<String>,
    /// The file of settings; `karat.toml` in the working folder when it is there.
    #[arg(long, global = true, value_name = "FILE", env = "KARAT_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every role in one process.
    #[command(after_help = "Examples:\n  karat up --demo\n  karat up --data-dir /srv/karat --listen 0.0.0.0:8080")]
    Up(UpArgs),
    /// Run the doors: HTTP in, log out. Needs Kafka.
    #[command(
        after_help = "Examples:\n  karat ingest --kafka broker:9092\n  karat ingest --kafka broker:9092 --listen 0.0.0.0:8081"
    )]
    Ingest(ServeArgs),
    /// Run the pipelines: log in, tables out. Needs Kafka.
    #[command(
        after_help = "Examples:\n  karat transform --kafka broker:9092\n  karat transform --kafka broker:9092 --pipelines pipelines.toml"
    )]
    Transform(TransformArgs),
    /// Run the query API: gold in, HTTP out. Needs Kafka.
    #[command(
        after_help = "Examples:\n  karat api --kafka broker:9092\n  karat api --kafka broker:9092 --listen 0.0.0.0:8080"
    )]
    Api(ServeArgs),
    /// Check pipelines.toml: every problem at once, with its line.
    #[command(after_help = "Examples:\n  karat validate\n  karat validate my/pipelines.toml")]
    Validate {
        /// The file; the built-in pipelines when absent.
        file: Option<PathBuf>,
    },
    /// Publish files of events.
    Publish(PublishArgs),
    /// Show how far each pipeline is.
    #[command(after_help = "Examples:\n  karat status\n  karat status --format json")]
    Status {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Tables and their state.
    #[command(subcommand)]
    Table(TableCommand),
    /// Topics of the event log.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Rebuild silver and gold from bronze.
    #[command(subcommand)]
    Replay(ReplayCommand),
    /// Read-only SQL over bronze, silver, gold and quarantine.
    #[command(
        after_help = "Examples:\n  karat query \"SELECT * FROM gold.daily_summary\"\n  karat query \"SELECT rules, count(*) FROM quarantine.etl_runs GROUP BY 1\" --format json"
    )]
    Query {
        sql: String,
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Accounts.
    #[command(subcommand)]
    User(UserCommand),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Bring the accounts database up to date.
    #[command(
        after_help = "Examples:\n  karat migrate\n  karat migrate --database postgres://karat:secret@db/karat --format json"
    )]
    Migrate {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check the accounts: database, schema, and the chain of the audit log.
    #[command(after_help = "Examples:\n  karat doctor\n  karat doctor --format json")]
    Doctor {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The settings that a server would have.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI document.
    #[command(after_help = "Examples:\n  karat openapi > openapi.json\n  karat openapi | less")]
    Openapi,
    /// Print the version.
    Version,
}

/// Where an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Environment {
    #[default]
    Development,
    Test,
    Staging,
    Production,
}

/// Where an instance keeps its data and what it runs.
#[derive(Debug, Clone, Args)]
pub struct InstanceArgs {
    /// Folder of the embedded log, the lake, the accounts and the state.
    #[arg(long, default_value = "./data", env = "KARAT__DATA_DIR")]
    pub data_dir: PathBuf,
    /// Folder of the signing keys and the instance's other secrets when it is not `keys` in the data folder: processes that
    /// share an accounts database share it.
    #[arg(long, value_name = "DIR", env = "KARAT__KEYS_DIR")]
    pub keys_dir: Option<PathBuf>,
    /// The pipelines; the built-in ones when absent.
    #[arg(long, env = "KARAT__PIPELINES")]
    pub pipelines: Option<PathBuf>,
    /// Kafka brokers, HOST:PORT[,...]; the embedded log when absent.
    #[arg(long, env = "KARAT__KAFKA__BROKERS")]
    pub kafka: Option<String>,
    /// A setting for the Kafka client, NAME=VALUE; may be repeated.
    #[arg(
        long = "kafka-property",
        value_name = "NAME=VALUE",
        env = "KARAT__KAFKA__PROPERTIES",
        hide_env_values = true,
        value_delimiter = ';'
    )]
    pub kafka_properties: Vec<String>,
    /// Location of the lake when it is not `lake` in the data folder: a folder, or s3://BUCKET/PREFIX, whose server and
    /// key are in AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    #[arg(long, env = "KARAT__LAKE__LOCATION")]
    pub lake: Option<String>,
    /// How long old versions of tables stay readable, and how old a file without a commit gets, in seconds.
    #[arg(long, value_name = "SECONDS", env = "KARAT__LAKE__KEEP_VERSIONS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(10..))]
    pub keep_versions: u64,
    /// Where this instance runs: production refuses to start with what is not fit for it.
    #[arg(long, value_enum, env = "KARAT__ENVIRONMENT", default_value_t)]
    pub environment: Environment,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

impl InstanceArgs {
    /// The options that say where the instance is, as a shell takes them, each after a space. Settings of the Kafka client may
    /// be secrets and are left out.
    pub fn place(&self) -> String {
        let path = |path: &PathBuf| path.display().to_string();
        let data_dir = Some(path(&self.data_dir)).filter(|folder| folder != "./data");
        let options = [
            ("--data-dir", data_dir),
            ("--keys-dir", self.keys_dir.as_ref().map(path)),
            ("--pipelines", self.pipelines.as_ref().map(path)),
            ("--kafka", self.kafka.clone()),
            ("--lake", self.lake.clone()),
        ];
        let is_plain = |value: &str| value.chars().all(|c| c.is_alphanumeric() || "/.:,_-".contains(c));
        let quoted = |value: String| {
            if is_plain(&value) { value } else { format!("'{}'", value.replace('\'', r"'\''")) }
        };
        options.into_iter().filter_map(|(name, value)| Some(format!(" {name} {}", quoted(value?)))).collect()
    }
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", env = "KARAT__SERVER__LISTEN")]
    pub listen: SocketAddr,
    /// Memory for rendered answers, in MiB; 0 keeps none.
    #[arg(long, value_name = "MIB", env = "KARAT__SERVER__ANSWER_CACHE", default_value_t = 64)]
    pub answer_cache: usize,
    /// The longest that a data answer may take to be made, in seconds.
    #[arg(long, value_name = "SECONDS", env = "KARAT__SERVER__QUERY_DEADLINE", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub query_deadline: u64,
    /// Files of rows (`/summary/export`, `/runs/export`) that are made at the same time.
    #[arg(long, value_name = "NUMBER", env = "KARAT__SERVER__EXPORTS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub exports: u16,
    /// The longest that making and reading such a file may take, in seconds.
    #[arg(long, value_name = "SECONDS", env = "KARAT__SERVER__EXPORT_DEADLINE", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub export_deadline: u64,
    /// Lifts the limits on log-in and registration, for load tests.
    #[arg(long, hide = true)]
    pub without_limits: bool,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub sql: SqlArgs,
    #[command(flatten)]
    pub live: LiveArgs,
}

#[derive(Debug, Clone, Args)]
pub struct TransformArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Publishes the sample data through the real doors and prints a log-in.
    #[arg(long)]
    pub demo: bool,
    /// Leaves the pipelines out: events are taken and kept in the log, and go on to gold at the next start without this.
    #[arg(long, conflicts_with = "demo")]
    pub without_pipelines: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show each setting and its value; secrets are hidden. Takes the options of `karat up`.
    #[command(
        after_help = "Examples:\n  karat config show --origin\n  karat config show --config /etc/karat/karat.toml --format json"
    )]
    Show {
        /// Shows where each value came from, too: command line, environment, file and line, or default.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        serve: Box<ServeArgs>,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// List the tables of the newest epoch.
    #[command(after_help = "Examples:\n  karat table ls\n  karat table ls --format json")]
    Ls {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show the columns, files and refresh of a table.
    #[command(
        after_help = "Examples:\n  karat table show gold.daily_summary\n  karat table show silver.runs --format json"
    )]
    Show {
        name: String,
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Look for torn, altered and missing files, and repair what they held.
    ///
    /// Names the table, the version, the file, what is wrong and what helps. Reads every data file whole. Without
    /// --repair nothing is changed.
    #[command(after_help = "Examples:\n  karat table fsck\n  karat table fsck gold.daily_summary --repair")]
    Fsck {
        /// One table; all when absent.
        table: Option<String>,
        /// Repairs: tables of pipelines are rebuilt from bronze, bronze from the log. A running instance rebuilds by itself;
        /// bronze and the tables in `_karat` need it stopped.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Compute silver and gold again from bronze and compare.
    #[command(after_help = "Examples:\n  karat table verify\n  karat table verify --pipeline etl_runs --format json")]
    Verify {
        /// One pipeline; all when absent.
        #[arg(long)]
        pipeline: Option<String>,
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Go on with a topic that was created again, or lost records: for when a process refuses it by name.
    ///
    /// Moves the positions of its bronze table to what the topic holds: to the beginning of a topic that was created again,
    /// else to the nearest offset that is there. Tables keep what they have. Stop every transform process first.
    #[command(
        after_help = "Examples:\n  karat topic accept karat.events\n  karat topic accept karat.events --kafka broker:9092 --format json"
    )]
    Accept {
        topic: String,
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create an account; the password comes from a prompt or --password-stdin.
    #[command(
        after_help = "Examples:\n  karat user create --username ada --role admin\n  echo \"$PASSWORD\" | karat user create --username ada --role operator --password-stdin"
    )]
    Create {
        #[arg(long)]
        username: String,
        #[arg(long, default_value = "user")]
        role: String,
        #[arg(long)]
        email: Option<String>,
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// List accounts.
    #[command(after_help = "Examples:\n  karat user list\n  karat user list --format json")]
    List {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Give an account another password, from a prompt or --password-stdin. Its sessions end.
    #[command(
        after_help = "Examples:\n  karat user reset-password ada\n  echo \"$PASSWORD\" | karat user reset-password ada --password-stdin"
    )]
    ResetPassword {
        username: String,
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// Give an account another role.
    #[command(after_help = "Examples:\n  karat user set-role ada admin\n  karat user set-role bob user")]
    SetRole {
        username: String,
        role: String,
        #[command(flatten)]
        instance: InstanceArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key and print it once.
    #[command(
        after_help = "Examples:\n  karat key create --owner ada --scope 'publish:*'\n  karat key create --owner ada --scope publish:etl.run.finished --scope publish_for_others\n  karat key create --owner ada --scope read --scope 'route:/runs/*'"
    )]
    Create {
        /// Username of the owner.
        #[arg(long)]
        owner: String,
        /// A name to know it by.
        #[arg(long, default_value = "key")]
        name: String,
        /// What it may do; may be repeated.
        #[arg(long = "scope", default_value = "publish:*")]
        scopes: Vec<String>,
        /// How many events it publishes in a second, to which it is held then; as many as it likes when absent.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        events_per_second: Option<u32>,
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// Add a key for the signatures of tokens, and remove those whose last token has expired.
    ///
    /// The new key signs after ten minutes, when every process and everybody who reads the public keys knows it. A running
    /// instance needs no restart, and nobody is logged out.
    #[command(after_help = "Examples:\n  karat key rotate-signing\n  karat key rotate-signing --data-dir /srv/karat")]
    RotateSigning {
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// Revoke an API key.
    #[command(
        after_help = "Examples:\n  karat key revoke 0198f2c4-...\n  karat key revoke 0198f2c4-... --data-dir /srv/karat"
    )]
    Revoke {
        id: String,
        #[command(flatten)]
        instance: InstanceArgs,
    },
}

/// Form of printed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}
