//! From our snapshots to channelz's messages.

use std::net::{IpAddr, SocketAddr};

use evenkeel::{
    ChannelSnapshot, ConnectivityState,
    core::Address,
    view::{CallCounts, ConnectionSnapshot, StreamCounts, SubchannelSnapshot},
};
use evenkeel_proto::grpc::channelz::v1::{
    self as pb, address::Address as Kind, channel_connectivity_state::State,
};
use evenkeel_server::{self as server, ListenerSnapshot, ServerSnapshot};

/// Servers and their sockets have ids from here on, as neither crate knows of the other's. Above
/// what a process uses up, and below what JSON numbers can hold.
pub(crate) const SERVER_IDS: u64 = 1 << 40;

pub(crate) fn server_id(id: u64) -> i64 {
    number(SERVER_IDS + id)
}

pub(crate) fn channel(channel: &ChannelSnapshot) -> pb::Channel {
    let CallCounts { started, succeeded, failed, .. } = channel.calls;
    let subchannels = channel.subchannels.iter().map(|subchannel| pb::SubchannelRef {
        subchannel_id: number(subchannel.id),
        name: subchannel.address.to_string(),
    });
    pb::Channel {
        r#ref: Some(pb::ChannelRef {
            channel_id: number(channel.id),
            name: channel.target.clone(),
        }),
        data: Some(data(channel.state, channel.target.clone(), [started, succeeded, failed])),
        channel_ref: Vec::new(),
        subchannel_ref: subchannels.collect(),
        socket_ref: channel.draining.iter().map(connection_ref).collect(),
    }
}

pub(crate) fn subchannel(subchannel: &SubchannelSnapshot) -> pb::Subchannel {
    let StreamCounts { started, succeeded, failed, .. } = subchannel.streams;
    let name = subchannel.address.to_string();
    pb::Subchannel {
        r#ref: Some(pb::SubchannelRef { subchannel_id: number(subchannel.id), name: name.clone() }),
        data: Some(data(subchannel.state, name, [started, succeeded, failed])),
        channel_ref: Vec::new(),
        subchannel_ref: Vec::new(),
        socket_ref: subchannel.connections.iter().map(connection_ref).collect(),
    }
}

pub(crate) fn connection(connection: &ConnectionSnapshot) -> pb::Socket {
    let StreamCounts { started, succeeded, failed, .. } = connection.streams;
    pb::Socket {
        r#ref: Some(connection_ref(connection)),
        data: Some(streams([started, succeeded, failed])),
        remote: Some(address(&connection.address)),
        ..pb::Socket::default()
    }
}

pub(crate) fn server(server: &ServerSnapshot) -> pb::Server {
    let server::StreamCounts { started, answered, reset, .. } = server.streams;
    pb::Server {
        r#ref: Some(pb::ServerRef { server_id: server_id(server.id), name: String::new() }),
        data: Some(pb::ServerData {
            calls_started: number(started),
            calls_succeeded: number(answered),
            calls_failed: number(reset),
            ..pb::ServerData::default()
        }),
        listen_socket: server.listeners.iter().map(listener_ref).collect(),
    }
}

pub(crate) fn listener(listener: &ListenerSnapshot) -> pb::Socket {
    pb::Socket {
        r#ref: Some(listener_ref(listener)),
        data: Some(pb::SocketData::default()),
        local: listener.local.map(ip),
        ..pb::Socket::default()
    }
}

pub(crate) fn accepted(connection: &server::ConnectionSnapshot) -> pb::Socket {
    let server::StreamCounts { started, answered, reset, .. } = connection.streams;
    pb::Socket {
        r#ref: Some(accepted_ref(connection)),
        data: Some(streams([started, answered, reset])),
        local: connection.local.map(ip),
        remote: connection.peer.map(ip),
        ..pb::Socket::default()
    }
}

pub(crate) fn accepted_ref(connection: &server::ConnectionSnapshot) -> pb::SocketRef {
    socket_ref(SERVER_IDS + connection.id, connection.peer.map(|peer| peer.to_string()))
}

fn connection_ref(connection: &ConnectionSnapshot) -> pb::SocketRef {
    socket_ref(connection.id, Some(connection.address.to_string()))
}

fn listener_ref(listener: &ListenerSnapshot) -> pb::SocketRef {
    socket_ref(SERVER_IDS + listener.id, listener.local.map(|local| local.to_string()))
}

fn socket_ref(id: u64, name: Option<String>) -> pb::SocketRef {
    pb::SocketRef { socket_id: number(id), name: name.unwrap_or_default() }
}

fn data(
    state: ConnectivityState,
    target: String,
    [started, succeeded, failed]: [u64; 3],
) -> pb::ChannelData {
    let state = match state {
        ConnectivityState::Idle => State::Idle,
        ConnectivityState::Connecting => State::Connecting,
        ConnectivityState::Ready => State::Ready,
        ConnectivityState::TransientFailure => State::TransientFailure,
        ConnectivityState::Shutdown => State::Shutdown,
    };
    pb::ChannelData {
        state: Some(pb::ChannelConnectivityState { state: state.into() }),
        target,
        calls_started: number(started),
        calls_succeeded: number(succeeded),
        calls_failed: number(failed),
        ..pb::ChannelData::default()
    }
}

fn streams([started, succeeded, failed]: [u64; 3]) -> pb::SocketData {
    pb::SocketData {
        streams_started: number(started),
        streams_succeeded: number(succeeded),
        streams_failed: number(failed),
        ..pb::SocketData::default()
    }
}

fn address(address: &Address) -> pb::Address {
    let kind = match address {
        Address::Tcp(address) => return ip(*address),
        Address::Unix(path) => {
            let filename = path.to_string_lossy().into_owned();
            Kind::UdsAddress(pb::address::UdsAddress { filename })
        }
        other => {
            Kind::OtherAddress(pb::address::OtherAddress { name: other.to_string(), value: None })
        }
    };
    pb::Address { address: Some(kind) }
}

fn ip(address: SocketAddr) -> pb::Address {
    let ip_address = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let port = address.port().into();
    let kind = Kind::TcpipAddress(pb::address::TcpIpAddress { ip_address, port });
    pb::Address { address: Some(kind) }
}

/// channelz's numbers are signed; none of ours comes near the end of them.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_kind() {
        let tcp = address(&Address::Tcp("127.0.0.1:80".parse().unwrap()));
        let want = pb::address::TcpIpAddress { ip_address: vec![127, 0, 0, 1], port: 80 };
        assert_eq!(tcp.address, Some(Kind::TcpipAddress(want)));
        let tcp6 = address(&Address::Tcp("[::1]:443".parse().unwrap()));
        let Some(Kind::TcpipAddress(tcp6)) = tcp6.address else { panic!("{tcp6:?}") };
        assert_eq!((tcp6.ip_address.len(), tcp6.port), (16, 443));
        let unix = address(&Address::Unix("/run/x".into()));
        let want = pb::address::UdsAddress { filename: "/run/x".into() };
        assert_eq!(unix.address, Some(Kind::UdsAddress(want)));
        let named = address(&Address::Named("pipe".into()));
        let Some(Kind::OtherAddress(named)) = named.address else { panic!("{named:?}") };
        assert_eq!(named.name, "pipe");
    }

    #[test]
    fn states_have_the_numbers_of_the_protocol() {
        let number = |state| data(state, String::new(), [0; 3]).state.map(|s| s.state);
        let states = [
            ConnectivityState::Idle,
            ConnectivityState::Connecting,
            ConnectivityState::Ready,
            ConnectivityState::TransientFailure,
            ConnectivityState::Shutdown,
        ];
        assert_eq!(states.map(number), [1, 2, 3, 4, 5].map(Some));
    }
}
