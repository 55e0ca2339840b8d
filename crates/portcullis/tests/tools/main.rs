//! Attack tools of Debian against a real gateway with the sample site behind it, and ordinary visitors meanwhile:
//! how soon each tool is blocked, and that nobody else is refused.
//!
//! Takes minutes and needs the tools, so it runs only where TOOLS is set ("make tools-check"). Owns running them; when
//! somebody was blocked is read from the gateway's own log. A tool's first request counts as its first hostile one:
//! that is the strictest that can be asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod front;
mod visitors;

use std::io::BufRead as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_model::VerdictKind;
use portcullis_store::LogRow;
use portcullis_testkit::{Client, Gateway, GatewayConfig};
use rustix::process::{Pid, Signal, kill_process};

use front::Front;
use visitors::Visitors;

/// A tool that is not blocked by then is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a tool goes on when it is blocked: it has to stay so.
const AFTERMATH: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the tools say they are, where they are asked to pass for a browser.
const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36";

/// A tool and its arguments; `{url}`, `{host}`, `{port}`, `{words}` and `{agent}` are filled in.
struct Tool {
    name: &'static str,
    package: &'static str,
    args: &'static [&'static str],
}

const fn tool(name: &'static str, package: &'static str, args: &'static [&'static str]) -> Tool {
    Tool { name, package, args }
}

/// Each as its manual begins, then with the user agent of a browser.
const TOOLS: [Tool; 16] = [
    tool(
        "sqlmap",
        "sqlmap",
        &["-u", "{url}search?q=lantern", "--batch", "--flush-session", "--output-dir={folder}"],
    ),
    tool("dirb", "dirb", &["{url}", "{words}", "-r", "-S"]),
    tool("gobuster", "gobuster", &["dir", "-q", "--no-progress", "-u", "{url}", "-w", "{words}"]),
    tool("ffuf", "ffuf", &["-s", "-u", "{url}FUZZ", "-w", "{words}"]),
    tool(
        "wapiti",
        "wapiti",
        &["-u", "{url}", "--flush-session", "--no-bugreport", "-f", "txt", "-o", "{folder}/wapiti"],
    ),
    tool(
        "hydra",
        "hydra",
        &[
            "-l",
            "ada",
            "-P",
            "{words}",
            "-s",
            "{port}",
            "{host}",
            "http-post-form",
            "/login:username=^USER^&password=^PASS^:do not belong",
        ],
    ),
    tool("whatweb", "whatweb", &["-a", "4", "--color=never", "{url}"]),
    tool(
        "nmap",
        "nmap",
        &["-Pn", "-p", "{port}", "--script", "+http-enum,+http-sql-injection,+http-passwd", "{host}"],
    ),
    tool(
        "sqlmap",
        "sqlmap",
        &[
            "-u",
            "{url}search?q=lantern",
            "--batch",
            "--flush-session",
            "--output-dir={folder}",
            "--user-agent={agent}",
        ],
    ),
    tool("dirb", "dirb", &["{url}", "{words}", "-r", "-S", "-a", "{agent}"]),
    tool(
        "gobuster",
        "gobuster",
        &["dir", "-q", "--no-progress", "-u", "{url}", "-w", "{words}", "-a", "{agent}"],
    ),
    tool("ffuf", "ffuf", &["-s", "-u", "{url}FUZZ", "-w", "{words}", "-H", "User-Agent: {agent}"]),
    tool(
        "wapiti",
        "wapiti",
        &[
            "-u",
            "{url}",
            "--flush-session",
            "--no-bugreport",
            "-f",
            "txt",
            "-o",
            "{folder}/wapiti",
            "-A",
            "{agent}",
        ],
    ),
    tool(
        "hydra",
        "hydra",
        &[
            "-l",
            "ada",
            "-P",
            "{words}",
            "-s",
            "{port}",
            "{host}",
            "http-post-form",
            "/login:username=^USER^&password=^PASS^:H=User-Agent\\: {agent}:do not belong",
        ],
    ),
    tool("whatweb", "whatweb", &["-a", "4", "--color=never", "-U", "{agent}", "{url}"]),
    tool(
        "nmap",
        "nmap",
        &[
            "-Pn",
            "-p",
            "{port}",
            "--script",
            "+http-enum,+http-sql-injection,+http-passwd",
            "--script-args",
            "http.useragent={agent}",
            "{host}",
        ],
    ),
];

/// What those guess that need a list of words.
const WORDS: &str = "/usr/share/dirb/wordlists/common.txt";

/// Whether the program is there.
fn has(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !is_there {
        println!("missing: {program}; on Debian or Ubuntu: apt-get install {package}");
    }
    is_there
}

fn has_words() -> bool {
    let is_there = Path::new(WORDS).is_file();
    if !is_there {
        println!("missing: {WORDS}; on Debian or Ubuntu: apt-get install dirb");
    }
    is_there
}

/// The sample site, in a process of its own.
struct Site {
    child: Child,
    address: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["demo", "--site", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("the site said {line:?}")) }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a tool.
struct Result {
    name: String,
    requests: usize,
    /// Requests before the first that was refused, and seconds from the first request to it.
    blocked: Option<(usize, f64)>,
    /// Requests after it that were served all the same: some were under way.
    served_later: usize,
    /// By which it was refused first.
    rule: String,
}

fn run(tool: &Tool, front: &Front, gateway: &Gateway) -> Result {
    let folder = tempfile::tempdir().unwrap();
    let (host, port) = (front.address().ip().to_string(), front.address().port().to_string());
    let fill = |arg: &str| {
        arg.replace("{url}", &front.url("/"))
            .replace("{host}", &host)
            .replace("{port}", &port)
            .replace("{words}", WORDS)
            .replace("{folder}", folder.path().to_str().unwrap())
            .replace("{agent}", BROWSER)
    };
    let is_disguised = tool.args.iter().any(|arg| arg.contains("{agent}"));
    let mut child = Command::new(tool.name)
        .args(tool.args.iter().map(|arg| fill(arg)))
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (began, mut until) = (Instant::now(), Instant::now() + PATIENCE);
    let mut is_blocked = false;
    while Instant::now() < until && child.try_wait().unwrap().is_none() {
        std::thread::sleep(LOOK_EVERY);
        if !is_blocked && rows_of(gateway, front.client()).iter().any(is_refusal) {
            is_blocked = true;
            until = until.min(Instant::now() + AFTERMATH);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    // The log commits four times a second.
    std::thread::sleep(Duration::from_secs(1));
    let rows = rows_of(gateway, front.client());
    let at = rows.iter().position(is_refusal);
    let seconds = |n: usize| rows[n].time().since(rows[0].time()).as_secs_f64();
    println!("  {} took {:.1} s", tool.name, began.elapsed().as_secs_f64());
    if std::env::var_os("SHOW").is_some() {
        rows.iter().take(at.unwrap_or(rows.len()) + 1).for_each(show);
    }
    Result {
        name: if is_disguised { format!("{} as a browser", tool.name) } else { tool.name.to_owned() },
        requests: rows.len(),
        blocked: at.map(|at| (at, seconds(at))),
        served_later: at.map_or(0, |at| rows[at..].iter().filter(|row| !row.verdict.is_refusal()).count()),
        rule: at.map(|at| rule_of(gateway, &rows[at])).unwrap_or_default(),
    }
}

fn show(row: &LogRow) {
    println!(
        "    {} {} {}?{} {} {}",
        row.time_text(),
        row.method,
        row.path,
        row.query,
        row.status,
        row.reason
    );
}

fn rows_of(gateway: &Gateway, client: Ipv4Addr) -> Vec<LogRow> {
    let client = client.to_string();
    let mut rows: Vec<LogRow> =
        gateway.data().rows().into_iter().filter(|row| row.client.to_string() == client).collect();
    rows.sort_by_key(LogRow::time);
    rows
}

/// Of the client, not of what a single request looks like.
fn is_refusal(row: &LogRow) -> bool {
    row.verdict == VerdictKind::Blocked
}

/// The rule by which the client was refused first.
fn rule_of(gateway: &Gateway, refused: &LogRow) -> String {
    if let Some(rule) = refused.reason.strip_prefix("caught:") {
        return rule.to_owned();
    }
    let id = refused.reason.strip_prefix("block:").and_then(|id| id.parse().ok());
    let block = id.and_then(|id| gateway.data().state().block(id).unwrap());
    block.map_or_else(|| refused.reason.clone(), |stored| stored.block.reason)
}

#[test]
fn attack_tools_are_blocked_within_seconds_and_nobody_else_is_refused() {
    if std::env::var_os("TOOLS").is_none() {
        println!("skipped: it takes minutes; make tools-check");
        return;
    }
    let site = Site::start();
    let gateway = Gateway::start(
        GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis"))
            .upstream_with(&format!("servers = [\"http://{}\"]", site.address))
            .section("[identity]\nlogin_paths = [\"/login\"]"),
    );
    let only = std::env::var("TOOL").unwrap_or_default();
    let visitors = Visitors::come(|n| Front::start(Ipv4Addr::new(127, 0, 1, n), gateway.address()));
    let mut results = Vec::new();
    for (n, tool) in TOOLS.iter().enumerate().filter(|(_, tool)| tool.name.starts_with(&only)) {
        let needs_words = tool.args.iter().any(|arg| arg.contains("{words}"));
        if has(tool.name, tool.package) && (!needs_words || has_words()) {
            let n = u8::try_from(n).unwrap() + 2;
            let front = Front::start(Ipv4Addr::new(127, 0, 0, n), gateway.address());
            results.push(run(tool, &front, &gateway));
        }
    }
    let people = visitors.leave();
    std::thread::sleep(Duration::from_secs(1));
    report(&results);
    let mut harmed = Vec::new();
    println!("\n| ordinary visitor | requests | refused |\n|---|---|---|");
    for (name, client) in people {
        let rows = rows_of(&gateway, client);
        let refused = rows.iter().filter(|row| row.verdict.is_refusal()).count();
        println!("| {name} | {} | {refused} |", rows.len());
        if refused > 0 || rows.is_empty() {
            harmed.push(name);
        }
    }
    assert!(!results.is_empty(), "none of the tools is there");
    let free: Vec<&str> =
        results.iter().filter(|one| one.blocked.is_none()).map(|one| one.name.as_str()).collect();
    assert!(harmed.is_empty(), "refused, or not served at all: {harmed:?}");
    assert!(free.is_empty(), "never blocked: {free:?}");
}

/// In the form of docs/DETECTION.md. Seconds are shown and not judged: they are the machine's too.
fn report(results: &[Result]) {
    println!("\n| tool | requests before its block | seconds | requests in all | served later | found by |");
    println!("|---|---|---|---|---|---|");
    for one in results {
        let (before, seconds) = match one.blocked {
            Some((before, seconds)) => (before.to_string(), format!("{seconds:.2}")),
            None => ("never blocked".to_owned(), "-".to_owned()),
        };
        let Result { name, requests, served_later, rule, .. } = one;
        println!("| {name} | {before} | {seconds} | {requests} | {served_later} | {rule} |");
    }
    let mut all: Vec<f64> = results.iter().filter_map(|one| Some(one.blocked?.1)).collect();
    all.sort_by(f64::total_cmp);
    if let Some(median) = all.get(all.len() / 2) {
        println!("\nmedian time from the first request to the block: {median:.2} s");
    }
}

#[test]
fn the_sample_site_runs_alone_for_a_gateway_of_ones_own() {
    let mut site = Site::start();
    let get = |path: &str| Client::connect(site.address).get(path);
    assert!(get("/").text().contains("/feed.xml"));
    assert!(get("/feed.xml").text().contains("<feed xmlns=\"http://www.w3.org/2005/Atom\">"));
    assert_eq!(get("/api/products").json()["products"].as_array().unwrap().len(), 12);
    assert_eq!(get("/nowhere").status(), 404);
    kill_process(Pid::from_child(&site.child), Signal::TERM).unwrap();
    assert!(site.child.wait().unwrap().success());
}
