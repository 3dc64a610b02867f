//! ADD.

use std::time::{Duration, Instant};

use attachment::{Attachment, Request};
use cni::{AddResult, Call, ErrorObject};

use super::agent::{self, Silence};
use super::conf::{Conf, OnAgentDown};
use super::{files, gate, told};
use crate::error::{Error, warn};
use crate::prev_result;

/// Even when the time is used up, one who has just come gets this long.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// Has policyd put the pod's rules in place; the result is that of the plugins before.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    let result = prev_result::required(call)?;
    // Policies are for a pod's default network.
    if call.ifname == conf.interface {
        protect(&conf, &told::attachment(call, &result)?)?;
    }
    Ok(result)
}

fn protect(conf: &Conf, attachment: &Attachment) -> Result<(), Error> {
    let started = Instant::now();
    let request = Request::Attach(attachment.clone());
    let why = match agent::ask(&request, conf.timeout) {
        Ok(()) => return Ok(()),
        Err(Silence::Refused(problem)) => return Err(Error::Conflict(problem)),
        Err(why) => why,
    };
    if conf.on_agent_down == OnAgentDown::Retry {
        return Err(Error::NoPolicy(why.to_string()));
    }
    if !gate::stands_for(&attachment.addresses)? {
        return Err(Error::NoPolicy(format!(
            "{why}; and no gate of policyd's in the kernel would keep the pod's traffic back until it is"
        )));
    }
    let is_kept_back = keep_back(attachment, &why)?;
    if let Silence::Away(_) = why {
        // It reads the files once, when it starts: has it done so just before ours was there?
        let left = conf.timeout.saturating_sub(started.elapsed()).max(LEAST_WAIT);
        match agent::ask(&request, left) {
            Ok(()) => return Ok(()),
            Err(Silence::Refused(problem)) => return Err(Error::Conflict(problem)),
            Err(_) => {}
        }
    }
    if is_kept_back {
        warn(&format!("the gate keeps the pod's traffic back until its policy is in force: {why}"));
    }
    Ok(())
}

/// Does what policyd would do first. Tells whether the pod is kept back: one that was attached before
/// stays as it is.
fn keep_back(attachment: &Attachment, why: &Silence) -> Result<bool, Error> {
    let files = files();
    // A file that is damaged is replaced.
    let held = files.get(&attachment.container_id).ok().flatten();
    match held {
        Some(held) if held == *attachment => {
            // policyd may have written it down just now and got no further: it opens when it does.
            let is_in_force =
                matches!(why, Silence::Away(_)) && gate::lets_pass(&attachment.addresses)?;
            if !is_in_force {
                close_interface(attachment, why)?;
            }
            Ok(!is_in_force)
        }
        Some(held) if held.ifname != attachment.ifname => Err(Error::Conflict(format!(
            "container {:?} is attached by {:?}, so {:?} is not on its default network (does another configuration say so?)",
            held.container_id, held.ifname, attachment.ifname
        ))),
        _ => {
            // A former owner of the address may have been let pass.
            gate::close(&attachment.addresses)?;
            close_interface(attachment, why)?;
            files.put(attachment).inspect_err(|_| {
                // No container starts behind it, and nobody else would know of it.
                let _ = attachment
                    .host_interface
                    .iter()
                    .try_for_each(|it| gate::open_interface(&it.name));
            })?;
            Ok(true)
        }
    }
}

/// The gate knows the ranges of pods: what the container sends from other addresses, its link-local
/// one among these, would pass it.
fn close_interface(attachment: &Attachment, why: &Silence) -> Result<(), Error> {
    let Some(interface) = &attachment.host_interface else { return Ok(()) };
    gate::close_interface(&interface.name).map_err(|error| {
        let problem = ErrorObject::from_error(0, &error).msg;
        Error::NoPolicy(format!(
            "{why}; and nothing would keep the pod from sending until it is: {problem}"
        ))
    })
}
