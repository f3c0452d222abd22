//! deny.toml as far as `deps` enforces it. The file is cargo-deny's own, so that there is one list;
//! cargo-deny needs an installation and its advisory database a network, these checks need neither.

use std::path::Path;

use serde::Deserialize;

/// deny.toml.
#[derive(Debug, Default, Deserialize)]
pub struct Policy {
    /// `[licenses]`
    pub licenses: Licenses,
    /// `[bans]`
    pub bans: Bans,
}

/// `[licenses]`
#[derive(Debug, Default, Deserialize)]
pub struct Licenses {
    /// SPDX identifiers that may be relied on.
    pub allow: Vec<String>,
}

/// `[bans]`
#[derive(Debug, Default, Deserialize)]
pub struct Bans {
    /// Packages that may not be used at all.
    #[serde(default)]
    pub deny: Vec<Entry>,
    /// Features that may not be on.
    #[serde(default)]
    pub features: Vec<Features>,
    /// Second versions of a package that are known, as `name@version`.
    #[serde(default)]
    pub skip: Vec<Entry>,
}

/// A package and why it is listed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `name` or `name@version`.
    #[serde(rename = "crate")]
    pub package: String,
    /// Why.
    pub reason: String,
}

/// A package and the features that may not be on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The package's name.
    #[serde(rename = "crate")]
    pub package: String,
    /// The features.
    pub deny: Vec<String>,
    /// Why.
    pub reason: String,
}

impl Policy {
    /// Reads `deny.toml` below `root`.
    ///
    /// # Errors
    ///
    /// It is not there, or has no such form.
    pub fn read(root: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(root.join("deny.toml"))
            .map_err(|e| format!("deny.toml: cannot be read: {e}"))?;
        toml::from_str(&text).map_err(|e| format!("deny.toml: {e}"))
    }

    /// True when a licence expression can be met with allowed licences.
    ///
    /// # Errors
    ///
    /// It is not an SPDX expression (of the old forms, only `A/B` for `A OR B` is read).
    pub fn permits(&self, expression: &str) -> Result<bool, String> {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        let permitted = self.any_of(&mut rest)?;
        match rest.first() {
            None => Ok(permitted),
            Some(word) => Err(format!("expected AND or OR, got {word:?}")),
        }
    }

    fn any_of(&self, rest: &mut &[&str]) -> Result<bool, String> {
        let mut permitted = self.all_of(rest)?;
        while take(rest, "OR") {
            permitted |= self.all_of(rest)?;
        }
        Ok(permitted)
    }

    fn all_of(&self, rest: &mut &[&str]) -> Result<bool, String> {
        let mut permitted = self.one(rest)?;
        while take(rest, "AND") {
            permitted &= self.one(rest)?;
        }
        Ok(permitted)
    }

    fn one(&self, rest: &mut &[&str]) -> Result<bool, String> {
        if take(rest, "(") {
            let inner = self.any_of(rest)?;
            return if take(rest, ")") { Ok(inner) } else { Err("a ) is missing".into()) };
        }
        let [name, after @ ..] = *rest else { return Err("a licence is missing".into()) };
        *rest = after;
        let mut licence = (*name).to_owned();
        // An exception belongs to the licence's name: allowing one does not allow the other.
        if take(rest, "WITH") {
            let [exception, after @ ..] = *rest else { return Err("WITH what?".into()) };
            licence = format!("{licence} WITH {exception}");
            *rest = after;
        }
        Ok(self.licenses.allow.contains(&licence))
    }
}

/// Takes `word` off the front if it is there.
fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if *first == word => {
            *rest = after;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_met_by_allowed_licences_only() {
        let allow = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        let policy = Policy { licenses: Licenses { allow }, ..Policy::default() };
        for good in
            ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "MIT AND ISC", "(GPL-3.0 OR MIT) AND ISC"]
        {
            assert_eq!(policy.permits(good), Ok(true), "{good}");
        }
        assert_eq!(policy.permits("Apache-2.0 WITH LLVM-exception"), Ok(true));
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH LLVM-exception", "Apache-2.0"] {
            assert_eq!(policy.permits(bad), Ok(false), "{bad}");
        }
        for wrong in ["", "MIT ISC", "(MIT", "MIT OR", "MIT WITH"] {
            assert!(policy.permits(wrong).is_err(), "{wrong}");
        }
    }
}
