//! The page is one file that fetches nothing, whatever stands in a report; and what it shows is
//! there under the names by which it asks for it.

use serde_json::json;

use super::*;

/// Bazel wants a file either while it compiles or while it runs, and `report/tests.rs` reads it.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/run.json");

fn run() -> Value {
    let golden = fs::read_to_string(GOLDEN).expect("the golden run is there");
    serde_json::from_str(&golden).expect("the golden run is JSON")
}

#[test]
fn nothing_in_a_report_can_end_its_element_or_take_anothers_place() {
    let mut run = run();
    let evil = "</script><script>alert(1)</script>{{bench}}";
    run["examples"][0]["title"] = json!(evil);
    let text = page(&run, None);
    assert!(!text.contains("alert(1)</script>"), "a string of the report is markup");
    let embedded = text.split("id=\"run\">").nth(1).unwrap();
    let embedded = embedded.split("</script>").next().unwrap();
    let read: Value = serde_json::from_str(embedded).unwrap();
    assert_eq!(read["examples"][0]["title"], evil, "it is kept as it was");
}

#[test]
fn the_page_fetches_nothing_and_no_place_is_left() {
    let text = page(&run(), None);
    for word in ["http://", "https://", "src=", "@import", "url(", "fetch(", "innerHTML"] {
        let known = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!known.contains(word), "{word}");
    }
    for place in PARTS.iter().map(|(place, _)| *place).chain(["{{run}}", "{{bench}}"]) {
        assert!(!text.contains(place), "{place}");
    }
}

#[test]
fn two_files_are_written_and_the_page_can_be_made_again_from_one() {
    let folder = std::env::temp_dir().join(format!("lab-page-{}", std::process::id()));
    let at = write(&folder.join("deep"), &run()).unwrap();
    let args = ReportArgs {
        run: folder.join("deep").join(DOCUMENT),
        bench: None,
        to: folder.join("again.html"),
    };
    let again = args.write().unwrap();
    assert_eq!(fs::read_to_string(&at).unwrap(), fs::read_to_string(again).unwrap());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_document_of_another_kind_is_refused_with_what_was_expected() {
    let folder = std::env::temp_dir().join(format!("lab-kinds-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let refused = |text: &str| {
        let file = folder.join("some.json");
        fs::write(&file, text).unwrap();
        let args = ReportArgs { run: file, bench: None, to: folder.join("x.html") };
        let error = args.write().unwrap_err().to_string();
        assert!(error.contains("some.json"), "{error}");
        error
    };
    let other = format!("{{\"schema\": \"{BENCH_SCHEMA}\"}}");
    let error = refused(&other);
    assert!(error.contains(SCHEMA) && error.contains(BENCH_SCHEMA), "{error}");
    assert!(refused("{}").contains("without a schema"));
    assert!(refused("√ all").contains("expected the JSON of `lab run --output json`"));
    fs::remove_dir_all(folder).unwrap();
}
