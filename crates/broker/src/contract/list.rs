//! The list of all scenarios: once, for [`SCENARIOS`] and for the macros that make tests of them.

use super::{Needs, Scenario};

/// Calls a macro with the names of all scenarios: `contract_scenarios!(with!(anything))` becomes
/// `with! { (anything) anew: [file::name, …] reopened: [file::name, …] }`. The ones under `reopened` need [`Needs::reopen`].
#[macro_export]
macro_rules! contract_scenarios {
    ($with:ident!($($arguments:tt)*)) => {
        $with! {
            ($($arguments)*)
            anew: [
                topics::a_topic_is_made_once_and_keeps_what_it_is,
                topics::names_that_are_not_allowed_are_refused,
                topics::what_does_not_exist_is_not_found,
            ]
            reopened: [
                topics::topics_and_subscriptions_are_there_again,
            ]
        }
    };
}

macro_rules! scenarios {
    (() anew: [$($a_file:ident::$a_name:ident,)*] reopened: [$($r_file:ident::$r_name:ident,)*]) => {
        /// All scenarios.
        pub const SCENARIOS: &[Scenario] = &[
            $(Scenario { name: stringify!($a_name), needs: Needs { reopen: false }, run: |harness| Box::pin(super::$a_file::$a_name(harness)) },)*
            $(Scenario { name: stringify!($r_name), needs: Needs { reopen: true }, run: |harness| Box::pin(super::$r_file::$r_name(harness)) },)*
        ];
    };
}

contract_scenarios!(scenarios!());
