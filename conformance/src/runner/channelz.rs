//! What grpcurl reads of our processes by channelz: the greeter's server, and the channel of a
//! client that runs. It knows the service by reflection alone.

use super::error::Error;
use super::facility::{Facility, built_beside};
use super::process::{self, Started};
use super::strangers::{TOOL_LIMIT, output};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

const SERVICE: &str = "grpc.channelz.v1.Channelz";

/// channelz at one address, through grpcurl.
struct Reader<'a> {
    grpcurl: PathBuf,
    address: &'a str,
}

/// Reads the greeter at `greeter` and a client of it that listens on `admin`.
pub(crate) async fn run(facility: &Facility, greeter: &str, admin: &str) -> Result<Value, Error> {
    let reader = Reader { grpcurl: facility.tool("grpcurl"), address: greeter };
    let mut result = reader.server().await?;
    let _client = start_client(greeter, admin).await?;
    let reader = Reader { grpcurl: facility.tool("grpcurl"), address: admin };
    let channel = tokio::time::timeout(TOOL_LIMIT, reader.channel()).await.map_err(|_| {
        Error::Process(format!("expected a call on the client's channel within {TOOL_LIMIT:?}"))
    })??;
    for (key, value) in channel.as_object().into_iter().flatten() {
        result[key] = value.clone();
    }
    let list = output(&reader.grpcurl, &["-plaintext", admin, "list"]).await?;
    result["services"] = json!(list.lines().collect::<Vec<_>>());
    result["unknown"] = json!(reader.refusal("GetChannel", r#"{"channel_id": 999999}"#).await?);
    Ok(result)
}

async fn start_client(greeter: &str, admin: &str) -> Result<Started, Error> {
    let mut command = Command::new(built_beside("client")?);
    command
        .args(["--target", &format!("ipv4:{greeter}"), "--admin-listen", admin])
        .args(["--count", "0", "--rate", "50", "--quiet"])
        .env_remove("GREETER_SERVICE_CONFIG")
        .env_remove("GREETER_LB_POLICY_NAME")
        .stderr(Stdio::piped());
    let mut client = Started::spawn(&mut command, Signal::TERM)?;
    let mut lines = client.error_lines().expect("nobody took the lines of a child just started");
    let said = tokio::time::timeout(TOOL_LIMIT, lines.next_line()).await;
    if !matches!(&said, Ok(Ok(Some(line))) if line.contains("the channel is shown on")) {
        return Err(Error::Process(format!(
            "expected `the channel is shown on …` from the client, got {said:?}"
        )));
    }
    // A client that says more must neither block on a full pipe nor meet a closed one.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(client)
}

impl Reader<'_> {
    async fn ask(&self, method: &str, request: &str) -> Result<Value, Error> {
        let method = format!("{SERVICE}/{method}");
        let args = ["-plaintext", "-d", request, self.address, &method];
        let text = output(&self.grpcurl, &args).await?;
        serde_json::from_str(&text)
            .map_err(|e| Error::Process(format!("expected JSON from grpcurl, got {text:?} ({e})")))
    }

    /// What grpcurl says of a call that has to fail.
    async fn refusal(&self, method: &str, request: &str) -> Result<String, Error> {
        let method = format!("{SERVICE}/{method}");
        let args = ["-plaintext", "-d", request, self.address, &method];
        let finished = process::run(Command::new(&self.grpcurl).args(args), TOOL_LIMIT).await?;
        if finished.status.success() {
            let text = format!("expected {method} {request} to fail, got {}", finished.stdout);
            return Err(Error::Process(text));
        }
        Ok(finished.stderr)
    }

    async fn server(&self) -> Result<Value, Error> {
        let servers = self.ask("GetServers", "{}").await?;
        let server = &servers["server"][0];
        let id = json!({"server_id": server["ref"]["serverId"]}).to_string();
        let sockets = self.ask("GetServerSockets", &id).await?;
        Ok(json!({
            "servers": count(&servers["server"]),
            "server_listeners": count(&server["listenSocket"]),
            "server_sockets": count(&sockets["socketRef"]),
        }))
    }

    /// Waits until the client's first call has succeeded.
    async fn channel(&self) -> Result<Value, Error> {
        let channels = loop {
            let channels = self.ask("GetTopChannels", "{}").await?;
            if number(&channels["channel"][0]["data"]["callsSucceeded"]) > 0 {
                break channels;
            }
        };
        let channel = &channels["channel"][0];
        let id = &channel["subchannelRef"][0]["subchannelId"];
        let request = json!({"subchannel_id": id}).to_string();
        let subchannel = self.ask("GetSubchannel", &request).await?;
        let id = &subchannel["subchannel"]["socketRef"][0]["socketId"];
        let socket = self.ask("GetSocket", &json!({"socket_id": id}).to_string()).await?;
        let socket = &socket["socket"];
        Ok(json!({
            "channels": count(&channels["channel"]),
            "channel_state": channel["data"]["state"]["state"],
            "channel_target": channel["data"]["target"],
            "channel_calls_succeeded": number(&channel["data"]["callsSucceeded"]),
            "channel_calls_failed": number(&channel["data"]["callsFailed"]),
            "subchannels": count(&channel["subchannelRef"]),
            "socket_remote": remote(&socket["remote"]),
            "socket_streams_succeeded": number(&socket["data"]["streamsSucceeded"]),
        }))
    }
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

/// protobuf's JSON writes 64-bit numbers as text and leaves zeros out.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// An address whose bytes protobuf's JSON writes in base64; IPv4 has four of them.
fn remote(address: &Value) -> Option<String> {
    let tcp = &address["tcpipAddress"];
    let mut bits = 0_u64;
    for c in tcp["ipAddress"].as_str()?.trim_end_matches('=').bytes() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        bits = bits << 6 | alphabet.iter().position(|known| *known == c)? as u64;
    }
    // Six characters are 36 bits, of which the last four are filling.
    let octets = u32::try_from(bits >> 4).ok()?.to_be_bytes();
    Some(format!("{}:{}", IpAddr::from(octets), tcp["port"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_protobufs_json() {
        let address = json!({"tcpipAddress": {"ipAddress": "fwAAAQ==", "port": 8000}});
        assert_eq!(remote(&address).as_deref(), Some("127.0.0.1:8000"));
        assert_eq!(remote(&json!({})), None);
        assert_eq!((number(&json!("17")), number(&Value::Null)), (17, 0));
    }
}
