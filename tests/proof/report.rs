//! The tables that a run prints when it is done.

use std::collections::BTreeMap;
use std::sync::Mutex;

static TABLES: Mutex<BTreeMap<&str, Vec<Vec<String>>>> = Mutex::new(BTreeMap::new());

/// Adds a row to a table. The title holds the columns' names after a colon.
pub fn row(table: &'static str, cells: Vec<String>) {
    TABLES.lock().unwrap().entry(table).or_default().push(cells);
}

pub fn print() {
    for (title, rows) in &mut *TABLES.lock().unwrap() {
        rows.sort();
        let (title, columns) = title.split_once(": ").unwrap();
        let columns: Vec<String> = columns.split(", ").map(String::from).collect();
        println!("\n{title}\n");
        println!("| {} |", columns.join(" | "));
        println!("|{}", " --- |".repeat(columns.len()));
        for row in rows.iter() {
            println!("| {} |", row.join(" | "));
        }
    }
}
