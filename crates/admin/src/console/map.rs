//! The world, with countries shaded by how much came from them.
//!
//! Owns outlines and names of countries. Must not know what is counted.

use maud::{Markup, html};

use super::words::{self, number};

/// Embedded; says itself where it is from.
const WORLD: &str = include_str!("../../assets/world.txt");
/// The part of the outlines' units that has land.
const VIEW: &str = "72 0 1128 504";
/// Shades of countries from which something came; 0 is for the others.
const SHADES: u32 = 6;

/// A country of ISO 3166-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Country {
    /// Two upper-case letters.
    pub(super) code: &'static str,
    pub(super) name: &'static str,
    /// A path of SVG; empty where the country is too small for the map.
    outline: &'static str,
}

fn countries() -> impl Iterator<Item = Country> {
    WORLD.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (code, rest) = line.split_once('\t')?;
        let (name, outline) = rest.split_once('\t')?;
        Some(Country { code, name, outline })
    })
}

/// What a country is called; its letters where they are unknown.
pub(super) fn name(code: &str) -> &str {
    countries().find(|country| country.code == code).map_or(code, |country| country.name)
}

/// Whether the map shows it.
pub(super) fn is_drawn(code: &str) -> bool {
    countries().any(|country| country.code == code && !country.outline.is_empty())
}

/// How much came from one country.
#[derive(Clone, Debug)]
pub(super) struct Shade<'a> {
    pub(super) code: &'a str,
    /// What it is shaded by.
    pub(super) count: u64,
    /// What a pointer on it is told, after its name.
    pub(super) text: String,
}

/// The world with a link to the requests of each country that has a shade. The numbers belong beside it.
pub(super) fn world(shades: &[Shade<'_>], what: &str) -> Markup {
    let greatest = shades.iter().map(|shade| shade.count).max().unwrap_or(0);
    html! {
        figure.map {
            svg viewBox=(VIEW) aria-hidden="true" {
                @for country in countries().filter(|country| !country.outline.is_empty()) {
                    @match shades.iter().find(|shade| shade.code == country.code) {
                        Some(shade) => a href=(words::address("/requests", &[("country", country.code)]))
                            tabindex="-1" {
                            title { (country.name) ": " (shade.text) }
                            path class=(format!("map-{}", class(shade.count, greatest))) d=(country.outline) {}
                        },
                        None => path.map-0 d=(country.outline) {},
                    }
                }
            }
            figcaption.dim {
                (what) ": "
                @if greatest == 0 {
                    "nothing in this time"
                } @else {
                    ul.legend {
                        @for (class, from, to) in steps(greatest) {
                            li {
                                (super::charts::swatch(&format!("map-{class}")))
                                span.keep { (number(from)) @if to > from { "–" (number(to)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Countries differ by powers of ten, so the shades do.
fn class(count: u64, greatest: u64) -> u32 {
    (1..=SHADES)
        .find(|class| count <= bound(*class, greatest))
        .map_or(SHADES, |class| if count == 0 { 0 } else { class })
}

/// The greatest count of a shade.
fn bound(class: u32, greatest: u64) -> u64 {
    if class >= SHADES {
        return greatest;
    }
    let power = (greatest.max(1) as f64).powf(f64::from(class) / f64::from(SHADES));
    power.round() as u64
}

/// Shade, least and greatest count of each shade that can occur.
fn steps(greatest: u64) -> impl Iterator<Item = (u32, u64, u64)> {
    (1..=SHADES)
        .map(move |class| {
            (class, if class == 1 { 1 } else { bound(class - 1, greatest) + 1 }, bound(class, greatest))
        })
        .filter(|(_, from, to)| from <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_has_a_name_and_its_own_letters() {
        let mut codes: Vec<&str> = countries().map(|country| country.code).collect();
        assert_eq!(codes.len(), 250);
        codes.dedup();
        assert_eq!(codes.len(), 250);
        for country in countries() {
            assert!(country.code.len() == 2 && country.code.bytes().all(|b| b.is_ascii_uppercase()));
            assert!(!country.name.is_empty());
            let is_path = |c: char| c.is_ascii_digit() || " -Mlz".contains(c);
            assert!(country.outline.chars().all(is_path), "{}", country.code);
        }
        assert_eq!((name("DE"), name("??")), ("Germany", "??"));
        assert!(is_drawn("DE") && !is_drawn("SG"));
    }

    #[test]
    fn shades_cover_every_count_once() {
        for greatest in [1, 2, 3, 7, 100, 12_345, 10_000_000] {
            let steps: Vec<_> = steps(greatest).collect();
            assert_eq!((steps[0].1, steps[steps.len() - 1].2), (1, greatest), "{greatest}");
            assert!(steps.windows(2).all(|pair| pair[0].2 + 1 == pair[1].1), "{steps:?}");
            for (shade, from, to) in steps {
                assert_eq!((class(from, greatest), class(to, greatest)), (shade, shade), "{greatest}");
            }
            assert_eq!(class(0, greatest), 0);
        }
    }

    #[test]
    fn a_country_with_traffic_leads_to_its_requests() {
        let shades = [Shade { code: "DE", count: 9, text: "9 requests <b>".to_owned() }];
        let text = world(&shades, "Requests").into_string();
        assert!(text.contains(r#"<a href="/requests?country=DE" tabindex="-1"><title>Germany: 9 requests &lt;b&gt;</title><path class="map-6""#));
        assert!(text.len() < 40_000, "{} bytes", text.len());
        assert!(world(&[], "Requests").into_string().contains("nothing in this time"));
    }
}
