//! What lies on a disk, and may have been written by anybody.

use std::io::Write as _;
use std::path::Path;

use crrl_cluster::invitation::Invitation;
use crrl_config::{Overrides, is_node_name};
use crrl_control::Plan;
use crrl_inspect::kept::Kept;
use crrl_inspect::recording::Recording;
use crrl_transport::RevokedList;
use crrl_types::{Event, Task};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// `cluster.toml`. One that is read can be written and read again.
#[must_use]
pub fn configuration(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("cluster.toml");
    let Ok(config) = crrl_config::parse(&text, path, &Overrides::default()) else { return false };
    let written = toml::to_string(&config).expect("what was read can be written");
    let again = crrl_config::parse(&written, path, &Overrides::default());
    assert_eq!(again.expect("what was written can be read"), config);
    assert!(config.nodes().iter().all(|node| is_node_name(&node.name)));
    true
}

/// A file of faults.
#[must_use]
pub fn faults(bytes: &[u8]) -> bool {
    let Ok(list) = crrl_config::faults::parse(&String::from_utf8_lossy(bytes)) else {
        return false;
    };
    assert!(list.iter().all(|scenario| (0.0..=3600.0).contains(&scenario.duration_s)));
    true
}

/// What a guest is given. Files are named after the node in it.
#[must_use]
pub fn invitation(bytes: &[u8]) -> bool {
    let Ok(invitation) = Invitation::parse(bytes, Path::new("x.join")) else { return false };
    assert!(is_node_name(invitation.name.as_str()), "{:?}", invitation.name);
    assert_eq!(written_and_read(&invitation), invitation);
    true
}

/// A line of a task file.
#[must_use]
pub fn task(bytes: &[u8]) -> bool {
    json::<Task>(bytes)
}

/// A line of a history.
#[must_use]
pub fn event(bytes: &[u8]) -> bool {
    json::<Event>(bytes)
}

/// A run's plan.
#[must_use]
pub fn plan(bytes: &[u8]) -> bool {
    let Ok(plan) = Plan::parse(&String::from_utf8_lossy(bytes)) else { return false };
    Plan::parse(&plan.to_json()).expect("what was written can be read");
    true
}

/// Certificates that count no more.
#[must_use]
pub fn revoked(bytes: &[u8]) -> bool {
    json::<RevokedList>(bytes)
}

/// A line of the log of orders.
#[must_use]
pub fn order(bytes: &[u8]) -> bool {
    crrl_cluster::untrusted::is_order(bytes)
}

/// A recording of the inspector, with every frame of it and everything beside them.
#[must_use]
pub fn recording(bytes: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("writable");
    let Ok(mut recording) = Recording::open(file.path()) else { return false };
    let times: Vec<u64> = recording.times().collect();
    assert!(times.is_sorted());
    for (at, at_ms) in times.into_iter().enumerate() {
        if let Ok(frame) = recording.frame(at) {
            assert_eq!(frame.at_ms, at_ms);
        }
    }
    for at in 0..recording.kept_until(u64::MAX) {
        if let Ok(Kept::Left { left, .. }) = recording.kept(at) {
            let trajectory = left.restore().trajectory;
            assert!(trajectory.generated.len() <= trajectory.tokens.len());
            assert_eq!(trajectory.generated.len(), trajectory.logprobs.len());
        }
    }
    true
}

fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    // Numbers of JSON may differ in their last digit: that it can be read is all that is asked.
    let _ = written_and_read(&value);
    true
}

fn written_and_read<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let written = serde_json::to_vec(value).expect("what was read can be written");
    serde_json::from_slice(&written).expect("what was written can be read")
}
