//! The contract of the event log, as tests that run on each implementation.
//!
//! On the embedded log always; on Kafka when `KARAT_TEST_KAFKA` names a broker (`dev/kafka.sh start` prints it). Each
//! case has its own topic, so that all run at once and leave each other alone.

// Helpers of tests are tests: what fails there fails the case.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod append;
mod consume;
mod harness;
mod kill;
mod rebalance;

/// Makes a test for each implementation of each case.
macro_rules! contract {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::$module::$case(crate::harness::Fixture::embedded(stringify!($case))).await;
            })+
        }
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(fixture) = crate::harness::Fixture::kafka(stringify!($case)).await {
                    crate::$module::$case(fixture).await;
                }
            })+
        }
    };
}

contract! {
    append::returned_positions_are_where_the_records_are_read,
    append::keys_headers_and_empty_payloads_come_back_as_they_were,
    append::concurrent_appends_are_all_there_exactly_once,
    append::a_big_append_arrives_whole_and_in_order,
    append::a_record_above_the_limit_is_refused_by_name,
    append::an_append_of_nothing_is_no_error,
    append::an_unknown_topic_is_an_error_and_is_not_created,
    append::a_topic_name_that_is_not_allowed_is_refused,
    append::ensuring_a_topic_twice_leaves_it_as_it_was,
    append::a_topic_made_anew_has_another_identity,
    append::a_restart_keeps_everything,
    consume::records_of_a_key_keep_their_order,
    consume::reading_starts_where_the_positions_say,
    consume::a_position_above_the_end_is_named,
    consume::a_position_below_the_begin_of_an_empty_topic_is_named,
    consume::another_record_where_one_was_read_is_named,
    consume::a_failing_position_table_fails_the_consumer,
    consume::an_idle_consumer_wakes_at_once,
    consume::an_idle_poll_ends_at_its_deadline,
    consume::limits_of_a_poll_hold_and_nothing_is_skipped,
    consume::a_dropped_poll_loses_nothing,
    consume::a_slow_consumer_gets_everything,
}
