//! What measured costs come to for a cluster that is not at hand. How an adapter spreads is simulated
//! chunk by chunk; the rest is multiplication.

use serde_json::json;

/// Bytes of a value as adapters travel: f32.
const VALUE_BYTES: f64 = 4.0;
/// Bytes of a chunk that is forwarded as soon as it is there.
const CHUNK_BYTES: f64 = 1024.0 * 1024.0;
/// From one node to another, seconds.
const LATENCY_S: f64 = 0.0005;
/// Bytes of a token in a result: its id, whether it was generated, its log-probability.
const TOKEN_BYTES: f64 = 9.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes that roll out.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Episodes each works on at once.
    #[arg(long, default_value_t = 16.0)]
    episodes_per_node: f64,
    /// How long an episode takes.
    #[arg(long, default_value_t = 120.0)]
    episode_s: f64,
    /// Tokens of a transcript.
    #[arg(long, default_value_t = 8000.0)]
    tokens: f64,
    /// Time between two optimizer steps.
    #[arg(long, default_value_t = 60.0)]
    step_s: f64,
    /// Network of a node.
    #[arg(long, default_value_t = 25.0)]
    gbit_per_s: f64,
    /// Ranks of LoRA.
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64")]
    ranks: Vec<u32>,
    /// Measured: CPU of the coordinator for a result or a report over the network.
    #[arg(long)]
    cpu_us_per_message: f64,
    /// Measured: the same for a node that says nothing but that it lives, a second of it.
    #[arg(long)]
    cpu_us_per_idle_node_s: f64,
    /// Measured: memory of the coordinator for a node.
    #[arg(long)]
    memory_kib_per_node: f64,
    /// Measured: results a second the store takes.
    #[arg(long)]
    store_results_per_s: f64,
    /// Measured: bytes of the store for a result, without its tokens and its text.
    #[arg(long)]
    store_bytes_per_result: f64,
}

/// Shapes of a 70B decoder: width, layers, width of keys and values, width inside.
const WIDTH: f64 = 8192.0;
const LAYERS: f64 = 80.0;
const KEYS: f64 = 1024.0;
const INNER: f64 = 28_672.0;

/// Values of an adapter: each matrix of `in x out` takes `rank x (in + out)`.
fn values(rank: u32, attention_only: bool) -> f64 {
    let attention = 2.0 * (WIDTH + WIDTH) + 2.0 * (WIDTH + KEYS);
    let inside = if attention_only { 0.0 } else { 3.0 * (WIDTH + INNER) };
    LAYERS * f64::from(rank) * (attention + inside)
}

/// Seconds until the last of `nodes` has all of it, if each passes every chunk on to `children` as
/// soon as it has it. One server and nobody who passes on: `children` is `nodes`.
fn spread_s(nodes: usize, children: usize, bytes: f64, bytes_per_s: f64) -> f64 {
    let chunks = (bytes / CHUNK_BYTES).ceil() as usize;
    let chunk_s = bytes / chunks as f64 / bytes_per_s;
    // Node 0 has it all; node n's parent is (n - 1) / children.
    let mut has = vec![vec![0.0; chunks]];
    let mut last: f64 = 0.0;
    for first in 0..=nodes {
        let its = (first * children + 1)..=(first * children + children).min(nodes);
        if its.is_empty() {
            break;
        }
        let mut line_s: f64 = 0.0;
        let mut theirs = vec![vec![0.0; chunks]; its.clone().count()];
        for chunk in 0..chunks {
            for child in &mut theirs {
                line_s = line_s.max(has[first][chunk]) + chunk_s;
                child[chunk] = line_s + LATENCY_S;
            }
        }
        last = theirs.iter().filter_map(|child| child.last()).fold(last, |a, b| a.max(*b));
        // Nobody asks for it again.
        has[first] = Vec::new();
        has.extend(theirs);
    }
    last
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bytes_per_s = args.gbit_per_s * 1e9 / 8.0;
    for rank in &args.ranks {
        for attention_only in [true, false] {
            let bytes = values(*rank, attention_only) * VALUE_BYTES;
            let spread = |children| spread_s(args.nodes, children, bytes, bytes_per_s);
            println!(
                "{}",
                json!({
                    "bench": "adapter", "rank": rank,
                    "targets": if attention_only { "q k v o" } else { "all seven" },
                    "values_m": values(*rank, attention_only) / 1e6, "mb_f32": bytes / 1e6,
                    "fits_in_one_blob": bytes <= f64::from(1 << 30),
                    "server_alone_s": spread(args.nodes),
                    "tree_of_4_s": spread(4), "tree_of_2_s": spread(2), "chain_s": spread(1),
                })
            );
        }
    }
    let nodes = args.nodes as f64;
    let results_per_s = nodes * args.episodes_per_node / args.episode_s;
    // A report a second from each.
    let messages_per_s = results_per_s + nodes;
    let result_bytes = args.store_bytes_per_result + TOKEN_BYTES * args.tokens;
    println!(
        "{}",
        json!({
            "bench": "coordinator", "nodes": args.nodes,
            "results_per_s": results_per_s, "reports_per_s": nodes,
            "cores": (messages_per_s * args.cpu_us_per_message
                + nodes * args.cpu_us_per_idle_node_s) / 1e6,
            "memory_mib": nodes * args.memory_kib_per_node / 1024.0,
            "store_load_percent": 100.0 * results_per_s / args.store_results_per_s,
            "store_mb_per_s": results_per_s * result_bytes / 1e6,
            "store_gb_per_day": results_per_s * result_bytes * 86_400.0 / 1e9,
            "network_mbit_per_s_in": results_per_s * TOKEN_BYTES * args.tokens * 8.0 / 1e6,
            "batch_mb": results_per_s * args.step_s * TOKEN_BYTES * args.tokens / 1e6,
        })
    );
    Ok(())
}
