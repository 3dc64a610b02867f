//! Reading a plugin's configuration, by a function that reads its keys.

use cni::decode::{Fields, Problems};
use cni::{Call, NetConf};

use crate::error::{Error, warn_of};

/// What `read` makes of the call's configuration, of which nothing may be wrong.
pub(crate) fn strictly<T>(call: &Call, read: impl FnOnce(&Fields<'_>) -> T) -> Result<T, Error> {
    let problems = Problems::default();
    let fields = Fields::root(&call.conf.raw, &problems);
    NetConf::read_common(&fields);
    let conf = read(&fields);
    problems.into_result()?;
    Ok(conf)
}

/// What `read` makes of what can be read: for DEL and GC, which remove what they can.
pub(crate) fn leniently<T>(call: &Call, read: impl FnOnce(&Fields<'_>) -> T) -> T {
    let problems = Problems::default();
    let conf = read(&Fields::root(&call.conf.raw, &problems));
    warn_of(problems);
    conf
}
