//! Orders, a trace and snapshots, for whoever must not wait: asked here, answered later, by a thread that dials
//! when there is something to ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crrl_cluster::operator::Trace;
use crrl_cluster::{OperatorClient, RunDir};
use crrl_types::actor::SnapshotAnswer;
use crrl_types::{Order, OrderAnswer, Target, TraceEnd, TraceRequest, TraceStop, Traced};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::error::InspectError;
use crate::feed::connect;
use crate::scripts::remark;

/// Orders that may wait to be sent.
const ASKED_MAX: usize = 16;
/// Answers and events that may wait to be taken; a trace waits then, and ends if it waits for long.
const HEARD_MAX: usize = 256;
/// How long the coordinator is dialled.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was asked for last may take once nobody asks any more: nobody who leaves waits for a cluster
/// that is lost.
const LAST_WORD_MAX: Duration = Duration::from_millis(250);
/// The same where it is an order: somebody confirmed it, and for the first the coordinator has to be dialled.
const LAST_ORDER_MAX: Duration = DIAL_TIMEOUT;

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// An order was answered; an error where nobody answered.
    Order {
        /// As it was given to [`Desk::order`].
        order: Order,
        /// What became of it.
        answer: Result<OrderAnswer, String>,
    },
    /// A trace began, or did not.
    Trace {
        /// As it was given to [`Desk::trace`].
        request: TraceRequest,
        /// Whether it goes on, and within which bounds.
        answer: Result<OrderAnswer, String>,
    },
    /// Events of the trace, or its end.
    Traced(Traced),
    /// An actor's snapshot, or why there is none; an error where nobody answered.
    Snapshot {
        /// As it was given to [`Desk::snapshot`].
        target: Target,
        /// What was answered.
        answer: Result<SnapshotAnswer, String>,
    },
}

#[derive(Debug)]
enum Ask {
    Order(Order),
    Trace(TraceRequest),
    EndTrace,
    Snapshot(Target),
}

/// Asks and hears. Dropping it ends the trace, waits for orders that were not answered yet, and says on stderr
/// how many never were: whoever has the terminal gives it back first.
#[derive(Debug)]
pub struct Desk {
    asks: Option<mpsc::Sender<Ask>>,
    heard: mpsc::Receiver<Heard>,
    stop: watch::Sender<bool>,
    unanswered: Unanswered,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    /// For a run, and a certificate of its folder; without a name, the operator's. Nothing is dialled
    /// before something is asked.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(run: &RunDir, who: Option<&str>) -> Result<Self, InspectError> {
        let (asks, asked) = mpsc::channel(ASKED_MAX);
        let (say, heard) = mpsc::channel(HEARD_MAX);
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let dial = Dial { run: run.clone(), who: who.map(str::to_owned) };
        let unanswered = Unanswered::default();
        let orders = unanswered.clone();
        let thread = std::thread::Builder::new().name("inspect-desk".into()).spawn(move || {
            runtime.block_on(serve(&dial, asked, &say, stopped, &orders));
        })?;
        Ok(Self { asks: Some(asks), heard, stop, unanswered, thread: Some(thread) })
    }

    /// Has something done; `false` where too much waits already.
    pub fn order(&self, order: Order) -> bool {
        self.unanswered.given();
        let is_taken = self.ask(Ask::Order(order));
        if !is_taken {
            self.unanswered.answered();
        }
        is_taken
    }

    /// Begins a trace; one that goes on is ended. `false` where too much waits already.
    pub fn trace(&self, request: TraceRequest) -> bool {
        self.ask(Ask::Trace(request))
    }

    /// Ends the trace.
    pub fn end_trace(&self) -> bool {
        self.ask(Ask::EndTrace)
    }

    /// Asks for an actor's snapshot; `false` where too much waits already.
    pub fn snapshot(&self, target: Target) -> bool {
        self.ask(Ask::Snapshot(target))
    }

    /// What came since this was asked last, oldest first.
    pub fn take(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).take(HEARD_MAX).collect()
    }

    fn ask(&self, ask: Ask) -> bool {
        self.asks.as_ref().is_some_and(|asks| asks.try_send(ask).is_ok())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.asks = None;
        self.heard.close();
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        match self.unanswered.count() {
            0 => {}
            1 => remark("the order given last was not answered: it may not have been carried out"),
            more => remark(&format!(
                "the {more} orders given last were not answered: they may not have been carried out"
            )),
        }
    }
}

/// How many orders were given and have no answer that could be told.
#[derive(Debug, Clone, Default)]
struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    fn given(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whom to dial, and as who.
struct Dial {
    run: RunDir,
    who: Option<String>,
}

/// Until whoever asks has gone; what is being asked then is cut short, soon or, where it is an order, late.
async fn serve(
    dial: &Dial,
    asked: mpsc::Receiver<Ask>,
    say: &mpsc::Sender<Heard>,
    mut stopped: watch::Receiver<bool>,
    orders: &Unanswered,
) {
    let working = work(dial, asked, say, orders);
    tokio::pin!(working);
    tokio::select! {
        () = &mut working => return,
        _ = stopped.changed() => {}
    }
    let wait = if orders.count() > 0 { LAST_ORDER_MAX } else { LAST_WORD_MAX };
    let _ = tokio::time::timeout(wait, working).await;
}

/// Answers until nothing more is asked. Of what waits when whoever asks has gone, only orders are carried out.
async fn work(
    dial: &Dial,
    mut asked: mpsc::Receiver<Ask>,
    say: &mpsc::Sender<Heard>,
    orders: &Unanswered,
) {
    let mut line: Option<OperatorClient> = None;
    let mut trace = Following(None);
    while let Some(ask) = asked.recv().await {
        let (heard, begun) = match ask {
            Ask::EndTrace => {
                trace.end();
                continue;
            }
            Ask::Snapshot(_) | Ask::Trace(_) if say.is_closed() => continue,
            Ask::Order(order) => {
                let answer = give(dial, &mut line, &order).await;
                if answer.is_ok() || !say.is_closed() {
                    orders.answered();
                }
                (Heard::Order { order, answer }, None)
            }
            Ask::Snapshot(target) => {
                let answer = show(dial, &mut line, &target).await;
                (Heard::Snapshot { target, answer }, None)
            }
            Ask::Trace(request) => {
                trace.end();
                match begin(dial, &mut line, &request).await {
                    Ok(trace) => {
                        let answer = Ok(trace.answer().clone());
                        (Heard::Trace { request, answer }, Some(trace))
                    }
                    Err(error) => (Heard::Trace { request, answer: Err(error) }, None),
                }
            }
        };
        if say.send(heard).await.is_ok()
            && let Some(begun) = begun
        {
            trace.0 = Some(tokio::spawn(follow(begun, say.clone())).abort_handle());
        }
    }
    drop(trace);
    if let Some(client) = line {
        client.close().await;
    }
}

/// A trace that is followed until this is dropped.
struct Following(Option<AbortHandle>);

impl Following {
    fn end(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end();
    }
}

async fn follow(mut trace: Trace, say: mpsc::Sender<Heard>) {
    loop {
        let traced = match trace.next().await {
            Ok(Some(traced)) => traced,
            Ok(None) => return,
            Err(_) => Traced::End(TraceEnd { why: TraceStop::Gone, events: 0 }),
        };
        let is_over = matches!(traced, Traced::End(_));
        if say.send(Heard::Traced(traced)).await.is_err() || is_over {
            return;
        }
    }
}

async fn give(
    dial: &Dial,
    line: &mut Option<OperatorClient>,
    order: &Order,
) -> Result<OrderAnswer, String> {
    let answer = dialled(dial, line).await?.order(order).await;
    // A coordinator that was lost is dialled again for the next order.
    answer.map_err(|error| lose(line, &error))
}

async fn show(
    dial: &Dial,
    line: &mut Option<OperatorClient>,
    target: &Target,
) -> Result<SnapshotAnswer, String> {
    let answer = dialled(dial, line).await?.snapshot(target).await;
    answer.map_err(|error| lose(line, &error))
}

async fn begin(
    dial: &Dial,
    line: &mut Option<OperatorClient>,
    request: &TraceRequest,
) -> Result<Trace, String> {
    let begun = dialled(dial, line).await?.trace(request).await;
    begun.map_err(|error| lose(line, &error))
}

fn lose(line: &mut Option<OperatorClient>, error: &dyn std::fmt::Display) -> String {
    *line = None;
    error.to_string()
}

async fn dialled<'a>(
    dial: &Dial,
    line: &'a mut Option<OperatorClient>,
) -> Result<&'a OperatorClient, String> {
    if line.is_none() {
        let dialling = tokio::time::timeout(DIAL_TIMEOUT, connect(&dial.run, dial.who.as_deref()));
        let client = dialling.await.map_err(|_| "nobody answers".to_owned())?;
        *line = Some(client.map_err(|error| error.to_string())?);
    }
    line.as_ref().ok_or_else(|| "nobody answers".to_owned())
}
