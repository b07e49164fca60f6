//! Images of one's own: what is refused, what is listed, and that what was imported boots.

mod common;

use std::fs;

use common::{Ended, Place, have_qemu, qemu_turn};
use nix::sys::signal::Signal;
use serde_json::Value;

/// `tapestry image ARGUMENTS` with a cache of the place's own.
fn image(place: &Place, arguments: &[&str]) -> Ended {
    let mut command = place.tapestry(&[&["image"], arguments].concat());
    command.env("TAPESTRY_CACHE", place.path("cache"));
    place.start(command).end()
}

/// A boot sector that writes `said` to the first serial port and halts.
fn boot_sector(said: &str) -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x16, 0x7c, // mov si, 0x7c16: the text behind this code
        0xba, 0xf8, 0x03, // mov dx, 0x3f8: the first serial port
        0xfc, // cld
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz halt
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0xf4, // halt: hlt
        0xeb, 0xfd, // jmp halt
    ];
    assert_eq!(sector.len(), 0x16);
    sector.extend(said.as_bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

#[test]
fn a_name_that_would_leave_the_cache_is_wrong_usage() {
    let place = Place::new();
    image(&place, &["build", "--name", "../x"]).expect(2).says(&["`../x`", "letters"]);
    image(&place, &["build", "--package", "No Package"]).expect(2).says(&["No Package"]);
}

#[test]
fn wrong_imports_are_refused_and_right_ones_listed() {
    let place = Place::new();
    let disk = place.file("disk.img", boot_sector("hello"));
    let disk = disk.to_string_lossy();
    image(&place, &["import", "mine", "--disk", &disk, "--os", "plan9"])
        .expect(2)
        .says(&["`plan9`", "--os", "debian", "freebsd"]);
    // No magic number, no signature: multiples of a prime.
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(7919) >> 3) as u8).collect();
    let noise = place.file("noise.img", noise);
    image(&place, &["import", "mine", "--disk", &noise.to_string_lossy()]).expect(2).says(&[
        "noise.img",
        "qcow2",
        "partition table",
    ]);
    let empty: Value =
        serde_json::from_slice(&image(&place, &["list", "--json"]).expect(0).stdout).expect("JSON");
    assert_eq!(empty, Value::Array(vec![]));

    image(&place, &["import", "mine", "--disk", &disk]).expect(0);
    let list: Value =
        serde_json::from_slice(&image(&place, &["list", "--json"]).expect(0).stdout).expect("JSON");
    assert_eq!(list[0]["name"], "mine");
    assert_eq!(list[0]["os"], "linux");
    assert_eq!(list[0]["boot"]["disk"]["format"], "raw");
}

#[test]
fn an_imported_disk_is_booted() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let place = Place::new();
    let said = "hello from the imported disk";
    let mut bytes = boot_sector(said);
    // Firmware boots no disk that is smaller than a cylinder.
    bytes.resize(1 << 20, 0);
    let disk = place.file("disk.img", bytes);
    image(&place, &["import", "mine", "--disk", &disk.to_string_lossy()]).expect(0);
    place.file("lab.yaml", "nodes: { g: { image: mine, boot_timeout: 1h } }\n");
    let mut command = place.tapestry(&["run", "lab.yaml", "--out", "out"]);
    command.env("TAPESTRY_CACHE", place.path("cache"));
    let mut run = place.start(command);
    run.wait_for(said, |run| {
        let console = fs::read(run.out.join("console/g.log")).unwrap_or_default();
        String::from_utf8_lossy(&console).contains(said).then_some(())
    });
    run.signal(Signal::SIGINT);
    run.end().expect(130);
}

#[test]
fn an_imported_kernel_boots_beside_a_disk_that_no_guest_changes() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let place = Place::new();
    // Kernel and initial RAM disk of our own image stand for a user's.
    let ours = place.call(&["image", "list", "--json"]).expect(0);
    let ours: Value = serde_json::from_slice(&ours.stdout).expect("JSON");
    let ours = ours.as_array().expect("a list").iter().find(|image| image["name"] == "debian");
    let ours = ours.expect("the default image");
    let part = |key: &str| ours["boot"][key].as_str().expect("a path").to_owned();
    let mut bytes = boot_sector("");
    bytes.extend(b"data on the second sector");
    bytes.resize(1 << 20, 0);
    let disk = place.file("data.img", &bytes);
    image(
        &place,
        &[
            "import",
            "mine",
            "--kernel",
            &part("kernel"),
            "--initrd",
            &part("initrd"),
            "--disk",
            &disk.to_string_lossy(),
            "--os",
            "tapestry",
        ],
    )
    .expect(0);
    place.file(
        "lab.yaml",
        "nodes: { \"g[0-1]\": { image: mine } }
tasks:
  - name: write
    run: { \"g[0-1]\": \"dd if=/dev/vda bs=512 skip=1 count=1 2>/dev/null | tr -d '\\\\0'; echo ${node} | dd of=/dev/vda bs=512 seek=1 conv=sync 2>/dev/null && sync\" }
  - name: read
    run: { \"g[0-1]\": \"dd if=/dev/vda bs=512 skip=1 count=1 2>/dev/null | tr -d '\\\\0'\" }
",
    );
    let mut command = place.tapestry(&["run", "lab.yaml", "--out", "out"]);
    command.env("TAPESTRY_CACHE", place.path("cache"));
    let results = place.start(command).end().expect(0).results();
    for node in ["g0", "g1"] {
        assert_eq!(results.output("write", node), "data on the second sector");
        assert_eq!(results.output("read", node), format!("{node}\n"), "its own copy has it");
    }
    let list = image(&place, &["list", "--json"]).expect(0);
    let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let kept = list[0]["boot"]["disk"]["path"].as_str().expect("a path");
    assert!(fs::read(kept).expect("the image's disk") == bytes, "a guest changed the image");
}
