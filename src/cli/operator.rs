//! Who runs a command, for the record.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::worker::supervise::host;

/// The user and the machine, such as `root (uid 0, sudo by alice) on db1`.
///
/// The user is that of the process, which the environment cannot forge. Who called `sudo` is what the environment says: the
/// uid is there to tell how far that can be believed.
pub(super) fn operator() -> String {
    let uid = fs::metadata("/proc/self").map(|process| process.uid());
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = uid.as_ref().ok().and_then(|uid| name_of(*uid, &passwd));
    let mut operator = name.unwrap_or("unknown").to_owned();
    let _ = match &uid {
        Ok(uid) => write!(operator, " (uid {uid}"),
        Err(_) => write!(operator, " (uid unknown"),
    };
    if let Ok(caller) = std::env::var("SUDO_USER") {
        let _ = write!(operator, ", sudo by {}", caller.escape_debug());
    }
    let _ = write!(operator, ") on {}", host());
    operator
}

/// The name of a user in the format of `/etc/passwd`; users of a directory service are not in there.
fn name_of(uid: u32, passwd: &str) -> Option<&str> {
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
    });
    users.into_iter().find(|(_, id)| *id == uid).map(|(name, _)| name)
}
