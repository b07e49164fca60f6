//! Plots of what impaired links do, measured on networks in virtual time, beside their theory:
//! `cargo run --release -p tapestry-models --example link_plots -- docs/plots`.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use rand::RngExt;
use tapestry_core::link::{
    BeyondDelay, Chance, DeliveryTrace, Distribution, Framing, Jitter, LinkParameters, Loss,
    TokenBucket, Unit,
};
use tapestry_core::{ByteCount, DataRate, Probability, SimTime, Streams};
use tapestry_models::{
    CoDelConfig, FqCoDelConfig, Frame, Limit, LinkConfig, Network, NetworkBuilder, PieConfig,
    PortId, QueueConfig, RedConfig,
};

type Points = Vec<(f64, f64)>;

const BLUE_: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const ORANGE: RGBColor = RGBColor(0xc0, 0x50, 0x2c);
const GREEN_: RGBColor = RGBColor(0x2e, 0x8b, 0x57);
const VIOLET: RGBColor = RGBColor(0x80, 0x50, 0xa0);
const GREY: RGBColor = RGBColor(0x88, 0x88, 0x88);

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or("docs/plots".into()));
    std::fs::create_dir_all(&directory)?;
    jitter(&directory.join("links-jitter.svg"))?;
    loss(&directory.join("links-loss.svg"))?;
    rate(&directory.join("links-rate.svg"))?;
    queues(&directory.join("links-queues.svg"))
}

fn network(parameters: &LinkParameters, queue: QueueConfig) -> Result<Network, Box<dyn Error>> {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    builder.link(LinkConfig {
        parameters: Some(Box::new([parameters.clone(), parameters.clone()])),
        queue,
        ..LinkConfig::point_to_point("l")
    })?;
    Ok(builder.build())
}

/// Sends a numbered frame of so many bytes at each time; the numbers and times at which they leave.
fn arrivals(
    parameters: &LinkParameters,
    sent: impl Iterator<Item = SimTime>,
    bytes: usize,
) -> Result<Vec<(u32, SimTime)>, Box<dyn Error>> {
    let network = network(parameters, QueueConfig::frames(1_000_000))?;
    passed(network, sent, || vec![0; bytes])
}

/// The same on a network; `frame` makes each frame, whose bytes from 50 take the number.
fn passed(
    mut network: Network,
    sent: impl Iterator<Item = SimTime>,
    mut frame: impl FnMut() -> Vec<u8>,
) -> Result<Vec<(u32, SimTime)>, Box<dyn Error>> {
    let mut found = Vec::new();
    for (number, now) in (0_u32..).zip(sent) {
        let mut frame = frame();
        frame[50..54].copy_from_slice(&number.to_be_bytes());
        network.run_until(now)?;
        network.handle_frame(now, PortId(0), Frame::from(frame));
    }
    network.run_until(SimTime::MAX)?;
    for out in network.transmits() {
        let number = out.frame.bytes()[50..54].try_into()?;
        found.push((u32::from_be_bytes(number), out.due));
    }
    Ok(found)
}

/// A chart of lines with a legend.
fn chart(
    path: &Path,
    (caption, x_label, y_label): (&str, &str, &str),
    (x, y): (std::ops::Range<f64>, std::ops::Range<f64>),
    legend: SeriesLabelPosition,
    lines: Vec<(&str, RGBColor, Points)>,
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (800, 440)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption(caption, ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).light_line_style(TRANSPARENT).draw()?;
    for (name, color, points) in lines {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(legend).background_style(WHITE.mix(0.8)).draw()?;
    root.present()?;
    Ok(())
}

/// Densities of the delay with each distribution.
fn jitter(path: &Path) -> Result<(), Box<dyn Error>> {
    const FRAMES: u64 = 1_000_000;
    const BIN_MS: f64 = 0.25;
    let mut lines = Vec::new();
    for (name, color, distribution) in [
        ("uniform", GREY, Distribution::Uniform),
        ("normal", BLUE_, Distribution::Normal),
        ("pareto", ORANGE, Distribution::Pareto),
        ("pareto-normal", GREEN_, Distribution::ParetoNormal),
    ] {
        let jitter = Jitter {
            distribution,
            beyond_delay: BeyondDelay::Clamp,
            ..Jitter::uniform(SimTime::from_millis(5))
        };
        let parameters = LinkParameters {
            jitter: Some(jitter),
            reordering: true,
            ..LinkParameters::new(None, SimTime::from_millis(23))
        };
        let sent = (0..FRAMES).map(SimTime::from_micros);
        let mut bins = vec![0_u64; 200];
        for (number, due) in arrivals(&parameters, sent, 60)? {
            let delay = due - SimTime::from_micros(number.into());
            let bin = (delay.as_secs_f64() * 1e3 / BIN_MS) as usize;
            if let Some(count) = bins.get_mut(bin) {
                *count += 1;
            }
        }
        let density = |count: u64| count as f64 / FRAMES as f64 / BIN_MS;
        let points = bins
            .iter()
            .zip(0..)
            .map(|(&count, bin)| ((f64::from(bin) + 0.5) * BIN_MS, density(count)));
        lines.push((name, color, points.collect()));
    }
    let words =
        ("delay: 23ms, jitter: 5ms; a million frames", "one-way delay (ms)", "density (1/ms)");
    chart(path, words, (0.0..50.0, 0.0..0.5), SeriesLabelPosition::UpperRight, lines)
}

/// How long bursts of losses are.
fn loss(path: &Path) -> Result<(), Box<dyn Error>> {
    const FRAMES: u64 = 2_000_000;
    let percent = |percents: f64| Probability::from_f64(percents / 100.0);
    let correlated = Chance { correlation: percent(40.0)?, ..Chance::independent(percent(5.0)?) };
    let gilbert_elliott = Loss::GilbertElliott {
        p: percent(1.0)?,
        r: percent(19.0)?,
        bad: Probability::ONE,
        good: Probability::ZERO,
    };
    let mut lines = Vec::new();
    for (names, color, loss, goes_on) in [
        (("independent", "0.05ᵏ"), GREY, Loss::independent(percent(5.0)?), 0.05),
        (
            ("correlation 40%", "0.43ᵏ"),
            BLUE_,
            Loss::Random { chance: correlated, per: Unit::Frame },
            0.05 + 0.4 * 0.95,
        ),
        (("Gilbert–Elliott, r 19%", "0.81ᵏ"), ORANGE, gilbert_elliott, 0.81),
    ] {
        let parameters = LinkParameters { loss: Some(loss), ..LinkParameters::default() };
        let sent = (0..FRAMES).map(SimTime::from_micros);
        let received = arrivals(&parameters, sent, 60)?;
        let gaps = received.windows(2).map(|pair| pair[1].0 - pair[0].0 - 1);
        let bursts: Vec<u32> = gaps.filter(|&gap| gap > 0).collect();
        let longer = |k: u32| {
            let count = bursts.iter().filter(|&&length| length > k).count();
            (count > 0).then(|| (f64::from(k), (count as f64 / bursts.len() as f64).log10()))
        };
        lines.push((names.0, color, (0..16).map_while(longer).collect()));
        let theory = (0..16).map(|k: u32| (f64::from(k), f64::from(k) * f64::log10(goes_on)));
        lines.push((names.1, color.mix(0.4).to_rgb(), theory.collect()));
    }
    let words = (
        "Bursts of losses, each model losing 5 %; two million frames, and theory (pale)",
        "k (frames)",
        "log₁₀ P(burst longer than k)",
    );
    chart(path, words, (0.0..15.0, -5.0..0.0), SeriesLabelPosition::MiddleRight, lines)
}

/// What leaves a shaped link and a trace, against time.
fn rate(path: &Path) -> Result<(), Box<dyn Error>> {
    let rate = DataRate::from_bits_per_sec(8_000_000);
    let burst = ByteCount::from_bytes(32_768);
    let bucket = LinkParameters {
        bucket: Some(TokenBucket { burst, peak: DataRate::from_bits_per_sec(40_000_000) }),
        ..LinkParameters::new(rate, SimTime::ZERO)
    };
    let fast = (1..=30).map(|ms| ms.to_string());
    let slow = (36..=60).step_by(6).map(|ms| ms.to_string());
    let text: Vec<String> = fast.chain(slow).collect();
    let trace = LinkParameters {
        trace: Some(DeliveryTrace::parse(&text.join("\n"))?),
        ..LinkParameters::default()
    };
    let mut lines = Vec::new();
    for (name, color, parameters) in [
        ("rate: 8Mbit/s", GREY, LinkParameters::new(rate, SimTime::ZERO)),
        ("with burst: 32KiB, peak: 40Mbit/s", BLUE_, bucket),
        ("trace: 30 ms at 12 Mbit/s, 30 ms at 2 Mbit/s", ORANGE, trace),
    ] {
        // All wait from the beginning.
        let out = arrivals(&parameters, (0..120).map(|_| SimTime::ZERO), 1_514)?;
        let mut points = vec![(0.0, 0.0)];
        for (at, count) in out.iter().map(|(_, due)| due.as_secs_f64() * 1e3).zip(1..) {
            let before = points.last().map_or(0.0, |&(_, bytes)| bytes);
            points.extend([(at, before), (at, f64::from(count) * 1.5)]);
        }
        lines.push((name, color, points.into_iter().filter(|&(at, _)| at <= 120.0).collect()));
    }
    let words = ("What leaves a link on which 120 packets wait", "time (ms)", "kB of packets");
    chart(path, words, (0.0..120.0, 0.0..180.0), SeriesLabelPosition::UpperLeft, lines)
}

/// Time in the queue under each discipline, for the same arrivals.
fn queues(path: &Path) -> Result<(), Box<dyn Error>> {
    const BYTES: usize = 1_000;
    /// Poisson arrivals: the end of each phase in seconds, and its share of what the link sends.
    const PHASES: [(f64, f64); 3] = [(2.0, 0.7), (6.0, 1.2), (10.0, 0.7)];
    const BIN_S: f64 = 0.1;
    let rate = DataRate::from_bits_per_sec(10_000_000).ok_or("a rate above zero")?;
    let parameters =
        LinkParameters { framing: Framing::NONE, ..LinkParameters::new(Some(rate), SimTime::ZERO) };
    let sending = rate.transmit_time(BYTES as u64);
    let mut random = Streams::new(1, 0).stream("plots", "arrivals");
    let (mut now, mut sent) = (0.0, Vec::new());
    for (end, load) in PHASES {
        while now < end {
            now += -(1.0 - random.random::<f64>()).ln() * sending.as_secs_f64() / load;
            sent.push(SimTime::from_nanos((now * 1e9) as u64));
        }
    }
    let limit = Limit::Frames(250);
    let mut lines = Vec::new();
    for (name, color, queue) in [
        ("drop-tail, 250 frames", GREY, QueueConfig::DropTail(limit)),
        ("RED", ORANGE, QueueConfig::Red(RedConfig { limit, ..RedConfig::default() })),
        ("CoDel", BLUE_, QueueConfig::CoDel(CoDelConfig::default())),
        ("FQ-CoDel, 8 flows", VIOLET, QueueConfig::FqCoDel(FqCoDelConfig::default())),
        ("PIE", GREEN_, QueueConfig::Pie(PieConfig::default())),
    ] {
        // Eight flows of UDP over IPv4, told apart by their source ports.
        let mut flow = 0_u8;
        let frame = || {
            flow = (flow + 1) % 8;
            let mut frame = vec![0; BYTES];
            frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
            (frame[23], frame[35]) = (17, flow);
            frame
        };
        let out = passed(network(&parameters, queue)?, sent.iter().copied(), frame)?;
        let mut bins: Vec<(f64, u32)> = vec![(0.0, 0); 120];
        for (number, due) in out {
            let waited = due - sent[number as usize] - sending;
            if let Some((sum, count)) = bins.get_mut((due.as_secs_f64() / BIN_S) as usize) {
                *sum += waited.as_secs_f64() * 1e3;
                *count += 1;
            }
        }
        let means = bins.iter().zip(0..).filter(|((_, count), _)| *count > 0);
        let points = means
            .map(|(&(sum, count), bin)| ((f64::from(bin) + 0.5) * BIN_S, sum / f64::from(count)));
        lines.push((name, color, points.filter(|&(at, _)| at <= 10.0).collect()));
    }
    let points = lines.iter().flat_map(|(_, _, points): &(_, _, Vec<(f64, f64)>)| points);
    let longest = points.map(|&(_, waited)| waited).fold(0.0, f64::max);
    let words = (
        "10 Mbit/s, Poisson arrivals: 70 % of it, from 2 s to 6 s 120 %",
        "time (s)",
        "mean time in the queue (ms)",
    );
    chart(path, words, (0.0..10.0, 0.0..1.05 * longest), SeriesLabelPosition::UpperLeft, lines)
}

trait ToRgb {
    fn to_rgb(self) -> RGBColor;
}

impl ToRgb for RGBAColor {
    /// On white.
    fn to_rgb(self) -> RGBColor {
        let Self(r, g, b, alpha) = self;
        let on_white = |part: u8| (f64::from(part) * alpha + 255.0 * (1.0 - alpha)) as u8;
        RGBColor(on_white(r), on_white(g), on_white(b))
    }
}
