use super::*;

#[test]
fn levels_are_read_with_their_units() {
    let text = |text: &str| quantity(&Value::Text(text.to_owned()));
    for (level, dimension, number) in [
        ("500kbit/s", Dimension::Rate, 5e5),
        ("1Gbit/s", Dimension::Rate, 1e9),
        ("100us", Dimension::Time, 1e-4),
        ("5ms", Dimension::Time, 5e-3),
        ("64KiB", Dimension::Size, 65536.0),
        ("0.5%", Dimension::Share, 0.005),
        ("1e5", Dimension::Number, 1e5),
    ] {
        assert_eq!(text(level), Some((dimension, number)), "{level}");
    }
    for word in ["2x", "netns", "", "-", "inf", "10 apples", "3.4.5"] {
        assert_eq!(text(word), None, "{word}");
    }
    assert_eq!(quantity(&Value::Int(3)), Some((Dimension::Number, 3.0)));
    assert_eq!(quantity(&Value::Bool(true)), None);
}

#[test]
fn levels_of_different_kinds_are_categories() {
    let of = |levels: &[&str]| {
        let levels: Vec<Value> = levels.iter().map(|l| Value::Text((*l).to_owned())).collect();
        dimension(&levels)
    };
    assert_eq!(of(&["100us", "5ms", "1s"]), Some(Dimension::Time));
    assert_eq!(of(&["100us", "1Mbit/s"]), None);
    assert_eq!(of(&["1ms", "never"]), None);
    assert_eq!(of(&["1", "2x"]), None);
    assert_eq!(of(&[]), None);
}
