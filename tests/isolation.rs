//! What a namespace node does to the kernel it shares with the host stays in the node, and it sees all
//! of the host's file systems.

mod common;

use std::fs;
use std::path::Path;

use common::{Place, have_root, not_tested, says};

/// Whether a node's root is the host's, which alone could change the host's settings; prints that not.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        not_tested("only root could change the host's settings");
    }
    have_root() && root
}

/// A setting of the host's, put back if a node has changed it.
struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    fn of(path: &'static str) -> Self {
        let before = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path, before }
    }

    fn now(&self) -> String {
        fs::read_to_string(self.path).expect("it was readable")
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if self.now() != self.before {
            let _ = fs::write(self.path, &self.before);
        }
    }
}

#[test]
fn a_node_sets_its_network_and_nothing_of_the_hosts() {
    if !is_root() {
        return;
    }
    // Seconds between two updates of statistics; one more does no harm.
    let harmless = Setting::of("/proc/sys/vm/stat_interval");
    let forwarding = Setting::of("/proc/sys/net/ipv4/ip_forward");
    let more = harmless.before.trim().parse::<u32>().expect("a number") + 1;
    let place = Place::new();
    let ended = place.run(&format!(
        r#"
nodes: {{ a: {{ kind: netns }}, b: {{ kind: netns }} }}
links: [{{ pair: [a, b], ipv4: 10.9.0.0/24 }}]
tasks:
  - name: own
    run:
      a: |
        set -e
        for value in 0 1; do echo $value > /proc/sys/net/ipv4/ip_forward; done
        cat /proc/sys/net/ipv4/ip_forward
        echo 1400 > /sys/class/net/eth0/mtu
        cat /sys/class/net/eth0/mtu
        echo mine > /proc/sys/kernel/hostname
        hostname 2>/dev/null || cat /proc/sys/kernel/hostname
        ip netns add inner
        ip netns exec inner sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
        echo inner
  - name: shared
    run:
      a:
        status: any
        command: |
          echo {more} > /proc/sys/vm/stat_interval && echo changed
          for file in /proc/sysrq-trigger /proc/irq/default_smp_affinity \
              /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /sys/power/state \
              /sys/kernel/mm/transparent_hugepage/enabled /sys/devices/system/cpu/cpu1/online; do
            # Opening for writing changes nothing.
            [ -e $file ] && ( : >> $file ) 2>/dev/null && echo "$file opens"
          done
          head -c 1 /proc/kcore 2>/dev/null | wc -c
          mknod /disk b 254 0 2>/dev/null && echo made a device
          grep CapBnd /proc/self/status
          grep CapEff /proc/1/status
"#
    ));
    let results = ended.expect(0).results().passed();
    assert_eq!(results.output("own", "a"), "1\n1400\nmine\ninner\n");
    let shared = results.output("shared", "a");
    assert!(!shared.contains("changed") && !shared.contains("opens"), "{shared}");
    assert!(!shared.contains("made a device"), "{shared}");
    assert!(shared.contains("\n0\n"), "the host's memory can be read:\n{shared}");
    for set in ["CapBnd:", "CapEff:"] {
        let bits = shared.split(set).nth(1).and_then(|rest| rest.split_whitespace().next());
        let bits = u64::from_str_radix(bits.expect("a set"), 16).expect("hexadecimal");
        // capabilities(7): MODULE, RAWIO, TIME, SYSLOG; then NET_ADMIN and NET_RAW.
        for number in [16, 17, 25, 34] {
            assert_eq!(bits >> number & 1, 0, "{set} has capability {number}");
        }
        for number in [12, 13] {
            assert_eq!(bits >> number & 1, 1, "{set} lacks capability {number}");
        }
    }
    assert_eq!(harmless.now(), harmless.before);
    assert_eq!(forwarding.now(), forwarding.before);
}

#[test]
fn an_attached_shell_has_no_more_rights_than_the_node() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mut run = place.begin(
        "nodes: { a: { kind: netns } }\ntasks: [{ name: wait, run: { a: sleep 1000 }, timeout: 2000s }]\n",
    );
    run.wait_for_event("task-started", "wait");
    let mut attach = place.tapestry(&["attach", "out", "a"]);
    let input = place.file("typed", "grep CapBnd /proc/self/status /proc/1/status\nexit\n");
    attach.stdin(fs::File::open(input).expect("opens"));
    let text = place.start(attach).end().expect(0).text();
    let sets: Vec<&str> =
        text.lines().filter_map(|line| line.split("CapBnd:").nth(1)).map(str::trim).collect();
    assert!(sets.len() == 2 && sets[0] == sets[1], "{text}");
}

#[test]
fn other_file_systems_of_the_host_are_seen_and_stay_as_they_are() {
    if !is_root() {
        return;
    }
    // Not below /tmp, which is the node's own.
    let markers = tempfile::tempdir_in("/var/tmp").expect("a directory");
    for name in ["writable", "read-only", "file"] {
        fs::create_dir(markers.path().join(name)).expect("made");
    }
    let place = Place::new();
    place.file(
        "lab.yaml",
        format!(
            r"
nodes: {{ a: {{ kind: netns }} }}
tasks:
  - name: look
    run:
      a: |
        cd {dir}
        cat writable/marker read-only/marker file/marker
        echo changed > writable/marker
        echo new > writable/new
        cat writable/marker
        ( echo changed > read-only/marker ) 2>/dev/null || echo refused
        echo changed > file/marker
",
            dir = markers.path().display()
        ),
    );
    // In a mount namespace of the test's own, so that nothing is mounted for anybody else.
    let script = r#"set -e; cd "$1"; shift
for name in writable read-only; do
  mount -t tmpfs marker $name
  echo $name > $name/marker
done
mount -o remount,ro read-only
echo single > single; echo under > file/marker
mount --bind single file/marker
dir=$PWD; cd "$1"; shift
"$@"
cd "$dir"; cat writable/marker file/marker; ls writable"#;
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(markers.path()).arg(place.path(""));
    command.args([env!("CARGO_BIN_EXE_tapestry"), "run", "--quiet", "lab.yaml", "--out", "out"]);
    let ended = place.start(command).end().expect(0);
    let seen = ended.results().passed();
    assert_eq!(
        seen.output("look", "a"),
        "writable\nread-only\nsingle\nchanged\nrefused\n",
        "{}",
        ended.stderr
    );
    assert_eq!(ended.text(), "writable\nsingle\nmarker\n", "the host's files were changed");
}

#[test]
fn what_the_node_unmounts_shows_nothing_of_the_hosts() {
    if !is_root() {
        return;
    }
    let markers = ["/tmp", "/run"].map(|place| {
        let marker = tempfile::Builder::new().prefix("the-hosts-").tempfile_in(place);
        marker.unwrap_or_else(|error| panic!("{place}: {error}"))
    });
    let place = Place::new();
    let ended = place.run(
        r"
nodes: { a: { kind: netns } }
tasks:
  - name: unmount
    run: { a: 'cd /; for at in /tmp /run /dev; do umount -l $at; ls -A $at | wc -l; done' }
",
    );
    let results = ended.expect(0).results().passed();
    assert_eq!(results.output("unmount", "a"), "0\n0\n0\n");
    assert!(markers.iter().all(|marker| marker.path().exists()));
}

#[test]
fn kept_links_are_links_and_special_files_are_told() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(
        r"
nodes: { a: { kind: netns, keep: [/tmp/tree, /tmp/pipe] } }
tasks:
  - name: make
    run:
      a: |
        mkdir /tmp/tree && cd /tmp/tree
        echo text > file; ln -s file link; mkfifo fifo /tmp/pipe
        truncate -s 256M sparse
",
    );
    // What was named and cannot be kept is an error; what is found on the way is told.
    let ended = ended.expect(1).says(&["/tmp/tree/fifo is a FIFO and was not kept"]);
    says(&ended.results().errors(), &["cannot keep /tmp/pipe: it is a FIFO"]);
    let kept = place.path("out/kept/a/tmp/tree");
    assert_eq!(fs::read_link(kept.join("link")).expect("a link"), Path::new("file"));
    let sparse = fs::metadata(kept.join("sparse")).expect("kept");
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&sparse) * 512;
    assert!(sparse.len() == 256 << 20 && on_disk < 1 << 20, "{on_disk} bytes on disk");
}

#[test]
fn a_command_that_kills_its_parent_is_noticed() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(
        r"
nodes: { a: { kind: netns }, b: { kind: netns } }
tasks:
  - { name: parent, run: { a: { command: 'kill -9 $PPID', status: 137 } }, timeout: 60s }
  - { name: shell, run: { b: 'echo last words; sleep 0.2; kill -9 2 3; sleep 1000' }, timeout: 60s }
",
    );
    let ended = ended.expect(1);
    let errors = ended.results().errors();
    says(&errors, &["node `b`", "kill -9 2 3", "console", "  | last words"]);
    // Frames of the shell's agent.
    for noise in [" armed", " ready /", " load", ".tapestry-"] {
        assert!(!errors.contains(noise) && !ended.stderr.contains(noise), "{errors}");
    }
    // Far from the timeouts.
    assert!(ended.took.as_secs() < 50, "{:?}", ended.took);
}
