//! What iperf prints, and the figures behind it.

use tapestry_core::SimTime;

pub(super) const RULE: &str = "------------------------------------------------------------\n";
pub(super) const HEAD: &str = "[ ID] Interval       Transfer     Bandwidth\n";
pub(super) const HEAD_UDP: &str =
    "[ ID] Interval       Transfer     Bandwidth        Jitter   Lost/Total Datagrams\n";
pub(super) const HEAD_UDP_CLIENT_ENHANCED: &str =
    "[ ID] Interval            Transfer     Bandwidth      Write/Err  PPS\n";
pub(super) const HEAD_UDP_ENHANCED: &str = "[ ID] Interval            Transfer     Bandwidth        \
     Jitter   Lost/Total  Latency avg/min/max/stdev PPS\n";

/// Bytes and datagrams since the start and since the latest interval.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    pub(super) start: SimTime,
    interval: Option<SimTime>,
    total: Tally,
    /// The totals at the end of the latest interval.
    before: Tally,
    intervals: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    pub(super) datagrams: u64,
    /// Highest number seen.
    pub(super) highest: i64,
    pub(super) lost: i64,
    pub(super) out_of_order: u64,
}

/// A piece of time with what happened in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) from: SimTime,
    pub(super) to: SimTime,
    pub(super) tally: Tally,
}

impl Meter {
    pub(super) fn new(start: SimTime, interval: Option<SimTime>) -> Self {
        let (total, before) = (Tally::default(), Tally::default());
        Self { start, interval, total, before, intervals: 0 }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.total.bytes += bytes as u64;
        self.total.datagrams += 1;
    }

    /// Notes a datagram by its number, counted from 1.
    pub(super) fn number(&mut self, number: i64) {
        let total = &mut self.total;
        if number > total.highest {
            total.lost += number - total.highest - 1;
            total.highest = number;
        } else {
            total.out_of_order += 1;
            total.lost = (total.lost - 1).max(0);
        }
    }

    pub(super) fn total(&self) -> Tally {
        self.total
    }

    /// When the next interval ends.
    pub(super) fn poll_timeout(&self) -> Option<SimTime> {
        let length = self.interval?.as_nanos();
        let after = length.checked_mul(self.intervals + 1)?;
        self.start.checked_add(SimTime::from_nanos(after))
    }

    /// The interval that ended by `now`, if one did.
    pub(super) fn next_interval(&mut self, now: SimTime) -> Option<Line> {
        let end = self.poll_timeout().filter(|&end| end <= now)?;
        let length = self.interval?;
        let (total, before) = (self.total, self.before);
        let tally = Tally {
            bytes: total.bytes - before.bytes,
            datagrams: total.datagrams - before.datagrams,
            highest: total.highest - before.highest,
            lost: total.lost - before.lost,
            out_of_order: total.out_of_order - before.out_of_order,
        };
        self.before = total;
        self.intervals += 1;
        let to = end - self.start;
        Some(Line { from: to - length, to, tally })
    }

    /// The whole time up to `now`.
    pub(super) fn summary(&self, now: SimTime) -> Line {
        Line { from: SimTime::ZERO, to: now - self.start, tally: self.total }
    }
}

impl Line {
    /// Interval, transfer and bandwidth, for a stream or for `SUM`.
    pub(super) fn text(&self, id: &str, format: Format) -> String {
        let seconds = (self.to - self.from).as_secs_f64();
        let rate = if seconds > 0.0 { self.tally.bytes as f64 * 8.0 / seconds } else { 0.0 };
        format!(
            "[{id:>3}] {:.4}-{:.4} sec  {}  {}/sec",
            self.from.as_secs_f64(),
            self.to.as_secs_f64(),
            scaled(self.tally.bytes as f64, 1_024.0, "Bytes", format.prefix),
            if format.bytes {
                scaled(rate / 8.0, 1_024.0, "Bytes", format.prefix)
            } else {
                scaled(rate, 1_000.0, "bits", format.prefix)
            },
        )
    }

    /// The same with jitter and loss.
    pub(super) fn datagrams(&self, id: &str, jitter: SimTime, format: Format) -> String {
        let Tally { highest: total, lost, .. } = self.tally;
        let share = if total > 0 { lost as f64 * 100.0 / total as f64 } else { 0.0 };
        let jitter = jitter.as_nanos() as f64 / 1e6;
        let text = self.text(id, format);
        format!("{text}  {jitter:6.3} ms {lost}/{total} ({}%)", two_digits(share))
    }

    /// Datagrams per second.
    pub(super) fn per_second(&self) -> f64 {
        let seconds = (self.to - self.from).as_secs_f64();
        if seconds > 0.0 { self.tally.datagrams as f64 / seconds } else { 0.0 }
    }

    /// The sum of the same interval of several streams.
    pub(super) fn sum(lines: &[Self]) -> Option<Self> {
        let first = lines.first()?;
        let mut sum = Self { tally: Tally::default(), ..*first };
        for line in lines {
            sum.to = sum.to.max(line.to);
            sum.tally.bytes += line.tally.bytes;
            sum.tally.datagrams += line.tally.datagrams;
        }
        Some(sum)
    }
}

/// The kernel's default buffer of a UDP socket, in bytes; ours has no limit.
pub(super) const UDP_BUFFER: usize = 212_992;

/// The size of a buffer as the head lines print it: what `-w` asked for, else `default`, in bytes.
pub(super) fn buffer(window: Option<usize>, default: usize) -> String {
    let size = scaled(window.unwrap_or(default) as f64, 1_024.0, "Byte", None);
    if window.is_some() { size } else { size + " (default)" }
}

/// What `-f` asks for: a unit of rates, and the prefix of all quantities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Format {
    /// Rates are bytes per second, not bits.
    bytes: bool,
    /// Index into [`PREFIXES`]; `None`: the largest that leaves a value above one.
    prefix: Option<usize>,
}

const PREFIXES: [&str; 5] = ["", "K", "M", "G", "T"];

impl Format {
    /// One of `b k m g t a` for bits, or `B K M G T A` for bytes.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let mut letters = word.chars();
        let (letter, None) = (letters.next()?, letters.next()) else { return None };
        let prefix = match letter.to_ascii_lowercase() {
            'a' => None,
            letter => Some("bkmgt".find(letter)?),
        };
        Some(Self { bytes: letter.is_ascii_uppercase(), prefix })
    }
}

/// A value in at least four characters, with a prefix of [`PREFIXES`].
fn scaled(value: f64, kilo: f64, unit: &str, prefix: Option<usize>) -> String {
    let mut value = value;
    let mut index = 0;
    while prefix.map_or(value >= kilo && index + 1 < PREFIXES.len(), |prefix| index < prefix) {
        value /= kilo;
        index += 1;
    }
    let prefix = PREFIXES[index];
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:4.digits$} {prefix}{unit}")
}

/// Two significant digits, as `%.2g` without an exponent.
fn two_digits(value: f64) -> String {
    if value <= 0.0 {
        return "0".into();
    }
    let magnitude = value.log10().floor() as i32;
    let digits = usize::try_from(1 - magnitude).unwrap_or(0);
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that iperf 2.1.8 printed.
    #[test]
    fn lines_as_iperf_prints_them() {
        let line = |bytes, ms| Line {
            from: SimTime::ZERO,
            to: SimTime::from_millis(ms),
            tally: Tally { bytes, highest: 203, lost: 1, ..Tally::default() },
        };
        let text = |line: Line, id, format| line.text(id, Format::parse(format).expect("a format"));
        assert_eq!(
            text(line(60, 1_000), "2", "a"),
            "[  2] 0.0000-1.0000 sec  60.0 Bytes   480 bits/sec"
        );
        assert_eq!(
            text(line(1_000_000_000, 2_000), "SUM", "a"),
            "[SUM] 0.0000-2.0000 sec   954 MBytes  4.00 Gbits/sec"
        );
        assert_eq!(
            line(296_940, 2_000).datagrams("1", SimTime::from_micros(4), Format::default()),
            "[  1] 0.0000-2.0000 sec   290 KBytes  1.19 Mbits/sec   0.004 ms 1/203 (0.49%)"
        );
        // `iperf -f k`, `-f M`.
        assert_eq!(
            text(line(5_000_000, 2_000), "1", "k"),
            "[  1] 0.0000-2.0000 sec  4883 KBytes  20000 Kbits/sec"
        );
        assert_eq!(
            text(line(5_000_000, 2_000), "1", "M"),
            "[  1] 0.0000-2.0000 sec  4.77 MBytes  2.38 MBytes/sec"
        );
        assert_eq!(["", "x", "kk"].map(Format::parse), [None; 3]);
        assert_eq!([0.0, 0.494, 3.0, 12.3, 100.0].map(two_digits), ["0", "0.49", "3", "12", "100"]);
    }
}
