//! A pod's directories without a pod, and the real binary run in them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ropewalk_entrypoint_protocol::flags::{PrepareFlags, Script, StepFlags};
use ropewalk_entrypoint_protocol::termination::Termination;
use tempfile::TempDir;

pub(crate) type TestResult = Result<(), Box<dyn Error>>;

/// Longest wait for anything; far beyond what is needed on a loaded machine, so passing it is failure.
const DEADLINE: Duration = Duration::from_mins(1);

/// The `/tekton` of a pod, in a temporary directory.
pub(crate) struct Pod {
    dir: TempDir,
}

/// What a finished step left on its way out.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Pod {
    pub(crate) fn new() -> io::Result<Self> {
        let pod = Pod { dir: tempfile::tempdir()? };
        for dir in ["results", "steps", "scripts", "run/0", "run/1"] {
            fs::create_dir_all(pod.path(dir))?;
        }
        Ok(pod)
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn text(&self, relative: &str) -> String {
        self.path(relative).to_string_lossy().into_owned()
    }

    /// Flags of step `index` as the controller would make them: it waits for the step before it.
    pub(crate) fn step(&self, index: usize, command: &[&str]) -> StepFlags {
        StepFlags {
            wait_files: index
                .checked_sub(1)
                .map(|i| self.text(&format!("run/{i}/out")))
                .into_iter()
                .collect(),
            post_file: self.text(&format!("run/{index}/out")),
            termination_path: self.text(&format!("termination-{index}")),
            step_metadata_dir: self.text(&format!("run/{index}/status")),
            root: Some(self.text("")),
            entrypoint: command.first().map(ToString::to_string),
            args: command.iter().skip(1).map(ToString::to_string).collect(),
            ..StepFlags::default()
        }
    }

    /// Flags of step `index` that runs a shell script.
    pub(crate) fn shell(&self, index: usize, script: &str) -> StepFlags {
        self.step(index, &["sh", "-c", script])
    }

    /// Puts an executable script into the pod and returns its path.
    ///
    /// A process of its own writes it: were this one to, a child forked meanwhile by another test could
    /// hold the file open for writing, and the kernel would refuse to execute it.
    pub(crate) fn script(&self, name: &str, content: &str) -> Result<String, Box<dyn Error>> {
        let path = self.text(&format!("scripts/{name}"));
        let script = Script { path: path.clone(), content: content.to_owned() };
        let flags =
            PrepareFlags { root: Some(self.text("")), scripts: vec![script], ..PrepareFlags::default() };
        let ended = end(entrypoint().args(flags.render()).spawn()?)?;
        if ended.code == Some(0) { Ok(path) } else { Err(ended.stderr.into()) }
    }

    /// The binary as a user without privileges runs it: a copy where that user can read it.
    ///
    /// Made by a process of its own, for the reason given at [`Pod::script`].
    pub(crate) fn as_user(&self, uid: u32) -> Result<Command, Box<dyn Error>> {
        let copy = self.path("image-entrypoint");
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_ropewalk-entrypoint")).arg(&copy).status()?;
        if !copied.success() {
            return Err("cp failed".into());
        }
        let mut command = Command::new(copy);
        command.uid(uid).gid(uid).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// The termination message of a step.
    pub(crate) fn message(&self, index: usize) -> Result<Termination, Box<dyn Error>> {
        Ok(Termination::parse(&fs::read_to_string(self.path(&format!("termination-{index}")))?)?)
    }

    /// Content of a file, `None` if there is none.
    pub(crate) fn read(&self, relative: &str) -> Option<String> {
        fs::read_to_string(self.path(relative)).ok()
    }

    pub(crate) fn write(&self, relative: &str, content: &str) -> io::Result<()> {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, content)
    }
}

/// Whether users can be changed here; says so loudly if not.
#[allow(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
pub(crate) fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !root {
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must run as root");
        eprintln!("WARNING: skipped, as only root can become another user");
    }
    root
}

pub(crate) fn entrypoint() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk-entrypoint"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn spawn(flags: &StepFlags) -> io::Result<Child> {
    entrypoint().args(flags.render()).spawn()
}

/// Runs a step from start to end.
pub(crate) fn run(flags: &StepFlags) -> io::Result<Ended> {
    end(spawn(flags)?)
}

/// Waits until a process and all that hold its output have ended.
pub(crate) fn end(mut child: Child) -> io::Result<Ended> {
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let mut status = None;
    until("the process to end", || {
        status = child.try_wait().ok().flatten();
        status.is_some() && stdout.iter().chain(&stderr).all(thread::JoinHandle::is_finished)
    })?;
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Ended { code: status.and_then(|status| status.code()), stdout: text(stdout), stderr: text(stderr) })
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        let _ = pipe.read_to_string(&mut text);
        text
    })
}

/// Looks again and again until `level` is reached: another process tells nobody that it has begun to wait.
pub(crate) fn until(what: &str, mut level: impl FnMut() -> bool) -> io::Result<()> {
    let give_up = Instant::now() + DEADLINE;
    while !level() {
        if Instant::now() > give_up {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited for {what} in vain")));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Waits until a step has begun to wait: its directories are made and the process sleeps.
pub(crate) fn until_waiting(pod: &Pod, index: usize, child: &Child) -> io::Result<()> {
    let made = pod.path(&format!("run/{index}/status/artifacts"));
    until("the step to wait", || made.exists() && is_sleeping(child.id()))
}

fn is_sleeping(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}
