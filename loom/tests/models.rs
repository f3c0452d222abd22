//! Runs the models. Their code is in the library, which is compiled without `cfg(test)`.

macro_rules! models {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            evenkeel_loom::$name();
        })*
    };
}

models! {
    a_full_connection_serves_whoever_waits
    a_lowered_limit_loses_no_stream
    a_raised_limit_reaches_who_waits
    a_stream_is_never_held_twice
    a_success_is_counted_beside_a_failure
    one_of_two_failures_is_repeated
    who_declines_lets_those_behind_have_it
    who_leaves_the_line_passes_the_stream_on
}
