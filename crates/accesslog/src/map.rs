//! Which field of a JSON line means what. Owns the names that are known; must not read lines.

use std::str::FromStr;

/// The most names of one mapping.
const MAX_NAMES: usize = 64;

/// What a record needs of a JSON line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Time,
    Ip,
    Method,
    /// Path and query.
    Uri,
    Query,
    /// The whole request line.
    Request,
    Status,
    Bytes,
    Host,
    UserAgent,
    Referer,
}

impl Field {
    pub(crate) const COUNT: usize = 11;
    const ALL: [Self; Self::COUNT] = [
        Self::Time,
        Self::Ip,
        Self::Method,
        Self::Uri,
        Self::Query,
        Self::Request,
        Self::Status,
        Self::Bytes,
        Self::Host,
        Self::UserAgent,
        Self::Referer,
    ];

    /// The word that `--map` uses.
    fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Ip => "ip",
            Self::Method => "method",
            Self::Uri => "uri",
            Self::Query => "query",
            Self::Request => "request",
            Self::Status => "status",
            Self::Bytes => "bytes",
            Self::Host => "host",
            Self::UserAgent => "user_agent",
            Self::Referer => "referer",
        }
    }

    /// What it is usually called, the surest first.
    fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Time => &[
                "time",
                "ts",
                "timestamp",
                "@timestamp",
                "time_iso8601",
                "time_local",
                "msec",
                "datetime",
                "date",
            ],
            Self::Ip => &[
                "client_ip",
                "remote_addr",
                "remote_ip",
                "clientip",
                "ip",
                "client.ip",
                "source.ip",
                "src_ip",
                "client",
                "remote_host",
                "host_ip",
            ],
            Self::Method => &["method", "request_method", "verb", "http.request.method", "http_method"],
            Self::Uri => &["uri", "request_uri", "path", "url", "url.original", "url.path", "request_path"],
            Self::Query => &["query", "query_string", "args", "url.query"],
            Self::Request => &["request", "request_line"],
            Self::Status => &["status", "status_code", "response", "code", "http.response.status_code"],
            Self::Bytes => {
                &["body_bytes_sent", "bytes_sent", "bytes", "size", "http.response.bytes", "response_size"]
            }
            Self::Host => &["host", "http_host", "server_name", "vhost", "domain", "url.domain"],
            Self::UserAgent => &[
                "user_agent",
                "http_user_agent",
                "userAgent",
                "agent",
                "user-agent",
                "ua",
                "user_agent.original",
            ],
            Self::Referer => {
                &["referer", "http_referer", "referrer", "http_referrer", "http.request.referrer"]
            }
        }
    }
}

/// The text is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("expected FIELD=NAME,... such as time=ts,ip=remote_addr,status=http.code; got {0:?}")]
    Shape(String),
    #[error("there is no field {0:?}; they are {names}", names = field_names())]
    Field(String),
    #[error("{0} is there twice")]
    Twice(&'static str),
    #[error("more than {MAX_NAMES} names")]
    TooMany,
}

/// Names of fields in JSON lines. Those that are not named are looked for under their usual names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldMap(Vec<(Field, String)>);

impl FieldMap {
    /// Every field with its names, the surest first.
    pub(crate) fn names(&self) -> Vec<(Field, Vec<&str>)> {
        let own =
            |field| self.0.iter().find(|(named, _)| *named == field).map(|(_, name)| vec![name.as_str()]);
        Field::ALL
            .into_iter()
            // Where the whole line is named, pieces of it that happen to be there mean something else.
            .filter(|field| {
                !(self.has(Field::Request) && matches!(field, Field::Uri | Field::Query | Field::Method))
            })
            .filter(|field| !(*field == Field::Request && self.has(Field::Uri)))
            .map(|field| (field, own(field).unwrap_or_else(|| field.usual().to_vec())))
            .collect()
    }

    fn has(&self, field: Field) -> bool {
        self.0.iter().any(|(named, _)| *named == field)
    }
}

impl FromStr for FieldMap {
    type Err = MapError;

    fn from_str(text: &str) -> Result<Self, MapError> {
        let mut names = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (field, name) = pair.split_once('=').ok_or_else(|| MapError::Shape(pair.to_owned()))?;
            let (field, name) = (field.trim(), name.trim());
            let known = Field::ALL.into_iter().find(|known| known.as_str() == field);
            let field = known.ok_or_else(|| MapError::Field(field.to_owned()))?;
            if name.is_empty() {
                return Err(MapError::Shape(pair.to_owned()));
            }
            if names.iter().any(|(named, _)| *named == field) {
                return Err(MapError::Twice(field.as_str()));
            }
            names.push((field, name.to_owned()));
            if names.len() > MAX_NAMES {
                return Err(MapError::TooMany);
            }
        }
        if names.is_empty() { Err(MapError::Shape(text.to_owned())) } else { Ok(Self(names)) }
    }
}

fn field_names() -> String {
    Field::ALL.map(Field::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_names_fields_and_leaves_the_others_to_their_usual_names() {
        let map: FieldMap = "time=ts, ip=peer.address".parse().unwrap();
        let names = map.names();
        let of = |field| names.iter().find(|(f, _)| *f == field).map(|(_, names)| names.clone()).unwrap();
        assert_eq!((of(Field::Time), of(Field::Ip)), (vec!["ts"], vec!["peer.address"]));
        assert!(of(Field::Status).contains(&"status_code"));
        let line: FieldMap = "request=msg".parse().unwrap();
        assert!(line.names().iter().all(|(field, _)| *field != Field::Uri));
    }

    #[test]
    fn a_wrong_mapping_says_what_is_wrong() {
        let error = |text: &str| text.parse::<FieldMap>().unwrap_err().to_string();
        assert!(error("color=x").contains("user_agent"));
        assert!(error("time").contains("FIELD=NAME"));
        assert!(error("time=").contains("FIELD=NAME") && error("").contains("FIELD=NAME"));
        assert!(error("time=a,time=b").contains("twice"));
    }
}
