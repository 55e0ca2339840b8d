//! Messages about events, as text and as HTML. Must not let what a client sent be anything but text.

mod page;

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::escape::line;
use crate::words::{number, time};
use crate::{Digest, EventKind};

pub(crate) use page::Page;

/// Clients in a message.
const MAX_CLIENTS_TOLD: usize = 10;

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Tells messages apart; the same message tried again has the same.
    pub id: String,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// The same for programs, where it is more than the text and the digest say.
    pub data: Option<serde_json::Value>,
}

/// Where messages come from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What the gateway is called.
    pub name: &'a str,
    /// Of the times in it.
    pub zone: &'a TimeZone,
}

/// How much a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    Full,
    /// Nothing that a client had a hand in, for receivers that refuse the rest.
    CountsOnly,
}

/// The message about a digest. `id` is unique among those of this gateway.
pub fn alert(id: &str, digest: &Digest, detail: Detail, scene: &Scene<'_>) -> Message {
    let headline = headline(digest, detail);
    let subject = format!("[{}] {}: {headline}", line(scene.name, 60), digest.worst);
    Message {
        id: id.to_owned(),
        text: text(digest, detail, scene, &headline),
        html: html(digest, detail, scene, &headline),
        subject,
        data: None,
    }
}

/// What a message is about, in a few words.
pub(crate) fn headline(digest: &Digest, detail: Detail) -> String {
    match (digest.samples.as_slice(), detail) {
        ([only], Detail::Full) if digest.events == 1 => only.title.clone(),
        _ => by_kind(digest),
    }
}

/// `2 findings, 1 block`
fn by_kind(digest: &Digest) -> String {
    let kinds: Vec<String> = digest.kinds.iter().map(|(kind, n)| kind.counted(*n)).collect();
    kinds.join(", ")
}

/// Which events this message stands for.
fn stands_for(digest: &Digest, scene: &Scene<'_>) -> String {
    let (first, last) = (time(digest.first_at, scene.zone), time(digest.last_at, scene.zone));
    match digest.events {
        1 => format!("This message stands for 1 event, at {first}."),
        n if first == last => {
            format!("This message stands for {} events at {first}: {}.", number(n), by_kind(digest))
        }
        n => format!(
            "This message stands for {} events from {first} to {last}: {}.",
            number(n),
            by_kind(digest)
        ),
    }
}

/// The clients of most events, and how many events were about others.
fn clients(digest: &Digest) -> (Vec<(&str, u64)>, u64) {
    let top = digest.top_clients(MAX_CLIENTS_TOLD);
    let told: u64 = top.iter().map(|(_, n)| n).sum();
    let all: u64 = digest.top_clients(usize::MAX).iter().map(|(_, n)| n).sum();
    (top, all - told + digest.of_others)
}

/// What to type to learn more.
fn commands(digest: &Digest) -> Vec<&'static str> {
    let mut commands = Vec::new();
    let has = |kind| digest.kinds.contains_key(&kind);
    if has(EventKind::Finding) {
        commands.push("portcullis suspicious");
    }
    if has(EventKind::AutoBlock) {
        commands.push("portcullis blocks");
    }
    if has(EventKind::LogLoss) || has(EventKind::DiskPressure) || has(EventKind::FeedFailure) {
        commands.push("portcullis doctor");
    }
    commands.push("portcullis alerts");
    commands
}

fn text(digest: &Digest, detail: Detail, scene: &Scene<'_>, headline: &str) -> String {
    let mut out = format!("{headline}\n\n{}\n", stands_for(digest, scene));
    // Writing into a String cannot fail.
    if detail == Detail::Full {
        let (top, others) = clients(digest);
        if digest.events > 1 && !top.is_empty() {
            out.push_str("\nMost events by client:\n");
            for (client, n) in top {
                let _ = writeln!(out, "  {client:<39} {}", number(n));
            }
            if others > 0 {
                let _ = writeln!(out, "  {:<39} {}", "all others", number(others));
            }
        }
        let shown = digest.samples.len() as u64;
        if digest.events > shown {
            let _ = writeln!(out, "\nThe worst {shown} of them:");
        }
        for sample in &digest.samples {
            let at = time(sample.at, scene.zone);
            let _ = writeln!(out, "\n{at}  {}  {}\n  {}", sample.severity, sample.title, sample.text);
        }
    }
    let _ = writeln!(out, "\nMore: {}", commands(digest).join(", "));
    let _ = writeln!(out, "\n-- \nPortcullis on {}", line(scene.name, 60));
    out
}

fn html(digest: &Digest, detail: Detail, scene: &Scene<'_>, headline: &str) -> String {
    let mut page = Page::new(headline);
    page.severity(digest.worst, headline);
    page.paragraph(&stands_for(digest, scene));
    if detail == Detail::Full {
        let (top, others) = clients(digest);
        if digest.events > 1 && !top.is_empty() {
            page.heading("Most events by client");
            let mut rows: Vec<Vec<String>> =
                top.iter().map(|(client, n)| vec![(*client).to_owned(), number(*n)]).collect();
            if others > 0 {
                rows.push(vec!["all others".to_owned(), number(others)]);
            }
            page.table(&["client", "events"], &rows);
        }
        let shown = digest.samples.len() as u64;
        page.heading(&match digest.events > shown {
            true => format!("The worst {shown} of them"),
            false => "What happened".to_owned(),
        });
        for sample in &digest.samples {
            page.event(&time(sample.at, scene.zone), sample.severity, &sample.title, &sample.text);
        }
    }
    page.commands(&commands(digest));
    page.finish(&format!("Portcullis on {}", line(scene.name, 60)))
}

#[cfg(test)]
mod tests {
    use portcullis_model::{Severity, UnixMs};

    use super::*;
    use crate::Event;

    static UTC: TimeZone = TimeZone::UTC;

    fn scene() -> Scene<'static> {
        Scene { name: "shop", zone: &UTC }
    }

    fn finding(client: &str, says: &str) -> Event {
        Event::Finding {
            id: 4,
            client: client.parse().unwrap(),
            user: None,
            severity: Severity::Critical,
            rule: "sensitive_paths".to_owned(),
            says: says.to_owned(),
            requests: 1_200,
        }
    }

    #[test]
    fn one_event_is_told_in_full_with_the_command_that_shows_its_evidence() {
        let digest = Digest::of(&finding("203.0.113.66", "it scans"), UnixMs(0));
        let message = alert("1", &digest, Detail::Full, &scene());
        assert_eq!(
            message.subject,
            "[shop] critical: 203.0.113.66 is suspicious (critical: sensitive_paths)"
        );
        for part in ["stands for 1 event", "it scans; 1,200 requests", "portcullis suspicious 4"] {
            assert!(message.text.contains(part) && message.html.contains(part), "{part}:\n{}", message.text);
        }
    }

    #[test]
    fn a_storm_says_how_many_it_stands_for_and_who_it_was() {
        let mut digest = Digest::of(&finding("203.0.113.66", "it scans"), UnixMs(0));
        for n in 1..99_999_u32 {
            let client = std::net::IpAddr::from((n % 50 + 1).to_be_bytes()).to_string();
            digest.add(Digest::of(&finding(&client, "it scans"), UnixMs(i64::from(n) * 30)));
        }
        digest.add(Digest::of(
            &Event::AutoBlock {
                whom: "203.0.113.0/24".into(),
                reason: "bad".into(),
                unblock: "203.0.113.0/24".into(),
            },
            UnixMs(3_000_000),
        ));
        let message = alert("1", &digest, Detail::Full, &scene());
        assert_eq!(message.subject, "[shop] critical: 99,999 findings, 1 block");
        assert!(
            message.text.contains("stands for 100,000 events from 1970-01-01 00:00:00 UTC to"),
            "{}",
            message.text
        );
        assert!(message.text.contains("0.0.0.2"), "{}", message.text);
        assert!(message.text.contains("The worst 10 of them"), "{}", message.text);
        assert!(message.html.len() < 40_000 && message.text.len() < 10_000);
    }

    #[test]
    fn what_a_client_sent_is_text_in_html_and_left_out_of_counts() {
        let digest = Digest::of(&finding("203.0.113.66", "<script>alert(1)</script>"), UnixMs(0));
        let full = alert("1", &digest, Detail::Full, &scene());
        assert!(!full.html.contains("<script") && full.html.contains("&lt;script&gt;"));
        let counts = alert("1", &digest, Detail::CountsOnly, &scene());
        for text in [&counts.subject, &counts.text, &counts.html] {
            assert!(!text.contains("script") && !text.contains("203.0.113.66"), "{text}");
        }
        assert!(counts.text.contains("1 finding"));
    }
}
