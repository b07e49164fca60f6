use super::*;

fn scope() -> Scope {
    let mut scope = Scope::new();
    scope.set("nodes", Value::Int(3));
    scope.set("kind", Value::Text("qemu".to_owned()));
    scope.set("loss", Value::Float(0.25));
    scope
}

fn eval(expression: &str) -> Value {
    evaluate(expression, &scope()).unwrap()
}

#[test]
fn arithmetic_keeps_integers_and_floats_apart() {
    assert_eq!(eval("nodes - 1"), Value::Int(2));
    assert_eq!(eval("nodes / 2"), Value::Float(1.5));
    assert_eq!(eval("nodes // 2"), Value::Int(1));
    assert_eq!(eval("2 ** 10"), Value::Int(1024));
    assert_eq!(eval("round(2.5)"), Value::Int(3));
    assert_eq!(eval("round(1.23456, 2)"), Value::Float(1.23));
    assert_eq!(eval("max(1, nodes, 2.5)"), Value::Int(3));
    assert_eq!(eval("min(1, loss)"), Value::Float(0.25));
    assert_eq!(eval("abs(-7)"), Value::Int(7));
    assert_eq!(eval("int('12') + int(3.9)"), Value::Int(15));
    assert_eq!(eval("sqrt(16)"), Value::Float(4.0));
}

#[test]
fn texts_and_truth() {
    assert_eq!(eval("'bridge' if kind == 'host' else kind"), Value::Text("qemu".to_owned()));
    assert_eq!(eval("loss < 0.5 and nodes > 1"), Value::Bool(true));
    assert_eq!(eval("kind ~ '-' ~ nodes"), Value::Text("qemu-3".to_owned()));
    assert_eq!(eval("len(kind)"), Value::Int(4));
    assert_eq!(eval("kind in 'qemu netns'"), Value::Bool(true));
}

#[test]
fn unknown_names_say_where_and_what_is_known() {
    let error = evaluate("1 + nods", &scope()).unwrap_err();
    assert_eq!(error.range(), Some(4..8));
    let ExprError::UnknownName { name, known, .. } = error else { panic!("{error}") };
    assert_eq!(name, "nods");
    assert_eq!(known, ["nodes", "kind", "loss"]);
    assert!(check("nodes + x", &BTreeSet::from(["nodes"])).is_err());
    assert!(check("nodes + max(1, 2)", &BTreeSet::from(["nodes"])).is_ok());
}

#[test]
fn nothing_hangs_panics_or_gives_infinity() {
    for expression in [
        "1 / 0",
        "1 // 0",
        "1 % 0",
        "10.0 ** 400",
        "9 ** 99",
        "'x' * 100000000",
        "sqrt(-1)",
        "",
        " ",
        "1 +",
        "[1, 2]",
        "{'a': 1}",
        "none",
        "nodes.x",
        "nodes()",
        "min()",
        "kind + 1",
        "ipv4('n0')",
        "len(1)",
        "-9223372036854775808 * -1",
        "'x' * 70000",
        "${nodes}",
        "#HOME",
        "HOME:-x",
        "1 }} {{ 2",
        "nodes|abs",
        "nodes is odd",
    ] {
        assert!(evaluate(expression, &scope()).is_err(), "{expression}");
    }
    let deep = format!("{}1{}", "(".repeat(2000), ")".repeat(2000));
    assert!(evaluate(&deep, &scope()).is_err());
    // As deep as the length allows: an answer of either kind, and no stack overflow.
    for (part, end) in
        [("-", "1"), ("not ", "1"), ("1+", "1"), ("1**", "1"), ("1 if 1 else ", "1"), ("(", "")]
    {
        let deep = part.repeat((MAX_LENGTH - 1) / part.len()) + end;
        let _ = evaluate(&deep, &scope());
        assert!(evaluate(&part.repeat(MAX_LENGTH), &scope()).is_err());
    }
}

#[test]
fn scalars_follow_the_core_schema() {
    assert_eq!(Value::from_scalar("5"), Value::Int(5));
    assert_eq!(Value::from_scalar("0x10"), Value::Int(16));
    assert_eq!(Value::from_scalar("1e3"), Value::Float(1000.0));
    assert_eq!(Value::from_scalar("true"), Value::Bool(true));
    for text in ["yes", "nan", "inf", "10Mbit/s", "1.2.3", "e", "0x", "-"] {
        assert_eq!(Value::from_scalar(text), Value::Text(text.to_owned()));
    }
}
