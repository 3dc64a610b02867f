//! policyd, as the plugin knows it.

use std::path::Path;
use std::time::Duration;

use attachment::{Answer, Request};
use cni::ErrorObject;

/// Why something is not done.
#[derive(Debug)]
pub(super) enum Silence {
    /// Nobody is there.
    Away(String),
    /// policyd is there, and not done: in time, or by now.
    NotYet(String),
    /// policyd will not do it.
    Refused(String),
}

/// Asks policyd for something, and waits until it is done.
pub(super) fn ask(request: &Request, wait: Duration) -> Result<(), Silence> {
    let text = |error| ErrorObject::from_error(0, &error).msg;
    match attachment::ask(Path::new(attachment::SOCKET), request, wait) {
        Ok(Answer::Done {}) => Ok(()),
        Ok(Answer::NotYet { problem }) => Err(Silence::NotYet(problem)),
        Ok(Answer::Refused { problem }) => Err(Silence::Refused(problem)),
        Err(error @ attachment::Error::Away { .. }) => Err(Silence::Away(text(error))),
        Err(error) => Err(Silence::NotYet(text(error))),
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Away(text) | Self::NotYet(text) | Self::Refused(text)) = self;
        formatter.write_str(text)
    }
}
