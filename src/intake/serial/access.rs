//! Who may open a port, by its owner, group and mode: what `check` and `serial list` say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The user of the service, as the package makes it.
const SERVICE_USER: &str = "forebay";

/// A user and the groups it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    uid: u32,
    gids: Vec<u32>,
}

/// The users and groups of this machine, from its two text files. Others (LDAP) are not known here.
#[derive(Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

/// What a port's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub owner: String,
    pub group: String,
    /// The nine bits of rights.
    pub mode: u32,
    uid: u32,
    gid: u32,
}

impl Accounts {
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Accounts { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }

    /// Who will open the ports: whoever asks, or the service's user where root asks. `None`: nobody knows.
    pub fn service(&self) -> Option<User> {
        let uid = rustix::process::getuid().as_raw();
        let name = if uid == 0 { SERVICE_USER.to_owned() } else { name_of(&self.passwd, uid) };
        self.user(&name)
    }

    pub fn user(&self, name: &str) -> Option<User> {
        let line = self.passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (uid, primary) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let of = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse::<u32>().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(gid)
        };
        Some(User { name: name.to_owned(), uid, gids: self.group.lines().filter_map(of).chain([primary]).collect() })
    }

    /// # Errors
    /// When there is no such file, or it may not be looked at.
    pub fn rights(&self, path: &Path) -> std::io::Result<Rights> {
        let found = fs::metadata(path)?;
        let (uid, gid) = (found.uid(), found.gid());
        let (owner, group) = (name_of(&self.passwd, uid), name_of(&self.group, gid));
        Ok(Rights { owner, group, mode: found.mode() & 0o777, uid, gid })
    }
}

/// The name behind a number in either file; the number itself where nobody has it.
fn name_of(file: &str, number: u32) -> String {
    let number = number.to_string();
    let has = |line: &&str| line.split(':').nth(2) == Some(&number);
    file.lines().find(has).and_then(|line| line.split(':').next()).unwrap_or(&number).to_owned()
}

impl Rights {
    /// Whether `user` may read and write.
    pub fn allow(&self, user: &User) -> bool {
        let bits = match () {
            () if user.uid == 0 => 6,
            () if user.uid == self.uid => self.mode >> 6,
            () if user.gids.contains(&self.gid) => self.mode >> 3,
            () => self.mode,
        };
        bits & 6 == 6
    }

    /// How to mend it.
    pub fn help(&self, path: &Path, user: &User) -> String {
        if self.mode >> 3 & 6 == 6 && self.gid != 0 {
            return format!("`usermod -aG {} {}`, then restart the service", self.group, user.name);
        }
        format!(
            "a udev rule, such as SUBSYSTEM==\"tty\", KERNEL==\"{}\", GROUP=\"dialout\", MODE=\"0660\", and \
             `usermod -aG dialout {}`",
            kernel_name(path),
            user.name
        )
    }
}

/// What udev matches: the name of the device behind a link. Adapters get whatever number is free.
fn kernel_name(path: &Path) -> String {
    let device = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if ["ttyUSB", "ttyACM"].contains(&kind) { format!("{kind}[0-9]*") } else { name }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nforebay:x:990:990::/:/bin/false\nanna:x:1000:1000::/:/bin/sh\n".into(),
            group: "root:x:0:\ndialout:x:20:anna,otto\nforebay:x:990:\n".into(),
        }
    }

    #[test]
    fn the_group_decides_and_the_help_fits() {
        let rights = |uid, gid, mode| Rights {
            owner: name_of(&accounts().passwd, uid),
            group: name_of(&accounts().group, gid),
            mode,
            uid,
            gid,
        };
        let (anna, forebay) = (accounts().user("anna").unwrap(), accounts().user("forebay").unwrap());
        let usual = rights(0, 20, 0o660);
        assert_eq!((usual.owner.as_str(), usual.group.as_str()), ("root", "dialout"));
        assert!(usual.allow(&anna) && !usual.allow(&forebay));
        let path = Path::new("/dev/ttyS1");
        assert_eq!(usual.help(path, &forebay), "`usermod -aG dialout forebay`, then restart the service");
        let closed = rights(0, 0, 0o600);
        assert!(!closed.allow(&anna) && closed.help(path, &forebay).contains("KERNEL==\"ttyS1\""));
        let folder = tempfile::tempdir().unwrap();
        let (device, link) = (folder.path().join("ttyUSB3"), folder.path().join("usb-maker_model_A5-if00-port0"));
        std::fs::write(&device, "").unwrap();
        std::os::unix::fs::symlink(&device, &link).unwrap();
        let told = closed.help(&link, &forebay);
        assert!(told.contains("KERNEL==\"ttyUSB[0-9]*\""), "what udev knows, not the link: {told}");
        assert!(rights(990, 990, 0o600).allow(&forebay) && rights(0, 0, 0o666).allow(&forebay));
        assert!(!rights(0, 20, 0o640).allow(&anna), "reading alone does not open a port");
        assert!(accounts().user("nobody").is_none());
    }
}
