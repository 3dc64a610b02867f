use proptest::prelude::*;
use serde_json::json;

use super::*;

const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "x-keep": 1e3,
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true, "isDefaultGateway": true }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"#;

#[test]
fn it_is_put_behind_the_last_and_taken_out_again() {
    let there = chained(FLANNEL).unwrap().unwrap();
    let added = ",\n    {\"type\": \"podwire-policy\"}";
    assert_eq!(there, FLANNEL.replace("true } }\n  ]", &format!("true }} }}{added}\n  ]")));
    assert_eq!(chained(&there), Ok(None));
    assert_eq!(unchained(&there), Ok(Some(FLANNEL.to_owned())));
    assert_eq!(unchained(FLANNEL), Ok(None));
}

#[test]
fn the_list_keeps_its_shape() {
    for (before, after) in [
        (
            r#"{"plugins":[{"type":"a"}]}"#,
            r#"{"plugins":[{"type":"a"},{"type": "podwire-policy"}]}"#,
        ),
        (
            r#"{"plugins":[ {"type":"a"} ]}"#,
            r#"{"plugins":[ {"type":"a"}, {"type": "podwire-policy"} ]}"#,
        ),
        // The last of two counts, as for the runtime.
        (
            r#"{"plugins":[],"plugins":[{"type":"a"}]}"#,
            r#"{"plugins":[],"plugins":[{"type":"a"},{"type": "podwire-policy"}]}"#,
        ),
        (
            r#"{"a":"\"plugins\":[","plugins":[{"type":"a","b":"]}\\"}],"c":[1,{"d":[]}]}"#,
            r#"{"a":"\"plugins\":[","plugins":[{"type":"a","b":"]}\\"},{"type": "podwire-policy"}],"c":[1,{"d":[]}]}"#,
        ),
    ] {
        assert_eq!(chained(before).unwrap().unwrap(), after);
        assert_eq!(unchained(after).unwrap().unwrap(), before);
    }
}

#[test]
fn one_that_is_not_last_or_there_twice_is_put_last_with_its_options() {
    let ours = r#"{"TYPE":"podwire-policy","timeout":7}"#;
    let plain = r#"{"type":"podwire-policy"}"#;
    for list in [
        format!(r#"{{"plugins":[{ours},{{"type":"a"}},{{"type":"b"}}]}}"#),
        format!(r#"{{"plugins":[{{"type":"a"}},{ours},{{"type":"b"}},{plain}]}}"#),
        format!(r#"{{"plugins":[{ours},{plain},{{"type":"a"}},{{"type":"b"}}]}}"#),
    ] {
        let expected = format!(r#"{{"plugins":[{{"type":"a"}},{{"type":"b"}},{ours}]}}"#);
        assert_eq!(chained(&list).unwrap().unwrap(), expected, "{list}");
        let bare = r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#;
        assert_eq!(unchained(&list).unwrap().unwrap(), bare, "{list}");
    }
}

#[test]
fn what_is_no_list_is_refused() {
    for (text, refusal) in [
        ("", Refusal::NotJson),
        ("{", Refusal::NotJson),
        ("[]", Refusal::NotJson),
        (&FLANNEL[..FLANNEL.len() / 2], Refusal::NotJson),
        (r#"{"name":"n","type":"bridge"}"#, Refusal::Single),
        (r#"{"name":"n"}"#, Refusal::NoPlugins),
        (r#"{"plugins":{}}"#, Refusal::NoPlugins),
        (r#"{"plugins":[]}"#, Refusal::NoPlugins),
        (
            r#"{"plugins":[{"type":"podwire-policy"},{"type":"podwire-policy"}]}"#,
            Refusal::NoPlugins,
        ),
        (
            r#"{"type":"multus-shim","clusterNetwork":"/host/a.conflist"}"#,
            Refusal::Meta { network: Some("/host/a.conflist".into()) },
        ),
        (r#"{"plugins":[{"type":"multus"}]}"#, Refusal::Meta { network: None }),
    ] {
        assert_eq!(chained(text), Err(refusal), "{text}");
    }
    assert_eq!(unchained(r#"{"plugins":[{"type":"podwire-policy"}]}"#), Err(Refusal::NoPlugins));
}

/// Any JSON value, with words that look like what is looked for.
fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec!["plugins", "type", "a\"]}\\", "{[", "ü", "", "podwire"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn every_other_byte_stays(
        before in prop::collection::vec(value(), 0..3),
        plugins in prop::collection::vec(value(), 1..4),
        after in prop::collection::vec(value(), 0..3),
        is_pretty: bool,
    ) {
        let mut document = Map::new();
        for (index, value) in before.into_iter().enumerate() {
            document.insert(format!("before-{index}"), value);
        }
        document.insert("plugins".into(), plugins.clone().into());
        for (index, value) in after.into_iter().enumerate() {
            document.insert(format!("after-{index}"), value);
        }
        let document = Value::from(document);
        let text = if is_pretty { format!("{document:#}") } else { document.to_string() };
        let there = chained(&text).unwrap().unwrap();
        let mut expected = document.clone();
        expected["plugins"].as_array_mut().unwrap().push(json!({"type": POLICY}));
        prop_assert_eq!(serde_json::from_str::<Value>(&there).unwrap(), expected);
        prop_assert_eq!(unchained(&there).unwrap().unwrap(), text);
    }
}
