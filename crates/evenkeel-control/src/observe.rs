//! What went wrong with clients, counted by name: what was refused, and what was taken with a
//! warning. Counts and not logs, because what a client can do once it can do a million times.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! named {
    ($(#[$doc:meta])* $enum:ident { $($(#[$item:meta])* $variant:ident => $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $enum {
            $($(#[$item])* $variant,)*
        }

        impl $enum {
            /// All of them.
            pub const ALL: [Self; [$(stringify!($variant)),*].len()] = [$(Self::$variant,)*];

            /// The name in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl From<$enum> for usize {
            fn from(item: $enum) -> Self {
                item as Self
            }
        }
    };
}

named! {
    /// Why a stream was refused or ended by the balancer.
    Refusal {
        /// There are as many streams as this process takes.
        StreamsMax => "streams_max",
        /// There are as many streams as one address may have.
        StreamsPerPeerMax => "streams_per_peer_max",
        /// The client compresses.
        Compressed => "compressed",
        /// A message is too large or none.
        BadMessage => "bad_message",
        /// No initial request came in time.
        NoInitial => "no_initial",
        /// Something else came first.
        NotInitial => "not_initial",
        /// A second initial request came.
        SecondInitial => "second_initial",
        /// The name is empty, too long or malformed.
        BadName => "bad_name",
        /// Nothing is served under the name.
        UnknownName => "unknown_name",
        /// The client's certificate does not allow it.
        NotAllowed => "not_allowed",
        /// Far more reports came than agreed.
        StatsFlood => "stats_flood",
        /// The first request of xDS does not say who asks.
        XdsNoNode => "xds_no_node",
        /// What a client of xDS says of itself is too large.
        XdsNodeBytes => "xds_node_bytes",
        /// A type of resources that there is not.
        XdsType => "xds_type",
        /// More names of a type than a client may ask for.
        XdsNames => "xds_names",
        /// Far more requests of xDS than anybody needs.
        XdsFlood => "xds_flood",
        /// The client gets no resources here.
        XdsNoView => "xds_no_view",
    }
}

named! {
    /// What a client did wrong without being refused.
    Warning {
        /// Reports keep coming faster than agreed.
        StatsEarly => "stats_early",
        /// A report came although none was asked for.
        StatsUnasked => "stats_unasked",
        /// A report's count was negative; that count was left out.
        StatsNegative => "stats_negative",
        /// A report's count was too large to be one; it was left out.
        StatsTooLarge => "stats_too_large",
        /// A report's time lay before the one of the last.
        StatsBackwards => "stats_backwards",
        /// A report counted drops under a token that no list of the service had.
        UnknownDropToken => "unknown_drop_token",
        /// A report had more tokens than are read.
        TooManyDropTokens => "too_many_drop_tokens",
        /// A message without content.
        EmptyMessage => "empty_message",
        /// A request of xDS answered a response that is not the newest, or was never sent.
        XdsStaleNonce => "xds_stale_nonce",
        /// A stream of xDS named more services on demand than one may have.
        XdsOnDemandMax => "xds_on_demand_max",
        /// A report of load had more clusters, localities, categories or metrics than are counted.
        XdsLoadNames => "xds_load_names",
        /// A report of load was gathered over no time, or over hours; what it says of endpoints was
        /// left out.
        XdsLoadInterval => "xds_load_interval",
        /// A report of load had endpoints without an address, or more than are kept.
        XdsLoadEndpoints => "xds_load_endpoints",
    }
}

/// A count for each variant of one of these enums.
#[derive(Debug)]
pub(crate) struct Counts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counts<N> {
    pub(crate) fn add(&self, item: impl Into<usize>) {
        self.0[item.into()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, item: impl Into<usize>) -> u64 {
        self.0[item.into()].load(Ordering::Relaxed)
    }
}

pub(crate) type Refusals = Counts<{ Refusal::ALL.len() }>;
pub(crate) type Warnings = Counts<{ Warning::ALL.len() }>;
