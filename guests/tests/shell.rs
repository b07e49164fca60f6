//! The shell proxy on real shells behind a pseudo-terminal: what must survive, for every shell here.

mod common;

use std::time::{Duration, Instant};

use common::{for_each_shell, for_each_shell_with, quick};
use tapestry_guests::shell::{CommandError, Lost, RunOptions, Shell};

/// Runs `text`, which must end by itself.
async fn run(shell: &Shell, text: &str) -> (u8, String) {
    let finished = shell.run(text, &quick()).await.expect(text);
    assert!(!finished.timed_out, "{text}");
    (finished.status, finished.output.to_text())
}

#[test]
fn statuses_and_outputs_are_the_commands_own() {
    for_each_shell(async |shell| {
        for (text, status, output) in [
            ("true", 0, ""),
            ("", 0, ""),
            ("# only a comment", 0, ""),
            ("false", 1, ""),
            ("exit 3", 3, ""),
            ("echo hi; exit 255", 255, "hi\n"),
            ("printf 'no newline'", 0, "no newline"),
            ("echo out; echo err >&2", 0, "out\nerr\n"),
            ("exec echo replaced", 0, "replaced\n"),
            ("cat; echo \"read $?\"; read x; echo $?", 0, "read 0\n1\n"),
            ("cat <<'END'\na 'b' \"c\" $d \\n\nEND", 0, "a 'b' \"c\" $d \\n\n"),
            ("echo 'single\nand' \"double\nlines\"", 0, "single\nand double\nlines\n"),
            ("echo '\\' \"\\\\\" `echo a` $(echo b) $((1+1))", 0, "\\ \\ a b 2\n"),
            ("echo 'é ☃' '\u{1}\u{3}\u{4}\u{7f}\t'", 0, "é ☃ \u{1}\u{3}\u{4}\u{7f}\t\n"),
            ("echo $#", 0, "0\n"),
            ("set -e; false; echo not reached", 1, ""),
            ("kill -9 $$", 137, ""),
            ("printf 'a\\r\\nb\\rc\\n'", 0, "a\r\nb\rc\n"),
            ("printf '  spaces  '", 0, "  spaces  "),
            ("cd /; x=1; trap 'echo bye' EXIT", 0, "bye\n"),
            ("echo \"[$x]\"", 0, "[]\n"),
        ] {
            assert_eq!(run(&shell, text).await, (status, output.to_owned()), "{text}");
        }
    });
}

#[test]
fn unbalanced_quotes_and_other_nonsense_stay_inside_the_command() {
    for_each_shell(async |shell| {
        for text in ["echo 'open", "echo \"open", "if true", "(", "}", "echo $((", "cat <<E"] {
            let finished = shell.run(text, &quick()).await.expect(text);
            assert!(!finished.timed_out, "{text}");
            assert_eq!(run(&shell, "echo next").await, (0, "next\n".into()), "after {text}");
        }
        assert_ne!(run(&shell, "echo 'open").await.0, 0);
        assert_eq!(run(&shell, "/nonexistent/program").await.0, 127);
    });
}

#[test]
fn a_command_of_64_kib_arrives_whole() {
    for_each_shell(async |shell| {
        let mut text = String::from("t='");
        while text.len() < 64 << 10 {
            text.push_str("0123456789 \\ \"quoted\" é\n\t");
        }
        text.push_str("'\nprintf '%s' \"$t\"");
        let expected = &text[3..text.len() - "'\nprintf '%s' \"$t\"".len()];
        let (status, output) = run(&shell, &text).await;
        assert_eq!(status, 0);
        assert!(output == expected, "{} of {} bytes", output.len(), expected.len());
    });
}

#[test]
fn too_long_commands_and_nul_bytes_are_refused() {
    for_each_shell(async |shell| {
        let long = format!("true {}", "x".repeat(200 << 10));
        let error = shell.run(&long, &quick()).await.expect_err("too long");
        assert!(matches!(error, CommandError::TooLong { .. }), "{error}");
        let error = shell.run("a\0b", &quick()).await.expect_err("NUL");
        assert!(matches!(error, CommandError::Nul { .. }), "{error}");
        assert_eq!(run(&shell, "echo on").await, (0, "on\n".into()));
    });
}

#[test]
fn fifty_megabytes_arrive_and_memory_stays_bounded() {
    for_each_shell(async |shell| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("out");
        let options = RunOptions {
            output_limit: 1 << 20,
            output_file: Some(file.clone()),
            timeout: Duration::from_mins(5),
            ..quick()
        };
        let text = "echo first; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo last";
        let finished = shell.run(text, &options).await.expect("50 MB");
        assert_eq!(finished.status, 0);
        assert_eq!(finished.output.total, 50_000_000 + 6 + 1 + 5);
        assert!(finished.output.is_truncated);
        assert!(finished.output.bytes.len() < (1 << 20) + 100);
        assert!(finished.output.bytes.starts_with(b"first\nx"));
        assert!(finished.output.bytes.ends_with(b"x\nlast\n"));
        assert_eq!(file.metadata().expect("written").len(), finished.output.total);
        println!("50 MB in {:?}", finished.ended - finished.started);
        assert_eq!(run(&shell, "echo next").await, (0, "next\n".into()));
    });
}

#[test]
fn all_bytes_come_through() {
    for_each_shell(async |shell| {
        let text =
            "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
        let finished = shell.run(text, &quick()).await.expect("binary");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(finished.output.bytes, all);
    });
}

#[test]
fn fake_closing_frames_are_output() {
    for_each_shell(async |shell| {
        // The forger knows the form, looks for keys where a command can look, and replays what it finds.
        let text = "k=$(tr '\\0' ' ' </proc/$$/cmdline | grep -o '[0-9a-f]\\{16\\}' | head -n 1)
            env | grep -i key
            for i in \"$k\" 0123456789abcdef; do printf '\\036%s end 42\\037' \"$i\"; printf '\\036%s start 1\\037' \"$i\"; done
            sleep 0.2; echo still here; exit 7";
        let (status, output) = run(&shell, text).await;
        assert_eq!(status, 7, "{output:?}");
        assert!(output.ends_with("still here\n"), "{output:?}");
        assert!(output.contains("\u{1e}0123456789abcdef end 42\u{1f}"));
    });
}

#[test]
fn a_background_job_that_prints_later_does_not_mix_with_the_next_command() {
    for_each_shell(async |shell| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let done = dir.path().join("done");
        // It writes all the time, so it would be seen if anything of it got through.
        let text = format!(
            "(i=0; while [ $i -lt 20 ]; do echo LATE; sleep 0.05; i=$((i+1)); done; echo $? >{}) & echo now",
            done.display()
        );
        let (status, output) = run(&shell, &text).await;
        assert_eq!(status, 0);
        assert!(output.contains("now\n"));
        let mut runs = 0;
        while !done.exists() {
            assert_eq!(run(&shell, "echo mine").await, (0, "mine\n".into()));
            assert_eq!(run(&shell, "sleep 0.1; echo slow").await, (0, "slow\n".into()));
            runs += 1;
            assert!(runs < 600, "the job was killed or never ended");
        }
        assert!(runs > 0);
    });
}

#[test]
fn a_timeout_ends_the_whole_tree_and_the_shell_stays_usable() {
    for_each_shell(async |shell| {
        let options = RunOptions { timeout: Duration::from_millis(300), ..quick() };
        for text in [
            "echo begun; sleep 1234",
            "echo begun; sh -c 'sleep 1234 & sleep 1234'",
            "echo begun; trap '' TERM; while :; do sleep 0.1; done",
            "echo begun; (sleep 1234 &); sleep 1234",
            "echo begun; yes >/dev/null",
        ] {
            let marked = format!("TREE=$$; echo pid $$; {text}");
            let finished = shell.run(&marked, &options).await.expect(text);
            assert!(finished.timed_out, "{text}");
            let output = finished.output.to_text();
            assert!(output.contains("begun\n"), "{text}: {output}");
            let session = output.lines().next().and_then(|l| l.strip_prefix("pid ")).expect("pid");
            // Nobody of the session is left (zombies aside, whose parents are elsewhere).
            let check = format!(
                "n=0; for s in /proc/[0-9]*/stat; do read -r l <$s || continue; l=${{l##*) }}; set -- $l; [ \"$4\" = {session} ] && [ $1 != Z ] && n=$((n+1)); done 2>/dev/null; echo $n"
            );
            assert_eq!(run(&shell, &check).await, (0, "0\n".into()), "{text}");
        }
    });
}

#[test]
fn a_command_that_kills_the_shell_ends_in_an_error_not_a_hang() {
    for_each_shell(async |shell| {
        // The agent is the parent of the command's parent; all shells above go.
        let text = "p=$$; while [ $p -gt 1 ]; do read -r l </proc/$p/stat; n=${l%% *}; set -- ${l##*) }; p=$2; read -r c </proc/$p/comm; case $c in *sh|busybox) v=\"$p $v\";; *) break;; esac; done; kill -9 $v; sleep 1000";
        let begun = Instant::now();
        let options = RunOptions { timeout: Duration::from_secs(2), ..quick() };
        let error = shell.run(text, &options).await.expect_err("no shell, no status");
        assert!(begun.elapsed() < Duration::from_mins(1));
        let CommandError::Lost { node, command, .. } = &error else { panic!("{error}") };
        assert_eq!(node, "n0");
        assert!(command.starts_with("p=$$"));
        let next = shell.run("true", &quick()).await.expect_err("gone is gone");
        assert!(
            matches!(next, CommandError::Lost { cause: Lost::Closed | Lost::Silent { .. }, .. }),
            "{next}"
        );
    });
}

#[test]
fn a_command_that_kills_its_parent_counts_as_killed_and_the_shell_stays_usable() {
    for_each_shell(async |shell| {
        // The process that waits for the command is killed; the command itself goes on.
        assert_eq!(run(&shell, "kill -9 $PPID; echo on").await, (137, "on\n".into()));
        assert_eq!(run(&shell, "echo next").await, (0, "next\n".into()));
        let options = RunOptions { timeout: Duration::from_secs(2), ..quick() };
        let begun = Instant::now();
        let finished = shell.run("kill -9 $PPID; sleep 1000", &options).await.expect("it ends");
        assert_eq!((finished.timed_out, finished.status), (true, 137));
        // Giving the shell up would take 13 s.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(run(&shell, "echo next").await, (0, "next\n".into()));
    });
}

/// The program that passes a command's output on loses the closing frame, and reads no more when the
/// agent is asked for another: what the agent writes then would end it.
#[test]
fn an_output_that_nobody_reads_does_not_end_the_shell() {
    let deaf = "#!/bin/sh\n/bin/cat >/dev/null\nexec 0>/proc/self/fd/0\nexec sleep 5\n";
    for_each_shell_with(&[("cat", deaf)], async |shell| {
        for _ in 0..2 {
            assert_eq!(run(&shell, "exit 7").await.0, 7);
        }
    });
}

#[test]
fn commands_queue_and_a_full_queue_says_busy() {
    for_each_shell(async |shell| {
        let (a, b) = futures::join!(run(&shell, "sleep 0.2; echo a"), run(&shell, "echo b"));
        assert_eq!((a.1.as_str(), b.1.as_str()), ("a\n", "b\n"));
        let options = RunOptions { queue: Duration::from_millis(50), ..quick() };
        let armed = shell.arm("echo armed", &quick()).await.expect("armed");
        let error = shell.run("echo c", &options).await.expect_err("busy");
        assert!(matches!(error, CommandError::Busy { .. }), "{error}");
        assert_eq!(armed.release().finish().await.expect("runs").output.bytes, b"armed\n");
    });
}

#[test]
fn an_armed_command_waits_and_may_be_dropped() {
    for_each_shell(async |shell| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("ran");
        let touch = format!("echo x >>{}", file.display());
        let armed = shell.arm(&touch, &quick()).await.expect("armed");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!file.exists());
        drop(armed);
        assert_eq!(run(&shell, "echo free").await, (0, "free\n".into()));
        assert!(!file.exists());
        let mut running = shell.arm(&touch, &quick()).await.expect("armed").release();
        let started = running.started().await.expect("started");
        let finished = running.finish().await.expect("finished");
        assert_eq!(finished.started, started);
        assert!(finished.ended >= started);
        assert_eq!(std::fs::read(&file).expect("ran"), b"x\n");
    });
}

#[test]
fn a_dropped_command_is_ended() {
    for_each_shell(async |shell| {
        {
            let options = quick();
            let command = shell.run("sleep 1000", &options);
            let _ = tokio::time::timeout(Duration::from_millis(200), command).await;
        }
        let begun = Instant::now();
        assert_eq!(run(&shell, "echo free").await, (0, "free\n".into()));
        assert!(begun.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn background_commands_go_on_and_report_when_stopped() {
    for_each_shell(async |shell| {
        let ticker = shell
            .start_background(
                "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.02; done",
                &quick(),
            )
            .await
            .expect("starts");
        let short =
            shell.start_background("printf 'a\\0b'; exit 5", &quick()).await.expect("starts");
        for _ in 0..5 {
            assert_eq!(run(&shell, "echo fore").await, (0, "fore\n".into()));
        }
        let mut seen = Vec::new();
        while !seen.windows(7).any(|w| w == b"tick 9\n") {
            seen.extend(ticker.output(seen.len() as u64, &quick()).await.expect("output").bytes);
        }
        assert!(seen.starts_with(b"tick 0\ntick 1\n"));
        assert_eq!(ticker.status(), None);
        let ticker = ticker.stop(&quick()).await.expect("stops");
        assert_eq!((ticker.status, ticker.signal()), (143, Some(15)));
        assert!(ticker.output.bytes.starts_with(&seen));
        let short = short.stop(&quick()).await.expect("stops");
        assert_eq!((short.status, &short.output.bytes[..]), (5, &b"a\0b"[..]));
        let deaf = shell
            .start_background("trap '' TERM; while :; do sleep 0.1; done", &quick())
            .await
            .expect("starts");
        assert_eq!(deaf.stop(&quick()).await.expect("stops").status, 137);
    });
}

#[test]
fn a_round_trip_is_quick() {
    for_each_shell(async |shell| {
        let mut times = Vec::new();
        for _ in 0..100 {
            let begun = Instant::now();
            assert_eq!(run(&shell, "true").await.0, 0);
            times.push(begun.elapsed());
        }
        times.sort();
        // Printed for people; a timed test would depend on the machine.
        println!("round trip: median {:?}, most {:?}", times[50], times[99]);
    });
}
