//! The control groups of this process: its own and all above it, as far as they are mounted where it can see them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use crate::kernel_files;

/// The two interfaces of control groups, which a machine may mount side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy a controller.
    V1,
    /// One hierarchy for all controllers.
    V2,
}

/// A hierarchy that is mounted here.
struct Mount {
    version: Version,
    /// The group that is seen at the mount point, named as `/proc/self/cgroup` names groups.
    group: PathBuf,
    point: PathBuf,
}

/// A control group that holds this process, directly or through a child group.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Which files to look for in it.
    pub version: Version,
    /// Its directory, as an absolute path of this process.
    pub directory: PathBuf,
}

/// As `groups`, of this process.
pub fn of_this_process(controller: &[u8]) -> Vec<Group> {
    groups(Path::new("/"), controller)
}

/// The groups whose limits of this controller (`cpu`, say) hold for this process, each hierarchy from the innermost
/// group up to its mount point; `root` is where `proc` is found.
///
/// A directory may be missing (a container sees groups by names that are not mounted in it). A mount that does not
/// show this process's group (another container's, bind-mounted) is left out: nothing says that its limits are ours.
pub(crate) fn groups(root: &Path, controller: &[u8]) -> Vec<Group> {
    let read = |file: &str| kernel_files::read(root.join(file)).unwrap_or_default();
    let (memberships, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mounts: Vec<Mount> = lines(&mounts)
        .filter_map(|line| mount(line, controller))
        .collect();
    let mut groups = Vec::new();
    for (version, group) in lines(&memberships).filter_map(|line| membership(line, controller)) {
        for mount in mounts.iter().filter(|mount| mount.version == version) {
            let Ok(below) = group.strip_prefix(&mount.group) else {
                continue;
            };
            if below
                .components()
                .any(|part| !matches!(part, Component::Normal(_)))
            {
                continue; // "/../x": a group outside this cgroup namespace
            }
            groups.extend(below.ancestors().map(|level| Group {
                version,
                directory: mount.point.join(level),
            }));
        }
    }
    groups
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n')
}

/// One line of `/proc/self/cgroup`, `id:controllers:group`, if that hierarchy can have the controller.
fn membership(line: &[u8], controller: &[u8]) -> Option<(Version, PathBuf)> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (id, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let version = if id == b"0" && controllers.is_empty() {
        Version::V2
    } else if lists(controllers, controller) {
        Version::V1
    } else {
        return None;
    };
    Some((version, PathBuf::from(OsString::from_vec(group.to_vec()))))
}

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) if it is a hierarchy that can have the
/// controller.
fn mount(line: &[u8], controller: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (group, point) = (fields.nth(3)?, fields.next()?);
    // Any number of optional fields, closed by a single dash; then type, source, options of the file system.
    let mut system = fields.skip_while(|field| *field != b"-").skip(1);
    let version = match system.next()? {
        b"cgroup2" => Version::V2,
        b"cgroup" if lists(system.nth(1)?, controller) => Version::V1,
        _ => return None,
    };
    Some(Mount {
        version,
        group: unescape(group),
        point: unescape(point),
    })
}

fn lists(comma_separated: &[u8], wanted: &[u8]) -> bool {
    comma_separated
        .split(|&byte| byte == b',')
        .any(|name| name == wanted)
}

/// Undoes the kernel's escapes of blanks and backslashes in mount tables: a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let (plain, after) = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if byte == b'\\' => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            _ => (byte, tail),
        };
        bytes.push(plain);
        rest = after;
    }
    PathBuf::from(OsString::from_vec(bytes))
}
