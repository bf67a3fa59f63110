//! Buckets of S3-compatible stores, and containers of Azure.

use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    path::Path as Key,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use url::Url;

/// How often a request is tried again that the store was too busy for, or could not be reached for. Whoever asked tries again after that, from the beginning.
const RETRIES_MAX: usize = 6;

/// How long all tries of a request may take: well within what a job may take to settle beyond its worker's time.
const RETRY_TIME_MAX: Duration = Duration::from_secs(20);

/// The longest wait between two of them.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(4);

/// Opens a bucket or a container. Who asks comes from the environment, as the providers' own tools have it, and options go over that.
pub(super) fn open(url: &Url, options: &BTreeMap<String, String>) -> Result<(Arc<dyn ObjectStore>, Key), object_store::Error> {
    // Only the first one that is named becomes the process's, and whichever that is, it can do this.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIME_MAX,
        backoff: BackoffConfig { max_backoff: RETRY_WAIT_MAX, ..BackoffConfig::default() },
    };
    let objects: Arc<dyn ObjectStore> = if scheme == ObjectStoreScheme::AmazonS3 {
        let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
        for (name, value) in options {
            builder = builder.with_config(name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()?, value);
        }
        Arc::new(builder.build()?)
    } else {
        let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry);
        for (name, value) in options {
            builder = builder.with_config(name.to_ascii_lowercase().parse::<AzureConfigKey>()?, value);
        }
        Arc::new(builder.build()?)
    };
    Ok((objects, path))
}
