//! Parameters of a whole network namespace. The same are files below `/proc/sys/net`, but the names
//! there share one hash chain of all namespaces: with hundreds of them looking one up takes 0.1 ms.

use crate::answer::Answer;
use crate::attributes::{find, number};
use crate::request::Message;
use crate::{Error, Request, Socket};

/// `netconfmsg`: a family, padded.
const HEADER: usize = 4;
const NETCONFA_FORWARDING: u16 = 2;

impl Socket {
    /// Whether the namespace forwards packets of a family; `None` when the kernel does not tell.
    ///
    /// # Errors
    /// [`Error`].
    pub fn forwards(&mut self, is_ipv4: bool) -> Result<Option<bool>, Error> {
        let what = format!("ask whether IPv{} is forwarded", if is_ipv4 { 4 } else { 6 });
        let request = Request::new(what, Message::GetForwarding { is_ipv4 }, 0);
        let answers = self.execute_and_get(&[request])?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            Answer::Forwarding(forwards) => Some(forwards),
            _ => None,
        }))
    }
}

/// Reads whether packets are forwarded.
pub(crate) fn read(body: &[u8]) -> Option<bool> {
    let value = find(body.get(HEADER..)?, NETCONFA_FORWARDING)?;
    Some(number(value)? != 0)
}
