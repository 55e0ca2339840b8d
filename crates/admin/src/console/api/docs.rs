//! The API's documentation for people, made of the OpenAPI document.
//! Must not say anything that the document does not.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::openapi;
use super::problem::Kind;
use crate::console::layout::{open_page, table};
use crate::console::shared::Shared;

/// The page below `/api`. Needs nobody to be signed in: it holds nothing of this gateway.
pub(super) async fn show(State(shared): State<Arc<Shared>>) -> Html<Bytes> {
    Html(shared.api_texts.page())
}

pub(super) fn page() -> String {
    let document = serde_json::to_value(openapi()).unwrap_or_default();
    let body = html! {
        p { (text(&document["info"]["description"])) }
        p {
            "For programs: " a href="/api/v1/openapi.json" { "openapi.json" } ". A token is made by "
            code { "portcullis console token add NAME --scope read" } " or under Settings, Tokens."
        }
        pre { "curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:9612/api/v1/requests?limit=10" }
        h2 { "Operations" }
        @for (path, methods) in members(&document["paths"]) {
            @for (method, operation) in members(methods) { (show_operation(path, method, operation)) }
        }
        h2 { "Failures" }
        (failures())
        h2 { "Values" }
        @for (name, schema) in members(&document["components"]["schemas"]) { (show_schema(name, schema)) }
    };
    open_page("JSON API", body).0
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn show_operation(path: &str, method: &str, operation: &Value) -> Markup {
    let parameters = list(&operation["parameters"]);
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    html! {
        details {
            summary { code { (method.to_uppercase()) " " (path) } " " (text(&operation["summary"])) }
            p { (text(&operation["description"])) }
            @if !parameters.is_empty() {
                (table(&format!("Parameters of {method} {path}"), html! {
                    thead { tr { th scope="col" { "parameter" } th scope="col" { "type" } th scope="col" { "about" } } }
                    tbody {
                        @for parameter in parameters {
                            tr {
                                th scope="row" { code { (text(&parameter["name"])) } }
                                td { (type_of(&parameter["schema"])) }
                                td { (text(&parameter["description"])) }
                            }
                        }
                    }
                }))
            }
            @if !body.is_null() { p { "Body: " (type_of(body)) } }
            ul {
                @for (status, response) in members(&operation["responses"]) {
                    li { (status) " " (response_of(response)) }
                }
            }
        }
    }
}

/// A failure leads to its description, and an answer to what it holds.
fn response_of(response: &Value) -> Markup {
    if let Some(name) = last_part(&response["$ref"]) {
        return html! { a href={ "#" (name) } { (name) } };
    }
    let content = members(&response["content"]).next();
    html! {
        (text(&response["description"]))
        @if let Some((_, content)) = content { " " (type_of(&content["schema"])) }
    }
}

fn last_part(reference: &Value) -> Option<&str> {
    reference.as_str()?.rsplit('/').next()
}

fn type_of(schema: &Value) -> Markup {
    if let Some(name) = last_part(&schema["$ref"]) {
        return html! { a href={ "#value-" (name) } { (name) } };
    }
    let options = ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|name| list(&schema[name]));
    let options: Vec<&Value> = options.filter(|option| option["type"] != "null").collect();
    if !options.is_empty() {
        return html! { @for (n, option) in options.iter().enumerate() { @if n > 0 { " or " } (type_of(option)) } };
    }
    if !schema["items"].is_null() {
        return html! { "list of " (type_of(&schema["items"])) };
    }
    let words: Vec<&str> = list(&schema["enum"]).iter().filter_map(Value::as_str).collect();
    if !words.is_empty() {
        return html! { (words.join(", ")) };
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        many => list(many).iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
    };
    html! { (types.join(" or ")) }
}

fn show_schema(name: &str, schema: &Value) -> Markup {
    let fields: Vec<_> =
        list(&schema["allOf"]).iter().chain([schema]).flat_map(|part| members(&part["properties"])).collect();
    html! {
        h3 id={ "value-" (name) } { (name) }
        p { (text(&schema["description"])) @if fields.is_empty() { " " (type_of(schema)) } }
        @if !fields.is_empty() {
            (table(&format!("Fields of {name}"), html! {
                thead { tr { th scope="col" { "field" } th scope="col" { "type" } th scope="col" { "about" } } }
                tbody {
                    @for (field, schema) in &fields {
                        tr {
                            th scope="row" { code { (field) } }
                            td { (type_of(schema)) }
                            td { (text(&schema["description"])) }
                        }
                    }
                }
            }))
        }
    }
}

fn failures() -> Markup {
    table(
        "Failures",
        html! {
            thead { tr { th scope="col" { "type" } th scope="col" { "status" } th scope="col" { "when, and what to do" } } }
            tbody {
                @for kind in Kind::ALL {
                    tr id=(kind.as_str()) {
                        th scope="row" { code { "/api#" (kind.as_str()) } }
                        td { (kind.status().as_u16()) }
                        td { (kind.about()) }
                    }
                }
            }
        },
    )
}
