//! The upper-case names of status codes. tonic prints a sentence for a code and `Debug` prints
//! Rust's spelling; gRPC's documents, the peers and every dashboard say `DEADLINE_EXCEEDED`.

use tonic::Code;

/// The canonical name of a status code.
pub fn code_name(code: Code) -> &'static str {
    evenkeel::core::Code::ALL[code as usize].name()
}

/// `text`, cut behind at most `len_max` bytes between two characters.
pub fn cut(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_name_that_its_rust_spelling_gives() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            let mut name = String::new();
            for c in format!("{code:?}").chars() {
                if c.is_uppercase() && !name.is_empty() && number != 0 {
                    name.push('_');
                }
                name.extend(c.to_uppercase());
            }
            assert_eq!(code_name(code), name, "{number}");
        }
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(cut("abc", 10), "abc");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
