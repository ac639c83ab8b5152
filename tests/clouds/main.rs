//! One suite for every cloud: what the `Cloud` trait promises, held against the cloud's simulator
//! over real HTTP, unchanged from cloud to cloud.

mod contract;
mod faults;
mod limits;
mod lost;
mod stage;

/// The suite against one cloud: the name of a constructor of [`stage::Stage`].
macro_rules! contract {
    ($cloud:ident) => {
        mod $cloud {
            use crate::stage::Stage;

            contract!($cloud: contract {
                a_vm_lives_its_whole_life
                a_guest_that_ignores_a_shutdown_is_cut_off
                a_server_is_adopted_with_the_labels_that_it_has
                what_is_foreign_is_refused_and_stays_as_it_is
                repeats_change_nothing
                a_snapshot_is_the_disk_and_a_new_instance
                an_address_survives_its_server
                lists_are_read_to_their_last_page
                words_of_tomorrow_break_no_read
            });
            contract!($cloud: limits {
                a_size_that_is_sold_out_is_said_and_leaves_the_server_as_it_was
                a_change_of_size_has_its_rules
                what_is_protected_is_not_deleted
                limits_and_tokens_are_told_apart
                prices_are_live_and_rules_have_their_source
            });
            contract!($cloud: lost {
                a_lost_answer_never_makes_two
                orders_at_once_end_in_one
            });
            contract!($cloud: faults {
                every_fault_ends_cleanly_or_clearly
            });
        }
    };
    ($cloud:ident: $file:ident { $($test:ident)* }) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                crate::$file::$test(Stage::$cloud).await;
            }
        )*
    };
}

contract!(hetzner);
contract!(digitalocean);
