//! A real coordinator's board of the made-up cluster: dialled, over QUIC, with certificates.

use std::path::Path;

use crrl_cluster::host::prepare;
use crrl_cluster::{Mesh, MeshOptions, Router, RunDir, StatusBoard};

const CONFIG: &str = "[run]\ndir = \"RUN\"\n[learner]\nmicro_batch_tokens = 20000\n";

/// A run folder with certificates and addresses.
pub(crate) fn prepared(folder: &Path) -> RunDir {
    let run = RunDir::new(folder);
    std::fs::create_dir_all(run.path()).expect("can be made");
    let text = CONFIG.replace("RUN", &run.path().display().to_string());
    std::fs::write(run.config_path(), text).expect("can be written");
    let config = run.config().expect("it was just written");
    prepare::prepare(&run, &config).expect("certificates and addresses");
    run
}

/// Starts the coordinator. Whatever is put on the board is seen by whoever dials.
pub(crate) async fn start(run: &RunDir) -> (Mesh, StatusBoard) {
    let board = StatusBoard::new();
    let options = MeshOptions::for_node(run, &"coordinator".into()).expect("was prepared");
    let mesh = Mesh::start(options, Router::new(), board.clone()).await.expect("can listen");
    (mesh, board)
}
