//! How many dispatchers an autoscaler asks for by the object that is planned, by the rules that Kubernetes documents for an external metric with an average value.

use leatworks_controller::{
    crd::TopologySpec,
    graph,
    plan::{self, Settings, Site},
};
use serde_json::{Value, json};

/// An autoscaler leaves everything as it is while the ratio is this near to 1.
const TOLERANCE: f64 = 0.1;

fn scaler(autoscale: Value) -> Value {
    let spec: TopologySpec = serde_json::from_value(json!({
        "graph": "flowchart LR\n  parse -->|good| store\n  parse -->|bad| reject\n",
        "image": "shop:1",
        "broker": { "url": "pulsar://pulsar:6650" },
        "edges": [{ "edge": "parse-->|good|store", "autoscale": autoscale }],
    }))
    .expect("a spec");
    let graph = graph::compile("orders", &spec).expect("a valid graph");
    let settings = Settings::default();
    let site = Site { name: "orders", namespace: "shop", uid: "1", spec: &spec, graph: &graph, settings: &settings };
    let objects = plan::desired(site).expect("it can be deployed");
    let mut scalers = objects.iter().filter(|object| object["kind"] == "HorizontalPodAutoscaler");
    let scaler = scalers.next().expect("an autoscaler").clone();
    assert!(scalers.next().is_none(), "the other edge has none");
    let target = objects
        .iter()
        .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"]);
    let target = target.expect("what is scaled is there");
    assert_eq!(target["metadata"]["annotations"]["leatworks.dev/edge"], "parse-->|good|store");
    assert!(target["spec"].get("replicas").is_none(), "only one of the two says how many there are");
    scaler
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

/// What the metric alone asks for, within the bounds.
fn recommended(scaler: &Value, current: f64, backlog: f64) -> f64 {
    let spec = &scaler["spec"];
    let external = &spec["metrics"][0]["external"];
    assert_eq!((&spec["metrics"][0]["type"], &external["target"]["type"]), (&"External".into(), &"AverageValue".into()));
    let target: f64 = external["target"]["averageValue"].as_str().expect("a quantity").parse().expect("a plain number");
    let ratio = backlog / (target * current);
    let wanted = if (ratio - 1.0).abs() <= TOLERANCE { current } else { (backlog / target).ceil() };
    wanted.clamp(number(&spec["minReplicas"]), number(&spec["maxReplicas"]))
}

/// What becomes of a number of dispatchers within one period, when these were recommended within the window, the last one now.
fn next(scaler: &Value, current: f64, recommended: &[f64]) -> f64 {
    let behaviour = &scaler["spec"]["behavior"];
    let now = *recommended.last().expect("a recommendation");
    let change = |rules: &Value, current: f64| -> f64 {
        assert_eq!(rules["selectPolicy"], "Max");
        let policies = rules["policies"].as_array().expect("policies").iter();
        let by = policies.map(|policy| match policy["type"].as_str() {
            Some("Percent") => (current * number(&policy["value"]) / 100.0).ceil(),
            Some("Pods") => number(&policy["value"]),
            other => panic!("{other:?} is no policy"),
        });
        by.fold(0.0, f64::max)
    };
    if now > current {
        let up = &behaviour["scaleUp"];
        assert_eq!(up["stabilizationWindowSeconds"], 0, "a backlog is not waited for");
        return now.min(current + change(up, current));
    }
    let down = &behaviour["scaleDown"];
    let calm = recommended.iter().copied().fold(0.0, f64::max).min(current);
    calm.max(current - change(down, current))
}

#[test]
fn the_backlog_says_how_many_dispatchers_are_asked_for() {
    let scaler = scaler(json!({ "minReplicas": 2, "maxReplicas": 10, "backlogPerReplica": 1000 }));
    for (current, backlog, expected) in [
        (2.0, 0.0, 2.0),
        (2.0, 1.0, 2.0),
        (2.0, 2_000.0, 2.0),
        // Within a tenth nothing changes.
        (2.0, 2_199.0, 2.0),
        (2.0, 2_201.0, 3.0),
        (3.0, 2_700.0, 3.0),
        (3.0, 2_600.0, 3.0),
        (4.0, 3_000.0, 3.0),
        (5.0, 7_001.0, 8.0),
        (2.0, 9_999.0, 10.0),
        (2.0, 1e9, 10.0),
        (10.0, 1e9, 10.0),
        (10.0, 0.0, 2.0),
    ] {
        assert_eq!(recommended(&scaler, current, backlog) as i64, expected as i64, "{current} with a backlog of {backlog}");
    }
}

#[test]
fn the_number_grows_at_once_and_shrinks_when_it_has_been_calm() {
    let scaler = scaler(json!({ "maxReplicas": 64, "backlogPerReplica": 100 }));
    assert_eq!(scaler["spec"]["minReplicas"], 1);
    let down = &scaler["spec"]["behavior"]["scaleDown"];
    assert!(number(&down["stabilizationWindowSeconds"]) >= 60.0, "the next burst may be near");
    let periods = scaler["spec"]["behavior"]
        .as_object()
        .expect("rules")
        .values()
        .flat_map(|rules| rules["policies"].as_array().expect("policies"));
    for policy in periods {
        assert!((1.0..=1800.0).contains(&number(&policy["periodSeconds"])), "{policy}");
    }
    for (current, recommendations, expected) in [
        // Four more, or twice as many.
        (1.0, &[64.0][..], 5.0),
        (5.0, &[64.0], 10.0),
        (10.0, &[64.0], 20.0),
        (10.0, &[12.0], 12.0),
        // The most that was asked for within the window counts on the way down.
        (20.0, &[20.0, 3.0, 1.0], 20.0),
        (20.0, &[15.0, 3.0, 1.0], 15.0),
        (20.0, &[2.0, 3.0, 1.0], 10.0),
        (1.0, &[1.0], 1.0),
    ] {
        let next = next(&scaler, current, recommendations);
        assert_eq!(next as i64, expected as i64, "{current} when {recommendations:?} were recommended");
    }
}

#[test]
fn the_metric_is_found_by_labels_that_dispatchers_give_it() {
    let scaler = scaler(json!({ "maxReplicas": 4, "backlogPerReplica": 10 }));
    let metric = &scaler["spec"]["metrics"][0]["external"]["metric"];
    assert_eq!(metric["name"], plan::BACKLOG_METRIC);
    assert_eq!(
        metric["selector"]["matchLabels"],
        json!({ "topology": "orders", "edge": leatworks::observe::label("parse-->|good|store") })
    );
}
