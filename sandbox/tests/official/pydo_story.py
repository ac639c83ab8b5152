"""A droplet's life with the official DigitalOcean client (PyPI `pydo`), on its typed exceptions.

Usage: python3 pydo_story.py URL TOKEN
"""

import json
import sys
import time
import urllib.request

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import SansIOHTTPPolicy
from pydo import Client

URL, TOKEN = sys.argv[1], sys.argv[2]
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " test"
ANYWHERE = {"addresses": ["0.0.0.0/0", "::/0"]}
DEADLINE = 60


class AllowHttp(SansIOHTTPPolicy):
    """azure-core sends no bearer token over plain HTTP otherwise."""

    def on_request(self, request):
        request.context.options["enforce_https"] = False


def admin(path, body):
    """The simulator's side door, past the client."""
    request = urllib.request.Request(
        f"{URL}/_sandbox/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()


def knobs(**changed):
    admin("knobs", changed)


def fault(path, kind, times=1, **action):
    admin("faults", {"path_regex": path, "action": {"kind": kind, **action}, "times": times})


def refused(kind, status, id, call, planted=False):
    """Most refusals raise; pydo hands 401, 404, 429 and 500 back as what they are in JSON."""
    try:
        answer = call()
    except kind as error:
        assert error.status_code == status, (error.status_code, error.message)
        assert error.response.json()["id"] == id, error.response.json()
        # Faults that stand in front of the simulator carry no headers of its own.
        assert planted or error.response.headers["ratelimit-limit"] == "5000"
    else:
        assert status in (401, 404, 429, 500), answer
        assert answer["id"] == id and answer["message"], answer


def until(what, ask):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {DEADLINE} s")


def finished(action):
    def ended():
        now = client.actions.get(action_id=action["id"])["action"]
        return now if now["status"] != "in-progress" else None

    now = until("the action's end", ended)
    assert now["status"] == "completed" and now["completed_at"], now


def act(droplet, **body):
    finished(client.droplet_actions.post(droplet_id=droplet, body=body)["action"])


client = Client(token=TOKEN, endpoint=URL, headers_policy=AllowHttp(), retry_total=0)
knobs(per_minute=100000, droplet_limit=200, action_ms=5)
account = client.account.get()["account"]
assert account["email_verified"] and account["status"] == "active"
assert "s-2vcpu-4gb" in [size["slug"] for size in client.sizes.list()["sizes"]]
assert "fra1" in [region["slug"] for region in client.regions.list()["regions"]]
images = client.images.list(type="distribution")["images"]
assert "debian-13-x64" in [image["slug"] for image in images]

key = client.ssh_keys.create(body={"name": "k", "public_key": PUBLIC_KEY})["ssh_key"]
assert client.ssh_keys.get(key["fingerprint"])["ssh_key"]["id"] == key["id"]
order = {
    "name": "vmkit-a", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64",
    "ssh_keys": [key["id"]], "tags": ["vmkit"], "user_data": "#cloud-config\n", "ipv6": True,
}
made = client.droplets.create(body=order)
droplet = made["droplet"]["id"]
assert made["droplet"]["status"] == "new" and made["droplet"]["networks"]["v4"] == []
[link] = made["links"]["actions"]
assert link["rel"] == "create"
finished(link)
[seen] = client.droplets.list(tag_name="vmkit")["droplets"]
assert seen["status"] == "active" and seen["size_slug"] == "s-1vcpu-1gb"
[public] = [net for net in seen["networks"]["v4"] if net["type"] == "public"]
assert public["ip_address"].startswith("127.77.")
assert seen["networks"]["v6"][0]["ip_address"].startswith("2001:db8:")
assert client.droplets.list(name="vmkit-a")["meta"]["total"] == 1
assert client.droplets.list(name="vmkit")["meta"]["total"] == 0

wall = client.firewalls.create(body={
    "name": "vmkit-web", "tags": ["vmkit"],
    "inbound_rules": [{"protocol": "tcp", "ports": "443", "sources": ANYWHERE}],
    "outbound_rules": [{"protocol": "tcp", "ports": "all", "destinations": ANYWHERE}],
})["firewall"]
assert wall["tags"] == ["vmkit"] and wall["outbound_rules"][0]["ports"] == "0"

refused(HttpResponseError, 422, "unprocessable_entity", lambda: client.droplets.create(
    body={**order, "size": "cpx22"}))
refused(HttpResponseError, 422, "unprocessable_entity", lambda: client.droplets.create(
    body={**order, "name": "no name"}))
refused(HttpResponseError, 422, "unprocessable_entity", lambda: client.ssh_keys.create(
    body={"name": "l", "public_key": PUBLIC_KEY}))
refused(HttpResponseError, 422, "unprocessable_entity", lambda: client.droplet_actions.post(
    droplet_id=droplet, body={"type": "resize", "size": "s-2vcpu-4gb", "disk": False}))
refused(ResourceNotFoundError, 404, "not_found", lambda: client.droplets.get(droplet_id=1))
act(droplet, type="power_off")
act(droplet, type="resize", size="s-2vcpu-4gb", disk=False)
resized = client.droplets.get(droplet_id=droplet)["droplet"]
assert (resized["status"], resized["size_slug"], resized["disk"]) == ("off", "s-2vcpu-4gb", 25)
act(droplet, type="snapshot", name="kept")
for kind in ("power_on", "reboot", "power_cycle"):
    act(droplet, type=kind)
act(droplet, type="rename", name="vmkit-b")
act(droplet, type="rebuild", image="debian-12-x64")
assert client.droplets.get(droplet_id=droplet)["droplet"]["image"]["slug"] == "debian-12-x64"

[snapshot] = client.snapshots.list(resource_type="droplet")["snapshots"]
assert (snapshot["name"], snapshot["resource_id"]) == ("kept", str(droplet))
assert client.tags.create(body={"name": "vmkit-disk"})["tag"]["name"] == "vmkit-disk"
client.tags.assign_resources("vmkit-disk", body={"resources": [
    {"resource_id": snapshot["id"], "resource_type": "image"}]})
assert client.snapshots.get(snapshot["id"])["snapshot"]["tags"] == ["vmkit-disk"]
client.snapshots.delete(snapshot["id"])

ip = client.reserved_ips.create(body={"droplet_id": droplet})["reserved_ip"]["ip"]
until("the address arrives", lambda: client.reserved_ips.get(ip)["reserved_ip"]["droplet"])
finished(client.reserved_ips_actions.post(ip, body={"type": "unassign"})["action"])
client.reserved_ips.delete(ip)

assert client.domains.create(body={"name": "example.com"})["domain"]["name"] == "example.com"
record = client.domains.create_record(
    "example.com", body={"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 1800})
record = record["domain_record"]
found = client.domains.list_records("example.com", type="A", name="www.example.com")
assert [one["id"] for one in found["domain_records"]] == [record["id"]]
client.domains.patch_record("example.com", record["id"], body={"type": "A", "data": "192.0.2.2"})
assert client.domains.get_record("example.com", record["id"])["domain_record"]["data"] == "192.0.2.2"
client.domains.delete_record("example.com", record["id"])
client.domains.delete("example.com")

names = {f"page-{number:03}" for number in range(120)}
todo = sorted(names)
many = {"region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "tags": ["many"]}
while todo:
    batch, todo = todo[:10], todo[10:]
    made = client.droplets.create(body={"names": batch, **many})
    assert len(made["droplets"]) == len(made["links"]["actions"]) == len(batch)
    for link in made["links"]["actions"]:
        finished(link)
seen, page = set(), 1
while page:
    answer = client.droplets.list(tag_name="many", per_page=50, page=page)
    assert answer["meta"]["total"] == 120
    seen |= {one["name"] for one in answer["droplets"]}
    page = page + 1 if "next" in answer["links"].get("pages", {}) else None
assert seen == names, len(seen)

knobs(droplet_limit=121)
refused(HttpResponseError, 422, "unprocessable_entity", lambda: client.droplets.create(body=order))
knobs(scopes=["droplet:read"])
assert client.droplets.get(droplet_id=droplet)["droplet"]["id"] == droplet
refused(HttpResponseError, 403, "forbidden", lambda: client.droplets.create(body=order))
knobs(scopes=None)
stranger = Client(token="another", endpoint=URL, headers_policy=AllowHttp(), retry_total=0)
refused(ClientAuthenticationError, 401, "unauthorized", stranger.account.get)
knobs(per_minute=0)
refused(HttpResponseError, 429, "too_many_requests", client.account.get)
knobs(per_minute=100000)

# --- every error that DigitalOcean has, where it cannot be had by asking wrongly; a lost answer

PLANTED = (
    (HttpResponseError, 400, "bad_request"), (ClientAuthenticationError, 401, "unauthorized"),
    (HttpResponseError, 403, "forbidden"), (ResourceNotFoundError, 404, "not_found"),
    (ResourceExistsError, 409, "conflict"), (HttpResponseError, 422, "unprocessable_entity"),
    (HttpResponseError, 429, "too_many_requests"), (HttpResponseError, 500, "server_error"),
    (HttpResponseError, 502, "server_error"), (HttpResponseError, 503, "service_unavailable"),
)
for kind, status, id in PLANTED:
    fault("/v2/droplets$", "status", code=status)
    refused(kind, status, id, client.droplets.list, planted=True)
    assert client.droplets.list(name="vmkit-b")["meta"]["total"] == 1, "and then it works again"
fault("/v2/droplets$", "rate_limit", reset_seconds=60)
refused(HttpResponseError, 429, "too_many_requests", client.droplets.list, planted=True)
fault("/v2/tags$", "drop_after")
try:
    client.tags.create(body={"name": "twice"})
except ServiceResponseError:
    assert "twice" in [tag["name"] for tag in client.tags.list()["tags"]], "it happened all the same"
else:
    raise AssertionError("an answer that never came was read")

client.droplets.destroy_by_tag(tag_name="many")
client.droplets.destroy(droplet_id=droplet)
client.firewalls.delete(wall["id"])
client.ssh_keys.delete(key["id"])
for tag in client.tags.list()["tags"]:
    client.tags.delete(tag["name"])
until("all droplets are gone", lambda: not client.droplets.list()["droplets"])
print("ok")
