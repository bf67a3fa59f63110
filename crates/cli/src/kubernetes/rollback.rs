//! `leat rollback`: asks for an earlier revision again.

use super::{args::Rollback, block_on, cluster, deploy};
use crate::{
    args::Global,
    exit::{Code, Failure, Result, say},
};
use leatworks_controller::{
    cluster::topology_resource,
    crd::TopologySpec,
    names::Kind,
    revision::{self, Revision},
};
use serde_json::{Value, json};
use std::time::Instant;

/// `leat rollback`.
pub(crate) fn rollback(args: &Rollback, global: &Global) -> Result {
    block_on(async {
        let (cluster, namespace) = cluster(args.context.context.as_deref()).await?;
        let namespace = args.namespace.clone().unwrap_or(namespace);
        let name = &args.topology;
        let Some(live) = cluster.topology(&namespace, name).await? else {
            return Err(Failure::new(Code::Nothing, format!("there is no topology `{name}` in namespace `{namespace}`")));
        };
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
        let revisions = revision::all(&revision::of(&cluster.objects(&namespace, name, &[Kind::Revision]).await?, uid));
        if args.list {
            revisions.iter().for_each(|revision| say!("{}", line(revision)));
            return Ok(());
        }
        let target =
            target(&revisions, &live["spec"], args.to).map_err(|why| Failure::new(Code::Nothing, format!("`{name}`: {why}")))?;
        let resource = topology_resource();
        let object = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name, "namespace": namespace },
            "spec": target.spec,
        });
        cluster.apply_topology(&object, false).await?;
        if !global.quiet {
            eprintln!("{:>12} {name} in {namespace} to revision {}", "Rolled back", target.number);
        }
        if args.wait.wait {
            let deadline = Instant::now() + *args.wait.timeout;
            deploy::wait(&cluster, &namespace, name, deadline, &args.wait, global.quiet).await?;
        }
        Ok(())
    })
}

fn line(revision: &Revision) -> String {
    format!(
        "{:>4}  {}  {}  {}",
        revision.number,
        revision.made,
        revision.spec.graph_hash.as_deref().unwrap_or("-"),
        revision.spec.image
    )
}

/// The revision to go back to: the one that is named; else the newest that is not what is asked for now, which a refused resource never became.
fn target<'a>(revisions: &'a [Revision], now: &Value, to: Option<i64>) -> std::result::Result<&'a Revision, String> {
    let numbers = || revisions.iter().map(|revision| revision.number.to_string()).collect::<Vec<_>>().join(", ");
    match to {
        Some(number) => revisions
            .iter()
            .find(|revision| revision.number == number)
            .ok_or_else(|| format!("no revision {number} is kept; there are {}", numbers())),
        None => {
            let now: Option<TopologySpec> = serde_json::from_value(now.clone()).ok();
            let other = |revision: &&Revision| now.as_ref() != Some(&revision.spec);
            revisions.iter().find(other).ok_or_else(|| "there is no earlier revision".to_owned())
        }
    }
}
