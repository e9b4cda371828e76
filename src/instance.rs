//! One instance: its folders, its log, its declared pipelines, and the note by which commands find it running.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use karat_access::{AccessSettings, DatabaseSettings};
use karat_eventlog::{
    EventLog,
    embedded::EmbeddedLog,
    kafka::{KafkaLog, KafkaSettings},
};
use karat_lake::Lake;
use karat_schemas::{
    events::Contracts,
    pipelines::{self, Pipeline, Pipelines, Problem},
};
use karat_transform::{
    bronze::BronzeSettings,
    checkpoint::CheckpointSettings,
    maintenance::MaintenanceSettings,
    reference,
    runner::RunnerSettings,
    worker::{WorkerSettings, runner_settings},
};
use reqwest::header::{HOST, HeaderMap, HeaderValue};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{
    cli::InstanceArgs,
    failure::{Failure, Result},
};

/// What the arguments name, not opened yet.
pub struct Instance {
    pub data: PathBuf,
    pub pipelines: Arc<Pipelines>,
    /// What the file of the pipelines is called in messages.
    file: String,
    /// Folder of `pipelines.toml`, for the files it names.
    folder: PathBuf,
    arguments: InstanceArgs,
}

/// Left in the data folder by a running instance, readable by its owner only.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    pub url: String,
    /// The name that requests must give, where only some are answered.
    #[serde(default)]
    pub host: Option<String>,
    /// Credential of the folder's owner.
    pub local: String,
}

/// The note in the data folder; removed when dropped.
pub struct NoteFile(PathBuf);

impl Drop for NoteFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The lock of a data folder; released when dropped, also by a crash.
pub struct FolderLock(#[allow(dead_code)] File);

impl Instance {
    pub fn new(arguments: &InstanceArgs) -> Result<Self> {
        let (text, folder) = match &arguments.pipelines {
            Some(path) => (read(path)?, path.parent().map_or_else(PathBuf::new, Path::to_path_buf)),
            None => (pipelines::BUILT_IN.to_owned(), PathBuf::new()),
        };
        let shown = arguments
            .pipelines
            .as_ref()
            .map_or_else(|| "built-in pipelines".to_owned(), |path| path.display().to_string());
        let invalid = |problems: &[Problem]| invalid(&shown, problems);
        let mut pipelines = pipelines::parse(&text).map_err(|problems| invalid(&problems.0))?;
        let (problems, _) = reference::load(&mut pipelines, &folder);
        if !problems.is_empty() {
            return Err(invalid(&problems));
        }
        Ok(Self {
            data: arguments.data_dir.clone(),
            pipelines: Arc::new(pipelines),
            file: shown,
            folder,
            arguments: arguments.clone(),
        })
    }

    /// The failure of a start with pipelines that have these problems.
    pub fn invalid(&self, problems: &[Problem]) -> Failure {
        invalid(&self.file, problems)
    }

    /// Creates the data folder, readable by its owner only.
    pub fn create_folder(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data);
        created.map_err(|error| Failure::configuration(format!("data folder `{}`: {error}", self.data.display())))
    }

    /// The folder of the signing keys and the instance's other secrets.
    pub fn keys(&self) -> PathBuf {
        self.arguments.keys_dir.clone().unwrap_or_else(|| self.data.join("keys"))
    }

    /// Where the accounts are and how they work here.
    pub fn access(&self) -> Result<AccessSettings> {
        let mut settings = AccessSettings { keys_dir: self.keys(), ..AccessSettings::in_folder(&self.data) };
        if let Some(address) = self.arguments.database.address()? {
            settings.database = DatabaseSettings::at(address);
        }
        self.arguments.database.pool(&mut settings.database);
        Ok(settings)
    }

    pub fn lake(&self) -> Result<Lake> {
        let location = self.arguments.lake.clone().unwrap_or_else(|| self.data.join("lake").display().to_string());
        Ok(Lake::at(&location)?)
    }

    /// Opens the log: Kafka when it is named, the embedded one otherwise.
    pub async fn log(&self) -> Result<Arc<dyn EventLog>> {
        match &self.arguments.kafka {
            Some(bootstrap) => {
                let mut properties = BTreeMap::new();
                for property in &self.arguments.kafka_properties {
                    let (name, value) = property
                        .split_once('=')
                        .ok_or_else(|| Failure::usage("--kafka-property must be NAME=VALUE"))?;
                    properties.insert(name.to_owned(), value.to_owned());
                }
                let settings = KafkaSettings { bootstrap: bootstrap.clone(), properties, replication: 1 };
                Ok(Arc::new(KafkaLog::connect(settings).await?))
            }
            None => {
                let folder = self.data.join("log");
                let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&folder)).await?;
                Ok(Arc::new(opened?))
            }
        }
    }

    /// Separate roles meet in the log, and the embedded log is one process's own (decision 13).
    pub fn require_kafka(&self, role: &str) -> Result<()> {
        if self.arguments.kafka.is_some() {
            return Ok(());
        }
        Err(Failure::configuration(format!(
            "`karat {role}` runs one role and needs Kafka, because the embedded log belongs to one process: \
             add `--kafka HOST:PORT`, or run every role with `karat up`"
        )))
    }

    pub fn contracts(&self) -> Result<Contracts> {
        let read = |path: &str| {
            fs::read_to_string(self.folder.join(path)).map_err(|error| format!("schema file `{path}`: {error}"))
        };
        Contracts::compile(&self.pipelines, read).map_err(|problems| Failure::configuration(problems.join("\n")))
    }

    pub fn worker(&self, log: Arc<dyn EventLog>) -> Result<WorkerSettings> {
        Ok(WorkerSettings {
            lake: self.lake()?,
            log,
            state_folder: self.data.join("state"),
            pipelines: Arc::clone(&self.pipelines),
            bronze: BronzeSettings::default(),
            checkpoints: Some(CheckpointSettings::default()),
            maintenance: MaintenanceSettings::keeping(Duration::from_secs(self.arguments.keep_versions)),
            group: "karat".to_owned(),
        })
    }

    pub fn pipeline(&self, name: &str) -> Result<&Pipeline> {
        let found = self.pipelines.pipelines.iter().find(|pipeline| pipeline.name == name);
        found.ok_or_else(|| Failure::usage(format!("no pipeline is named `{name}`")))
    }

    /// Where a pipeline reads and writes, at its newest epoch.
    pub async fn runner(&self, pipeline: &Pipeline, lake: &Lake) -> Result<RunnerSettings> {
        Ok(runner_settings(pipeline, &self.pipelines, lake, &self.data.join("state")).await?)
    }

    /// Takes the folder for this process; says so when another has it.
    pub fn lock(&self) -> Result<FolderLock> {
        self.create_folder()?;
        let path = self.data.join("karat.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock(file)),
            Err(TryLockError::WouldBlock) => Err(Failure::configuration(format!(
                "data folder `{}` is in use by another karat: stop that one, or choose another `--data-dir`",
                self.data.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Leaves a note for commands, until what it gives is dropped.
    pub fn leave_note(&self, note: &Note) -> Result<NoteFile> {
        let path = self.note_path();
        let _ = fs::remove_file(&path);
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(&serde_json::to_vec_pretty(note)?)?;
        Ok(NoteFile(path))
    }

    /// The note of a running instance; none when nobody answers at its address.
    pub async fn running(&self) -> Option<Note> {
        let note: Note = serde_json::from_slice(&fs::read(self.note_path()).ok()?).ok()?;
        let client = note.client(Duration::from_secs(2)).ok()?;
        let answer = client.get(format!("{}/livez", note.url)).send().await.ok()?;
        answer.status().is_success().then_some(note)
    }

    fn note_path(&self) -> PathBuf {
        self.data.join("instance.json")
    }
}

impl Note {
    /// A client of the instance. Its certificate is for the names by which others know it, and not for the address in the note,
    /// which only the folder's owner can have written: so it is not asked for.
    pub fn client(&self, timeout: Duration) -> Result<reqwest::Client> {
        let mut headers = HeaderMap::new();
        if let Some(host) = &self.host {
            headers.insert(HOST, HeaderValue::from_str(host).map_err(Failure::unreachable)?);
        }
        // HTTP/2 would take the name from the address.
        let builder = reqwest::Client::builder().timeout(timeout).default_headers(headers).http1_only();
        builder.danger_accept_invalid_certs(true).no_proxy().build().map_err(Failure::unreachable)
    }

    pub fn local(&self) -> SecretString {
        self.local.clone().into()
    }
}

fn invalid(file: &str, problems: &[Problem]) -> Failure {
    let lines = problems.iter().map(|problem| format!("{file}:{}: {}", problem.line, problem.message));
    Failure::configuration(lines.collect::<Vec<_>>().join("\n"))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::configuration(format!("`{}`: {error}", path.display())))
}
