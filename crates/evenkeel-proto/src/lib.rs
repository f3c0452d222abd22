//! Messages and stubs of gRPC's own protocols, generated from the files in `proto/` whose origin is
//! in `proto/PROVENANCE.md`. A crate of its own, so that core stays free of generated code and
//! whoever wants only the messages gets no channel. Modules are laid out as the generated paths
//! between packages expect: `xds.service.orca.v3` refers to `xds.data.orca.v3` by its place in the
//! tree.

pub mod framing;

/// Protocols of gRPC itself.
pub mod grpc {
    /// channelz, which shows a process's channels, servers and sockets (gRFC A14).
    pub mod channelz {
        /// `grpc.channelz.v1`: the service `Channelz` and its messages.
        pub mod v1 {
            // The generator documents only what the .proto file comments.
            #![allow(missing_docs, unused_qualifications)]
            include!(concat!(env!("OUT_DIR"), "/grpc.channelz.v1.rs"));

            /// The encoded `FileDescriptorSet` of this package, for server reflection.
            pub const FILE_DESCRIPTOR_SET: &[u8] =
                include_bytes!(concat!(env!("OUT_DIR"), "/channelz.bin"));
        }
    }
    /// What a server says of its own health.
    pub mod health {
        /// `grpc.health.v1`: `Check`, `Watch` and their messages.
        pub mod v1 {
            // The generator documents only what the .proto file comments.
            #![allow(missing_docs, unused_qualifications)]
            include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
        }
    }
    /// grpclb, the lookaside load-balancing protocol.
    pub mod lb {
        /// `grpc.lb.v1`: `BalanceLoad` and its messages.
        pub mod v1 {
            // The generator documents only what the .proto file comments.
            #![allow(missing_docs, unused_qualifications)]
            include!(concat!(env!("OUT_DIR"), "/grpc.lb.v1.rs"));

            /// The encoded `FileDescriptorSet` of this package, for server reflection.
            pub const FILE_DESCRIPTOR_SET: &[u8] =
                include_bytes!(concat!(env!("OUT_DIR"), "/load_balancer.bin"));
        }
    }
}

/// Protocols of the xDS family.
pub mod xds {
    /// Data types.
    pub mod data {
        /// Open Request Cost Aggregation: what a backend reports about its load.
        pub mod orca {
            /// `xds.data.orca.v3`: the load report.
            pub mod v3 {
                // The generator documents only what the .proto file comments.
                #![allow(missing_docs, unused_qualifications)]
                include!(concat!(env!("OUT_DIR"), "/xds.data.orca.v3.rs"));
            }
        }
    }
    /// Services.
    pub mod service {
        /// Open Request Cost Aggregation: reports out of band.
        pub mod orca {
            /// `xds.service.orca.v3`: `StreamCoreMetrics` and its request.
            pub mod v3 {
                // The generator documents only what the .proto file comments.
                #![allow(missing_docs, unused_qualifications)]
                include!(concat!(env!("OUT_DIR"), "/xds.service.orca.v3.rs"));
            }
        }
    }
}

/// Envoy's API, the messages of xDS: a subset of upstream's messages and fields, compared with
/// upstream's files by the test in `upstream/`.
mod xds_api {
    // The generator documents only what the .proto file comments, and boxes no oneof: a route's
    // action is as large as its largest case, of which a process has a few thousand.
    #![allow(missing_docs, unused_qualifications, clippy::large_enum_variant)]
    include!(concat!(env!("OUT_DIR"), "/envoy.rs"));
}
pub use xds_api::{envoy, google};

/// The encoded `FileDescriptorSet` of [`envoy`], for server reflection.
pub const ENVOY_FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));
