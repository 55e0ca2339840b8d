//! One record of an MMDB file or an HTTP source, in any of the schemas that their publishers use, as a `Location`.
//!
//! Owns the knowledge of field names. Must not do I/O; must not fail on a field of an unexpected type,
//! because a record with one odd field is still worth its other fields.

use std::fmt;

use portcullis_model::Location;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// Longest name that is kept, in bytes; the longest names in the public databases have about 100.
const MAX_NAME_BYTES: usize = 160;

/// Entries of one map that are kept. The widest record of the known schemas has about 40.
const MAX_MAP_ENTRIES: usize = 128;

/// A position is kept to 10⁻⁴ degrees (about 11 m): databases that store 32-bit floats would otherwise
/// give digits that nobody measured.
const DEGREE_STEPS: f64 = 10_000.0;

/// Where a field can be found, the most specific place first. A list in the record stands for its
/// first element, so `subdivisions` is the first subdivision.
type Places = &'static [&'static [&'static str]];

const COUNTRY: Places = &[
    &["country_code"],        // ip-location-db; IPinfo Lite, where `country` is a name
    &["country", "iso_code"], // MaxMind, DB-IP
    &["country"],             // IPinfo
];
const CITY: Places = &[&["city", "names", "en"], &["city", "name"], &["city"], &["city_name"]];
const REGION: Places = &[
    &["subdivisions", "names", "en"],
    &["subdivisions", "iso_code"],
    &["state1"],
    &["region"],
    &["region_name"],
    &["state"],
];
const LATITUDE: Places = &[&["location", "latitude"], &["latitude"], &["lat"]];
const LONGITUDE: Places = &[&["location", "longitude"], &["longitude"], &["lng"], &["lon"]];
/// `"37.4056,-122.0775"`.
const POSITION: Places = &[&["loc"]];
const ASN: Places = &[
    &["autonomous_system_number"],
    &["traits", "autonomous_system_number"],
    &["asn"],
    &["as", "asn"],
    &["asn", "asn"], // IPinfo over HTTP
    &["as_number"],
];
const ISP: Places = &[
    &["isp"],
    &["traits", "isp"],
    &["autonomous_system_organization"],
    &["traits", "autonomous_system_organization"],
    &["as_name"],
    &["as", "name"],
    &["asn", "name"],
    &["organization"],
];
/// IPinfo's ASN files call the operator just `name`; elsewhere a `name` may be anything.
const ASN_NAME: Places = &[&["name"]];

/// A decoded value, borrowed from the file.
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(f64),
    Map(Vec<(&'a str, Value<'a>)>),
    /// A type that no field of interest has.
    Other,
}

impl<'a> Value<'a> {
    /// The same of a JSON document.
    pub(crate) fn from_json(json: &'a Json) -> Self {
        match json {
            Json::String(text) => Self::Text(text),
            Json::Number(number) => number.as_f64().map_or(Self::Other, Self::Number),
            Json::Array(items) => items.first().map_or(Self::Other, Self::from_json),
            Json::Object(entries) => Self::Map(
                entries
                    .iter()
                    .take(MAX_MAP_ENTRIES)
                    .map(|(key, value)| (key.as_str(), Self::from_json(value)))
                    .collect(),
            ),
            Json::Null | Json::Bool(_) => Self::Other,
        }
    }

    fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |value, key| match value {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, inner)| inner),
            Self::Text(_) | Self::Number(_) | Self::Other => None,
        })
    }

    fn first<T>(&self, places: Places, read: impl Fn(&Self) -> Option<T>) -> Option<T> {
        places.iter().find_map(|path| self.at(path).and_then(&read))
    }

    fn as_text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text.trim()).filter(|t| !t.is_empty()),
            Self::Number(_) | Self::Map(_) | Self::Other => None,
        }
    }

    fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Map(_) | Self::Other => None,
        }
    }

    pub(crate) fn as_name(&self) -> Option<String> {
        let text = self.as_text()?;
        Some(text[..text.floor_char_boundary(MAX_NAME_BYTES)].to_owned())
    }

    fn as_country(&self) -> Option<String> {
        let text = self.as_text()?;
        let is_code = text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic());
        is_code.then(|| text.to_ascii_uppercase())
    }

    /// `15169`, `"15169"` or `"AS15169"`; AS 0 is reserved (RFC 7607) and means "none".
    pub(crate) fn as_asn(&self) -> Option<u32> {
        let number = match self {
            Self::Number(number) if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number) => {
                *number as u32
            }
            Self::Text(text) => {
                let text = text.trim();
                let digits =
                    text.get(..2).filter(|p| p.eq_ignore_ascii_case("AS")).map_or(text, |_| &text[2..]);
                digits.parse().ok()?
            }
            Self::Number(_) | Self::Map(_) | Self::Other => return None,
        };
        (number != 0).then_some(number)
    }

    fn position(&self) -> Option<(f64, f64)> {
        let apart = self.first(LATITUDE, Self::as_number).zip(self.first(LONGITUDE, Self::as_number));
        let together = || {
            let (latitude, longitude) = self.first(POSITION, Self::as_text)?.split_once(',')?;
            Some((latitude.trim().parse().ok()?, longitude.trim().parse().ok()?))
        };
        apart
            .or_else(together)
            .filter(|(lat, lon)| (-90.0..=90.0).contains(lat) && (-180.0..=180.0).contains(lon))
            .map(|(lat, lon)| (round(lat), round(lon)))
    }

    /// What the record says, in the gateway's terms. Fields that are malformed count as missing.
    pub(crate) fn to_location(&self) -> Location {
        let position = self.position();
        let asn = self.first(ASN, Self::as_asn);
        let isp =
            self.first(ISP, Self::as_name).or_else(|| asn.and_then(|_| self.first(ASN_NAME, Self::as_name)));
        Location {
            country: self.first(COUNTRY, Self::as_country),
            city: self.first(CITY, Self::as_name),
            region: self.first(REGION, Self::as_name),
            latitude: position.map(|(latitude, _)| latitude),
            longitude: position.map(|(_, longitude)| longitude),
            asn,
            isp,
        }
    }
}

fn round(degrees: f64) -> f64 {
    (degrees * DEGREE_STEPS).round() / DEGREE_STEPS
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of an MMDB record")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Self::Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let first = list.next_element()?.unwrap_or(Value::Other);
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            if entries.len() < MAX_MAP_ENTRIES {
                entries.push((key, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat<'a>(entries: &[(&'a str, &'a str)]) -> Value<'a> {
        Value::Map(entries.iter().map(|&(key, text)| (key, Value::Text(text))).collect())
    }

    #[test]
    fn autonomous_system_numbers_come_in_three_spellings() {
        for value in
            [Value::Number(15169.0), Value::Text("15169"), Value::Text(" AS15169 "), Value::Text("as15169")]
        {
            assert_eq!(value.as_asn(), Some(15169), "{value:?}");
        }
        for value in [
            Value::Number(0.0),
            Value::Number(-1.0),
            Value::Number(1.5),
            Value::Number(f64::NAN),
            Value::Number(4_294_967_296.0),
            Value::Text("AS"),
            Value::Text("é"),
            Value::Text("ASN15169"),
            Value::Other,
        ] {
            assert_eq!(value.as_asn(), None, "{value:?}");
        }
    }

    #[test]
    fn a_country_name_is_not_taken_for_a_code() {
        let lite = flat(&[("country", "United States"), ("country_code", "us")]);
        assert_eq!(lite.to_location().country.as_deref(), Some("US"));
        assert_eq!(flat(&[("country", "United States")]).to_location().country, None);
        assert_eq!(flat(&[("country", "U1")]).to_location().country, None);
    }

    #[test]
    fn half_a_position_or_an_impossible_one_is_none() {
        for entries in [
            &[("lat", "1.5")][..],
            &[("lat", "91"), ("lng", "0")],
            &[("lat", "0"), ("lng", "181")],
            &[("lat", "NaN"), ("lng", "1")],
            &[("loc", "1.5")],
            &[("loc", "here,there")],
        ] {
            let location = flat(entries).to_location();
            assert_eq!((location.latitude, location.longitude), (None, None), "{entries:?}");
        }
        let loc = flat(&[("loc", "37.40560, -122.07750")]).to_location();
        assert_eq!((loc.latitude, loc.longitude), (Some(37.4056), Some(-122.0775)));
    }

    #[test]
    fn an_endless_name_is_cut_at_a_character() {
        let long = "ä".repeat(1_000);
        let location = flat(&[("city", &long)]).to_location();
        assert_eq!(location.city.map(|c| c.len()), Some(MAX_NAME_BYTES));
        assert_eq!(flat(&[("city", "  ")]).to_location().city, None);
    }

    #[test]
    fn a_bare_name_is_an_operator_only_beside_a_system_number() {
        let ipinfo = flat(&[("asn", "AS64496"), ("name", "Example Net")]).to_location();
        assert_eq!(ipinfo.isp.as_deref(), Some("Example Net"));
        assert_eq!(flat(&[("name", "Springfield")]).to_location().isp, None);
    }
}
