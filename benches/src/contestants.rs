//! The programs that are compared, each with one worker thread in front of the same upstream.
//!
//! Owns their configurations. "Everything on" is here, so that what a figure means can be read in one
//! place; which figures are taken is for the programs in `bin/`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use portcullis_model::{BlockSource, UnixMs, network_of};
use portcullis_store::{NewBlock, State};
use rusqlite::{Connection, OpenFlags};

use crate::lists::REFUSED;
use crate::process::{Program, free_address};
use crate::upstream::{nginx_command, nginx_version, temporary_paths};

/// How long the log may take to hold every row.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Where Debian puts the module that reads city databases.
const GEOIP2_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_geoip2_module.so";

/// The folder with the programs that were built beside this one.
///
/// # Errors
/// When the operating system does not tell where this program is.
pub fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(own.parent().context("this program has no folder")?.to_owned())
}

fn program(programs: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = programs.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing; build it in the same profile: cargo build --release -p portcullis -p portcullis-benches",
            path.display()
        );
    }
    Ok(path)
}

/// A contestant that serves.
pub struct Contestant {
    pub address: SocketAddr,
    pub program: Program,
}

impl Contestant {
    fn start(name: &str, command: Command, address: SocketAddr, dir: &Path) -> anyhow::Result<Self> {
        let mut program = Program::start(name, command, dir)?;
        program.wait_until_it_answers(address)?;
        Ok(Self { address, program })
    }
}

/// A Pingora proxy without hooks.
///
/// # Errors
/// When it is not built or does not start.
pub fn bare_proxy(programs: &Path, upstream: SocketAddr, dir: &Path) -> anyhow::Result<Contestant> {
    let address = free_address()?;
    let mut command = Command::new(program(programs, "bare_proxy")?);
    command.arg("--listen").arg(address.to_string()).arg("--upstream").arg(upstream.to_string());
    Contestant::start("bare_proxy", command, address, dir)
}

/// What a gateway is started with, besides everything on.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub name: &'a str,
    /// Blocked in the state database before the start.
    pub blocks: &'a [IpNet],
    pub geo: Option<&'a Path>,
}

/// The gateway, and its data.
pub struct Gateway {
    pub contestant: Contestant,
    /// Rows of the requests that found out whether it serves.
    rows_before: u64,
    data: PathBuf,
}

/// Everything on: the log, city look-ups if there is a database, blocks, a limit that every request is
/// counted against and none exceeds, metrics, the detector.
///
/// # Errors
/// When it is not built or does not start.
pub fn gateway(
    programs: &Path,
    upstream: SocketAddr,
    dir: &Path,
    setup: Setup<'_>,
) -> anyhow::Result<Gateway> {
    let (address, metrics) = (free_address()?, free_address()?);
    let databases = setup.geo.map(|file| format!("{:?}", file.display().to_string())).unwrap_or_default();
    let config = format!(
        r#"mode = "enforce"

[[upstream]]
name = "app"
servers = ["http://{upstream}"]

[server]
listen = ["{address}"]
threads = 1
trusted_proxies = ["127.0.0.1"]

[[limit]]
name = "every-request"
rate = "10000000/1m"

[geo]
databases = [{databases}]

[detection]
enabled = true

[console]
listen = "off"

[metrics]
listen = "{metrics}"
"#
    );
    configured_gateway(programs, dir, setup.name, &config, address, setup.blocks)
}

/// A gateway with a configuration of its own, which listens at `address`.
///
/// # Errors
/// When it is not built or does not start.
pub fn configured_gateway(
    programs: &Path,
    dir: &Path,
    name: &str,
    config: &str,
    address: SocketAddr,
    blocks: &[IpNet],
) -> anyhow::Result<Gateway> {
    let dir = dir.join(name);
    let data = dir.join("data");
    fs::create_dir_all(&data)?;
    fill(&data, blocks)?;
    let file = dir.join("portcullis.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(program(programs, "portcullis")?);
    command.arg("run").arg("--config").arg(&file).arg("--data").arg(&data);
    let contestant = Contestant::start(name, command, address, &dir)?;
    let mut gateway = Gateway { contestant, rows_before: 0, data };
    gateway.rows_before = gateway.settle(1)?;
    Ok(gateway)
}

fn fill(data: &Path, networks: &[IpNet]) -> anyhow::Result<()> {
    let created_at = UnixMs::from_system(SystemTime::now());
    let block = |network: IpNet| NewBlock {
        network,
        reason: "benchmark".to_owned(),
        source: BlockSource::Cli,
        created_at,
        expires_at: None,
        finding_id: None,
    };
    let refused = network_of(REFUSED).map_err(anyhow::Error::msg)?;
    let all = networks.iter().copied().chain([refused]).map(block);
    State::open(data)?.add_blocks(all, "benchmark")?;
    Ok(())
}

impl Gateway {
    /// Waits until the log has at least `rows` and has stopped growing; returns how many it has.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn settle(&self, rows: u64) -> anyhow::Result<u64> {
        let deadline = Instant::now() + SETTLE_TIME;
        let mut last = None;
        loop {
            let now = count(&self.data)?;
            if (now >= rows && last == Some(now)) || Instant::now() > deadline {
                return Ok(now);
            }
            last = Some(now);
            // More than the longest flush interval, so that standing still means "done".
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Rows of the log by what `key`, an SQL expression over the view `request_log`, makes of them; only those
    /// for which `condition` holds.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn rows_by(&self, key: &str, condition: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let connection = open_log(&self.data)?;
        let sql = format!(
            "SELECT CAST({key} AS TEXT), count(*) FROM request_log WHERE {condition} GROUP BY 1 ORDER BY 2 DESC"
        );
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Ends it in order, and says what is left of it.
    ///
    /// # Errors
    /// When it does not end in order or its log cannot be read.
    pub fn finish(self) -> anyhow::Result<Finished> {
        let printed = self.contestant.program.printed();
        let status = self.contestant.program.stop()?;
        if !status.success() {
            bail!("the gateway ended with {status}:\n{printed}");
        }
        let mut log_bytes = 0;
        for entry in fs::read_dir(&self.data)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("log.db") {
                log_bytes += entry.metadata()?.len();
            }
        }
        let located = query(&self.data, "SELECT count(nullif(country, '')) FROM request_log")?;
        Ok(Finished { rows: count(&self.data)?, located, rows_before: self.rows_before, log_bytes })
    }
}

/// What a gateway leaves.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    pub rows: u64,
    /// Rows whose country is known.
    pub located: u64,
    rows_before: u64,
    pub log_bytes: u64,
}

impl Finished {
    /// The rows of the loads.
    pub fn new_rows(self) -> u64 {
        self.rows - self.rows_before
    }
}

fn count(data: &Path) -> anyhow::Result<u64> {
    query(data, "SELECT count(*) FROM request_log")
}

/// By plain SQL, as any SQLite client would.
fn query(data: &Path, sql: &str) -> anyhow::Result<u64> {
    let rows: i64 = open_log(data)?.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(rows)?)
}

fn open_log(data: &Path) -> anyhow::Result<Connection> {
    let path = data.join("log.db");
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("cannot open {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// nginx with an access log in JSON, the same blocks, a limit, and city look-ups if it has the module.
pub struct Nginx {
    pub contestant: Contestant,
    pub has_geo: bool,
    access_log: PathBuf,
}

/// nginx doing the gateway's job; `None` where there is no nginx.
///
/// # Errors
/// When it does not start.
pub fn nginx(
    upstream: SocketAddr,
    dir: &Path,
    blocks: &[IpNet],
    geo: Option<&Path>,
) -> anyhow::Result<Option<Nginx>> {
    if nginx_version().is_none() {
        return Ok(None);
    }
    let dir = dir.join("nginx_full");
    fs::create_dir_all(&dir)?;
    let lines: String = blocks.iter().map(|network| format!("{network} 1;\n")).collect();
    fs::write(dir.join("blocked.conf"), format!("{REFUSED} 1;\n{lines}"))?;
    let geo = geo.filter(|_| Path::new(GEOIP2_MODULE).is_file());
    let address = free_address()?;
    fs::write(dir.join("nginx.conf"), nginx_config(address, upstream, geo))?;
    let contestant = Contestant::start("nginx_full", nginx_command(&dir), address, &dir)?;
    Ok(Some(Nginx { contestant, has_geo: geo.is_some(), access_log: dir.join("access.log") }))
}

impl Nginx {
    /// Bytes of its access log.
    ///
    /// # Errors
    /// When there is none.
    pub fn log_bytes(&self) -> anyhow::Result<u64> {
        Ok(fs::metadata(&self.access_log)?.len())
    }
}

fn nginx_config(address: SocketAddr, upstream: SocketAddr, geo: Option<&Path>) -> String {
    let (load_module, look_up, location) = match geo {
        Some(file) => (
            format!("load_module {GEOIP2_MODULE};\n"),
            format!(
                "geoip2 {:?} {{ $country country_code; $city city; $region state1; $lat latitude; $lon longitude; }}",
                file.display().to_string()
            ),
            r#","country":"$country","city":"$city","region":"$region","lat":"$lat","lon":"$lon""#,
        ),
        None => (String::new(), String::new(), ""),
    };
    format!(
        r#"{load_module}worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  {temporary}
  set_real_ip_from 127.0.0.1;
  real_ip_header X-Forwarded-For;
  geo $is_blocked {{ default 0; include blocked.conf; }}
  {look_up}
  limit_req_zone $binary_remote_addr zone=every_request:64m rate=1000000r/s;
  log_format everything escape=json '{{"time":$msec,"client":"$remote_addr","method":"$request_method",'
    '"host":"$host","uri":"$request_uri","status":$status,"bytes":$body_bytes_sent,'
    '"agent":"$http_user_agent","referer":"$http_referer","seconds":$request_time{location}}}';
  access_log access.log everything buffer=64k flush=1s;
  upstream app {{ server {upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen {address} backlog=4096;
    location / {{
      if ($is_blocked) {{ return 403; }}
      limit_req zone=every_request burst=1000000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_pass http://app;
    }}
  }}
}}
"#,
        temporary = temporary_paths(),
    )
}
