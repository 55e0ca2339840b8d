//! The gateway's own listeners: metrics and health for machines, the console for people.
//!
//! Owns everything that speaks HTTP for the gateway itself; the only crate that knows the web framework.
//! Must not know where a metric or a health state comes from; closures are handed in.

mod console;
mod error;
mod health;
mod operations;
mod routes;

pub use console::{
    Chores, Clients, Console, Figures, Knowledge, Limits, LiveSettings, Parts, Running, Stories,
};
pub use console::{
    LINK_LASTS, MAX_TOKEN_LASTS, MIN_PASSWORD_CHARS, PasswordProblem, check_name, check_password, digest_of,
    hash_password, new_api_token, new_token,
};
pub use console::{openapi_json, running};
pub use error::{AdminError, HealthError};
pub use health::{MAX_HEALTH_ANSWER_BYTES, ask_ready};
pub use operations::{CONNECTION_TIME, MAX_CONNECTIONS, MAX_HEAD_BYTES, Operations};
pub use routes::Probes;
