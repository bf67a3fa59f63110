//! Checks that no two topics of the project share a name, which joining names by `-` would allow.

use std::collections::HashMap;

use super::Draft;
use crate::Topology;
use crate::diagnostics::{Diagnostic, Place, Reports, codes};

pub(super) fn run(topologies: &[Topology], drafts: &[Draft], reports: &mut Reports) {
    let mut seen: HashMap<String, Place> = HashMap::new();
    for (topology, draft) in topologies.iter().zip(drafts) {
        for node in &draft.sketch.nodes {
            let Some(task) = topology.task(&node.id.text) else { continue };
            let place = draft.spec.graph.place(&node.id.span);
            let ingress = topology.ingress(task);
            for topic in [ingress.topic(), ingress.dead_letter_topic()] {
                once(topic, &place, &mut seen, reports);
            }
        }
        for (edge, link) in topology.edges().iter().zip(&draft.sketch.links) {
            once(edge.dead_letter_topic(), &draft.spec.graph.place(&link.span), &mut seen, reports);
        }
    }
}

fn once(topic: String, place: &Place, seen: &mut HashMap<String, Place>, reports: &mut Reports) {
    let Some(first) = seen.get(&topic) else {
        seen.insert(topic, place.clone());
        return;
    };
    let message = format!("two topics would be called `{topic}`");
    let diagnostic = Diagnostic::at(&codes::TOPIC_TWICE, place, message, "one for this");
    let diagnostic = diagnostic.also(first, "one for this").with_help("give one of the tasks, labels or topologies another name");
    reports.push(diagnostic.with_note("a topic is named `<topology>-<task>`, and `.out`, the label and the target behind it"));
}
