//! A client of the API server.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::NamespaceResourceScope;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use crate::{ANSWER, Attempt, Error, Object};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// An idle connection is asked after this long whether its other end still lives ...
const KEEPALIVE: Duration = Duration::from_secs(15);

/// ... and so often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// ... until this many questions were not answered.
const KEEPALIVE_RETRIES: u32 = 3;

/// Data that is sent has to be acknowledged within this time.
const ACKNOWLEDGED: Duration = Duration::from_secs(30);

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
    match timeout(ANSWER, api.get_opt(name)).await {
        Ok(answer) => answer.map_err(|error| Error::request(Attempt::Get, objects, error)),
        Err(_elapsed) => {
            Err(Error::Silence { attempt: Attempt::Get, objects, seconds: ANSWER.as_secs() })
        }
    }
}
