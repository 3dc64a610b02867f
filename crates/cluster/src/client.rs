//! A client of the API server.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use crate::{ANSWER, Attempt, Error};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// An idle connection is asked after this long whether its other end still lives ...
const KEEPALIVE: Duration = Duration::from_secs(15);

/// ... and so often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// ... until this many questions were not answered.
const KEEPALIVE_RETRIES: u32 = 3;

/// Status codes of HTTP.
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Data that is sent has to be acknowledged within this time.
const ACKNOWLEDGED: Duration = Duration::from_secs(30);

/// A kind of objects that the program knows.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

/// A client that is configured by a kubeconfig file, or by the pod's own service account where
/// there is none. Nothing is asked of the server yet.
///
/// A watch is silent while nothing changes. So that a server, or a load balancer before it, that
/// has gone without a word is missed in 30 s rather than in five minutes, the kernel asks for it.
///
/// # Errors
/// When the configuration is not there or cannot be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let config = match kubeconfig {
        None => Config::incluster().map_err(|source| Error::InCluster { source })?,
        Some(file) => from_file(file)
            .await
            .map_err(|source| Error::Kubeconfig { file: file.to_owned(), source })?,
    };
    client(config).map_err(|source| Error::Client { source: Box::new(source) })
}

async fn from_file(file: &Path) -> Result<Config, kube::config::KubeconfigError> {
    let content = Kubeconfig::read_from(file)?;
    Config::from_custom_kubeconfig(content, &KubeConfigOptions::default()).await
}

fn client(config: Config) -> Result<Client, kube::Error> {
    if let Some(proxy_url) = config.proxy_url {
        return Err(kube::Error::ProxyProtocolUnsupported { proxy_url: Box::new(proxy_url) });
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    connector.set_tcp_user_timeout(Some(ACKNOWLEDGED));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// One object, as it is now; `None`: there is none of that name.
///
/// # Errors
/// When the server refuses, or does not answer within a minute.
pub async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let objects = format!("{} {namespace}/{name}", K::plural(&()));
    let api = Api::<K>::namespaced(client.clone(), namespace);
    answer(Attempt::Get, objects, api.get_opt(name)).await
}

/// Creates an object. Tells whether it did: `false` where there is one of that name.
///
/// # Errors
/// When the server refuses for another reason, or does not answer within a minute.
pub async fn create<K>(client: &Client, namespace: &str, object: &K) -> Result<bool, Error>
where
    K: Object + Resource<Scope = NamespaceResourceScope> + Serialize,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    let objects = format!("{} {namespace}/{name}", K::plural(&()));
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let created = async { unless(api.create(&PostParams::default(), object).await, CONFLICT) };
    answer(Attempt::Create, objects, created).await
}

/// Changes some fields of an object by a JSON merge patch (RFC 7396). Tells whether it did:
/// `false` where there is none of that name.
///
/// # Errors
/// When the server refuses for another reason, or does not answer within a minute.
pub async fn patch<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    fields: &Value,
) -> Result<bool, Error>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let objects = format!("{} {namespace}/{name}", K::plural(&()));
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(fields);
    let patched =
        async { unless(api.patch(name, &PatchParams::default(), &patch).await, NOT_FOUND) };
    answer(Attempt::Patch, objects, patched).await
}

/// Deletes an object; what belongs to it goes after it. Tells whether it did: `false` where there is
/// none of that name.
///
/// # Errors
/// When the server refuses for another reason, or does not answer within a minute.
pub async fn delete<K>(client: &Client, namespace: &str, name: &str) -> Result<bool, Error>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let objects = format!("{} {namespace}/{name}", K::plural(&()));
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let deleted = async { unless(api.delete(name, &DeleteParams::background()).await, NOT_FOUND) };
    answer(Attempt::Delete, objects, deleted).await
}

/// The answer to a request, when it comes in time.
async fn answer<T>(
    attempt: Attempt,
    objects: String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|error| Error::request(attempt, objects, error)),
        Err(_elapsed) => Err(Error::Silence { attempt, objects, seconds: ANSWER.as_secs() }),
    }
}

/// Whether it was done; not where the server answers with the status `code`.
fn unless<T>(answer: Result<T, kube::Error>, code: u16) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == code => Ok(false),
        Err(error) => Err(error),
    }
}
