//! The scenarios, by subject, each listed once.
//!
//! Each is a function whose name is what it shows, below the rules it cites (`spec/README.md`).

use crate::suite::Scenario;
use crate::world::{Span, Step, World};

/// Hands the list of all scenarios, by module, to a macro.
#[macro_export]
macro_rules! for_each_scenario {
    ($then:ident) => {
        $then! {
            open "open.rs": [
                only_the_three_flags_are_known,
                a_descriptor_is_nonblocking_if_opened_so,
            ];
            api "api.rs": [
                before_the_handshake_nothing_else_works,
                the_answer_lists_what_exists_whatever_was_asked,
                the_first_broken_rule_decides,
                a_feature_that_is_not_there_is_an_unknown_bit,
                a_failed_handshake_leaves_no_trace,
                a_handshake_succeeds_once,
                only_whole_request_words_are_known,
            ];
            range "range.rs": [
                a_range_is_aligned_not_empty_and_inside_the_address_space,
                a_range_may_begin_at_zero_and_end_at_the_end,
                an_unreadable_argument_is_looked_at_first,
            ];
            register "register.rs": [
                the_answer_follows_the_modes_asked_for,
                the_first_broken_rule_decides,
                a_mapping_that_only_touches_the_end_does_not_count,
                the_first_mapping_that_offends_decides,
                holes_are_skipped,
                what_lies_between_two_regions_is_skipped,
                a_refused_range_is_not_registered_in_part,
                a_registration_whose_answer_is_lost_stays,
                parts_of_a_mapping_are_registered_apart,
                a_superset_is_kept_and_anything_else_replaces,
                pages_that_are_there_raise_no_faults,
                protection_left_by_a_replacement_outlives_unregistering,
                protection_that_nobody_registers_any_more_stops_nobody,
                registering_wakes_nobody_and_says_nothing,
                inaccessible_mappings_are_registered_and_filled,
            ];
            unregister "unregister.rs": [
                the_first_broken_rule_decides,
                memory_that_can_never_be_registered_cannot_be_unregistered,
                a_foreign_registration_anywhere_is_refused_and_nothing_changes,
                unregistered_memory_is_passed_over,
                a_middle_part_can_be_taken_out,
                the_sleepers_of_the_range_go_on_read_or_not,
                protection_goes_and_poison_stays,
                the_writers_of_a_range_that_is_only_protected_go_on,
            ];
            fault "fault.rs": [
                a_missing_page_is_announced_with_the_kind_of_access,
                a_write_to_a_protected_page_is_announced_with_flags_3,
                a_write_to_a_marker_is_announced_where_no_missing_fault_comes_first,
                a_missing_page_with_a_marker_is_missing_first,
                what_the_mapping_forbids_is_not_announced,
                what_is_unmapped_is_not_announced,
                an_unmapped_address_is_not_announced,
                the_address_is_rounded_down_unless_asked_for,
                an_access_across_a_border_reports_each_page_in_turn,
                the_thread_is_named_if_asked_for,
                every_thread_sends_its_own_message,
                a_handled_signal_repeats_the_fault,
                with_the_feature_a_fault_is_a_bus_error,
                with_the_feature_a_write_to_a_marker_is_a_bus_error,
                a_page_that_came_meanwhile_is_not_reported,
                zeros_are_enough_for_a_write,
                who_cannot_wait_is_refused_and_nobody_is_told,
            ];
            read "read.rs": [
                whole_messages_are_read_as_many_as_fit,
                an_empty_queue_is_eagain_before_the_buffer_is_looked_at,
                a_blocking_read_sleeps_until_there_is_a_message,
                a_signal_ends_a_sleeping_read,
                the_oldest_fault_is_read_first,
                a_message_that_cannot_be_stored_is_lost,
                the_flag_at_the_call_decides,
            ];
            poll "poll.rs": [
                a_nonblocking_descriptor_is_readable_while_a_message_waits,
                a_blocking_descriptor_is_always_in_error,
            ];
            wake "wake.rs": [
                nothing_but_the_range_is_checked,
                exactly_the_sleepers_inside_the_range_go_on,
                unread_messages_of_the_woken_vanish,
                a_thread_woken_ten_times_without_a_page_sleeps_ten_times,
            ];
            fill "fill.rs": [
                arguments_are_judged_before_anything_else,
                what_was_done_is_counted_and_the_next_call_says_why,
                a_result_that_cannot_be_written_wakes_nobody,
                sleepers_of_the_pages_done_are_woken_and_no_others,
                the_target_lies_in_one_registered_mapping,
                a_mapping_made_next_to_a_registered_one_is_not_it,
                any_context_may_fill_and_wakes_only_its_own,
                a_range_registered_for_protection_alone_can_be_filled,
            ];
            copy "copy.rs": [
                a_copied_page_wakes_its_sleepers,
                modes_and_source_are_judged,
                the_mapping_comes_before_the_mode,
                an_unreadable_source_wins_over_a_page_that_is_there,
                a_copy_stops_at_a_page_that_is_there_and_where_its_source_ends,
                a_copy_replaces_any_marker,
            ];
            zeropage "zeropage.rs": [
                only_dontwake_is_a_mode,
                neither_a_page_nor_a_marker_is_replaced,
                a_zero_page_is_a_page,
            ];
            writeprotect "writeprotect.rs": [
                the_first_broken_rule_decides,
                what_comes_before_an_unprotectable_mapping_is_changed,
                holes_and_borders_are_no_obstacle,
                lifting_wakes_every_sleeper_of_the_range,
                only_what_is_there_is_protected,
                with_the_feature_missing_pages_are_marked,
                filling_over_a_marker_depends_on_the_fill,
                protection_survives_mprotect_and_a_superset,
                a_readonly_mapping_can_be_protected_and_stays_readonly,
                poison_stays_whatever_is_protected,
                a_page_copied_protected_stops_the_writer_that_waited,
            ];
            poison "poison.rs": [
                only_a_missing_page_can_be_poisoned,
                any_access_to_poison_is_a_bus_error,
                poison_goes_by_discarding_or_by_copying_over,
                poison_that_outlived_its_registration_goes_by_discarding,
                poison_among_scattered_pages_goes_by_discarding,
                poison_moves_with_its_mapping,
                a_woken_sleeper_of_a_poisoned_page_gets_the_bus_error,
            ];
            close "close.rs": [
                the_last_close_makes_ordinary_memory_of_everything,
                changes_of_the_layout_say_nothing_and_take_effect,
            ];
            fdinfo "fdinfo.rs": [
                the_lines_count_sleepers_and_show_what_is_on,
            ];
            original_open "original/open.rs": [
                only_two_flags_are_known,
                a_new_context_waits_for_the_handshake_and_has_nobody,
                descriptors_that_cannot_be_made_leave_nothing_behind,
            ];
            original_ioctl "original/ioctl.rs": [
                only_whole_request_words_are_known,
                fills_exist_only_as_an_option,
                everything_works_before_the_handshake,
                success_is_zero_for_all,
            ];
            original_api "original/api.rs": [
                a_second_handshake_fails_before_its_argument_is_looked_at,
                only_the_version_is_read_and_everything_is_written,
                another_version_is_answered_with_zeros_and_may_be_tried_again,
                an_answer_that_cannot_be_written_leaves_the_state,
                the_handshake_wakes_no_sleeper,
                exactly_one_of_two_simultaneous_handshakes_wins,
            ];
            original_range "original/range.rs": [
                a_range_is_aligned_not_empty_and_inside_the_address_space,
                an_unreadable_argument_is_looked_at_first,
            ];
            original_register "original/register.rs": [
                exactly_mode_1_passes,
                the_first_broken_rule_decides,
                nothing_mapped_above_is_no_memory_and_nothing_mapped_inside_is_invalid,
                the_first_mapping_that_offends_decides,
                another_contexts_range_is_busy_and_nothing_changes,
                gaps_are_tolerated_and_stay_unregistered,
                a_hole_that_is_mapped_later_is_not_registered,
                exactly_the_range_is_registered,
                registering_again_succeeds_and_says_the_same,
                equal_neighbours_are_one_registration,
                a_registration_whose_answer_is_lost_stays,
                pages_that_are_there_raise_no_faults,
                registering_wakes_nobody,
            ];
            original_unregister "original/unregister.rs": [
                a_range_with_other_memory_in_it_is_refused,
                another_contexts_registration_is_refused,
                exactly_the_range_is_unregistered,
                unregistering_wakes_the_sleepers_of_the_range_and_no_others,
            ];
            original_fault "original/fault.rs": [
                a_fault_is_announced_as_its_page_and_the_kind_of_access,
                a_fault_is_known_at_once,
                closing_never_raises_a_bus_error,
                each_thread_gets_its_own_word,
                an_interrupted_sleeper_leaves_no_trace_and_faults_again,
                a_page_that_came_meanwhile_means_retry,
                a_thread_woken_ten_times_without_a_page_sleeps_ten_times,
                a_read_sleeper_sleeps_on,
                a_wake_after_the_read_ends_the_sleep,
                each_fault_is_notified,
            ];
            original_read "original/read.rs": [
                the_state_comes_before_the_count,
                as_many_words_as_fit_are_read_oldest_first,
                a_blocking_read_sleeps_until_there_is_a_word,
                one_reader_is_woken_per_word,
                a_word_that_could_not_be_delivered_is_delivered_first_next_time,
                a_word_may_name_a_fault_that_is_over,
            ];
            original_poll "original/poll.rs": [
                a_descriptor_is_readable_while_a_word_waits_blocking_or_not,
                a_wake_does_not_take_an_unread_word_back,
            ];
            original_wake "original/wake.rs": [
                neither_handshake_nor_registration_nor_mapping_is_needed,
                one_wake_releases_those_that_were_read_and_no_others,
                a_wake_right_after_the_fault_was_read_is_never_lost,
                sleepers_are_woken_oldest_first,
            ];
            original_release "original/release.rs": [
                the_last_close_wakes_everybody_read_or_not,
                a_context_outlives_its_address_space_without_holding_it,
            ];
            original_fdinfo "original/fdinfo.rs": [
                three_lines_count_the_queue_and_name_the_protocol,
            ];
            original_fill "original/fill.rs": [
                a_fill_wakes_those_that_were_read,
                registrations_are_changed_whole_or_not_at_all,
            ];
        }
    };
}

macro_rules! list {
    ($($module:ident $path:literal: [$($name:ident,)*];)*) => {
        $(#[path = $path]
        mod $module;)*

        /// All of them.
        pub static ALL: &[Scenario] = &[$($(Scenario {
            module: stringify!($module),
            name: stringify!($name),
            run: $module::$name,
            source: include_str!($path),
        },)*)*];
    };
}

for_each_scenario!(list);

const MISSING: u64 = 1;
const WP: u64 = 2;

/// The scenario of this name.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn find(module: &str, name: &str) -> &'static Scenario {
    let found = ALL.iter().find(|scenario| (scenario.module, scenario.name) == (module, name));
    found.unwrap_or_else(|| panic!("no scenario {module}::{name}"))
}

/// Registers a range, and expects that and the answer for these modes.
fn registers<'w, 'a>(w: &'w mut World<'a>, fd: usize, span: Span, mode: u64) -> Step<'w, 'a> {
    let protect = if mode & WP == 0 { 0 } else { 0x40 };
    let (theirs, ours) = (0x13c | protect, 0x11c | protect);
    let step = w.register(fd, span, mode);
    step.is_but(format!("0 ioctls {theirs:#x}"), "m/register/answer", format!("0 ioctls {ours:#x}"))
}

/// Registers a range with the original protocol, and expects that and its answer.
fn adds<'w, 'a>(w: &'w mut World<'a>, fd: usize, span: Span) -> Step<'w, 'a> {
    let answer = if w.has_fills() { "0 ioctls 0x1c" } else { "0 ioctls 0x4" };
    w.register(fd, span, MISSING).is(answer)
}
