//! A list as bytes, encoded once and sent rotated. `ServerList` is nothing but its entries, one
//! after the other, so a list that begins elsewhere is the same bytes cut in two: what is made for
//! a client are a few bytes of framing and two references into the one buffer.

use std::net::IpAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use evenkeel_proto::grpc::lb::v1::Server;
use prost::Message as _;

use super::{
    entries::{Entry, entries},
    token,
};
use crate::{
    snapshot::{Drop, Endpoint},
    wire::FRAME_HEAD_LEN,
};

/// `LoadBalanceResponse.server_list`, length-delimited.
const SERVER_LIST_TAG: u8 = 0x12;
/// `ServerList.servers`, length-delimited.
const SERVERS_TAG: u8 = 0x0a;

/// See the module's head.
#[derive(Clone, Debug)]
pub struct EncodedList {
    /// All entries.
    body: Bytes,
    /// Where each begins.
    starts: Vec<u32>,
}

impl EncodedList {
    /// Encodes these endpoints and drops.
    #[must_use]
    pub fn new(endpoints: &[&Endpoint], drops: &[Drop]) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let percents: Vec<f64> = drops.iter().map(|drop| drop.percent).collect();
        let endpoints: Vec<Bytes> =
            endpoints.iter().map(|endpoint| of_endpoint(endpoint)).collect();
        let drops: Vec<Bytes> = drops.iter().map(of_drop).collect();
        let order = entries(&weights, &percents);
        let bytes = |entry: &Entry| match *entry {
            Entry::Endpoint(index) => &endpoints[index],
            Entry::Drop(index) => &drops[index],
        };
        let mut body = BytesMut::with_capacity(order.iter().map(|entry| bytes(entry).len()).sum());
        let mut starts = Vec::with_capacity(order.len());
        for entry in &order {
            starts.push(body.len() as u32);
            body.put_slice(bytes(entry));
        }
        Self { body: body.freeze(), starts }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// True without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes of all entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The list as a message in gRPC's framing, beginning at this of its entries; its pieces in
    /// their order.
    #[must_use]
    pub fn rotated(&self, first: usize) -> [Bytes; 3] {
        let first = first % self.len().max(1);
        let start = self.starts.get(first).map_or(0, |start| *start as usize);
        let mut field = BytesMut::with_capacity(FRAME_HEAD_LEN + 1 + 5);
        field.put_bytes(0, FRAME_HEAD_LEN);
        field.put_u8(SERVER_LIST_TAG);
        put_varint(&mut field, self.body.len());
        let message = field.len() - FRAME_HEAD_LEN + self.body.len();
        field[1..FRAME_HEAD_LEN].copy_from_slice(&(message as u32).to_be_bytes());
        [field.freeze(), self.body.slice(start..), self.body.slice(..start)]
    }
}

fn of_endpoint(endpoint: &Endpoint) -> Bytes {
    let ip_address = match endpoint.address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (port, token) = (endpoint.address.port().into(), token::of_endpoint(endpoint.address));
    entry(&Server { ip_address, port, load_balance_token: token, drop: false })
}

fn of_drop(drop: &Drop) -> Bytes {
    let load_balance_token = token::of_drop(&drop.category);
    entry(&Server { load_balance_token, drop: true, ..Server::default() })
}

fn entry(server: &Server) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(SERVERS_TAG);
    bytes.put_slice(&server.encode_length_delimited_to_vec());
    bytes.freeze()
}

fn put_varint(bytes: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::grpc::lb::v1::{
        LoadBalanceResponse, load_balance_response::LoadBalanceResponseType as Kind,
    };

    use super::*;
    use crate::grpclb::LIST_ENTRIES_MAX;

    fn endpoints(count: u16) -> Vec<Endpoint> {
        (1..=count).map(|port| Endpoint::new(([127, 0, 0, 1], port).into())).collect()
    }

    fn list(endpoints: &[Endpoint], drops: &[Drop]) -> EncodedList {
        EncodedList::new(&endpoints.iter().collect::<Vec<_>>(), drops)
    }

    fn decoded(pieces: &[Bytes]) -> Vec<Server> {
        let bytes = pieces.concat();
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        assert_eq!((bytes[0], length), (0, bytes.len() - FRAME_HEAD_LEN));
        let message = LoadBalanceResponse::decode(&bytes[FRAME_HEAD_LEN..]).expect("a message");
        match message.load_balance_response_type.expect("one of three") {
            Kind::ServerList(list) => list.servers,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rotated_list_is_the_same_list_from_elsewhere() {
        let list = list(&endpoints(300), &[]);
        let ports = |first| -> Vec<i32> {
            decoded(&list.rotated(first)).iter().map(|server| server.port).collect()
        };
        let whole: Vec<i32> = (1..=300).collect();
        assert_eq!(ports(0), whole);
        for (entry, first) in [(150, 151), (299, 300), (300, 1), (1000, 101)] {
            let mut turned = ports(entry);
            assert_eq!(turned[0], first, "{entry}");
            turned.sort_unstable();
            assert_eq!(turned, whole);
        }
    }

    #[test]
    fn pieces_of_a_rotated_list_share_the_buffer() {
        let list = list(&endpoints(10), &[]);
        let [_, tail, head] = list.rotated(5);
        assert_eq!(head.as_ptr(), list.body.as_ptr());
        assert_eq!(tail.as_ptr(), list.body[head.len()..].as_ptr());
    }

    #[test]
    fn entries_say_what_the_protocol_wants() {
        let v6 = Endpoint::new("[fd00::1]:8000".parse().expect("an address"));
        let drops = [Drop { category: "overload".into(), percent: 50.0 }];
        let servers = decoded(&list(std::slice::from_ref(&v6), &drops).rotated(0));
        let backend = servers.iter().find(|server| !server.drop).expect("one");
        assert_eq!((backend.ip_address.len(), backend.port), (16, 8000));
        assert_eq!(token::decode(&backend.load_balance_token), Some(v6.address));
        let drop = servers.iter().find(|server| server.drop).expect("one");
        assert_eq!(drop.load_balance_token, "drop-overload");
        assert_eq!((drop.ip_address.len(), drop.port), (0, 0));
    }

    #[test]
    fn an_empty_list_is_a_message() {
        let list = list(&[], &[]);
        assert!(list.is_empty());
        assert_eq!(decoded(&list.rotated(3)), []);
    }

    /// grpc-go refuses messages of more than 4 MiB.
    #[test]
    fn the_longest_list_is_one_that_clients_accept() {
        let v6 = Endpoint::new("[ffff:ffff::ffff]:65535".parse().expect("an address"));
        assert!(of_endpoint(&v6).len() * LIST_ENTRIES_MAX < 4 * 1024 * 1024);
        let category = "c".repeat(crate::config::CATEGORY_BYTES_MAX);
        let drop = of_drop(&Drop { category, percent: 1.0 });
        assert!(drop.len() * LIST_ENTRIES_MAX < 4 * 1024 * 1024);
    }
}
