//! A request's record on its way from the old process to the new one.
//!
//! Owns its form, which names every field: the two processes are of different versions. Must not drop a field.

use portcullis_model::{ClientIp, LoginOutcome, Protocol, Reason, RecordText, RequestRecord, TextFields};
use serde::{Deserialize, Serialize};

const PROTOCOLS: [Protocol; 4] = [Protocol::Http10, Protocol::Http11, Protocol::Http2, Protocol::Unknown];

/// Closed sets in the words of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    id: String,
    client: ClientIp,
    protocol: String,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    latency_us: u64,
    verdict: String,
    reason: String,
    method: String,
    host: String,
    path: String,
    query: String,
    user_agent: String,
    referer: String,
    user: String,
}

impl Row {
    pub(super) fn of(record: &RequestRecord) -> Self {
        let RequestRecord {
            id,
            client,
            protocol,
            status,
            bytes_in,
            bytes_out,
            latency_us,
            verdict,
            reason: _,
            login: _,
            text,
        } = record;
        Self {
            id: id.to_string(),
            client: *client,
            protocol: protocol.as_str().to_owned(),
            status: *status,
            bytes_in: *bytes_in,
            bytes_out: *bytes_out,
            latency_us: *latency_us,
            verdict: verdict.to_string(),
            reason: record.logged_reason().to_string(),
            method: text.method().to_owned(),
            host: text.host().to_owned(),
            path: text.path().to_owned(),
            query: text.query().to_owned(),
            user_agent: text.user_agent().to_owned(),
            referer: text.referer().to_owned(),
            user: text.user().to_owned(),
        }
    }

    /// `None` when it holds a word that this version does not know.
    pub(super) fn record(&self) -> Option<RequestRecord> {
        Some(RequestRecord {
            id: self.id.parse().ok()?,
            client: self.client,
            protocol: PROTOCOLS.into_iter().find(|protocol| protocol.as_str() == self.protocol)?,
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            latency_us: self.latency_us,
            verdict: self.verdict.parse().ok()?,
            reason: match self.reason.parse().ok()? {
                Reason::Login(_) => Reason::None,
                reason => reason,
            },
            login: LoginOutcome::of_logged(&self.reason),
            text: RecordText::new(TextFields {
                method: self.method.as_bytes(),
                host: self.host.as_bytes(),
                path: self.path.as_bytes(),
                query: self.query.as_bytes(),
                user_agent: self.user_agent.as_bytes(),
                referer: self.referer.as_bytes(),
                user: self.user.as_bytes(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::{RequestId, UnixMs, VerdictKind};

    use super::*;

    #[test]
    fn a_record_arrives_as_it_was_sent() {
        let said = [
            (Reason::Limit("log:in".into()), None),
            (Reason::Allow(3), Some(LoginOutcome::Failed)),
            (Reason::None, Some(LoginOutcome::Succeeded)),
            (Reason::None, None),
        ];
        for (protocol, (reason, login)) in PROTOCOLS.into_iter().zip(said) {
            let sent = RequestRecord {
                id: RequestId::new(UnixMs(1_767_225_599_120), 7),
                client: "2001:db8::1".parse().unwrap(),
                protocol,
                status: 429,
                bytes_in: 1,
                bytes_out: u64::MAX,
                latency_us: 3,
                verdict: VerdictKind::Limited,
                reason,
                login,
                text: RecordText::new(TextFields {
                    method: b"GET",
                    host: b"h",
                    path: b"/\xff\"\\",
                    query: b"q",
                    user_agent: b"ua",
                    referer: b"r",
                    user: b"u",
                }),
            };
            let text = serde_json::to_string(&Row::of(&sent)).unwrap();
            let came = serde_json::from_str::<Row>(&text).unwrap().record().unwrap();
            assert_eq!(format!("{came:?}"), format!("{sent:?}"));
        }
    }
}
