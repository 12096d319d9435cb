//! Why a pipeline task is not run (contract 7.1). Pure.

/// The reasons of `skippedTasks`, word for word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SkipReason {
    /// A when expression is false.
    When,
    /// A task it waits for was skipped, for a reason other than `when`.
    Parent,
    /// The run starts nothing more.
    Stopping,
    /// `CancelledRunFinally`.
    GracefullyCancelled,
    /// `StoppedRunFinally`.
    GracefullyStopped,
    /// A result it needs is not there.
    MissingResults,
    /// The run's time is up.
    PipelineTimeout,
    /// The graph's time is up.
    TasksTimeout,
    /// The time of `finally` is up.
    FinallyTimeout,
    /// Its matrix has no combination.
    EmptyMatrix,
}

impl SkipReason {
    /// As written in the status.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::When => "When Expressions evaluated to false",
            Self::Parent => "Parent Tasks were skipped",
            Self::Stopping => "PipelineRun was stopping",
            Self::GracefullyCancelled => "PipelineRun was gracefully cancelled",
            Self::GracefullyStopped => "PipelineRun was gracefully stopped",
            Self::MissingResults => "Results were missing",
            Self::PipelineTimeout => "PipelineRun timeout has been reached",
            Self::TasksTimeout => "PipelineRun Tasks timeout has been reached",
            Self::FinallyTimeout => "PipelineRun Finally timeout has been reached",
            Self::EmptyMatrix => "Matrix Parameters have an empty array",
        }
    }

    /// A run with such a skip has failed.
    pub(super) fn is_timeout(self) -> bool {
        matches!(self, Self::PipelineTimeout | Self::TasksTimeout | Self::FinallyTimeout)
    }
}
