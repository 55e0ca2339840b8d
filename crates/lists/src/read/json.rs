//! JSON: an array of texts or objects, an object that holds one, or an object per line. Items are read one by
//! one, so that a large list is never held as a tree.

use std::fmt;

use portcullis_model::network_of;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Map, Value};

use super::cells::{EXPIRES, NETWORK, REASON, expiry, instant};
use super::{Entry, Reading, lines, reason};
use crate::ListError;

/// Under which names an object holds the list.
const LISTS: &[&str] =
    &["blocks", "entries", "prefixes", "ipv6_prefixes", "networks", "list", "data", "items", "results"];

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

/// Whether the first line that is not empty is an object as a whole.
fn is_one_object_per_line(bytes: &[u8]) -> bool {
    let first = lines(bytes).map(|(_, line)| line).find(|line| !line.trim().is_empty());
    let object = first.and_then(|line| serde_json::from_str::<Map<String, Value>>(&line).ok());
    object.is_some_and(|object| !object.keys().any(|key| LISTS.contains(&key.as_str())))
}

fn read_lines(bytes: &[u8], reading: &mut Reading<'_>) -> Result<(), ListError> {
    for (number, line) in lines(bytes) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) if object.get("type").is_some_and(|kind| kind == "metadata") => {}
            Ok(item) => one(number, &item, reading)?,
            Err(error) => {
                reading.line();
                reading.bad(number, line, format!("no valid JSON at column {}", error.column()));
            }
        }
    }
    Ok(())
}

fn one(number: u64, item: &Value, reading: &mut Reading<'_>) -> Result<(), ListError> {
    reading.line();
    match entry(item) {
        Ok(entry) => reading.entry(entry),
        Err(problem) => {
            reading.bad(number, &item.to_string(), problem);
            Ok(())
        }
    }
}

fn entry(item: &Value) -> Result<Entry, String> {
    let object = match item {
        Value::String(text) => return Ok(Entry { network: network_of(text)?, reason: None, expires: None }),
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
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
        while let Some(item) = items.next_element::<Value>()? {
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
