//! The command-line tool where it is used: in shell scripts and Makefiles.
//!
//! What is not installed is not tested, and counted as ignored.

#[cfg(not(unix))]
fn main() {
    println!("the scripts are ignored here: they need a Unix shell");
}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, unix::trials()).exit_code()
}

#[cfg(unix)]
mod unix {
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use fs_err as fs;
    use libtest_mimic::{Failed, Trial};
    use tempfile::TempDir;

    pub fn trials() -> Vec<Trial> {
        vec![
            needing("make", "a_recipe_that_fails_half_way_leaves_no_target", leaves_no_target),
            needing("make", "without_the_tool_it_leaves_one_that_looks_up_to_date", leaves_one),
            needing("make", "a_recipe_with_the_tool_builds_and_rebuilds", builds_and_rebuilds),
            needing("make", "the_makefile_of_the_help_is_one", makefile_of_the_help),
            needing("bash", "a_script_with_errexit_stops_and_keeps_the_old_file", errexit),
            needing("bash", "pipefail_shows_every_failure_in_a_pipeline", pipefail),
            needing("bash", "a_pipe_does_not_show_that_its_producer_failed", unseen),
            needing("bash", "an_interrupted_loop_stops", interrupted_loop),
            needing("bash", "the_statuses_are_those_of_the_shell", statuses),
            needing("bash", "it_takes_the_place_of_sponge", sponge),
            needing("bash", "the_completions_load", completions),
        ]
    }

    /// The kind shows in the report: it is the reason why a test is ignored.
    fn needing(
        program: &'static str,
        name: &'static str,
        test: fn(&Scene) -> Result<(), Failed>,
    ) -> Trial {
        let status = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let is_installed = status.is_ok_and(|status| status.success());
        Trial::test(name, move || test(&Scene::new()))
            .with_kind(if is_installed { program.to_owned() } else { format!("needs {program}") })
            .with_ignored_flag(!is_installed)
    }

    /// A directory in which the tool is found.
    struct Scene {
        directory: TempDir,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { directory: TempDir::new().unwrap() }
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.directory.path().join(name), content).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.directory.path().join(name)).unwrap()
        }

        fn listing(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }

        fn run(&self, program: &str, arguments: &[&str]) -> Output {
            let tools = Path::new(assert_cmd::cargo::cargo_bin!("write-atomically")).parent();
            let rest = std::env::var_os("PATH").unwrap_or_default();
            let path = tools.map(Path::to_owned).into_iter().chain(std::env::split_paths(&rest));
            Command::new(program)
                .args(arguments)
                .current_dir(self.directory.path())
                .env("PATH", std::env::join_paths(path).unwrap())
                .env_remove("MAKEFLAGS")
                .env_remove("MAKELEVEL")
                .stdin(Stdio::null())
                .output()
                .unwrap()
        }

        fn bash(&self, script: &str) -> Output {
            self.run("bash", &["-c", script])
        }
    }

    fn stdout(output: &Output) -> String {
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn stderr(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `half` prints one of two lines and fails, unless there is `source`.
    const HALF: &str = "sh -c 'echo one; test -e source && echo two'";

    fn leaves_no_target(scene: &Scene) -> Result<(), Failed> {
        scene.write("Makefile", &format!("target:\n\twrite-atomically $@ -- {HALF}\n"));
        for _ in 0..2 {
            let output = scene.run("make", &[]);
            assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
            assert!(stderr(&output).contains("`target` is unchanged: `sh` failed: exit status 1"));
            assert_eq!(scene.listing(), ["Makefile"]);
        }
        Ok(())
    }

    fn leaves_one(scene: &Scene) -> Result<(), Failed> {
        scene.write("Makefile", &format!("target:\n\t{HALF} > $@\n"));
        assert_eq!(scene.run("make", &[]).status.code(), Some(2));
        assert_eq!(scene.read("target"), "one\n");
        let again = scene.run("make", &[]);
        assert!(again.status.success() && stdout(&again).contains("up to date"));
        Ok(())
    }

    fn builds_and_rebuilds(scene: &Scene) -> Result<(), Failed> {
        scene.write("Makefile", &format!("target: source\n\twrite-atomically $@ -- {HALF}\n"));
        scene.write("source", "");
        let output = scene.run("make", &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(scene.read("target"), "one\ntwo\n");
        assert!(stdout(&scene.run("make", &[])).contains("up to date"));
        // Newer than its source, which it would not be if its time were that of the staging.
        let output = scene.run("make", &["-W", "source"]);
        assert!(output.status.success() && !stdout(&output).contains("up to date"));
        Ok(())
    }

    fn makefile_of_the_help(scene: &Scene) -> Result<(), Failed> {
        let help = stdout(&scene.run("write-atomically", &["--help"]));
        let rule = help.lines().skip_while(|line| !line.contains("%.json: %.yaml")).take(2);
        let rule: Vec<&str> = rule.map(str::trim).collect();
        scene.write("Makefile", &format!("{}\n\t{}\n", rule[0], rule[1]));
        scene.write("a.yaml", "");
        let output = scene.run("make", &["--dry-run", "a.json"]);
        assert_eq!(stdout(&output), "write-atomically a.json -- yq -o json a.yaml\n");
        Ok(())
    }

    fn errexit(scene: &Scene) -> Result<(), Failed> {
        scene.write("report", "yesterday");
        let script = "set -e; write-atomically report -- sh -c 'echo today; exit 9'; touch after";
        assert_eq!(scene.bash(script).status.code(), Some(9));
        assert_eq!(
            (scene.read("report"), scene.listing()),
            ("yesterday".into(), vec!["report".into()])
        );
        Ok(())
    }

    fn pipefail(scene: &Scene) -> Result<(), Failed> {
        scene.write("report", "yesterday");
        let script = "write-atomically report -- bash -o pipefail -c '(echo today; exit 9) | cat'";
        assert_eq!(scene.bash(script).status.code(), Some(9));
        assert_eq!(scene.read("report"), "yesterday");
        Ok(())
    }

    /// What the help warns of.
    fn unseen(scene: &Scene) -> Result<(), Failed> {
        let script = "set -o pipefail; (echo half; exit 9) | write-atomically report";
        assert_eq!(scene.bash(script).status.code(), Some(9));
        assert_eq!(scene.read("report"), "half\n");
        Ok(())
    }

    /// A shell goes on with its loop unless it sees that the signal has ended what it waited for.
    fn interrupted_loop(scene: &Scene) -> Result<(), Failed> {
        let script = "
            for name in one two; do
                write-atomically $name -- sh -c 'trap \"exit 0\" INT; kill -INT $PPID 0; sleep 5'
            done
            touch after";
        // A session of its own: signal 0's group is this one.
        let output = scene.run("setsid", &["--wait", "bash", "-c", script]);
        assert!(!output.status.success());
        assert_eq!(scene.listing(), [""; 0]);
        Ok(())
    }

    fn statuses(scene: &Scene) -> Result<(), Failed> {
        let script = "
            write-atomically -q f -- true; echo $?
            write-atomically -q f -- sh -c 'exit 42'; echo $?
            write-atomically -q f -- sh -c 'kill -KILL $$'; echo $?
            write-atomically -q f -- no-such-command; echo $?
            write-atomically -q f -- ./f; echo $?
            write-atomically -q no/f -- true; echo $?
            write-atomically -q --create f -- true; echo $?
            write-atomically -q --if-missing g -- write-atomically --if-missing --wait 0.1 g -- true; echo $?
            write-atomically; echo $?
            write-atomically -q f -- sh -c 'kill -TERM $PPID; sleep 5'; echo $?";
        let statuses = stdout(&scene.bash(script));
        let statuses: Vec<&str> = statuses.lines().collect();
        assert_eq!(statuses, ["0", "42", "137", "127", "126", "125", "123", "124", "2", "143"]);
        Ok(())
    }

    fn sponge(scene: &Scene) -> Result<(), Failed> {
        scene.write("names", "b\na\n");
        let script = "
            sort names | write-atomically names
            uniq names | tr a-z A-Z | write-atomically --append names";
        assert!(scene.bash(script).status.success());
        assert_eq!(scene.read("names"), "a\nb\nA\nB\n");
        Ok(())
    }

    fn completions(scene: &Scene) -> Result<(), Failed> {
        let script = "
            set -eu
            source <(write-atomically --completions bash)
            complete -p write-atomically >&2
            COMP_WORDS=(write-atomically --dura) COMP_CWORD=1 COMPREPLY=()
            _write__atomically write-atomically --dura write-atomically
            echo \"${COMPREPLY[@]}\"";
        let output = scene.bash(script);
        assert_eq!(stdout(&output), "--durability\n", "{}", stderr(&output));
        Ok(())
    }
}
