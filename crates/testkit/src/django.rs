//! A real Django site for tests (`tests/django`), and a browser that is just enough for it: cookies and forms.
//!
//! Owns the process and its database. Must not be needed: where Django is not installed, tests that want it say so
//! and do nothing, unless `DJANGO=1` asks for them. `.ci/django target` installs it, and so does `make test`.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{Client, Request, Response};
use crate::wait::eventually_within;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/django");
/// To import Django and make its database, on a machine that does much else.
const START: Duration = Duration::from_secs(120);

/// A site with the users `alice` and `bob`, and `root` for the admin; the password of each is `NAME-password`.
pub struct DjangoSite {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl DjangoSite {
    /// Returns when it serves; `binary` is any program below the target folder. With `names_users` its answers name
    /// the user in `X-Portcullis-User`. `None`, with a word about it, where Django is not installed.
    ///
    /// # Panics
    /// Where it is not installed and `DJANGO=1` says that it has to be; and when it does not come to serve.
    pub fn start(binary: &str, names_users: bool) -> Option<Self> {
        let pythons = Path::new(binary).ancestors().map(|folder| folder.join("django/bin/python"));
        let Some(python) = pythons.into_iter().find(|file: &PathBuf| file.is_file()) else {
            assert!(env::var("DJANGO").as_deref() != Ok("1"), "DJANGO=1, and Django is not installed");
            eprintln!("not tested: Django is not installed (install it with: .ci/django target)");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let (said, errors) = (folder.path().join("said"), folder.path().join("errors"));
        let mut command = Command::new(python);
        command.args(["-B", "members.py"]).arg(folder.path()).current_dir(PROJECT);
        command.args(names_users.then_some("--name-users"));
        command.stdin(Stdio::null());
        command.stdout(File::create(&said).unwrap()).stderr(File::create(&errors).unwrap());
        let mut process = command.spawn().unwrap();
        let address = eventually_within(START, "the Django site serves", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "the Django site: {}", fs::read_to_string(&errors).unwrap());
            let text = fs::read_to_string(&said).unwrap();
            text.strip_prefix("listening on ")?.strip_suffix('\n')?.parse().ok()
        });
        Some(Self { process, address, _folder: folder })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for DjangoSite {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keeps cookies, and sends forms with the token that stands in their page.
pub struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(client: Client) -> Self {
        Self { client, cookies: BTreeMap::new() }
    }

    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.get(name).map(|value| &**value)
    }

    /// All of them as a request has them.
    pub fn cookies(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send(Request::get(target))
    }

    /// Opens the page of a form, fills it in and sends it to `target`.
    pub fn submit(&mut self, page: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        let form = self.form(page, target, fields);
        self.send(form)
    }

    /// Opens the page of a form and fills it in; the request has no cookies yet.
    pub fn form(&mut self, page: &str, target: &str, fields: &[(&str, &str)]) -> Request {
        let page = self.get(page).text();
        let (_, rest) = page
            .split_once("name=\"csrfmiddlewaretoken\" value=\"")
            .unwrap_or_else(|| panic!("no form: {page}"));
        let token = rest.split('"').next().unwrap();
        let body = fields.iter().fold(format!("csrfmiddlewaretoken={token}"), |body, (name, value)| {
            assert!(
                value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/".contains(&byte)),
                "{value} would have to be encoded"
            );
            format!("{body}&{name}={value}")
        });
        Request::post(target, body).header("Content-Type", "application/x-www-form-urlencoded")
    }

    /// Sends a request with the cookies, and keeps those of the answer.
    pub fn send(&mut self, mut request: Request) -> Response {
        if !self.cookies.is_empty() {
            request = request.header("Cookie", &self.cookies());
        }
        let answer = self.client.send(&request);
        for set in answer.head.all("set-cookie") {
            let (pair, attributes) = set.split_once(';').unwrap_or((set, ""));
            let (name, value) = pair.split_once('=').unwrap();
            match attributes.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }
}
