//! gRPC's framing of messages in HTTP/2 data, as far as counting needs it: each message has a byte
//! that says whether it is compressed, and four for its length. Channel and server count what is
//! between these heads (gRFC A66); their messages are read and written by tonic, which does not
//! tell their sizes.

/// Bytes before each message.
const HEAD_BYTES: u8 = 5;

/// Counts the bytes of the messages of one direction of a call, compressed and without their heads.
///
/// ```
/// # use evenkeel_proto::framing::MessageBytes;
/// let mut bytes = MessageBytes::default();
/// assert_eq!(bytes.add(&[0, 0, 0, 0, 2, b'h', b'i', 0, 0, 0]), 2);
/// assert_eq!(bytes.add(&[0, 1, b'!']), 3);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageBytes {
    total: u64,
    /// Of the message that is not whole yet; in a head, the part of its length that has come.
    left: u32,
    /// Bytes of a head that is not whole yet.
    head: u8,
}

impl MessageBytes {
    /// Takes the next piece, wherever it begins and ends; returns the bytes so far.
    pub fn add(&mut self, mut data: &[u8]) -> u64 {
        // One whole message in one piece, as most calls have it.
        if let ([_, a, b, c, d, message @ ..], 0, 0) = (data, self.head, self.left)
            && u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len()
        {
            self.total += message.len() as u64;
            return self.total;
        }
        while let Some(&first) = data.first() {
            if self.head == 0 && self.left > 0 {
                let taken = data.len().min(self.left as usize);
                self.left -= taken as u32;
                self.total += taken as u64;
                data = &data[taken..];
                continue;
            }
            if let ([_, a, b, c, d, rest @ ..], 0) = (data, self.head) {
                self.left = u32::from_be_bytes([*a, *b, *c, *d]);
                data = rest;
                continue;
            }
            // A head in pieces; its first byte is a flag, shifted out again by the length's four.
            self.left = (self.left << 8) | u32::from(first);
            self.head += 1;
            if self.head == HEAD_BYTES {
                self.head = 0;
            }
            data = &data[1..];
        }
        self.total
    }

    /// The bytes so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[usize]) -> Vec<u8> {
        let message = |len: &usize| {
            let head = [&[1][..], &(*len as u32).to_be_bytes()].concat();
            [head, vec![7; *len]].concat()
        };
        messages.iter().flat_map(message).collect()
    }

    #[test]
    fn messages_are_counted_however_they_are_cut_into_pieces() {
        let messages = [0, 3, 0, 300, 70_000, 1];
        let data = framed(&messages);
        for piece in [1, 2, 3, 4, 5, 6, 7, 1_000, data.len()] {
            let mut bytes = MessageBytes::default();
            data.chunks(piece).for_each(|piece| {
                bytes.add(piece);
            });
            assert_eq!(bytes.total(), messages.iter().sum::<usize>() as u64, "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_whole_counts_as_far_as_it_came() {
        let mut bytes = MessageBytes::default();
        assert_eq!(bytes.add(&framed(&[10])[..9]), 4);
        assert_eq!(MessageBytes::default().add(&[0, 0, 0]), 0);
    }

    #[test]
    fn the_longest_message_that_a_head_can_name_is_no_overflow() {
        let mut bytes = MessageBytes::default();
        bytes.add(&[0xff; 5]);
        assert_eq!(bytes.add(&[0; 100]), 100);
    }
}
