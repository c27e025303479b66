//! What rollout nodes and the learner do by themselves, and when.

use super::*;

impl World {
    pub(super) fn join(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        if !node.up || node.stalled.is_some() {
            return;
        }
        let working = node.working.iter().map(|(id, working)| (*id, working.attempt));
        let unacked = node.unacked.iter().map(|(id, (attempt, ..))| (*id, *attempt));
        let holding =
            working.chain(unacked).map(|(episode, attempt)| Held { episode, attempt }).collect();
        let (incarnation, serving) = (node.incarnation, Some(node.serving));
        // A join is repeated by every new connection: it is not lost for good.
        let from = name.clone();
        let input = Input::Join { from, incarnation, capacity: CAPACITY, holding, serving };
        self.network
            .push((self.now + Duration::from_millis(1), Packet::ToCoordinator(Box::new(input))));
        for episode in self.nodes[name].working.keys().copied().collect::<Vec<_>>() {
            self.tell_turns(name, episode, 0);
        }
    }

    /// A node says what has happened in an episode since its turn `first`.
    pub(super) fn tell_turns(&mut self, name: &NodeName, episode: EpisodeId, first: usize) {
        let working = &self.nodes[name].working[&episode];
        let said = working.turns[first..].to_vec();
        let turns = Turns {
            first: first as u32,
            entries: said.len() as u32,
            oldest: said.iter().map(|turn| turn.version).min(),
        };
        let held = Held { episode, attempt: working.attempt };
        self.send(Packet::Turns(Box::new(Input::Turns { from: name.clone(), held, turns }), said));
    }

    pub(super) fn say_what_it_serves(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        let input = Input::Activated { from: name.clone(), serving: node.serving };
        self.send(Packet::OfLife(name.clone(), node.incarnation, Box::new(input)));
    }

    pub(super) fn kill(&mut self, name: &NodeName) {
        self.end(name, Loss::Unplanned);
    }

    fn end(&mut self, name: &NodeName, loss: Loss) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.up = false;
            node.working.clear();
            node.unacked.clear();
        }
        self.down(name, loss);
    }

    pub(super) fn run_node(&mut self, name: &NodeName) {
        let crash = self.rng.random_bool(self.faults.crash / 10.0);
        let node = self.nodes.get_mut(name).expect("its own");
        if !node.up {
            if self.rng.random_bool(0.05) {
                node.up = true;
                node.incarnation += 1;
                node.serving = serving(0);
                self.join(name);
            }
            return;
        }
        if let Some(until) = node.stalled {
            if until <= self.now {
                node.stalled = None;
                self.join(name);
            }
            return;
        }
        if crash {
            return self.kill(name);
        }
        if self.faults.leave > 0.0 && self.rng.random_bool(self.faults.leave) {
            self.leaves += 1;
            return self.end(name, Loss::Planned);
        }
        // An engine takes the newest adapter a while after it was made.
        if node.serving.version.0 < self.learner.version && self.rng.random_bool(0.2) {
            node.serving = serving(self.learner.version);
            self.say_what_it_serves(name);
        } else if self.rng.random_bool(0.01) {
            // What was lost is said again with the next heartbeat.
            self.say_what_it_serves(name);
        }
        let node = self.nodes.get_mut(name).expect("its own");
        let mut told = Vec::new();
        for (episode, working) in &mut node.working {
            if self.rng.random_bool(0.1) {
                let (mark, version) = (self.rng.random(), node.serving.version);
                told.push((*episode, working.turns.len()));
                working.turns.push(Turn { mark, version });
            }
        }
        for (episode, first) in told {
            self.tell_turns(name, episode, first);
        }
        let (now, node) = (self.now, self.nodes.get_mut(name).expect("its own"));
        let done: Vec<EpisodeId> =
            node.working.iter().filter(|(_, w)| w.ends <= now).map(|(id, _)| *id).collect();
        for episode in done {
            let reward = f64::from(self.rng.random_range(0..4)) / 4.0;
            let node = self.nodes.get_mut(name).expect("its own");
            let Some(Working { attempt, task, group, turns, .. }) = node.working.remove(&episode)
            else {
                continue;
            };
            let versions = turns.iter().map(|turn| turn.version).chain([node.serving.version]);
            let versions: BTreeSet<AdapterVersion> = versions.collect();
            let outcome = Outcome {
                reward,
                success: reward > 0.7,
                oldest: versions.first().copied(),
                generated: 5,
            };
            let result = EpisodeResult {
                held: Held { episode, attempt },
                task,
                group,
                temperature: Sampling::default().temperature,
                outcome,
                adapters: versions.into_iter().map(|version| serving(version.0)).collect(),
                refused: None,
            };
            node.unacked.insert(episode, (attempt, result, Duration::ZERO));
        }
        let again: Vec<EpisodeResult> = self
            .nodes
            .get_mut(name)
            .expect("its own")
            .unacked
            .values_mut()
            .filter(|(_, _, sent)| {
                *sent == Duration::ZERO || now >= *sent + Duration::from_millis(500)
            })
            .map(|(_, result, sent)| {
                *sent = now;
                result.clone()
            })
            .collect();
        for result in again {
            self.tell(Input::Finished { from: name.clone(), result });
        }
    }

    pub(super) fn learner_tells(&mut self, input: Input) {
        if self.rng.random_bool(self.faults.loss) {
            return;
        }
        // One connection: nothing overtakes what was said before.
        let slow = if self.rng.random_bool(self.faults.loss) { 4000 } else { 30 };
        let at = self.now + Duration::from_millis(self.rng.random_range(1..slow));
        self.learner.heard = at.max(self.learner.heard);
        let packet = Packet::OfLearner(self.learner.life, Box::new(input));
        self.network.push((self.learner.heard, packet));
    }

    pub(super) fn run_learner(&mut self) {
        let crash = self.rng.random_bool(self.faults.crash / 10.0);
        if !self.learner.up {
            self.learner.up = self.rng.random_bool(0.05);
            self.learner.asked = Duration::ZERO;
            return;
        }
        if crash {
            self.learner.up = false;
            self.learner.life += 1;
            self.learner.training = None;
            // The newest checkpoint does not always load.
            if self.learner.step > 0 && self.rng.random_bool(0.2) {
                self.learner.history.remove(&self.learner.step);
                self.learner.step -= 1;
                self.learner.version += 1;
                self.learner_tells(Input::Published { serving: serving(self.learner.version) });
            }
            return self.down(&"learner".into(), Loss::Unplanned);
        }
        let now = self.now;
        if self.learner.training.as_ref().is_some_and(|(_, _, at)| *at <= now) {
            let (step, episodes, _) = self.learner.training.take().expect("just seen");
            let before: BTreeSet<EpisodeId> =
                self.learner.history.values().flatten().copied().collect();
            for id in &episodes {
                assert!(!before.contains(id), "seed {}: {id} is trained on twice", self.seed);
            }
            self.learner.history.insert(step, episodes.clone());
            self.learner.step = step;
            self.learner.version += 1;
            let version = AdapterVersion(self.learner.version);
            self.learner_tells(Input::Published { serving: serving(version.0) });
            let consumed = episodes;
            self.learner_tells(Input::Committed {
                step: Step(step),
                version,
                consumed,
                metrics: Vec::new(),
            });
            self.learner.asked = Duration::ZERO;
        }
        if self.learner.training.is_none() && now >= self.learner.asked + Duration::from_millis(400)
        {
            self.learner.asked = now;
            let version = AdapterVersion(self.learner.version);
            self.learner_tells(Input::Published { serving: serving(version.0) });
            let request = BatchRequest { step: Step(self.learner.step + 1), version };
            self.learner_tells(Input::BatchWanted { from: "learner".into(), request });
        }
    }
}
