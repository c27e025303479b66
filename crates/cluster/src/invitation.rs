//! What a node on another machine needs to join a run: one file, made beside the run and carried
//! there.
//!
//! It holds the node's own key and certificate, the authority to trust, where to dial, and the
//! run's configuration. Whoever has it is that node until its certificate expires or is revoked.

mod older;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crrl_config::{ClusterConfig, ConfigError, Node, Role};
use crrl_machine::clock;
use crrl_transport::{Authority, AuthorityError, Credentials, Facts, Pending, Validity};
use crrl_types::{Digest, Host, HostPort, NodeName};
use serde::{Deserialize, Serialize};

use crate::admission::digest_of_key;
use crate::host::prepare::role_texts;
use crate::run_dir::{RunDir, RunDirError, write_atomic};
use crate::token::MintError;

/// The layout this build writes and reads.
const FORMAT: u32 = 1;
/// Longest file that is read as one: a configuration and three keys.
const BYTES_MAX: u64 = 1 << 20;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    format: u32,
    /// Name of the node.
    pub name: NodeName,
    /// Where the nodes it dials listen. An earlier build reads IP addresses only.
    pub addresses: BTreeMap<NodeName, HostPort>,
    /// Last second its certificate is valid, since the Unix epoch.
    pub valid_until_s: i64,
    config: String,
    authority: String,
    certificate: String,
    key: String,
    seed: Vec<u8>,
}

/// An invitation that cannot be written or taken.
#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    /// It makes no sense.
    #[error("{0}")]
    Refused(String),
    /// Certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The run's folder.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A token.
    #[error(transparent)]
    Token(#[from] MintError),
    /// A file.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> InvitationError {
    let path = path.to_owned();
    move |source| InvitationError::File { what, path, source }
}

/// Who is invited.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name: of a node the configuration calls external, or a new one.
    pub name: NodeName,
    /// This machine as the guest reaches it, where nodes listen on every address or on loopback. A
    /// name is looked up by the guest, whenever it dials.
    pub address: Option<Host>,
    /// How long its certificate is valid.
    pub validity: Validity,
}

impl Invitation {
    /// Issues a certificate and puts everything together. The run must have been prepared.
    ///
    /// # Errors
    /// [`InvitationError`]: the name is a local node's, nobody can be dialled, certificates.
    pub fn issue(run: &RunDir, guest: &Guest) -> Result<Self, InvitationError> {
        let Guest { name, validity, .. } = guest;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut invitation = Self::to(run, guest, |authority, roles| {
            authority.issue_anew(name, roles, *validity)?;
            Ok(text(read_tls(run, &format!("{name}.pem"))?))
        })?;
        invitation.key = text(read_tls(run, &format!("{name}.key"))?);
        invitation.seed = read_tls(run, &format!("{name}.seed"))?;
        Ok(invitation)
    }

    /// As [`Invitation::issue`], for a guest that keeps its own key and sends a request for a
    /// certificate (PEM).
    ///
    /// # Errors
    /// As [`Invitation::issue`]; also what is no request.
    pub fn grant(run: &RunDir, guest: &Guest, request: &str) -> Result<Self, InvitationError> {
        Self::to(run, guest, |authority, roles| {
            Ok(authority.sign(request, &guest.name, roles, guest.validity)?)
        })
    }

    /// Everything but the guest's key.
    fn to(
        run: &RunDir,
        guest: &Guest,
        certificate: impl FnOnce(&Authority, &[String]) -> Result<String, InvitationError>,
    ) -> Result<Self, InvitationError> {
        let refused = |error: &dyn std::fmt::Display| InvitationError::Refused(error.to_string());
        let mut config = run.config()?;
        let node = guest_node(&mut config, &guest.name)?;
        let addresses = addresses(run, guest.address.as_ref())?;
        let authority = Authority::open_or_create(&run.tls())?;
        let certificate = certificate(&authority, &role_texts(&node))?;
        let facts = Facts::from_pem(certificate.as_bytes()).map_err(|error| refused(&error))?;
        Ok(Self {
            format: FORMAT,
            name: guest.name.clone(),
            addresses,
            valid_until_s: facts.valid_until_s,
            config: older::written(&config, &node).map_err(|error| refused(&error))?,
            authority: String::from_utf8_lossy(&read_tls(run, "ca.pem")?).into_owned(),
            certificate,
            key: String::new(),
            seed: Vec::new(),
        })
    }

    /// What the key of a request is known by.
    ///
    /// # Errors
    /// It is no request.
    pub(crate) fn key_of(request: &str) -> Result<String, InvitationError> {
        Ok(digest_of_key(&Authority::key_of(request)?))
    }

    /// Whether a name may be invited, and where it would knock. The run must have been prepared.
    ///
    /// # Errors
    /// As [`Invitation::issue`].
    pub fn door(
        run: &RunDir,
        name: &NodeName,
        address: Option<&Host>,
    ) -> Result<HostPort, InvitationError> {
        let mut config = run.config()?;
        guest_node(&mut config, name)?;
        let coordinator = config.nodes().into_iter().find(|n| n.roles.contains(&Role::Coordinator));
        let coordinator = coordinator.map(|node| NodeName::from(node.name.as_str()));
        let mut addresses = addresses(run, address)?;
        let found = coordinator.and_then(|name| addresses.remove(&name));
        found.ok_or_else(|| InvitationError::Refused("nobody knows where to knock".into()))
    }

    /// Writes the file, readable by its owner alone. It must not be there yet.
    ///
    /// # Errors
    /// [`InvitationError::File`].
    pub fn save(&self, path: &Path) -> Result<(), InvitationError> {
        let json = serde_json::to_vec_pretty(self).expect("plain data has a text");
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(file("write", path))?;
        out.write_all(&json).and_then(|()| out.sync_all()).map_err(file("write", path))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`InvitationError`]: it cannot be read, is none, or is of another build.
    pub fn load(path: &Path) -> Result<Self, InvitationError> {
        let len = fs::metadata(path).map_err(file("read", path))?.len();
        if len > BYTES_MAX {
            let what = format!("{} is no invitation: {len} bytes", path.display());
            return Err(InvitationError::Refused(what));
        }
        Self::parse(&fs::read(path).map_err(file("read", path))?, path)
    }

    /// Reads the file's content; `path` is only named in errors.
    ///
    /// # Errors
    /// [`InvitationError::Refused`]: it is none, is of another build, or names a node as no node may
    /// be named.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, InvitationError> {
        let invitation: Self = serde_json::from_slice(bytes).map_err(|error| {
            let path = path.display();
            InvitationError::Refused(format!(
                "{path} is no invitation ({error}); `crrl cluster invite` writes one"
            ))
        })?;
        if invitation.format != FORMAT {
            let path = path.display();
            return Err(InvitationError::Refused(format!(
                "{path} has format {}, this build reads {FORMAT}; use the same build on both machines",
                invitation.format
            )));
        }
        // Files are named after the node: a name that climbs would write anywhere.
        if !crrl_config::is_node_name(invitation.name.as_str()) {
            return Err(InvitationError::Refused(format!(
                "{} is no invitation: {:?} is no name of a node",
                path.display(),
                invitation.name.as_str()
            )));
        }
        Ok(invitation)
    }

    /// Unpacks it into a folder of this machine, from which the node can be run again and again.
    /// What is there of an earlier invitation is replaced, its counter of lives kept.
    ///
    /// # Errors
    /// [`InvitationError`]: expired, or a file cannot be written.
    pub fn unpack(
        &self,
        run: &RunDir,
        now_s: i64,
        change: impl FnOnce(&mut ClusterConfig),
    ) -> Result<(), InvitationError> {
        let used = run.path().join("invitation.used");
        let this = Digest::of(self.certificate.as_bytes()).to_string();
        // Started again with the same file: what it has by now was renewed and counts for longer.
        let again = fs::read_to_string(&used).is_ok_and(|held| held == this);
        let held = Credentials::load(&run.tls(), &self.name).ok().filter(|_| again);
        if held.is_some_and(|held| held.valid_until_s >= now_s) {
            return self.settle(run, change);
        }
        if self.valid_until_s < now_s {
            return Err(InvitationError::Refused(format!(
                "the invitation of {} has expired; ask for another: crrl cluster invite {}",
                self.name, self.name
            )));
        }
        make_tls(run)?;
        let name = &self.name;
        write_tls(run, &format!("{name}.pem"), self.certificate.as_bytes())?;
        write_tls(run, &format!("{name}.key"), self.key.as_bytes())?;
        write_tls(run, &format!("{name}.seed"), &self.seed)?;
        self.settle(run, change)?;
        Ok(write_atomic(&used, this.as_bytes())?)
    }

    /// Takes up what was granted for the key that waits here; as [`Invitation::unpack`] otherwise.
    ///
    /// # Errors
    /// [`InvitationError`].
    pub fn take_up(
        &self,
        run: &RunDir,
        pending: Pending,
        change: impl FnOnce(&mut ClusterConfig),
    ) -> Result<(), InvitationError> {
        self.settle(run, change)?;
        Ok(pending.adopt(&self.certificate)?)
    }

    /// Everything but the node's own key and certificate.
    fn settle(
        &self,
        run: &RunDir,
        change: impl FnOnce(&mut ClusterConfig),
    ) -> Result<(), InvitationError> {
        write_tls(run, "ca.pem", self.authority.as_bytes())?;
        // A folder that is gone may have had a counter: whoever lived there lived earlier.
        run.lived_until(&self.name, clock::unix_ms() / 1000)?;
        let json = serde_json::to_vec_pretty(&self.addresses).expect("plain data has a text");
        write_atomic(&run.addresses_path(), &json)?;
        let mut config = older::read(&self.config).map_err(InvitationError::Refused)?;
        run.path().clone_into(&mut config.run.dir);
        change(&mut config);
        let text = toml::to_string(&config)
            .map_err(|error| InvitationError::Refused(error.to_string()))?;
        Ok(write_atomic(&run.config_path(), text.as_bytes())?)
    }
}

/// Makes the folder of a node's certificates.
///
/// # Errors
/// Names the folder.
pub fn make_tls(run: &RunDir) -> Result<(), InvitationError> {
    let tls = run.tls();
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true).mode(0o700).create(&tls).map_err(file("write", &tls))
}

fn read_tls(run: &RunDir, name: &str) -> Result<Vec<u8>, InvitationError> {
    let path = run.tls().join(name);
    fs::read(&path).map_err(file("read", &path))
}

fn write_tls(run: &RunDir, name: &str, content: &[u8]) -> Result<(), InvitationError> {
    let path = run.tls().join(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut out = options.open(&path).map_err(file("write", &path))?;
    out.write_all(content).map_err(file("write", &path))
}

/// The guest in the configuration: an external node, or a rollout node that is added to it.
fn guest_node(config: &mut ClusterConfig, name: &NodeName) -> Result<Node, InvitationError> {
    let mut nodes = config.nodes();
    match nodes.iter().find(|node| node.name == name.as_str()) {
        Some(node) if !node.is_local() => return Ok(node.clone()),
        Some(_) => {
            return Err(InvitationError::Refused(format!(
                "{name} is a node that this machine starts itself; say external = true in its \
                 [[node]], or choose another name"
            )));
        }
        None => {}
    }
    let node = Node {
        name: name.to_string(),
        roles: vec![Role::Rollout],
        threads: 0,
        external: true,
        ..Node::default()
    };
    nodes.push(node.clone());
    config.node = nodes;
    match crrl_config::validate::validate(config).into_iter().next() {
        Some(problem) => Err(InvitationError::Refused(problem)),
        None => Ok(node),
    }
}

/// Where the nodes that are dialled can be reached from elsewhere.
fn addresses(
    run: &RunDir,
    address: Option<&Host>,
) -> Result<BTreeMap<NodeName, HostPort>, InvitationError> {
    let mut addresses = run.addresses()?;
    if addresses.is_empty() {
        return Err(InvitationError::Refused(format!(
            "{} was never brought up: nobody can be dialled yet",
            run.path().display()
        )));
    }
    for (node, at) in &mut addresses {
        match address {
            Some(host) => *at = host.clone().with_port(at.port()),
            None if at.is_unspecified() => {
                return Err(InvitationError::Refused(format!(
                    "{node} listens on every address of this machine: say with --address which of \
                     them the guest can reach"
                )));
            }
            None => {}
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(listen: &str) -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path().join("run"));
        fs::create_dir_all(run.path()).expect("can be made");
        let mut config = ClusterConfig::default();
        config.learner.micro_batch_tokens = 20_000;
        config.cluster.listen = listen.into();
        fs::write(run.config_path(), toml::to_string(&config).expect("plain")).expect("writable");
        crate::host::prepare::prepare(&run, &config).expect("a free port");
        (folder, run)
    }

    fn guest(name: &str, address: Option<&str>) -> Guest {
        Guest {
            name: name.into(),
            address: address.map(|text| text.parse().expect("an address")),
            validity: Validity::hours(1),
        }
    }

    #[test]
    fn a_guest_gets_what_it_needs_and_nothing_of_the_others() {
        let (folder, run) = prepared("127.0.0.1:0");
        let invitation =
            Invitation::issue(&run, &guest("gpu-box", Some("10.0.0.7"))).expect("can be issued");
        let path = folder.path().join("gpu-box.join");
        invitation.save(&path).expect("writable");
        let text = fs::read_to_string(&path).expect("was written");
        let secret = fs::read_to_string(run.tls().join("learner.key")).expect("was issued");
        let line = secret.lines().nth(1).expect("a key");
        assert!(!text.contains(line), "another node's key is in it");
        let authority = fs::read_to_string(run.tls().join("ca.key")).expect("was made");
        assert!(!text.contains(authority.lines().nth(1).expect("a key")), "the authority's key");

        let theirs = RunDir::new(folder.path().join("elsewhere"));
        let loaded = Invitation::load(&path).expect("is one");
        loaded.unpack(&theirs, 0, |config| config.model.path = "/data/model".into()).expect("fits");
        let config = theirs.config().expect("can be read");
        assert_eq!(config.model.path, Path::new("/data/model"));
        let options =
            crate::MeshOptions::for_node(&theirs, &"gpu-box".into()).expect("can be joined");
        let [(name, address)] = &options.dial[..] else { panic!("{options:?}") };
        assert_eq!(name.as_str(), "coordinator");
        assert_eq!(address.host().to_string(), "10.0.0.7");
        assert_eq!(address.port(), run.addresses().expect("prepared")[name].port());
    }

    #[test]
    fn a_guest_may_be_told_a_name_that_it_looks_up_itself() {
        let (folder, run) = prepared("0.0.0.0:0");
        let invitation =
            Invitation::issue(&run, &guest("gpu-box", Some("trainer.lan"))).expect("can be issued");
        let theirs = RunDir::new(folder.path().join("elsewhere"));
        invitation.unpack(&theirs, 0, |_| {}).expect("fits");
        let options =
            crate::MeshOptions::for_node(&theirs, &"gpu-box".into()).expect("can be joined");
        let [(name, at)] = &options.dial[..] else { panic!("{options:?}") };
        let port = run.addresses().expect("prepared")[name].port();
        assert_eq!(at.to_string(), format!("trainer.lan:{port}"));
        assert_eq!(options.relay, None, "as for an address that is no loopback address");
    }

    #[test]
    fn a_node_that_comes_back_keeps_what_it_has_renewed() {
        let (folder, run) = prepared("127.0.0.1:0");
        let invitation = Invitation::issue(&run, &guest("gpu-box", None)).expect("can be issued");
        let theirs = RunDir::new(folder.path().join("elsewhere"));
        invitation.unpack(&theirs, 0, |_| {}).expect("fits");
        let name = NodeName::from("gpu-box");
        let authority = Authority::open_or_create(&run.tls()).expect("is there");
        let pending = Pending::open(&theirs.tls(), &name).expect("can be made");
        let roles = ["rollout".to_owned()];
        let signed = authority.sign(pending.request(), &name, &roles, Validity::hours(99));
        let signed = signed.expect("is a request");
        pending.adopt(&signed).expect("is for this key");
        // The file has expired since; what was renewed has not.
        let late = invitation.valid_until_s + 1;
        invitation.unpack(&theirs, late, |_| {}).expect("is still a member");
        let held = fs::read_to_string(theirs.tls().join("gpu-box.pem")).expect("is there");
        assert_eq!(held, signed);
        // Another invitation counts from now on.
        let other = Invitation::issue(&run, &guest("gpu-box", None)).expect("can be issued");
        other.unpack(&theirs, 0, |_| {}).expect("fits");
        let held = fs::read_to_string(theirs.tls().join("gpu-box.pem")).expect("is there");
        assert_eq!(held, other.certificate);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_do() {
        let (folder, run) = prepared("0.0.0.0:0");
        let refused =
            |guest: &Guest| Invitation::issue(&run, guest).expect_err("makes no sense").to_string();
        assert!(refused(&guest("learner", Some("10.0.0.7"))).contains("external = true"));
        assert!(refused(&guest("new", None)).contains("--address"));
        assert!(refused(&guest("a b", Some("10.0.0.7"))).contains("node name"));
        let path = folder.path().join("no.join");
        fs::write(&path, "{}").expect("writable");
        let error = Invitation::load(&path).expect_err("is none").to_string();
        assert!(error.contains("no.join is no invitation"), "{error}");
        let invitation =
            Invitation::issue(&run, &guest("new", Some("10.0.0.7"))).expect("can be issued");
        let late = invitation.valid_until_s + 1;
        let error = invitation.unpack(&run, late, |_| {}).expect_err("too late").to_string();
        assert!(error.contains("has expired"), "{error}");
    }

    #[test]
    fn a_name_that_climbs_out_of_the_folder_is_refused() {
        let (_folder, run) = prepared("127.0.0.1:0");
        let mut invitation =
            Invitation::issue(&run, &guest("new", Some("10.0.0.7"))).expect("can be issued");
        invitation.name = "../../elsewhere".into();
        let bytes = serde_json::to_vec(&invitation).expect("plain data");
        let error = Invitation::parse(&bytes, Path::new("x.join")).expect_err("climbs").to_string();
        assert!(error.contains("no name of a node"), "{error}");
    }
}
