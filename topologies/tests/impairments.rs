//! What links say about impairments becomes parameters, by direction, preset and file; what is
//! wrong is refused with its place and what was expected.

use std::path::Path;

use tapestry_core::link::{Distribution, Framing, LinkParameters, Loss, Unit};
use tapestry_core::{ByteCount, Probability, SimTime};
use tapestry_topologies::{
    Channel, Diagnostics, Link, Queue, QueueLimit, Topology, load_str, schema,
};

fn net(link: &str) -> String {
    format!("nodes: {{a: {{}}, b: {{}}, c: {{}}}}\nlinks:\n  - {link}\n")
}

fn read(link: &str, dir: &Path) -> Result<Topology, Diagnostics> {
    load_str("net.yaml", &net(link), &[], dir)
}

fn right(link: &str) -> Link {
    match read(link, Path::new("")) {
        Ok(topology) => topology.links[0].clone(),
        Err(wrong) => panic!("{link}\n{:?}", miette::Report::new(wrong)),
    }
}

fn directions(link: &str) -> [LinkParameters; 2] {
    *right(link).directions.expect("more than rate and delay")
}

fn percent(text: &str) -> Probability {
    text.parse().unwrap()
}

/// The one problem: its text in the file, its message, and what was expected.
fn wrong_in(link: &str, dir: &Path) -> (String, String, String) {
    let wrong = read(link, dir).unwrap_err();
    let [problem] = wrong.problems() else { panic!("{link}\n{:?}", miette::Report::new(wrong)) };
    let text = problem.place.as_ref().expect("a place").text.clone();
    (text, problem.message.clone(), problem.expected.clone())
}

/// Refuses the link, pointing at `text`, with `message` and `expected` in what it says.
fn refuses(link: &str, text: &str, message: &str, expected: &str) {
    let found = wrong_in(&format!("{{pair: [a, b], {link}}}"), Path::new(""));
    assert_eq!(found.0, text, "{found:?}");
    assert!(found.1.contains(message) && found.2.contains(expected), "{link}: {found:?}");
}

#[test]
fn keys_apply_to_both_directions() {
    let link = right(
        "{pair: [a, b], loss: 7%, delay: 23ms, jitter: 2ms, rate: 37Mbit/s, duplicate: 1%, \
         corrupt: 2%, reorder: 3%}",
    );
    assert_eq!(link.channel, Channel::PointToPoint, "as soon as there is an impairment");
    let [forward, backward] = *link.directions.unwrap();
    assert_eq!(forward, backward);
    assert_eq!(forward.loss, Some(Loss::independent(percent("7%"))));
    assert_eq!(forward.jitter.unwrap().time, SimTime::from_millis(2));
    assert_eq!(forward.duplicate.unwrap().probability, percent("1%"));
    assert_eq!(forward.corrupt.unwrap().bits, 1);
    assert_eq!(forward.reorder.unwrap().gap, 1);
    assert_eq!((link.rate, link.delay), (forward.rate, forward.delay));
}

#[test]
fn a_plain_link_stays_plain() {
    let link = right("{pair: [a, b], rate: 1Mbit/s, delay: 2ms}");
    assert_eq!((link.channel, link.directions), (Channel::Csma, None));
    assert_eq!(right("{pair: [a, b], reordering: preserve}").directions, None);
}

#[test]
fn blocks_override_a_direction() {
    let [ab, ba] = directions(
        "{pair: [a, b], delay: 5ms, loss: 1%, 'a->b': {rate: 1Mbit/s}, 'b->a': {loss: 2%, delay: 9ms}}",
    );
    assert_eq!((ab.rate, ba.rate), ("1Mbit/s".parse().ok(), None));
    assert_eq!((ab.delay, ba.delay), (SimTime::from_millis(5), SimTime::from_millis(9)));
    assert_eq!(ba.loss, Some(Loss::independent(percent("2%"))));
    assert_eq!(ab.loss, Some(Loss::independent(percent("1%"))));
    let chain = "{chain: [a, b, c], 'c->b': {delay: 3ms}, backward: {delay: 4ms}}";
    let links = read(chain, Path::new("")).unwrap().links;
    let delays = |link: &Link| {
        link.directions
            .as_ref()
            .unwrap()
            .clone()
            .map(|direction| direction.delay.as_nanos() / 1_000_000)
    };
    assert_eq!([delays(&links[0]), delays(&links[1])], [[0, 4], [0, 3]]);
}

/// The queues of both interfaces, as limits of drop-tail.
fn limits(link: &Link) -> [QueueLimit; 2] {
    let both = || [link.queue.clone(), link.queue.clone()];
    link.queues.as_deref().cloned().unwrap_or_else(both).map(|queue| match queue {
        Queue::DropTail { limit } => limit,
        other => panic!("{other:?}"),
    })
}

#[test]
fn each_direction_has_a_queue_of_its_own() {
    use QueueLimit::{Frames, Time};
    let time = |ms| Time(SimTime::from_millis(ms));
    for (keys, expected) in [
        ("queue: 7", [Frames(7), Frames(7)]),
        ("queue: 7, forward: {queue: 9}", [Frames(9), Frames(7)]),
        ("queue: 7, 'b->a': {queue: 9}, backward: {queue: 8}", [Frames(7), Frames(9)]),
        // A time needs the rate of its own direction only.
        ("'a->b': {rate: 1Mbit/s, queue: 20ms}", [time(20), Frames(100)]),
        ("queue: 5ms, 'a->b': {rate: 1Mbit/s}, 'b->a': {rate: 2Mbit/s}", [time(5), time(5)]),
        // One bandwidth-delay product: the direction's rate times both delays, here 40 ms, in
        // frames of 1,518 bytes.
        (
            "delay: 10ms, forward: {rate: 100Mbit/s}, backward: {rate: 1Gbit/s, delay: 30ms}",
            [Frames(330), Frames(3_294)],
        ),
    ] {
        let link = right(&format!("{{pair: [a, b], {keys}}}"));
        assert_eq!(limits(&link), expected, "{keys}");
        let text = serde_json::to_string(&link).unwrap();
        assert_eq!(serde_json::from_str::<Link>(&text).unwrap(), link, "{text}");
    }
    let plain = right("{pair: [a, b], queue: codel}");
    assert_eq!((plain.channel, plain.queues), (Channel::Csma, None), "a queue impairs nothing");
    refuses("rate: 1Mbit/s, 'a->b': {queue: 0}", "0", "holds nothing", "");
    let missing = "'a->b': {rate: 1Mbit/s, queue: 20ms}, 'b->a': {queue: 30ms}";
    refuses(missing, "30ms", "without `rate`", "a `rate`");
    // What a wrong rate lacks is said once.
    refuses("rate: 1, queue: 20ms", "1", "no unit", "a rate");
}

#[test]
fn traces_and_schedules_have_a_rate_for_their_queue() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    // 3 · 1500 bytes in 3 ms are 12 Mbit/s.
    write("up.trace", "1\n2\n3\n");
    write("day.csv", "time,rate\n0s,1Mbit/s\n10s,12Mbit/s\n");
    for keys in ["trace: up.trace", "schedule: day.csv"] {
        let link = |queue: &str| {
            let text = format!("{{pair: [a, b], delay: 500ms, {keys}{queue}}}");
            read(&text, dir.path()).unwrap().links[0].clone()
        };
        // 12 Mbit in a round trip of 1 s.
        assert_eq!(limits(&link("")), [QueueLimit::Frames(989); 2], "{keys}");
        let time = QueueLimit::Time(SimTime::from_millis(20));
        assert_eq!(limits(&link(", queue: 20ms")), [time; 2], "{keys}");
        let Queue::Red(red) = link(", queue: {discipline: red, adaptive: true}").queue else {
            panic!("not RED")
        };
        // 1,500 mean frames of 1000 bytes a second.
        assert!((red.weight.as_f64() + (-1.0_f64 / 1_500.0).exp_m1()).abs() < 1e-9, "{keys}");
    }
}

#[test]
fn every_model_can_be_written() {
    let loss = |text: &str| directions(&format!("{{pair: [a, b], loss: {text}}}"))[0].loss.clone();
    assert!(matches!(
        loss("{probability: 0.001%, per: bit}"),
        Some(Loss::Random { per: Unit::Bit, .. })
    ));
    let gilbert = loss("{gilbert_elliott: {p: 1%, r: 20%, bad: 90%, good: 0.1%}}");
    let expected = Loss::GilbertElliott {
        p: percent("1%"),
        r: percent("20%"),
        bad: percent("90%"),
        good: percent("0.1%"),
    };
    assert_eq!(gilbert, Some(expected));
    // netem's defaults.
    let simple = Loss::GilbertElliott {
        p: percent("1%"),
        r: percent("99%"),
        bad: Probability::ONE,
        good: Probability::ZERO,
    };
    assert_eq!(loss("{gilbert_elliott: {p: 1%}}"), Some(simple));
    let four = Loss::FourState {
        p13: percent("1%"),
        p31: percent("99%"),
        p32: Probability::ZERO,
        p23: Probability::ONE,
        p14: Probability::ZERO,
    };
    assert_eq!(loss("{four_state: {p13: 1%}}"), Some(four));
    let burst = Loss::Burst { rate: percent("1%"), min: 1, max: 4 };
    assert_eq!(loss("{burst: {rate: 1%}}"), Some(burst));
    assert_eq!(loss("{frames: [8, 3, 7]}"), Some(Loss::Frames(vec![3, 7, 8])));
    assert!(directions("{pair: [a, b], loss: {probability: 1%, ecn: true}}")[1].ecn);
    let [shaped, _] = directions(
        "{pair: [a, b], rate: 10Mbit/s, burst: 64KiB, peak: 100Mbit/s, overhead: ethernet, \
         slot: {min: 5ms, max: 9ms, frames: 16, bytes: 64KiB}, reordering: allow, delay: 9ms, \
         reorder: {probability: 25%, correlation: 50%, gap: 5}, \
         jitter: {time: 5ms, distribution: pareto-normal, correlation: 25%}}",
    );
    assert_eq!(shaped.bucket.unwrap().burst, ByteCount::from_bytes(65_536));
    assert_eq!(shaped.framing, Framing::ETHERNET_WIRE);
    assert_eq!(shaped.slots.unwrap().frames, Some(16));
    assert!(shaped.reordering);
    assert_eq!(shaped.reorder.unwrap().gap, 5);
    assert_eq!(shaped.jitter.unwrap().distribution, Distribution::ParetoNormal);
    let overhead =
        "overhead: {frame_bytes: -14, minimum_bytes: 64, cell_bytes: 48, cell_overhead_bytes: 5}";
    let framing = directions(&format!("{{pair: [a, b], {overhead}}}"))[0].framing;
    assert_eq!((framing.overhead_bytes, framing.cell_bytes), (-14, 48));
    // The interframe gap is the shared medium's own.
    let lan = directions("{lan: [a, b, c], overhead: ethernet, loss: 1%}");
    assert_eq!(lan[0].framing.overhead_bytes, 12);
}

#[test]
fn every_preset_is_a_right_link_and_can_be_overridden() {
    let names = schema()["$defs"]["link"]["properties"]["preset"].to_string();
    let mut presets = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/presets")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(names.contains(&format!("\"{name}\"")), "{name} is in {names}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# ") && text.contains("delay"), "{name} names its sources");
        let link = right(&format!("{{pair: [a, b], preset: {name}}}"));
        assert!(link.rate.is_some() && link.channel == Channel::PointToPoint, "{name}");
        // All its keys are known where a link has them itself.
        let own =
            text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("    {line}\n"));
        let same = right(&format!("pair: [a, b]\n{}", own.collect::<String>()));
        assert_eq!(same.directions, link.directions, "{name}");
        presets += 1;
    }
    assert_eq!(presets, 17);
    let [up, down] =
        directions("{pair: [a, b], preset: lte, delay: 100ms, backward: {rate: 3Mbit/s}}");
    assert_eq!((up.delay, down.delay), (SimTime::from_millis(100), SimTime::from_millis(100)));
    assert_eq!((up.rate, down.rate), ("10Mbit/s".parse().ok(), "3Mbit/s".parse().ok()));
    assert!(up.jitter.is_some());
}

#[test]
fn none_takes_a_key_away() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("up.trace"), "1\n").unwrap();
    std::fs::write(dir.path().join("day.csv"), "time,delay\n0s,1ms\n").unwrap();
    let both = |keys: &str| {
        let text = format!("{{pair: [a, b], {keys}}}");
        let topology = read(&text, dir.path()).unwrap_or_else(|wrong| panic!("{keys}: {wrong}"));
        *topology.links[0].directions.clone().expect(keys)
    };
    for (keys, none) in [
        ("trace: up.trace", "{trace: none, rate: 1Mbit/s}"),
        ("rate: 1Mbit/s, burst: 9kB, peak: 2Mbit/s", "{burst: none, peak: none}"),
        ("schedule: day.csv", "{schedule: none}"),
        ("slot: 5ms", "{slot: none}"),
        ("delay: 5ms, jitter: 1ms", "{jitter: none}"),
        ("delay: 5ms, reorder: 1%", "{reorder: none}"),
        ("loss: {probability: 1%, ecn: true}", "{loss: none}"),
        ("duplicate: 1%", "{duplicate: none}"),
        ("corrupt: 1%", "{corrupt: none}"),
    ] {
        let [with, without] = both(&format!("{keys}, backward: {none}"));
        assert!(!with.is_plain(), "{keys}");
        assert!(without.is_plain(), "{keys}: {without:?}");
    }
    let [_, backward] = both("rate: 1Mbit/s, burst: 9kB, peak: 2Mbit/s, backward: {peak: none}");
    assert_eq!(backward.bucket.unwrap().peak, None);
    assert_eq!(right("{pair: [a, b], loss: none}").channel, Channel::Csma, "nothing impairs it");
    let text = "params: {p: none}\nnodes: {a: {}, b: {}}\nlinks: [{pair: [a, b], loss: '${p}'}]\n";
    let computed = load_str("net.yaml", text, &[], Path::new("")).unwrap();
    assert_eq!(computed.links[0].directions, None);
    // Within a direction, what the user wrote elsewhere may lack what is taken away.
    let bucket = "rate: 1Mbit/s, burst: 9kB, peak: 2Mbit/s, backward: {burst: none}";
    refuses(bucket, "2Mbit/s", "there is no `burst`", "`peak: none`");
}

#[test]
fn a_preset_gives_way_to_what_the_user_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("up.trace", "1\n");
    write("rates.csv", "time,rate\n0s,1Mbit/s\n");
    write("losses.csv", "time,loss\n0s,1%\n");
    let both = |keys: &str| {
        let text = format!("{{pair: [a, b], {keys}}}");
        let topology = read(&text, dir.path()).unwrap_or_else(|wrong| panic!("{keys}: {wrong}"));
        *topology.links[0].directions.clone().expect(keys)
    };
    for preset in ["lte", "starlink", "cable"] {
        let [up, down] = both(&format!("preset: {preset}, forward: {{trace: up.trace}}"));
        assert!(up.trace.is_some() && up.rate.is_none() && up.bucket.is_none(), "{preset}: {up:?}");
        assert!(down.trace.is_none() && down.rate.is_some(), "{preset}: {down:?}");
        assert!(up.jitter.is_some(), "{preset}: the rest of it stays");
    }
    assert!(both("preset: cable, rate: unlimited").iter().all(|way| way.bucket.is_none()));
    assert!(both("preset: cable, schedule: rates.csv").iter().all(|way| way.bucket.is_none()));
    assert!(both("preset: cable, burst: none").iter().all(|way| way.bucket.is_none()));
    let [fast, _] = both("preset: cable, rate: 1Gbit/s");
    assert_eq!(fast.bucket.unwrap().peak, None, "the preset's is 100 Mbit/s");
    assert!(both("preset: starlink, schedule: losses.csv").iter().all(|way| way.loss.is_none()));
    // Only what the user wrote contradicts itself.
    for (keys, text) in [
        ("preset: lte, trace: up.trace, rate: 1Mbit/s", "up.trace"),
        ("preset: cable, rate: 1Gbit/s, peak: 2Mbit/s", "2Mbit/s"),
        ("trace: up.trace, overhead: ethernet", "ethernet"),
    ] {
        assert_eq!(wrong_in(&format!("{{pair: [a, b], {keys}}}"), dir.path()).0, text);
    }
}

/// The advice of the one problem of a link.
fn help(keys: &str) -> (String, String) {
    let wrong = read(&format!("{{pair: [a, b], {keys}}}"), Path::new("")).unwrap_err();
    let [problem] = wrong.problems() else { panic!("{keys}\n{:?}", miette::Report::new(wrong)) };
    let text = problem.place.as_ref().unwrap().text.clone();
    (text, problem.help.clone().unwrap_or_default())
}

#[test]
fn what_stands_elsewhere_is_told() {
    let (text, advice) = help("preset: lte, delay: 3ms, backward: {delay: 9ms}");
    assert_eq!(text, "3ms");
    assert!(advice.contains("the jitter comes from the preset"), "{advice}");
    assert!(
        advice.contains("`jitter: none`, or one of your own such as `jitter: 3ms`"),
        "{advice}"
    );
    assert!(advice.contains("`beyond_delay: clamp`"), "{advice}");
    let (text, advice) = help("preset: lte, jitter: 18ms");
    assert_eq!(text, "18ms");
    assert!(advice.contains("the delay comes from the preset"), "{advice}");
    let (_, advice) = help("loss: {four_state: {p13: 1%, p32: 50%}}");
    assert!(advice.contains("`p31` is not given, and so 100% − `p13`"), "{advice}");
    let (_, advice) = help("loss: {gilbert_elliott: {p: 100%}}");
    assert!(advice.contains("`r` is not given, and so 100% − `p`"), "{advice}");
}

#[test]
fn files_are_read_beside_the_topology() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("up.trace", "1\n1\n5\n");
    write("day.csv", "time,rate,loss\n0s,1Mbit/s,0%\n10s,2Mbit/s,1%\n");
    write("own.dist", "# netem\n-8192 0 8192\n");
    write("times.csv", "1ms,50%\n2ms,50%\n");
    let parameters = |keys: &str| {
        let topology = read(&format!("{{pair: [a, b], {keys}}}"), dir.path());
        topology.unwrap().links[0].directions.clone().unwrap()[0].clone()
    };
    assert_eq!(parameters("trace: up.trace").trace.unwrap().millis(), [1, 1, 5]);
    let schedule = parameters("schedule: {file: day.csv, repeat: 20s}").schedule.unwrap();
    assert_eq!((schedule.steps.len(), schedule.repeat), (2, Some(SimTime::from_secs(20))));
    let jitter = parameters("delay: 9ms, jitter: {time: 2ms, table: own.dist}").jitter.unwrap();
    assert!(
        matches!(jitter.distribution, Distribution::Table(table) if table.entries().len() == 3)
    );
    let jitter = parameters("jitter: {table: times.csv}").jitter.unwrap();
    assert!(matches!(jitter.distribution, Distribution::Values(_)));

    write("back.trace", "1\n7\n3\n");
    write("none.trace", "# nothing\n");
    write("half.csv", "1ms,50%\n2ms,30%\n");
    write("shifted.dist", "# netem\n0 8192\n16384\n");
    write("narrow.dist", "-4000 0 4000\n");
    write("unsorted.dist", "-8192\n8192 0\n");
    write("early.csv", "\u{feff}\"time\",\"delay\"\r\n\"0s\",\"1ms\"\r\n\"2s\",\"-1ms\"\r\n");
    write("before.csv", "-1ms,50%\n2ms,50%\n");
    write("zero.csv", "time,rate\n0s,0bit/s\n");
    for (keys, text, message, expected) in [
        ("trace: back.trace", "3", "line 3", "not before the one above"),
        ("trace: none.trace", "none.trace", "no data", "lines with a time"),
        ("trace: no.trace", "no.trace", "cannot read", ""),
        ("jitter: {table: half.csv}", "half.csv", "80.000000%", "expected 100%"),
        ("jitter: {table: before.csv}", "-1ms", "line 1", "not negative"),
        ("schedule: early.csv", "-1ms", "line 3", "not negative"),
        (
            "delay: 9ms, jitter: {time: 1ms, table: shifted.dist}",
            "shifted.dist",
            "the mean of the numbers is 1.0000 times 8192",
            "a mean from -0.1 to 0.1",
        ),
        (
            "delay: 9ms, jitter: {time: 1ms, table: narrow.dist}",
            "narrow.dist",
            "the standard deviation of the numbers is 0.3987 times 8192",
            "from 0.75 to 1.25",
        ),
        (
            "delay: 9ms, jitter: {time: 1ms, table: unsorted.dist}",
            "0",
            "line 2",
            "quantiles ascend",
        ),
        (
            "jitter: {table: times.csv, beyond_delay: clamp}",
            "clamp",
            "`beyond_delay` has no effect",
            "not with this table",
        ),
        ("schedule: zero.csv", "0bit/s", "line 2", "a rate such as"),
        ("schedule: {file: day.csv, repeat: 5s}", "5s", "begins anew at 5s", "after 10s"),
        ("schedule: day.csv, loss: 1%", "1%", "exclude each other", "`loss: none`"),
        (
            "trace: up.trace, rate: 1Mbit/s",
            "up.trace",
            "the trace is the rate",
            "`trace: none` or `rate:",
        ),
    ] {
        let found = wrong_in(&format!("{{pair: [a, b], {keys}}}"), dir.path());
        assert_eq!(found.0, text, "{found:?}");
        assert!(found.1.contains(message) && found.2.contains(expected), "{keys}: {found:?}");
    }
}

#[test]
fn impossible_values_are_refused() {
    refuses("loss: 101%", "101%", "too large", "from 0% to 100%");
    refuses("loss: -1%", "-1%", "negative", "from 0% to 100%");
    refuses("loss: 0.1", "0.1", "no unit", "from 0% to 100%");
    refuses("rate: 0Mbit/s", "0Mbit/s", "zero", "a rate");
    refuses("rate: -5Mbit/s", "-5Mbit/s", "negative", "a rate");
    refuses("burst: 64KiB", "64KiB", "needs a `rate`", "`burst: none`");
    refuses("rate: 1Mbit/s, burst: 1000B", "1000B", "smaller than one frame", "one frame");
    refuses("rate: 1Mbit/s, peak: 2Mbit/s", "2Mbit/s", "no `burst`", "`burst` as well");
    refuses(
        "rate: 2Mbit/s, burst: 9kB, peak: 1Mbit/s",
        "1Mbit/s",
        "smaller than the rate",
        "at least",
    );
    refuses("delay: 2ms, jitter: 5ms", "5ms", "greater than the delay", "at most the delay");
    let clamped = "{pair: [a, b], delay: 2ms, jitter: {time: 5ms, beyond_delay: clamp}}";
    assert!(read(clamped, Path::new("")).is_ok());
    refuses("reorder: 5%", "5%", "needs a delay", "a `delay` as well");
    refuses("slot: 0ms", "0ms", "no time between", "above zero");
    refuses(
        "slot: {min: 3ms, max: 2ms}",
        "{min: 3ms, max: 2ms}",
        "shorter",
        "`max` of at least `min`",
    );
    let sums = "loss: {four_state: {p13: 60%, p14: 50%}}";
    refuses(sums, "{four_state: {p13: 60%, p14: 50%}}", "p13 and p14", "expected");
    let trapped = "loss: {gilbert_elliott: {p: 1%, r: 0%}}";
    refuses(trapped, "{gilbert_elliott: {p: 1%, r: 0%}}", "never ends", "expected");
    refuses("loss: {ecn: true}", "{ecn: true}", "one model, found 0", "`probability`");
    let two = "loss: {probability: 1%, frames: 3}";
    refuses(two, "3", "one model, found 2", "`gilbert_elliott`");
    refuses("loss: {frames: 3, per: bit}", "bit", "belongs to a `probability`", "not with");
    refuses(
        "loss: {probability: 1%, correlation: 100%}",
        "{probability: 1%, correlation: 100%}",
        "100%",
        "",
    );
    refuses(
        "jitter: {distribution: normal}",
        "{distribution: normal}",
        "needs the key `time`",
        "`time`",
    );
    refuses("rate: 10Mbps", "10Mbps", "write Mbit/s or MB/s", "a rate");
    // One mistake is one report.
    refuses("delay: 5ms, jitter: {time: -9ms}", "-9ms", "negative", "a time");
    refuses("loss: {burst: {rate: 1%, min: 0}}", "0", "out of range", "from 1 to");
    refuses("loss: {burst: {rate: 1%, max: 0}}", "0", "out of range", "from 1 to");
    refuses(
        "loss: {burst: {rate: 1%, min: 3, max: 2}}",
        "{burst: {rate: 1%, min: 3, max: 2}}",
        "3 frames is longer than the longest one of 2",
        "`min` from 1 to `max`",
    );
    refuses("corrupt: {probability: 1%, bits: 65}", "65", "out of range", "from 1 to 64");
    refuses(
        "overhead: {cell_overhead_bytes: 5}",
        "{cell_overhead_bytes: 5}",
        "no cells",
        "`cell_bytes` as well",
    );
    refuses(
        "delay: 5ms, jitter: {time: 1ms, correlation: 100%}",
        "{time: 1ms, correlation: 100%}",
        "correlation of 100%",
        "a correlation below 100%",
    );
    refuses("preset: lta", "lta", "unknown value", "`lte`");
    refuses("'a->c': {delay: 1ms}", "'a->c'", "no direction of this link", "two neighbours");
    refuses("'a->b': {delya: 1ms}", "delya", "unknown key", "a direction");
}

#[test]
fn a_shared_medium_says_which_keys_it_refuses() {
    let shared = |keys: &str| wrong_in(&format!("{{lan: [a, b, c], {keys}}}"), Path::new(""));
    for (keys, key) in [
        ("delay: 5ms, jitter: 1ms", "jitter"),
        ("rate: 1Mbit/s, burst: 64KiB", "burst"),
        ("slot: 5ms", "slot"),
        ("delay: 1ms, reorder: 5%", "reorder"),
        ("reordering: allow", "reordering"),
    ] {
        let found = shared(keys);
        assert!(found.1 == format!("a shared medium has no `{key}`"), "{found:?}");
    }
    let found = shared("forward: {delay: 1ms}");
    assert_eq!(found.1, "a shared medium has no directions");
    for keys in ["loss: 1%", "duplicate: 1%", "corrupt: 1%", "overhead: none"] {
        assert!(read(&format!("{{lan: [a, b, c], {keys}}}"), Path::new("")).is_ok(), "{keys}");
    }
    let wrong = wrong_in("{pair: [a, b], channel: csma, delay: 5ms, jitter: 1ms}", Path::new(""));
    assert_eq!(wrong.0, "1ms");
}
