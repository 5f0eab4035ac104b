//! The numbers that the README, the guide and the chart take from the benchmarks' results.

use std::path::Path;

use fs_err as fs;
use rstest::rstest;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The median of an operation in seconds, from the file that the README names.
fn median(operation: &str, contender: &str) -> f64 {
    let results = read("benches/results/xfs.tsv");
    let mut lines = results.lines().filter(|line| !line.starts_with('#'));
    let columns: Vec<_> = lines.next().unwrap().split('\t').collect();
    let at = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let row = lines
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .find(|row| row[at("operation")] == operation && row[at("contender")] == contender);
    row.unwrap_or_else(|| panic!("no {operation} by {contender}"))[at("median")].parse().unwrap()
}

fn to_floor(operation: &str) -> String {
    format!("{:.2}", median(operation, "Ours") / median(operation, "Floor"))
}

#[rstest]
#[case("Durable")]
#[case("Consistent")]
#[case("Relaxed")]
fn the_readme_has_the_cost_of_each_level(#[case] level: &str) {
    let operation = format!("{level} replace of 4 KiB");
    let time = median(&operation, "Ours") * 1e6;
    let numbers = format!("| {time:.0} µs | {} |", to_floor(&operation));
    let readme = read("README.md");
    let row = readme.lines().find(|line| line.starts_with(&format!("| `{level}`"))).unwrap();
    assert!(row.ends_with(&numbers), "{row}: {numbers}");
}

#[rstest]
#[case("Durable replace of 4 KiB", "durable replace")]
#[case("Durable create of 4 KiB", "durable create")]
#[case("Consistent replace of 4 KiB", "consistent replace")]
#[case("Relaxed replace of 4 KiB", "relaxed replace")]
#[case(
    "Durable replace by a stream of 512 MiB, copied only",
    "durable replace, a stream of 512 MiB"
)]
fn the_guide_has_the_cost_of_each_operation(#[case] operation: &str, #[case] row: &str) {
    let guide = read("src/guide/durability.md");
    let row = guide.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap();
    let to_floor = to_floor(operation);
    assert_eq!(row.split('|').nth(4).map(str::trim), Some(&*to_floor), "{row}");
}

#[rstest]
fn the_first_screen_says_what_a_durable_replace_costs() {
    let ratio = to_floor("Durable replace of 4 KiB");
    let readme = read("README.md");
    assert!(readme.contains(&format!("takes {ratio} times as long")), "{ratio}");
}

#[rstest]
fn the_chart_is_drawn_from_the_results() {
    let chart = read("assets/headlines.svg");
    let ours: Vec<_> = chart
        .lines()
        .filter(|line| line.contains("number ours-text"))
        .filter_map(|line| line.rsplit_once('>')?.0.rsplit_once("</text")?.0.rsplit_once('>'))
        .map(|(_, number)| number.to_owned())
        .collect();
    let expected = [
        "Durable replace of 4 KiB",
        "Durable create of 4 KiB",
        "Relaxed replace of 4 KiB",
        "Durable replace by a stream of 512 MiB, copied only",
    ];
    assert_eq!(ours, expected.map(to_floor));
}
