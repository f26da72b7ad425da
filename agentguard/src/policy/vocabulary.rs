//! The fixed words of a manifest.

use std::fmt;

/// Defines an enum whose variants have exactly one spelling each in a manifest.
macro_rules! keywords {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order in which the documentation lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The spelling in a manifest.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The variant with this exact spelling.
            #[must_use]
            pub fn from_keyword(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|item| item.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

keywords! {
    /// What a permission is about.
    Verb {
        /// Opening a file for reading, listing a directory, reading a link.
        Read = "read",
        /// Changing the content of a file that exists.
        Write = "write",
        /// Making a new name.
        Create = "create",
        /// Removing a name.
        Delete = "delete",
        /// Changing mode, owner, times or extended attributes.
        Attributes = "attributes",
        /// Executing a program.
        Exec = "exec",
        /// Connecting or sending to an address.
        Connect = "connect",
        /// Binding to an address to be reached on.
        Listen = "listen",
    }
}

impl Verb {
    /// Whether the verb's rules are network rules; the others' are path rules.
    #[must_use]
    pub const fn is_network(self) -> bool {
        matches!(self, Self::Connect | Self::Listen)
    }

    /// The verdict where no rule matches and the manifest names no default.
    #[must_use]
    pub const fn built_in_default(self) -> Verdict {
        match self {
            Self::Read | Self::Exec => Verdict::Allow,
            _ => Verdict::Deny,
        }
    }
}

keywords! {
    /// What is decided about an operation. The order is the strictness: where
    /// several rules match, the greatest verdict wins.
    Verdict {
        /// It may happen.
        Allow = "allow",
        /// It is held until a person decides.
        Ask = "ask",
        /// It is refused.
        Deny = "deny",
    }
}

keywords! {
    /// Where an agent runs. The same name in two environments is two identities.
    Environment {
        /// For trying things out.
        Development = "development",
        /// Like production, without its data.
        Staging = "staging",
        /// The real thing.
        Production = "production",
    }
}

keywords! {
    /// In whose right an agent acts.
    Authority {
        /// In its own.
        Service = "service",
        /// In a person's, who must be named when a run starts.
        Delegated = "delegated",
    }
}

keywords! {
    /// Whether verdicts bind.
    Mode {
        /// Decide and record, never block.
        Observe = "observe",
        /// Decide, record and block.
        Enforce = "enforce",
    }
}

keywords! {
    /// What happens to a run that reaches one of its limits.
    OnLimit {
        /// Every process of the run stops until an operator resumes it.
        Pause = "pause",
        /// The run's rights end; its processes live on and are refused everything.
        Revoke = "revoke",
        /// Every process of the run is killed.
        Kill = "kill",
    }
}

keywords! {
    /// What is denied to every agent unless its manifest allows it by name.
    Privilege {
        /// Tracing or reading the memory of processes outside the run.
        PtraceOutside = "ptrace-outside",
        /// Signalling processes outside the run.
        SignalOutside = "signal-outside",
        /// Mounting and unmounting.
        Mount = "mount",
        /// Making or entering namespaces.
        Namespaces = "namespaces",
        /// The bpf system call and performance events.
        Bpf = "bpf",
        /// Loading and unloading kernel modules.
        Modules = "modules",
        /// Raw and packet sockets.
        RawSockets = "raw-sockets",
        /// Writing below sysfs, procfs or cgroupfs.
        KernelSettings = "kernel-settings",
        /// Opening device files beyond the harmless ones.
        Devices = "devices",
        /// Changing what starts by itself later: cron, units, shell start-up files.
        Persistence = "persistence",
        /// Asking an untagged service to act: docker, systemd, D-Bus, at, cron.
        Handoff = "handoff",
        /// Executing setuid, setgid or file-capability programs.
        Setuid = "setuid",
    }
}
