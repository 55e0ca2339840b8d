//! What callers send: parts of the address, parameters, JSON; each failure names its field.
//! Must not know what the values are for.

use std::fmt;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, RawPathParams, RawQuery, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::problem::{Kind, Problem};

/// What stands for the field when all of it is meant.
const WHOLE: &str = "(the whole)";

/// The parameters of the address; those that nobody knows are an error, so that a misspelt filter is not ignored.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(parts, state).await;
        let query = query.unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|error| at_field(&error))
    }
}

/// A part of the address.
pub(super) struct Part<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Part<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = match RawPathParams::from_request_parts(parts, state).await {
            Ok(all) => all.iter().next().map_or_else(String::new, |(name, _)| name.to_owned()),
            Err(error) => return Err(Problem::new(Kind::BadRequest, error.body_text())),
        };
        let part = Path::from_request_parts(parts, state).await;
        part.map(|Path(value)| Self(value)).map_err(|error| Problem::field(name, why(error)))
    }
}

fn why(error: PathRejection) -> String {
    match error {
        PathRejection::FailedToDeserializePathParams(error) => match error.into_kind() {
            ErrorKind::Message(message) => message,
            other => other.to_string(),
        },
        other => other.body_text(),
    }
}

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::of(Kind::UnsupportedMediaType));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::of(Kind::TooLarge),
            _ => Problem::new(Kind::BadRequest, error.body_text()),
        })?;
        read(&bytes).map(Self)
    }
}

/// Has serde read a parameter by its text form.
pub(super) fn parsed<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would take a list for the fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::field(WHOLE, "expected an object, got a list"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value =
        serde_path_to_error::deserialize(&mut json).map_err(|error| match error.inner().classify() {
            serde_json::error::Category::Data => at_field(&error),
            _ => no_json(error.inner()),
        })?;
    json.end().map_err(|error| no_json(&error))?;
    Ok(value)
}

fn no_json(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::BadRequest, format!("The body is no JSON: {error}."))
}

fn at_field<E: fmt::Display>(error: &serde_path_to_error::Error<E>) -> Problem {
    let path = error.path().to_string();
    let field = if path == "." { WHOLE.to_owned() } else { path };
    Problem::field(field, error.inner().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Point {
        x: u8,
        inner: Vec<Option<u8>>,
    }

    fn failure(body: &str) -> serde_json::Value {
        serde_json::to_value(read::<Point>(body.as_bytes()).unwrap_err()).unwrap()
    }

    #[test]
    fn a_wrong_value_names_its_field() {
        let problem = failure(r#"{"x": 1, "inner": [1, "two"]}"#);
        assert_eq!(problem["errors"][0]["field"], "inner[1]");
        assert_eq!(problem["status"], 422);
        let problem = failure(r#"{"x": 1, "y": 2, "inner": []}"#);
        assert_eq!(problem["errors"][0]["field"], "y");
    }

    #[test]
    fn a_list_is_no_object() {
        let problem = failure(" [1, [2]]");
        assert_eq!((&problem["status"], &problem["errors"][0]["field"]), (&422.into(), &WHOLE.into()));
    }

    #[test]
    fn what_is_no_json_is_told_apart() {
        for body in ["", "{", "{\"x\": 1, \"inner\": []} more"] {
            assert_eq!(failure(body)["status"], 400, "{body}");
        }
    }
}
