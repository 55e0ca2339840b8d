//! Where an address is, as far as the geo databases know.

use serde::{Deserialize, Serialize};

/// Every field may be missing; the default is "no location".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// ISO 3166-1 alpha-2, upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// The first subdivision: a state, a region, a Land.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Degrees, WGS 84.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    /// Degrees, WGS 84.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
    /// The autonomous system's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// The network operator's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isp: Option<String>,
}

impl Location {
    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Fills fields that are missing here from `other`: a later layer never overrides an earlier one.
    pub fn or(self, other: Self) -> Self {
        Self {
            country: self.country.or(other.country),
            city: self.city.or(other.city),
            region: self.region.or(other.region),
            latitude: self.latitude.or(other.latitude),
            longitude: self.longitude.or(other.longitude),
            asn: self.asn.or(other.asn),
            isp: self.isp.or(other.isp),
        }
    }
}
