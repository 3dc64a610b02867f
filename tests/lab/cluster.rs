//! A control plane: etcd and kube-apiserver, without controllers and kubelets. Tests make the
//! objects that those would make.

mod etcd;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, Request};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use testbed::arguments;
use tokio::runtime::{Builder, Runtime};

pub use self::etcd::Version;
use crate::daemon::Daemon;
use crate::process::program;
use crate::space::Space;
use crate::suite::peer;

/// Where the API server listens, in the namespace that the cluster was started in ...
const PORT: u16 = 6443;

/// ... and where it does while only the test is to reach it.
const HIDDEN: u16 = 6444;

/// The API server may take this long to start: alone it needs three seconds.
const START: Duration = Duration::from_secs(90);

/// A request may take this long.
const REQUEST: Duration = Duration::from_secs(20);

/// As many objects are created at once.
const AT_ONCE: usize = 32;

/// The control plane of a cluster, until it is dropped. It ends with the thread that started it.
pub struct Cluster<'a> {
    space: &'a Space,
    server: Daemon,
    _etcd: Daemon,
    // Dropped after the daemons, which show their logs in it.
    home: TempDir,
    runtime: Runtime,
    client: Client,
}

impl<'a> Cluster<'a> {
    /// Starts one inside `space`, and waits until it is ready. Objects are stored by that version
    /// of etcd.
    ///
    /// There are the users `admin`, who may do everything, and `agent` and `nobody`, who may
    /// nothing until the test allows it.
    #[must_use]
    pub fn start(space: &'a Space, version: Version) -> Self {
        let home = tempfile::tempdir().expect("cannot make a temporary directory");
        let path = home.path().join("tokens");
        let tokens = "admin,admin,1,system:masters\nagent,agent,2\nnobody,nobody,3\n";
        fs::write(path, tokens).expect("cannot write a file");
        let etcd = etcd::start(space, version, home.path());
        let runtime = Builder::new_current_thread().enable_all().build().expect("no runtime");
        let server = serve(space, &home, PORT);
        let client = client(space, &runtime, PORT);
        let mut cluster = Self { space, home, server, _etcd: etcd, runtime, client };
        cluster.wait_until_ready();
        cluster
    }

    /// A kubeconfig file of a user.
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "users": [{"name": user, "user": {"token": user}}],
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://127.0.0.1:{PORT}"),
                "certificate-authority": self.home.path().join("certs/apiserver.crt"),
            }}],
        });
        self.kubeconfig_file(user, &content)
    }

    /// Writes it at once: those who were given it before may be reading it.
    fn kubeconfig_file(&self, name: &str, content: &Value) -> PathBuf {
        let draft = NamedTempFile::new_in(&self.home).expect("cannot make a file");
        fs::write(draft.path(), content.to_string()).expect("cannot write a file");
        let file = self.home.path().join(format!("kubeconfig-{name}"));
        draft.persist(&file).expect("cannot rename a file");
        file
    }

    /// The same for one who reaches the API server by another address than its own loopback's,
    /// which its certificate does not name.
    #[must_use]
    pub fn kubeconfig_at(&self, user: &str, address: IpAddr) -> PathBuf {
        let content = fs::read(self.kubeconfig(user)).expect("it was just written");
        let mut content: Value = serde_json::from_slice(&content).expect("it was just written");
        content["clusters"][0]["cluster"] = json!({"server": format!("https://{address}:{PORT}"), "insecure-skip-tls-verify": true});
        self.kubeconfig_file(&format!("{user}-{address}"), &content)
    }

    /// Creates new objects, many at once, and sets the status of those that have one.
    pub fn create_all(&self, objects: &[Value]) {
        let writes = objects.iter().map(|object| async move {
            let path = path(object);
            let collection = path.rsplit_once('/').unwrap().0.to_owned();
            self.ask("POST", &collection, "json", object.to_string().into_bytes()).await?;
            if !object["status"].is_null() {
                let patch = json!({"status": object["status"]}).to_string().into_bytes();
                self.ask("PATCH", &(path + "/status"), "merge-patch+json", patch).await?;
            }
            Ok::<_, String>(())
        });
        let all = stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>();
        let done = self.space.enter(|| self.runtime.block_on(all));
        done.unwrap_or_else(|error| panic!("cannot create an object: {error}"));
    }

    /// Writes objects into the store, at these keys, as the server would have written them. To create a service the server looks
    /// at all that there are (`Allocator.Used`): of tens of thousands the last ones take a second each.
    pub fn store(&self, entries: &[(String, Value)]) {
        self.space.enter(|| etcd::put(entries));
    }

    /// Creates an object, and a second time replaces it. Its status is not part of that.
    pub fn apply(&self, object: &Value) -> Value {
        let path = path(object);
        let existing = self.try_request("GET", &path, &Value::Null);
        match existing {
            Err(_) => self.request("POST", path.rsplit_once('/').unwrap().0, object),
            Ok(existing) => {
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] =
                    existing["metadata"]["resourceVersion"].clone();
                self.request("PUT", &path, &object)
            }
        }
    }

    /// Changes some fields of an object: a JSON merge patch.
    pub fn patch(&self, object: &Value, patch: &Value) -> Value {
        self.request("PATCH", &path(object), patch)
    }

    /// Changes its status, as a kubelet does.
    pub fn set_status(&self, object: &Value, status: &Value) -> Value {
        let path = path(object) + "/status";
        self.request("PATCH", &path, &json!({"status": status}))
    }

    /// Deletes an object, at once.
    pub fn delete(&self, object: &Value) {
        self.request("DELETE", &path(object), &json!({"gracePeriodSeconds": 0}));
    }

    /// Lets a user do these verbs with these resources, such as `["pods"]` and
    /// `["networking.k8s.io/networkpolicies"]`.
    pub fn allow(&self, user: &str, verbs: &[&str], resources: &[&str]) {
        let rule = |resource: &&str| {
            let (group, resource) = resource.split_once('/').unwrap_or(("", resource));
            json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
        };
        let rules: Vec<_> = resources.iter().map(rule).collect();
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        self.apply(&json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": user},
            "rules": rules,
        }));
        self.apply(&json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }));
    }

    /// Kills the API server.
    pub fn stop_server(&mut self) {
        self.server.kill();
    }

    /// Has the API server answer nobody until it is [resumed](Self::resume_server); connections to it stay.
    pub fn pause_server(&self) {
        self.server.pause();
    }

    /// Has it go on.
    pub fn resume_server(&self) {
        self.server.resume();
    }

    /// Starts it again, and waits until it is ready.
    pub fn start_server(&mut self) {
        self.serve_at(PORT);
    }

    /// Starts it again where those that knew it do not find it, and waits until it is ready.
    pub fn start_hidden_server(&mut self) {
        self.serve_at(HIDDEN);
    }

    fn serve_at(&mut self, port: u16) {
        self.server = serve(self.space, &self.home, port);
        self.client = client(self.space, &self.runtime, port);
        self.wait_until_ready();
    }

    /// Makes etcd forget what was before now: nobody can ask for the changes since then any more.
    pub fn compact(&self) {
        self.space.enter(etcd::compact);
    }

    /// Creates the object of a YAML document in the collection at `path`, strictly: an unknown or
    /// doubled field is a refusal, which fails the test. Returns what the API server made of it.
    pub fn create_yaml(&self, path: &str, document: &str) -> Value {
        let uri =
            format!("{path}{}fieldValidation=Strict", if path.contains('?') { '&' } else { '?' });
        let answer = self.send("POST", &uri, "yaml", document.as_bytes().to_vec());
        answer.unwrap_or_else(|error| panic!("POST {uri}: {error}\n{document}"))
    }

    /// The files that a pod of this service account finds: `token`, `ca.crt` and `namespace`. They
    /// go where `folder` says.
    pub fn grant(&self, namespace: &str, account: &str, folder: &Path) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": ["https://kubernetes.default.svc"]}});
        let answer = self.request("POST", &path, &asked);
        let token = answer["status"]["token"].as_str().expect("a token");
        fs::create_dir_all(folder).expect("cannot make a directory");
        for (name, content) in [("token", token), ("namespace", namespace)] {
            fs::write(folder.join(name), content).expect("cannot write a file");
        }
        let authority = self.home.path().join("certs/apiserver.crt");
        fs::copy(authority, folder.join("ca.crt")).expect("the API server has a certificate");
    }

    /// Asks the API server as `admin`; a refusal fails the test.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_request(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    /// Asks the API server as `admin`.
    ///
    /// # Errors
    /// What the server says when it refuses.
    pub fn try_request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        let content = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, kind, content)
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        content: Vec<u8>,
    ) -> Result<Value, String> {
        self.space.enter(|| self.runtime.block_on(self.ask(method, path, kind, content)))
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        content: Vec<u8>,
    ) -> Result<Value, String> {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .header("content-type", format!("application/{kind}"))
            .header("accept", "application/json")
            .uri(path)
            .body(content)
            .unwrap();
        let answer = tokio::time::timeout(REQUEST, self.client.request::<Value>(request)).await;
        answer.map_err(|elapsed| elapsed.to_string())?.map_err(|error| error.to_string())
    }

    fn wait_until_ready(&mut self) {
        let Self { space, runtime, client, server, .. } = self;
        let request = || Request::get("/readyz").body(Vec::new()).unwrap();
        server.wait_until(START, || {
            let ask = async {
                let answer = client.request_text(request());
                tokio::time::timeout(REQUEST, answer).await
            };
            let answer = space.enter(|| runtime.block_on(ask));
            answer.is_ok_and(|answer| answer.is_ok_and(|text| text == "ok"))
        });
    }
}

/// A client of the user `admin`. It trusts any server: there is none yet that has a certificate.
fn client(space: &Space, runtime: &Runtime, port: u16) -> Client {
    let url = format!("https://127.0.0.1:{port}").parse().unwrap();
    let mut config = kube::Config::new(url);
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.auth_info.token = Some("admin".to_owned().into());
    let client = space.enter(|| runtime.block_on(async { Client::try_from(config) }));
    client.expect("a client needs nothing of the machine")
}

fn serve(space: &Space, home: &TempDir, port: u16) -> Daemon {
    let mut command: Command = program(peer("kube-apiserver"));
    command.args(arguments::api_server(home.path(), port));
    command.args([
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        // As every cluster that kubeadm makes.
        "--allow-privileged=true",
        // There is no controller that would make the accounts.
        "--disable-admission-plugins=ServiceAccount",
        // A namespace has no address but these: nothing is advertised.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        // As a cluster that was not always of this release has them.
        "--feature-gates=StrictIPCIDRValidation=false",
    ]);
    Daemon::start("kube-apiserver", command, space, home.path().join("kube-apiserver.log"))
}

/// Where an object is in the API.
#[must_use]
pub fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let prefix = if version.contains('/') { "apis" } else { "api" };
    let (resource, namespaced) = match text(&object["kind"]).as_str() {
        "Pod" => ("pods", true),
        "Service" => ("services", true),
        "EndpointSlice" => ("endpointslices", true),
        "NetworkPolicy" => ("networkpolicies", true),
        "Namespace" => ("namespaces", false),
        "Node" => ("nodes", false),
        "ClusterRole" => ("clusterroles", false),
        "ClusterRoleBinding" => ("clusterrolebindings", false),
        other => panic!("the lab does not know where the API has {other}"),
    };
    let name = text(&object["metadata"]["name"]);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) if namespaced => {
            format!("/{prefix}/{version}/namespaces/{namespace}/{resource}/{name}")
        }
        None if !namespaced => format!("/{prefix}/{version}/{resource}/{name}"),
        _ => panic!("a namespace is missing, or too much: {object}"),
    }
}
