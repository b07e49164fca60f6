use std::path::Path;

use super::*;

fn topology(text: &str) -> Topology {
    crate::load_str("net.yaml", text, &[], Path::new("")).unwrap()
}

const MIXED: &str = r#"
name: "mixed"
nodes:
  a: {kind: host}
  sw: {kind: bridge}
  "h[0-2]": {kind: netns}
links:
  - {pair: [a, sw], rate: 10Mbit/s, delay: 2ms, channel: point-to-point}
  - {lan: "sw,h[0-2]", ipv4: 10.0.0.0/24}
"#;

#[test]
fn dot_names_every_node_link_and_address() {
    insta::assert_snapshot!(dot(&topology(MIXED)));
}

#[test]
fn mermaid_names_every_node_and_link() {
    insta::assert_snapshot!(mermaid(&topology(MIXED)));
}

#[test]
fn svg_is_balanced_finite_and_the_same_each_time() {
    for links in [
        "  - {chain: \"n[0-29]\"}",
        "  - {ring: \"n[0-29]\"}",
        "  - {star: {center: n0, leaves: \"n[1-29]\"}}",
        "  - {tree: {nodes: \"n[0-29]\", fanout: 3}}",
        "  - {grid: {nodes: \"n[0-29]\", columns: 6}}",
        "  - {mesh: \"n[0-9]\"}",
        "  - {lan: \"n[0-29]\"}",
        "",
    ] {
        let text = format!("nodes: {{\"n[0-29]\": {{kind: netns}}}}\nlinks:\n{links}\n");
        let topology = topology(&text);
        let picture = svg(&topology);
        assert_eq!(picture, svg(&topology));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{links}");
        for tag in ["g", "text", "title", "svg"] {
            let open = picture.matches(&format!("<{tag}>")).count()
                + picture.matches(&format!("<{tag} ")).count();
            assert_eq!(open, picture.matches(&format!("</{tag}>")).count(), "{tag} in {links}");
        }
        for node in &topology.nodes {
            assert!(
                picture.contains(&format!(">{}</text>", node.name)),
                "{} in {links}",
                node.name
            );
        }
    }
}

#[test]
fn positions_in_the_file_are_kept() {
    let text = "nodes:\n  a: {kind: host, position: [0, 0]}\n  b: {kind: host, position: [0, 500]}\nlinks: [{pair: [a, b]}]\n";
    let picture = svg(&topology(text));
    let xs: Vec<&str> = picture
        .split("class=\"name\" x=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert_eq!(xs, ["70.0", "70.0"], "one above the other");
}
