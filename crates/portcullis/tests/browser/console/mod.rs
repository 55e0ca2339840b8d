//! The console as people see it: a real Chromium in front of a running gateway with a past.
//!
//! Owns the scene: who has visited, who has signed in, and what every page must keep. Pages without script are the
//! matter of the tests in `tests/console`.

mod axe;
mod blocking;
mod clients;
mod entering;
mod hostile;
mod keyboard;
mod looks;
mod past;
mod places;
mod reviewing;
mod setting;
mod watching;

use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use portcullis_testkit::{Gateway, GatewayConfig, Request, Upstream, WebhookReceiver, eventually};
use serde_json::json;
use tempfile::TempDir;

use crate::ONE_AT_A_TIME;
use crate::driver::{self, Browser};

const EARLY: &str = include_str!("early.js");
const LOOK: &str = include_str!("look.js");
const PASSWORD: &str = "four old lamps";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

const POLICY: &str = r#"
[[limit]]
name = "login"
paths = ["/login"]
methods = ["POST"]
rate = "5/1h"

[[feed]]
name = "ours"
file = "ours.txt"
"#;

struct Scene {
    gateway: Gateway,
    /// Keeps answering while the scene lasts.
    _upstream: Upstream,
    webhook: WebhookReceiver,
    browser: Browser,
    _folder: TempDir,
}

/// Opens the console in a fresh browser in front of a fresh gateway whose data folder `prepare` has filled, with the
/// first account, `alice`, signed in; if this machine has a browser.
fn open(prepare: impl FnOnce(&Path), scene: impl AsyncFnOnce(&Scene)) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(programs) = driver::find() else { return };
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    prepare(&data);
    fs::write(folder.path().join("ours.txt"), "192.0.2.128/25\n").unwrap();
    let (upstream, webhook) = (Upstream::start(), WebhookReceiver::start(&[]));
    let policy = POLICY.replace("ours.txt", folder.path().join("ours.txt").to_str().unwrap());
    let alerts =
        format!("[[alerts.webhook]]\nname = \"chat\"\nkind = \"json\"\nurl = \"{}\"", webhook.url("/hook"));
    let config = GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis"))
        .upstream(&upstream)
        .behind_local_proxy()
        .console()
        .data(&data)
        .section(&policy)
        .section(&alerts);
    let gateway = Gateway::start(config);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let browser = Browser::start(&programs).await;
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": EARLY })).await;
        let stage = Scene { gateway, _upstream: upstream, webhook, browser, _folder: folder };
        stage.set_up().await;
        scene(&stage).await;
    });
}

impl Scene {
    /// Makes the first account by the link of the terminal.
    async fn set_up(&self) {
        let browser = &self.browser;
        browser.go(self.gateway.console_url()).await;
        browser.fill("#name", "alice").await;
        browser.fill("#password", PASSWORD).await;
        browser.fill("#again", PASSWORD).await;
        browser.click("main button").await;
        browser.wait_for("h1", "Overview").await;
    }

    /// Opens a page of the console.
    async fn go(&self, address: &str) {
        self.browser.go(&format!("http://{}{address}", self.gateway.console())).await;
    }

    /// The status of a request that comes from this address.
    fn status_of(&self, client: &str) -> u16 {
        self.gateway.client_of(client).get("/").status()
    }

    /// Waits until requests from this address get this status.
    fn wait_for_status(&self, client: &str, status: u16) {
        eventually(&format!("{client} gets {status}"), || (self.status_of(client) == status).then_some(()));
    }

    /// What speaks against the page that is open; empty when it is as it should be.
    async fn faults(&self) -> Vec<String> {
        let look = self.browser.script(LOOK).await;
        let mut faults = Vec::new();
        for what in ["violations", "hits", "shifts", "wide", "unlabelled", "badTables"] {
            let of = look[what].as_array().unwrap().iter();
            faults.extend(of.map(|fault| format!("{what}: {}", fault.as_str().unwrap_or("?"))));
        }
        if look["headings"] != 1 {
            faults.push(format!("{} headings of the first rank", look["headings"]));
        }
        if !look["title"].as_str().unwrap().ends_with(" · Portcullis") {
            faults.push(format!("the title is {}", look["title"]));
        }
        faults
    }

    /// As wide as this, in CSS pixels, with room for the whole page where a height is given.
    async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// As somebody sees it whose system is light or dark.
    async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.browser.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Waits until what was just changed has been laid out and painted.
    async fn settle(&self) {
        const FRAMES: &str = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(true)));";
        self.browser.script_that_waits(FRAMES).await;
    }

    /// Asks for what scanners ask for until it is refused.
    fn scan(&self, client: &str) {
        let mut connection = self.gateway.client_of(client);
        let refused = past::SECRETS.iter().any(|path| {
            let answer = r#"{"status": 404, "headers": [], "parts": ["not here"]}"#;
            let request = Request::get(path).header("User-Agent", FIREFOX).header("X-Answer", answer);
            connection.send(&request).status() == 403
        });
        assert!(refused, "{client} was never refused");
    }
}
