//! Requests for the tests: a browser's page view, with whatever a test changes.

use portcullis_detect::{BotStatus, Observation, Report, Settings, Window};
use portcullis_model::{ClientIp, Finding, UnixMs, VerdictKind};

pub(crate) const HOUR_MS: i64 = 3_600_000;

pub(crate) fn request(client: &str, second: i64) -> Observation<'static> {
    Observation {
        time: UnixMs(second * 1_000),
        client: client.parse::<ClientIp>().expect("an address"),
        status: 200,
        verdict: VerdictKind::Admitted,
        bytes_out: 2_000,
        method: "GET",
        host: "example.com",
        path: "/",
        query: "",
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
        referer: "",
        user: "",
        login: None,
        bot: BotStatus::None,
    }
}

pub(crate) fn window() -> Window {
    Window::new(&Settings::default(), UnixMs(0), UnixMs(HOUR_MS))
}

pub(crate) fn judge(window: Window) -> Report {
    window.finish(None, UnixMs(HOUR_MS))
}

pub(crate) fn about<'a>(report: &'a Report, client: &str) -> Option<&'a Finding> {
    report.findings.iter().find(|finding| finding.client.to_string() == client)
}
