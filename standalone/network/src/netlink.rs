//! Requests to the kernel over netlink, one after another: sent, answered, done. It answers while it is being asked, so
//! nothing here waits, and an answer that is not there is an error.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

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

    /// Sends messages that belong together; `asking` of them want to be told that they were done.
    pub(crate) fn batch<M: NetlinkDeserializable>(&self, messages: &[u8], asking: usize) -> io::Result<()> {
        self.0.send(messages, 0)?;
        self.answers::<M>(asking, |_| {})
    }

    /// Reads until so many requests are done or one has failed.
    fn answers<M: NetlinkDeserializable>(&self, mut open: usize, mut each: impl FnMut(M)) -> io::Result<()> {
        while open > 0 {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some(length) = length(rest) {
                let message = NetlinkMessage::<M>::deserialize(&rest[..length]);
                // Messages begin at multiples of four bytes.
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                match message.map(|message| message.payload) {
                    Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
                    Ok(NetlinkPayload::Error(_) | NetlinkPayload::Done(_)) => open = open.saturating_sub(1),
                    Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "a message of the kernel is not understood"),
                }
            }
        }
        Ok(())
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
