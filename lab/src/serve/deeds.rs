//! What can be done to a backend of the show, and how it is afterwards.

/// What a slow backend waits before it answers.
const SLOW: &str = "200ms";

/// What can be done to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// SIGKILL; it stays listed.
    Kill,
    /// SIGSTOP.
    Hang,
    /// SIGCONT.
    Resume,
    /// Starts one that was killed, or one that runs anew.
    Restart,
    /// Starts it anew; it waits before each answer.
    Slow,
    /// Starts it anew; each of its calls fails.
    Fail,
    /// Starts it anew; it ends its connections with calls on them.
    Cut,
    /// Deletes it as a pod is deleted: with drain.
    Delete,
}

/// How a backend is, by what was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Serves,
    Slow,
    Fails,
    Cuts,
    Hangs,
    Dead,
}

/// Settings of a greeter, by the names of services/greeter/README.md.
type Settings = &'static [(&'static str, &'static str)];

impl Deed {
    /// What a path names.
    pub(super) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "kill" => Self::Kill,
            "hang" => Self::Hang,
            "resume" => Self::Resume,
            "restart" => Self::Restart,
            "slow" => Self::Slow,
            "fail" => Self::Fail,
            "cut" => Self::Cut,
            "delete" => Self::Delete,
            _ => return None,
        })
    }

    /// A sentence for the marks.
    pub(super) fn words(self, ip: &str) -> String {
        match self {
            Self::Kill => format!("kill -9 of {ip}"),
            Self::Hang => format!("SIGSTOP of {ip}"),
            Self::Resume => format!("SIGCONT of {ip}"),
            Self::Restart => format!("{ip} starts again"),
            Self::Slow => format!("{ip} starts again and waits {SLOW} before each answer"),
            Self::Fail => format!("{ip} starts again and fails each call"),
            Self::Cut => format!("{ip} starts again and cuts its calls each second"),
            Self::Delete => format!("{ip} is deleted"),
        }
    }

    /// How a backend is after a start by this deed, and the settings that make it so.
    pub(super) fn starts(self) -> Option<(Condition, Settings)> {
        Some(match self {
            Self::Restart => (Condition::Serves, &[]),
            Self::Slow => (Condition::Slow, &[("GREETER_DELAY", SLOW)]),
            Self::Fail => (Condition::Fails, &[("GREETER_ERROR_RATE", "1")]),
            // A grace that is too short for calls of three seconds.
            Self::Cut => (
                Condition::Cuts,
                &[
                    ("GREETER_DELAY", "3s"),
                    ("GRPC_MAX_CONNECTION_AGE", "1s"),
                    ("GRPC_MAX_CONNECTION_AGE_GRACE", "100ms"),
                ],
            ),
            Self::Kill | Self::Hang | Self::Resume | Self::Delete => return None,
        })
    }
}

impl Condition {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Slow => "slow",
            Self::Fails => "fails",
            Self::Cuts => "cuts calls",
            Self::Hangs => "hangs",
            Self::Dead => "dead",
        }
    }
}
