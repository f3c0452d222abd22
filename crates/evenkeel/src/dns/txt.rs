//! The text of a name's service config: TXT records `_grpc_config.HOST` (gRFC A2), for channels
//! that opt in. Which of its choices is taken is `choices`' business.

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::timeout;

use super::{Answer, Failure, FailureKind, LookUp, Lookup, Reply, join};

/// What the record that counts begins with.
const PREFIX: &str = "grpc_config=";

/// Looks up the service config of a name.
pub(in super::super) struct TxtLookup(pub(in super::super) Lookup);

impl LookUp for TxtLookup {
    type Found = String;

    async fn run(&mut self) -> Result<Answer<String>, Failure> {
        self.0.open = None;
        match timeout(self.0.timeout, self.0.service_config()).await {
            Ok(result) => result,
            Err(_) => Err(self.0.timed_out()),
        }
    }
}

impl Lookup {
    async fn service_config(&mut self) -> Result<Answer<String>, Failure> {
        let servers = self.servers().await?;
        let mut asked = Vec::new();
        for name in servers.names(&self.name) {
            let Some(record) = record_of(&name) else { continue };
            if let Reply::Texts(texts, ttl) = self.ask(&servers, &record, RecordType::TXT).await? {
                let config = texts.iter().find_map(|text| text.strip_prefix(PREFIX));
                if let Some(config) = config {
                    return Ok(Answer { addresses: vec![config.to_owned()], ttl });
                }
            }
            asked.push(record);
        }
        let message = format!(
            "no service config for {}: there are no TXT records {PREFIX}… for {}",
            self.name,
            join(&asked, " or ")
        );
        Err(Failure { kind: FailureKind::NoRecords, message })
    }
}

/// The name of the TXT records; none when it would be too long.
fn record_of(name: &Name) -> Option<Name> {
    let prefix = Name::from_ascii("_grpc_config").expect("a label is a name");
    prefix.append_domain(name).ok()
}
