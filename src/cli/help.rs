//! What the help and the manual page say besides the options.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

const EXAMPLES: &str = "\
  In a shell script; a failed query leaves yesterday's report:
    write-atomically report.csv -- psql --csv -f report.sql

  A pipeline, of which every part must succeed:
    write-atomically top.txt -- bash -o pipefail -c 'zcat log.gz | sort | uniq -c'

  A program that wants a path instead of printing:
    write-atomically model.onnx -- python export.py --output {}

  A whole directory:
    write-atomically --dir site -- mdbook build --dest-dir {}

  A configuration that is checked before anybody reads it:
    write-atomically --check 'visudo -cf {}' /etc/sudoers.d/team -- ./render team

  Two files of one command:
    write-atomically app.js app.js.map -- minify src.js -o {1} --source-map {2}

  A rule of a Makefile that leaves no half-written target, which would look up to date:
    %.json: %.yaml
            write-atomically $@ -- yq -o json $<

  In a crontab; nothing reads a list that is still being downloaded:
    15 4 * * * write-atomically -q /srv/block.list -- curl -fsS https://example.org/list

  Instead of sponge(1):
    sort names | write-atomically names
";

const EXIT_STATUS: &str = "\
  0       DEST is written, or need not be (--if-missing, --if-changed)
  2       the options make no sense
  122     --refuse-empty or --check has refused the content
  123     DEST exists (--create)
  124     others have not finished DEST within --wait SECONDS
  125     this program failed; DEST is unchanged unless the message says otherwise
  126     COMMAND can't be executed
  127     COMMAND is not found
  128+N   COMMAND was killed by signal N
  else    COMMAND's own
";

const SIGNALS: &str = "\
  SIGINT, SIGTERM and SIGHUP are passed on to COMMAND, unless the terminal has sent them to both.
  This program waits for COMMAND's end, publishes nothing, and ends by the same signal. One that
  comes when COMMAND has succeeded and what it wrote is being published comes too late. As
  process 1 of a container, which no signal can end, it exits with 128+N instead. After SIGKILL, COMMAND may run on; what it writes is lost.
";

/// What the help and the manual page end with.
const AFTERWORD: [(&str, &str); 3] =
    [("Examples", EXAMPLES), ("Exit status", EXIT_STATUS), ("Signals", SIGNALS)];

pub fn afterword() -> String {
    let sections: Vec<_> =
        AFTERWORD.iter().map(|(title, text)| format!("{title}:\n{text}")).collect();
    sections.join("\n")
}

/// The manual page of a command. What follows the options is shown as it is, line by line.
pub fn manual(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(command);
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for (title, text) in AFTERWORD {
        let mut section = Roff::new();
        section.control("SH", [title.to_uppercase().as_str()]).control("nf", []);
        for line in text.lines() {
            section.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        section.control("fi", []).to_writer(&mut page)?;
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}
