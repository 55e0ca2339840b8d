//! JSON: an array of texts or objects, an object that holds one, or an object per line. Items are read one by
//! one, so that a large list is never held as a tree.

use std::fmt;

use portcullis_model::network_of;
use serde::de::{Deserialize, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Map, Value};

use super::cells::{EXPIRES, NETWORK, REASON, expiry, instant};
use super::{Entry, Reading, lines, reason};
use crate::ListError;

/// Under which names an object holds the list.
const LISTS: &[&str] = &[
    "blocks",
    "entries",
    "prefixes",
    "ipv6_prefixes",
    "networks",
    "ips",
    "list",
    "data",
    "items",
    "results",
];

pub(super) fn read(bytes: &[u8], reading: &mut Reading<'_>) -> Result<(), ListError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if is_one_object_per_line(bytes) {
        return read_lines(bytes, reading);
    }
    let mut failed = None;
    let mut number = 0;
    let seed = Root { reading, failed: &mut failed, number: &mut number };
    let mut deserializer = Deserializer::from_slice(bytes);
    let result = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (failed, result) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(ListError::Json { line: error.line(), column: error.column() }),
        (None, Ok(())) => Ok(()),
    }
}

/// Whether the first line that is not empty is an object as a whole, and none that holds a list.
fn is_one_object_per_line(bytes: &[u8]) -> bool {
    let first = lines(bytes).map(|(_, line)| line).find(|line| !line.trim().is_empty());
    let item = first.and_then(|line| serde_json::from_str::<Item>(&line).ok());
    matches!(item, Some(Item::Object { holds_list: false, .. }))
}

fn read_lines(bytes: &[u8], reading: &mut Reading<'_>) -> Result<(), ListError> {
    for (number, line) in lines(bytes) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match serde_json::from_str::<Item>(line) {
            Ok(Item::Object { fields, .. }) if fields.get("type").is_some_and(|kind| kind == "metadata") => {}
            Ok(item) => one(number, &item, reading)?,
            Err(error) => {
                reading.line();
                reading.bad(number, line, format!("no valid JSON at column {}", error.column()));
            }
        }
    }
    Ok(())
}

/// An item, with no more in memory than may be of use: whatever is nested in it is passed over, so that a few bytes
/// of text do not become a tree that is many times as large.
enum Item {
    Text(String),
    Object {
        fields: Map<String, Value>,
        /// One of the fields may be the list itself.
        holds_list: bool,
    },
    /// What no entry is, or a nested value.
    Other,
}

/// Fields of an object that are looked at.
const MAX_FIELDS: usize = 64;

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item of a list")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Item::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let (mut fields, mut holds_list) = (Map::new(), false);
        while let Some(key) = map.next_key::<String>()? {
            holds_list |= LISTS.contains(&key.as_str());
            if fields.len() < MAX_FIELDS {
                let Scalar(value) = map.next_value()?;
                fields.insert(key, value);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Item::Object { fields, holds_list })
    }
}

/// The value of a field; an empty array stands for whatever is nested.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of a field")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar(number.into()))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar(Value::Array(Vec::new())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Scalar, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar(Value::Array(Vec::new())))
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", serde_json::json!(text)),
            Self::Object { fields, .. } => write!(f, "{}", serde_json::json!(fields)),
            Self::Other => f.write_str("..."),
        }
    }
}

fn one(number: u64, item: &Item, reading: &mut Reading<'_>) -> Result<(), ListError> {
    reading.line();
    match entry(item) {
        Ok(entry) => reading.entry(entry),
        Err(problem) => {
            reading.bad(number, &item.to_string(), problem);
            Ok(())
        }
    }
}

fn entry(item: &Item) -> Result<Entry, String> {
    let object = match item {
        Item::Text(text) => return Ok(Entry { network: network_of(text)?, reason: None, expires: None }),
        Item::Object { fields, .. } => fields,
        Item::Other => {
            return Err("expected an address in quotes, or an object with a network".to_owned());
        }
    };
    let network = text(object, NETWORK).ok_or("it has no field such as \"network\", \"cidr\" or \"ip\"")?;
    let expires = match find(object, EXPIRES) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => expiry(text)?,
        Some(Value::Number(number)) => Some(instant(number.as_i64().ok_or("the expiry is no whole number")?)),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err("the expiry is neither a text nor a number".to_owned());
        }
    };
    Ok(Entry { network: network_of(network)?, reason: text(object, REASON).and_then(reason), expires })
}

fn find<'a>(object: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| {
        object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

fn text<'a>(object: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    find(object, names)?.as_str()
}

/// The document, or the array in it.
struct Root<'a, 'r> {
    reading: &'a mut Reading<'r>,
    /// Why reading was broken off, if it was not for the JSON.
    failed: &'a mut Option<ListError>,
    number: &'a mut u64,
}

impl<'de> DeserializeSeed<'de> for Root<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array, or an object that holds one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<Item>()? {
            *self.number += 1;
            if let Err(error) = one(*self.number, &item, self.reading) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("broken off"));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            if LISTS.contains(&key.as_str()) {
                let inner = Items(Root { reading: self.reading, failed: self.failed, number: self.number });
                fields.next_value_seed(inner)?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// An array only: a list does not hold lists.
struct Items<'a, 'r>(Root<'a, 'r>);

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self.0)
    }
}
