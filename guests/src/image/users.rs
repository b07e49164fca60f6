//! System users and groups of a guest.
//!
//! Debian packages make theirs in `postinst` scripts, which do not run here. The calls those
//! scripts make (`adduser`, `addgroup`, `useradd`, `groupadd`, `sysusers.d` lines) are read
//! instead. Names that a script computes are not found.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Users and groups by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    users: BTreeMap<String, User>,
    /// Members by group.
    groups: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct User {
    home: Option<String>,
    shell: Option<String>,
    group: Option<String>,
}

/// Fixed by Debian Policy; programs rely on them.
const BASE_USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\
     daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
     nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const BASE_GROUPS: &[(&str, u32)] = &[
    ("root", 0),
    ("daemon", 1),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("mail", 8),
    ("kmem", 15),
    ("dialout", 20),
    ("sudo", 27),
    ("audio", 29),
    ("utmp", 43),
    ("video", 44),
    ("staff", 50),
    ("users", 100),
    ("nogroup", 65534),
];
const FIRST_SYSTEM_ID: u32 = 101;

impl Accounts {
    /// Reads what the package's `postinst` would make.
    pub(super) fn add_package(&mut self, deb: &Path) {
        let output = Command::new("dpkg-deb")
            .args(["--info".as_ref(), deb.as_os_str(), "postinst".as_ref()])
            .stdin(Stdio::null())
            .output();
        // A package without the script makes no users; dpkg-deb then fails.
        if let Ok(output) = output
            && output.status.success()
        {
            self.read_script(&String::from_utf8_lossy(&output.stdout));
        }
    }

    /// Reads a `sysusers.d` file.
    pub(super) fn read_sysusers(&mut self, text: &str) {
        for line in text.lines() {
            let words = words(line);
            match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["u" | "u!", name, _, rest @ ..] => {
                    let home = rest.get(1).copied().filter(|home| home.starts_with('/'));
                    let shell = rest.get(2).copied().filter(|shell| shell.starts_with('/'));
                    self.add_user(name, home, shell, None);
                }
                ["g", name, ..] => self.add_group(name),
                ["m", user, group, ..] => self.add_member(user, group),
                _ => {}
            }
        }
    }

    fn read_script(&mut self, script: &str) {
        for line in script.replace("\\\n", " ").lines() {
            let words = words(line);
            let is_call = |word: &String| {
                let name = word.rsplit('/').next().unwrap_or_default();
                matches!(name, "adduser" | "addgroup" | "useradd" | "groupadd" | "usermod")
            };
            if let Some(at) = words.iter().position(is_call) {
                let name = words[at].rsplit('/').next().unwrap_or_default();
                self.read_call(name, &words[at + 1..]);
            }
        }
    }

    fn read_call(&mut self, program: &str, words: &[String]) {
        const WITH_VALUE: &[&str] = &[
            "--home",
            "--home-dir",
            "-d",
            "--shell",
            "-s",
            "--ingroup",
            "--gid",
            "-g",
            "--groups",
            "-G",
            "--gecos",
            "--comment",
            "-c",
            "--uid",
            "-u",
            "--base-dir",
            "-b",
        ];
        let (mut values, mut names) = (BTreeMap::new(), Vec::new());
        let mut flags = Vec::new();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if matches!(word, "||" | "&&" | ";" | "|" | "then" | "fi")
                || word.starts_with(['>', '<'])
            {
                break;
            }
            let end = word.ends_with(';');
            let word = word.trim_end_matches(';');
            if let Some((option, value)) = word.split_once('=').filter(|(o, _)| o.starts_with("--"))
            {
                values.insert(option, value);
            } else if WITH_VALUE.contains(&word) {
                values.insert(word, words.next().unwrap_or_default());
            } else if word.starts_with('-') {
                flags.push(word);
            } else if !word.is_empty() && !word.starts_with("2>") {
                names.push(word);
            }
            if end {
                break;
            }
        }
        let value = |names: &[&str]| names.iter().find_map(|name| values.get(name).copied());
        match (program, names.as_slice()) {
            ("addgroup" | "groupadd", [group]) => self.add_group(group),
            ("adduser" | "addgroup", [user, group]) => self.add_member(user, group),
            ("adduser", [group]) if flags.contains(&"--group") && !flags.contains(&"--system") => {
                self.add_group(group);
            }
            ("adduser" | "useradd", [user]) => {
                let home = value(&["--home", "--home-dir", "-d"]);
                let shell = value(&["--shell", "-s"]);
                self.add_user(user, home, shell, value(&["--ingroup", "--gid", "-g"]));
            }
            ("usermod", [user]) => {
                for group in value(&["--groups", "-G"]).unwrap_or_default().split(',') {
                    self.add_member(user, group);
                }
            }
            _ => {}
        }
    }

    fn add_user(
        &mut self,
        name: &str,
        home: Option<&str>,
        shell: Option<&str>,
        group: Option<&str>,
    ) {
        if !plain(name) {
            return;
        }
        let home = home.filter(|home| home.starts_with('/') && !home.contains([':', '$']));
        let shell = shell.filter(|shell| shell.starts_with('/') && !shell.contains([':', '$']));
        let group = group.filter(|group| plain(group));
        let own = |value: Option<&str>| value.map(str::to_owned);
        self.add_group(group.unwrap_or(name));
        self.users.entry(name.into()).or_insert(User {
            home: own(home),
            shell: own(shell),
            group: own(group),
        });
    }

    fn add_group(&mut self, name: &str) {
        if plain(name) {
            self.groups.entry(name.into()).or_default();
        }
    }

    fn add_member(&mut self, user: &str, group: &str) {
        if plain(user) && plain(group) {
            let members = self.groups.entry(group.into()).or_default();
            if !members.iter().any(|member| member == user) {
                members.push(user.into());
            }
        }
    }

    /// `/etc/passwd` and `/etc/group`.
    pub(super) fn files(&self) -> (String, String) {
        let is_base = |name: &str| BASE_GROUPS.iter().any(|(base, _)| *base == name);
        let mut ids: BTreeMap<&str, u32> = BASE_GROUPS.iter().copied().collect();
        let new = self.groups.keys().map(String::as_str).filter(|name| !is_base(name));
        ids.extend(new.zip(FIRST_SYSTEM_ID..));
        let members = |name: &str| self.groups.get(name).map(|m| m.join(",")).unwrap_or_default();
        let mut by_id: Vec<_> = ids.iter().map(|(name, id)| (*id, *name)).collect();
        by_id.sort_unstable();
        let mut group_file = String::new();
        for (id, name) in by_id {
            let _ = writeln!(group_file, "{name}:x:{id}:{}", members(name));
        }

        let mut user_file = BASE_USERS.to_owned();
        let is_base =
            |name: &str| BASE_USERS.lines().any(|line| line.split(':').next() == Some(name));
        let new = self.users.iter().filter(|(name, _)| !is_base(name));
        for ((name, user), id) in new.zip(FIRST_SYSTEM_ID..) {
            let gid = ids.get(user.group.as_deref().unwrap_or(name)).copied().unwrap_or(65534);
            let home = user.home.as_deref().unwrap_or("/nonexistent");
            let shell = user.shell.as_deref().unwrap_or("/usr/sbin/nologin");
            let _ = writeln!(user_file, "{name}:x:{id}:{gid}:{name}:{home}:{shell}");
        }
        (user_file, group_file)
    }
}

/// A name as it stands, not one a script computes.
fn plain(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.len() <= 32
        && name.chars().all(good)
}

/// Words of a line as a shell would part them, comments left out; expansions stay as written.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(q)) if c == q => quote = None,
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(script: &str) -> (String, String) {
        let mut accounts = Accounts::default();
        accounts.read_script(script);
        accounts.files()
    }

    #[test]
    fn a_script_with_continued_lines_makes_its_user() {
        let (users, groups) = after(
            "if [ \"$1\" = configure ]; then\n\
             \tadduser --quiet --system --group --home /nonexistent \\\n\
             \t  --no-create-home --gecos 'The demo, user' demo >/dev/null || true\nfi\n",
        );
        assert!(users.ends_with("demo:x:101:101:demo:/nonexistent:/usr/sbin/nologin\n"), "{users}");
        assert!(groups.contains("\ndemo:x:101:\n"), "{groups}");
    }

    #[test]
    fn groups_and_memberships_are_read() {
        let (users, groups) = after(
            "addgroup --system frrvty\n\
             useradd --system -g frr --home-dir=/run/frr -s /bin/false frr;\n\
             usermod -a -G frrvty frr\n",
        );
        assert!(users.contains("frr:x:101:101:frr:/run/frr:/bin/false\n"), "{users}");
        assert!(groups.contains("frrvty:x:102:frr\n"), "{groups}");
    }

    #[test]
    fn computed_names_and_comments_are_left_alone() {
        let (users, _) = after("adduser --system \"$USER\"\n# adduser --system ghost\nadduser\n");
        assert_eq!(users, BASE_USERS);
    }

    #[test]
    fn sysusers_lines_are_read() {
        let mut accounts = Accounts::default();
        accounts
            .read_sysusers("# comment\nu tcpdump - \"Packet Sniffer\" /nonexistent -\ng extra -\n");
        let (users, groups) = accounts.files();
        assert!(users.contains("tcpdump:x:101:102:"), "{users}");
        assert!(groups.contains("extra:x:101:"), "{groups}");
    }
}
