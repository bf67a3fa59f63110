//! What was deployed before, kept for when a later resource does not validate, and for `leat rollback`.

use crate::{
    crd::TopologySpec,
    names::{self, Kind},
    plan::Site,
};
use serde_json::{Value, json};

/// A revision that was deployed.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its number; the highest is the current one.
    pub number: i64,
    /// What was asked for.
    pub spec: TopologySpec,
    /// When it was made, as the API server says.
    pub made: String,
}

/// All revisions that can be read, the newest first. One that cannot be read is passed over.
pub fn all(objects: &[Value]) -> Vec<Revision> {
    let read = |object: &Value| {
        Some(Revision {
            number: object["revision"].as_i64()?,
            spec: serde_json::from_value(object["data"]["spec"].clone()).ok()?,
            made: object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(),
        })
    };
    let mut all: Vec<Revision> = objects.iter().filter_map(read).collect();
    all.sort_by_key(|revision| std::cmp::Reverse(revision.number));
    all
}

/// The object that records what is deployed now, and the version that was seen of it; `None` if the newest revision is the same.
pub fn record(site: Site<'_>, objects: &[Value]) -> (i64, Option<(Value, Option<String>)>) {
    let newest = all(objects).into_iter().next();
    let number = match newest {
        Some(newest) if newest.spec == *site.spec => return (newest.number, None),
        Some(newest) => newest.number + 1,
        None => 1,
    };
    let spec = json!(site.spec);
    let name = names::object(site.name, "revision", &names::hash8(&spec.to_string()));
    let mut object = site.whole(Kind::Revision, &name);
    object["revision"] = number.into();
    object["data"] = json!({ "spec": spec });
    // What was deployed once before is the newest again.
    let known = objects.iter().find(|known| known["metadata"]["name"] == name.as_str());
    let seen = known.and_then(|known| known["metadata"]["resourceVersion"].as_str()).map(str::to_owned);
    (number, Some((object, seen)))
}

/// Revisions beyond those that are kept.
pub fn surplus(objects: &[Value], kept: i32) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = objects.iter().collect();
    sorted.sort_by_key(|object| std::cmp::Reverse(object["revision"].as_i64().unwrap_or_default()));
    sorted.into_iter().skip(usize::try_from(kept.max(1)).unwrap_or(1)).collect()
}
