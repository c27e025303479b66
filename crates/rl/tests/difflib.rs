//! The gestalt ratio against Python's difflib on real diffs (tests/parity/difflib_fixture.py).

#[test]
fn the_ratio_is_pythons_on_every_pair() {
    let fixture = include_str!("../../../tests/parity/difflib.json");
    let fixture: serde_json::Value = serde_json::from_str(fixture).expect("the fixture is JSON");
    let pairs = fixture["pairs"].as_array().expect("a list of pairs");
    assert!(pairs.len() >= 100);
    let mut junk = 0;
    for (index, pair) in pairs.iter().enumerate() {
        let text = |key: &str| pair[key].as_str().expect("a text");
        let expected = pair["ratio"].as_f64().expect("a number");
        let got = crrl_rl::gestalt::ratio(text("a"), text("b"));
        assert!((got - expected).abs() < 1e-12, "pair {index}: {got}, Python says {expected}");
        junk += usize::from(text("b").chars().count() >= 200);
    }
    assert!(junk >= 50, "only {junk} pairs are long enough for the frequent-character rule");
}
