//! Canonical JSON: RFC 8785 (the JSON Canonicalization Scheme) with one difference: integers written without a
//! fraction or an exponent keep every digit, also beyond 2^53, where the RFC would round them (decision 17).
//!
//! Two texts that mean the same have one canonical form, whatever their white space, key order or escapes.

use std::borrow::Cow;

use super::{Fault, FaultKind, Node};

/// The canonical form of a value.
///
/// # Errors
/// A number is larger than a double can hold.
pub fn canonical(node: &Node<'_>) -> Result<String, Fault> {
    let mut out = String::with_capacity(1_024);
    write(node, &mut out)?;
    Ok(out)
}

fn write(node: &Node<'_>, out: &mut String) -> Result<(), Fault> {
    match node {
        Node::Null => out.push_str("null"),
        Node::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Node::Number(digits) => out.push_str(&number(digits)?),
        Node::Text(text) => write_text(text, out),
        Node::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out).map_err(|fault| fault.under(&index.to_string()))?;
            }
            out.push(']');
        }
        Node::Object(fields) => write_object(fields, out)?,
    }
    Ok(())
}

fn write_object(fields: &[(Cow<'_, str>, Node<'_>)], out: &mut String) -> Result<(), Fault> {
    let mut sorted: Vec<&(Cow<'_, str>, Node<'_>)> = fields.iter().collect();
    // The RFC sorts by UTF-16 code units, which differs from bytes for characters above U+FFFF.
    sorted.sort_unstable_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
    out.push('{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        write(value, out).map_err(|fault| fault.under(key))?;
    }
    out.push('}');
    Ok(())
}

/// Integers as written, anything else as ECMAScript prints the nearest double.
fn number(digits: &str) -> Result<Cow<'_, str>, Fault> {
    if !digits.contains(['.', 'e', 'E']) {
        return Ok(Cow::Borrowed(if digits == "-0" { "0" } else { digits }));
    }
    let value = digits.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| Fault {
        kind: FaultKind::InvalidJson,
        path: String::new(),
        message: "a number is larger than a double can hold".to_owned(),
    })?;
    Ok(Cow::Owned(ryu_js::Buffer::new().format_finite(value).to_owned()))
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[start..at]);
        start = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            other => out.push_str(&format!("\\u{other:04x}")),
        }
    }
    out.push_str(&text[start..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    fn of(text: &str) -> String {
        canonical(&parse(text).unwrap()).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_as_printed_there() {
        // RFC 8785, sections 3.2.2 and 3.2.4.
        let input = r#"{
          "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
          "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
          "literals": [null, true, false]
        }"#;
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                        \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(of(input), expected);
    }

    #[test]
    fn keys_are_sorted_as_the_rfc_does_by_utf_16() {
        // RFC 8785, section 3.2.3.
        let input = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
                        "1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control",
                        "\u00f6":"Latin Small Letter O With Diaeresis"}"#;
        let canonical = of(input);
        let values = [
            "Carriage Return",
            "One",
            "Control",
            "Latin Small Letter O With Diaeresis",
            "Euro Sign",
            "Emoji: Grinning Face",
            "Hebrew Letter Dalet With Dagesh",
        ];
        let places: Vec<usize> = values.iter().map(|value| canonical.find(value).unwrap()).collect();
        assert!(places.is_sorted(), "{canonical}");
    }

    #[test]
    fn doubles_print_as_in_the_table_of_the_rfc() {
        // RFC 8785, appendix B.
        for (bits, expected) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            let written = format!("{:e}", f64::from_bits(bits));
            let written = if written.contains('.') { written } else { written.replace('e', ".0e") };
            assert_eq!(of(&written), expected, "{bits:016x}");
        }
    }

    #[test]
    fn integers_keep_every_digit() {
        assert_eq!(
            of("[9007199254740993,-9223372036854775809,123456789012345678901234567890,-0]"),
            "[9007199254740993,-9223372036854775809,123456789012345678901234567890,0]"
        );
    }

    #[test]
    fn a_number_beyond_doubles_has_no_canonical_form() {
        let fault = canonical(&parse(r#"{"a":[1,1e999]}"#).unwrap()).unwrap_err();
        assert_eq!((fault.kind, fault.path.as_str()), (FaultKind::InvalidJson, "/a/1"));
    }

    #[test]
    fn deep_input_keeps_its_form() {
        let deep = format!("{}1{}", "[".repeat(128), "]".repeat(128));
        assert_eq!(of(&deep), deep);
    }
}
