//! The greeter's messages and stubs, generated from `proto/helloworld.proto`. They live beside the
//! services and not in `evenkeel-proto`, because `helloworld` is what the examples talk about and
//! not a protocol of load balancing.

pub use generated::{HelloReply, HelloRequest, greeter_client, greeter_server};

/// The encoded `FileDescriptorSet` of `helloworld.proto`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/helloworld.bin"));

mod generated {
    // The generator documents only what the .proto file comments.
    #![allow(missing_docs, unused_qualifications)]
    include!(concat!(env!("OUT_DIR"), "/helloworld.rs"));
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_request_and_a_reply_have_their_text_in_field_one() {
        let bytes = [0x0a, 3, b'y', b'o', b'u'];
        assert_eq!(HelloRequest::decode(&bytes[..]).expect("valid bytes").name, "you");
        assert_eq!(HelloReply::decode(&bytes[..]).expect("valid bytes").message, "you");
    }

    #[test]
    fn the_descriptor_set_names_the_service() {
        assert!(FILE_DESCRIPTOR_SET.windows(7).any(|window| window == b"Greeter"));
        assert!(FILE_DESCRIPTOR_SET.windows(8).any(|window| window == b"SayHello"));
    }
}
