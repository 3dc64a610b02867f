//! podwire-policy, the last of a chain: no container runs before policyd has its rules in place, or
//! while nothing keeps its traffic back until then.

mod add;
mod agent;
mod conf;
mod del;
mod gate;
mod status;
mod told;

use std::path::Path;

use attachment::{Files, Key, Request};
use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

use crate::error::Error;
use crate::prev_result;
use agent::Silence;
use conf::Conf;
pub(crate) use conf::read as read_conf;

/// The podwire-policy plugin.
pub(crate) struct Policy;

impl Plugin for Policy {
    fn name(&self) -> &'static str {
        "podwire-policy"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(add::add(call)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::gc(call)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(status::status(call)?)
    }
}

/// The files of the node.
fn files() -> Files {
    Files::new(Path::new(attachment::FOLDER))
}

/// The attachment that a call is about.
fn key(call: &Call) -> Key {
    Key { container_id: call.container_id.clone(), ifname: call.ifname.clone() }
}

/// Whether policyd, or the file where it does not answer, knows the attachment with its addresses.
fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    let result = prev_result::required(call)?;
    if call.ifname != conf.interface {
        return Ok(());
    }
    let (key, addresses) = (key(call), told::addresses(&result, &call.ifname)?);
    let asked = Request::Check { key, addresses: addresses.clone() };
    match agent::ask(&asked, conf.timeout) {
        Ok(()) => Ok(()),
        Err(Silence::Refused(problem)) => Err(Error::Changed(problem)),
        Err(Silence::Away(_) | Silence::NotYet(_)) => match files().get(&call.container_id)? {
            Some(held) if held.ifname == call.ifname && held.addresses == addresses => Ok(()),
            _ => Err(Error::Changed(format!(
                "policyd does not answer, and no file knows container {:?} with the addresses {addresses:?}",
                call.container_id
            ))),
        },
    }
}
