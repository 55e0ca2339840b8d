//! JSON lines: one walk over the document that keeps what a record needs and passes over the rest.
//!
//! Owns the layouts of Caddy and Traefik. Must not keep anything that is not in the layout.

use std::borrow::Cow;
use std::fmt;

use portcullis_model::UnixMs;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::map::{Field, FieldMap};
use crate::request::Request;
use crate::text::{address, host, or_empty};
use crate::{Format, Reason, Record, clf, clock};

/// Where in a document the fields are: a tree of names.
#[derive(Debug)]
pub(crate) struct Layout {
    nodes: Vec<Node>,
    format: Format,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(Box<str>, usize)>,
    /// The field of a text or number here, and its rank among the field's names: the lowest is the surest.
    field: Option<(Field, u8)>,
}

/// A text or a number of a document.
#[derive(Debug)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
}

/// What was found, with its rank.
type Found<'a> = [Option<(u8, Scalar<'a>)>; Field::COUNT];

const CADDY: &[(Field, &[&str])] = &[
    (Field::Time, &["ts"]),
    (Field::Ip, &["request.client_ip", "request.remote_ip", "request.remote_addr"]),
    (Field::Method, &["request.method"]),
    (Field::Uri, &["request.uri"]),
    (Field::Host, &["request.host"]),
    (Field::UserAgent, &["request.headers.User-Agent"]),
    (Field::Referer, &["request.headers.Referer"]),
    (Field::Status, &["status"]),
    (Field::Bytes, &["size"]),
];

const TRAEFIK: &[(Field, &[&str])] = &[
    (Field::Time, &["StartUTC", "time", "StartLocal"]),
    (Field::Ip, &["ClientHost", "ClientAddr"]),
    (Field::Method, &["RequestMethod"]),
    (Field::Uri, &["RequestPath"]),
    (Field::Host, &["RequestHost", "RequestAddr"]),
    (Field::UserAgent, &["request_User-Agent"]),
    (Field::Referer, &["request_Referer"]),
    (Field::Status, &["DownstreamStatus", "OriginStatus"]),
    (Field::Bytes, &["DownstreamContentSize", "OriginContentSize"]),
];

impl Layout {
    pub(crate) fn caddy() -> Self {
        Self::of(Format::Caddy, CADDY.iter().map(|(field, names)| (*field, names.to_vec())))
    }

    pub(crate) fn traefik() -> Self {
        Self::of(Format::Traefik, TRAEFIK.iter().map(|(field, names)| (*field, names.to_vec())))
    }

    pub(crate) fn mapped(map: &FieldMap) -> Self {
        Self::of(Format::Json, map.names().into_iter())
    }

    fn of<'n>(format: Format, fields: impl Iterator<Item = (Field, Vec<&'n str>)>) -> Self {
        let mut layout = Self { nodes: vec![Node::default()], format };
        for (field, names) in fields {
            for (rank, name) in names.into_iter().enumerate() {
                let rank = u8::try_from(rank).unwrap_or(u8::MAX);
                layout.add(&mut name.split('.'), field, rank);
                // A dot may be part of a name as well.
                layout.add(&mut std::iter::once(name), field, rank);
            }
        }
        layout
    }

    fn add(&mut self, steps: &mut dyn Iterator<Item = &str>, field: Field, rank: u8) {
        let mut at = 0;
        for step in steps {
            at = match self.child(at, step) {
                Some(child) => child,
                None => {
                    self.nodes.push(Node::default());
                    let child = self.nodes.len() - 1;
                    self.nodes[at].children.push((step.into(), child));
                    child
                }
            };
        }
        self.nodes[at].field.get_or_insert((field, rank));
    }

    /// Names are compared without case, since header names have none.
    fn child(&self, node: usize, name: &str) -> Option<usize> {
        let children = &self.nodes[node].children;
        children.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, child)| *child)
    }

    pub(crate) fn parse<'a>(&self, line: &'a str) -> Result<Record<'a>, Reason> {
        let mut found: Found<'a> = Default::default();
        let mut document = serde_json::Deserializer::from_str(line);
        Walk { layout: self, node: 0, found: &mut found }
            .deserialize(&mut document)
            .and_then(|()| document.end())
            .map_err(|_| Reason::Json)?;
        self.record(found)
    }

    fn record<'a>(&self, mut found: Found<'a>) -> Result<Record<'a>, Reason> {
        let mut take = |field: Field| found[field as usize].take().map(|(_, scalar)| scalar);
        let (request, uri) = (take(Field::Request).map(Scalar::text), take(Field::Uri).map(Scalar::text));
        let client = take(Field::Ip).map(Scalar::text);
        if request.is_none() && uri.is_none() {
            // Both programs write other things to the same place.
            return Err(if client.is_none() { Reason::Other } else { Reason::NoRequest });
        }
        let client = client.as_deref().and_then(address).ok_or(Reason::Client)?;
        let time = take(Field::Time).and_then(Scalar::time).ok_or(Reason::Time)?;
        let status = take(Field::Status).and_then(Scalar::status).ok_or(Reason::Status)?;
        let method = take(Field::Method).map(Scalar::text);
        let query = take(Field::Query).map(Scalar::text);
        let request = match (request, uri) {
            (_, Some(uri)) => {
                let method = method.unwrap_or(Cow::Borrowed("GET"));
                match query.map(or_empty).filter(|query| !query.is_empty() && !uri.contains('?')) {
                    Some(query) => Request::of_parts(method, uri, query),
                    None => Request::of(method, uri),
                }
            }
            (Some(line), None) => Request::of_line(line),
            (None, None) => return Err(Reason::NoRequest),
        };
        let bytes_out = take(Field::Bytes).and_then(Scalar::count).unwrap_or(0);
        let mut text = |field| take(field).map_or(Cow::Borrowed(""), |scalar| or_empty(scalar.text()));
        let site = match text(Field::Host) {
            Cow::Borrowed(name) => host(name),
            Cow::Owned(name) => Cow::Owned(host(&name).into_owned()),
        };
        Ok(Record {
            time,
            client,
            status,
            bytes_out,
            is_malformed: request.is_malformed,
            method: request.method,
            host: site,
            path: request.path,
            query: request.query,
            user_agent: text(Field::UserAgent),
            referer: text(Field::Referer),
        })
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }
}

impl<'a> Scalar<'a> {
    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }

    fn time(self) -> Option<UnixMs> {
        match self {
            Self::Text(text) => clock::any(&text),
            Self::Number(number) => clock::epoch(number),
        }
    }

    fn status(self) -> Option<u16> {
        match self {
            Self::Text(text) => clf::status(&text),
            Self::Number(number) => (0.0..1_000.0).contains(&number).then_some(number as u16),
        }
    }

    fn count(self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => (number >= 0.0).then_some(number as u64),
        }
    }
}

/// Visits one place of the document.
struct Walk<'l, 'f, 'de> {
    layout: &'l Layout,
    node: usize,
    found: &'f mut Found<'de>,
}

impl<'de> Walk<'_, '_, 'de> {
    fn keep(self, scalar: Scalar<'de>) {
        if let Some((field, rank)) = self.layout.nodes[self.node].field {
            let slot = &mut self.found[field as usize];
            if slot.as_ref().is_none_or(|(known, _)| rank < *known) {
                *slot = Some((rank, scalar));
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line of an access log")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Step { layout: self.layout, node: self.node })? {
            match child {
                Some(node) => {
                    map.next_value_seed(Walk { node, found: &mut *self.found, layout: self.layout })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    /// The first of several values counts: Caddy writes headers as lists.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let first = Walk { layout: self.layout, node: self.node, found: &mut *self.found };
        if list.next_element_seed(first)?.is_some() {
            while list.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.keep(Scalar::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.keep(Scalar::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.keep(Scalar::Number(number));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.keep(Scalar::Number(number as f64));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.keep(Scalar::Number(number as f64));
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Looks a key up without keeping it.
struct Step<'l> {
    layout: &'l Layout,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Step<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.layout.child(self.node, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caddys_lines_are_read_and_its_other_messages_known() {
        let line = r#"{"level":"info","ts":1666016061.25,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"10.0.0.9","remote_port":"41342","client_ip":"192.0.2.1","proto":"HTTP/2.0","method":"GET","host":"Shop.example:443","uri":"/a?b=1","headers":{"User-Agent":["curl/7.82.0"],"Accept":["*/*"],"Referer":["https://x.example/"]}},"bytes_read":0,"duration":0.0009,"size":10900,"status":200,"resp_headers":{"Server":["Caddy"]}}"#;
        let record = Layout::caddy().parse(line).unwrap();
        assert_eq!((record.time.0, record.status, record.bytes_out), (1_666_016_061_250, 200, 10_900));
        assert_eq!(record.client.to_string(), "192.0.2.1");
        assert_eq!((&*record.host, &*record.path, &*record.query), ("shop.example", "/a", "b=1"));
        assert_eq!((&*record.user_agent, &*record.referer), ("curl/7.82.0", "https://x.example/"));
        let started = r#"{"level":"info","ts":1666016061.2,"msg":"serving initial configuration"}"#;
        assert_eq!(Layout::caddy().parse(started), Err(Reason::Other));
        let older = r#"{"ts":"2022/10/17 14:14:21.250","request":{"remote_addr":"192.0.2.1:99","method":"GET","uri":"/"},"status":200}"#;
        assert_eq!(Layout::caddy().parse(older).unwrap().client, record.client);
    }

    #[test]
    fn traefiks_lines_are_read() {
        let line = r#"{"ClientAddr":"192.0.2.1:39490","ClientHost":"192.0.2.1","ClientUsername":"-","DownstreamContentSize":356,"DownstreamStatus":404,"OriginStatus":200,"RequestHost":"a.example","RequestMethod":"GET","RequestPath":"/x?y=\u0022z","StartUTC":"2022-10-17T14:14:21.5Z","level":"info","request_User-Agent":"curl/8","time":"2022-10-17T16:14:22+02:00"}"#;
        let record = Layout::traefik().parse(line).unwrap();
        assert_eq!((record.time.0, record.status, record.bytes_out), (1_666_016_061_500, 404, 356));
        assert_eq!((&*record.path, &*record.query, &*record.user_agent), ("/x", "y=\"z", "curl/8"));
    }

    #[test]
    fn fields_of_ones_own_are_found_by_their_names() {
        let own =
            Layout::mapped(&"time=when,ip=peer.address,uri=req.target,method=req.verb".parse().unwrap());
        let line = r#"{"when":1666016061000,"peer":{"address":"192.0.2.1","port":5},"req":{"target":"/a","verb":"POST"},"status":"201","bytes":"17"}"#;
        let record = own.parse(line).unwrap();
        assert_eq!((record.time.0, record.status, record.bytes_out), (1_666_016_061_000, 201, 17));
        assert_eq!((&*record.method, &*record.path), ("POST", "/a"));
        let usual = Layout::mapped(&FieldMap::default());
        for line in [
            r#"{"time_iso8601":"2022-10-17T14:14:21+00:00","remote_addr":"192.0.2.1","request":"GET /a?b HTTP/1.1","status":200}"#,
            r#"{"@timestamp":"2022-10-17T14:14:21Z","source.ip":"192.0.2.1","http":{"request":{"method":"GET"},"response":{"status_code":200}},"url":{"path":"/a","query":"b"}}"#,
            r#"{"msec":"1666016061.000","clientip":"192.0.2.1","request_method":"GET","request_uri":"/a?b","status":"200"}"#,
        ] {
            let record = usual.parse(line).unwrap_or_else(|reason| panic!("{line}: {reason:?}"));
            assert_eq!(
                (record.time.0, &*record.path, &*record.query),
                (1_666_016_061_000, "/a", "b"),
                "{line}"
            );
        }
    }

    #[test]
    fn each_bad_line_has_its_reason() {
        let usual = Layout::mapped(&FieldMap::default());
        for (line, reason) in [
            ("{", Reason::Json),
            ("[1]", Reason::Other),
            ("{} {}", Reason::Json),
            ("{}", Reason::Other),
            (r#"{"ip":"192.0.2.1"}"#, Reason::NoRequest),
            (r#"{"ip":"x","uri":"/","time":1666016061,"status":200}"#, Reason::Client),
            (r#"{"ip":"192.0.2.1","uri":"/","time":true,"status":200}"#, Reason::Time),
            (r#"{"ip":"192.0.2.1","uri":"/","time":1666016061,"status":-1}"#, Reason::Status),
        ] {
            assert_eq!(usual.parse(line), Err(reason), "{line}");
        }
    }
}
