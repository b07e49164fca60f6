//! The options of `iperf`.

use tapestry_core::SimTime;

use super::report::Format;

use crate::host::shell::seconds;

// Each is a flag of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub(super) role: Role,
    pub(super) udp: bool,
    /// Bytes of a datagram or of a write.
    pub(super) length: usize,
    pub(super) pace: Pace,
    pub(super) limit: Limit,
    pub(super) port: u16,
    pub(super) interval: Option<SimTime>,
    pub(super) parallel: usize,
    /// Bytes of the socket's buffer.
    pub(super) window: Option<usize>,
    pub(super) enhanced: bool,
    pub(super) v6: bool,
    pub(super) bind: Option<String>,
    pub(super) traffic_class: u8,
    pub(super) reno: bool,
    pub(super) format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Client(String),
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    Unlimited,
    /// Datagrams per second.
    PerSecond(f64),
    /// Bits of payload per second.
    Bits(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Time(SimTime),
    /// Of each stream.
    Bytes(u64),
}

/// What iperf sends in a UDP datagram unless told otherwise, in bytes: fits an Ethernet frame.
const UDP_LENGTH: usize = 1_470;
/// What iperf writes to TCP at once, in bytes.
const TCP_LENGTH: usize = 131_072;
/// Smallest datagram: its header.
pub(super) const MIN_LENGTH: usize = 16;
/// Rate of a UDP client unless told otherwise, in bit/s.
const UDP_RATE: u64 = 1 << 20;
const MAX_PARALLEL: usize = 128;
/// Largest buffer of a socket, in bytes.
const MAX_WINDOW: u64 = 64 << 20;

pub(super) fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        role: Role::Server,
        udp: false,
        length: 0,
        pace: Pace::Unlimited,
        limit: Limit::Time(SimTime::from_secs(10)),
        port: 5_001,
        interval: None,
        parallel: 1,
        window: None,
        enhanced: false,
        v6: false,
        bind: None,
        traffic_class: 0,
        reno: false,
        format: Format::default(),
    };
    let mut role = None;
    let mut paced = false;
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let flags = short(word)?;
        for (at, flag) in flags.char_indices() {
            match flag {
                's' => role = Some(Role::Server),
                'u' => options.udp = true,
                'e' => options.enhanced = true,
                'V' => options.v6 = true,
                // What these change is how a process runs.
                'z' | 'D' => {}
                'c' | 'l' | 'b' | 't' | 'n' | 'p' | 'i' | 'P' | 'w' | 'B' | 'S' | 'f' | 'Z' => {
                    let rest = flags[at + 1..].trim_start_matches('=');
                    let value = if rest.is_empty() { words.next() } else { Some(rest) };
                    let value =
                        value.ok_or_else(|| format!("option requires an argument -- '{flag}'"))?;
                    paced |= flag == 'b';
                    if flag == 'c' {
                        role = Some(Role::Client(value.to_owned()));
                    } else {
                        set(&mut options, flag, value)
                            .ok_or_else(|| format!("invalid value '{value}' of -{flag}"))?;
                    }
                    break;
                }
                _ => {
                    return Err(format!(
                        "invalid option -- '{flag}'; an in-process host knows -s -c -u -l -b -t \
                         -n -p -i -P -w -e -V -B -S -f -Z"
                    ));
                }
            }
        }
    }
    options.role = role.ok_or("say -s for a server or -c HOST for a client")?;
    options.udp |= paced && matches!(options.pace, Pace::PerSecond(_));
    if options.length == 0 {
        options.length = if options.udp { UDP_LENGTH } else { TCP_LENGTH };
    }
    if options.udp {
        if !(MIN_LENGTH..=65_507).contains(&options.length) {
            return Err(format!(
                "a datagram has {MIN_LENGTH} to 65507 bytes, not {}",
                options.length
            ));
        }
        if !paced {
            options.pace = Pace::Bits(UDP_RATE);
        }
        let least = super::SHORTEST_INTERVAL;
        if options.due(1).is_none_or(|interval| interval < least) {
            options.pace = Pace::PerSecond(1e9 / least.as_nanos() as f64);
        }
    }
    Ok(options)
}

/// The letters of a word, long options as their letter.
fn short(word: &str) -> Result<&str, String> {
    Ok(match word {
        "--server" => "s",
        "--udp" => "u",
        "--client" => "c",
        "--len" => "l",
        "--bandwidth" => "b",
        "--time" => "t",
        "--num" => "n",
        "--port" => "p",
        "--interval" => "i",
        "--parallel" => "P",
        "--window" => "w",
        "--enhanced" | "--enhancedreports" => "e",
        "--ipv6_domain" => "V",
        "--bind" => "B",
        "--format" => "f",
        _ => match word.strip_prefix('-') {
            Some(flags) if !flags.is_empty() && !flags.starts_with('-') => flags,
            _ => return Err(format!("unknown word '{word}'")),
        },
    })
}

fn set(options: &mut Options, flag: char, value: &str) -> Option<()> {
    match flag {
        'l' => {
            let length = usize::try_from(bytes(value)?).ok();
            options.length = length.filter(|&length| length > 0 && length <= 1 << 20)?;
        }
        'b' => {
            options.pace = match value.strip_suffix("pps") {
                Some(rate) => Pace::PerSecond(positive(number(rate)?)?),
                None => match number(value)? {
                    0.0 => Pace::Unlimited,
                    rate => Pace::Bits(positive(rate)? as u64),
                },
            }
        }
        't' => options.limit = Limit::Time(seconds(value, 1.0).filter(|&t| t > SimTime::ZERO)?),
        'n' => options.limit = Limit::Bytes(bytes(value).filter(|&n| n > 0)?),
        'p' => options.port = value.parse().ok().filter(|&port| port > 0)?,
        'i' => {
            let interval = seconds(value, 1.0)?;
            options.interval = (interval > SimTime::ZERO).then_some(interval);
            if interval > SimTime::ZERO && interval < SimTime::from_millis(1) {
                return None;
            }
        }
        'P' => options.parallel = value.parse().ok().filter(|n| (1..=MAX_PARALLEL).contains(n))?,
        'w' => {
            let window = bytes(value).filter(|&w| (1..=MAX_WINDOW).contains(&w))?;
            options.window = Some(window as usize);
        }
        'B' => options.bind = Some(value.split(':').next().unwrap_or(value).to_owned()),
        'S' => {
            options.traffic_class = match value.strip_prefix("0x") {
                Some(digits) => u8::from_str_radix(digits, 16).ok()?,
                None => value.parse().ok()?,
            }
        }
        'Z' => {
            options.reno = match value {
                "reno" => true,
                "cubic" => false,
                _ => return None,
            }
        }
        'f' => options.format = Format::parse(value)?,
        _ => return None,
    }
    Some(())
}

fn positive(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

/// A size, as [`number`].
fn bytes(text: &str) -> Option<u64> {
    number(text).map(|number| number as u64)
}

/// A number of at most 10¹⁵; K, M, G and T are powers of 1,024, k, m, g and t of 1,000, in sizes
/// and in rates alike, as in iperf 2.1.
fn number(text: &str) -> Option<f64> {
    let (last, letter) = text.char_indices().last()?;
    let power = match letter.to_ascii_lowercase() {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        _ => 0,
    };
    let kilo = if letter.is_ascii_uppercase() { 1_024.0_f64 } else { 1_000.0 };
    let (digits, factor) = if power > 0 { (&text[..last], kilo.powi(power)) } else { (text, 1.0) };
    let number = digits.parse::<f64>().ok()? * factor;
    (0.0..=1e15).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `iperf` 2.1.8 reads them.
    #[test]
    fn capital_prefixes_are_powers_of_1024_and_small_ones_of_1000() {
        let parsed = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            parse(&words).expect(text)
        };
        for (rate, pace) in [
            ("2M", Pace::Bits(2 << 20)),
            ("2m", Pace::Bits(2_000_000)),
            ("1.5K", Pace::Bits(1_536)),
            ("1G", Pace::Bits(1 << 30)),
            ("1g", Pace::Bits(1_000_000_000)),
            ("2Kpps", Pace::PerSecond(2_048.0)),
            ("2kpps", Pace::PerSecond(2_000.0)),
        ] {
            assert_eq!(parsed(&format!("-c x -u -b {rate}")).pace, pace, "{rate}");
        }
        assert_eq!(parsed("-c x -u -n 10K").limit, Limit::Bytes(10_240));
        assert_eq!(parsed("-c x -u -n 10k").limit, Limit::Bytes(10_000));
        assert_eq!([parsed("-s -l 1K").length, parsed("-s -l 1k").length], [1_024, 1_000]);
        assert_eq!(parsed("-s -w 1M").window, Some(1 << 20));
        for wrong in ["2x", "K", "é", "2é", "-1", "", "1e99"] {
            assert!(number(wrong).is_none(), "{wrong}");
        }
    }
}
