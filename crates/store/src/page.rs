//! Episodes for people who leaf through them: those that pass a filter, in an order, a page at a time.

use rusqlite::types::Value;

use crate::error::StoreError;
use crate::read::{Reader, episode, uint};
use crate::row::EpisodeRow;
use crate::write::int;

/// Rows of one page at most: what one look can take in, and a bound for whoever asks for more.
pub const PAGE_MAX: u64 = 500;
/// Different values of one column that are told; a filter with more is typed and not picked.
const FACETS_MAX: u64 = 200;

/// By what episodes are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By number: as they were planned.
    #[default]
    Episode,
    /// By total reward.
    Reward,
    /// By tokens generated.
    Generated,
    /// By optimizer step.
    Step,
    /// By task.
    Task,
}

impl Order {
    fn column(self) -> &'static str {
        match self {
            Self::Episode => "id",
            Self::Reward => "reward",
            Self::Generated => "generated",
            Self::Step => "step",
            Self::Task => "task",
        }
    }
}

/// Which episodes. Whatever is `None` is not asked for. Those that were never handed out are left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EpisodeQuery {
    /// Part of the task's name, in capital letters or small ones.
    pub task: Option<String>,
    /// Name of the node of the last lease.
    pub node: Option<String>,
    /// Name of the state in the ledger.
    pub state: Option<String>,
    /// Whether the task counts as solved.
    pub success: Option<bool>,
    /// Total reward at least.
    pub reward_min: Option<f64>,
    /// Total reward at most.
    pub reward_max: Option<f64>,
    /// Oldest adapter a token was drawn under.
    pub version: Option<u64>,
    /// Optimizer step.
    pub step: Option<u64>,
    /// 0-based phase of the plan.
    pub phase: Option<u32>,
    /// Attempts at one task that are compared with each other.
    pub group: Option<u64>,
    /// Numbers from this one on.
    pub from: Option<u64>,
    /// Numbers up to this one: what came later does not push a page on.
    pub until: Option<u64>,
    /// In which order.
    pub order: Order,
    /// Whether the largest come first.
    pub descending: bool,
}

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodePage {
    /// Episodes that pass in all.
    pub total: u64,
    /// Those of the page.
    pub rows: Vec<EpisodeRow>,
}

/// A value of a column, and how many episodes have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facet {
    /// The value, as text.
    pub value: String,
    /// How many.
    pub episodes: u64,
}

impl EpisodeQuery {
    /// Conditions and what stands in them.
    fn conditions(&self) -> (String, Vec<Value>) {
        let mut clauses = vec!["state <> 'queued'"];
        let mut values: Vec<Value> = Vec::new();
        let number = |n: u64| Value::Integer(int(n));
        let all: [(&str, Option<Value>); 12] = [
            ("instr(lower(task), lower(?)) > 0", self.task.clone().map(Value::Text)),
            ("node = ?", self.node.clone().map(Value::Text)),
            ("state = ?", self.state.clone().map(Value::Text)),
            ("success = ?", self.success.map(|solved| Value::Integer(solved.into()))),
            ("reward >= ?", self.reward_min.map(Value::Real)),
            ("reward <= ?", self.reward_max.map(Value::Real)),
            ("oldest = ?", self.version.map(number)),
            ("step = ?", self.step.map(number)),
            ("phase = ?", self.phase.map(|phase| number(phase.into()))),
            ("grp = ?", self.group.map(number)),
            ("id >= ?", self.from.map(number)),
            ("id <= ?", self.until.map(number)),
        ];
        for (clause, value) in all {
            if let Some(value) = value {
                clauses.push(clause);
                values.push(value);
            }
        }
        (clauses.join(" AND "), values)
    }
}

impl Reader {
    /// Episodes that pass, so many from this one on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(
        &self,
        query: &EpisodeQuery,
        offset: u64,
        limit: u64,
    ) -> Result<EpisodePage, StoreError> {
        let (conditions, mut values) = query.conditions();
        let count = format!("SELECT count(*) FROM episodes WHERE {conditions}");
        let parameters = rusqlite::params_from_iter(values.clone());
        let total = self.rows(&count, parameters, |row| uint(row, 0))?.first().copied();
        let (column, direction) =
            (query.order.column(), if query.descending { "DESC" } else { "ASC" });
        // What has no value yet is neither large nor small: it comes last either way.
        let sql = format!(
            "SELECT * FROM episodes WHERE {conditions} \
             ORDER BY {column} IS NULL, {column} {direction}, id {direction} LIMIT ? OFFSET ?"
        );
        values.push(Value::Integer(int(limit.min(PAGE_MAX))));
        values.push(Value::Integer(int(offset)));
        let rows = self.rows(&sql, rusqlite::params_from_iter(values), episode)?;
        Ok(EpisodePage { total: total.unwrap_or(0), rows })
    }

    /// Nodes, states, versions and phases of the episodes that were handed out, the most frequent
    /// first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn facets(&self) -> Result<[Vec<Facet>; 4], StoreError> {
        let of = |column: &str| {
            let sql = format!(
                "SELECT CAST({column} AS TEXT), count(*) FROM episodes \
                 WHERE state <> 'queued' AND {column} IS NOT NULL \
                 GROUP BY {column} ORDER BY count(*) DESC, {column} LIMIT {FACETS_MAX}"
            );
            self.rows(&sql, [], |row| Ok(Facet { value: row.get(0)?, episodes: uint(row, 1)? }))
        };
        Ok([of("node")?, of("state")?, of("oldest")?, of("phase")?])
    }

    /// One episode, as the ledger has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn episode(&self, id: crrl_types::EpisodeId) -> Result<Option<EpisodeRow>, StoreError> {
        let sql = "SELECT * FROM episodes WHERE id = ?";
        Ok(self.rows(sql, [int(id.0)], episode)?.pop())
    }
}
