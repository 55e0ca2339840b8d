//! A real, headless Chromium, driven by WebDriver.
//!
//! Owns the browser's life, its settings and what it says on its console. WebDriver rather than the
//! DevTools protocol: it is a standard, and Debian ships the driver of exactly its Chromium.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use portcullis_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

const DRIVERS: [&str; 3] = ["chromedriver", "/usr/bin/chromedriver", "/usr/lib/chromium/chromedriver"];
const BROWSERS: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/usr/bin/chromium",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A window, and everything that ends with it.
pub(crate) struct Browser {
    client: Client,
    session: String,
    driver: Child,
    port: u16,
    profile: TempDir,
}

/// Where the two programs are.
pub(crate) struct Programs {
    driver: String,
    browser: String,
}

/// `None`, after saying so, on a machine without a browser.
///
/// # Panics
/// Where the tests must not be left out: with `CI=true` or `BROWSER=1`.
pub(crate) fn find() -> Option<Programs> {
    let starts = |program: &&&str| Command::new(program).arg("--version").output().is_ok();
    let driver = DRIVERS.iter().find(starts);
    let browser = BROWSERS.iter().find(starts);
    if let (Some(driver), Some(browser)) = (driver, browser) {
        let browser = if browser.contains('/') { (*browser).to_owned() } else { on_path(browser) };
        return Some(Programs { driver: (*driver).to_owned(), browser });
    }
    let missing = "Chromium and chromedriver are needed for this test; on Debian: make install-tools";
    let is_set = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    assert!(!is_set("CI", "true") && !is_set("BROWSER", "1"), "{missing}");
    // Not eprintln!, which the test runner keeps to itself when a test passes.
    let _ = writeln!(io::stderr(), "\nSKIPPED a browser test: {missing}");
    None
}

/// chromedriver wants the browser's whole path.
fn on_path(program: &str) -> String {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from(program)).display().to_string()
}

impl Browser {
    /// A fresh browser: no cookies, no cache, no earlier visits.
    pub(crate) async fn start(programs: &Programs) -> Self {
        let profile = TempDir::new().unwrap();
        let mut driver = Command::new(&programs.driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let port: u16 = port.expect("chromedriver did not say on which port it listens");
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(&programs.browser, profile.path()))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap_or_else(|error| panic!("Chromium does not start: {error}"));
        let session = client.session_id().await.unwrap().expect("a new browser has a session");
        Self { client, session, driver, port, profile }
    }

    pub(crate) async fn go(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// An element, once it is there.
    async fn element(&self, locator: Locator<'_>) -> Element {
        match self.client.wait().at_most(PATIENCE).for_element(locator).await {
            Ok(element) => element,
            Err(error) => panic!("no {locator:?} on {}: {error}", self.path().await),
        }
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.element(Locator::Css(selector)).await.click().await.unwrap();
    }

    /// Clicks on the element that an XPath finds, which can tell elements by what they say.
    pub(crate) async fn click_on(&self, path: &str) {
        self.element(Locator::XPath(path)).await.click().await.unwrap();
    }

    /// Types into a field, or chooses a file where the field is for files.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        self.element(Locator::Css(selector)).await.send_keys(text).await.unwrap();
    }

    /// Types in the place of what a field has.
    pub(crate) async fn fill_anew(&self, selector: &str, text: &str) {
        let field = self.element(Locator::Css(selector)).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Chooses from a list by what the option says. Typed, because chromedriver's own way fires no input event.
    pub(crate) async fn choose(&self, selector: &str, option: &str) {
        self.element(Locator::Css(selector)).await.send_keys(option).await.unwrap();
    }

    /// Presses a key where the focus is.
    pub(crate) async fn press(&self, key: Key) {
        self.press_char(key.into()).await;
    }

    pub(crate) async fn press_char(&self, value: char) {
        let keys = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value })
            .then(KeyAction::Up { value });
        self.client.perform_actions(keys).await.unwrap();
    }

    /// Answers a question of the page with yes; returns the question.
    pub(crate) async fn accept(&self) -> String {
        let question = self.client.get_alert_text().await.unwrap();
        self.client.accept_alert().await.unwrap();
        question
    }

    /// The button of the browser.
    pub(crate) async fn back(&self) {
        self.client.back().await.unwrap();
    }

    /// The text of an element, once it is there.
    pub(crate) async fn text(&self, selector: &str) -> String {
        self.element(Locator::Css(selector)).await.text().await.unwrap()
    }

    /// Waits until the element holds this text.
    pub(crate) async fn wait_for(&self, selector: &str, part: &str) {
        let script =
            format!("return document.querySelector({selector:?})?.innerText.includes({part:?}) ?? false");
        let said = async {
            while self.client.execute(&script, Vec::new()).await.ok() != Some(Value::Bool(true)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, said).await.is_err() {
            let page = self.path().await;
            panic!("{selector} of {page} says {:?}, and nothing of {part:?}", self.text(selector).await);
        }
    }

    /// Waits until an element says exactly this.
    pub(crate) async fn wait_for_text(&self, selector: &str, expected: &str) {
        let said = async {
            // The page may be changing under the look.
            while self.script(&format!("return document.querySelector({selector:?})?.innerText")).await
                != expected
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, said).await.is_err() {
            panic!("{selector} says {:?}, not {expected:?}", self.text(selector).await);
        }
    }

    /// The result of a piece of JavaScript.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// The result of a piece of JavaScript that calls its last argument when it is done.
    pub(crate) async fn script_that_waits(&self, script: &str) -> Value {
        self.client.execute_async(script, Vec::new()).await.unwrap()
    }

    /// A command of the DevTools protocol, for what WebDriver cannot do.
    pub(crate) async fn devtools(&self, command: &'static str, parameters: Value) -> Value {
        self.client.issue_cmd(DevTools { command, parameters }).await.unwrap()
    }

    pub(crate) async fn url(&self) -> Url {
        self.client.current_url().await.unwrap()
    }

    pub(crate) async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    /// What the console has said since the last call that a developer would have to look at.
    pub(crate) async fn console_errors(&self) -> Vec<String> {
        let entries = self.client.issue_cmd(ConsoleLog).await.unwrap();
        let entries = entries.as_array().cloned().unwrap_or_default();
        let is_error = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        entries.iter().filter(is_error).map(|entry| entry["message"].to_string()).collect()
    }

    /// Waits until a file has been downloaded whole.
    pub(crate) fn downloaded(&self, name: &str, length: usize) -> Vec<u8> {
        let path = downloads(self.profile.path()).join(name);
        eventually("the download is complete", || fs::read(&path).ok().filter(|bytes| bytes.len() == length))
    }

    /// Waits until a file has been downloaded whose name begins so; returns its text.
    pub(crate) fn downloaded_text(&self, beginning: &str) -> String {
        let folder = downloads(self.profile.path());
        eventually("the download is there", || {
            let file = fs::read_dir(&folder).ok()?.flatten().find(|file| {
                let name = file.file_name();
                let name = name.to_string_lossy();
                name.starts_with(beginning) && !name.ends_with(".crdownload")
            })?;
            let text = fs::read_to_string(file.path()).ok()?;
            fs::remove_file(file.path()).unwrap();
            Some(text)
        })
    }

    /// Keeps what is on the screen, in `target/screenshots/NAME.png` of the workspace.
    pub(crate) async fn screenshot(&self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/screenshots/{name}.png"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, self.client.screenshot().await.unwrap()).unwrap();
    }
}

impl Drop for Browser {
    /// The session ends before the driver does, or Chromium would stay; after a failed test as well.
    fn drop(&mut self) {
        let end_session = || -> io::Result<()> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let host = format!("Host: 127.0.0.1:{}", self.port);
            write!(
                socket,
                "DELETE /session/{} HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n",
                self.session
            )?;
            socket.read(&mut [0; 512]).map(drop)
        };
        if let Err(error) = end_session() {
            let _ = writeln!(io::stderr(), "Chromium may be left running: {error}");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn downloads(profile: &Path) -> PathBuf {
    profile.join("downloads")
}

fn capabilities(browser: &str, profile: &Path) -> Capabilities {
    let user_data = format!("--user-data-dir={}", profile.join("user-data").display());
    let args = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // Every console page has links that fade; nobody waits for them here.
        "--force-prefers-reduced-motion",
        "--window-size=1000,700",
        &user_data,
    ];
    let wanted = json!({
        "browserName": "chrome",
        "goog:loggingPrefs": { "browser": "ALL" },
        "goog:chromeOptions": {
            "binary": browser,
            "args": args,
            "prefs": { "download.default_directory": downloads(profile), "download.prompt_for_download": false },
        },
    });
    let Value::Object(wanted) = wanted else { unreachable!("the text above is an object") };
    wanted
}

/// chromedriver's own command for what the console has said; the standard has none.
#[derive(Debug)]
struct ConsoleLog;

impl WebDriverCompatibleCommand for ConsoleLog {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        base_url.join(&format!("session/{}/se/log", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}

/// chromedriver's way to the DevTools protocol.
#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        base_url.join(&format!("session/{}/goog/cdp/execute", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "cmd": self.command, "params": self.parameters }).to_string()))
    }
}
