//! `grpc.testing`, generated from the files in `proto/grpc/testing`.

// The generator documents only what the .proto file comments; services of the xDS tests come along.
#![allow(missing_docs, unused_qualifications, unreachable_pub, dead_code)]

include!(concat!(env!("OUT_DIR"), "/grpc.testing.rs"));
