//! Text that is no YAML, files that cannot be read, files that include each other.

use std::path::Path;

use tapestry_topologies::load;

use crate::{assert_one, lines, rendered, summary, wrong};

#[test]
fn yaml_itself() {
    insta::assert_snapshot!(rendered(&wrong("nodes:\n  a: {kind: host\nlinks: []\n")));
    assert_one("name: a\n---\nname: b\n", "2 \"---\": the file holds more than one YAML document");
    insta::assert_snapshot!(rendered(&wrong("types: {t: &t {kind: host}}\nnodes: {a: *t}\n")));
    assert_one(
        "nodes: {a: {os: !!str x}}\n",
        "1 \"x\": YAML tags (`!name`) are not part of the format",
    );
    let bomb = format!(
        "a: &a [x, x]\n{}nodes: {{a: {{}}}}\n",
        lines(1..30, |n| format!("b{n}: &b{n} [*a, *a]"))
    );
    assert!(wrong(&bomb).problems().len() > 30);
}

#[test]
fn deep_nesting_is_refused_quickly() {
    for depth in [20, 200, 20_000] {
        for text in [
            "[".repeat(depth),
            "{a: ".repeat(depth),
            format!("nodes: {}{}", "[".repeat(depth), "]".repeat(depth)),
            lines(0..depth.min(2000), |level| format!("{}a:", " ".repeat(level))),
            "- ".repeat(depth),
            "? ".repeat(depth),
        ] {
            wrong(&text);
        }
    }
}

#[test]
fn empty_files() {
    for text in ["", "\n", "# nothing\n", "---\n", "~\n"] {
        assert_eq!(summary(&wrong(text)).len(), 1, "{text:?}");
    }
    insta::assert_snapshot!(rendered(&wrong("# nothing\n")));
    assert_one("name: x\n", "1 \"name: x\": the topology has no nodes");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let message = |path: &Path| summary(&load(path, &[]).unwrap_err()).join("\n");
    assert!(message(&at("none.yaml")).contains("No such file"), "{}", message(&at("none.yaml")));
    assert!(message(folder.path()).contains("is a directory"), "{}", message(folder.path()));

    std::fs::write(at("latin1.yaml"), b"name: caf\xe9\nnodes: {a: {}}\n").unwrap();
    let text = message(&at("latin1.yaml"));
    assert!(
        text.starts_with("1 ") && text.contains("not UTF-8 text: its byte 9 is 0xe9"),
        "{text}"
    );

    let big = std::fs::File::create(at("big.yaml")).unwrap();
    big.set_len(9 << 20).unwrap();
    assert!(message(&at("big.yaml")).contains("larger than 8 MiB"));

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(at("closed.yaml"), "nodes: {a: {}}\n").unwrap();
        std::fs::set_permissions(at("closed.yaml"), std::fs::Permissions::from_mode(0o000))
            .unwrap();
        if std::fs::read(at("closed.yaml")).is_ok() {
            eprintln!("skipped: this user may read every file");
        } else {
            assert!(message(&at("closed.yaml")).contains("Permission denied"));
        }
    }
}

#[test]
fn a_megabyte_of_random_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.yaml");
    // xorshift: any generator will do, as long as the test is the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes: Vec<u8> = (0..1 << 20).map(|_| (next() >> 32) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    assert!(!load(&path, &[]).unwrap_err().problems().is_empty());
    // The same as text: printable bytes and line breaks only.
    let text: String =
        bytes.iter().map(|b| if b % 40 == 0 { '\n' } else { char::from(b % 94 + 33) }).collect();
    wrong(&text);
}

#[test]
fn include_loops_name_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", "include: [b.yaml]\nnodes: {a: {}}\n");
    write("b.yaml", "include: c.yaml\n");
    write("c.yaml", "include: [a.yaml]\n");
    let error = load(&folder.path().join("a.yaml"), &[]).unwrap_err();
    let text = summary(&error).join("\n").replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        text,
        "1 \"a.yaml\": files include each other in a loop: a.yaml → b.yaml → c.yaml → a.yaml"
    );
    assert!(error.problems()[0].place.as_ref().unwrap().file.ends_with("c.yaml"));

    write("d.yaml", "include: [none.yaml, \"${x}\"]\nnodes: {a: {}}\n");
    let text = summary(&load(&folder.path().join("d.yaml"), &[]).unwrap_err()).join("\n");
    assert!(
        text.contains("cannot read")
            && text.contains("No such file")
            && text.contains("cannot hold expressions"),
        "{text}"
    );

    write("e.yaml", "include: f.yaml\nnodes: {a: {}}\n");
    write("f.yaml", "nodes: {a: {}}\n");
    let error = load(&folder.path().join("e.yaml"), &[]).unwrap_err();
    assert_eq!(summary(&error), ["2 \"a\": the node `a` is declared twice"]);
}
