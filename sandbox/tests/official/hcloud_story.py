"""A server's life with the official Hetzner client (PyPI `hcloud`), on its typed values.

Usage: python3 hcloud_story.py URL TOKEN ADMIN_URL
"""

import json
import sys
import urllib.request

from hcloud import APIException, Client
from hcloud.firewalls.domain import FirewallResource, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers.domain import ServerCreatePublicNetwork

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " test"
MANY = 120
# Faults that stand in front of the simulator have no correlation id.
FAULTS = {
    400: "json_error", 401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict",
    412: "resource_unavailable", 423: "locked", 500: "server_error", 502: "bad_gateway", 503: "unavailable",
    504: "timeout",
}
PLANTED = {"rate_limit_exceeded", *FAULTS.values()}


def refused(code, call):
    try:
        call()
    except APIException as error:
        assert error.code == code, (error.code, error.message)
        assert error.correlation_id or code in PLANTED
    else:
        raise AssertionError(f"{code} was expected")


def admin(path, body, method="POST"):
    """The simulator's side door, past the client."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{sys.argv[3]}/_sandbox/{path}", data=data, method=method,
        headers={"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request).read()


def done(*actions):
    for action in actions:
        action.wait_until_finished()
        assert action.status == "success" and action.progress == 100, action.status


client = Client(token=sys.argv[2], api_endpoint=sys.argv[1], poll_interval=0.01, poll_max_retries=3000)
here = Location(name="fsn1")
order = {"server_type": ServerType(name="cax11"), "image": Image(name="debian-13")}

key = client.ssh_keys.create(name="k", public_key=PUBLIC_KEY)
assert client.ssh_keys.get_by_fingerprint(key.fingerprint).id == key.id
rule = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["0.0.0.0/0", "::/0"])
firewall = client.firewalls.create(name="fw", rules=[rule]).firewall

# --- create, list, label, rename

made = client.servers.create(
    name="a", location=here, ssh_keys=[key], labels={"vmkit.io/op": "1"},
    user_data="#cloud-config\n", **order,
)
assert made.server.status == "initializing" and made.root_password is None
assert [action.command for action in made.next_actions] == ["start_server"]
done(made.action, *made.next_actions)
[server] = client.servers.get_all(label_selector="vmkit.io/op=1")
assert (server.status, server.server_type.architecture, server.location.name) == ("running", "arm", "fsn1")
assert server.public_net.ipv4.ip.startswith("127.77.") and server.public_net.ipv6.ip.endswith("::/64")
assert (server.primary_disk_size, server.locked, server.created.year > 2000) == (40, False, True)
assert client.servers.get_by_name("a").id == server.id
assert server.update(labels={"x": "y"}).labels == {"x": "y"}, "labels are replaced whole"
assert server.update(name="b").name == "b" and client.servers.get_by_name("a") is None
server.update(name="a")

refused("uniqueness_error", lambda: client.servers.create(name="a", **order))
refused("invalid_input", lambda: client.servers.create(name="no name", **order))
refused("not_found", lambda: client.servers.get_by_id(1))

# --- power, size

refused("server_not_stopped", lambda: server.change_type(ServerType(name="cax21"), upgrade_disk=False))
done(server.power_off())
assert client.servers.get_by_id(server.id).status == "off"
refused("invalid_server_type", lambda: server.change_type(ServerType(name="cpx22"), upgrade_disk=False))
admin("knobs", {"sold_out_at_order": [{"size": "cax21"}]})
refused("resource_unavailable", lambda: server.change_type(ServerType(name="cax21"), upgrade_disk=False))
assert client.servers.get_by_id(server.id).status == "off", "a refused rescale leaves it off"
admin("knobs", {"sold_out_at_order": []})
done(server.change_type(ServerType(name="cax21"), upgrade_disk=True))
grown = client.servers.get_by_id(server.id)
assert (grown.status, grown.server_type.name, grown.primary_disk_size) == ("running", "cax21", 80)
for act in (server.power_off, server.power_on, server.reboot, server.reset, server.power_off):
    done(act())
refused("invalid_server_type", lambda: server.change_type(ServerType(name="cax11"), upgrade_disk=False))
done(server.power_on())
held = server.power_off()
refused("locked", server.power_on)
done(held)

# --- snapshots

taken = server.create_image(description="kept", type="snapshot", labels={"a": "b"})
assert (taken.image.type, taken.image.status, taken.image.image_size) == ("snapshot", "creating", None)
done(taken.action)
[snapshot] = client.images.get_all(type="snapshot", label_selector="a=b")
assert (snapshot.description, snapshot.status, snapshot.disk_size) == ("kept", "available", 80)
assert snapshot.image_size > 0 and snapshot.created_from.id == server.id and snapshot.architecture == "arm"
refused("invalid_input", lambda: client.servers.create(name="small", location=here,
        server_type=ServerType(name="cax11"), image=snapshot))
done(client.images.change_protection(snapshot, delete=True))
refused("protected", snapshot.delete)
done(client.images.change_protection(snapshot, delete=False))
done(server.rebuild(snapshot, user_data="#cloud-config\n").action)
done(server.rebuild(Image(name="debian-12")).action)

# --- addresses of their own

address = client.primary_ips.create(type="ipv4", name="own", location=here, labels={"c": "d"}).primary_ip
assert (address.assignee_type, address.assignee_id, address.auto_delete) == ("unassigned", None, False)
refused("uniqueness_error", lambda: client.primary_ips.create(type="ipv4", name="own", location=here))
refused("server_not_stopped", lambda: address.assign(server.id, "server"))
done(server.power_off())
refused("server_has_ipv4", lambda: address.assign(server.id, "server"))
[first] = client.primary_ips.get_list(ip=server.public_net.ipv4.ip).primary_ips
done(first.unassign())
first.delete()
done(address.assign(server.id, "server"))
assert client.servers.get_by_id(server.id).public_net.ipv4.ip == address.ip
refused("primary_ip_already_assigned", lambda: address.assign(server.id, "server"))
refused("must_be_unassigned", address.delete)
done(address.change_protection(delete=True))
done(server.delete())
refused("protected", address.delete)
done(address.change_protection(delete=False))
again = client.servers.create(name="again", location=here, server_type=ServerType(name="cax21"),
                              image=snapshot, public_net=ServerCreatePublicNetwork(ipv4=address))
done(again.action, *again.next_actions)
server = client.servers.get_by_id(again.server.id)
assert (server.public_net.ipv4.ip, server.image.id) == (address.ip, snapshot.id)
snapshot.delete()
assert client.servers.get_by_id(server.id).image is None

# --- firewalls, protection, what can be ordered

done(*firewall.apply_to_resources([FirewallResource(type="server", server=server)]))
[applied] = client.servers.get_by_id(server.id).public_net.firewalls
assert (applied.firewall.id, applied.status) == (firewall.id, "applied")
refused("resource_in_use", firewall.delete)
done(server.change_protection(delete=True, rebuild=True))
refused("protected", server.delete)
refused("protected", lambda: server.rebuild(Image(name="debian-12")))
done(server.change_protection(delete=False, rebuild=False))

assert len(client.server_types.get_all()) == 25
assert client.images.get_by_name_and_architecture("debian-13", "arm").architecture == "arm"
assert [location.name for location in client.locations.get_all()][:3] == ["fsn1", "nbg1", "hel1"]
refused("deprecated_api_endpoint", client.datacenters.get_all)

done(server.delete())
address.delete()
firewall.delete()
key.delete()

# --- 120 servers on pages

admin("knobs", {"action_ms": 0})
actions = []
for number in range(MANY):
    actions.append(client.servers.create(name=f"n{number}", location=here, start_after_create=False,
                                         **order).action)
done(*actions)
everyone = client.servers.get_all()
assert {one.name for one in everyone} == {f"n{number}" for number in range(MANY)}, len(everyone)
page = client.servers.get_list(page=3, per_page=50)
pages = page.meta.pagination
assert (len(page.servers), pages.total_entries, pages.last_page, pages.next_page) == (20, MANY, 3, None)
assert [one.name for one in client.servers.get_list(per_page=2).servers] == ["n0", "n1"]
deletions = [one.delete() for one in everyone]
done(*deletions)

# --- limits, tokens, faults

admin("knobs", {"server_limit": 0})
refused("resource_limit_exceeded", lambda: client.servers.create(name="x", **order))
admin("knobs", {"server_limit": None, "read_only_token": True})
refused("token_readonly", lambda: client.servers.create(name="x", **order))
admin("knobs", {"read_only_token": False})
stranger = Client(token="another", api_endpoint=sys.argv[1])
refused("unauthorized", stranger.servers.get_all)
for status, code in FAULTS.items():
    admin("faults", {"path_regex": "/locations$", "action": {"kind": "status", "code": status}, "times": 1})
    # One that does not try again, since the client would get over some of them.
    hasty = Client(token=sys.argv[2], api_endpoint=sys.argv[1])
    hasty._client._retry_max_retries = 0
    refused(code, hasty.locations.get_all)
assert len(client.locations.get_all()) >= 3, "and then it works again"
# The client waits such a limit out, and says so once it has tried often enough.
admin("faults", {"path_regex": "/servers$", "action": {"kind": "rate_limit", "reset_seconds": 1}, "times": 1})
assert client.servers.get_all() == []
admin("faults", {"path_regex": "/servers$", "action": {"kind": "rate_limit", "reset_seconds": 1}})
client._client._retry_interval_func = lambda _: 0.01
refused("rate_limit_exceeded", client.servers.get_all)
admin("faults", None, "DELETE")

assert not client.servers.get_all() and not client.primary_ips.get_all()
assert not client.images.get_all(type="snapshot")
print("ok")
