"""A server's life with the official Hetzner client (PyPI `hcloud`), on its typed values.

Usage: python3 hcloud_story.py URL TOKEN
"""

import sys

from hcloud import APIException, Client
from hcloud.firewalls.domain import FirewallResource, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " test"


def refused(code, call):
    try:
        call()
    except APIException as error:
        assert error.code == code, (error.code, error.message)
        assert error.correlation_id
    else:
        raise AssertionError(f"{code} was expected")


client = Client(token=sys.argv[2], api_endpoint=sys.argv[1], poll_interval=0.01, poll_max_retries=3000)
order = {"server_type": ServerType(name="cax11"), "image": Image(name="debian-13")}

key = client.ssh_keys.create(name="k", public_key=PUBLIC_KEY)
assert client.ssh_keys.get_by_fingerprint(key.fingerprint).id == key.id
rule = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["0.0.0.0/0", "::/0"])
firewall = client.firewalls.create(name="fw", rules=[rule]).firewall

made = client.servers.create(
    name="a", location=Location(name="fsn1"), ssh_keys=[key], labels={"vmkit.io/op": "1"},
    user_data="#cloud-config\n", **order,
)
assert made.server.status == "initializing" and made.root_password is None
assert [action.command for action in made.next_actions] == ["start_server"]
for action in [made.action, *made.next_actions]:
    action.wait_until_finished()
[server] = client.servers.get_all(label_selector="vmkit.io/op=1")
assert (server.status, server.server_type.architecture, server.location.name) == ("running", "arm", "fsn1")
assert server.public_net.ipv4.ip.startswith("127.77.") and server.public_net.ipv6.ip.endswith("::/64")
assert client.servers.get_by_name("a").id == server.id

refused("uniqueness_error", lambda: client.servers.create(name="a", **order))
refused("invalid_input", lambda: client.servers.create(name="no name", **order))
refused("server_not_stopped", lambda: server.change_type(ServerType(name="cax21"), upgrade_disk=False))
server.power_off().wait_until_finished()
assert client.servers.get_by_id(server.id).status == "off"
server.change_type(ServerType(name="cax21"), upgrade_disk=False).wait_until_finished()
for act in (server.power_on, server.reboot, server.reset, server.shutdown):
    act().wait_until_finished()
server.rebuild(Image(name="debian-12")).action.wait_until_finished()

for action in firewall.apply_to_resources([FirewallResource(type="server", server=server)]):
    action.wait_until_finished()
[applied] = client.servers.get_by_id(server.id).public_net.firewalls
assert (applied.firewall.id, applied.status) == (firewall.id, "applied")
refused("resource_in_use", firewall.delete)

assert len(client.server_types.get_all()) == 25
assert client.images.get_by_name_and_architecture("debian-13", "arm").architecture == "arm"
assert [location.name for location in client.locations.get_all()][:3] == ["fsn1", "nbg1", "hel1"]
refused("deprecated_api_endpoint", client.datacenters.get_all)

server.delete().wait_until_finished()
firewall.delete()
key.delete()
assert not client.servers.get_all() and not client.primary_ips.get_all()
print("ok")
