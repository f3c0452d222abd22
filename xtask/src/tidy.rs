//! `cargo xtask tidy`: STYLE's numbers and DESIGN's walls as a test. Every rule is a function from
//! the tree to findings, listed once in `RULES`; `tests` plants a bad snippet for each.

use crate::{Finding, tree::Tree};

mod calls;
mod core_walls;
mod documents;
mod layout;
mod lengths;
mod links;

/// A rule looks at the whole tree.
type Rule = fn(&Tree, &mut Vec<Finding>);

/// All rules with the names that their findings carry.
const RULES: [(&str, Rule); 18] = [
    ("allow", calls::allow_has_a_reason),
    ("bazel", layout::bazel_beside_cargo),
    ("core", core_walls::core_is_sans_io),
    ("diff", documents::diffs_are_of_the_files),
    ("documented", documents::only_generated_code_is_undocumented),
    ("expect", calls::expect_says_why),
    ("file-head", layout::file_head),
    ("file-length", lengths::file_length),
    ("function-length", lengths::function_length),
    ("ignored-test", calls::no_ignored_test),
    ("line-length", lengths::line_length),
    ("link", links::links_resolve),
    ("module-name", layout::module_name),
    ("print", calls::libraries_do_not_print),
    ("readme", layout::readme_of_programs),
    ("registry-host", links::no_registry_host),
    ("sleep", calls::no_sleep),
    ("unfinished", calls::no_unfinished_code),
];

/// Everything that breaks a rule, in the order of the files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, rule) in RULES {
        rule(tree, &mut findings);
    }
    findings.sort();
    findings
}

#[cfg(test)]
mod tests;
