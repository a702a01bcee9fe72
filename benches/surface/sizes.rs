//! What an event takes on disk.

use postgres::Client;

use crate::server::{Result, grouped};

const TABLES: &str = "
    WITH leaf (name, relation) AS (
        SELECT CASE WHEN c.relname LIKE 'events%' THEN 'events' WHEN c.relname LIKE 'dedup_keys%' THEN 'keys'
                    WHEN c.relname LIKE 'deltas%' THEN 'deltas' ELSE c.relname END, c.oid
          FROM pg_class c WHERE c.relnamespace = 'meterflow'::regnamespace AND c.relkind = 'r'
        UNION ALL
        SELECT 'baseline', relid FROM pg_partition_tree(to_regclass('raw_events')) WHERE isleaf)
    SELECT name::text, sum(pg_table_size(relation))::float8, sum(pg_indexes_size(relation))::float8
      FROM leaf WHERE name IN ('events', 'keys', 'deltas', 'rollups', 'batches', 'baseline')
     GROUP BY name ORDER BY name = 'baseline', sum(pg_total_relation_size(relation)) DESC";

/// Bytes an event, by table. `baseline` is the number of rows in the baseline's table, if it is filled.
pub fn print(client: &mut Client, title: &str, baseline: Option<f64>) -> Result<()> {
    let events: f64 = client.query_one("SELECT accepted::float8 FROM meterflow.fold_state", &[])?.get(0);
    println!("\nBytes an event on disk, {title} ({} events)", grouped(events));
    println!("{:34} {:>9} {:>9} {:>9}", "", "table", "indexes", "both");
    let (mut table, mut indexes) = (0.0, 0.0);
    let line = |name: &str, table: f64, indexes: f64| {
        println!("  {name:32} {table:>9.1} {indexes:>9.1} {:>9.1}", table + indexes);
    };
    for row in client.query(TABLES, &[])? {
        let (name, own, of_indexes): (String, f64, f64) = (row.get(0), row.get(1), row.get(2));
        if name != "baseline" {
            line(&name, own / events, of_indexes / events);
            (table, indexes) = (table + own / events, indexes + of_indexes / events);
        } else if let Some(rows) = baseline {
            line("meterflow", table, indexes);
            line("baseline: COPY, one unique index", own / rows, of_indexes / rows);
            println!("  {:32} {:>29.2}", "ratio", (table + indexes) / ((own + of_indexes) / rows));
            return Ok(());
        }
    }
    line("meterflow", table, indexes);
    Ok(())
}
