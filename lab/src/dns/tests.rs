//! The DNS double, asked over real sockets as any resolver would.

use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const ONE: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 2);

fn question(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message.to_vec().unwrap()
}

async fn udp(dns: &Dns, name: &str, record_type: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, record_type), dns.address()).await.unwrap();
    let mut buffer = [0; 1500];
    let got = timeout(LIMIT, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    Message::from_vec(&buffer[..got]).unwrap()
}

async fn tcp(dns: &Dns, name: &str, record_type: RecordType) -> Message {
    let mut stream = TcpStream::connect(dns.address()).await.unwrap();
    let bytes = question(name, record_type);
    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = timeout(LIMIT, stream.read_u16()).await.expect("an answer").unwrap();
    let mut buffer = vec![0; length.into()];
    timeout(LIMIT, stream.read_exact(&mut buffer)).await.expect("an answer").unwrap();
    Message::from_vec(&buffer).unwrap()
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let mut found: Vec<_> = message
        .answers
        .iter()
        .map(|record| match record.data {
            RData::A(A(address)) => address,
            ref other => panic!("expected A, got {other:?}"),
        })
        .collect();
    found.sort();
    found
}

fn service() -> String {
    format!("{SERVICE}.")
}

#[tokio::test]
async fn answers_published_addresses_over_udp_and_tcp_with_ttl_and_authority() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    dns.publish(&[ONE, TWO]).await;
    for answer in [
        udp(&dns, &service(), RecordType::A).await,
        tcp(&dns, &service(), RecordType::A).await,
        udp(&dns, &service().to_uppercase(), RecordType::A).await,
    ] {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.authoritative);
        assert_eq!(addresses(&answer), [ONE, TWO]);
        assert!(answer.answers.iter().all(|record| record.ttl == TTL_S));
    }
}

#[tokio::test]
async fn a_change_shows_in_the_very_next_answer() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    dns.publish(&[ONE]).await;
    assert_eq!(addresses(&udp(&dns, &service(), RecordType::A).await), [ONE]);
    dns.publish(&[TWO]).await;
    assert_eq!(addresses(&udp(&dns, &service(), RecordType::A).await), [TWO]);
    assert_eq!(addresses(&tcp(&dns, &service(), RecordType::A).await), [TWO]);
}

#[tokio::test]
async fn a_service_without_ready_pods_is_nxdomain_with_a_short_negative_ttl() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    dns.publish(&[ONE]).await;
    dns.publish(&[]).await;
    for answer in
        [udp(&dns, &service(), RecordType::A).await, tcp(&dns, &service(), RecordType::A).await]
    {
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(answer.answers.is_empty());
        let soa = answer.authorities.first().expect("the SOA carries the negative TTL");
        assert_eq!(soa.record_type(), RecordType::SOA);
        assert_eq!(soa.ttl, TTL_S);
    }
}

#[tokio::test]
async fn an_ipv4_service_has_no_aaaa_but_its_name_exists() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    dns.publish(&[ONE]).await;
    let answer = udp(&dns, &service(), RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn names_outside_the_zone_are_refused() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let answer = udp(&dns, "example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn notes_when_the_service_was_asked_for_and_nothing_else() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    dns.publish(&[ONE]).await;
    let before = unix_s();
    udp(&dns, &service(), RecordType::AAAA).await;
    udp(&dns, "other.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(dns.first_question_since(before), None);
    let name = service();
    let question = udp(&dns, &name, RecordType::A);
    let (asked, _) = tokio::join!(dns.next_question(LIMIT), question);
    let asked = asked.expect("the question is noted");
    assert!(asked >= before);
    assert_eq!(dns.first_question_since(before), Some(asked));
    assert_eq!(dns.first_question_since(asked + 1.0), None);
    assert_eq!(dns.last_question_before(asked + 1.0), Some(asked));
    assert_eq!(dns.last_question_before(before), None);
}

#[tokio::test]
async fn balancers_have_srv_records_and_names_of_their_own() {
    let dns = Dns::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let asked = format!("_grpclb._tcp.{}", service());
    assert_eq!(udp(&dns, &asked, RecordType::SRV).await.response_code, ResponseCode::NXDomain);
    let at = |ip| SocketAddrV4::new(ip, 9000);
    dns.publish_balancers(&[at(ONE), at(TWO)]).await;
    let message = udp(&dns, &asked, RecordType::SRV).await;
    let mut found = Vec::new();
    for record in &message.answers {
        let RData::SRV(ref srv) = record.data else { panic!("expected SRV, got {record:?}") };
        assert_eq!((srv.port, srv.priority, record.ttl), (9000, 0, TTL_S));
        let host = udp(&dns, &srv.target.to_utf8(), RecordType::A).await;
        found.extend(addresses(&host));
    }
    found.sort();
    assert_eq!(found, [ONE, TWO]);
}
