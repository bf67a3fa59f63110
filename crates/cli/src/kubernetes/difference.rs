//! What changes within an object, a line for each value.

use serde_json::Value;

/// The lines of what `desired` changes in `live`: what is there and not asked for is the API server's, and left alone.
pub(super) fn lines(live: &Value, desired: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare(Some(live), desired, &mut String::new(), &mut lines);
    lines
}

fn compare(live: Option<&Value>, desired: &Value, path: &mut String, lines: &mut Vec<String>) {
    let length = path.len();
    match (live, desired) {
        (Some(live), desired) if live == desired => {}
        (_, Value::Object(map)) => {
            for (key, value) in map {
                path.push('.');
                path.push_str(key);
                compare(live.and_then(|live| live.get(key)), value, path, lines);
                path.truncate(length);
            }
        }
        (_, Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str);
                let found = match name {
                    Some(name) => live.and_then(Value::as_array).and_then(|live| live.iter().find(|known| known["name"] == name)),
                    None => live.and_then(|live| live.get(index)),
                };
                path.push_str(&format!("[{}]", name.map_or_else(|| index.to_string(), str::to_owned)));
                compare(found, value, path, lines);
                path.truncate(length);
            }
        }
        (None | Some(Value::Null), value) => lines.push(format!("+ {}: {value}", path.trim_start_matches('.'))),
        (Some(live), value) => lines.push(format!("~ {}: {live} -> {value}", path.trim_start_matches('.'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changes_is_told() {
        let live = json!({"spec": {"replicas": 1, "list": [{"name": "a", "image": "x", "default": 1}], "args": ["p", "q"]}, "status": {}});
        let desired = json!({"spec": {"replicas": 2, "list": [{"name": "a", "image": "y"}, {"name": "b"}], "args": ["p", "r"], "new": true}});
        let expected = [
            "~ spec.args[1]: \"q\" -> \"r\"",
            "~ spec.list[a].image: \"x\" -> \"y\"",
            "+ spec.list[b].name: \"b\"",
            "+ spec.new: true",
            "~ spec.replicas: 1 -> 2",
        ];
        assert_eq!(lines(&live, &desired), expected);
        assert!(lines(&live, &json!({"spec": {"replicas": 1}})).is_empty());
    }
}
