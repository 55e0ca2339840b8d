//! The socket between the two processes of an upgrade: messages, and the open files that go with the first one.
//!
//! Owns their form: four bytes of length, then JSON, so that two versions that know different fields still
//! understand each other. Must not know what follows from a message.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use portcullis_policy::Secret;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::record::Row;

/// Raised when a message changes its meaning.
pub(super) const PROTOCOL: u32 = 1;
/// Open files that can be passed in one message: the kernel's own bound is 253.
pub(super) const MAX_FILES: usize = 250;
/// One message.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// In the order in which they are said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// Old to new, with the lock, the control socket and the listening sockets as open files.
    Hello { protocol: u32, data: PathBuf, sockets: Vec<SocketAddr> },
    /// New to old: the configuration is good, everything that can be had beside the old process is there.
    Ready,
    /// Old to new, any number of times: the counts of the limits.
    Limits { secret: Secret, windows: Vec<u64> },
    /// Old to new: log and state are yours.
    Released,
    /// New to old: log and state are open; nothing is in the way of serving.
    Open,
    /// Old to new: it is your place. Only now does the new one accept, so that until then its end costs nothing.
    Accept,
    /// New to old: it will not work.
    Failed { why: String },
    /// Old to new: a request that ended after the log was released.
    Row(Box<Row>),
}

#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
}

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// The same socket, for another thread.
    pub(super) fn socket(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    pub(super) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.socket.write_all(&frame(message)?)
    }

    /// Sends a message with open files, at most [`MAX_FILES`].
    pub(super) fn send_with(&mut self, message: &Message, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = frame(message)?;
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if files.len() > MAX_FILES || !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("more than {MAX_FILES} sockets cannot be handed over"),
            ));
        }
        // The files go with the first byte that is sent.
        let sent = sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::empty())?;
        self.socket.write_all(&bytes[sent..])
    }

    pub(super) fn receive(&mut self) -> io::Result<Message> {
        Ok(self.receive_with()?.0)
    }

    /// Waits for a message, and takes the open files that come with it.
    pub(super) fn receive_with(&mut self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut length = [0; 4];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let first = &mut [IoSliceMut::new(&mut length)];
        let received = loop {
            match recvmsg(&self.socket, first, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut files = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                files.extend(passed);
            }
        }
        self.socket.read_exact(&mut length[received.bytes..])?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
        }
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes)?;
        Ok((serde_json::from_slice(&bytes)?, files))
    }
}

fn frame(message: &Message) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_socket_arrives_as_the_same_socket() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Link::new(one), Link::new(other));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hello = Message::Hello { protocol: PROTOCOL, data: "/d".into(), sockets: vec![address] };
        one.send_with(&hello, &[listener.as_fd()]).unwrap();
        one.send(&Message::Released).unwrap();
        drop((one, listener));

        let (message, mut files) = other.receive_with().unwrap();
        assert!(matches!(message, Message::Hello { .. }));
        let taken = TcpListener::from(files.pop().unwrap());
        assert_eq!((files.len(), taken.local_addr().unwrap()), (0, address));
        std::net::TcpStream::connect(address).unwrap();
        assert!(matches!(other.receive().unwrap(), Message::Released));
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
