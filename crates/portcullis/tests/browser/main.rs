//! A person's browser in front of the gateway: a real Chromium, a real site, nothing in between but us.
//!
//! Owns what a visitor sees. What goes over the wire in detail is the other tests' matter.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod console;
mod driver;
mod site;

use std::fs;
use std::sync::{Mutex, PoisonError};

use driver::Browser;
use portcullis_testkit::{Gateway, GatewayConfig, Upstream, eventually};

/// A browser needs most of a small machine; two at once make each other late.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Stage {
    gateway: Gateway,
    /// Serves what needs no pages: WebSocket, events, uploads.
    upstream: Upstream,
    browser: Browser,
}

impl Stage {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }
}

/// Runs a visit in a fresh browser in front of a fresh gateway, if this machine has a browser.
fn visit(scene: impl AsyncFnOnce(&Stage)) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(programs) = driver::find() else { return };
    let upstream = Upstream::start();
    let config = GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis"))
        .upstream_with(&format!("servers = [\"http://{}\"]", site::start()))
        .section(&format!("[[upstream]]\nname = \"live\"\nservers = [\"{}\"]", upstream.url()))
        .section("[[route]]\npaths = [\"/websocket\", \"/events\", \"/upload\"]\nupstream = \"live\"")
        .section("[[route]]\nupstream = \"app\"");
    let gateway = Gateway::start(config);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage { gateway, upstream, browser: Browser::start(&programs).await };
        scene(&stage).await;
    });
}

#[test]
fn a_page_comes_with_its_style_its_script_and_its_image_and_the_console_stays_silent() {
    visit(async |stage| {
        let browser = &stage.browser;
        browser.go(&stage.url("/")).await;
        browser.wait_for_text("#script", "the script has run").await;
        let colour = browser.script("return getComputedStyle(document.querySelector('h1')).color").await;
        assert_eq!(colour, "rgb(10, 100, 60)");
        assert_eq!(browser.script("return document.querySelector('#logo').naturalWidth").await, 64);
        browser.screenshot("page").await;
        assert_eq!(browser.console_errors().await, Vec::<String>::new());
        // The silence means something: a page that is missing is heard.
        browser.go(&stage.url("/no-such-page")).await;
        assert_eq!(browser.console_errors().await.len(), 1);
    });
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_redirects_with_a_cookie_that_lasts() {
    visit(async |stage| {
        let browser = &stage.browser;
        browser.go(&stage.url("/")).await;
        browser.click("#login").await;
        browser.wait_for_text("#message", "Please log in.").await;
        browser.fill("#name", "ada").await;
        browser.fill("#password", "byron").await;
        browser.click("#submit").await;
        browser.wait_for_text("#message", "That is not the password.").await;
        browser.fill("#name", "ada").await;
        browser.fill("#password", "lovelace").await;
        browser.click("#submit").await;
        browser.wait_for_text("#welcome", "Welcome, Ada.").await;
        assert_eq!(browser.path().await, "/account");
        browser.go(&stage.url("/account")).await;
        browser.wait_for_text("#welcome", "Welcome, Ada.").await;
        browser.screenshot("account").await;
    });
}

#[test]
fn a_chosen_file_is_uploaded_whole_and_a_download_arrives_byte_for_byte() {
    visit(async |stage| {
        let browser = &stage.browser;
        let file = stage.gateway.folder().join("holiday.jpg");
        fs::write(&file, vec![7; 5_000_000]).unwrap();
        browser.go(&stage.url("/")).await;
        browser.fill("#file", &file.display().to_string()).await;
        browser.wait_for_text("#upload", "200 5000000").await;
        browser.click("#download").await;
        let expected = site::report();
        assert!(browser.downloaded("report.bin", expected.len()) == expected, "the download is damaged");
    });
}

#[test]
fn a_websocket_echoes_and_closes_in_order() {
    visit(async |stage| {
        let browser = &stage.browser;
        browser.go(&stage.url("/")).await;
        browser.script("echoOverWebSocket('grüße, 世界')").await;
        browser.wait_for_text("#websocket", "grüße, 世界").await;
        browser.wait_for_text("#websocket-close", "1000").await;
        assert_eq!(browser.console_errors().await, Vec::<String>::new());
    });
}

#[test]
fn server_sent_events_arrive_while_the_stream_stays_open() {
    visit(async |stage| {
        let browser = &stage.browser;
        browser.go(&stage.url("/")).await;
        browser.script("listenToEvents()").await;
        browser.wait_for_text("#events", "open").await;
        for (event, so_far) in [("first", "open first"), ("last", "open first last")] {
            assert_eq!(stage.upstream.send_event(event), 1, "one page listens");
            browser.wait_for_text("#events", so_far).await;
        }
    });
}

#[test]
fn a_blocked_visitor_reads_why_and_is_let_in_again_once_unblocked() {
    visit(async |stage| {
        let (browser, gateway) = (&stage.browser, &stage.gateway);
        gateway.cli_ok(&["block", "127.0.0.1", "--reason", "a test", "--force"]);
        eventually("the block is in force", || (gateway.get("/").status() == 403).then_some(()));
        browser.go(&stage.url("/")).await;
        browser.screenshot("blocked").await;
        // The page's only piece of code is the decision ID.
        let id = browser.text("code").await;
        let why = eventually("the decision is in the log", || {
            let output = gateway.cli(&["why", &id]);
            (output.code == Some(0)).then_some(output.stdout)
        });
        assert!(why.contains("a test"), "{why}");
        gateway.cli_ok(&["unblock", "127.0.0.1"]);
        eventually("the block is lifted", || (gateway.get("/").status() == 200).then_some(()));
        browser.go(&stage.url("/")).await;
        browser.wait_for_text("#script", "the script has run").await;
    });
}
