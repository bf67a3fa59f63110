//! Lays one template over another, as Kubernetes does: objects are merged key by key, lists of named things by their names, anything else is replaced.

use serde_json::Value;

/// What tells the elements of a list apart, by the list's key; the lists that are not here are replaced as a whole.
const IDENTITY: [(&str, &str); 10] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
    ("hostAliases", "ip"),
    ("tasks", "name"),
    ("edges", "edge"),
];

/// Lays `over` over `base`. A null takes a key away.
pub fn overlay(base: &mut Value, over: &Value) {
    overlay_at(base, over, "");
}

fn overlay_at(base: &mut Value, over: &Value, key: &str) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(key);
                } else {
                    overlay_at(base.entry(key).or_insert(Value::Null), value, key);
                }
            }
        }
        (Value::Array(base), Value::Array(over)) => match IDENTITY.iter().find(|(list, _)| *list == key) {
            Some((_, identity)) => named(base, over, identity),
            None => base.clone_from(over),
        },
        (base, over) => *base = stripped(over),
    }
}

fn named(base: &mut Vec<Value>, over: &[Value], identity: &str) {
    for element in over {
        let same = |known: &&mut Value| element.get(identity).is_some_and(|name| known.get(identity) == Some(name));
        match base.iter_mut().find(same) {
            Some(known) => overlay_at(known, element, ""),
            None => base.push(stripped(element)),
        }
    }
}

/// A value without the nulls that would have taken something away.
fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), stripped(value))).collect()
        }
        Value::Array(list) => list.iter().map(stripped).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_laid_over_another() {
        let base = json!({"spec": {"containers": [{"name": "worker", "image": "a", "env": [{"name": "A", "value": "1"}]}], "tolerations": [1, 2]}});
        for (over, path, expected) in [
            (json!({"spec": {"nodeSelector": {"a": "b"}}}), "/spec/nodeSelector/a", json!("b")),
            (
                json!({"spec": {"containers": [{"name": "worker", "image": "b"}]}}),
                "/spec/containers/0",
                json!({"name": "worker", "image": "b", "env": [{"name": "A", "value": "1"}]}),
            ),
            (
                json!({"spec": {"containers": [{"name": "worker", "env": [{"name": "A", "value": "2"}, {"name": "B"}]}]}}),
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "2"}, {"name": "B"}]),
            ),
            (json!({"spec": {"containers": [{"name": "side", "image": "c"}]}}), "/spec/containers/1/name", json!("side")),
            (json!({"spec": {"tolerations": [3]}}), "/spec/tolerations", json!([3])),
            (json!({"spec": {"containers": null}}), "/spec", json!({"tolerations": [1, 2]})),
            (json!({"spec": {"affinity": {"x": null, "y": 1}}}), "/spec/affinity", json!({"y": 1})),
        ] {
            let mut merged = base.clone();
            overlay(&mut merged, &over);
            assert_eq!(merged.pointer(path), Some(&expected), "{over}");
        }
    }
}
