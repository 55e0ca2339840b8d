//! Charts as pictures that need no script: bars over time, and bars in tables.
//!
//! Owns how numbers become shapes, and their text for whoever does not see them. Must not know what is counted.

use maud::{Markup, html};
use portcullis_model::UnixMs;

use super::layout;
use super::words::{number, span, time};

/// Height of the picture in its own units; its width is one unit per bar, and both are stretched to their place.
const HEIGHT: f64 = 100.0;
/// Share of a bar's place that it fills.
const FILLED: f64 = 0.82;
/// Names of moments under a chart.
const MOMENTS: usize = 4;

/// What a part of a bar counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The class that has its colour.
    pub(super) class: &'static str,
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub(super) struct Bar<const N: usize> {
    pub(super) start: UnixMs,
    /// In the order of the kinds.
    pub(super) counts: [u64; N],
    /// Where its requests are listed.
    pub(super) link: String,
}

/// Bars over time, each divided by kind.
#[derive(Clone, Debug)]
pub(super) struct Bars<'a, const N: usize> {
    /// What is shown, for the heading of its numbers.
    pub(super) label: &'a str,
    /// From the bottom of a bar to its top.
    pub(super) kinds: [Kind; N],
    pub(super) bars: Vec<Bar<N>>,
    /// How long each bar lasts.
    pub(super) bar_ms: i64,
}

/// What the height of a bar means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Where there is at least one in a second: rates of different spans can be compared.
    PerSecond,
    /// Few are counted: a rate would be of requests that nobody made.
    EachBar,
}

impl Unit {
    fn of(peak: u64, bar_ms: i64) -> Self {
        if Self::PerSecond.height(peak, bar_ms) >= 1.0 { Self::PerSecond } else { Self::EachBar }
    }

    fn height(self, count: u64, bar_ms: i64) -> f64 {
        match self {
            Self::PerSecond => count as f64 * 1_000.0 / bar_ms.max(1) as f64,
            Self::EachBar => count as f64,
        }
    }

    fn caption(self, bar_ms: i64) -> String {
        match self {
            Self::PerSecond => "Requests per second".to_owned(),
            Self::EachBar => format!("Requests in each {}", span(bar_ms)),
        }
    }
}

impl<const N: usize> Bars<'_, N> {
    pub(super) fn draw(&self) -> Markup {
        let peak = self.bars.iter().map(Bar::sum).max().unwrap_or(0);
        let unit = Unit::of(peak, self.bar_ms);
        let top = round_up(unit.height(peak, self.bar_ms));
        let totals: [u64; N] = std::array::from_fn(|kind| self.bars.iter().map(|bar| bar.counts[kind]).sum());
        html! {
            figure.chart {
                figcaption {
                    span.dim { (unit.caption(self.bar_ms)) }
                    ul.legend {
                        @for (kind, total) in self.kinds.iter().zip(totals) {
                            li { (swatch(kind.class)) (kind.name) " " strong { (number(total)) } }
                        }
                    }
                }
                div.plot {
                    div.y-axis aria-hidden="true" {
                        span { (rate_text(top)) } span { (rate_text(top / 2.0)) } span { "0" }
                    }
                    (self.picture(unit, top))
                }
                div.x-axis aria-hidden="true" {
                    @for at in self.moments() { (time(at)) }
                }
                (self.numbers())
            }
        }
    }

    fn picture(&self, unit: Unit, top: f64) -> Markup {
        let scale = HEIGHT / top.max(f64::MIN_POSITIVE);
        let heights = |bar: &Bar<N>| bar.counts.map(|count| unit.height(count, self.bar_ms) * scale);
        let width = self.bars.len().max(1);
        html! {
            svg.bars viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="none" aria-hidden="true" {
                path.grid d=(format!("M0 0h{width}M0 {}h{width}M0 {HEIGHT}h{width}", HEIGHT / 2.0))
                    vector-effect="non-scaling-stroke" {}
                @for (at, kind) in self.kinds.iter().enumerate() {
                    path class=(kind.class) d=(self.outline(at, heights)) {}
                }
                @for (place, bar) in self.bars.iter().enumerate().filter(|(_, bar)| bar.sum() > 0) {
                    // The whole column can be pointed at.
                    rect.reach x=(place) width="1" height=(HEIGHT) { title { (self.bar_text(bar)) } }
                }
            }
        }
    }

    /// The parts of all bars that are of one kind, each on the parts below it.
    fn outline(&self, kind: usize, heights: impl Fn(&Bar<N>) -> [f64; N]) -> String {
        use std::fmt::Write as _;
        let mut path = String::new();
        for (place, bar) in self.bars.iter().enumerate().filter(|(_, bar)| bar.counts[kind] > 0) {
            let heights = heights(bar);
            let bottom = HEIGHT - heights[..kind].iter().sum::<f64>();
            let (x, tall) = (place as f64 + (1.0 - FILLED) / 2.0, heights[kind]);
            // Writing into a String cannot fail.
            let _ = write!(path, "M{x:.2} {bottom:.1}h{FILLED}v-{tall:.1}h-{FILLED}z");
        }
        path
    }

    fn bar_text(&self, bar: &Bar<N>) -> String {
        let parts = self.kinds.iter().zip(bar.counts).filter(|(_, count)| *count > 0);
        let parts: Vec<String> =
            parts.map(|(kind, count)| format!("{} {}", number(count), kind.name)).collect();
        format!("{}: {}", moment_text(bar.start), parts.join(", "))
    }

    /// Moments at equal distances.
    fn moments(&self) -> impl Iterator<Item = UnixMs> {
        let bars = self.bars.len();
        let starts: Vec<UnixMs> = self.bars.iter().map(|bar| bar.start).collect();
        (0..MOMENTS).filter_map(move |n| starts.get(n * bars.saturating_sub(1) / (MOMENTS - 1)).copied())
    }

    /// The same for whoever does not see the picture, or wants the numbers.
    fn numbers(&self) -> Markup {
        let rows = html! {
            thead { tr {
                th scope="col" { "From" }
                @for kind in &self.kinds { th scope="col" { (kind.name) } }
            } }
            tbody {
                @for bar in self.bars.iter().filter(|bar| bar.sum() > 0) {
                    tr {
                        th scope="row" { a href=(bar.link) { (time(bar.start)) } }
                        @for count in bar.counts { td { (number(count)) } }
                    }
                }
            }
        };
        html! {
            details.numbers {
                summary { "The same in numbers" }
                @if self.bars.iter().all(|bar| bar.sum() == 0) {
                    (layout::empty("No requests in this time."))
                } @else {
                    (layout::table(self.label, rows))
                }
            }
        }
    }
}

impl<const N: usize> Bar<N> {
    fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A square in the colour of a class.
pub(super) fn swatch(class: &str) -> Markup {
    html! {
        svg.swatch viewBox="0 0 10 10" width="10" height="10" aria-hidden="true" {
            rect class=(class) width="10" height="10" rx="2" {}
        }
    }
}

/// A bar in a row of a table: how much of the greatest row this one is, and how much of it is of a second kind.
pub(super) fn share(value: u64, of_which: u64, greatest: u64) -> Markup {
    let path = |n: u64| format!("M0 0h{:.1}v1H0z", 100.0 * n as f64 / greatest.max(1) as f64);
    html! {
        svg.share viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
            path.accent d=(path(value)) {}
            @if of_which > 0 { path.bad d=(path(of_which.min(value))) {} }
        }
    }
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(rate: f64) -> f64 {
    if rate <= 0.0 || !rate.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(rate.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= rate).unwrap_or(rate)
}

fn rate_text(rate: f64) -> String {
    match rate {
        ..1.0 => format!("{rate:.2}"),
        1.0..10.0 if rate.fract() > 0.0 => format!("{rate:.1}"),
        _ => number(rate.round() as u64),
    }
}

fn moment_text(at: UnixMs) -> String {
    let stamp = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(bars: Vec<Bar<2>>) -> Bars<'static, 2> {
        let kinds = [Kind { name: "served", class: "accent" }, Kind { name: "blocked", class: "bad" }];
        Bars { label: "Requests over time", kinds, bars, bar_ms: 60_000 }
    }

    fn bar(minute: i64, counts: [u64; 2]) -> Bar<2> {
        Bar { start: UnixMs(minute * 60_000), counts, link: format!("/requests?minute={minute}") }
    }

    #[test]
    fn a_bar_is_as_high_as_its_share_of_the_axis_and_stands_on_the_parts_below_it() {
        // 300 in a minute are five per second, the end of the axis.
        let text = two(vec![bar(0, [240, 60]), bar(1, [0, 0])]).draw().into_string();
        assert!(text.contains("Requests per second"), "{text}");
        assert!(text.contains(r#"<path class="accent" d="M0.09 100.0h0.82v-80.0h-0.82z">"#), "{text}");
        assert!(text.contains(r#"<path class="bad" d="M0.09 20.0h0.82v-20.0h-0.82z">"#), "{text}");
        assert_eq!(text.matches("<a ").count(), 1, "nothing to point at where nothing was: {text}");
    }

    #[test]
    fn numbers_stand_beside_every_picture() {
        let text = two(vec![bar(0, [1_234, 5])]).draw().into_string();
        assert!(text.contains("<td>1,234</td><td>5</td>"), "{text}");
        assert!(text.contains("1970-01-01 00:00 UTC: 1,234 served, 5 blocked"), "{text}");
        assert!(two(Vec::new()).draw().into_string().contains("No requests in this time."));
    }

    #[test]
    fn few_requests_are_counted_and_many_are_a_rate() {
        assert_eq!(Unit::of(60, 60_000), Unit::PerSecond);
        assert_eq!(Unit::of(59, 60_000), Unit::EachBar);
        assert_eq!(Unit::EachBar.caption(720_000), "Requests in each 12 min");
        assert_eq!([0.0, 0.7, 3.0, 10.0, 1_234.0].map(round_up), [1.0, 1.0, 5.0, 10.0, 2_000.0]);
        assert_eq!([0.5, 2.5, 5.0, 1_000.0].map(rate_text), ["0.50", "2.5", "5", "1,000"]);
    }
}
