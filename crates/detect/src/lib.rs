//! Records in, findings out: what a client did in a stretch of the log, what the rules and the isolation
//! forest make of it, and why. Must not do I/O, read clocks or know who is blocked.
//!
//! A run: [`Window::new`], [`Window::observe`] for each request, [`Window::finish`]. The forest learns from
//! [`Report::presumed_good`] of earlier windows by [`train`]. At request time [`Engine::observe`] says at once what its
//! rules see; [`Timeline`] is both over a past.

mod actions;
mod activity;
pub mod bots;
mod client;
mod counting;
mod dismissal;
mod distinct;
mod engine;
mod escalation;
mod features;
mod finding;
mod forest;
mod glance;
mod hash;
mod knowledge;
mod observation;
mod past;
mod path;
mod reference;
mod report;
mod rules;
mod scenarios;
mod settings;
mod shared;
mod signatures;
mod site;
mod suppressions;
mod timeline;
mod together;
mod window;
mod words;

pub use actions::{Action, Actions, Decided};
pub use dismissal::{Dismissal, DismissalError, Never};
pub use engine::{Alarm, Engine, SCORE_HALF_LIFE, SCORE_THRESHOLDS};
pub use escalation::{BadPrefix, MIN_BAD, escalate};
pub use features::{FEATURES, Features};
pub use forest::{
    Drift, ForestError, ForestModel, MAX_TRAINING_ROWS, MIN_DRIFT_ROWS, MIN_TRAINING_ROWS, Opinion, Origin,
    Strange, train,
};
pub use glance::{Asked, Look, glance};
pub use knowledge::Knowledge;
pub use observation::{BotStatus, Observation};
pub use past::{MAX_REMEMBERED, Past, WeakEvidence};
pub use path::{is_asset, is_sensitive};
pub use reference::reference_model;
pub use report::{ForestHealth, Report, SharedAddress};
pub use rules::{Evidence, may_be_dismissed_by_path, rule_names};
pub use settings::Settings;
pub use signatures::{Class, MAX_SIGNATURES, Signature, SignatureError, Signatures};
pub use site::{
    DAYS_TO_OWN, Expected, HourTotals, LoginPath, MAX_HOURS, MAX_PATHS, NETWORKS_TO_OWN, OwnedPath, Site,
    SiteError,
};
pub use suppressions::{MAX_SUPPRESSIONS, Scope, Suppression, Suppressions};
pub use timeline::{HourScore, Timeline};
pub use window::{MAX_FINDINGS, MAX_GOOD_ROWS, Window};
pub use words::feature_in_words;
