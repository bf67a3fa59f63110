//! The list of all scenarios: once, for [`SCENARIOS`] and for the macros that make tests of them.

use super::{Needs, Scenario};

/// Calls a macro with the names of all scenarios: `contract_scenarios!(with!(anything))` becomes
/// `with! { (anything) anew: [file::name, …] reopened: [file::name, …] }`. The ones under `reopened` need [`Needs::reopen`].
#[macro_export]
#[doc(hidden)]
macro_rules! contract_scenarios {
    ($with:ident!($($arguments:tt)*)) => {
        $with! {
            ($($arguments)*)
            anew: [
                topics::a_topic_is_made_once_and_keeps_what_it_is,
                topics::names_that_are_not_allowed_are_refused,
                topics::what_does_not_exist_is_not_found,
                topics::a_topic_is_removed_when_nobody_subscribes_to_it,
                subscriptions::consumers_of_one_subscription_agree_on_its_kind,
                subscriptions::every_subscription_gets_every_message_in_order,
                subscriptions::shared_consumers_each_get_some_and_none_twice,
                subscriptions::what_a_consumer_held_goes_to_the_others_when_it_leaves,
                subscriptions::a_waiting_consumer_hears_of_what_another_returns,
                subscriptions::a_failover_subscription_has_one_active_consumer_and_a_successor,
                subscriptions::an_exclusive_consumer_is_followed_by_another,
                subscriptions::unsubscribing_removes_the_backlog_and_waits_for_no_consumer,
                subscriptions::a_consumer_may_outlive_much_coming_and_going,
                keys::a_key_stays_with_its_consumer_as_long_as_the_others_stay,
                keys::a_key_moves_when_nothing_of_it_is_held,
                keys::a_consumer_that_takes_nothing_holds_up_its_own_keys_only,
                keys::messages_of_a_key_wait_for_the_one_before,
                keys::a_message_given_back_stays_at_the_head_of_its_key,
                keys::messages_without_a_key_go_to_anybody,
                keys::the_order_of_each_key_holds_with_many_consumers_and_failures,
                publishing::positions_count_from_zero_without_gaps,
                publishing::positions_follow_the_order_of_publishing_when_many_publish,
                publishing::a_message_comes_out_as_it_went_in,
                publishing::a_message_that_is_too_large_refuses_its_whole_batch,
                publishing::a_batch_to_a_missing_topic_does_nothing_to_the_others,
                publishing::repetitions_of_a_named_producer_are_dropped,
                publishing::a_producer_that_publishes_nothing_for_long_is_forgotten,
                publishing::of_too_many_producers_those_are_forgotten_that_were_silent_for_longest,
                publishing::a_full_topic_refuses_and_recovers_when_it_is_drained,
                receiving::a_consumer_holds_as_many_as_its_permits_and_no_more,
                receiving::a_single_permit_is_enough_for_everything,
                receiving::receive_gives_at_most_what_was_asked_for,
                receiving::receive_gives_at_most_so_many_bytes_and_at_least_one_message,
                receiving::a_waiting_consumer_hears_of_what_is_published,
                receiving::a_call_that_is_given_up_loses_nothing_and_repeats_nothing,
                receiving::what_a_call_that_was_given_up_had_goes_to_the_next_consumer,
                receiving::what_is_settled_is_not_handed_out_by_a_call_that_was_under_way,
                settling::each_message_is_settled_for_itself,
                settling::a_message_can_be_settled_by_who_never_got_it,
                settling::a_cumulative_acknowledgement_settles_all_before_it,
                settling::a_cumulative_acknowledgement_is_refused_where_messages_are_shared,
                settling::a_message_that_is_given_back_comes_again_not_before_its_delay,
                settling::a_message_that_is_given_back_is_counted_and_can_be_settled_meanwhile,
                settling::attempts_rise_by_one_with_each_delivery,
                settling::attempts_are_counted_for_each_subscription,
                delays::a_message_comes_not_before_its_time,
                delays::a_message_that_waits_for_its_time_holds_nothing_up,
                accounts::a_root_is_done_when_nothing_of_it_is_pending,
                accounts::a_root_that_is_sent_twice_counts_twice,
                accounts::a_fan_out_is_pending_until_every_subscription_has_settled,
                accounts::a_diamond_is_done_when_both_branches_are_also_if_one_gives_nothing,
                accounts::a_dead_letter_keeps_its_root_dead_lettered_until_it_is_redriven,
                accounts::a_dead_letter_that_is_dropped_keeps_its_root_dead_lettered,
                accounts::messages_without_a_root_and_plain_topics_count_in_no_account,
                accounts::who_waits_for_a_root_hears_of_its_outcome,
                accounts::removing_or_moving_a_subscription_settles_its_part,
                steps::a_step_settles_publishes_and_writes_together,
                steps::a_guarded_step_that_is_repeated_does_nothing,
                steps::a_step_without_guard_ignores_inputs_that_are_settled,
                steps::nothing_of_a_refused_step_has_happened,
                steps::a_value_of_state_may_have_16_mib_and_no_more,
                steps::a_message_is_settled_by_one_of_many_who_try_at_once,
                seeking::a_new_subscription_starts_where_it_is_told,
                seeking::a_subscription_is_moved_back_and_forth,
                seeking::what_is_settled_is_kept_only_where_a_topic_keeps_it,
                seeking::what_is_kept_is_let_go_after_its_time,
                seeking::times_out_of_order_are_found_by_the_first_that_fits,
                looking::peeking_takes_nothing,
                looking::statistics_tell_what_there_is,
                looking::a_broker_tells_its_durability_and_its_limit,
                closing::every_call_after_closing_is_refused,
                closing::who_waits_hears_of_the_end,
                crowd::many_topics_and_subscriptions_do_not_disturb_each_other,
                crowd::eight_producers_and_eight_consumers_count_each_message_once,
                model::any_operations_leave_what_a_simple_model_says,
            ]
            reopened: [
                topics::topics_and_subscriptions_are_there_again,
                topics::a_topic_that_was_removed_is_gone_when_the_broker_is_opened_again,
                keys::the_order_of_each_key_holds_when_the_broker_is_opened_again,
                publishing::messages_of_every_size_are_whole_when_the_broker_is_opened_again,
                publishing::a_named_producer_is_known_when_the_broker_is_opened_again,
                settling::attempts_and_settlements_are_known_when_the_broker_is_opened_again,
                settling::a_cumulative_acknowledgement_is_known_when_the_broker_is_opened_again,
                delays::a_time_is_kept_when_the_broker_is_opened_again,
                delays::a_delay_is_kept_when_the_broker_is_closed_and_opened_again,
                accounts::accounts_and_outcomes_are_known_when_the_broker_is_opened_again,
                steps::steps_and_state_are_there_when_the_broker_is_opened_again,
                seeking::a_moved_subscription_and_what_is_kept_are_there_again,
                closing::what_was_under_way_when_the_broker_was_closed_is_there_or_not_at_all,
            ]
        }
    };
}

/// Makes a `#[tokio::test]` of each scenario, on a [`Place`](crate::contract::Place) that is made for it: `contract_suite!(durable, PLACE)` for a broker that keeps what it has until it is
/// opened again, `contract_suite!(anew, PLACE)` for one that loses everything when it ends. Whoever uses it imports it by name and has `tokio` with its macros.
#[macro_export]
macro_rules! contract_suite {
    (anew, $place:expr) => {
        $crate::contract_scenarios!(contract_suite!(anew, $place));
    };
    (durable, $place:expr) => {
        $crate::contract_scenarios!(contract_suite!(durable, $place));
    };
    ((anew, $place:expr) anew: [$($file:ident::$name:ident,)*] reopened: [$($unfit:ident::$too:ident,)*]) => {
        contract_suite! { @ $place, $($name,)* }
    };
    ((durable, $place:expr) anew: [$($file:ident::$name:ident,)*] reopened: [$($other:ident::$more:ident,)*]) => {
        contract_suite! { @ $place, $($name,)* $($more,)* }
    };
    (@ $place:expr, $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::contract::run(stringify!($name), $place).await;
            }
        )*
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
