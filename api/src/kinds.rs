//! The table of kinds this engine serves (contract 1.0). Everything that goes over all kinds reads it: CRDs,
//! schemas, admission. Pure.

/// One kind; all are namespaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kind {
    /// Its API group: `tekton.dev`.
    pub group: &'static str,
    /// As in manifests: `TaskRun`.
    pub kind: &'static str,
    /// The version stored and served.
    pub version: &'static str,
    /// Other versions served, converted from and to the stored one.
    pub also: &'static [&'static str],
    /// As in URLs: `taskruns`.
    pub plural: &'static str,
    /// As typed: `taskrun`.
    pub singular: &'static str,
    /// Shorter still.
    pub short_names: &'static [&'static str],
    /// It runs, and so has a status and the columns that show it.
    pub runs: bool,
}

impl Kind {
    /// As in manifests: `tekton.dev/v1`.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// Every version served, the stored one first.
    pub fn versions(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.version).chain(self.also.iter().copied())
    }

    /// The version an `apiVersion` names, if it is one of this kind's.
    pub fn version_of(&self, api_version: &str) -> Option<&'static str> {
        let (group, version) = api_version.split_once('/')?;
        self.versions().find(|served| group == self.group && *served == version)
    }

    /// Its versions differ in more than their names, and objects are converted between them.
    pub fn is_converted(&self) -> bool {
        !self.also.is_empty() && self.kind != "StepAction"
    }
}

const fn kind(
    kind: &'static str,
    version: &'static str,
    also: &'static [&'static str],
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    runs: bool,
) -> Kind {
    Kind { group: crate::GROUP, kind, version, also, plural, singular, short_names, runs }
}

/// Every kind served.
pub const ALL: [Kind; 8] = [
    kind("Task", "v1", &["v1beta1"], "tasks", "task", &[], false),
    kind("TaskRun", "v1", &["v1beta1"], "taskruns", "taskrun", &["tr", "trs"], true),
    kind("Pipeline", "v1", &["v1beta1"], "pipelines", "pipeline", &[], false),
    kind("PipelineRun", "v1", &["v1beta1"], "pipelineruns", "pipelinerun", &["pr", "prs"], true),
    kind("StepAction", "v1beta1", &["v1alpha1"], "stepactions", "stepaction", &[], false),
    kind("CustomRun", "v1beta1", &[], "customruns", "customrun", &[], true),
    kind("VerificationPolicy", "v1alpha1", &[], "verificationpolicies", "verificationpolicy", &[], false),
    Kind {
        group: crate::RESOLUTION_GROUP,
        ..kind(
            "ResolutionRequest",
            "v1beta1",
            &["v1alpha1"],
            "resolutionrequests",
            "resolutionrequest",
            &[],
            false,
        )
    },
];

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.kind == name)
}

/// The kind of this name, if it is of the group that an `apiVersion` names.
pub fn find_in(api_version: &str, name: &str) -> Option<&'static Kind> {
    find(name).filter(|kind| Some(kind.group) == api_version.split_once('/').map(|(group, _)| group))
}

/// Whether any kind served is of this group.
pub fn is_group(group: &str) -> bool {
    ALL.iter().any(|kind| kind.group == group)
}
