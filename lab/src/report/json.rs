//! The JSON output: one document, nothing else on stdout.

use serde::Serialize;

/// `document` as indented JSON with a final line feed.
pub(crate) fn print<T: Serialize>(document: &T) -> String {
    let text = serde_json::to_string_pretty(document);
    text.expect("reports have string keys and no failing serializer") + "\n"
}
