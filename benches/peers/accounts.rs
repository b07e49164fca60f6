//! Whether every frame of a run is somewhere: the equations of `Snapshot`, over `results.json`.

use serde_json::Value;

/// Frames of a run by where they are.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Frames that nodes sent, whether the emulator saw them or not.
    pub(crate) sent: u64,
    /// Frames that interfaces of nodes took.
    pub(crate) delivered: u64,
    /// Frames that interfaces lost before the emulator saw them.
    pub(crate) unread: u64,
    /// Frames dropped by links and ports, with a reason.
    pub(crate) dropped: u64,
    /// Frames still on links or in ports at the end.
    pub(crate) left: u64,
    /// Equations that do not hold, in words; empty if every frame is somewhere.
    pub(crate) wrong: Vec<String>,
}

/// Adds up the links of `results.json`. Links have two ends, so that a frame has one receiver.
pub(crate) fn accounts(results: &Value) -> Accounts {
    let mut sum = Accounts::default();
    for link in results["links"].as_array().into_iter().flatten() {
        let name = link["name"].as_str().unwrap_or_default();
        let [mut transmitted, mut arrived] = [0, number(&link["in_flight"])];
        sum.left += number(&link["in_flight"]);
        for end in link["endpoints"].as_array().into_iter().flatten() {
            let (station, port) = (&end["station"], &end["port"]);
            let [tx_dropped, rx_dropped, port_dropped] =
                [&station["tx_dropped"], &station["rx_dropped"], &port["tx_drops"]].map(total);
            let frames = |count: &str| number(&station[count]["frames"]);
            let field = |name: &str| number(&port[name]);
            let interface = |name: &str| number(&port["interface"][name]);
            transmitted += frames("transmitted");
            arrived += frames("delivered") + rx_dropped;
            sum.sent += interface("sent") + interface("send_drops");
            sum.unread += interface("send_drops");
            sum.delivered += field("tx_frames");
            sum.dropped += tx_dropped + rx_dropped + port_dropped;
            sum.left += number(&end["backlog"]) + field("tx_pending");
            let equations = [
                ("handed over = read", interface("sent"), field("rx_frames")),
                ("read = offered", field("rx_frames"), frames("offered")),
                (
                    "offered = transmitted + dropped + queued",
                    frames("offered"),
                    frames("transmitted") + tx_dropped + number(&end["backlog"]),
                ),
                (
                    "delivered = sent on + dropped + waiting",
                    frames("delivered"),
                    field("tx_frames") + port_dropped + field("tx_pending"),
                ),
            ];
            let endpoint = end["endpoint"].as_str().unwrap_or_default();
            let broken = equations.iter().filter(|(_, left, right)| left != right);
            sum.wrong.extend(broken.map(|(what, a, b)| format!("{endpoint}: {what}: {a} ≠ {b}")));
        }
        if transmitted != arrived {
            sum.wrong.push(format!("{name}: transmitted = arrived: {transmitted} ≠ {arrived}"));
        }
    }
    if sum.sent != sum.delivered + sum.unread + sum.dropped + sum.left {
        sum.wrong.push(format!("the sum: {sum:?}"));
    }
    sum
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Sum over a map from reason to frames.
fn total(drops: &Value) -> u64 {
    drops.as_object().into_iter().flatten().map(|(_, frames)| number(frames)).sum()
}
