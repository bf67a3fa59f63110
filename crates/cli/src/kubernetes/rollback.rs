//! `leat rollback`: asks for an earlier revision again.

use super::{args::Rollback, block_on, cluster, deploy};
use crate::{
    args::Global,
    exit::{Code, Failure, Result, say},
};
use leatworks_controller::{
    cluster::topology_resource,
    names::Kind,
    revision::{self, Revision},
};
use serde_json::json;
use std::time::Instant;

/// `leat rollback`.
pub(crate) fn rollback(args: &Rollback, global: &Global) -> Result {
    block_on(async {
        let (cluster, namespace) = cluster(args.context.context.as_deref()).await?;
        let namespace = args.namespace.clone().unwrap_or(namespace);
        let name = &args.topology;
        if cluster.topology(&namespace, name).await?.is_none() {
            return Err(Failure::new(Code::Nothing, format!("there is no topology `{name}` in namespace `{namespace}`")));
        }
        let revisions = revision::all(&cluster.objects(&namespace, name, &[Kind::Revision]).await?);
        if args.list {
            revisions.iter().for_each(|revision| say!("{}", line(revision)));
            return Ok(());
        }
        let target = target(&revisions, args.to).map_err(|why| Failure::new(Code::Nothing, format!("`{name}`: {why}")))?;
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
    format!("{:>4}  {}  {}  {}", revision.number, revision.made, revision.spec.graph_hash.as_deref().unwrap_or("-"), revision.spec.image)
}

/// The revision to go back to: the one that is named, or the newest but one.
fn target(revisions: &[Revision], to: Option<i64>) -> std::result::Result<&Revision, String> {
    let numbers = || revisions.iter().map(|revision| revision.number.to_string()).collect::<Vec<_>>().join(", ");
    match to {
        Some(number) => {
            revisions.iter().find(|revision| revision.number == number).ok_or_else(|| format!("no revision {number} is kept; there are {}", numbers()))
        }
        None => revisions.get(1).ok_or_else(|| "there is no earlier revision".to_owned()),
    }
}
