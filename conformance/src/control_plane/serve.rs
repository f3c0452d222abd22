//! The server, its file and its signals.

use std::{fs, path::Path, sync::Arc, time::Duration};

use evenkeel_control::{
    Control,
    config::Config,
    names::NameRules,
    xds::{NodeViews, Xds, XdsSettings},
};
use evenkeel_server::Server;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tonic::service::Routes;

use super::{Flags, events::Events, translate::translate};

/// How often clients are looked at for what they refused: the counts at the end are exact, these
/// events are for people.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn serve(flags: &Flags) -> Result<(), String> {
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&read(&flags.snapshot)?);
    let views = NodeViews::new(control.clone());
    let xds = Xds::new(control.clone(), Arc::new(views.clone()), XdsSettings::default());
    let routes = Routes::new(xds.ads()).add_service(xds.lrs());
    let server = Server::builder().build(routes).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(flags.listen)
        .await
        .map_err(|error| format!("could not listen on {}: {error}", flags.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    if let Some(file) = &flags.write_bootstrap {
        write_bootstrap(file, &address.to_string())?;
    }
    let listen = |kind| signal(kind).map_err(|error| format!("could not hear signals: {error}"));
    let mut hangup = listen(SignalKind::hangup())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events = Events::new(std::io::stdout(), flags.verbose);
    let mut version = 1_u64;
    let mut serving = std::pin::pin!(server.serve([listener]));
    let mut following = std::pin::pin!(views.run());
    events.say("listening", json!({"addresses": [address.to_string()], "pid": std::process::id()}));
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map(drop).map_err(|error| error.to_string()),
            () = &mut following => return Err("the views have ended before the server".into()),
            _ = hangup.recv() => match read(&flags.snapshot) {
                Ok(config) => {
                    control.configure(&config);
                    version += 1;
                    events.say("hup", json!({"version": version}));
                }
                // What was good stays in use, as with `peer xds`.
                Err(error) => events.say("error", json!({"error": error})),
            },
            _ = looks.tick() => events.look(&xds),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    events.look(&xds);
    events.exit(&xds);
    Ok(())
}

fn read(file: &Path) -> Result<Config, String> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let yaml = translate(&text).map_err(|error| format!("{name}: {error}"))?;
    Config::from_yaml(&yaml, &name, "default").map_err(|error| error.to_string())
}

/// As the implementations of gRPC want it; with a scheme for tonic-xds.
fn write_bootstrap(file: &Path, address: &str) -> Result<(), String> {
    for (suffix, scheme) in [("", ""), (".http", "http://")] {
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": format!("{scheme}{address}"),
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            "node": {"id": "peer", "locality": {"region": "r0"}},
        });
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        fs::write(&path, format!("{bootstrap}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
