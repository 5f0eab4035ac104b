//! Markdown for people, tab-separated values for `headlines`.

use crate::calls::Calls;
use crate::contenders::Who;
use crate::floor::Guarantee;
use crate::floor::body::Body;
use crate::measure::{Sample, time};
use std::fs::File;
use std::io::Write;

pub struct Report {
    pub markdown: File,
    pub values: File,
}

impl Report {
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        writeln!(self.markdown, "{line}").unwrap();
    }

    #[allow(clippy::too_many_arguments)]
    pub fn operation(
        &mut self,
        title: &str,
        whos: &[Who],
        guarantee: Guarantee,
        body: &Body,
        replace: bool,
        samples: &[Sample],
        calls: &[Option<Calls>],
        warm: Option<&[(f64, f64)]>,
    ) {
        self.line(&format!("\n### {title}\n\n{} rounds.\n", samples[0].seconds.len()));
        let mut head = "| contender | gives |".to_string();
        let mut rule = "| --- | --- |".to_string();
        if replace {
            head += " keeps |";
            rule += " --- |";
        }
        head += " median | quartiles | to floor | lower quartiles | write-atomically to it | system calls |";
        rule += " ---: | ---: | ---: | ---: | ---: | ---: |";
        if warm.is_some() {
            head += " MiB/s | in page cache afterwards | read again in |";
            rule += " ---: | ---: | ---: |";
        }
        self.line(&head);
        self.line(&rule);
        let median =
            |wanted: Who| whos.iter().position(|who| *who == wanted).map(|at| samples[at].median());
        let floor = median(Who::Floor).unwrap();
        let floor_low =
            samples[whos.iter().position(|who| *who == Who::Floor).unwrap()].quantile(0.25);
        let ours = median(Who::Ours);
        for (at, (who, sample)) in whos.iter().zip(samples).enumerate() {
            let mut line = format!("| {} | {} |", who.name(), who.gives(guarantee, body).unwrap());
            if replace {
                line += &format!(" {} |", who.keeps());
            }
            line += &format!(
                " {} | {} – {} | {:.2} | {:.2} | {} | {} |",
                time(sample.median()),
                time(sample.quantile(0.25)),
                time(sample.quantile(0.75)),
                sample.median() / floor,
                sample.quantile(0.25) / floor_low,
                ours.map_or("–".into(), |ours| format!("{:.2}", ours / sample.median())),
                calls[at].as_ref().map_or("–".into(), |calls| calls.total().to_string()),
            );
            if let Some(warm) = warm {
                line += &format!(
                    " {:.0} | {:.0} % | {} |",
                    body.len() as f64 / (1 << 20) as f64 / sample.median(),
                    warm[at].0 * 100.0,
                    time(warm[at].1)
                );
            }
            self.line(&line);
            writeln!(
                self.values,
                "{title}\t{who:?}\t{:.9}\t{:.9}\t{:.9}\t{:.4}\t{}",
                sample.median(),
                sample.quantile(0.25),
                sample.quantile(0.75),
                sample.median() / floor,
                calls[at].as_ref().map_or("-".into(), |calls| calls.total().to_string()),
            )
            .unwrap();
        }
        if calls.iter().any(Option::is_some)
            && matches!(body, Body::Whole(bytes) if bytes.len() == 4 << 10)
        {
            self.line("\nSystem calls:\n");
            for (who, calls) in whos.iter().zip(calls) {
                if let Some(calls) = calls {
                    self.line(&format!("- {}: {}: {}", who.name(), calls.total(), calls.list()));
                }
            }
        }
    }

    /// Ratios to the first.
    pub fn plain(&mut self, title: &str, samples: &[Sample]) {
        self.line(&format!("\n### {title}\n\n{} rounds.\n", samples[0].seconds.len()));
        self.line(
            "| contender | median | quartiles | to the first |\n| --- | ---: | ---: | ---: |",
        );
        for sample in samples {
            let (low, median, high) =
                (sample.quantile(0.25), sample.median(), sample.quantile(0.75));
            let ratio = median / samples[0].median();
            self.line(&format!(
                "| {} | {} | {} – {} | {ratio:.2} |",
                sample.name,
                time(median),
                time(low),
                time(high)
            ));
            writeln!(
                self.values,
                "{title}\t{}\t{median:.9}\t{low:.9}\t{high:.9}\t{ratio:.4}\t-",
                sample.name
            )
            .unwrap();
        }
    }

    pub fn directories(&mut self, title: &str, whos: &[Who], samples: &[Sample]) {
        self.line(&format!("\n### {title}\n\n{} rounds.\n", samples[0].seconds.len()));
        self.line(
            "| contender | 10 entries | quartiles | 100,000 entries | quartiles | 100,000 to 10 |",
        );
        self.line("| --- | ---: | ---: | ---: | ---: | ---: |");
        for (who, pair) in whos.iter().zip(samples.chunks(2)) {
            let [few, many] = pair else { unreachable!() };
            self.line(&format!(
                "| {} | {} | {} – {} | {} | {} – {} | {:.2} |",
                who.name(),
                time(few.median()),
                time(few.quantile(0.25)),
                time(few.quantile(0.75)),
                time(many.median()),
                time(many.quantile(0.25)),
                time(many.quantile(0.75)),
                many.median() / few.median()
            ));
            writeln!(
                self.values,
                "{title}\t{who:?}\t{:.9}\t{:.9}\t{:.9}\t{:.4}\t-",
                many.median(),
                many.quantile(0.25),
                many.quantile(0.75),
                many.median() / few.median(),
            )
            .unwrap();
        }
    }
}
