//! What is forwarded on a node with firewalld, a real one with a bus of its own.

use std::fs;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use lab::probe::{must_not_reach, must_reach};
use lab::{Call, Daemon, Pod, Reply, peer, program};
use serde_json::{Value, json};

use crate::network::{Guest, NODE4, NODE6, Network, WORLD4, WORLD6, dual};

const PATIENCE: Duration = Duration::from_secs(30);
/// Who may call what: all.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
</policy></busconfig>"#;

/// A node with a bus, and firewalld once it was started.
struct Site {
    bus: Daemon,
    network: Network,
    world: Pod,
}

impl Site {
    fn new() -> Self {
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let conf = json!({"type": "ptp", "ipMasq": true, "ipMasqBackend": "nftables",
            "ipam": dual(&routes)});
        let network = Network::new(conf);
        let world = network.world();
        world.sh(&format!("ip route add default via {NODE4}; ip -6 route add default via {NODE6}"));
        let home = network.node.home();
        let (file, socket) = (home.join("bus.conf"), home.join("bus"));
        fs::write(&file, BUS.replace("SOCKET", &socket.display().to_string())).unwrap();
        let mut command = program(peer("firewalld/usr/bin/dbus-daemon"));
        command.arg(format!("--config-file={}", file.display())).args(["--nofork", "--nopidfile"]);
        let mut bus = Daemon::start("dbus-daemon", command, &network.node, home.join("bus.log"));
        bus.wait_until(PATIENCE, || socket.exists());
        Self { bus, network, world }
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.network.node.home().join("bus").display())
    }

    /// Starts firewalld, which is ready when it takes an address.
    fn start(&self) -> Daemon {
        let (program_file, home) = (peer("firewalld/usr/sbin/firewalld"), self.network.node.home());
        let root = program_file.ancestors().nth(3).expect("it is below the folder of peers");
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let system = home.join("firewalld");
        fs::create_dir_all(&system).unwrap();
        let mut command = program("/usr/bin/python3");
        command
            .arg(&program_file)
            .args(["--nofork", "--nopid", "--default-config"])
            .arg(root.join("usr/lib/firewalld"))
            .arg("--system-config")
            .arg(&system)
            .arg("--log-file")
            .arg(home.join("firewalld-own.log"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GI_TYPELIB_PATH", libraries.join("girepository-1.0"))
            .env("LD_LIBRARY_PATH", &libraries);
        let node = &self.network.node;
        let mut firewalld = Daemon::start("firewalld", command, node, home.join("firewalld.log"));
        let probe = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.77/32"}]});
        let call = |command| self.call(command, (&self.world, &probe), &json!("firewalld"));
        firewalld.wait_until(PATIENCE, || call("ADD").succeeded());
        let _ = call("DEL").ok();
        firewalld
    }

    fn call(&self, command: &str, (pod, result): (&Pod, &Value), backend: &Value) -> Reply {
        let conf = json!({"cniVersion": "1.1.0", "name": "net1", "type": "firewall", "backend": backend,
            "prevResult": result});
        let call = Call::new("firewall", command).container(pod.name()).netns(&pod.path());
        let call = call.conf(&conf).env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        call.run(&self.network.node, &self.network.podwire)
    }

    fn of(&self, command: &str, guest: &Guest, backend: &Value) -> Reply {
        self.call(command, (&guest.pod, &guest.result), backend)
    }

    /// The lines of its rules that name an address.
    fn lines_with(&self, address: &str) -> usize {
        let rules = self.network.node.sh("nft list table inet firewalld");
        rules.lines().filter(|line| line.contains(address)).count()
    }
}

#[test]
fn firewalld_lets_packets_pass() {
    let site = Site::new();
    let mut firewalld = site.start();
    // Also where it was not asked for: it runs.
    for backend in [json!("firewalld"), Value::Null] {
        let guest = site.network.guest("one");
        must_not_reach(&guest.pod, &site.world, WORLD4);
        let answer = site.of("ADD", &guest, &backend).ok();
        assert_eq!(answer["ips"], guest.result["ips"]);
        for address in [WORLD4, WORLD6] {
            let _ = must_reach(&guest.pod, &site.world, address);
        }
        let _ = site.of("CHECK", &guest, &backend).ok();
        // Once more is as good as once.
        let _ = site.of("ADD", &guest, &backend).ok();
        let _ = site.of("DEL", &guest, &backend).ok();
        assert_eq!(site.lines_with(&guest.v4) + site.lines_with(&guest.v6), 0);
        must_not_reach(&guest.pod, &site.world, WORLD6);
        let told = site.of("CHECK", &guest, &backend).expect_error(102);
        assert!(told.msg.contains("zone \"trusted\" of firewalld has no source"), "{}", told.msg);
        let _ = site.of("DEL", &guest, &backend).ok();
        site.network.leave(&guest);
    }
    // An address of another zone is not taken from it.
    let other = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.78/32"}]});
    let conf = json!({"cniVersion": "1.1.0", "name": "net1", "type": "firewall", "backend": "firewalld",
        "firewalldZone": "internal", "prevResult": other});
    let call = |command, conf: &Value| {
        let call = Call::new("firewall", command).container("x").netns(&site.world.path());
        let call = call.conf(conf).env("DBUS_SYSTEM_BUS_ADDRESS", site.address());
        call.run(&site.network.node, &site.network.podwire)
    };
    let _ = call("ADD", &conf).ok();
    let mut trusted = conf.clone();
    trusted["firewalldZone"] = json!("trusted");
    let told = call("ADD", &trusted).expect_error(103);
    assert!(told.msg.contains("ZONE_CONFLICT"), "{}", told.msg);
    let mut nowhere = conf.clone();
    nowhere["firewalldZone"] = json!("no-such-zone");
    let told = call("ADD", &nowhere).expect_error(103);
    assert!(told.msg.contains("INVALID_ZONE"), "{}", told.msg);
    let _ = call("CHECK", &conf).ok();
    let _ = call("DEL", &conf).ok();
    firewalld.terminate(PATIENCE);
    // What does not run has nothing to remove, and can serve nobody who asks for it.
    let _ = call("DEL", &conf).ok();
    call("ADD", &conf).expect_error(50);
    let _ = call("STATUS", &conf).ok();
    drop(site.bus);
}

/// A source does not tell whose it is: who has the address by now keeps it.
#[test]
fn what_comes_late_takes_no_source_of_others() {
    let site = Site::new();
    let firewalld = site.start();
    let result = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.78/32"}]});
    let conf = |backend: Value| {
        json!({"cniVersion": "1.0.0", "name": "net1", "type": "firewall", "backend": backend,
            "prevResult": result})
    };
    let call = |command, container, conf: &Value, bus: String| {
        let call = Call::new("firewall", command).container(container).netns(&site.world.path());
        let call = call.conf(conf).env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        call.run(&site.network.node, &site.network.podwire)
    };
    let by_firewalld = conf(json!("firewalld"));
    let run = |command, container| call(command, container, &by_firewalld, site.address());
    let leases = site.network.node.var_lib().join("cni/networks/net1");
    fs::create_dir_all(&leases).unwrap();
    let _ = run("ADD", "first").ok();
    fs::write(leases.join("192.0.2.78"), "second\r\neth0").unwrap();
    let _ = run("ADD", "second").ok();
    for backend in [json!("firewalld"), Value::Null] {
        let _ = call("DEL", "first", &conf(backend), site.address()).ok();
        let _ = run("CHECK", "second").ok();
    }
    // A bus that does not answer as it should hides whether firewalld has it.
    let socket = site.network.node.home().join("other-bus");
    let bus = UnixListener::bind(&socket).unwrap();
    let closes = thread::spawn(move || (0..2).for_each(|_| drop(bus.accept())));
    let other = || format!("unix:path={}", socket.display());
    call("DEL", "second", &by_firewalld, other()).expect_error(5);
    // Who did not ask for it may never have had it.
    let reply = call("DEL", "second", &conf(Value::Null), other());
    assert!(reply.succeeded() && reply.to_string().contains("cannot tell whether"), "{reply}");
    closes.join().unwrap();
    assert_ne!(site.lines_with("192.0.2.78"), 0);
    let _ = run("DEL", "second").ok();
    assert_eq!(site.lines_with("192.0.2.78"), 0);
    // While the container has the address, a lease that tells otherwise is of before.
    fs::write(leases.join(WORLD4), "of-before\r\neth0").unwrap();
    let mut own = by_firewalld.clone();
    own["prevResult"]["ips"][0]["address"] = json!(format!("{WORLD4}/32"));
    for (command, lines) in [("ADD", 1), ("DEL", 0)] {
        let _ = call(command, "third", &own, site.address()).ok();
        assert_eq!(site.lines_with(WORLD4).min(1), lines, "{command}");
    }
    drop(firewalld);
}

/// A container that came while firewalld did not run is let pass by rules, and goes while it runs.
#[test]
fn a_container_of_before_firewalld_goes_as_it_came() {
    let site = Site::new();
    let guest = site.network.guest("one");
    site.network.node.sh("nft add table inet mine; nft 'add chain inet mine f { type filter hook forward priority 0; policy drop; }'");
    let _ = site.of("ADD", &guest, &Value::Null).ok();
    let _ = must_reach(&guest.pod, &site.world, WORLD4);
    let firewalld = site.start();
    let rules = || site.network.node.sh("nft list table inet mine");
    assert!(rules().contains("id: one"), "{}", rules());
    let _ = site.of("DEL", &guest, &Value::Null).ok();
    assert!(!rules().contains("id: one"), "{}", rules());
    drop(firewalld);
    site.network.leave(&guest);
}
