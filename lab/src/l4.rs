//! A ClusterIP with kube-proxy, played by a TCP proxy: one destination, picked at random, per
//! connection.
//!
//! kube-proxy rewrites packets in the kernel and this copies bytes; what `baseline` shows depends
//! only on what both have in common: the choice is made once per connection, and neither looks
//! into it. A destination that refuses resets the caller, as a rewritten connection would be.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::error::LabError;

#[cfg(test)]
mod tests;

/// More connections than this wait in the listen queue.
const CONNECTIONS_MAX: usize = 1024;

/// A running proxy; dropping it closes its listener and every connection.
#[derive(Debug)]
pub(crate) struct L4 {
    address: SocketAddrV4,
    given: Arc<Mutex<BTreeMap<SocketAddrV4, u64>>>,
    _accepting: JoinSet<()>,
}

impl L4 {
    /// Listens on `address` and sends each connection to one of `destinations`.
    ///
    /// # Errors
    ///
    /// When `address` can't be bound.
    pub(crate) async fn start(
        address: SocketAddrV4,
        destinations: Vec<SocketAddrV4>,
    ) -> Result<Self, LabError> {
        let what = || format!("L4 proxy on {address}");
        let listener = TcpListener::bind(address).await.map_err(LabError::io(what()))?;
        let bound = listener.local_addr().map_err(LabError::io(what()))?.port();
        let address = SocketAddrV4::new(*address.ip(), bound);
        let given = Arc::new(Mutex::new(BTreeMap::new()));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, destinations, Arc::clone(&given)));
        Ok(Self { address, given, _accepting: accepting })
    }

    /// Where the proxy listens.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How many connections each destination was given.
    pub(crate) fn connections(&self) -> BTreeMap<SocketAddrV4, u64> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(
    listener: TcpListener,
    destinations: Vec<SocketAddrV4>,
    given: Arc<Mutex<BTreeMap<SocketAddrV4, u64>>>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        // Fails only for this one caller (it is gone already, or there are too many files open).
        let Ok((caller, _)) = listener.accept().await else { continue };
        let Some(destination) = fastrand::choice(&destinations).copied() else { continue };
        *given.lock().unwrap_or_else(PoisonError::into_inner).entry(destination).or_default() += 1;
        connections.spawn(async move {
            carry(caller, destination).await;
            drop(slot);
        });
    }
}

/// Copies both ways until both have ended. An error on one side resets both, as the peer of a
/// rewritten connection would see it.
async fn carry(mut caller: TcpStream, destination: SocketAddrV4) {
    let Ok(mut backend) = TcpStream::connect(destination).await else {
        caller.set_zero_linger().ok();
        return;
    };
    // The proxy must not add Nagle's delay to a connection whose ends turned it off.
    caller.set_nodelay(true).ok();
    backend.set_nodelay(true).ok();
    if copy_bidirectional(&mut caller, &mut backend).await.is_err() {
        caller.set_zero_linger().ok();
        backend.set_zero_linger().ok();
    }
}
