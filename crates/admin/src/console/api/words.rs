//! Values as the API writes and reads them: times, addresses, networks, numbers of pages, closed sets of words.
//!
//! Owns their schemas, so that the document says what is really read. Must not know what the values are for.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use axum::Json;
use ipnet::IpNet;
use jiff::Timestamp;
use portcullis_config::LiveSetting;
use portcullis_model::{
    BlockSource, ClientIp, FindingStatus, RequestId, Severity, UnixMs, VerdictKind, network_of,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::console::actions;

/// Items of one page, at most and unless asked for.
pub(super) const MAX_ITEMS: u16 = 1_000;
const ITEMS: u16 = 100;
/// The longest text that a person may add to something, in characters.
pub(super) const MAX_NOTE: usize = 500;

/// Gives a type that is text a schema under its own name, and has serde read and write it as text.
macro_rules! text {
    ($name:ident, $schema:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

/// A closed set of words.
macro_rules! words {
    ($name:ident, $of:ty, $all:expr, $about:literal) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) struct $name(pub(super) $of);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = $all.into_iter().find(|one| one.as_str() == text);
                found.map(Self).ok_or_else(|| {
                    let words: Vec<&str> = $all.into_iter().map(<$of>::as_str).collect();
                    format!("expected one of {}; got {text:?}", words.join(", "))
                })
            }
        }

        text!(
            $name,
            ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some($about))
                .enum_values(Some($all.into_iter().map(<$of>::as_str)))
        );
    };
}

words!(Verdict, VerdictKind, VerdictKind::ALL, "What became of a request.");
words!(FindingSeverity, Severity, Severity::ALL, "How sure the evidence makes that a client is hostile.");
words!(
    Judgement,
    FindingStatus,
    [FindingStatus::Open, FindingStatus::Confirmed, FindingStatus::Dismissed],
    "What became of a finding."
);
words!(Source, BlockSource, BlockSource::ALL, "Who or what added a block or an allow.");

words!(SettingKey, LiveSetting, LiveSetting::ALL, "The name of a setting, as in the file.");

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// The first millisecond that RFC 3339 can write, of the year 0.
const FIRST_MS: i64 = -62_167_219_200_000;

/// A moment: RFC 3339, in answers in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) UnixMs);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is later than the library knows is its last moment, of the year 9999.
        write!(f, "{:.3}", Timestamp::from_millisecond(self.0.0.max(FIRST_MS)).unwrap_or(Timestamp::MAX))
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at: Result<Timestamp, _> = text.parse();
        at.map(|at| Self(UnixMs(at.as_millisecond())))
            .map_err(|_| format!("expected a time such as 2026-11-20T06:51:25Z (RFC 3339), got {text:?}"))
    }
}

text!(
    Time,
    string()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some("RFC 3339; in answers in UTC with milliseconds."))
        .examples(["2036-11-20T06:51:25.120Z"])
);

/// An address, IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) ClientIp);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("expected an IPv4 or IPv6 address, got {text:?}"))
    }
}

/// A number from 0 to 255.
macro_rules! byte {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}

macro_rules! ipv4 {
    () => {
        concat!(byte!(), r"(\.", byte!(), "){3}")
    };
}

/// Without the zeros, with a gap somewhere, or with an IPv4 address at its end.
macro_rules! ipv6 {
    () => {
        concat!(
            "([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|",
            "([0-9A-Fa-f]{1,4}:){1,6}(:[0-9A-Fa-f]{1,4}){1}|([0-9A-Fa-f]{1,4}:){1,5}(:[0-9A-Fa-f]{1,4}){2}|",
            "([0-9A-Fa-f]{1,4}:){1,4}(:[0-9A-Fa-f]{1,4}){1,3}|([0-9A-Fa-f]{1,4}:){1,3}(:[0-9A-Fa-f]{1,4}){1,4}|",
            "([0-9A-Fa-f]{1,4}:){1,2}(:[0-9A-Fa-f]{1,4}){1,5}|[0-9A-Fa-f]{1,4}:(:[0-9A-Fa-f]{1,4}){1,6}|",
            ":((:[0-9A-Fa-f]{1,4}){1,7}|:)|::[Ff]{4}:",
            ipv4!()
        )
    };
}

const ADDRESS: &str = concat!("^(", ipv4!(), "|", ipv6!(), ")$");
const NETWORK: &str =
    concat!("^(", ipv4!(), "(/(3[0-2]|[12]?[0-9]))?|(", ipv6!(), ")(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$");
/// IPv6 with an IPv4 address inside.
const MAX_ADDRESS: usize = 45;

text!(
    Address,
    string()
        .pattern(Some(ADDRESS))
        .max_length(Some(MAX_ADDRESS))
        .description(Some("An IPv4 or IPv6 address; IPv4 inside of IPv6 (::ffff:192.0.2.1) becomes IPv4."))
        .examples(["203.0.113.9"])
);

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpNet);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        network_of(text).map(Self)
    }
}

text!(
    Network,
    string()
        .pattern(Some(NETWORK))
        .max_length(Some(MAX_ADDRESS + "/128".len()))
        .description(Some(
            "An address or a prefix, as in 203.0.113.0/24. Answers have the prefix always, with host bits cleared."
        ))
        .examples(["203.0.113.0/24"])
);

/// The ID of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DecisionId(pub(super) RequestId);

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DecisionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!(
                "expected a decision ID of 16 letters and digits, as the refusal page shows it, got {text:?}"
            )
        })
    }
}

text!(
    DecisionId,
    string()
        .pattern(Some("^[0-9A-Za-z]{16}$"))
        .description(Some("The ID on a refusal page, or of a row of the log."))
        .examples(["06GZFMEMAFNN3DTJ"])
);

/// How many items to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(ITEMS)
    }
}

impl Limit {
    pub(super) fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let limit = text.parse().ok().filter(|limit| (1..=MAX_ITEMS).contains(limit));
        limit.map(Self).ok_or_else(|| D::Error::custom(format!("expected 1 to {MAX_ITEMS}, got {text:?}")))
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        let limit: Object = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .minimum(Some(1))
            .maximum(Some(MAX_ITEMS))
            .default(Some(ITEMS.into()))
            .build();
        limit.into()
    }
}

impl ToSchema for Limit {
    fn name() -> Cow<'static, str> {
        "Limit".into()
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// The parameter `cursor` of the next page; none: this is the last.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// Of one item more than fit on the page, the last is left out and says that there is a next one.
    pub(super) fn of<U, K: fmt::Display>(
        mut found: Vec<U>,
        limit: Limit,
        key: impl Fn(&U) -> K,
        show: impl FnMut(U) -> T,
    ) -> Self {
        let has_more = found.len() > limit.get();
        found.truncate(limit.get());
        let next = found.last().filter(|_| has_more).map(|last| key(last).to_string());
        Self { items: found.into_iter().map(show).collect(), next }
    }
}

/// A text of at most so many characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<const MAX: usize>(pub(super) String);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.chars().count() {
            count if count <= MAX => Ok(Self(text)),
            count => Err(D::Error::custom(format!("expected at most {MAX} characters, got {count}"))),
        }
    }
}

impl<const MAX: usize> PartialSchema for Text<MAX> {
    fn schema() -> RefOr<Schema> {
        string().max_length(Some(MAX)).into()
    }
}

impl<const MAX: usize> ToSchema for Text<MAX> {
    fn name() -> Cow<'static, str> {
        format!("Text{MAX}").into()
    }
}

/// A text that a person adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note(pub(super) String);

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Note {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.chars().count() {
            0..=MAX_NOTE => Ok(Self(text.to_owned())),
            longer => Err(format!("expected at most {MAX_NOTE} characters, got {longer}")),
        }
    }
}

text!(Note, string().max_length(Some(MAX_NOTE)).description(Some("A text for people.")));

/// The name of a verified user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserName(pub(super) String);

/// As long as the log keeps them.
const MAX_USER: usize = portcullis_model::limits::USER;

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() {
            1..=MAX_USER => Ok(Self(text.to_owned())),
            other => Err(format!("expected 1 to {MAX_USER} bytes, got {other}")),
        }
    }
}

text!(
    UserName,
    string()
        .min_length(Some(1))
        .max_length(Some(MAX_USER))
        .description(Some("A verified user, as the log has the name; its length counts in bytes of UTF-8."))
);

/// The schemas of all of these: parameters refer to them, and nobody else collects those.
pub(super) fn all() -> Vec<(Cow<'static, str>, RefOr<Schema>)> {
    fn one<T: ToSchema>() -> (Cow<'static, str>, RefOr<Schema>) {
        (T::name(), T::schema())
    }
    vec![
        one::<Verdict>(),
        one::<FindingSeverity>(),
        one::<Judgement>(),
        one::<Source>(),
        one::<Time>(),
        one::<Address>(),
        one::<Network>(),
        one::<DecisionId>(),
        one::<Limit>(),
        one::<Note>(),
        one::<UserName>(),
        one::<SettingKey>(),
    ]
}

/// What was done, where there is nothing else to show.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// In one sentence.
    text: String,
}

impl Done {
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }

    /// None when nothing has changed.
    pub(super) fn of(done: Option<actions::Done>) -> Option<Json<Self>> {
        done.filter(|done| done.undo.is_some()).map(|done| Json(Self { text: done.text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_next_one_only_when_more_was_found() {
        let page = |found: usize| {
            let found: Vec<i64> = (0..i64::try_from(found).unwrap()).collect();
            let page = Page::of(found, Limit(3), |id| *id, |id| id);
            (page.items.len(), page.next)
        };
        assert_eq!(page(2), (2, None));
        assert_eq!(page(3), (3, None));
        assert_eq!(page(4), (3, Some("2".to_owned())));
    }

    #[test]
    fn times_have_all_their_milliseconds_and_extremes_do_not_panic() {
        assert_eq!(Time(UnixMs(0)).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time(UnixMs(i64::MIN)).to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Time(UnixMs(i64::MAX)).to_string(), "9999-12-30T22:00:00.999Z");
        assert!("2026-11-20T06:51:25+01:00".parse::<Time>().is_ok());
        assert!("yesterday".parse::<Time>().unwrap_err().contains("RFC 3339"));
    }

    #[test]
    fn a_word_that_is_not_in_the_set_is_told_the_set() {
        let error = "bad".parse::<Judgement>().unwrap_err();
        assert_eq!(error, "expected one of open, confirmed, dismissed; got \"bad\"");
    }
}
