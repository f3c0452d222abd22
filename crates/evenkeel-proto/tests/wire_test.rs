//! Decodes bytes written by hand from the protocols' documents, so that a wrong field number or
//! type in a vendored `.proto` file is seen. Encoding and decoding with the same code would not
//! see it.

use evenkeel_proto::{
    grpc::health::v1::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    },
    grpc::lb::v1::{
        ClientStats, FallbackResponse, LoadBalanceRequest, LoadBalanceResponse, Server,
        load_balance_request::LoadBalanceRequestType as RequestType,
        load_balance_response::LoadBalanceResponseType as ResponseType,
    },
    xds::{data::orca::v3::OrcaLoadReport, service::orca::v3::OrcaLoadReportRequest},
};
use prost::Message;

/// Wire types of the protobuf encoding.
const VARINT: u8 = 0;
const I64: u8 = 1;
const LEN: u8 = 2;

/// A field's key and its payload; every number in these tests fits one byte of a varint.
fn field(number: u8, wire_type: u8, payload: &[u8]) -> Vec<u8> {
    assert!(number < 16, "the key fits one byte");
    let mut bytes = vec![number << 3 | wire_type];
    if wire_type == LEN {
        assert!(payload.len() < 128, "the length fits one byte");
        bytes.push(payload.len() as u8);
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn decode<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("the bytes are a valid message")
}

fn encode<M: Message>(message: &M) -> Vec<u8> {
    message.encode_to_vec()
}

#[test]
fn a_server_list_has_v4_v6_and_drop_entries_with_tokens() {
    let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    // 8000 and 443 as varints of two bytes.
    let server_v4 =
        [field(1, LEN, &[10, 0, 2, 95]), field(2, VARINT, &[0xc0, 0x3e]), field(3, LEN, b"t1")]
            .concat();
    let server_v6 = [field(1, LEN, &v6), field(2, VARINT, &[0xbb, 0x03])].concat();
    let server_drop = [field(3, LEN, b"shed"), field(4, VARINT, &[1])].concat();
    let list = [field(1, LEN, &server_v4), field(1, LEN, &server_v6), field(1, LEN, &server_drop)]
        .concat();
    let bytes = field(2, LEN, &list);

    let response: LoadBalanceResponse = decode(&bytes);
    let Some(ResponseType::ServerList(list)) = &response.load_balance_response_type else {
        panic!("expected a server list, got {response:?}");
    };
    let expected = [
        Server {
            ip_address: vec![10, 0, 2, 95],
            port: 8000,
            load_balance_token: "t1".into(),
            drop: false,
        },
        Server { ip_address: v6.to_vec(), port: 443, ..Server::default() },
        Server { load_balance_token: "shed".into(), drop: true, ..Server::default() },
    ];
    assert_eq!(list.servers, expected);
    assert_eq!(encode(&response), bytes);
}

#[test]
fn an_initial_response_carries_the_report_interval() {
    let interval = [field(1, VARINT, &[3]), field(2, VARINT, &[5])].concat();
    let bytes = field(1, LEN, &field(2, LEN, &interval));
    let response: LoadBalanceResponse = decode(&bytes);
    let Some(ResponseType::InitialResponse(initial)) = response.load_balance_response_type else {
        panic!("expected an initial response, got {response:?}");
    };
    let interval = initial.client_stats_report_interval.expect("it is set");
    assert_eq!((interval.seconds, interval.nanos), (3, 5));
}

#[test]
fn a_fallback_response_is_field_three_and_empty() {
    let response: LoadBalanceResponse = decode(&field(3, LEN, &[]));
    assert_eq!(
        response.load_balance_response_type,
        Some(ResponseType::FallbackResponse(FallbackResponse {}))
    );
}

#[test]
fn an_initial_request_names_the_service() {
    let bytes = field(1, LEN, &field(1, LEN, b"greeter:8000"));
    let request: LoadBalanceRequest = decode(&bytes);
    let Some(RequestType::InitialRequest(initial)) = &request.load_balance_request_type else {
        panic!("expected an initial request, got {request:?}");
    };
    assert_eq!(initial.name, "greeter:8000");
    assert_eq!(encode(&request), bytes);
}

#[test]
fn client_stats_count_calls_and_drops_per_token() {
    let dropped = [field(1, LEN, b"shed"), field(2, VARINT, &[4])].concat();
    let stats = [
        field(1, LEN, &field(1, VARINT, &[7])),
        field(2, VARINT, &[10]),
        field(3, VARINT, &[9]),
        field(6, VARINT, &[2]),
        field(7, VARINT, &[3]),
        field(8, LEN, &dropped),
    ]
    .concat();
    let bytes = field(2, LEN, &stats);
    let request: LoadBalanceRequest = decode(&bytes);
    let Some(RequestType::ClientStats(stats)) = &request.load_balance_request_type else {
        panic!("expected client stats, got {request:?}");
    };
    let ClientStats { timestamp, calls_finished_with_drop, .. } = stats;
    assert_eq!(timestamp.as_ref().expect("it is set").seconds, 7);
    assert_eq!((stats.num_calls_started, stats.num_calls_finished), (10, 9));
    assert_eq!(stats.num_calls_finished_with_client_failed_to_send, 2);
    assert_eq!(stats.num_calls_finished_known_received, 3);
    assert_eq!(calls_finished_with_drop.len(), 1);
    assert_eq!(calls_finished_with_drop[0].load_balance_token, "shed");
    assert_eq!(calls_finished_with_drop[0].num_calls, 4);
    assert_eq!(encode(&request), bytes);
}

#[test]
#[expect(deprecated, reason = "the field is deprecated, not its place on the wire")]
fn a_load_report_has_utilizations_rates_and_maps() {
    let double = |number: u8, value: f64| field(number, I64, &value.to_le_bytes());
    let entry = |number: u8, key: &[u8], value: f64| {
        field(number, LEN, &[field(1, LEN, key), double(2, value)].concat())
    };
    let bytes = [
        double(1, 0.25),
        double(2, 0.5),
        field(3, VARINT, &[6]),
        entry(4, b"cost", 1.5),
        entry(5, b"disk", 0.125),
        double(6, 300.5),
        double(7, 2.0),
        entry(8, b"queue", 42.0),
        double(9, 1.25),
    ]
    .concat();
    let report: OrcaLoadReport = decode(&bytes);
    assert_eq!((report.cpu_utilization, report.mem_utilization), (0.25, 0.5));
    assert_eq!((report.rps, report.rps_fractional, report.eps), (6, 300.5, 2.0));
    assert_eq!(report.request_cost.get("cost"), Some(&1.5));
    assert_eq!(report.utilization.get("disk"), Some(&0.125));
    assert_eq!(report.named_metrics.get("queue"), Some(&42.0));
    assert_eq!(report.application_utilization, 1.25);
    assert_eq!(encode(&report), bytes);
}

#[test]
fn an_out_of_band_request_has_an_interval_and_cost_names() {
    let bytes = [field(1, LEN, &field(1, VARINT, &[10])), field(2, LEN, b"cost")].concat();
    let request: OrcaLoadReportRequest = decode(&bytes);
    assert_eq!(request.report_interval.as_ref().expect("it is set").seconds, 10);
    assert_eq!(request.request_cost_names, ["cost"]);
    assert_eq!(encode(&request), bytes);
}

#[test]
fn the_stubs_call_the_documented_paths() {
    use evenkeel_proto::{
        grpc::lb::v1::load_balancer_server, xds::service::orca::v3::open_rca_service_server,
    };
    assert_eq!(load_balancer_server::SERVICE_NAME, "grpc.lb.v1.LoadBalancer");
    assert_eq!(open_rca_service_server::SERVICE_NAME, "xds.service.orca.v3.OpenRcaService");
}

#[test]
fn health_is_asked_for_by_name_and_answered_by_number() {
    let request = HealthCheckRequest { service: "a.B".into() };
    assert_eq!(encode(&request), field(1, LEN, b"a.B"));
    let statuses = [
        ServingStatus::Unknown,
        ServingStatus::Serving,
        ServingStatus::NotServing,
        ServingStatus::ServiceUnknown,
    ];
    for (number, status) in (0..).zip(statuses) {
        let response: HealthCheckResponse = decode(&field(1, VARINT, &[number]));
        assert_eq!(response.status(), status);
    }
    assert_eq!(decode::<HealthCheckResponse>(&[]).status(), ServingStatus::Unknown);
}
