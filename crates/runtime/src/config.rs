//! The runtime configuration: flag > `LEAT_*` environment > `leat.toml` > `$LEATWORKS_HOME/config.toml` > default.
//!
//! It is about how and where things run, never about the graph. A key that nobody reads is an error.

mod jobs;
mod layers;
mod names;
mod task;
mod trace;
pub(crate) mod values;

use crate::{
    def::{TaskDef, TopologyDef},
    plan::{Plan, TaskPlan},
};
pub use jobs::JobsConfig;
use jobs::JobsTable;
use layers::{Fault, Layer, Places};
use leatworks_broker::{BrokerError, Durability};
use leatworks_pulsar::{PulsarOptions, Secret};
use serde::Deserialize;
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
    #[error("unknown key `{key}` in {place}{hint}")]
    Unknown {
        /// The file or the variable.
        place: String,
        /// The key with the tables it stands in.
        key: String,
        /// What may be meant.
        hint: String,
    },
    /// A variable whose name is nearly that of one that is read.
    #[error("unknown variable `{name}`; did you mean `{meant}`?")]
    Variable {
        /// The variable.
        name: String,
        /// The one that may be meant.
        meant: String,
    },
    /// A value of the wrong type, or out of range.
    #[error("in {place}: `{key}`: {text}")]
    Wrong {
        /// The file, the variable, or the command line.
        place: String,
        /// The key with the tables it stands in.
        key: String,
        /// What is wrong with its value.
        text: String,
    },
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

impl Flags {
    fn data(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(data) = &self.data else { return Ok(None) };
        values::named(&data.to_string_lossy()).map_err(|text| wrong_flag("--data", text.to_owned()))?;
        Ok(Some(data.clone()))
    }

    fn durability(&self) -> Result<Option<Durability>, ConfigError> {
        let level = self.durability.as_deref().map(str::parse).transpose();
        level.map_err(|error: BrokerError| wrong_flag("--durability", error.to_string()))
    }
}

fn wrong_flag(key: &str, text: String) -> ConfigError {
    ConfigError::Wrong { place: "the command line".to_owned(), key: key.to_owned(), text }
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
    places: Places,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Root {
    #[serde(deserialize_with = "values::path")]
    data: Option<PathBuf>,
    broker: BrokerConfig,
    jobs: JobsTable,
    trace: TraceTable,
    topology: BTreeMap<String, TopologyConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BrokerConfig {
    #[serde(deserialize_with = "values::broker")]
    url: Option<String>,
    #[serde(deserialize_with = "values::level")]
    durability: Option<Durability>,
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
    #[serde(deserialize_with = "values::level")]
    durability: Option<Durability>,
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
        let mut layers = Vec::new();
        if let Some(home) = home {
            layers.push(Layer::of_file(&home.join("config.toml"))?.shared());
        }
        layers.push(Layer::of_file(file)?);
        for (name, text) in &variables {
            layers.extend(Layer::of_variable(name, text)?);
        }
        let (root, places) = layers::merged(&layers)?;
        for (topology, config) in &root.topology {
            for (task, config) in &config.task {
                let checked = config.retry.check(&format!("topology.{topology}.task.{task}"));
                checked.map_err(|fault| places.wrong(fault))?;
            }
        }
        let data = flags.data()?.or(root.data).or_else(|| Some(home?.join(project))).ok_or(ConfigError::NoData)?;
        let configured = root.broker;
        let broker = flags.broker.as_ref().or(configured.url.as_ref()).map_or_else(|| "embedded".to_owned(), String::clone);
        let level = flags.durability()?.or(configured.durability).unwrap_or(Durability::Power);
        let jobs = root.jobs.over(JobsConfig::new(&data)).map_err(|fault| places.wrong(fault))?;
        let trace = root.trace.over(TraceConfig::new(&data)).map_err(|fault| places.wrong(fault))?;
        Ok(Self {
            jobs,
            trace,
            durability: level.name().to_owned(),
            eager: configured.eager.unwrap_or(true),
            elision: configured.elision.unwrap_or(true),
            pulsar: configured.pulsar(&broker, &data),
            broker,
            data,
            durability_flag: flags.durability.is_some(),
            topologies: root.topology,
            places,
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
        // Whoever has made this configuration by hand is told of a level that is none when the broker is opened.
        plan.durability = self.durability.parse().ok();
        let Some(config) = self.topologies.get(topology.name) else { return Ok(plan) };
        plan.durability = config.durability.filter(|_| !self.durability_flag).or(plan.durability);
        for (name, config) in &config.task {
            match plan.tasks.iter_mut().find(|task| task.def.name == name) {
                Some(task) => apply(task, config, Some(topology.edges)).map_err(|fault| self.places.wrong(fault))?,
                None => {
                    let known: Vec<&str> = topology.tasks.iter().map(|task| task.name).collect();
                    return Err(self.unknown_task(topology.name, name, &known));
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
            apply(&mut plan, config, None).map_err(|fault| self.places.wrong(fault))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::{BuiltinDef, Codec, Drawings, EdgeDef, Kind, Retry};
    use std::time::Duration;

    const SEND: TaskDef = TaskDef {
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
    static COUNT: TaskDef = TaskDef { name: "count", kind: Kind::Worker { url: "http://127.0.0.1:1" }, source: None, ..SEND };
    static TOPOLOGY: TopologyDef = TopologyDef {
        name: "email-pipeline",
        project: "p",
        version: "0",
        description: "",
        codec: Codec::Json,
        tasks: &[&SEND, &COUNT],
        edges: &[EdgeDef {
            id: "read-lines-->count",
            from: Some("read-lines"),
            to: "count",
            label: None,
            topic: "t",
            subscription: "count",
            retry_topic: "r",
            dead_letter_topic: "d",
        }],
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
        let file = "data = 'd'\n[topology.email-pipeline.task.read-lines]\nparallelism = 3\nsource = { path = 'b' }\n[topology.email-pipeline.task.count]\nsettings = { A = 1 }";
        let variable = ("LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__READ_LINES__RETRY__ATTEMPTS", "7");
        let ours = ("LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__READ_LINES__PARALLELISM", "4");
        let flags = Flags { broker: Some("memory".to_owned()), ..Flags::default() };
        let (config, plan) = load(home, file, &[variable, ours, ("LEAT_LOG", "debug"), ("OTHER", "1")], &flags).unwrap();
        assert_eq!((config.durability.as_str(), config.broker.as_str(), config.data), ("process", "memory", PathBuf::from("d")));
        let task = &plan.tasks[0];
        assert_eq!((task.timeout, task.parallelism, task.retry.attempts), (Duration::from_secs(1), 4, 7));
        assert_eq!(task.source.as_ref().unwrap().options["path"], "b");
        assert_eq!(plan.tasks[1].settings["A"], 1);
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
        for (name, meant) in [
            ("LEAT_DAAT", "LEAT_DATA"),
            ("LEAT_FROZN", "LEAT_FROZEN"),
            ("LEAT_LOGS", "LEAT_LOG"),
            ("LEAT_BROKER_URL", "LEAT_BROKER__URL"),
            ("LEAT_BROKER_TOKENFILE", "LEAT_BROKER__TOKEN_FILE"),
            ("LEAT_TRACE_ENABLE", "LEAT_TRACE__ENABLED"),
            ("LEAT_TOPOLOGY_MAIL_TASK_SEND_TIMEOUT", "LEAT_TOPOLOGY__NAME__TASK__NAME__KEY"),
        ] {
            let error = load("", "", &[(name, "x")], &Flags::default()).expect_err(name).to_string();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{error}");
        }
        for name in [
            "LEAT_LOG",
            "LEAT_HOME",
            "LEAT_TEST_ROLE",
            "LEAT_PICTURES",
            // What the program of a job is told.
            "LEAT_WORK",
            "LEAT_TASK",
            "LEAT_TRACE",
            "LEAT_TRACE_ID",
            "LEAT_BUILD_VERSION",
            "LEATWORKS_HOME",
            "LEAT_PULSAR_URL",
            "LEAT_BROKER_PORT",
            "LEAT_BROKER_SERVICE_HOST",
            "LEAT_TOPOLOGY_PORT_80_TCP",
        ] {
            assert!(load("", "", &[(name, "x")], &Flags::default()).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (file, words) in [
            ("brokr = 1", "leat.toml`; did you mean `broker`?"),
            ("[broker]\ntennant = 'x'", "did you mean `tenant`?"),
            ("[broker]\nurll = 'x'", "unknown key `broker.urll` in `"),
            ("[topology.email-pipeline.task.read-lines]\ntimeot = '1s'", "did you mean `timeout`?"),
            ("[topology.email-pipeline.task.read-lines.retry]\nattempt = 1", "did you mean `attempts`?"),
            ("[topology.email-pipeline.task.read-line]\ntimeout = '1s'", "leat.toml`; did you mean `read-lines`?"),
            (
                "[topology.email-pipeline.task.read-lines]\nworker = 'http://x'",
                "task.read-lines.worker`: the task is no HTTP worker",
            ),
            ("[topology.email-pipeline.task.read-lines]\nsettings = { A = 1 }", "read-lines.settings`: the task comes with"),
            ("[topology.email-pipeline.task.count]\nsource = { type = 'interval' }", "count.source`: other tasks give to"),
            ("[trace]\nenable = true", "did you mean `enabled`?"),
            ("nonsense", "reading the configuration"),
        ] {
            let error = load("", file, &[], &Flags::default()).expect_err(file).to_string();
            assert!(error.contains(words), "{file}: {error}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key_and_its_place_whatever_it_is_about() {
        let task = "topology.other.task.any";
        for (key, value, words) in [
            ("data", "5", "invalid type: integer `5`"),
            ("data", "''", "it is empty"),
            ("jobs.files", "''", "it is empty"),
            ("trace.keep", "'long'", "is no duration"),
            ("jobs.keep", "7", "7 is no duration"),
            ("trace.enabled", "5", "expected a boolean"),
            ("broker.url", "'embeded'", "did you mean `embedded`?"),
            ("broker.durability", "'strong'", "`strong` is none of `power`"),
            ("topology.other.durability", "'nonsense'", "`nonsense` is none of `power`"),
            (&format!("{task}.timeout"), "'5 parsecs'", "\"5 parsecs\" is no duration"),
            (&format!("{task}.timeout"), "5", "5 is no duration"),
            (&format!("{task}.timeout"), "'0s'", "longer than zero"),
            (&format!("{task}.timeout"), "'400d'", "\"400d\" is longer than 31 days"),
            (&format!("{task}.parallelism"), "-1", "-1 is no whole number from 1 to 4096"),
            (&format!("{task}.parallelism"), "0", "0 is no whole number"),
            (&format!("{task}.parallelism"), "100000", "100000 is no whole number"),
            (&format!("{task}.source"), "5", "invalid type: integer `5`"),
            (&format!("{task}.retry.attempts"), "0", "0 is no whole number from 1 to 1000"),
            (&format!("{task}.retry.attempts"), "1001", "1001 is no whole number"),
            (&format!("{task}.retry.backoff"), "'32d'", "longer than 31 days"),
        ] {
            let file = format!("{key} = {value}");
            let error = load("", &file, &[], &Flags::default()).expect_err(&file).to_string();
            assert!(error.starts_with("in `") && error.contains(&format!("leat.toml`: `{key}`: ")), "{file}: {error}");
            assert!(error.contains(words), "{file}: {error}");
            let error = load(&file, "", &[], &Flags::default()).expect_err(&file).to_string();
            assert!(error.contains(&format!("config.toml`: `{key}`: ")), "{file}: {error}");
            let name = format!("LEAT_{}", key.replace('.', "__").replace('-', "_").to_uppercase());
            let variable = (name.as_str(), value.trim_matches('\''));
            match load("", "", &[variable], &Flags::default()) {
                // A variable's text is a path whatever it looks like.
                Ok(_) => assert_eq!((key, value), ("data", "5")),
                Err(error) => assert!(error.to_string().starts_with(&format!("in the variable `{name}`: `{key}`: ")), "{error}"),
            }
        }
        let (waits, longest) = (format!("{task}.retry.backoff = '2m'"), format!("{task}.retry.max_backoff = '1m'"));
        let error = load(&waits, &longest, &[], &Flags::default()).expect_err("they contradict each other").to_string();
        assert!(error.contains(&format!("leat.toml`: `{task}.retry.max_backoff`: 1m is shorter than `backoff`")), "{error}");
        assert!(load("", &waits, &[], &Flags::default()).is_ok(), "as in a project, one of the two alone is fine");
        for (flags, words) in [
            (Flags { data: Some(PathBuf::new()), ..Flags::default() }, "in the command line: `--data`: it is empty"),
            (Flags { durability: Some("strong".to_owned()), ..Flags::default() }, "in the command line: `--durability`: "),
        ] {
            let error = load("", "", &[], &flags).expect_err(words).to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn the_name_of_another_topology_is_doubted_if_it_is_nearly_this_one() {
        let doubts = |file: &str, variables: &[(&str, &str)]| {
            let (config, _) = load("", file, variables, &Flags::default()).unwrap();
            (config.doubts("email-pipeline"), config)
        };
        for name in ["email-pipelin", "emial-pipeline", "email_pipeline"] {
            let (doubts, _) = doubts(&format!("[topology.{name}]\ndurability = 'power'"), &[]);
            assert!(matches!(doubts.as_slice(), [one] if one.contains(name) && one.contains("leat.toml`")), "{name}: {doubts:?}");
        }
        let variable = "LEAT_TOPOLOGY__EMAIL_PIPLINE__TASK__SEND__TIMEOUT";
        assert!(doubts("", &[(variable, "5s")]).0[0].contains(variable));
        let (none, config) = doubts("[topology.orders.task.a]\n[topology.email-pipeline-2]\n[topology.email-pipeline]", &[]);
        assert_eq!(none, [""; 0]);
        let known = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), vec!["b".to_owned()])).collect();
        let error = |names: &[&str]| config.fits(&known(names)).unwrap_err().to_string();
        let all = ["email-pipeline", "email-pipeline-2", "orders"];
        assert!(error(&all).contains("unknown key `topology.orders.task.a` in `"), "{}", error(&all));
        assert!(error(&all[..2]).contains("unknown key `topology.orders` in `"), "{}", error(&all[..2]));
        let (config, _) = load("[topology.of-another-project]", "[topology.orders.task.b]", &[], &Flags::default()).unwrap();
        assert!(config.fits(&known(&all)).is_ok(), "all projects share the file at home");
    }
}
