//! What orders and traces are about: what the cursor is on. And what comes back of them.

use crrl_types::{Order, OrderAnswer, Target, TraceRequest, TraceStop, Traced};

use super::app::{App, RowKey};
use super::asking::Asking;
use super::keys::Effect;
use super::orders::{Dialogue, KEYS, Stage, in_words, target_of};
use super::screens::Screen;
use super::trace::Tracing;
use super::tree::{self, Leaf};
use super::world::World;

impl App {
    /// The actor or node the cursor is on.
    #[must_use]
    pub fn target(&self, world: &World) -> Option<Target> {
        let at = self.list().selected;
        match self.screen {
            Screen::Overview => world.nodes().get(at).map(|node| Target::node(node.name.as_str())),
            Screen::Tree => match tree::rows(world).get(at)?.what {
                Leaf::Actor(row) => Some(target_of(&row.id())),
                Leaf::Node(node) => Some(Target::node(node.name.as_str())),
            },
            Screen::Actor => self.actor.as_ref().map(target_of),
            Screen::Trace => self.trace.as_ref().map(|trace| trace.request.target.clone()),
            _ => match self.row_key(world)? {
                RowKey::Actor(id) => Some(target_of(&id)),
                RowKey::Episode(_) => None,
            },
        }
    }

    /// Why nothing can be asked of the cluster.
    fn deaf(&self) -> Option<&'static str> {
        match (self.is_replay, &self.past) {
            (true, _) => Some("this is a recording: nothing of it can be traced or changed"),
            (_, Some(_)) => Some("the run is not up: nothing of it can be traced or changed"),
            _ => None,
        }
    }

    /// The target, or a word on why there is none.
    fn aimed(&mut self, world: &World) -> Option<Target> {
        if let Some(says) = self.deaf() {
            self.say(says);
            return None;
        }
        let target = self.target(world);
        if target.is_none() {
            let says = "put the cursor on an actor or a node first: 1, 2 and 3 list them";
            self.say(says);
        }
        target
    }

    pub(super) fn open_dialogue(&mut self, key: char, world: &World) {
        let Some((_, action)) = KEYS.into_iter().find(|(of, _)| *of == key) else { return };
        if let Some(target) = self.aimed(world) {
            self.asking = Some(Asking::Order(Dialogue::new(Order { target, action })));
        }
    }

    pub(super) fn begin_trace(&mut self, world: &World) -> Effect {
        let Some(target) = self.aimed(world) else { return Effect::None };
        let request = TraceRequest::of(target);
        self.trace = Some(Tracing::new(request.clone(), world.now_ms()));
        self.lists.entry(Screen::Trace).or_default().follow = true;
        self.go(Screen::Trace);
        Effect::Trace(request)
    }

    pub(super) fn is_tracing(&self) -> bool {
        self.trace.as_ref().is_some_and(Tracing::is_on)
    }

    pub(super) fn end_trace(&mut self, world: &World) -> Effect {
        match self.trace.as_mut().filter(|trace| trace.is_on()) {
            Some(trace) => {
                trace.end(TraceStop::Left, world.now_ms());
                Effect::EndTrace
            }
            None => {
                self.say("nothing is being traced; t on an actor begins");
                Effect::None
            }
        }
    }

    /// An order was answered: in its dialogue, if that is still open, and at the bottom if not.
    pub fn order_answered(&mut self, order: &Order, answer: Result<OrderAnswer, String>) {
        match &mut self.asking {
            Some(Asking::Order(dialogue))
                if dialogue.stage == Stage::Sent && dialogue.order == *order =>
            {
                dialogue.stage = Stage::Answered(answer);
            }
            _ => self.say(in_words(order, &answer)),
        }
    }

    /// A trace was begun, or refused.
    pub fn trace_answered(
        &mut self,
        request: &TraceRequest,
        answer: Result<OrderAnswer, String>,
        now_ms: u64,
    ) {
        if let Some(trace) = self.trace.as_mut().filter(|trace| trace.request == *request) {
            trace.answered(answer, now_ms);
        }
    }

    /// Something was traced.
    pub fn traced(&mut self, traced: Traced, now_ms: u64) {
        if let Some(trace) = &mut self.trace {
            trace.take(traced, now_ms);
        }
    }
}
