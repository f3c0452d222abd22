//! Standard base64, for the `…-data` of kubeconfigs: not worth a package.

/// Decodes; line breaks and blanks are skipped, padding may be missing.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    let mut padded = false;
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let value = match c {
            'A'..='Z' => u32::from(c) - u32::from('A'),
            'a'..='z' => u32::from(c) - u32::from('a') + 26,
            '0'..='9' => u32::from(c) - u32::from('0') + 52,
            '+' => 62,
            '/' => 63,
            '=' => {
                padded = true;
                continue;
            }
            other => return Err(format!("expected base64, found {other:?}")),
        };
        if padded {
            return Err("expected base64, found more after its =".into());
        }
        bits = bits << 6 | value;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    if count >= 6 {
        return Err("expected base64, and it is cut off".into());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn decodes_the_vectors_of_rfc_4648() {
        for (text, want) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\nYg==\n", "foob"),
            ("Zm9vYmE", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).as_deref(), Ok(want.as_bytes()), "{text}");
        }
        assert_eq!(decode("/+8="), Ok(vec![0xff, 0xef]));
        for bad in ["Z", "Zm9vY", "Zm9-", "Zg==Zg", "Zé=="] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
