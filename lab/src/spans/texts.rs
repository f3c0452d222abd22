//! Each text of the spans once: a run has a hundred thousand spans and some dozens of names,
//! addresses and messages. Strings in every span would be most of what they weigh.

use std::collections::HashMap;

/// Different texts that are kept; later ones all read as [`OTHER`].
const TEXTS_MAX: usize = 4_096;
/// Bytes of one text that are kept.
const TEXT_BYTES_MAX: usize = 256;
const OTHER: &str = "(more texts than the lab keeps)";

/// A text, by its place. The default is the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Text(u32);

impl Text {
    pub(super) const EMPTY: Self = Self(0);
    const OTHER: Self = Self(1);

    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }
}

/// The texts of one receiver.
#[derive(Debug)]
pub(super) struct Texts {
    all: Vec<Box<str>>,
    places: HashMap<Box<str>, Text>,
}

impl Default for Texts {
    fn default() -> Self {
        let places = [(Box::from(""), Text::EMPTY), (Box::from(OTHER), Text::OTHER)];
        Self { all: vec!["".into(), OTHER.into()], places: places.into() }
    }
}

impl Texts {
    pub(super) fn keep(&mut self, text: &str) -> Text {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        if self.all.len() == TEXTS_MAX {
            return Text::OTHER;
        }
        let place = Text(u32::try_from(self.all.len()).unwrap_or(1));
        self.all.push(text.into());
        self.places.insert(text.into(), place);
        place
    }

    pub(super) fn get(&self, text: Text) -> &str {
        self.all.get(text.0 as usize).map_or(OTHER, |text| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_place_and_a_bound() {
        let mut texts = Texts::default();
        let (a, b) = (texts.keep("a"), texts.keep("b"));
        assert_ne!(a, b);
        assert_eq!(texts.keep("a"), a);
        assert_eq!((texts.get(a), texts.get(Text::EMPTY)), ("a", ""));
        assert!(texts.keep("").is_empty());
        let long = texts.keep(&"ä".repeat(TEXT_BYTES_MAX));
        assert_eq!(texts.get(long).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn beyond_the_limit_all_texts_read_the_same_and_known_ones_stay() {
        let mut texts = Texts::default();
        let first = texts.keep("first");
        for number in 0..TEXTS_MAX {
            texts.keep(&number.to_string());
        }
        let (one, two) = (texts.keep("one more"), texts.keep("and one"));
        assert_eq!((one, texts.get(two)), (two, OTHER));
        assert_eq!(texts.keep("first"), first);
    }
}
