//! The Service's EndpointSlice, on an API server of the phase's own. The lab plays the controller:
//! it writes what kubelet and the EndpointSlice controller would have written.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use apiserver::{ApiServer, SliceEndpoint, SliceSpec};

use crate::{
    blocks::{BACKEND_PORT, Block},
    clock::unix_s,
    error::LabError,
    run::Run,
};

/// The Service's name in the namespace `default`; DNS has it too.
pub(crate) const SERVICE: &str = "greeter";

/// A running API server with one slice; dropping it closes every watch.
pub(crate) struct Slices {
    pub(crate) api: ApiServer,
    kubeconfig: PathBuf,
}

impl Slices {
    /// Serves on `block`, with an empty slice, and writes a kubeconfig into the run's folder.
    ///
    /// # Errors
    ///
    /// When the address can't be used or the file can't be written.
    pub(crate) async fn start(run: &Run, phase: &str, block: &Block) -> Result<Self, LabError> {
        let address = SocketAddr::from((block.api_ip(), 0));
        let what = |address: SocketAddr| format!("API server on {address}");
        let api = ApiServer::start(address).await.map_err(LabError::io(what(address)))?;
        let kubeconfig = run.path(&format!("{phase}-kubeconfig.yaml"));
        std::fs::write(&kubeconfig, api.kubeconfig())
            .map_err(LabError::io(format!("can't write {}", kubeconfig.display())))?;
        let slices = Self { api, kubeconfig };
        slices.publish(&[], &[]);
        Ok(slices)
    }

    /// The file by which others reach the API server.
    pub(crate) fn kubeconfig(&self) -> String {
        self.kubeconfig.display().to_string()
    }

    /// Writes the slice anew and returns when.
    pub(crate) fn publish(&self, ready: &[Ipv4Addr], terminating: &[Ipv4Addr]) -> f64 {
        let ready = ready.iter().map(|ip| SliceEndpoint::ready(*ip));
        let terminating = terminating.iter().map(|ip| SliceEndpoint::terminating(*ip));
        let endpoints = ready.chain(terminating).collect();
        // Before: whoever hears of it can't hear of it earlier than that.
        let at = unix_s();
        self.api.apply(&SliceSpec::new(SERVICE, BACKEND_PORT, endpoints));
        at
    }

    /// From now on connecting is refused, or served again.
    ///
    /// # Errors
    ///
    /// When the address is taken meanwhile.
    pub(crate) async fn silence(&mut self, is_silent: bool) -> Result<(), LabError> {
        if is_silent {
            self.api.stop().await;
            return Ok(());
        }
        self.api.resume().map_err(LabError::io("the API server's return"))
    }
}
