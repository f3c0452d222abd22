//! The switch, both ways: calls get through, statuses too, and the program itself obeys the
//! variable.

mod servers;

use std::process::Stdio;

use migration::switch::{AnyChannel, VARIABLE};
use servers::{Does, Probed, greet, soon};
use tonic::Code;

#[tokio::test]
async fn both_channels_greet_and_hand_statuses_through() {
    let backends = greeters::start(1).await.expect("a free port");
    let probed = Probed::start(Does::Tells).await;
    for (choice, agent) in [
        (None, "grpc-rust-evenkeel/"),
        (Some("evenkeel"), "grpc-rust-evenkeel/"),
        (Some("tonic"), "tonic/"),
    ] {
        let good = AnyChannel::new(choice, &backends[0].address.to_string()).expect("valid");
        assert_eq!(greet(good).await.expect("an answer"), "1", "{choice:?}");
        let told = AnyChannel::new(choice, &probed.address.to_string()).expect("valid");
        let error = greet(told).await.expect_err("the probe fails each call");
        assert_eq!(error.code(), Code::Aborted, "{choice:?}");
        assert_eq!(error.message().split(' ').nth(1).map(|a| a.starts_with(agent)), Some(true));
    }
    probed.stop().await;
    for backend in backends {
        soon("its end", backend.stop()).await.expect("it served");
    }
}

#[tokio::test]
async fn another_word_is_refused() {
    let error = AnyChannel::new(Some("grpc"), "greeter:8000").expect_err("an unknown word");
    assert_eq!(error.to_string(), "GRPC_CHANNEL: expected evenkeel or tonic, got \"grpc\"");
}

#[tokio::test]
async fn the_variable_turns_the_program() {
    let backends = greeters::start(1).await.expect("a free port");
    for (value, wanted) in [(None, "evenkeel: 1\n"), (Some("tonic"), "tonic: 1\n")] {
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_migration"));
        program.arg(backends[0].address.to_string()).stdin(Stdio::null()).kill_on_drop(true);
        match value {
            Some(value) => program.env(VARIABLE, value),
            None => program.env_remove(VARIABLE),
        };
        let output = soon("its end", program.output()).await.expect("it starts");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    }
    for backend in backends {
        soon("its end", backend.stop()).await.expect("it served");
    }
}
