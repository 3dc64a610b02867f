//! One wire for several nodes.

use crate::node::{Node, Pod};

/// A switch in a namespace of its own. The node of number 3 gets the addresses `192.0.2.3` and
/// `2001:db8::3` on its link `eth0`.
#[derive(Debug)]
pub struct Switch(Pod);

impl Switch {
    /// A switch with these nodes, counted from 1.
    #[must_use]
    pub fn of(nodes: &[&Node]) -> Self {
        let switch = Self(nodes.first().expect("a node").pod("switch"));
        switch.0.sh("ip link add br0 type bridge; ip link set br0 up");
        nodes.iter().zip(1..).for_each(|(node, number)| switch.plug(node, number));
        switch
    }

    fn plug(&self, node: &Node, number: usize) {
        node.sh(&format!(
            "ip link add eth0 mtu 1400 type veth peer name port{number} mtu 1400 netns {};
             ip link set eth0 up
             ip addr add 192.0.2.{number}/24 dev eth0
             ip addr add 2001:db8::{number}/64 dev eth0 nodad",
            self.0.path().display()
        ));
        self.0.sh(&format!("ip link set port{number} master br0 up"));
    }
}
