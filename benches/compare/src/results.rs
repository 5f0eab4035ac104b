//! The results of one filesystem, as tab-separated values: `benches/results/*.tsv`. Every Markdown
//! table is generated from them.

use crate::calls::Calls;
use crate::contenders::Who;
use crate::floor::Guarantee;
use crate::floor::body::Body;
use crate::measure::Sample;
use anyhow::{Context, Result, ensure};
use fs_err as fs;
use std::fmt::Write;
use std::path::Path;

const COLUMNS: &str = "operation\tcontender\tgives\tdate\trounds\tbytes\tlower\tmedian\tupper\tcalls\tcall_names\tcached\treread";

/// One contender in one operation. Times are in seconds; `None` where it was not measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub operation: String,
    /// A variant of [`Who`] by its `Debug` name, or a text for a contender of one operation only.
    pub contender: String,
    pub gives: String,
    pub date: String,
    pub rounds: usize,
    pub bytes: u64,
    pub lower: Option<f64>,
    pub median: f64,
    pub upper: Option<f64>,
    pub calls: Option<usize>,
    /// `close=2 fdatasync=1 …`
    pub call_names: String,
    /// The share of the file in the page cache afterwards.
    pub cached: Option<f64>,
    pub reread: Option<f64>,
}

#[derive(Debug, PartialEq)]
pub struct Results {
    pub filesystem: String,
    pub machine: String,
    pub rows: Vec<Row>,
}

impl Results {
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&fs::read_to_string(path)?).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let mut header = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name)).map(str::to_owned);
            line.with_context(|| format!("the header has no line \"{name}\""))
        };
        let filesystem = header("# filesystem: ")?;
        let machine = header("# machine: ")?;
        ensure!(lines.next() == Some(COLUMNS), "the columns are not\n{COLUMNS}");
        let rows = lines
            .map(|line| Row::parse(line).with_context(|| format!("in the row\n{line}")))
            .collect::<Result<_>>()?;
        Ok(Results { filesystem, machine, rows })
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, self.to_tsv())?)
    }

    fn to_tsv(&self) -> String {
        let mut text =
            format!("# filesystem: {}\n# machine: {}\n{COLUMNS}\n", self.filesystem, self.machine);
        for row in &self.rows {
            row.format(&mut text);
        }
        text
    }

    /// Operations in the order of their first row.
    pub fn operations(&self) -> Vec<&str> {
        let mut operations: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !operations.contains(&row.operation.as_str()) {
                operations.push(&row.operation);
            }
        }
        operations
    }

    pub fn of<'a>(&'a self, operation: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.operation == operation)
    }

    pub fn find(&self, operation: &str, who: Who) -> Option<&Row> {
        self.rows.iter().find(|row| row.operation == operation && row.who() == Some(who))
    }

    /// Replaces the rows of an operation that was measured before, or adds them.
    pub fn put(&mut self, rows: Vec<Row>) {
        let Some(operation) = rows.first().map(|row| row.operation.clone()) else { return };
        let at = self.rows.iter().position(|row| row.operation == operation);
        self.rows.retain(|row| row.operation != operation);
        let at = at.unwrap_or(self.rows.len());
        self.rows.splice(at..at, rows);
    }
}

impl Row {
    /// A row for each sample; `title` is the operation.
    pub fn of_samples(
        title: &str,
        whos: &[Who],
        guarantee: Guarantee,
        body: &Body,
        samples: &[Sample],
    ) -> Vec<Row> {
        whos.iter()
            .zip(samples)
            .map(|(who, sample)| {
                let gives = who.gives(guarantee, body).unwrap_or_default();
                Row::of_sample(title, &format!("{who:?}"), gives, body.len(), sample)
            })
            .collect()
    }

    pub fn of_sample(
        title: &str,
        contender: &str,
        gives: &str,
        bytes: u64,
        sample: &Sample,
    ) -> Row {
        Row {
            operation: title.into(),
            contender: contender.into(),
            gives: gives.into(),
            date: crate::output_of("date", &["+%F"]),
            rounds: sample.seconds.len(),
            bytes,
            lower: Some(sample.quantile(0.25)),
            median: sample.median(),
            upper: Some(sample.quantile(0.75)),
            ..Row::default()
        }
    }

    pub fn set_calls(&mut self, calls: &Calls) {
        self.calls = Some(calls.total());
        self.call_names = calls.list();
    }

    pub fn who(&self) -> Option<Who> {
        Who::ALL.into_iter().find(|who| format!("{who:?}") == self.contender)
    }

    pub fn name(&self) -> &str {
        self.who().map_or(self.contender.as_str(), |who| who.name())
    }

    fn parse(line: &str) -> Result<Self> {
        fn optional<T: std::str::FromStr>(field: &str) -> Result<Option<T>>
        where
            T::Err: std::error::Error + Send + Sync + 'static,
        {
            if field.is_empty() { Ok(None) } else { Ok(Some(field.parse()?)) }
        }
        let fields: Vec<&str> = line.split('\t').collect();
        let columns = COLUMNS.split('\t').count();
        ensure!(fields.len() == columns, "{} fields instead of {columns}", fields.len());
        Ok(Row {
            operation: fields[0].into(),
            contender: fields[1].into(),
            gives: fields[2].into(),
            date: fields[3].into(),
            rounds: fields[4].parse()?,
            bytes: fields[5].parse()?,
            lower: optional(fields[6])?,
            median: fields[7].parse()?,
            upper: optional(fields[8])?,
            calls: optional(fields[9])?,
            call_names: fields[10].into(),
            cached: optional(fields[11])?,
            reread: optional(fields[12])?,
        })
    }

    fn format(&self, text: &mut String) {
        let seconds =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.9}"));
        let fields = [
            self.operation.clone(),
            self.contender.clone(),
            self.gives.clone(),
            self.date.clone(),
            self.rounds.to_string(),
            self.bytes.to_string(),
            seconds(self.lower),
            seconds(Some(self.median)),
            seconds(self.upper),
            self.calls.map_or(String::new(), |calls| calls.to_string()),
            self.call_names.clone(),
            self.cached.map_or(String::new(), |cached| format!("{cached:.2}")),
            seconds(self.reread),
        ];
        writeln!(text, "{}", fields.join("\t")).expect("a String can be written to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_results_are_read_and_written_unchanged() {
        for name in crate::tables::FILESYSTEMS {
            let path = crate::tables::results_directory().join(name).with_extension("tsv");
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(Results::read(&path).unwrap().to_tsv(), text, "{name}");
        }
    }

    #[test]
    fn an_operation_measured_again_replaces_its_rows() {
        let row = |operation: &str, median| Row {
            operation: operation.into(),
            contender: "Ours".into(),
            median,
            ..Row::default()
        };
        let mut results = Results {
            filesystem: "ext4".into(),
            machine: "one".into(),
            rows: vec![row("a", 1.0), row("b", 2.0), row("c", 3.0)],
        };
        results.put(vec![row("b", 4.0), row("b", 5.0)]);
        results.put(vec![row("d", 6.0)]);
        let medians: Vec<f64> = results.rows.iter().map(|row| row.median).collect();
        assert_eq!(medians, [1.0, 4.0, 5.0, 3.0, 6.0]);
    }
}
