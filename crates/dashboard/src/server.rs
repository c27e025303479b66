//! Binds loopback, answers requests, and ends with its caller.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN, SET_COOKIE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use crrl_report::RUNS_MAX;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::api::compare::Told;
use crate::api::{self, Problem};
use crate::assets;
use crate::followers::Followers;
use crate::gate::{self, Knock, Verdict};
use crate::run::Run;
use crate::token::Token;
use crate::viewers::Viewers;
use crate::watch::{Pulses, Watcher};

/// Requests that read a run's files at one time; more wait. Reading is the disk's and the processor's
/// time, which a run on this machine needs too.
const READERS_MAX: usize = 2;

/// Why a dashboard cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing to show.
    #[error(
        "{path} is not the folder of a run: it has neither plan.json nor cluster.toml; `crrl train` and \
         `crrl quickstart` name theirs as they begin",
        path = .0.display()
    )]
    NotARun(PathBuf),
    /// More runs than one plot can tell apart.
    #[error("{0} runs: one dashboard compares {RUNS_MAX} at most")]
    TooMany(usize),
    /// Another program listens there.
    #[error("port {0} is in use on 127.0.0.1; without --port any free one is taken")]
    PortInUse(u16),
    /// It cannot be listened there.
    #[error("cannot listen on port {port} of 127.0.0.1: {source}")]
    Bind {
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// No thread, or no randomness.
    #[error("cannot start: {0}")]
    System(String),
}

/// What every request may use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runs: Vec<(Arc<Run>, Pulses)>,
    pub(crate) viewers: Viewers,
    pub(crate) followers: Followers,
    pub(crate) readers: Semaphore,
    pub(crate) comparison: Mutex<Option<Told>>,
    token: Token,
    port: u16,
}

/// A dashboard that listens, and answers once it is served.
#[derive(Debug)]
pub struct Dashboard {
    listener: TcpListener,
    shared: Arc<Shared>,
    watchers: Vec<Watcher>,
}

impl Dashboard {
    /// Binds a port of 127.0.0.1 (0: any that is free) and begins to follow the runs of these folders.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(folders: &[PathBuf], port: u16) -> Result<Self, StartError> {
        if folders.len() > RUNS_MAX {
            return Err(StartError::TooMany(folders.len()));
        }
        if let Some(folder) = folders.iter().find(|folder| !is_run(folder)) {
            return Err(StartError::NotARun(folder.clone()));
        }
        let token = Token::draw().map_err(|error| StartError::System(error.to_string()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bind = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::PortInUse(port),
            _ => StartError::Bind { port, source },
        };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let port = listener.local_addr().map_err(bind)?.port();
        let (mut runs, mut watchers) = (Vec::new(), Vec::new());
        for (folder, name) in folders.iter().zip(names(folders)) {
            let run = Arc::new(Run::new(folder, name));
            let started = Watcher::start(&run);
            let (watcher, pulses) = started.map_err(|e| StartError::System(e.to_string()))?;
            runs.push((run, pulses));
            watchers.push(watcher);
        }
        let shared = Shared {
            runs,
            viewers: Viewers::default(),
            followers: Followers::default(),
            readers: Semaphore::new(READERS_MAX),
            comparison: Mutex::new(None),
            token,
            port,
        };
        Ok(Self { listener, shared: Arc::new(shared), watchers })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// The secret.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.shared.token
    }

    /// What a person opens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port(), self.token().reveal())
    }

    /// Answers until then; open connections end with it.
    ///
    /// # Errors
    /// The listener is gone.
    pub async fn serve(self, until: impl Future<Output = ()>) -> std::io::Result<()> {
        let app = app(&self.shared);
        let served = tokio::select! {
            served = async { axum::serve(self.listener, app).await } => served,
            () = until => Ok(()),
        };
        drop(self.watchers);
        served
    }
}

fn is_run(folder: &Path) -> bool {
    [crrl_control::plan::PLAN_FILE, "cluster.toml"].iter().any(|file| folder.join(file).is_file())
}

/// Names of folders; those of one name are told apart by a number, as in a report.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let name = |folder: &PathBuf| {
        folder.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
    };
    let plain: Vec<String> = folders.iter().map(name).collect();
    let told_apart = |(at, name): (usize, &String)| match plain[..at]
        .iter()
        .filter(|before| *before == name)
        .count()
    {
        0 => name.clone(),
        twins => format!("{name} ({})", twins + 1),
    };
    plain.iter().enumerate().map(told_apart).collect()
}

fn app(shared: &Arc<Shared>) -> Router {
    Router::new()
        .merge(api::routes())
        .fallback(asset)
        .layer(from_fn_with_state(Arc::clone(shared), let_in))
        .with_state(Arc::clone(shared))
}

async fn asset(request: Request) -> Response {
    match assets::find(request.uri().path()) {
        Some(asset) => ([(CONTENT_TYPE, asset.kind)], asset.content).into_response(),
        None => Problem::missing("there is no such page").into_response(),
    }
}

/// Turns away whoever does not belong here, and puts on every answer what the browser must not do.
async fn let_in(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let verdict = {
        let headers = request.headers();
        let knock = Knock {
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query(),
            host: text(headers, &HOST),
            origin: text(headers, &ORIGIN),
            cookie: text(headers, &COOKIE),
            authorization: text(headers, &AUTHORIZATION),
        };
        gate::judge(&knock, &shared.token, &gate::cookie_name(shared.port))
    };
    let mut response = match verdict {
        Verdict::Enter | Verdict::Greet => next.run(request).await,
        Verdict::NoToken => refused(
            StatusCode::UNAUTHORIZED,
            "this dashboard opens with the address `crrl dashboard` printed, token included",
        ),
        Verdict::WrongHost => {
            refused(StatusCode::MISDIRECTED_REQUEST, "ask 127.0.0.1 or localhost by that name")
        }
        Verdict::WrongOrigin => refused(StatusCode::FORBIDDEN, "another site asked for this"),
        Verdict::WrongMethod => refused(StatusCode::METHOD_NOT_ALLOWED, "there is only GET here"),
    };
    let headers = response.headers_mut();
    if verdict == Verdict::Greet
        && let Ok(cookie) = HeaderValue::from_str(&gate::set_cookie(shared.port, &shared.token))
    {
        headers.insert(SET_COOKIE, cookie);
    }
    for (name, value) in gate::HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn refused(status: StatusCode, why: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], why).into_response()
}
