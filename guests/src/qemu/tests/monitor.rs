use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::qemu::{Qmp, QmpCommand, QmpError, Version};

const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"Debian"},"capabilities":["oob"]}}"#;

/// A peer that greets, then answers the n-th line it reads with the n-th reply; `ID` in a reply
/// becomes the id it was asked with. Returns the lines it read.
fn peer(stream: UnixStream, replies: Vec<&'static str>) -> tokio::task::JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut seen = Vec::new();
        write.write_all(format!("{GREETING}\n").as_bytes()).await.expect("a reader");
        for reply in replies {
            let Ok(Some(line)) = lines.next_line().await else { break };
            let asked: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            seen.push(line);
            let reply = reply.replace("ID", &asked["id"].to_string());
            write.write_all(reply.as_bytes()).await.expect("a reader");
        }
        seen
    })
}

#[tokio::test]
async fn negotiates_commands_and_events() {
    let (near, far) = UnixStream::pair().expect("a pair");
    let peer = peer(
        far,
        vec![
            "{\"return\":{},\"id\":ID}\n",
            "{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":2}}\n\
             {\"return\":{\"status\":\"paused\",\"singlestep\":false,\"running\":false},\"id\":ID}\n",
            "{\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"Device 'net7' not found\"},\"id\":ID}\n",
        ],
    );
    let (qmp, mut events) = Qmp::connect(near).await.expect("greeted");
    assert_eq!(qmp.version(), Version { major: 7, minor: 2, micro: 22 });
    let status = qmp.status().await.expect("answered");
    assert!(!status.running && status.status == "paused");
    assert_eq!(events.recv().await.expect("an event").event, "STOP");
    let refused = qmp.set_link(7, false).await.expect_err("refused");
    assert_eq!(refused.to_string(), "QEMU refused `set_link`: Device 'net7' not found");
    assert_eq!(
        peer.await.expect("ended"),
        [
            r#"{"execute":"qmp_capabilities","id":1}"#,
            r#"{"execute":"query-status","id":2}"#,
            r#"{"execute":"set_link","arguments":{"name":"net7","up":false},"id":3}"#,
        ]
    );
    // The peer has gone: whoever asks or listens learns it.
    assert_eq!(qmp.execute(QmpCommand::Cont).await, Err(QmpError::Closed));
    assert!(events.recv().await.is_err());
    assert!(qmp.events().recv().await.is_err());
}

#[tokio::test]
async fn a_peer_that_closes_in_the_middle_of_an_answer_is_closed() {
    let (near, far) = UnixStream::pair().expect("a pair");
    peer(far, vec!["{\"return\":{},\"id\":ID}\n", "{\"ret"]);
    let (qmp, _events) = Qmp::connect(near).await.expect("greeted");
    assert_eq!(qmp.execute(QmpCommand::QueryStatus).await, Err(QmpError::Closed));
}

#[tokio::test]
async fn a_peer_that_does_not_speak_qmp_is_quoted() {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(b"220 mail ready\r\n").await.expect("a reader");
    let error = Qmp::connect(near).await.expect_err("no QMP");
    assert_eq!(error, QmpError::Protocol { line: "220 mail ready".into() });
    let (near, far) = UnixStream::pair().expect("a pair");
    drop(far);
    assert_eq!(Qmp::connect(near).await.expect_err("nobody"), QmpError::Closed);
}
