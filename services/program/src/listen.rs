//! Where a program accepts connections, and the line by which who started it knows that it does.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use tokio::net::TcpListener;

/// An address can't be had.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}: {source}; free it or choose another with {setting}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
    setting: &'static str,
}

/// Listens on all of `addresses`; port 0 takes a free port. `setting` is the flag and the variable
/// that errors name.
///
/// # Errors
///
/// The first address that can't be had.
pub async fn listen(
    addresses: &[SocketAddr],
    setting: &'static str,
) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|source| ListenError { address, source, setting })?);
    }
    Ok(listeners)
}

/// Says the real ports: the kernel accepts connections from [`listen`] on. One line for each port.
pub fn announce(listeners: &[TcpListener]) {
    let mut ports: Vec<_> =
        listeners.iter().filter_map(|one| one.local_addr().ok()).map(|at| at.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        // A closed standard output is no reason not to serve.
        let _ = writeln!(io::stdout(), "Started server on port {port}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_what_to_do() {
        let free = [SocketAddr::from(([127, 0, 0, 1], 0))];
        let taken = listen(&free, "--listen or X_LISTEN").await.expect("a free port");
        let address = taken[0].local_addr().expect("it listens");
        let error = listen(&[address], "--listen or X_LISTEN").await.expect_err("it is taken");
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.ends_with("choose another with --listen or X_LISTEN"), "{text}");
    }
}
