//! A finding as it may be written down, when it was made of what a client really sent.
//!
//! The run of every hour reads the log, from which privacy has been taken out already; the engine at request time sees
//! the requests before that. Owns the difference. Must not let anything through that the log would not hold.

use portcullis_config::Privacy;
use portcullis_detect::SharedAddress;
use portcullis_model::{ClientIp, Finding, UnixMs, normalise_path};
use portcullis_privacy::Anonymise;
use serde_json::Value;

use super::Recording;

impl Recording {
    /// The user that the detector may know at request time: the one that the log may name.
    pub(crate) fn user_to_judge<'t>(&self, client: ClientIp, user: &'t str, asked: bool) -> &'t str {
        if user.is_empty() {
            return user;
        }
        let config = self.config.load();
        let privacy = &config.privacy;
        let is_kept = privacy.log_user && !asked && !self.has_opted_out(privacy, client, user, None);
        if is_kept { user } else { "" }
    }

    /// Under which address the log has a client that has not opted out.
    pub(crate) fn name_in_the_log(&self, client: ClientIp, now: UnixMs) -> ClientIp {
        let config = self.config.load();
        match config.privacy.anonymise {
            Anonymise::None => client,
            Anonymise::Truncate | Anonymise::Hash => self.logged(&config.privacy, client, now),
        }
    }

    /// A finding about a true client, and what is known of its address, as the log's reader would have made them.
    /// `asked`: with the last request the client asked not to be tracked, and that is honoured.
    pub(crate) fn finding(
        &self,
        mut finding: Finding,
        shared: Option<SharedAddress>,
        asked: bool,
        now: UnixMs,
    ) -> (Finding, Option<SharedAddress>) {
        let config = self.config.load();
        let privacy = &config.privacy;
        let client = finding.client;
        let user = finding.user.as_deref().unwrap_or_default();
        let may_ask = privacy.honour_gpc || privacy.honour_dnt;
        let own = || self.logged(privacy, client, now);
        // An earlier request of it may have asked, or gone where nobody is to be known.
        let has_asked = || {
            let may_have = may_ask || !privacy.opt_out_paths.is_empty();
            may_have && self.addresses().one_of(own()) == Some(client)
        };
        let has_opted_out = asked || self.has_opted_out(privacy, client, user, None) || has_asked();
        let is_anonymous = has_opted_out || privacy.anonymise != Anonymise::None;
        let own = if is_anonymous { own() } else { client };
        let texts = Texts {
            recording: self,
            privacy,
            // Which of its requests asked cannot be told any more where all addresses are anonymous.
            has_opted_out: has_opted_out || may_ask,
            names: if is_anonymous { names(client, own) } else { Vec::new() },
        };
        texts.hide(&mut finding.details, "");
        finding.client = own;
        let shared = shared.map(|mut shared| {
            shared.user_agents.retain(|agent| texts.keeps_agent(agent));
            shared
        });
        (finding, shared)
    }
}

/// What stands for the client in sentences, and what is written instead.
fn names(client: ClientIp, own: ClientIp) -> Vec<(String, String)> {
    let mut names = vec![(client.to_string(), own.to_string())];
    if client.ip().is_ipv6() {
        names.push((format!("{}/64", client.limit_key()), format!("{}/64", own.limit_key())));
    }
    names
}

struct Texts<'a> {
    recording: &'a Recording,
    privacy: &'a Privacy,
    has_opted_out: bool,
    names: Vec<(String, String)>,
}

impl Texts<'_> {
    /// Goes through the details; `key` is under which the value stands.
    fn hide(&self, value: &mut Value, key: &str) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) if key == "path" => *text = self.target(text),
            Value::String(text) => {
                for (name, instead) in &self.names {
                    if text.contains(name.as_str()) {
                        *text = text.replace(name.as_str(), instead);
                    }
                }
            }
            Value::Array(values) => {
                if key == "user_agents" {
                    values.retain(|agent| agent.as_str().is_some_and(|agent| self.keeps_agent(agent)));
                }
                values.iter_mut().for_each(|value| self.hide(value, key));
            }
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| self.hide(value, key)),
        }
    }

    /// Path and query of a sample.
    fn target(&self, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let normal = normalise_path(path.as_bytes());
        let opts_out =
            self.has_opted_out || self.privacy.opt_out_paths.iter().any(|pattern| pattern.matches(&normal));
        let path = self.privacy.redact.path(path);
        match &*self.recording.query(self.privacy, query, opts_out) {
            "" => path.into_owned(),
            query => format!("{path}?{query}"),
        }
    }

    fn keeps_agent(&self, agent: &str) -> bool {
        match (self.has_opted_out, self.privacy.log_user_agent) {
            (_, false) => false,
            (false, true) => true,
            // A scanner's name is nobody's.
            (true, true) => {
                self.recording.signatures_of(agent).is_some_and(|all| all.attack_in_agent(agent).is_some())
            }
        }
    }
}
