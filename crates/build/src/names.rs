//! Rust identifiers for names of the project: `fetch-users` is the module `fetch_users` and the constant `FETCH_USERS`.

use std::collections::HashSet;

/// A name as a lower-case identifier. Keywords get an underscore, since some of them (`self`, `crate`) have no raw form.
pub(crate) fn snake(name: &str) -> String {
    let ident = name.replace('-', "_");
    if syn::parse_str::<syn::Ident>(&ident).is_ok() { ident } else { ident + "_" }
}

/// A name as the identifier of a static.
pub(crate) fn shout(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}

/// Identifiers of one scope. Two edges may come out alike, `a --> b--c` and `a -->|b| c`; the later one is numbered.
#[derive(Default)]
pub(crate) struct Scope(HashSet<String>);

impl Scope {
    /// The wanted identifier, or that with the first free number behind it.
    pub(crate) fn claim(&mut self, wanted: String) -> String {
        let mut ident = wanted.clone();
        let mut number = 2;
        while !self.0.insert(ident.clone()) {
            ident = format!("{wanted}_{number}");
            number += 1;
        }
        ident
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        for (name, expected) in
            [("fetch-users", "fetch_users"), ("self", "self_"), ("type", "type_"), ("crate", "crate_"), ("a--b", "a__b")]
        {
            assert_eq!(snake(name), expected);
            syn::parse_str::<syn::Ident>(expected).expect("an identifier");
        }
        assert_eq!(shout("fetch-users"), "FETCH_USERS");
    }

    #[test]
    fn a_scope_gives_each_identifier_once() {
        let mut scope = Scope::default();
        let claimed: Vec<String> = ["a", "a", "a_2", "a"].into_iter().map(|name| scope.claim(name.to_owned())).collect();
        assert_eq!(claimed, ["a", "a_2", "a_2_2", "a_3"]);
    }
}
