//! Requests to the kernel over netlink, one after another: sent, answered, done. It answers while it is being asked, so
//! nothing here waits for an answer, and one that is not there is an error.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A netlink socket: it works in the network namespace it was made in, whichever its thread enters later.
pub(crate) struct Connection(Socket);

impl Connection {
    /// Of this protocol, in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Has the kernel do something. `flags` say how, beside what each request has.
    pub(crate) fn request<M>(&self, message: M, flags: u16) -> io::Result<()>
    where
        M: Into<NetlinkPayload<M>> + NetlinkSerializable + NetlinkDeserializable,
    {
        self.0.send(&bytes(message, NLM_F_ACK | flags), 0)?;
        self.answers::<M>(1, |_| {})
    }

    /// Has the kernel list something. What is in the list and cannot be understood is left out.
    pub(crate) fn list<M>(&self, message: M, each: impl FnMut(M)) -> io::Result<()>
    where
        M: Into<NetlinkPayload<M>> + NetlinkSerializable + NetlinkDeserializable,
    {
        self.0.send(&bytes(message, NLM_F_DUMP), 0)?;
        self.answers(1, each)
    }

    /// Has the kernel tell of every change in this group from now on. Nothing else is to be asked here then.
    pub(crate) fn listen(&mut self, group: u32) -> io::Result<()> {
        self.0.add_membership(group)
    }

    /// Reads what the kernel tells until `is_it` finds what it looks for; fails after `limit`.
    pub(crate) fn hear<M: NetlinkDeserializable>(
        &self,
        limit: Duration,
        mut is_it: impl FnMut(M) -> bool,
    ) -> io::Result<()> {
        let end = Instant::now() + limit;
        let mut heard = false;
        while !heard {
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], left)? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (datagram, _) = self.0.recv_from_full()?;
            each_message(&datagram, |message| {
                if let NetlinkPayload::InnerMessage(message) = message {
                    heard |= is_it(message);
                }
            });
        }
        Ok(())
    }

    /// Sends messages that belong together; `asking` of them want to be told that they were done.
    pub(crate) fn batch<M: NetlinkDeserializable>(&self, messages: &[u8], asking: usize) -> io::Result<()> {
        self.0.send(messages, 0)?;
        self.answers::<M>(asking, |_| {})
    }

    /// Reads until so many requests are done or one has failed.
    fn answers<M: NetlinkDeserializable>(&self, mut open: usize, mut each: impl FnMut(M)) -> io::Result<()> {
        while open > 0 {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut failed = None;
            each_message(&datagram, |message| match message {
                NetlinkPayload::Error(error) if error.code.is_some() => failed = Some(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => open = open.saturating_sub(1),
                NetlinkPayload::InnerMessage(message) => each(message),
                _ => {}
            });
            failed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}

fn each_message<M: NetlinkDeserializable>(datagram: &[u8], mut each: impl FnMut(NetlinkPayload<M>)) {
    let mut rest = datagram;
    while let Some(length) = length(rest) {
        match NetlinkMessage::deserialize(&rest[..length]) {
            Ok(message) => each(message.payload),
            Err(error) => tracing::debug!(%error, "a message of the kernel is not understood"),
        }
        // Messages begin at multiples of four bytes.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// A request as it is sent.
pub(crate) fn bytes<M>(message: M, flags: u16) -> Vec<u8>
where
    M: Into<NetlinkPayload<M>> + NetlinkSerializable,
{
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The length of the message that begins here, if there is one.
fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(bytes.first_chunk().copied()?);
    // The header alone has 16 bytes.
    usize::try_from(length).ok().filter(|length| (16..=bytes.len()).contains(length))
}
