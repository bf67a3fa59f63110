//! The names of topologies, tasks and labels: one type for each, so that none is taken for another.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name in bytes: Kubernetes refuses longer DNS labels, and every name becomes one.
pub const NAME_LENGTH_MAX: usize = 63;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes over a text that the name pass has already accepted.
            pub(crate) fn accepted(text: &str) -> Self {
                Self(text.into())
            }

            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, out)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    };
}

name! {
    /// The name of a topology: `[a-z][a-z0-9-]*`, at most [`NAME_LENGTH_MAX`] bytes, unique among all binaries of the project.
    TopologyName
}

name! {
    /// The name of a task: `[a-z][a-z0-9-]*`, at most [`NAME_LENGTH_MAX`] bytes, unique among all binaries of the project.
    TaskName
}

name! {
    /// A label on an edge: `[a-z][a-z0-9-]*`, at most [`NAME_LENGTH_MAX`] bytes; the kebab-case of a variant of what the task gives.
    Label
}
