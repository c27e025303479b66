use crrl_tasks::*;
use std::time::Instant;
fn main() {
    let lib = find_stdlib().expect("stdlib");
    let t = Instant::now();
    let made = mutate(&lib, &MutateOptions { tasks_max: 2000, ..Default::default() }).expect("made");
    println!("mutate {} tasks {} files {} functions {:?} {}", made.tasks.len(), made.files, made.functions, t.elapsed(), made.skipped);
    let bad: Vec<_> = made.tasks.iter().map(verify).filter(|v| !v.good()).collect();
    println!("bad {}", bad.len());
    for b in bad.iter().take(5) { println!("{b:?}"); }
    let mut kinds = std::collections::BTreeMap::new();
    for t in &made.tasks { if let crrl_types::Origin::Mutated { bug, .. } = &t.origin { *kinds.entry(format!("{bug:?}")).or_insert(0) += 1; } }
    println!("{kinds:?}");
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(0);
    let solved = made.tasks.iter().filter(|t| oracle(t, &mut rng, &OracleOptions::default()).is_some()).count();
    println!("oracle {solved}");
    let t = Instant::now();
    let corpus = Corpus::load(&lib, CorpusOptions::default()).expect("corpus");
    println!("corpus {} in {:?}", corpus.functions(), t.elapsed());
    let t = Instant::now();
    let traces: Vec<_> = corpus.stream(1).take(3000).collect();
    println!("3000 traces in {:?}", t.elapsed());
    let chars: usize = traces.iter().map(|t| t.task.problem_statement.len() + t.turns.iter().map(|t| t.output.len() + t.call.arguments.to_string().len()).sum::<usize>()).sum();
    println!("chars {}", chars / traces.len());
    for t in traces.iter().take(8) {
        println!("---- {}", t.task.problem_statement);
        for turn in &t.turns { println!("> {} {}\n{}", turn.call.name, turn.call.arguments, turn.output); }
    }
}
