//! `conformance-interop`: one case against one server, and an exit code.

use std::{ffi::OsString, fmt, process::ExitCode, time::Duration};

use evenkeel::{BuildError, Channel};
use tonic::Status;

use super::{
    cancel,
    case::{Case, NOT_SUPPORTED},
    flags::Flags,
    proto::{
        test_service_client::TestServiceClient,
        unimplemented_service_client::UnimplementedServiceClient,
    },
    soak::Soak,
    streaming,
    target::Target,
    unary::{self, LARGE_REQUEST, LARGE_RESPONSE},
};

/// Exit code for a case that our client does not have.
pub const EXIT_NOT_SUPPORTED: u8 = 2;
/// Exit code for wrong usage (EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// The longest that a case may take; the soak cases have a limit of their own.
const CASE_LIMIT: Duration = Duration::from_secs(20);
/// How long connections may take to close at the end; no call is open on them any more.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

pub(super) type Client = TestServiceClient<Channel>;
pub(super) type Unimplemented = UnimplementedServiceClient<Channel>;
pub(super) type Done = Result<(), Failure>;

/// What a case expected and what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    pub(super) fn expected(wanted: impl fmt::Display, came: impl fmt::Display) -> Self {
        Self(format!("expected {wanted}, got {came}"))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::expected("an answer", format!("{:?} {:?}", status.code(), status.message()))
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self(format!("no channel: {error}"))
    }
}

/// Runs one case.
///
/// # Errors
///
/// What was expected and what came, when the case does not hold.
pub async fn run_case(case: Case, target: &Target, soak: Soak) -> Result<(), Failure> {
    let channel = target.channel(case)?;
    let mut client = Client::new(channel.clone());
    let done = match case {
        Case::RpcSoak | Case::ChannelSoak => soak.run(case, target, &client).await,
        _ => {
            let mut unimplemented = Unimplemented::new(channel.clone());
            let short = run_short(case, &mut client, &mut unimplemented);
            tokio::time::timeout(CASE_LIMIT, short).await.unwrap_or_else(|_| {
                Err(Failure::expected(format!("an end within {CASE_LIMIT:?}"), "none"))
            })
        }
    };
    let _ = tokio::time::timeout(CLOSE_WAIT, channel.shutdown(Duration::ZERO)).await;
    done
}

async fn run_short(case: Case, client: &mut Client, unimplemented: &mut Unimplemented) -> Done {
    match case {
        Case::EmptyUnary => unary::empty(client).await,
        Case::LargeUnary | Case::RpcSoak | Case::ChannelSoak => {
            unary::large(client, LARGE_REQUEST, LARGE_RESPONSE).await
        }
        Case::ClientStreaming => streaming::client_streaming(client).await,
        Case::ServerStreaming => streaming::server_streaming(client).await,
        Case::PingPong => streaming::ping_pong(client).await,
        Case::EmptyStream => streaming::empty_stream(client).await,
        Case::CustomMetadata => unary::custom_metadata(client).await,
        Case::StatusCodeAndMessage => unary::status_code(client).await,
        Case::SpecialStatusMessage => unary::special_status(client).await,
        Case::UnimplementedMethod => unary::unimplemented_method(client).await,
        Case::UnimplementedService => unary::unimplemented_service(unimplemented).await,
        Case::CancelAfterBegin => cancel::after_begin(client).await,
        Case::CancelAfterFirstResponse => cancel::after_first_response(client).await,
        Case::TimeoutOnSleepingServer => streaming::timeout_on_sleeping_server(client).await,
        Case::PickFirstUnary => unary::pick_first(client).await,
    }
}

/// Is the program `conformance-interop`. `args[0]` is the program's name. Starts a tokio runtime of
/// its own, so it must not be called inside one.
///
/// Exit codes: 0 the case holds, 1 it does not (with the reason on stderr), 2 a case that we do not
/// have, 64 wrong usage.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::read(args) {
        Ok(flags) => flags,
        Err(answer) => {
            // Nobody reads: nothing to tell.
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let name = flags.test_case.as_str();
    let Some(case) = Case::named(name) else {
        let known = NOT_SUPPORTED.iter().find(|(known, _)| *known == name);
        let why = known.map_or("no such case without cloud credentials", |(_, why)| *why);
        eprintln!("conformance-interop: {name}: not supported: {why}");
        return ExitCode::from(EXIT_NOT_SUPPORTED);
    };
    let target = match flags.target() {
        Ok(target) => target,
        Err(error) => {
            eprintln!("conformance-interop: --ca_file: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("conformance-interop: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run_case(case, &target, flags.soak())) {
        Ok(()) => {
            println!("{name}: passed");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("conformance-interop: {name}: {failure}");
            ExitCode::FAILURE
        }
    }
}
