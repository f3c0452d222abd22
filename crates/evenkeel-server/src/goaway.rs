//! Why a connection was closed, between our events and what GOAWAY says on the wire. h2 keeps the
//! debug data of its own GOAWAY to itself, so it is read from the bytes that h2 writes.

use crate::observe::Event;

const NO_ERROR: u32 = 0;
/// Only from h2's limit on the bytes of a header block that is over size.
const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// The debug data that we send. gRPC clients know `too_many_pings`: they send keepalives more
/// rarely after it.
pub(crate) fn debug_data(event: Event) -> &'static str {
    match event {
        Event::AbusePings => "too_many_pings",
        Event::AbuseSettings => "too_many_settings",
        Event::AbuseResets => "too_many_resets",
        Event::AbuseWindowUpdates => "too_many_window_updates",
        Event::FrameStalled => "frame_timeout",
        Event::ResponseStalled => "response_timeout",
        _ => "too_many_frames",
    }
}

/// The event of a GOAWAY that h2 sent.
pub(crate) fn event(code: u32, debug_data: &[u8]) -> Option<Event> {
    if code == NO_ERROR {
        return None;
    }
    Some(match debug_data {
        b"too_many_resets" => Event::AbuseResets,
        b"too_many_internal_resets" => Event::AbuseErrorResets,
        b"too_many_continuations" => Event::AbuseContinuations,
        b"too_many_data_frames" => Event::AbuseDataFrames,
        b"header_list_way_too_large" => Event::AbuseHeaderList,
        _ if code == COMPRESSION_ERROR => Event::AbuseHeaderList,
        _ => Event::ProtocolError,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_goaway_is_no_event() {
        assert_eq!(event(NO_ERROR, b""), None);
    }

    #[test]
    fn what_is_not_known_is_a_protocol_error() {
        assert_eq!(event(1, b""), Some(Event::ProtocolError));
        assert_eq!(event(ENHANCE_YOUR_CALM, b"new in h2"), Some(Event::ProtocolError));
    }

    #[test]
    fn our_own_reasons_differ() {
        let ours = [
            Event::AbusePings,
            Event::AbuseSettings,
            Event::AbuseResets,
            Event::AbuseWindowUpdates,
            Event::AbuseOtherFrames,
            Event::FrameStalled,
        ];
        let texts: std::collections::HashSet<_> = ours.map(debug_data).into_iter().collect();
        assert_eq!(texts.len(), ours.len());
    }
}
