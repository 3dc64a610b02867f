//! STATUS.

use std::path::Path;

use attachment::Request;
use cni::{Call, ErrorObject};

use super::agent;
use super::conf::Conf;
use super::gate;
use crate::error::Error;

/// Whether an ADD could succeed: while policyd answers, and for some time after it was last seen,
/// when the kernel still has its gate. The runtime takes the node out of service at the first error.
pub(super) fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    let why = match agent::ask(&Request::Status {}, conf.timeout) {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    let not_available = |text: String| Err(Error::NotAvailable(format!("{text}: {why}")));
    if !gate::stands()? {
        return not_available("the kernel has no gate of policyd's".into());
    }
    match attachment::last_alive(Path::new(attachment::ALIVE)) {
        Ok(Some(away)) if away >= conf.agent_down_timeout => {
            not_available(format!("policyd was last seen {} s ago", away.as_secs()))
        }
        Ok(_) => Ok(()),
        Err(error) => not_available(ErrorObject::from_error(0, &error).msg),
    }
}
