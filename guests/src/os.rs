//! What a guest's operating system says and wants on its console until a shell answers: data.
//!
//! Purpose: [`find`] turns the word of a topology file (`os: debian`) into an [`Os`]. Adding a
//! system means adding a row to the table, not code. Patterns are regular expressions over raw
//! console bytes (terminal codes already removed).
//!
//! Assumes a Unix shell at the end of the login. Does not model: logins that ask more than a user
//! name and a password.

/// One operating system's console manners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Os {
    /// The word used in topology files.
    pub name: &'static str,
    /// A shell is waiting for a line: a prompt at the end of the output so far, or a line printed
    /// by the image. Absent: a shell reads from the first byte on (a namespace's `sh`).
    pub shell: Option<&'static str>,
    /// A user name is asked for.
    pub login: Option<&'static str>,
    /// A password is asked for.
    pub password: Option<&'static str>,
    /// Answer to [`Os::login`].
    pub user: &'static str,
    /// Answer to [`Os::password`].
    pub secret: &'static str,
    /// Shell commands, ending with `;`, run before the shell proxy takes the console over.
    pub setup: &'static str,
    /// A line that a dying kernel prints.
    ///
    /// Once a shell is there, this and [`Os::restart`] only raise suspicion: the shell proxy then
    /// asks whether its agent still answers, so output that looks alike does no harm.
    pub panic: Option<&'static str>,
    /// A line that a system prints when it starts anew.
    pub restart: Option<&'static str>,
    /// The kernel prints `[   12.345678] …` records on the same console.
    pub kernel_records: bool,
}

/// A shell prompt at the end of the output.
const PROMPT: &str = r"(?-u)[#$%>] ?$";
/// Linux or its firmware starting or going down.
const LINUX_RESTART: &str = r"(?-u)Linux version \d|SeaBIOS \(version|reboot: (Restarting|System halted|Power down)|login: ?$";
/// Only emergencies reach the console: commands own it now.
const QUIET: &str = "dmesg -n 1 2>/dev/null;";

const LINUX: Os = Os {
    name: "linux",
    shell: Some(PROMPT),
    login: Some(r"(?-u)login: ?$"),
    password: Some(r"(?-u)[Pp]assword: ?$"),
    user: "root",
    secret: "",
    setup: QUIET,
    panic: Some(r"(?-u)Kernel panic - not syncing"),
    restart: Some(LINUX_RESTART),
    kernel_records: true,
};

static TABLE: &[Os] = &[
    // The image that `tapestry image build` makes: a root shell without login.
    Os {
        name: "tapestry",
        login: None,
        password: None,
        restart: Some(
            r"(?-u)^tapestry: (ready|the shell has ended)|Linux version \d|SeaBIOS \(version|reboot: (Restarting|System halted|Power down)",
        ),
        ..LINUX
    },
    LINUX,
    Os { name: "debian", secret: "root", ..LINUX },
    Os { name: "alpine", ..LINUX },
    // OpenWrt asks to press a key before its console has a shell; the empty line of a retry does it.
    Os {
        name: "openwrt",
        shell: Some(r"(?-u)[#$%>] ?$|Please press Enter to activate this console"),
        login: None,
        password: None,
        ..LINUX
    },
    // Buildroot's default root has no password.
    Os { name: "buildroot", ..LINUX },
    Os {
        name: "freebsd",
        setup: "",
        panic: Some(r"(?-u)^panic: "),
        restart: Some(r"(?-u)Copyright \(c\) 1992-\d+ The FreeBSD Project|login: ?$"),
        kernel_records: false,
        ..LINUX
    },
];

/// A plain `sh` on a stream of its own, as a network namespace has: no login, no prompt, no kernel.
pub static PLAIN: Os = Os {
    name: "plain",
    shell: None,
    login: None,
    password: None,
    setup: "",
    panic: None,
    restart: None,
    kernel_records: false,
    ..LINUX
};

/// The system that a topology file calls `name`.
pub fn find(name: &str) -> Option<&'static Os> {
    TABLE.iter().chain(std::iter::once(&PLAIN)).find(|os| os.name == name)
}

/// All names, in table order, for messages that say what is known.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().chain(std::iter::once(&PLAIN)).map(|os| os.name)
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;

    #[test]
    fn every_row_compiles_and_is_found_by_its_name() {
        for name in names() {
            let os = find(name).expect("a listed name is found");
            assert_eq!(os.name, name);
            for pattern in
                [os.shell, os.login, os.password, os.panic, os.restart].into_iter().flatten()
            {
                Regex::new(pattern).expect(pattern);
            }
        }
        assert_eq!(find("solaris"), None);
    }

    #[test]
    fn prompts_are_prompts_only_at_the_end() {
        let prompt = Regex::new(PROMPT).expect("constant");
        assert!(prompt.is_match(b"/ # "));
        assert!(prompt.is_match(b"root@host:~$ "));
        assert!(!prompt.is_match(b"# comment\nloading"));
    }
}
