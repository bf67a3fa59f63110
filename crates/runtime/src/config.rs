//! The runtime configuration: flag > `LEAT_*` environment > `leat.toml` > `$LEATWORKS_HOME/config.toml` > default.
//!
//! It is about how and where things run, never about the graph. A key that nobody reads is an error.

mod jobs;
mod task;
mod trace;

use crate::{
    def::{TaskDef, TopologyDef},
    plan::{Plan, TaskPlan},
    settings::{self, SettingsError},
};
use config::{File, FileFormat, ValueKind};
pub use jobs::JobsConfig;
use jobs::JobsTable;
use leatworks_broker::BrokerError;
use leatworks_pulsar::{PulsarOptions, Secret};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};
use task::{TaskConfig, apply};
pub use trace::TraceConfig;
use trace::TraceTable;

/// The name of the file beside `Project.toml`.
pub const FILE: &str = "leat.toml";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read or is no TOML.
    #[error("reading the configuration: {0}")]
    Read(#[from] config::ConfigError),
    /// A key that nobody reads.
    #[error("unknown key `{key}` in the configuration{hint}")]
    Unknown {
        /// The key with the tables it stands in.
        key: String,
        /// What may be meant.
        hint: String,
    },
    /// A variable whose name is nearly that of one that is read.
    #[error("unknown variable `{name}`; did you mean `LEAT_{meant}`?")]
    Variable {
        /// The variable.
        name: String,
        /// The rest of the name that may be meant.
        meant: &'static str,
    },
    /// A value of the wrong type.
    #[error("in the configuration: {0}")]
    Wrong(String),
    /// No place for the data.
    #[error("no directory for the data: set `--data`, `LEAT_DATA` or `HOME`")]
    NoData,
}

/// What flags say; they come before everything else.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each field is the flag of its name")]
pub struct Flags {
    pub data: Option<PathBuf>,
    pub broker: Option<String>,
    pub durability: Option<String>,
}

/// The configuration of a project on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// `embedded`, `memory`, or the address of a Pulsar service.
    pub broker: String,
    /// How a Pulsar service is reached, if `broker` is the address of one.
    pub pulsar: PulsarOptions,
    /// What an acknowledged write survives on the embedded broker, unless a topology says otherwise: `power`, `interval`, `process`, `memory`.
    pub durability: String,
    /// Whether messages go from task to task within the process before they are durable.
    pub eager: bool,
    /// Whether the embedded broker leaves out of its journal what was settled before it was written.
    pub elision: bool,
    /// Whether the level was given by a flag, which comes before what a topology says.
    durability_flag: bool,
    /// Where jobs keep their files, and how they are run.
    pub jobs: JobsConfig,
    /// Whether what is done with each message is written down, and where.
    pub trace: TraceConfig,
    topologies: BTreeMap<String, TopologyConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Root {
    data: Option<PathBuf>,
    broker: BrokerConfig,
    jobs: JobsTable,
    trace: TraceTable,
    topology: BTreeMap<String, TopologyConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BrokerConfig {
    url: Option<String>,
    durability: Option<String>,
    eager: Option<bool>,
    elision: Option<bool>,
    admin_url: Option<String>,
    tenant: Option<String>,
    namespace: Option<String>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl BrokerConfig {
    /// How the Pulsar service at this address is reached.
    fn pulsar(self, url: &str, data: &Path) -> PulsarOptions {
        let usual = PulsarOptions::default();
        PulsarOptions {
            url: url.to_owned(),
            admin_url: self.admin_url,
            tenant: self.tenant.unwrap_or(usual.tenant),
            namespace: self.namespace.unwrap_or(usual.namespace),
            token: self.token,
            token_file: self.token_file,
            ca_file: self.ca_file,
            notes: Some(data.join("attempts")),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TopologyConfig {
    durability: Option<String>,
    task: BTreeMap<String, TaskConfig>,
}

impl Config {
    /// Reads the configuration of a project from the current directory and the environment.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(project: &str, flags: &Flags) -> Result<Self, ConfigError> {
        let variables = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let home = home(|name| env::var_os(name).map(PathBuf::from));
        Self::load_from(project, flags, Path::new(FILE), home.as_deref(), variables.collect())
    }

    fn load_from(
        project: &str,
        flags: &Flags,
        file: &Path,
        home: Option<&Path>,
        variables: BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(home) = home {
            builder = builder.add_source(File::from(home.join("config.toml")).format(FileFormat::Toml).required(false));
        }
        builder = builder.add_source(File::from(file.to_owned()).format(FileFormat::Toml).required(false));
        for (name, text) in &variables {
            if let Some(key) = key_of(name) {
                let value = if is_text(&key) { text.as_str().into() } else { parsed(text) };
                builder = builder.set_override(key, value)?;
            } else if let Some(meant) = misspelt(name) {
                return Err(ConfigError::Variable { name: name.clone(), meant });
            }
        }
        let value: Value = builder.build()?.try_deserialize()?;
        let root: Root = settings::from_value(&value).map_err(|error| match error {
            SettingsError::Unknown { key, .. } => ConfigError::Unknown { hint: hint(&key), key },
            SettingsError::Wrong(error) => ConfigError::Wrong(error.to_string()),
        })?;
        let data = flags.data.clone().or(root.data).or_else(|| Some(home?.join(project))).ok_or(ConfigError::NoData)?;
        let configured = root.broker;
        let broker = flags.broker.as_ref().or(configured.url.as_ref()).map_or_else(|| "embedded".to_owned(), String::clone);
        let level = flags.durability.as_ref().or(configured.durability.as_ref());
        let jobs = root.jobs.over(JobsConfig::new(&data))?;
        let trace = root.trace.over(TraceConfig::new(&data))?;
        Ok(Self {
            jobs,
            trace,
            durability: level.map_or_else(|| "power".to_owned(), String::clone),
            eager: configured.eager.unwrap_or(true),
            elision: configured.elision.unwrap_or(true),
            pulsar: configured.pulsar(&broker, &data),
            broker,
            data,
            durability_flag: flags.durability.is_some(),
            topologies: root.topology,
        })
    }

    /// Whether the broker is a Pulsar service.
    pub fn is_pulsar(&self) -> bool {
        self.broker.contains("://")
    }

    /// The directory of the journal.
    pub fn journal(&self) -> PathBuf {
        self.data.join("journal")
    }

    /// A topology with its configuration applied.
    ///
    /// # Errors
    /// If the configuration names a task that the topology does not have, or a value is out of range.
    pub fn plan(&self, topology: &'static TopologyDef) -> Result<Plan, ConfigError> {
        let mut plan = Plan::new(topology, &self.data);
        plan.jobs = self.jobs.clone();
        for task in &mut plan.tasks {
            task.lineage |= self.trace.enabled;
            task.eager &= self.eager;
        }
        // A level of the broker that is none is told when the broker is opened.
        plan.durability = self.durability.parse().ok();
        let Some(config) = self.topologies.get(topology.name) else { return Ok(plan) };
        if let Some(level) = config.durability.as_deref().filter(|_| !self.durability_flag) {
            let level = level
                .parse()
                .map_err(|error: BrokerError| ConfigError::Wrong(format!("`topology.{}`: {error}", topology.name)))?;
            plan.durability = Some(level);
        }
        for (name, config) in &config.task {
            match plan.tasks.iter_mut().find(|task| task.def.name == name) {
                Some(task) => apply(task, config)?,
                None => {
                    let known: Vec<&str> = topology.tasks.iter().map(|task| task.name).collect();
                    let key = format!("topology.{}.task.{name}", topology.name);
                    return Err(ConfigError::Unknown { hint: settings::hint(name, &known), key });
                }
            }
        }
        Ok(plan)
    }

    /// One task with its configuration applied.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn task_plan(&self, task: &'static TaskDef) -> Result<TaskPlan, ConfigError> {
        let mut plan = TaskPlan::new(task);
        if let Some(config) = self.topologies.get(task.topology).and_then(|topology| topology.task.get(task.name)) {
            apply(&mut plan, config)?;
        }
        Ok(plan)
    }
}

/// `$LEATWORKS_HOME`, or the usual place for what programs keep.
fn home(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    set("LEATWORKS_HOME").or_else(|| {
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
        Some(state.join("leatworks"))
    })
}

/// The key that a variable sets: `LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__SEND__TIMEOUT` is `topology.email-pipeline.task.send.timeout`.
///
/// A shell has no variables with `-` in their name, so in the names of topologies and tasks `_` stands for it.
fn key_of(variable: &str) -> Option<String> {
    // Without a table it is no key of the configuration, such as `LEAT_LOG`.
    let key = variable.strip_prefix("LEAT_")?;
    if key != "DATA" && !key.contains("__") {
        return None;
    }
    let mut parts: Vec<String> = key.to_ascii_lowercase().split("__").map(str::to_owned).collect();
    if parts[0] == "topology" {
        for index in [1, 3] {
            if let Some(part) = parts.get_mut(index) {
                *part = part.replace('_', "-");
            }
        }
    }
    Some(parts.join("."))
}

/// Keys whose value is a text whatever it looks like: a directory or a tenant may be named by a number.
fn is_text(key: &str) -> bool {
    key == "data"
        || key.starts_with("jobs.")
        || key.strip_prefix("trace.").is_some_and(|key| key != "enabled")
        || key.strip_prefix("broker.").is_some_and(|key| !matches!(key, "eager" | "elision"))
}

/// What may be meant by a variable that nobody reads. Others are left alone: they may be those of another program.
fn misspelt(variable: &str) -> Option<&'static str> {
    const KNOWN: [&str; 7] = ["BLESS", "DATA", "FROZEN", "HOME", "LOG", "PROJECT", "WORKSPACE"];
    let name = variable.strip_prefix("LEAT_").filter(|name| !KNOWN.contains(name))?;
    settings::similar(name, &KNOWN)
}

/// A variable's text as the value that it looks like.
fn parsed(text: &str) -> ValueKind {
    match text {
        "true" => true.into(),
        "false" => false.into(),
        number if number.parse::<i64>().is_ok() => number.parse::<i64>().unwrap_or_default().into(),
        number if number.parse::<f64>().is_ok_and(f64::is_finite) => number.parse::<f64>().unwrap_or_default().into(),
        text => text.into(),
    }
}

fn hint(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let known: &[&str] = match parts[..] {
        [_] => &["broker", "data", "jobs", "topology", "trace"],
        ["jobs", _] => &["files", "options", "keep"],
        ["trace", _] => &["enabled", "to", "options", "keep"],
        ["broker", _] => {
            &["url", "durability", "eager", "elision", "admin_url", "tenant", "namespace", "token", "token_file", "ca_file"]
        }
        ["topology", _, _] => &["durability", "task"],
        ["topology", _, "task", _, _] => &["timeout", "retry", "parallelism", "worker", "source", "sink", "settings"],
        ["topology", _, "task", _, "retry", _] => &["attempts", "backoff", "max_backoff"],
        _ => &[],
    };
    settings::hint(parts.last().copied().unwrap_or_default(), known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::{BuiltinDef, Codec, Drawings, Kind, Retry};
    use std::time::Duration;

    static SEND: TaskDef = TaskDef {
        project: "p",
        topology: "email-pipeline",
        name: "read-lines",
        version: "0",
        codec: Codec::Json,
        kind: Kind::Source,
        retry: Retry { attempts: 3, backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(30) },
        timeout: Duration::from_secs(30),
        parallelism: 1,
        source: Some(BuiltinDef { kind: "lines", options: r#"{"path": "a"}"# }),
        routes: &[],
        ends: &[],
    };
    static TOPOLOGY: TopologyDef = TopologyDef {
        name: "email-pipeline",
        project: "p",
        version: "0",
        description: "",
        codec: Codec::Json,
        tasks: &[&SEND],
        edges: &[],
        drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
    };

    fn load(home: &str, file: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<(Config, Plan), ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.toml"), home).unwrap();
        std::fs::write(directory.path().join("leat.toml"), file).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let file = directory.path().join("leat.toml");
        let config = Config::load_from("p", flags, &file, Some(directory.path()), variables)?;
        let plan = config.plan(&TOPOLOGY)?;
        Ok((config, plan))
    }

    #[test]
    fn each_layer_goes_over_the_one_below() {
        let home = "[broker]\ndurability = 'process'\n[topology.email-pipeline.task.read-lines]\ntimeout = '1s'\nparallelism = 2";
        let file = "data = 'd'\n[topology.email-pipeline.task.read-lines]\nparallelism = 3\nsource = { path = 'b' }\nsettings = { A = 1 }";
        let variable = ("LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__READ_LINES__RETRY__ATTEMPTS", "7");
        let ours = ("LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__READ_LINES__PARALLELISM", "4");
        let flags = Flags { broker: Some("memory".to_owned()), ..Flags::default() };
        let (config, plan) = load(home, file, &[variable, ours, ("LEAT_LOG", "debug"), ("OTHER", "1")], &flags).unwrap();
        assert_eq!((config.durability.as_str(), config.broker.as_str(), config.data), ("process", "memory", PathBuf::from("d")));
        let task = &plan.tasks[0];
        assert_eq!((task.timeout, task.parallelism, task.retry.attempts), (Duration::from_secs(1), 4, 7));
        assert_eq!(task.source.as_ref().unwrap().options["path"], "b");
        assert_eq!(task.settings["A"], 1);
    }

    #[test]
    fn nothing_configured_is_the_definition_with_the_usual_place() {
        let (config, plan) = load("", "", &[("LEAT_DATA", "x")], &Flags::default()).unwrap();
        assert_eq!((config.broker.as_str(), config.durability.as_str(), config.data), ("embedded", "power", PathBuf::from("x")));
        assert_eq!((plan.tasks[0].retry, plan.tasks[0].parallelism), (SEND.retry, 1));
    }

    #[test]
    fn a_pulsar_service_is_described_by_file_and_variables() {
        let file = "[broker]\nurl = 'pulsar://a:1'\nnamespace = 'n'\ntoken_file = 't'\nca_file = 'c'\ntoken = 'secret'";
        let variables =
            [("LEAT_BROKER__URL", "pulsar+ssl://b:2"), ("LEAT_BROKER__TENANT", "12"), ("LEAT_BROKER__ADMIN_URL", "https://b:3")];
        let (config, _) = load("", file, &variables, &Flags::default()).unwrap();
        let PulsarOptions { url, admin_url, tenant, namespace, token, token_file, ca_file, .. } = config.pulsar.clone();
        assert!(config.is_pulsar() && token.is_some());
        assert_eq!((url.as_str(), admin_url.as_deref()), ("pulsar+ssl://b:2", Some("https://b:3")));
        assert_eq!((tenant.as_str(), namespace.as_str()), ("12", "n"));
        assert_eq!((token_file, ca_file), (Some(PathBuf::from("t")), Some(PathBuf::from("c"))));
        assert!(!format!("{config:?}").contains("secret\""), "a token is never shown");
        let flags = Flags { broker: Some("pulsar://c:4".to_owned()), ..Flags::default() };
        assert_eq!(load("", file, &variables, &flags).unwrap().0.pulsar.url, "pulsar://c:4");
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_a_strange_one_left_alone() {
        for (name, meant) in [("LEAT_DAAT", "LEAT_DATA"), ("LEAT_FROZN", "LEAT_FROZEN"), ("LEAT_LOGS", "LEAT_LOG")] {
            let error = load("", "", &[(name, "x")], &Flags::default()).expect_err(name).to_string();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{error}");
        }
        for name in ["LEAT_LOG", "LEAT_HOME", "LEAT_TEST_ROLE", "LEAT_PICTURES", "LEAT_BUILD_VERSION", "LEATWORKS_HOME"] {
            assert!(load("", "", &[(name, "x")], &Flags::default()).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (file, words) in [
            ("brokr = 1", "unknown key `brokr` in the configuration; did you mean `broker`?"),
            ("[broker]\ntennant = 'x'", "did you mean `tenant`?"),
            ("[broker]\nurll = 'x'", "unknown key `broker.urll` in the configuration; did you mean `url`?"),
            ("[topology.email-pipeline.task.read-lines]\ntimeot = '1s'", "did you mean `timeout`?"),
            ("[topology.email-pipeline.task.read-lines.retry]\nattempt = 1", "did you mean `attempts`?"),
            ("[topology.email-pipeline.task.read-line]\ntimeout = '1s'", "did you mean `read-lines`?"),
            ("[topology.email-pipeline.task.read-lines]\ntimeout = 'soon'", "is no duration"),
            ("[topology.email-pipeline.task.read-lines]\nparallelism = 0", "at least 1"),
            ("[topology.email-pipeline.task.read-lines]\nworker = 'http://x'", "no HTTP worker"),
            ("[trace]\nenable = true", "did you mean `enabled`?"),
            ("[trace]\nkeep = 'long'", "is no duration"),
            ("nonsense", "reading the configuration"),
        ] {
            let error = load("", file, &[], &Flags::default()).expect_err(file).to_string();
            assert!(error.contains(words), "{file}: {error}");
        }
    }
}
