//! Sequences in one batch do not see each other.

mod world;

use crrl_engine::{OpenError, Options, Output, Stop, SubmitError};
use crrl_types::Sampling;
use world::{VOCAB, alone, engine, finish, prompt, sampling};

#[test]
fn company_changes_no_token() {
    let mine = prompt(23, 1);
    let want = alone(Options::default(), &mine, sampling(5, 40));
    // Others of every length join before, with and after it, in chunks of 7 prompt tokens.
    let mut engine = engine(Options { prefill_tokens_max: 7, ..Options::default() });
    for salt in 2..6 {
        let other = engine.open().expect("room");
        engine.submit(other, &prompt(3 * salt as usize, salt), sampling(9, 60)).expect("good");
    }
    for _ in 0..3 {
        engine.step();
    }
    let seq = engine.open().expect("room");
    engine.submit(seq, &mine, sampling(5, 40)).expect("good");
    let late = engine.open().expect("room");
    engine.submit(late, &prompt(50, 8), sampling(1, 9)).expect("good");
    let got = finish(&mut engine, seq);
    assert_eq!(got.ids(), want.ids(), "model seed 11, sampling seed 5");
    for (a, b) in got.tokens.iter().zip(&want.tokens) {
        assert!((a.logprob - b.logprob).abs() < 1e-4, "{a:?} {b:?}");
    }
    assert!(engine.stats().occupancy() > 2.0, "they were not batched");
}

#[test]
fn the_seed_decides() {
    let prompt = prompt(10, 1);
    let first = alone(Options::default(), &prompt, sampling(1, 30));
    assert_eq!(first, alone(Options::default(), &prompt, sampling(1, 30)));
    assert_ne!(first.ids(), alone(Options::default(), &prompt, sampling(2, 30)).ids());
}

#[test]
fn logprobs_are_the_scores() {
    let prompt = prompt(19, 3);
    for temperature in [1.0, 0.6] {
        let options = Options { prefill_tokens_max: 8, ..Options::default() };
        let mut engine = engine(options);
        let seq = engine.open().expect("room");
        let how = Sampling { temperature, top_k: 20, ..sampling(3, 50) };
        engine.submit(seq, &prompt, how).expect("good");
        let run = finish(&mut engine, seq);
        let whole = [prompt.clone(), run.ids()].concat();
        let scores = engine.score(&whole, temperature).expect("fits");
        assert_eq!(scores.len(), whole.len());
        for (token, score) in run.tokens.iter().zip(&scores[prompt.len()..]) {
            assert!((token.logprob - score).abs() < 1e-4, "{token:?} scored {score}");
        }
    }
}

#[test]
fn a_second_turn_costs_its_new_tokens_only_and_is_the_whole_text() {
    let mut engine = engine(Options::default());
    let seq = engine.open().expect("room");
    let (opening, reply) = (prompt(20, 1), prompt(6, 2));
    engine.submit(seq, &opening, sampling(7, 10)).expect("good");
    let first = finish(&mut engine, seq);
    let before = engine.stats();
    engine.submit(seq, &reply, Sampling { temperature: 0.0, ..sampling(7, 10) }).expect("good");
    let second = finish(&mut engine, seq);
    // The last token of the first turn has no keys and values yet.
    assert_eq!(engine.stats().prefill_tokens - before.prefill_tokens, reply.len() as u64 + 1);
    let whole = [opening, first.ids(), reply].concat();
    let greedy = Sampling { temperature: 0.0, ..sampling(7, 10) };
    assert_eq!(second.ids(), alone(Options::default(), &whole, greedy).ids());
}

#[test]
fn a_stop_text_ends_the_turn_across_tokens() {
    let prompt = prompt(10, 4);
    let free = alone(Options::default(), &prompt, sampling(6, 30)).ids();
    assert!(free.len() > 12, "the seed ends too early to test with");
    let text: String =
        free[9..12].iter().filter_map(|id| char::from_u32(' ' as u32 + id)).collect();
    let at = free.windows(3).position(|w| w == &free[9..12]).expect("it is there") + 3;
    let stopped =
        alone(Options::default(), &prompt, Sampling { stop: vec![text], ..sampling(6, 30) });
    assert_eq!(stopped.stop, Stop::Text);
    assert_eq!(stopped.ids(), free[..at], "its tokens stay in the transcript");
}

#[test]
fn limits_hold_and_say_what_they_are() {
    let options = Options { sequences_max: 2, context_max: 32, ..Options::default() };
    let mut engine = engine(options);
    let seq = engine.open().expect("room");
    let other = engine.open().expect("room");
    assert_eq!(engine.open(), Err(OpenError::Full { max: 2 }));
    assert_eq!(
        engine.submit(seq, &prompt(32, 1), sampling(1, 5)),
        Err(SubmitError::ContextFull { have: 0, adding: 32, max: 32 })
    );
    assert_eq!(
        engine.submit(seq, &[VOCAB], sampling(1, 5)),
        Err(SubmitError::Vocabulary { id: VOCAB, vocab: VOCAB as usize })
    );
    engine.submit(seq, &prompt(25, 1), sampling(1, 500)).expect("fits");
    assert_eq!(engine.submit(seq, &[1], sampling(1, 1)), Err(SubmitError::Busy(seq)));
    let run = finish(&mut engine, seq);
    if run.stop == Stop::Length {
        assert_eq!(run.tokens.len(), 7, "the context is filled and no more");
    }
    engine.close(seq);
    assert_eq!(engine.submit(seq, &[1], sampling(1, 1)), Err(SubmitError::Unknown(seq)));
    engine.open().expect("a closed sequence makes room");
    engine.close(other);
    let long = engine.score(&prompt(33, 1), 1.0);
    assert!(long.is_err(), "{long:?}");
}

#[test]
fn an_aborted_generation_leaves_a_sequence_that_goes_on() {
    let mut engine = engine(Options { prefill_tokens_max: 4, ..Options::default() });
    let seq = engine.open().expect("room");
    engine.submit(seq, &prompt(20, 1), sampling(1, 50)).expect("good");
    engine.step();
    engine.abort(seq);
    assert!(!engine.has_work());
    assert_eq!(engine.step(), Vec::<Output>::new());
    engine.submit(seq, &[5], Sampling { temperature: 0.0, ..sampling(1, 5) }).expect("good");
    let run = finish(&mut engine, seq);
    let whole = [prompt(20, 1), vec![5]].concat();
    let greedy = Sampling { temperature: 0.0, ..sampling(1, 5) };
    assert_eq!(run.ids(), alone(Options::default(), &whole, greedy).ids());
}
