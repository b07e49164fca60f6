use super::*;
use crate::Probability;

fn percent(text: &str) -> Probability {
    text.parse().unwrap()
}

fn wrong(parameters: &LinkParameters) -> (&'static str, String) {
    let error = parameters.validate(1_500).unwrap_err();
    (error.key(), error.to_string())
}

#[test]
fn bytes_on_the_wire_follow_netem_and_ethernet() {
    // tc-netem(8): `rate 5kbit 20 100 5`: 20 bytes of overhead, cells of 100 bytes with 5 more.
    let netem =
        Framing { overhead_bytes: 20, min_wire_bytes: 0, cell_bytes: 100, cell_overhead_bytes: 5 };
    assert_eq!([1, 80, 81, 180].map(|len| netem.wire_bytes(len)), [105, 105, 210, 210]);
    assert_eq!(Framing::ETHERNET_WIRE.wire_bytes(42), 84);
    assert_eq!(Framing::ETHERNET_WIRE.wire_bytes(1_514), 1_538);
    assert_eq!(Framing::ETHERNET.wire_bytes(1_514), 1_518);
    // 1,514 + 18 = 1,532 bytes are 31.9 payloads of 48.
    assert_eq!(Framing::ATM.wire_bytes(1_514), 32 * 53);
    let headerless = Framing { overhead_bytes: -14, ..Framing::NONE };
    assert_eq!([10, 1_514].map(|len| headerless.wire_bytes(len)), [1, 1_500]);
    let negative = Framing { cell_bytes: 48, cell_overhead_bytes: -48, ..Framing::NONE };
    assert_eq!(negative.wire_bytes(96), 2);
}

#[test]
fn jitter_beyond_the_delay_is_refused_or_clamped_by_name() {
    let jitter = Jitter::uniform(SimTime::from_millis(5));
    let mut link = LinkParameters::new(None, SimTime::from_millis(2));
    link.jitter = Some(jitter.clone());
    let (key, message) = wrong(&link);
    assert_eq!(key, "jitter");
    assert!(message.contains("5ms is greater than the delay of 2ms"), "{message}");
    link.jitter = Some(Jitter { beyond_delay: BeyondDelay::Clamp, ..jitter });
    assert_eq!(link.validate(1_500), Ok(()));
}

#[test]
fn a_jitter_is_measured_by_the_delays_that_there_are() {
    let jitter = Jitter::uniform(SimTime::from_millis(5));
    let with = |delay, schedule: &str| LinkParameters {
        jitter: Some(jitter.clone()),
        schedule: Some(Schedule::parse(schedule).unwrap()),
        ..LinkParameters::new(None, SimTime::from_millis(delay))
    };
    // The link's own delay never holds, or it does until the first step.
    assert_eq!(with(0, "time,delay\n0s,9ms\n1s,8ms\n").validate(1_500), Ok(()));
    let (_, message) = wrong(&with(1, "time,delay\n1s,9ms\n"));
    assert!(message.contains("than the delay of 1ms"), "{message}");
    let (key, message) = wrong(&with(20, "time,delay\n0s,9ms\n1s,2ms\n"));
    assert_eq!(key, "jitter");
    assert!(message.contains("than the schedule's shortest delay of 2ms"), "{message}");
}

#[test]
fn a_change_of_the_burst_leaves_the_peak() {
    let rate = DataRate::from_bits_per_sec;
    let bucket = |bytes, peak| Some(TokenBucket { burst: ByteCount::from_bytes(bytes), peak });
    let mut link = LinkParameters::new(rate(1_000), SimTime::ZERO);
    link.bucket = bucket(3_000, rate(5_000));
    let changed = |set: &[Parameter], to| {
        let to = LinkParameters { bucket: to, ..LinkParameters::default() };
        ParameterChange { set: set.iter().copied().collect(), to }.applied_to(&link).bucket
    };
    use Parameter::{Burst, Peak};
    assert_eq!(changed(&[Burst], bucket(9_000, None)), bucket(9_000, rate(5_000)));
    assert_eq!(changed(&[Peak], bucket(0, rate(7_000))), bucket(3_000, rate(7_000)));
    assert_eq!(changed(&[Peak], None), bucket(3_000, None));
    assert_eq!(changed(&[Burst, Peak], bucket(9_000, None)), bucket(9_000, None));
    assert_eq!(changed(&[Burst], None), None);
}

#[test]
fn impossible_losses_are_refused() {
    let (zero, half, most) = (Probability::ZERO, percent("50%"), percent("60%"));
    let four = |p13, p31, p32, p23, p14| Loss::FourState { p13, p31, p32, p23, p14 };
    for (loss, part) in [
        (four(half, half, half, half, most), "p13 and p14"),
        (four(half, half, most, half, zero), "p31 and p32"),
        (four(half, zero, half, half, zero), "`p31` is 0%"),
        (Loss::GilbertElliott { p: half, r: zero, bad: half, good: zero }, "`r` is 0%"),
        (Loss::Burst { rate: half, min: 0, max: 4 }, "bursts of no frames"),
        (
            Loss::Burst { rate: half, min: 5, max: 4 },
            "5 frames is longer than the longest one of 4",
        ),
        (Loss::Frames(vec![]), "frame 0"),
        (Loss::Frames(vec![0, 1]), "frame 0"),
        (Loss::Frames(vec![3, 3]), "ascend"),
    ] {
        let (key, message) = wrong(&LinkParameters { loss: Some(loss), ..Default::default() });
        assert!(key == "loss" && message.contains(part), "{message}");
    }
    let fine = four(half, half, half, half, half);
    assert_eq!(LinkParameters { loss: Some(fine), ..Default::default() }.validate(1_500), Ok(()));
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let rate: DataRate = "1Mbit/s".parse().unwrap();
    let trace = DeliveryTrace::parse("1\n").unwrap();
    let limited = LinkParameters::new(Some(rate), SimTime::ZERO);
    let bucket = |bytes, peak| Some(TokenBucket { burst: ByteCount::from_bytes(bytes), peak });
    let slow = DataRate::from_bits_per_sec(1_000);
    let chance = Chance::independent(percent("1%"));
    let default = LinkParameters::default;
    for (parameters, key) in [
        (LinkParameters { trace: Some(trace), ..limited.clone() }, "trace"),
        (LinkParameters { bucket: bucket(9_000, None), ..default() }, "burst"),
        (LinkParameters { bucket: bucket(1_000, None), ..limited.clone() }, "burst"),
        (LinkParameters { bucket: bucket(9_000, slow), ..limited }, "peak"),
        (LinkParameters { reorder: Some(Reorder { chance, gap: 1 }), ..default() }, "reorder"),
        (LinkParameters { ecn: true, ..default() }, "ecn"),
    ] {
        assert_eq!(wrong(&parameters).0, key);
    }
}

#[test]
fn files_read_and_name_the_line_that_is_wrong() {
    let trace = DeliveryTrace::parse("# up\n0\n5\n5\n 12\n").unwrap();
    assert_eq!(trace.millis(), [0, 5, 5, 12]);
    assert_eq!(trace.period(), SimTime::from_millis(12));
    let line = |error: FileError| match error {
        FileError::Line(error) => (error.line, error.offset, error.found),
        other => panic!("{other:?}"),
    };
    assert_eq!(line(DeliveryTrace::parse("1\n7\n 3\n").unwrap_err()), (3, 5, "3".into()));
    assert_eq!(line(DeliveryTrace::parse("1\n-7\n").unwrap_err()), (2, 2, "-7".into()));
    assert_eq!(line(DeliveryTrace::parse("0\n0\n").unwrap_err()), (2, 2, "0".into()));
    assert!(matches!(DeliveryTrace::parse("# none\n"), Err(FileError::Empty { .. })));

    let table = DelayTable::parse("\u{feff}# netem\r\n -8192 3\r\n8192\r\n").unwrap();
    assert_eq!(table.entries(), [-8_192, 3, 8_192]);
    assert_eq!(line(DelayTable::parse("1 2\n3 x4 5\n").unwrap_err()), (2, 6, "x4".into()));
    assert_eq!(line(DelayTable::parse("-8192\n3 -3\n").unwrap_err()), (2, 8, "-3".into()));
    for (text, told) in [
        ("-2000 8192 8192", "the mean of the numbers is 0.5853 times 8192"),
        ("-8192 -8192 8192", "the mean of the numbers is -0.3333 times 8192"),
        ("-1 1", "the standard deviation of the numbers is 0.0001 times 8192"),
        ("-12000 12000", "the standard deviation of the numbers is 1.4648 times 8192"),
    ] {
        let error = DelayTable::parse(text).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    assert_eq!(line(DelayTable::parse("40000\n").unwrap_err()), (1, 0, "40000".into()));

    let values = DelayValues::parse("delay,probability\n2ms,75%\n1ms,25%\n").unwrap();
    assert_eq!(values.entries()[0], (SimTime::from_millis(1), percent("25%")));
    let error = DelayValues::parse("1ms,25%\n2ms,70%\n").unwrap_err();
    assert_eq!(error.to_string(), "the probabilities add up to 95.000000%; expected 100%");
    assert_eq!(line(DelayValues::parse("1ms,25%\n2,75%\n").unwrap_err()), (2, 8, "2".into()));

    let schedule = Schedule::parse("time,rate,loss\n0s,1Mbit/s,0%\n10s,2Mbit/s,1%\n").unwrap();
    assert_eq!(schedule.steps[1].loss, Some(percent("1%")));
    assert_eq!(schedule.steps[1].delay, None);
    let found = |text| line(Schedule::parse(text).unwrap_err());
    assert_eq!(found("time,rat\n"), (1, 5, "rat".into()));
    assert_eq!(found("rate\n1Mbit/s\n"), (1, 0, "rate".into()));
    assert_eq!(found("time,rate\n0s\n"), (2, 10, "0s".into()));
    assert_eq!(found("time,rate\n1s,1Mbit/s\n1s,1Mbit/s\n").0, 3);
    assert_eq!(found("time,rate\n0s,0Mbit/s\n"), (2, 13, "0Mbit/s".into()));
    assert_eq!(found("time,loss\n0s,101%\n"), (2, 13, "101%".into()));
    assert!(matches!(Schedule::parse("time,rate\n"), Err(FileError::Empty { .. })));
    assert_eq!(found("time,rate\n0s,1Mbit/s\n-1s,2Mbit/s\n"), (3, 21, "-1s".into()));
    assert_eq!(found("time,rate\n0s,\"1Mbit/s\n"), (2, 13, "\"1Mbit/s".into()));
    let error = Schedule::parse("time,delay\n0s,-1ms\n").unwrap_err().to_string();
    assert!(error.contains("line 2") && error.ends_with(", not negative"), "{error}");
    let spreadsheet = "\u{feff}\"time\",\"rate\"\r\n\"0s\",\"unlimited\"\r\n\"5s\",\"2Mbit/s\"\r\n";
    let schedule = Schedule::parse(spreadsheet).unwrap();
    assert_eq!(schedule.steps[0].rate, Some(ScheduledRate::Unlimited));
    assert_eq!(schedule.steps[1].rate.and_then(ScheduledRate::limit), "2Mbit/s".parse().ok());
    let text = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    let values = DelayValues::parse("\u{feff}delay,share\r\n\"1ms\",\"100%\"\r\n").unwrap();
    assert_eq!(values.entries(), [(SimTime::from_millis(1), Probability::ONE)]);
}

#[test]
fn parameters_survive_the_manifest() {
    let mut link = LinkParameters::new("1Mbit/s".parse().ok(), SimTime::from_millis(9));
    link.loss = Some(Loss::GilbertElliott {
        p: percent("1%"),
        r: percent("20%"),
        bad: Probability::ONE,
        good: Probability::ZERO,
    });
    link.jitter = Some(Jitter {
        distribution: Distribution::Table(DelayTable::parse("-8192 8192").unwrap()),
        ..Jitter::uniform(SimTime::from_millis(1))
    });
    link.schedule = Some(Schedule::parse("time,delay\n0s,1ms\n").unwrap());
    link.corrupt =
        Some(Corruption { chance: Chance::independent(percent("2%")), per: Unit::Frame, bits: 3 });
    link.duplicate = Some(Chance::independent(percent("3%")));
    let text = serde_json::to_string(&link).unwrap();
    assert_eq!(serde_json::from_str::<LinkParameters>(&text).unwrap(), link);
}
