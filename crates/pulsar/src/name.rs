//! Names of topics: `persistent://TENANT/NAMESPACE/NAME` is the broker's topic `NAME`, in the one namespace that is served.

use crate::wire::proto::ServerError;

/// The one namespace that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    tenant: String,
    namespace: String,
}

impl Default for Namespace {
    /// `public/default`, which Pulsar's clients take for a short name.
    fn default() -> Self {
        Self::new("public", "default")
    }
}

/// Why a name is not served, with Pulsar's own code for it.
pub(crate) type NameError = (ServerError, String);

/// The most bytes of a name, as the broker has it.
const NAME_BYTES_MAX: usize = 255;

impl Namespace {
    /// A namespace of a tenant.
    pub fn new(tenant: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), namespace: namespace.into() }
    }

    /// Whether this is `TENANT/NAMESPACE`.
    pub(crate) fn is(&self, name: &str) -> bool {
        name.split_once('/') == Some((&self.tenant, &self.namespace))
    }

    /// The tenant.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// `TENANT/NAMESPACE`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.tenant, self.namespace)
    }

    /// The full name of a topic.
    pub(crate) fn full(&self, topic: &str) -> String {
        format!("persistent://{}/{}/{topic}", self.tenant, self.namespace)
    }

    /// The broker's topic for a full or short name.
    pub(crate) fn topic<'a>(&self, name: &'a str) -> Result<&'a str, NameError> {
        let invalid = |why: &str| (ServerError::InvalidTopicName, format!("topic `{name}`: {why}"));
        let local = match name.split_once("://") {
            None if !name.contains('/') => name,
            Some(("persistent", path)) => {
                let parts: Vec<&str> = path.split('/').collect();
                match parts[..] {
                    [tenant, namespace, local] if tenant == self.tenant && namespace == self.namespace => local,
                    [_, _, _] => {
                        let text = format!("topic `{name}`: only `{}/{}` is served here", self.tenant, self.namespace);
                        return Err((ServerError::TopicNotFound, text));
                    }
                    _ => return Err(invalid("it is not `persistent://TENANT/NAMESPACE/NAME`")),
                }
            }
            Some(("non-persistent", _)) => {
                return Err((ServerError::NotAllowed, format!("topic `{name}`: all topics here are persistent")));
            }
            _ => return Err(invalid("it is not `persistent://TENANT/NAMESPACE/NAME`")),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if local.is_empty() || local.len() > NAME_BYTES_MAX || !local.bytes().all(allowed) {
            // Pulsar would take it. Some clients try an invalid name again for half a minute, and what is not allowed not at all.
            let text = format!("topic `{name}`: a name is 1 to {NAME_BYTES_MAX} characters of `A-Za-z0-9._-` here");
            return Err((ServerError::NotAllowed, text));
        }
        if is_partition(local) {
            return Err((ServerError::TopicNotFound, format!("topic `{name}`: no topic is partitioned here")));
        }
        Ok(local)
    }
}

/// `NAME-partition-3` is a part of a partitioned topic to every client.
fn is_partition(local: &str) -> bool {
    local.rsplit_once("-partition-").is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_brokers_or_refused_with_pulsars_code() {
        let namespace = Namespace::default();
        for (name, expected) in [
            ("persistent://public/default/orders", Ok("orders")),
            ("orders", Ok("orders")),
            ("persistent://public/default/a.b_c-D9", Ok("a.b_c-D9")),
            ("persistent://public/default/x-partition-", Ok("x-partition-")),
            ("persistent://public/other/orders", Err(ServerError::TopicNotFound)),
            ("persistent://public/default/x-partition-0", Err(ServerError::TopicNotFound)),
            ("non-persistent://public/default/orders", Err(ServerError::NotAllowed)),
            ("persistent://public/cluster/default/orders", Err(ServerError::InvalidTopicName)),
            ("persistent://public/default/", Err(ServerError::NotAllowed)),
            ("persistent://public/default/a b", Err(ServerError::NotAllowed)),
            ("public/default/orders", Err(ServerError::InvalidTopicName)),
            ("http://public/default/orders", Err(ServerError::InvalidTopicName)),
            ("", Err(ServerError::NotAllowed)),
        ] {
            assert_eq!(namespace.topic(name).map_err(|(code, _)| code), expected, "{name}");
        }
        assert!(namespace.is("public/default") && !namespace.is("public/default/") && !namespace.is("public"));
    }
}
