//! `leat trace`: what has become of a root message.

use crate::{
    args::{Output, Trace},
    exit::{Code, Failure, Result, say},
    operate::{broken, failure_code, print_json, there, unopened},
    project::Found,
};
use leatworks::{
    config::{Config, Flags},
    control::Access,
    jobs::{Location, Store},
    topics::TopologyRef,
    trace::{self, LookError, Traced},
};
use leatworks_controller::graph::reference;

/// Prints every step, attempt, job and file of a root message.
pub(crate) fn run(args: &Trace, found: &Found) -> Result {
    let id = trace::id(&args.id).map_err(|error| Failure::new(Code::Usage, error))?;
    let flags = Flags { data: args.data.data.clone(), ..Flags::default() };
    let config = found.config(flags)?;
    // What lies in an object store is there also where nothing has been run.
    if ![&config.trace.place, &config.jobs.files].into_iter().any(Location::is_far) {
        there(&config)?;
    }
    let topologies: Vec<TopologyRef> = match &args.topology {
        Some(name) => vec![reference(found.topology(Some(name))?)],
        None => found.project.topologies().iter().map(reference).collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let traced = runtime.block_on(look(&config, &topologies, &id))?;
    if traced.is_empty() {
        return Err(Failure::new(Code::Nothing, trace::nothing(&config, &id)));
    }
    if let Output::Json = args.output {
        return print_json(&traced);
    }
    let files = Store::open(&config.jobs.files).map_err(|error| Failure::new(Code::Invalid, error))?;
    for traced in &traced {
        say!("{}", traced.text(&files).trim_end());
        traced.notes.iter().for_each(|note| eprintln!("{:>12} {note}", "Note"));
    }
    Ok(())
}

async fn look(config: &Config, topologies: &[TopologyRef], id: &str) -> Result<Vec<Traced>> {
    let access = Access::open(config).await.map_err(unopened)?;
    let mut all = Vec::new();
    let mut failed = None;
    for topology in topologies {
        match trace::look(&access, config, topology, id).await {
            Ok(traced) => all.extend(traced),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    access.close().await.map_err(broken)?;
    match failed {
        None => Ok(all),
        Some(LookError::Refused { error, kind }) => Err(Failure::new(failure_code(kind), error)),
        Some(error @ LookError::Store(_)) => Err(Failure::new(Code::Invalid, error)),
        Some(LookError::Access(error)) => Err(unopened(error)),
        Some(error) => Err(Failure::new(Code::Unreachable, error)),
    }
}
