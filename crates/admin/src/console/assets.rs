//! Style, script and pictures, embedded in the program.
//!
//! Owns their addresses, which change with their content, so that browsers may keep them for ever.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

struct Asset {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            content: include_str!(concat!("../../assets/", $name)),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("blocks.js", JS),
    asset!("console.css", CSS),
    asset!("console.js", JS),
    asset!("mark.svg", SVG),
    asset!("overview.js", JS),
    asset!("requests.js", JS),
    asset!("refresh.js", JS),
];

/// The address of an asset, with a part that is another one when its content is.
pub(super) fn address(name: &str) -> String {
    let version = ASSETS.iter().find(|asset| asset.name == name).map_or(0, |asset| version(asset.content));
    format!("/assets/{version:016x}/{name}")
}

/// The same in every process of this build.
fn version(content: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

pub(super) async fn serve(Path((_, name)): Path<(String, String)>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers =
                [(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (headers, asset.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
