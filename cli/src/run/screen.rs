//! What `ropewalk run` shows while it runs: lines of logs, and on a terminal the tasks that are running beneath them.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use ropewalk_standalone::node::Pulls;

use crate::args::Output;
use crate::diagnostic::Diagnostic;

/// How often a running task's spinner moves; fast enough to be seen moving, slow enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

/// Where progress goes. Logs and progress share one stream, so that their order is that of events.
pub(super) struct Screen {
    output: Output,
    color: bool,
    bars: Option<MultiProgress>,
    running: Mutex<HashMap<String, ProgressBar>>,
    pulls: Mutex<HashMap<String, ProgressBar>>,
    lost: Mutex<Option<Diagnostic>>,
}

impl Screen {
    /// A screen for this kind of output; live only on a terminal.
    pub(super) fn new(output: Output) -> Self {
        let terminal = std::io::stderr().is_terminal()
            && (output == Output::Json || std::io::stdout().is_terminal())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            output,
            color,
            bars: terminal.then(MultiProgress::new),
            running: Mutex::default(),
            pulls: Mutex::default(),
            lost: Mutex::default(),
        }
    }

    /// Colors are wanted and possible.
    pub(super) fn color(&self) -> bool {
        self.color
    }

    /// Prints one line. When that fails the run goes on; see [`Screen::lost`].
    pub(super) fn line(&self, text: &str) {
        let print = || match self.output {
            Output::Text => {
                if let Err(lost) = crate::print(&format!("{text}\n"))
                    && let Ok(mut first) = self.lost.lock()
                {
                    first.get_or_insert(lost);
                }
            }
            // Standard output carries the runs; nobody is promised what stands beside them.
            Output::Json => drop(writeln!(std::io::stderr().lock(), "{text}")),
        };
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    /// Why lines did not reach standard output, if some did not.
    pub(super) fn lost(&self) -> Option<Diagnostic> {
        self.lost.lock().ok().and_then(|mut lost| lost.take())
    }

    /// Lines can be written again.
    pub(super) fn is_live(&self) -> bool {
        self.bars.is_some()
    }

    /// These images are being pulled, and no others.
    pub(super) fn pulling(&self, pulls: &Pulls) {
        let (Some(bars), Ok(mut shown)) = (&self.bars, self.pulls.lock()) else { return };
        shown.retain(|image, bar| {
            let goes_on = pulls.contains_key(image);
            if !goes_on {
                bar.finish_and_clear();
            }
            goes_on
        });
        // Of the others nobody knows yet how much it is.
        for (image, progress) in pulls.iter().filter(|(_, progress)| progress.total > 0) {
            let bar = shown.entry(image.clone()).or_insert_with(|| {
                let style = ProgressStyle::with_template(
                    "  pulling {msg} {bar:20} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}",
                );
                let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                bars.add(ProgressBar::new(progress.total).with_style(style).with_message(image.clone()))
            });
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    /// A line of a step's log, with the step in front of it.
    pub(super) fn log(&self, task: &str, step: &str, text: &str) {
        if self.color {
            self.line(&format!("\u{1b}[36m[{task} : {step}]\u{1b}[0m {text}"));
        } else {
            self.line(&format!("[{task} : {step}] {text}"));
        }
    }

    /// A task is running.
    pub(super) fn started(&self, task: &str) {
        let Some(bars) = &self.bars else { return };
        let Ok(mut running) = self.running.lock() else { return };
        running.entry(task.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = bars.add(ProgressBar::new_spinner().with_style(style).with_message(task.to_owned()));
            bar.enable_steady_tick(TICK);
            bar
        });
    }

    /// A task has ended; its line leaves the screen.
    pub(super) fn ended(&self, task: &str) {
        if let Ok(mut running) = self.running.lock()
            && let Some(bar) = running.remove(task)
        {
            bar.finish_and_clear();
        }
    }
}
