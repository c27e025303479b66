//! Spans as OTLP/JSON: an `ExportTraceServiceRequest` in the JSON mapping of protocol buffers, with
//! ids in hexadecimal and 64-bit numbers as text. Source: opentelemetry-proto, `trace.proto` and the
//! OTLP specification, "JSON Protobuf Encoding".

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::RunFacts;
use super::span::{Attribute, Span, Value};

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// A request with these spans, by the node that did the work.
#[must_use]
pub fn request(run: &RunFacts, spans: &[Span]) -> Json {
    let mut by_node: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    for one in spans {
        by_node.entry(one.node.as_str()).or_default().push(span(one));
    }
    let resources = by_node.into_iter().map(|(node, spans)| {
        let about: [Attribute; 4] = [
            ("service.name".into(), "crrl".into()),
            ("service.version".into(), env!("CARGO_PKG_VERSION").into()),
            ("service.instance.id".into(), node.into()),
            ("crrl.run".into(), run.name.as_str().into()),
        ];
        json!({
            "resource": {"attributes": attributes(&about)},
            "scopeSpans": [{
                "scope": {"name": "crrl", "version": env!("CARGO_PKG_VERSION")},
                "spans": spans,
            }],
        })
    });
    json!({"resourceSpans": resources.collect::<Vec<_>>()})
}

fn span(span: &Span) -> Json {
    let mut object = Map::new();
    let mut put = |key: &str, value: Json| drop(object.insert(key.to_owned(), value));
    put("traceId", span.trace.to_string().into());
    put("spanId", span.id.to_string().into());
    if let Some(parent) = span.parent {
        put("parentSpanId", parent.to_string().into());
    }
    put("name", span.name.as_str().into());
    put("kind", INTERNAL.into());
    put("startTimeUnixNano", span.at.from.to_string().into());
    put("endTimeUnixNano", span.at.to.to_string().into());
    put("attributes", attributes(&span.attributes));
    if !span.links.is_empty() {
        let link = |(trace, id): &(_, _)| json!({"traceId": text(trace), "spanId": text(id)});
        put("links", span.links.iter().map(link).collect());
    }
    if span.links_left_out > 0 {
        put("droppedLinksCount", span.links_left_out.into());
    }
    if let Some(why) = &span.failed {
        put("status", json!({"code": ERROR, "message": why}));
    }
    Json::Object(object)
}

fn text(id: &impl ToString) -> String {
    id.to_string()
}

fn attributes(list: &[Attribute]) -> Json {
    let one = |(key, of): &Attribute| Some(json!({"key": key, "value": value(of)?}));
    list.iter().filter_map(one).collect()
}

fn value(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Int(number) => json!({"intValue": number.to_string()}),
        Value::Float(number) if number.is_finite() => json!({"doubleValue": number}),
        Value::Float(_) => return None,
        Value::Bool(yes) => json!({"boolValue": yes}),
    })
}
