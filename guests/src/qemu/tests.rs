//! Golden command lines, the monitor against a scripted peer, and real guests.

mod command_line;
mod guest;
mod monitor;

use super::{Version, VersionError, parse_version, version};

#[test]
fn versions_are_read_from_what_qemu_prints() {
    let version = |major, minor, micro| Some(Version { major, minor, micro });
    for (text, expected) in [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright", version(7, 2, 22)),
        ("QEMU emulator version 10.0.2\n", version(10, 0, 2)),
        ("QEMU emulator version 6.2\n", version(6, 2, 0)),
        ("QEMU emulator version \n", None),
        ("QEMU emulator version 7\n", None),
        ("bash, version 5.2", None),
        ("", None),
    ] {
        assert_eq!(parse_version(text), expected, "{text:?}");
    }
}

#[test]
fn a_missing_program_is_reported_with_the_way_to_get_it() {
    let error = version("/nonexistent/qemu".as_ref()).expect_err("there is none");
    assert!(matches!(error, VersionError::Missing { .. }));
    assert!(error.to_string().contains("apt-get install qemu-system-x86"), "{error}");
}

#[test]
fn a_program_that_is_no_qemu_is_reported() {
    let error = version("/bin/echo".as_ref()).expect_err("echo is no QEMU");
    assert!(matches!(error, VersionError::Unknown { .. }), "{error}");
}
