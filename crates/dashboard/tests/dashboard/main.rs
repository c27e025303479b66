//! The dashboard as a browser and a script meet it: over a socket, on run folders and a coordinator
//! that are made up.

mod answers;
mod browser;
mod client;
#[path = "../../../inspect/tests/inspect/coordinator.rs"]
mod coordinator;
mod following;
mod gate;
mod hostile;
mod live;
#[path = "../../../inspect/tests/inspect/scene.rs"]
mod scene;
#[path = "../../../../tests/support/skips.rs"]
mod skips;
mod under_way;
#[path = "../../../report/tests/world/mod.rs"]
mod world;
mod writing;

use std::path::PathBuf;
use std::time::Duration;

use crrl_dashboard::{Dashboard, StartError};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A dashboard that answers until it is dropped.
struct Served {
    client: client::Client,
    address: String,
    _end: tokio::sync::oneshot::Sender<()>,
}

/// Serves the runs of these folders on any port.
async fn serve(folders: &[PathBuf]) -> Result<Served, StartError> {
    let dashboard = Dashboard::start(folders, 0).await?;
    let client = client::Client::new(dashboard.port(), dashboard.token().reveal());
    let address = dashboard.address();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(dashboard.serve(async {
        let _ = ended.await;
    }));
    Ok(Served { client, address, _end: end })
}

/// A made-up run that is over, served.
async fn made_up(world: &world::World) -> (tempfile::TempDir, Served) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = folder.path().join("run");
    world.write(&run);
    let served = serve(&[run]).await.expect("a run");
    (folder, served)
}
