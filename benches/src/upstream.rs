//! The server behind every contestant: 300 bytes, kept connections, as little work as can be.
//!
//! Owns nginx where it is installed, so that figures compare with other machines; else a small one of
//! our own in a thread. Its cost is nobody's figure.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{Program, free_address};

/// Bytes of the answer's body.
const BODY: usize = 300;
const MAX_HEAD: usize = 64 << 10;

/// A running upstream; ends when it is dropped.
pub struct Upstream {
    address: SocketAddr,
    kind: Kind,
}

enum Kind {
    Nginx { _program: Program },
    BuiltIn,
}

impl Upstream {
    /// nginx, or the built-in one where there is no nginx.
    ///
    /// # Errors
    /// When neither can be started.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        match nginx_version() {
            Some(_) => Self::nginx(dir),
            None => Self::built_in(),
        }
    }

    fn nginx(dir: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let dir = dir.join("upstream");
        fs::create_dir_all(&dir)?;
        let config = format!(
            "worker_processes 1;\ndaemon off;\npid upstream.pid;\nerror_log stderr;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 100000000;\n  keepalive_timeout 600s;\n  {}\n  \
             server {{\n    listen {address} backlog=4096;\n    \
             location / {{ default_type text/html; return 200 \"{}\"; }}\n  }}\n}}\n",
            temporary_paths(),
            "X".repeat(BODY),
        );
        fs::write(dir.join("nginx.conf"), config)?;
        let mut program = Program::start("upstream", nginx_command(&dir), &dir)?;
        program.wait_until_it_answers(address)?;
        Ok(Self { address, kind: Kind::Nginx { _program: program } })
    }

    /// The built-in one, in a thread of this process.
    ///
    /// # Errors
    /// When no port or no thread is to be had.
    pub fn built_in() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("no port is free")?;
        let address = listener.local_addr()?;
        std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
            runtime.block_on(async {
                while let Ok((socket, _)) = listener.accept().await {
                    // A connection that breaks is its client's affair.
                    tokio::spawn(async { serve(socket).await.ok() });
                }
            });
        })?;
        Ok(Self { address, kind: Kind::BuiltIn })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is, for the report.
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::Nginx { .. } => nginx_version().unwrap_or_else(|| "nginx".to_owned()),
            Kind::BuiltIn => "built-in (no nginx found)".to_owned(),
        }
    }
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {BODY}\r\n\r\n{}",
        "X".repeat(BODY)
    );
    let mut buffer = Vec::with_capacity(4_096);
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if buffer.len() > MAX_HEAD || socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.clear();
        socket.write_all(answer.as_bytes()).await?;
    }
}

/// Debian's folder for it is often not on a user's PATH.
fn nginx_program() -> &'static str {
    let debian = "/usr/sbin/nginx";
    if Path::new(debian).is_file() { debian } else { "nginx" }
}

/// The text of `nginx -v`; `None` where there is no nginx.
pub fn nginx_version() -> Option<String> {
    let output = Command::new(nginx_program()).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    Some(text.trim().trim_start_matches("nginx version: ").to_owned())
}

/// Runs `DIR/nginx.conf`.
pub(crate) fn nginx_command(dir: &Path) -> Command {
    let mut command = Command::new(nginx_program());
    command.arg("-p").arg(dir).arg("-c").arg("nginx.conf").args(["-e", "stderr"]);
    command
}

/// The compiled-in folders belong to the system's own nginx.
pub(crate) fn temporary_paths() -> &'static str {
    "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; \
     scgi_temp_path scgi;"
}
