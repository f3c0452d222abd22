//! A DNS server on a loopback address that misbehaves on demand, which real ones can't be asked to.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SRV, TXT},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

/// No wait in these tests is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What the server does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// These addresses (those of the type asked for) with this TTL in seconds.
    Has(u32, Vec<IpAddr>),
    /// SRV records with this TTL: priority, weight, port, host.
    Services(u32, Vec<(u16, u16, u16, &'static str)>),
    /// TXT records with this TTL.
    Texts(u32, Vec<&'static str>),
    /// A CNAME with this TTL, and what the target has, if anything, in the same message or not.
    Alias {
        ttl_s: u32,
        to: &'static str,
        inline: bool,
    },
    Code(ResponseCode),
    Silence,
    /// Over UDP an answer with TC and at most 10 of the addresses; over TCP as told.
    Truncates(Box<Does>),
    /// Answers with other ids and other questions first, then as told.
    LiesFirst(Box<Does>),
    /// The right id, and then noise.
    Noise,
    /// FORMERR to questions with EDNS.
    KnowsNoEdns(Box<Does>),
    /// SERVFAIL this many times, then as told.
    Fails(u32, Box<Does>),
    /// Silent this many times, then as told.
    Ignores(u32, Box<Does>),
}

#[derive(Default)]
struct State {
    rules: HashMap<String, Does>,
    /// "A greeter.test. udp" → how often it was asked.
    asked: HashMap<String, u32>,
    log: Vec<String>,
    /// TCP connections that the client closed.
    closed: u32,
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<(Mutex<State>, Notify)>);

pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Shared,
    _tasks: JoinSet<()>,
}

impl Double {
    /// A server on 127.0.0.1 with UDP and TCP on one free port.
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), true).await
    }

    pub(crate) async fn start_at(address: SocketAddr, with_tcp: bool) -> Self {
        let shared = Shared(Arc::new((Mutex::default(), Notify::new())));
        let mut tasks = JoinSet::new();
        // The port that is free for UDP may be taken for TCP.
        for _ in 0..20 {
            let udp = UdpSocket::bind(address).await.unwrap();
            let address = udp.local_addr().unwrap();
            if with_tcp {
                let Ok(tcp) = TcpListener::bind(address).await else {
                    continue;
                };
                tasks.spawn(serve_tcp(tcp, shared.clone()));
            }
            tasks.spawn(serve_udp(udp, shared.clone()));
            return Self { address, shared, _tasks: tasks };
        }
        panic!("no port is free for both UDP and TCP");
    }

    pub(crate) fn set(&self, name: &str, does: Does) {
        self.shared.0.0.lock().unwrap().rules.insert(name.into(), does);
    }

    /// How often a question like "A greeter.test. udp" was asked.
    pub(crate) fn asked(&self, question: &str) -> u32 {
        self.shared.0.0.lock().unwrap().asked.get(question).copied().unwrap_or(0)
    }

    /// All questions, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.0.0.lock().unwrap().log.clone()
    }

    /// Waits until a question was asked this often.
    pub(crate) async fn asked_at_least(&self, question: &str, times: u32) {
        self.shared.until(|s| s.asked.get(question).is_some_and(|n| *n >= times)).await;
    }

    /// Waits until the client has closed this many TCP connections.
    pub(crate) async fn closed_at_least(&self, times: u32) {
        self.shared.until(|s| s.closed >= times).await;
    }
}

impl Shared {
    async fn until(&self, condition: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.0.1.notified();
                if condition(&self.0.0.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the DNS double saw nothing of it");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_waiters();
    }

    /// The messages that answer a question, in order.
    fn answers(&self, bytes: &[u8], transport: &str) -> Vec<Vec<u8>> {
        let request = Message::from_vec(bytes).expect("hickory sends what hickory reads");
        let query = request.queries[0].clone();
        let name = query.name().to_string();
        let question = format!("{} {name} {transport}", query.query_type());
        let mut does = None;
        let mut nth = 0;
        self.change(|state| {
            does = state.rules.get(&name).cloned();
            nth =
                state.asked.entry(question.clone()).and_modify(|n| *n += 1).or_insert(1).to_owned();
            state.log.push(question);
        });
        let does = does.unwrap_or(Does::Code(ResponseCode::NXDomain));
        self.answer(&request, &query, does, transport == "tcp", nth)
    }

    fn answer(
        &self,
        request: &Message,
        query: &Query,
        does: Does,
        tcp: bool,
        nth: u32,
    ) -> Vec<Vec<u8>> {
        let again = |does: Does| self.answer(request, query, does, tcp, nth);
        let mut message = Message::response(request.metadata.id, request.metadata.op_code);
        message.add_query(query.clone());
        match does {
            Does::Has(ttl_s, addresses) => {
                message.add_answers(records(query.name(), query.query_type(), ttl_s, &addresses));
            }
            Does::Services(ttl_s, services) => {
                let record = |service| service_record(query.name(), ttl_s, service);
                add_if(&mut message, query, RecordType::SRV, services.into_iter().map(record));
            }
            Does::Texts(ttl_s, texts) => add_texts(&mut message, query, ttl_s, &texts),
            Does::Alias { ttl_s, to, inline } => {
                message.add_answers(self.chain(query, ttl_s, to, inline));
            }
            Does::Code(code) => message.metadata.response_code = code,
            Does::Silence => return Vec::new(),
            Does::Truncates(over_tcp) if tcp => return again(*over_tcp),
            Does::Truncates(over_tcp) => {
                if let Does::Has(ttl_s, list) = *over_tcp {
                    let part = &list[..list.len().min(10)];
                    message.add_answers(records(query.name(), query.query_type(), ttl_s, part));
                }
                message.metadata.truncation = true;
            }
            Does::LiesFirst(truth) => {
                let lie = IpAddr::from([192, 0, 2, 1]);
                let mut other_id = Message::response(
                    request.metadata.id.wrapping_add(1),
                    request.metadata.op_code,
                );
                other_id.add_query(query.clone());
                other_id.add_answers(records(query.name(), query.query_type(), 60, &[lie]));
                let other = Query::query(Name::from_ascii("evil.test.").unwrap(), RecordType::A);
                let mut other_question =
                    Message::response(request.metadata.id, request.metadata.op_code);
                other_question.add_query(other.clone());
                other_question.add_answers(records(other.name(), RecordType::A, 60, &[lie]));
                let mut all: Vec<_> =
                    [other_id, other_question].iter().map(|m| m.to_vec().unwrap()).collect();
                all.extend(again(*truth));
                return all;
            }
            Does::Noise => {
                let mut bytes = request.metadata.id.to_be_bytes().to_vec();
                bytes.extend([0x81, 0x80, 0xff, 0xff, 0xff, 0xff, 0xc0]);
                return vec![bytes];
            }
            Does::KnowsNoEdns(_) if request.edns.is_some() => {
                message.metadata.response_code = ResponseCode::FormErr;
            }
            Does::KnowsNoEdns(then) => return again(*then),
            Does::Fails(times, _) if nth <= times => {
                message.metadata.response_code = ResponseCode::ServFail;
            }
            Does::Ignores(times, _) if nth <= times => return Vec::new(),
            Does::Fails(_, then) | Does::Ignores(_, then) => return again(*then),
        }
        vec![message.to_vec().unwrap()]
    }
}

impl Shared {
    /// A CNAME, and the records behind it as long as they are to stand in the same message.
    fn chain(&self, query: &Query, ttl_s: u32, to: &str, inline: bool) -> Vec<Record> {
        let to_name = Name::from_ascii(to).unwrap();
        let cname = RData::CNAME(CNAME(to_name.clone()));
        let mut all = vec![Record::from_rdata(query.name().clone(), ttl_s, cname)];
        let target = self.0.0.lock().unwrap().rules.get(to).cloned();
        match target {
            Some(Does::Has(ttl_s, list)) if inline => {
                all.extend(records(&to_name, query.query_type(), ttl_s, &list));
            }
            Some(Does::Alias { ttl_s, to, inline: more }) if inline => {
                let query = Query::query(to_name, query.query_type());
                all.extend(self.chain(&query, ttl_s, to, more));
            }
            _ => {}
        }
        all
    }
}

fn add_if(
    message: &mut Message,
    query: &Query,
    kind: RecordType,
    records: impl Iterator<Item = Record>,
) {
    if query.query_type() == kind {
        message.add_answers(records);
    }
}

fn add_texts(message: &mut Message, query: &Query, ttl_s: u32, texts: &[&str]) {
    let record = |text: &&str| text_record(query.name(), ttl_s, text);
    add_if(message, query, RecordType::TXT, texts.iter().map(record));
}

/// A text in pieces of 100 bytes, as those of more than 255 have to come.
fn text_record(name: &Name, ttl_s: u32, text: &str) -> Record {
    let pieces = text.as_bytes().chunks(100);
    let pieces = pieces.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect();
    Record::from_rdata(name.clone(), ttl_s, RData::TXT(TXT::new(pieces)))
}

fn records(name: &Name, kind: RecordType, ttl_s: u32, addresses: &[IpAddr]) -> Vec<Record> {
    (addresses.iter())
        .map(|ip| Record::from_rdata(name.clone(), ttl_s, RData::from(*ip)))
        .filter(|r| r.record_type() == kind)
        .collect()
}

fn service_record(
    name: &Name,
    ttl_s: u32,
    (priority, weight, port, host): (u16, u16, u16, &str),
) -> Record {
    let srv = SRV::new(priority, weight, port, Name::from_ascii(host).unwrap());
    Record::from_rdata(name.clone(), ttl_s, RData::SRV(srv))
}

async fn serve_udp(socket: UdpSocket, shared: Shared) {
    let mut buf = vec![0; 4096];
    loop {
        // On Linux the refusal of an earlier answer (the client is gone) is reported here.
        let Ok((len, from)) = socket.recv_from(&mut buf).await else {
            continue;
        };
        for answer in shared.answers(&buf[..len], "udp") {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let _ = serve_connection(stream, &shared).await;
            shared.change(|s| s.closed += 1);
        });
    }
}

async fn serve_connection(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let len = stream.read_u16().await?;
        let mut question = vec![0; len.into()];
        stream.read_exact(&mut question).await?;
        for answer in shared.answers(&question, "tcp") {
            let len = u16::try_from(answer.len()).expect("DNS messages are shorter");
            stream.write_all(&[&len.to_be_bytes()[..], &answer].concat()).await?;
        }
    }
}
