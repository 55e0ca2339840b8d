//! The control socket of a gateway: where a command of the same user asks it to do something.
//!
//! Owns the socket's place, who may ask, and the form of question and answer (a line of JSON each). Must not do
//! what is asked.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_store::{ErasedFromLog, Subject};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

/// In the data folder.
const SOCKET_FILE: &str = "control.sock";
/// The kernel's bound on a socket's path, the closing NUL not counted.
const MAX_SOCKET_PATH: usize = 107;
/// A question may be this long and take this time.
const MAX_ORDER_BYTES: u64 = 16 << 10;
const ORDER_TIME: Duration = Duration::from_secs(5);
/// An asker that does not read its answers is left alone after this time.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// After an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Upgrade(UpgradeOrder),
    Erase(EraseOrder),
}

/// Whose data is to go from the log, which the gateway alone writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EraseOrder {
    pub(crate) subject: Subject,
    /// Blocks that have just been lifted: the gateway is done when it knows.
    pub(crate) lifted: Vec<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UpgradeOrder {
    /// The new program; without it, whatever is now where the running one was started from.
    pub(crate) binary: Option<PathBuf>,
    /// How long the new process may take until it is ready.
    pub(crate) timeout_ms: u64,
}

/// What is answered: any number of `Progress`, then one of the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Progress {
        text: String,
    },
    Done {
        text: String,
        pid: u32,
    },
    /// And how many sessions of a user have ended.
    Erased {
        erased: ErasedFromLog,
        sessions: usize,
    },
    Failed {
        why: String,
    },
}

/// The socket's name for the kernel. A long path is reached through its folder, which must stay open.
struct Place {
    path: PathBuf,
    _folder: Option<File>,
}

impl Place {
    fn of(data: &Path) -> io::Result<Self> {
        let path = data.join(SOCKET_FILE);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(data)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_FILE}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Makes the control socket of a data folder, for its owner alone. Whoever calls holds the folder's lock, so a
/// socket that is there already belongs to a gateway that has ended.
///
/// # Errors
/// The folder takes no sockets.
pub(crate) fn bind(data: &Path) -> io::Result<UnixListener> {
    let place = Place::of(data)?;
    match fs::remove_file(&place.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&place.path)?;
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Reaches the gateway of a data folder.
///
/// # Errors
/// `NotFound` and `ConnectionRefused`: there is none.
pub(crate) fn connect(data: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Place::of(data)?.path)
}

/// Whoever asked, and is told how it goes. One that has gone away is no reason to stop.
#[derive(Debug)]
pub(crate) struct Asker(Option<UnixStream>);

impl Asker {
    pub(crate) fn progress(&mut self, text: &str) {
        self.answer(&Answer::Progress { text: text.to_owned() });
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        let Some(stream) = &mut self.0 else { return };
        let sent = serde_json::to_vec(answer).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            stream.write_all(&line)
        });
        if sent.is_err() {
            self.0 = None;
        }
    }
}

/// Hears questions as long as it is polled, and passes those of this user and of root on.
pub(crate) async fn listen(listener: tokio::net::UnixListener, orders: mpsc::Sender<(Order, Asker)>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let orders = orders.clone();
                tokio::spawn(async move {
                    // Whoever says nothing, or nonsense, or has no right to ask, is not answered.
                    let _ = tokio::time::timeout(ORDER_TIME, hear(stream, orders)).await;
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept on the control socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn hear(mut stream: tokio::net::UnixStream, orders: mpsc::Sender<(Order, Asker)>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        tracing::warn!("user {uid} may not use the control socket");
        return Ok(());
    }
    let mut line = String::new();
    BufReader::new((&mut stream).take(MAX_ORDER_BYTES)).read_line(&mut line).await?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    let mut asker = Asker(Some(stream));
    match serde_json::from_str(&line) {
        Ok(order) => {
            if let Err(refused) = orders.try_send((order, asker)) {
                let (_, mut asker) = refused.into_inner();
                let why = "the gateway is busy with another request of this kind; try again".to_owned();
                asker.answer(&Answer::Failed { why });
            }
        }
        Err(_) => asker.answer(&Answer::Failed {
            why: "this gateway does not know that request; is it of an older version?".to_owned(),
        }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_long_name_has_a_control_socket_too() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("x".repeat(120));
        fs::create_dir(&data).unwrap();
        assert_eq!(connect(&data).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = bind(&data).unwrap();
        connect(&data).unwrap();
        let mode = fs::metadata(data.join(SOCKET_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert_eq!(connect(&data).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        bind(&data).unwrap();
    }
}
