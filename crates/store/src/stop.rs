//! A wish to stop, heard within a few pages by whoever reads all of a store.

use std::path::Path;

use crrl_machine::Stop;
use rusqlite::Connection;

use crate::error::StoreError;

/// Rows or pages SQLite works on between two looks at the wish, about.
const LOOK_EVERY: i32 = 100;

/// Whatever this connection does ends with an error once the wish is said. Nothing that is said before a
/// statement begins is missed, as an interrupt would be.
pub(crate) fn heard_by(connection: &Connection, stop: &Stop) {
    let stop = stop.clone();
    connection.progress_handler(LOOK_EVERY, Some(move || stop.is_wanted()));
}

/// # Errors
/// The wish was said.
pub(crate) fn unless_wanted(stop: &Stop, path: &Path) -> Result<(), StoreError> {
    if !stop.is_wanted() {
        return Ok(());
    }
    Err(StoreError::Other { path: path.to_owned(), detail: "interrupted".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_from_before_a_statement_ends_it() {
        let (connection, stop) = (Connection::open_in_memory().expect("memory"), Stop::default());
        heard_by(&connection, &stop);
        let count = |most: u32| {
            let sql = format!(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {most}) \
                 SELECT count(*) FROM n"
            );
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(count(1_000), Ok(1_000));
        stop.want();
        let error = count(10_000_000).expect_err("it is to stop");
        assert_eq!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::OperationInterrupted),
            "{error}"
        );
    }
}
