//! How far back the overview looks, and what its map is shaded by.
//! Must not read anything.

use std::str::FromStr;
use std::time::Duration;

use maud::{Markup, html};

use crate::console::error::PageError;
use crate::console::words::address;

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    Hour,
    Day,
    Week,
    Month,
}

impl Range {
    const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    pub(super) fn length(self) -> Duration {
        const HOUR: u64 = 3_600;
        Duration::from_secs(match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::Month => 30 * 24 * HOUR,
        })
    }

    /// Bars of the chart: minutes, twenty minutes, three hours, half days.
    pub(super) fn bars(self) -> usize {
        match self {
            Self::Hour | Self::Month => 60,
            Self::Day => 72,
            Self::Week => 56,
        }
    }

    /// What requests of this range are filtered by.
    pub(super) fn since(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }
}

impl FromStr for Range {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        let known = Self::ALL.into_iter().find(|range| range.as_str() == text);
        let wrong = || PageError::Invalid(format!("range: expected hour, day, week or month, got {text:?}."));
        if text.is_empty() { Ok(Self::Hour) } else { known.ok_or_else(wrong) }
    }
}

/// What countries are shaded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapOf {
    Traffic,
    Blocks,
}

impl MapOf {
    pub(super) const ALL: [Self; 2] = [Self::Traffic, Self::Blocks];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Blocks => "blocks",
        }
    }

    /// What a shade counts.
    pub(super) fn counts(self) -> &'static str {
        match self {
            Self::Traffic => "Requests",
            Self::Blocks => "Refused requests",
        }
    }
}

impl FromStr for MapOf {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        let known = Self::ALL.into_iter().find(|of| of.as_str() == text);
        let wrong = || PageError::Invalid(format!("map: expected traffic or blocks, got {text:?}."));
        if text.is_empty() { Ok(Self::Traffic) } else { known.ok_or_else(wrong) }
    }
}

/// Where the page with these choices is.
pub(super) fn page_address(range: Range, map: MapOf) -> String {
    let map = if map == MapOf::Traffic { "" } else { map.as_str() };
    address("/", &[("range", range.as_str()), ("map", map)])
}

pub(super) fn choice(chosen: Range, map: MapOf) -> Markup {
    html! {
        nav aria-label="Time range" {
            ul.tabs {
                @for range in Range::ALL {
                    li {
                        a href=(page_address(range, map)) aria-current=[(range == chosen).then_some("true")] {
                            "Last " (range.as_str())
                        }
                    }
                }
            }
        }
    }
}
